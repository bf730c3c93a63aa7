//! Traces of any bytes, and of any session.

use std::collections::VecDeque;
use std::io::{self, BufReader, Cursor, Read, Write};

use super::session::{Run, Way};
use crate::caption::CaptionEvent;
use crate::session::trace::{TraceReader, TraceWriter};
use crate::session::{Output, Session};

/// Records of one trace that are played.
const MOST_STEPS: usize = 2_000;
const PIECE_BYTES: usize = 1 << 20;

/// What was written. In pieces: minutes of audio are longer as a trace than anything that a target may allocate at once.
#[derive(Default)]
struct Pieces(VecDeque<Cursor<Vec<u8>>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.back().is_none_or(|last| last.get_ref().len() + bytes.len() > PIECE_BYTES) {
            self.0.push_back(Cursor::new(Vec::with_capacity(PIECE_BYTES)));
        }
        self.0.back_mut().map_or(Ok(()), |last| last.get_mut().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(first) = self.0.front_mut() {
            match first.read(buffer)? {
                0 if !buffer.is_empty() => drop(self.0.pop_front()),
                read => return Ok(read),
            }
        }
        Ok(0)
    }
}

/// Plays `data` as a trace, or records the session that it describes and plays that.
///
/// # Panics
/// Where a trace that was written cannot be read, or does not give the same captions.
pub fn trace(data: &[u8]) {
    match data.split_first() {
        Some((0, run)) => replays(&Run::parse(run)),
        _ => any(data),
    }
}

fn any(data: &[u8]) {
    let Ok(mut reader) = TraceReader::new(data) else { return };
    for _ in 0..MOST_STEPS {
        match reader.step(drop) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                drop(error.to_string());
                break;
            }
        }
        let (accounting, end) = (reader.session().accounting(), reader.session().end());
        assert!(accounting.total() >= end.0, "every sample is accounted for: {accounting:?}");
    }
}

fn replays(run: &Run) {
    let session = Session::with_vad("fuzz", run.config.clone(), run.vad());
    let mut trace = TraceWriter::new(Pieces::default(), &session).expect("memory takes what is written");
    let told = run.play(&Way { cuts: None, answers_at_once: false }, Some(&mut trace));
    let written = BufReader::new(trace.into_inner());
    let mut reader = TraceReader::with_vad(written, |_| run.vad()).expect("what was written can be read");
    let mut captions = Vec::new();
    let keep = |output| match output {
        Output::Event(
            CaptionEvent::Interim { .. } | CaptionEvent::Retracted { .. } | CaptionEvent::Translation { .. },
        ) => None,
        Output::Event(event) => Some(event),
        _ => None,
    };
    while reader.step(|output| captions.extend(keep(output))).expect("what was written can be read").is_some() {}
    assert_eq!(captions, told.captions, "a replay says the same");
    assert_eq!(reader.session().accounting(), told.accounting, "and makes the same of the samples");
}
