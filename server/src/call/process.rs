//! Transcription and captions: two processes that hear the same.
//!
//! In: starts, stops, captions. Out: what the processes say, and how tracks are to be heard.
//!
//! A caption belongs to the run in which it started. Each start and stop has a number, a mark, and a caption carries that of the
//! last one before it opened: so no two clocks are compared. A stop answers at once, and its run goes on until every caption that
//! was open then is final.

use cuewire::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::grants::Capability;
use super::settings::{Mode, Recognition, RecognitionPatch};
use super::{Actor, Call, CallError, Effect, Env, Event};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Process {
    /// A file at the end.
    Transcription,
    /// Events while people speak.
    Captions,
}

impl Process {
    fn other(self) -> Self {
        match self {
            Self::Transcription => Self::Captions,
            Self::Captions => Self::Transcription,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Transcription => "transcription",
            Self::Captions => "closed captions",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Transcription => "mode",
            Self::Captions => "closed_caption_mode",
        }
    }

    fn start_capability(self) -> Capability {
        match self {
            Self::Transcription => Capability::StartTranscription,
            Self::Captions => Capability::StartClosedCaptions,
        }
    }

    fn stop_capability(self) -> Capability {
        match self {
            Self::Transcription => Capability::StopTranscription,
            Self::Captions => Capability::StopClosedCaptions,
        }
    }
}

/// From a start to the stop behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Which process.
    pub process: Process,
    /// Names it.
    pub egress_id: String,
    /// Of which session.
    pub session_id: String,
    /// Since when.
    pub from: Timestamp,
    /// Until when, where it was stopped.
    pub to: Option<Timestamp>,
    /// Of a transcription: which storage its file goes to, where it is not the default one.
    #[serde(default)]
    pub storage: Option<String>,
    /// Captions from this mark on are its own,
    from_mark: u64,
    /// and none from this one on, where it was stopped.
    to_mark: Option<u64>,
    /// Whether somebody stopped it.
    explicit: bool,
}

impl Run {
    fn holds(&self, mark: u64) -> bool {
        self.from_mark <= mark && self.to_mark.is_none_or(|to| mark < to)
    }
}

/// What runs, and what has been stopped and still has open captions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// In the order of their starts.
    runs: Vec<Run>,
    /// How tracks are heard while anything runs.
    recognition: Option<Recognition>,
    mark: u64,
}

impl Runs {
    /// The run of a process that was started and not stopped.
    #[must_use]
    pub fn of(&self, process: Process) -> Option<&Run> {
        self.runs.iter().find(|run| run.process == process && run.to.is_none())
    }

    /// How tracks are heard; `None` where nothing runs.
    #[must_use]
    pub fn recognition(&self) -> Option<&Recognition> {
        self.recognition.as_ref()
    }

    /// The mark that captions carry which open now.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Whether anything was started and not stopped.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.runs.iter().any(|run| run.to.is_none())
    }

    /// Whether a caption that opened at this mark is shown when it is final, or before.
    #[must_use]
    pub fn shows(&self, mark: u64) -> bool {
        self.run(Process::Captions, mark).is_some()
    }

    fn run(&self, process: Process, mark: u64) -> Option<&Run> {
        self.runs.iter().find(|run| run.process == process && run.holds(mark))
    }
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Caption {
    /// Names it.
    pub id: String,
    /// Who spoke.
    pub speaker_id: String,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended.
    pub end_time: Timestamp,
    /// What was said.
    pub text: String,
    /// The language of `text`.
    pub language: String,
    /// Whether `text` is a translation.
    pub translated: bool,
    /// Where it comes from, if not from here.
    pub service: Option<String>,
}

/// What is known of a caption that is still open: no part of a call, and told to those who watch.
#[derive(Clone, Debug)]
pub enum Interim {
    /// What was said so far.
    Text {
        /// As it would be shown.
        caption: Caption,
        /// Counts from 1.
        revision: u32,
        /// Characters that no later interim changes.
        stable_chars: usize,
    },
    /// It comes to nothing.
    Retracted {
        /// The caption.
        id: String,
        /// Why.
        reason: String,
    },
}

impl Call {
    pub(super) fn start(
        &mut self,
        env: &mut Env<'_>,
        actor: &Actor,
        process: Process,
        patch: &RecognitionPatch,
        with_other: bool,
        storage: Option<String>,
    ) -> Result<(), CallError> {
        let wanted = [Some(process), with_other.then(|| process.other())];
        for process in wanted.iter().copied().flatten() {
            self.require(env, actor, process.start_capability())?;
        }
        if self.ended_at.is_some() {
            return Err(CallError::Input(format!("the call {} has ended", self.cid)));
        }
        let leaves = self.leaves(env.call_type);
        for process in wanted.iter().copied().flatten() {
            let mode = if process == Process::Transcription { leaves.mode } else { leaves.closed_caption_mode };
            if mode == Some(Mode::Disabled) {
                let (name, setting) = (process.name(), process.setting());
                return Err(CallError::Input(format!(
                    "{name} of this call: settings.transcription.{setting} is disabled"
                )));
            }
        }
        if self.runs.of(process).is_some() {
            return Err(CallError::Input(format!("{} of this call: it runs already", process.name())));
        }
        let mut recognition = self.runs.recognition.clone().unwrap_or_else(|| self.recognition(env.call_type));
        patch.apply_to(&mut recognition);
        (env.check)(&recognition).map_err(CallError::Input)?;
        self.open_session(env);
        self.start_runs(env, wanted.into_iter().flatten(), Some(recognition), storage);
        Ok(())
    }

    /// Starts those that do not run.
    pub(super) fn start_runs(
        &mut self,
        env: &mut Env<'_>,
        processes: impl IntoIterator<Item = Process>,
        recognition: Option<Recognition>,
        storage: Option<String>,
    ) {
        let storage = storage.or(env.call_type.external_storage.clone());
        let Some(session_id) = self.session.as_ref().map(|session| session.id().to_string()) else { return };
        let new: Vec<_> = processes.into_iter().filter(|process| self.runs.of(*process).is_none()).collect();
        if new.is_empty() {
            return;
        }
        let recognition = recognition.or(self.runs.recognition.take());
        self.runs.recognition = recognition.or_else(|| Some(self.recognition(env.call_type)));
        self.runs.mark += 1;
        let from_mark = self.runs.mark;
        let run = |process| Run {
            process,
            egress_id: (env.new_id)(),
            session_id: session_id.clone(),
            // A run is its call's by its time, also where the clock was set back in between.
            from: env.now.max(self.created_at),
            to: None,
            storage: storage.clone().filter(|_| process == Process::Transcription),
            from_mark,
            to_mark: None,
            explicit: false,
        };
        let new: Vec<_> = new.into_iter().map(run).collect();
        self.runs.runs.extend(new.iter().cloned());
        self.hear();
        for run in new {
            let (process, egress_id) = (run.process, run.egress_id.clone());
            if process == Process::Transcription {
                self.want(Effect::OpenTranscript(run));
            }
            self.tell(Event::ProcessStarted { process, egress_id });
        }
    }

    pub(super) fn stop(
        &mut self,
        env: &mut Env<'_>,
        actor: &Actor,
        process: Process,
        with_other: bool,
    ) -> Result<(), CallError> {
        self.require(env, actor, process.stop_capability())?;
        if with_other {
            self.require(env, actor, process.other().stop_capability())?;
        }
        if self.runs.of(process).is_none() {
            return Err(CallError::Input(format!("{} of this call: it does not run", process.name())));
        }
        self.stop_runs(env, [Some(process), with_other.then(|| process.other())].into_iter().flatten());
        Ok(())
    }

    /// Stops those that run: each says so behind its last caption.
    pub(super) fn stop_runs(&mut self, env: &mut Env<'_>, processes: impl IntoIterator<Item = Process>) {
        let mark = self.runs.mark + 1;
        for process in processes {
            let mut runs = self.runs.runs.iter_mut();
            let Some(run) = runs.find(|run| run.process == process && run.to.is_none()) else { continue };
            (run.to, run.to_mark, run.explicit) = (Some(env.now), Some(mark), true);
            self.runs.mark = mark;
            if let Some(session) = &mut self.session {
                session.stopped.insert(process);
            }
        }
        if self.runs.mark == mark {
            if !self.runs.is_any() {
                self.runs.recognition = None;
            }
            self.hear();
        }
    }

    /// Every caption that opened before this mark is final: what was stopped by then is over.
    pub(super) fn passed(&mut self, env: &mut Env<'_>, mark: u64) {
        let over = self.take_runs(|run| run.to_mark.is_some_and(|to| to <= mark));
        for transcript in self.finish(env, over) {
            self.want(transcript);
        }
    }

    pub(super) fn pass_all(&mut self, env: &mut Env<'_>) {
        self.passed(env, u64::MAX);
    }

    /// The session ends, and every caption is final. What is to be done with transcripts, behind the session's end.
    pub(super) fn end_runs(&mut self, env: &mut Env<'_>) -> Vec<Effect> {
        if self.runs.recognition.take().is_some() {
            self.hear();
        }
        let over = self.take_runs(|_| true);
        self.finish(env, over)
    }

    /// Captions before transcriptions: so they say that they are over.
    fn take_runs(&mut self, is_over: impl Fn(&Run) -> bool) -> Vec<Run> {
        let (mut over, runs): (Vec<_>, _) = std::mem::take(&mut self.runs.runs).into_iter().partition(is_over);
        self.runs.runs = runs;
        over.sort_by_key(|run| run.process == Process::Transcription);
        over
    }

    /// Says what is to be said of runs that are over. A transcription that was not stopped ends without a word.
    fn finish(&mut self, env: &Env<'_>, over: Vec<Run>) -> Vec<Effect> {
        let mut transcripts = Vec::new();
        for Run { process, egress_id, session_id, from, to, explicit, .. } in over {
            if explicit || process == Process::Captions {
                self.tell(Event::ProcessStopped { process, egress_id: egress_id.clone() });
            }
            if process == Process::Transcription {
                let end_time = to.unwrap_or(env.now);
                transcripts.push(Effect::CloseTranscript { egress_id, session_id, start_time: from, end_time });
            }
        }
        transcripts
    }

    /// Recognition broke: what runs has failed, and what was heard by then is kept.
    pub(super) fn failed(&mut self, env: &mut Env<'_>, error: &str) {
        if self.runs.recognition.take().is_some() {
            self.hear();
        }
        for Run { process, egress_id, session_id, from, to, .. } in self.take_runs(|_| true) {
            let egress = egress_id.clone();
            self.tell(if to.is_some() {
                // It had all but its last caption.
                Event::ProcessStopped { process, egress_id: egress }
            } else {
                Event::ProcessFailed { process, egress_id: egress, error: error.to_string() }
            });
            if process == Process::Transcription {
                let end_time = to.unwrap_or(env.now);
                self.want(Effect::CloseTranscript { egress_id, session_id, start_time: from, end_time });
            }
        }
    }

    /// An explicit write, which what runs takes up.
    pub(super) fn recognise_also(&mut self, patch: &RecognitionPatch) {
        if let Some(mut recognition) = self.runs.recognition.clone() {
            patch.apply_to(&mut recognition);
            self.recognise(recognition);
        }
    }

    fn recognise(&mut self, recognition: Recognition) {
        if self.runs.recognition.as_ref() != Some(&recognition) {
            self.runs.recognition = Some(recognition);
            self.hear();
        }
    }

    /// Says how tracks are heard from now on. Translations are captions: a transcript has none.
    pub(super) fn hear(&mut self) {
        let mut recognition = self.runs.recognition.clone();
        if let Some(recognition) = &mut recognition {
            recognition.translate &= self.runs.of(Process::Captions).is_some();
        }
        self.want(Effect::Hear { recognition, mark: self.runs.mark });
    }

    /// A caption of this call's own.
    pub(super) fn heard(&mut self, caption: Caption, mark: u64) {
        let transcript = self.runs.run(Process::Transcription, mark).map(|run| run.egress_id.clone());
        let is_shown = self.runs.shows(mark);
        self.show(caption, transcript, is_shown);
    }

    pub(super) fn send_caption(&mut self, env: &Env<'_>, actor: &Actor, caption: Caption) -> Result<(), CallError> {
        self.require(env, actor, Capability::SendClosedCaptions)?;
        if self.runs.of(Process::Captions).is_none() {
            return Err(CallError::Input("closed captions of this call: they do not run".into()));
        }
        let transcript = self.runs.of(Process::Transcription).map(|run| run.egress_id.clone());
        self.show(caption, transcript, true);
        Ok(())
    }

    fn show(&mut self, caption: Caption, transcript: Option<String>, is_shown: bool) {
        if let Some(egress_id) = transcript.filter(|_| !caption.translated) {
            self.want(Effect::AppendTranscript { egress_id, caption: caption.clone() });
        }
        if is_shown {
            self.tell(Event::ClosedCaption(caption));
        }
    }
}
