//! The transcript of a live stream: a journal while it goes on, the finished file behind it.
//!
//! In: finals. Out: `FILE.journal`, which has each before it is printed; then FILE, in order of time. What the disk does not take
//! waits and is tried again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cuewire::caption::CaptionEvent;
use cuewire::transcript::{Fragment, Journal, Recovered, Sync};

use crate::complain;

/// How often what waits is tried again.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Record {
    journal: Journal,
    target: PathBuf,
    waiting: VecDeque<Fragment>,
    /// When it was last tried in vain.
    failed: Option<Instant>,
}

impl Record {
    /// Goes on with the journal of a run that was interrupted, or begins one. A transcript that is there is kept.
    pub(crate) fn open(target: &Path, sync: Sync) -> Result<Self, String> {
        let free = || match target.metadata() {
            Ok(there) if there.len() > 0 || !there.is_file() => {
                Err(format!("{} is there already: name another file, or move it away", target.display()))
            }
            _ => Ok(()),
        };
        free()?;
        let mut path = target.as_os_str().to_os_string();
        path.push(".journal");
        let (journal, recovered) = Journal::open(Path::new(&path), sync).map_err(|error| error.to_string())?;
        // Another one may have finished while this one waited for the journal.
        if let Err(error) = free() {
            if journal.fragments() == 0 {
                let _ = std::fs::remove_file(&path);
            }
            return Err(error);
        }
        let Recovered { fragments, cut_bytes, unreadable, .. } = recovered;
        if fragments + cut_bytes + unreadable > 0 {
            complain(&format!(
                "goes on with {}: {fragments} captions are there, {cut_bytes} bytes of one that was not written were cut \
                 off, {unreadable} lines cannot be read",
                journal.path().display()
            ));
        }
        Ok(Self { journal, target: target.to_path_buf(), waiting: VecDeque::new(), failed: None })
    }

    /// Takes a final.
    pub(crate) fn take(&mut self, event: &CaptionEvent) {
        if let CaptionEvent::Final { start_time, end_time, speaker_id, text, .. } = event {
            self.waiting.push_back(Fragment {
                start_time: *start_time,
                stop_time: *end_time,
                speaker_id: speaker_id.to_string(),
                text: text.clone(),
                ..Fragment::default()
            });
            self.write();
        }
    }

    /// When [`write`](Self::write) has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.failed.map(|failed| failed + AGAIN).or_else(|| self.journal.sync_due())
    }

    /// Writes what waits, where it is time to.
    pub(crate) fn write(&mut self) {
        if self.failed.is_some_and(|failed| failed.elapsed() < AGAIN) {
            return;
        }
        let result = self.write_all().and_then(|()| self.journal.sync_if_due().map_err(|error| error.to_string()));
        match (result, self.failed.take()) {
            (Ok(()), Some(_)) => complain("the captions that waited are written"),
            (Ok(()), None) => {}
            (Err(error), before) => {
                if before.is_none() {
                    complain(&format!("{error}; captions wait until then"));
                }
                self.failed = Some(Instant::now());
            }
        }
    }

    fn write_all(&mut self) -> Result<(), String> {
        while let Some(fragment) = self.waiting.front() {
            self.journal.append(fragment).map_err(|error| error.to_string())?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Writes the finished file.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        let path = self.journal.path().display().to_string();
        self.write_all().map_err(|error| format!("{error}; {} captions are not in {path}", self.waiting.len()))?;
        self.journal.finish(&self.target).map_err(|error| format!("{error}; every caption is in {path}"))
    }
}
