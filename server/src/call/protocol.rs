//! What a call is told, what it says, and what it wants.
//!
//! In: [`Command`]s of somebody, [`Input`]s of what happened, each with an [`Env`]. Out: [`Event`]s and [`Effect`]s; or a
//! [`CallError`], and nothing has changed.

use cuewire::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::grants::Capabilities;
#[cfg(doc)]
use super::grants::Capability;
use super::settings::{Recognition, RecognitionPatch, Settings, SettingsError};
use super::{Call, CallType, Caption, Member, Participant, Process, Run, User};

/// What a command or an input finds around it.
pub struct Env<'a> {
    /// UTC.
    pub now: Timestamp,
    /// The call's type, as it is now.
    pub call_type: &'a CallType,
    /// Makes an id that nobody has.
    pub new_id: &'a mut dyn FnMut() -> String,
    /// Whether speech can be recognised like this; else why not, as a sentence.
    pub check: &'a dyn Fn(&Recognition) -> Result<(), String>,
    /// Seconds that a session waits for its first participant.
    pub first_participant_s: u32,
}

/// What somebody wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// To see the call.
    Read,
    /// To change its data.
    Update {
        /// Settings of its own.
        settings: Settings,
        /// Whatever the platform keeps here; in place of what was there.
        custom: Option<Map<String, Value>>,
        /// When it is to start.
        starts_at: Option<Timestamp>,
    },
    /// To change its members.
    UpdateMembers {
        /// Those who are added or changed. A role that grants what one may not oneself needs
        /// [`Capability::UpdateCallPermissions`] too.
        update: Vec<(String, Member)>,
        /// Those who are removed.
        remove: Vec<String>,
    },
    /// To change what somebody may.
    UpdatePermissions {
        /// Who.
        user: User,
        /// Capabilities that they get.
        grant: Vec<String>,
        /// Capabilities that they lose.
        revoke: Vec<String>,
    },
    /// To be heard; a second connection of the same user replaces the first.
    Join,
    /// To start a process.
    Start {
        /// Which.
        process: Process,
        /// How speech is recognised.
        recognition: RecognitionPatch,
        /// Whether the other one is to run as well.
        with_other: bool,
        /// Which storage a transcript goes to, where it is not the call type's.
        storage: Option<String>,
    },
    /// To stop a process.
    Stop {
        /// Which.
        process: Process,
        /// Whether the other one is to stop as well.
        with_other: bool,
    },
    /// To show a caption from elsewhere.
    SendCaption(Caption),
    /// To see which transcripts there are.
    ListTranscriptions,
    /// To end it.
    MarkEnded,
    /// To delete it, with everything but its transcripts.
    Delete,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A participant's connection is closed, and their track's last caption is there.
    Left {
        /// Who.
        user_id: String,
    },
    /// A caption is final.
    Caption {
        /// What was said.
        caption: Caption,
        /// The mark of the last [`Effect::Hear`] before it opened.
        mark: u64,
    },
    /// Every caption that opened before a mark is final.
    Passed {
        /// The mark of an [`Effect::Hear`].
        mark: u64,
    },
    /// The call's type was changed by this; [`Env::call_type`] is what it is now.
    TypeUpdated(Settings),
    /// Speech is no longer recognised.
    Failed {
        /// Why.
        error: String,
    },
    /// A transcript's file can be fetched.
    TranscriptStored {
        /// The run.
        egress_id: String,
        /// Where it is.
        transcript: Transcript,
    },
    /// A transcript's file could not be stored.
    TranscriptFailed {
        /// The run.
        egress_id: String,
        /// Why.
        error: String,
    },
    /// The host was started anew, and no connection is left.
    Restarted,
    /// It is this late.
    Tick,
}

/// A transcript's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// Its name.
    pub filename: String,
    /// Where it can be fetched.
    pub url: String,
    /// Of which session.
    pub session_id: String,
    /// When the run started.
    pub start_time: Timestamp,
    /// When it ended.
    pub end_time: Timestamp,
}

/// What a call has to say, or wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Something that those who watch are told, with the call as it was then.
    Event(Box<Call>, Event),
    /// Something that the host is to bring about.
    Effect(Effect),
}

/// Something that happened in a call.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the clients' events")]
pub enum Event {
    Created,
    Updated,
    Ended { by: Option<String> },
    Deleted,
    SessionStarted { session_id: String },
    SessionEnded { session_id: String },
    ParticipantJoined { session_id: String, participant: Participant },
    ParticipantLeft { session_id: String, participant: Participant, at: Timestamp },
    MembersAdded { user_ids: Vec<String> },
    MembersUpdated { user_ids: Vec<String> },
    MembersRemoved { user_ids: Vec<String> },
    PermissionsUpdated { user_id: String, own_capabilities: Capabilities },
    ProcessStarted { process: Process, egress_id: String },
    ProcessStopped { process: Process, egress_id: String },
    ProcessFailed { process: Process, egress_id: String, error: String },
    TranscriptionReady { egress_id: String, transcript: Transcript },
    ClosedCaption(Caption),
}

/// What a host is to bring about.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// From each participant's next caption on, hear them like this. Where the mark is another one than before, say
    /// [`Input::Passed`] once every caption that is open now is final.
    Hear {
        /// How; `None`: open no more captions.
        recognition: Option<Recognition>,
        /// What captions carry that open from now on.
        mark: u64,
    },
    /// Begin a transcript.
    OpenTranscript(Run),
    /// Write a caption into a transcript, before the events behind this.
    AppendTranscript {
        /// The run.
        egress_id: String,
        /// What was said.
        caption: Caption,
    },
    /// Finish a transcript and store its file.
    CloseTranscript {
        /// The run.
        egress_id: String,
        /// Of which session.
        session_id: String,
        /// When the run started.
        start_time: Timestamp,
        /// When it ended.
        end_time: Timestamp,
    },
    /// Close a participant's connection.
    Disconnect {
        /// Who.
        user_id: String,
    },
}

/// A command was refused, and nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Who asked may not.
    #[error("{0}")]
    NotAllowed(String),
    /// It makes no sense, in general or now.
    #[error("{0}")]
    Input(String),
}

impl From<SettingsError> for CallError {
    fn from(error: SettingsError) -> Self {
        Self::Input(error.to_string())
    }
}
