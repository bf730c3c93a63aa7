//! What a session is told, what it says, and what it counts.
//!
//! In: [`Input`]s of whoever drives it. Out: [`Output`]s, and an [`Accounting`] of the track's samples.

use crate::asr::{DecodeError, DecodeJob, Hypothesis, JobId};
use crate::audio::{Pcm, TimeWentBack};
use crate::caption::{CaptionEvent, CaptionId};
use crate::config::Config;
use crate::time::{SampleIndex, Timestamp};

/// What a session is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Audio whose first sample was recorded `at`.
    Audio {
        /// The sender's time of the first sample.
        at: Timestamp,
        /// The samples.
        pcm: Pcm<'a>,
    },
    /// Audio of this span was lost on its way to the session: it ends the open caption and is declared as a gap. Placed
    /// by `from` as a push would be; the next push is expected at `to`, and its own time dates what follows. A span
    /// that is empty, or ends before it begins, is ignored: nothing was lost.
    Lost {
        /// The sender's time of the first sample lost.
        from: Timestamp,
        /// Behind the last one.
        to: Timestamp,
    },
    /// The answer to an [`Output::Decode`].
    Decoded {
        /// The job's id.
        job: JobId,
        /// What the decoder said.
        result: Result<Hypothesis, DecodeError>,
    },
    /// Other settings, from the next caption on; [`Config::paused`] at once.
    Configure(Config),
    /// It is now this late, and no audio came. Closes the caption of a stream that stalled; nothing else.
    Tick(Timestamp),
    /// The host knows that nothing more belongs to the open caption (end of turn, push-to-talk released, somebody left): closes
    /// it now, as if its silence were over, with all that was pushed. The audio goes on. Without an open caption: nothing.
    Flush,
    /// No more audio will come: closes the open caption.
    End,
}

/// What a session wants or has to say.
#[derive(Clone, Debug)]
pub enum Output {
    /// Decode this and give the answer back as [`Input::Decoded`]; in any order, now or later.
    Decode(DecodeJob),
    /// The answer to this job is no longer of use. One that comes all the same is ignored.
    Cancel(JobId),
    /// A caption is over, as far as the audio goes: what became of it will be an event, in the order in which captions close.
    Closed {
        /// The caption.
        id: CaptionId,
        /// Where the audio of its jobs begins ([`DecodeJob::start`]).
        heard_from: SampleIndex,
        /// Detected end of speech.
        end_time: Timestamp,
    },
    /// Something became known.
    Event(CaptionEvent),
    /// Nothing more until the next input; where a time is given, a [`Input::Tick`] is due then if no audio comes.
    Wait(Option<Timestamp>),
}

/// An input was refused; the session is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Skip the push, or correct its time.
    #[error(transparent)]
    TimeWentBack(#[from] TimeWentBack),
    /// The job was never asked for.
    #[error("job {} was never asked for", .0.0)]
    UnknownJob(JobId),
    /// Audio, lost audio or settings after [`Input::End`].
    #[error("the track has ended: audio and settings come too late")]
    Ended,
}

/// What became of a track's samples (16 kHz). Each is in exactly one of the first five; so is what was lost before it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Within a final caption.
    pub captioned: u64,
    /// Speech-like, but without words.
    pub suppressed: u64,
    /// Between captions.
    pub silence: u64,
    /// Declared as gaps: speech that was not recognised, and audio that never arrived ([`Input::Lost`]).
    pub lost: u64,
    /// Not decided yet.
    pub pending: u64,
    /// Of all these, silence that fills short holes.
    pub filled: u64,
    /// Input samples (at their own rate) that were no finite number and count as zero.
    pub non_finite: u64,
}

impl Accounting {
    /// All samples of the track, and those that never arrived: of these, [`SampleIndex`] counts none.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.captioned + self.suppressed + self.silence + self.lost + self.pending
    }
}
