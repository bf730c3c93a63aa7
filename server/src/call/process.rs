//! Transcription and captions: two processes that hear the same.
//!
//! In: starts, stops, captions. Out: what the processes say, and how tracks are to be heard.
//!
//! A caption belongs to the run in which it started. So a stop answers at once, and its run goes on until every caption that was
//! open then is final.

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
    /// Until which barrier it goes on, where it was stopped.
    barrier: Option<u64>,
    /// Whether somebody stopped it.
    explicit: bool,
}

impl Run {
    fn holds(&self, start_time: Timestamp) -> bool {
        self.from <= start_time && self.to.is_none_or(|to| start_time < to)
    }
}

/// What runs, and what has been stopped and still has open captions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// In the order of their starts.
    runs: Vec<Run>,
    /// How tracks are heard while anything runs.
    recognition: Option<Recognition>,
    barriers: u64,
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

    /// Whether anything was started and not stopped.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.runs.iter().any(|run| run.to.is_none())
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

impl Call {
    pub(super) fn start(
        &mut self,
        env: &mut Env<'_>,
        actor: &Actor,
        process: Process,
        patch: &RecognitionPatch,
        with_other: bool,
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
        self.recognise(recognition);
        for process in wanted.into_iter().flatten() {
            self.start_run(env, process);
        }
        Ok(())
    }

    /// Starts a process, unless it runs.
    pub(super) fn start_run(&mut self, env: &mut Env<'_>, process: Process) {
        let Some(session_id) = self.session.as_ref().map(|session| session.id().to_string()) else { return };
        if self.runs.of(process).is_some() {
            return;
        }
        if self.runs.recognition.is_none() {
            self.recognise(self.recognition(env.call_type));
        }
        let egress_id = (env.new_id)();
        let run = Run {
            process,
            egress_id: egress_id.clone(),
            session_id,
            from: env.now,
            to: None,
            barrier: None,
            explicit: false,
        };
        self.runs.runs.push(run.clone());
        if process == Process::Transcription {
            self.want(Effect::OpenTranscript(run));
        }
        self.tell(Event::ProcessStarted { process, egress_id });
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
        self.stop_run(env, process, true);
        if with_other {
            self.stop_run(env, process.other(), true);
        }
        Ok(())
    }

    /// Stops a process, if it runs: it says so behind its last caption.
    pub(super) fn stop_run(&mut self, env: &mut Env<'_>, process: Process, explicit: bool) {
        let barrier = self.runs.barriers;
        let Some(run) = self.runs.runs.iter_mut().find(|run| run.process == process && run.to.is_none()) else {
            return;
        };
        (run.to, run.barrier, run.explicit) = (Some(env.now), Some(barrier), explicit);
        self.runs.barriers += 1;
        if let Some(session) = self.session.as_mut().filter(|_| explicit) {
            session.stopped.push(process);
        }
        self.want(Effect::Barrier { barrier });
        if !self.runs.is_any() {
            self.runs.recognition = None;
            self.want(Effect::Recognise(None));
        }
    }

    /// Every caption that was open at a barrier is final: what was stopped then is over.
    pub(super) fn passed(&mut self, env: &mut Env<'_>, barrier: u64) {
        let over = self.take_runs(|run| run.barrier.is_some_and(|of| of <= barrier));
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
            self.want(Effect::Recognise(None));
        }
        let mut over = self.take_runs(|_| true);
        over.sort_by_key(|run| run.process == Process::Transcription);
        self.finish(env, over)
    }

    fn take_runs(&mut self, is_over: impl Fn(&Run) -> bool) -> Vec<Run> {
        let (over, runs) = std::mem::take(&mut self.runs.runs).into_iter().partition(is_over);
        self.runs.runs = runs;
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
            self.want(Effect::Recognise(None));
        }
        for Run { process, egress_id, session_id, from, to, .. } in self.take_runs(|_| true) {
            let error = error.to_string();
            self.tell(Event::ProcessFailed { process, egress_id: egress_id.clone(), error });
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
            self.runs.recognition = Some(recognition.clone());
            self.want(Effect::Recognise(Some(recognition)));
        }
    }

    /// A caption of this call's own.
    pub(super) fn heard(&mut self, caption: Caption) {
        let run = |process| self.runs.runs.iter().find(|run| run.process == process && run.holds(caption.start_time));
        let transcript = run(Process::Transcription).map(|run| run.egress_id.clone()).filter(|_| !caption.translated);
        let is_shown = run(Process::Captions).is_some();
        self.show(caption, transcript, is_shown);
    }

    pub(super) fn send_caption(&mut self, env: &Env<'_>, actor: &Actor, caption: Caption) -> Result<(), CallError> {
        self.require(env, actor, Capability::SendClosedCaptions)?;
        if self.runs.of(Process::Captions).is_none() {
            return Err(CallError::Input("closed captions of this call: they do not run".into()));
        }
        let transcript = self.runs.of(Process::Transcription).map(|run| run.egress_id.clone());
        self.show(caption.clone(), transcript.filter(|_| !caption.translated), true);
        Ok(())
    }

    fn show(&mut self, caption: Caption, transcript: Option<String>, is_shown: bool) {
        if let Some(egress_id) = transcript {
            self.want(Effect::AppendTranscript { egress_id, caption: caption.clone() });
        }
        if is_shown {
            self.tell(Event::ClosedCaption(caption));
        }
    }
}
