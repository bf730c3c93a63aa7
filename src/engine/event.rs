//! What an engine tells its subscribers.

use std::fmt;

use super::ModelId;
use crate::asr::DecodeError;
#[cfg(feature = "opus")]
use crate::audio::rtp::ReceiverStats;
use crate::caption::{CaptionEvent, CaptionId, StabilityCount};
use crate::session::{Accounting, InputError};
use crate::time::Timestamp;

/// Identifies a track in its engine. Grows; none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId(pub u64);

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "track {}", self.0)
    }
}

/// Something that an engine has to say. Those of one track come in its order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EngineEvent {
    /// Something became known about a track's captions.
    Caption {
        /// The track.
        track: TrackId,
        /// What.
        event: CaptionEvent,
        /// The number of the last [mark](super::Engine::mark) before the caption opened; 0 before the first. Of a gap without
        /// a caption: of the last mark.
        mark: u64,
        /// When it came about: of finals.
        ledger: Option<Ledger>,
    },
    /// Everything was said of every caption that had opened before this mark. Marks come in their order, each behind the
    /// events of those captions; events of later captions may come before it.
    Marked {
        /// The track.
        track: TrackId,
        /// Its number.
        mark: u64,
    },
    /// A push was taken and then refused: it is not heard. Further ones may follow.
    Refused {
        /// The track.
        track: TrackId,
        /// Why.
        error: InputError,
    },
    /// A decode failed, the second time: where it was a final's, the caption is a gap.
    Failed {
        /// The track.
        track: TrackId,
        /// Why.
        error: DecodeError,
    },
    /// More or less is done without now.
    Overload {
        /// The step of the ladder.
        level: OverloadLevel,
    },
    /// A track is over: nothing more comes of it. All its marks were said.
    Ended {
        /// The track.
        track: TrackId,
        /// What became of it.
        report: TrackReport,
    },
    /// This subscriber was so far behind that it missed finals, gaps, marks or ends of tracks: this many.
    Missed {
        /// Events.
        events: u64,
    },
}

impl EngineEvent {
    /// What a later event replaces: only the last of these is of use.
    pub(super) fn passing(&self) -> Option<Passing> {
        match self {
            Self::Caption { track, event: CaptionEvent::Interim { id, .. }, .. } => Some(Passing::Interim(*track, *id)),
            Self::Refused { track, .. } => Some(Passing::Refused(*track)),
            Self::Overload { .. } => Some(Passing::Overload),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    Interim(TrackId, CaptionId),
    Refused(TrackId),
    Overload,
}

/// When a final came about, by the engine's clock (UTC). What the sender's audio was late by is in none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledger {
    /// The last speech of the caption was there.
    pub speech_end: Timestamp,
    /// The silence behind it was over, or the caption was cut or flushed. The final cannot be earlier.
    pub silence_reached: Timestamp,
    /// The job was put into the queue; before `silence_reached` where it was asked early.
    pub queued: Timestamp,
    /// A worker took it.
    pub decode_start: Timestamp,
    /// The worker was done.
    pub decode_end: Timestamp,
    /// The final was handed to the subscribers. It waits for those before it.
    pub emitted: Timestamp,
    /// Who decoded it: another one than the track's under overload.
    pub model: ModelId,
}

impl Ledger {
    /// Nanoseconds that the final was late: from the end of the silence until it was said.
    #[must_use]
    pub fn latency_nanos(&self) -> i64 {
        self.emitted.nanos_since(self.silence_reached)
    }
}

/// How much is done without, so that what is most wanted comes in time. Each step includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OverloadLevel {
    /// Nothing.
    #[default]
    None,
    /// Translations, and every second interim.
    SpacedInterims,
    /// All interims.
    NoInterims,
    /// Finals are decoded by a smaller model, where one is loaded that can do what the track asks for.
    SmallerModel,
    /// Captions: some were given up, and their spans are declared gaps.
    Shedding,
}

impl OverloadLevel {
    /// All, from nothing to most.
    pub const ALL: [Self; 5] = [Self::None, Self::SpacedInterims, Self::NoInterims, Self::SmallerModel, Self::Shedding];
}

/// What became of a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrackReport {
    /// Its samples.
    pub accounting: Accounting,
    /// Stable words of interims, and how many of them finals changed.
    pub stability: StabilityCount,
    /// Pushes that were refused because the ring was full.
    pub full: u64,
    /// Packets of RTP, and what became of them.
    #[cfg(feature = "opus")]
    pub rtp: ReceiverStats,
    /// Interims that were asked for and not made, for want of time.
    pub interims_declined: u64,
    /// Translations that were asked for and not made, for want of time.
    pub translations_declined: u64,
    /// Finals that were given up, for want of time.
    pub finals_shed: u64,
    /// Why it ended before its time: a fault of cuewire's. What was open of it is lost.
    pub failure: Option<String>,
}
