//! When captions begin and end.
//!
//! In: one decision of the voice activity detector and the energy of each 20 ms frame. Out: boundaries — a caption
//! opened, a caption closed — with the samples it spans and the wider span that the recogniser hears.
//!
//! The rules: a caption opens after enough speech in a short window, at the first frame of it. It closes when silence
//! since the detected end of speech reaches the limit, rounded up to a frame. When speech passes the maximum it is cut
//! at the quietest place of the last three seconds; what lies behind the cut opens the next. Spans never overlap. Under a
//! pause none opens, not even behind a cut.

use std::collections::VecDeque;

use crate::config::SpeechSegmentConfig;
use crate::time::{SampleIndex, samples_of_ms};
use crate::vad::{FRAME, Vad};

mod cut;

/// A caption opens when this many of the last [`OPEN_WINDOW`] frames are speech. One noisy frame makes up to five
/// with WebRTC's hangover, and must not open one.
const OPEN_SPEECH: usize = 6;
/// Frames looked at for an opening: 160 ms.
const OPEN_WINDOW: usize = 8;
/// The recogniser hears this much before the onset, so that no soft beginning is clipped.
const PRE_ROLL: u64 = samples_of_ms(300);
/// The recogniser hears this much behind the end of speech, for soft endings.
const MARGIN: u64 = samples_of_ms(300);
const FRAME_SAMPLES: u64 = FRAME as u64;

/// What one frame is to the segmenter.
#[derive(Clone, Copy, Debug)]
struct Frame {
    speech: bool,
    /// Mean square of the samples, full scale 1.
    energy: f32,
}

/// Why a caption was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Silence reached `silence_duration_ms`.
    Silence,
    /// Speech reached `max_speech_caption_ms`.
    Maximum,
    /// The audio stopped: a long hole, a stalled stream, or its end.
    Stop,
}

/// The span of one caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Detected onset.
    pub start: SampleIndex,
    /// Detected end of speech (exclusive).
    pub end: SampleIndex,
    /// What the recogniser hears begins here: pre-roll included.
    pub heard_from: SampleIndex,
    /// What the recogniser hears ends here (exclusive): margin included.
    pub heard_to: SampleIndex,
    /// What ended it.
    pub closing: Closing,
}

/// A caption begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// A caption began.
    Opened {
        /// Detected onset.
        start: SampleIndex,
        /// What the recogniser hears begins here.
        heard_from: SampleIndex,
    },
    /// The open caption ended.
    Closed(Segment),
}

/// How the open caption ends if no more is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the recogniser hears ends here (exclusive): it is there already.
    pub heard_to: SampleIndex,
    /// Silence reaches its limit here.
    pub due: SampleIndex,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// First frame of speech.
    start: u64,
    heard_from: SampleIndex,
    /// First frame of the current run of speech.
    run_start: u64,
    /// Behind the last frame of speech, the detector's hangover taken off.
    speech_end: u64,
}

/// Finds the captions of one track.
pub struct Segmenter {
    max_frames: u64,
    silence_frames: u64,
    /// The sample at which frame 0 begins.
    origin: SampleIndex,
    /// Frames since `origin`.
    next: u64,
    /// The latest frames: those of the open caption, or the opening window.
    frames: VecDeque<Frame>,
    open: Option<Open>,
    paused: bool,
    /// Nothing before this is heard again.
    floor: SampleIndex,
}

impl Segmenter {
    /// A segmenter at the start of a track.
    #[must_use]
    pub fn new(config: SpeechSegmentConfig) -> Self {
        let mut segmenter = Self {
            max_frames: 0,
            silence_frames: 0,
            origin: SampleIndex(0),
            next: 0,
            frames: VecDeque::with_capacity(512),
            open: None,
            paused: false,
            floor: SampleIndex(0),
        };
        segmenter.configure(config);
        segmenter
    }

    /// Applies other limits. To be called while no caption is open.
    pub fn configure(&mut self, config: SpeechSegmentConfig) {
        self.max_frames = samples_of_ms(config.max_speech_caption_ms.ms()) / FRAME_SAMPLES;
        self.silence_frames = samples_of_ms(config.silence_duration_ms.ms()).div_ceil(FRAME_SAMPLES);
    }

    /// From now on no caption opens, or may again; the one that is open goes on to its end. Who lifts a pause says with
    /// [`stop`](Self::stop) that nothing of it is to be heard.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether a caption is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What the recogniser will hear of the open caption if nothing but silence follows, once all of it is there: from that
    /// moment on the final can be decoded, while the rest of the silence passes. A limit no longer than the margin leaves
    /// no such rest.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        let open = self.open.as_ref()?;
        let speech_end = self.sample_of(open.speech_end);
        let (heard_to, due) = (speech_end.plus(MARGIN), self.sample_of(open.speech_end + self.silence_frames));
        (heard_to <= self.sample_of(self.next)).then_some(Ending { heard_to, due })
    }

    /// The earliest sample that may still be heard: older ones can be forgotten.
    #[must_use]
    pub(crate) fn needed_from(&self) -> SampleIndex {
        match &self.open {
            Some(open) => open.heard_from,
            None => {
                let window = self.next.saturating_sub(OPEN_WINDOW as u64);
                self.sample_of(window).minus(PRE_ROLL).max(self.floor)
            }
        }
    }

    /// Takes the next frame; appends the boundaries it makes. `energy` is the mean square of its samples.
    pub fn push(&mut self, speech: bool, energy: f32, vad: &dyn Vad, boundaries: &mut Vec<Boundary>) {
        self.frames.push_back(Frame { speech, energy });
        self.next += 1;
        match self.open {
            None => self.consider_opening(boundaries),
            Some(mut open) => {
                let now = self.next;
                if speech {
                    if !self.frame_at(now.wrapping_sub(2)).speech {
                        open.run_start = now - 1;
                    }
                    open.speech_end = now;
                } else if open.speech_end == now - 1 {
                    // The run is over: its last frames were the detector's hangover, and count as silence.
                    let hangover = vad.hangover_frames(now - 1 - open.run_start);
                    open.speech_end -= hangover.min(open.speech_end - open.start - 1);
                }
                self.open = Some(open);
                if speech && now - open.start > self.max_frames {
                    self.cut(open, vad, boundaries);
                } else if now - open.speech_end >= self.silence_frames {
                    self.close(open, self.sample_of(now), Closing::Silence, boundaries);
                }
            }
        }
    }

    /// Ends what is there: the audio stops at `end`, and goes on (if at all) at sample `resume` with a new frame.
    pub fn stop(&mut self, end: SampleIndex, resume: SampleIndex, boundaries: &mut Vec<Boundary>) {
        if let Some(open) = self.open {
            self.close(open, end, Closing::Stop, boundaries);
        }
        self.frames.clear();
        self.origin = resume;
        self.next = 0;
        self.floor = resume;
    }

    fn consider_opening(&mut self, boundaries: &mut Vec<Boundary>) {
        while self.frames.len() > OPEN_WINDOW {
            self.frames.pop_front();
        }
        if !self.paused && self.frames.iter().filter(|frame| frame.speech).count() >= OPEN_SPEECH {
            let first = self.first_frame();
            let start = (first..self.next).find(|&at| self.frame_at(at).speech).unwrap_or(first);
            let heard_from = self.sample_of(start).minus(PRE_ROLL).max(self.floor);
            self.open_at(start, heard_from, self.next, boundaries);
        }
    }

    fn open_at(&mut self, start: u64, heard_from: SampleIndex, speech_end: u64, boundaries: &mut Vec<Boundary>) {
        while self.first_frame() < start {
            self.frames.pop_front();
        }
        let run_start = (start..speech_end).rev().take_while(|&at| self.frame_at(at).speech).last().unwrap_or(start);
        self.open = Some(Open { start, heard_from, run_start, speech_end });
        boundaries.push(Boundary::Opened { start: self.sample_of(start), heard_from });
    }

    fn close(&mut self, open: Open, now: SampleIndex, closing: Closing, boundaries: &mut Vec<Boundary>) {
        let end = self.sample_of(open.speech_end).min(now);
        let heard_to = end.plus(MARGIN).min(now);
        self.open = None;
        self.frames.clear();
        self.floor = heard_to;
        let start = self.sample_of(open.start);
        boundaries.push(Boundary::Closed(Segment { start, end, heard_from: open.heard_from, heard_to, closing }));
    }

    /// Closes at the quietest place before the maximum and goes on behind it. Nothing is heard twice, nothing is left out.
    fn cut(&mut self, open: Open, vad: &dyn Vad, boundaries: &mut Vec<Boundary>) {
        let at = open.start + cut::quietest(self.frames.iter().map(|frame| frame.energy), self.max_frames);
        let speech_end = (open.start..at).rev().find(|&frame| self.frame_at(frame).speech).map_or(at, |last| last + 1);
        let end = if speech_end < at {
            // The cut lies in a pause; the detector's hangover is part of it.
            let run = (open.start..speech_end).rev().take_while(|&frame| self.frame_at(frame).speech).count() as u64;
            speech_end - vad.hangover_frames(run).min(speech_end - open.start - 1)
        } else {
            at
        };
        let end = self.sample_of(end);
        let heard_to = self.sample_of(at);
        let start = self.sample_of(open.start);
        boundaries.push(Boundary::Closed(Segment {
            start,
            end,
            heard_from: open.heard_from,
            heard_to,
            closing: Closing::Maximum,
        }));
        self.floor = heard_to;
        if self.paused {
            self.open = None;
            return;
        }
        let next_start = (at..self.next).find(|&frame| self.frame_at(frame).speech).unwrap_or(at);
        self.open_at(next_start, heard_to, self.next, boundaries);
    }

    fn first_frame(&self) -> u64 {
        self.next - self.frames.len() as u64
    }

    fn frame_at(&self, at: u64) -> Frame {
        let index = usize::try_from(at.wrapping_sub(self.first_frame())).unwrap_or(usize::MAX);
        self.frames.get(index).copied().unwrap_or(Frame { speech: false, energy: 0.0 })
    }

    fn sample_of(&self, frame: u64) -> SampleIndex {
        self.origin.plus(frame * FRAME_SAMPLES)
    }
}

#[cfg(test)]
mod tests;
