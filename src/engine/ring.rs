//! From a host's thread to the pipeline: one wait-free ring a track.
//!
//! In: pushes of PCM or RTP. Out: the same in their order, with what was lost between them.
//!
//! A push writes its samples and then one header that says what they are; the pipeline reads samples as headers tell. So
//! a push is there whole or not at all. Nobody is woken: the pipeline looks every few milliseconds.

use std::sync::Arc;

use super::TrackId;
use super::pipeline::Message;
use crate::audio::Pcm;
#[cfg(feature = "opus")]
use crate::audio::rtp::{MAX_PAYLOAD_BYTES, RtpFormat, RtpPacket};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::channel::Sender;
use crate::sync::ring::{Consumer, Producer, RingBuffer};
use crate::time::{Timestamp, nanos_of_samples};

/// Mono samples that a ring holds: 2 s at 48 kHz. A push may have as many frames.
pub const RING_FRAMES: usize = 96_000;
/// Pushes that a ring holds: 2 s of 2.5 ms each.
const RING_PUSHES: usize = 800;
/// RTP payload that a ring holds: 2 s of G.711, of L16 at 16 kHz, or of Opus at any rate that is in use.
#[cfg(feature = "opus")]
const RING_BYTES: usize = 64 * 1024;
/// Frames mixed down at a time.
const SLICE: usize = 1024;

/// A span of the sender's time.
pub(super) type Span = (Timestamp, Timestamp);

/// One push.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// The sender's time of the first sample.
    pub(super) at: Timestamp,
    /// What was refused before it, the ring being full.
    pub(super) lost: Option<Span>,
    /// It is to be heard as silence.
    pub(super) muted: bool,
    pub(super) body: Body,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// As many mono samples follow, but for a muted push.
    Pcm { rate: u32, frames: usize },
    /// As many bytes of payload follow.
    #[cfg(feature = "opus")]
    Rtp { format: RtpFormat, ssrc: u32, sequence: u16, timestamp: u32, bytes: usize },
}

/// What both ends and the engine know of a track.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) muted: AtomicBool,
    /// Samples that were no finite number.
    pub(super) non_finite: AtomicU64,
    /// Pushes taken.
    pub(super) taken: AtomicU64,
    /// Pushes refused, the ring being full.
    pub(super) refused: AtomicU64,
    /// Since when a caption is unfinished, the oldest: nanoseconds of the engine's clock; 0: none is.
    pub(super) unfinished_since: AtomicU64,
}

/// A push was refused. Nothing of it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The engine is 2 s behind (of L16 above 16 kHz, 64 KiB): go on with the next push. What was lost will be a declared
    /// gap.
    #[error("the track's ring is full: the engine is 2 s behind")]
    Full,
    /// Push it in parts.
    #[error("a push of {frames} frames: allowed are up to {RING_FRAMES}")]
    TooLong {
        /// Its length.
        frames: usize,
    },
    /// No RTP packet is so long.
    #[cfg(feature = "opus")]
    #[error("a payload of {bytes} bytes: allowed are up to {MAX_PAYLOAD_BYTES}")]
    PayloadTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The engine was shut down, or the track failed.
    #[error("the track has ended")]
    Ended,
}

/// Where a host pushes the audio of one track. Dropping it ends the track: its open caption becomes final.
///
/// Pushing is wait-free: no lock, no allocation, no clock, no system call. It may move between threads, and one thread at
/// a time pushes.
pub struct AudioSender {
    track: TrackId,
    headers: Producer<Header>,
    samples: Producer<f32>,
    #[cfg(feature = "opus")]
    payloads: Producer<u8>,
    mono: Vec<f32>,
    lost: Option<Span>,
    shared: Arc<Shared>,
    messages: Sender<Message>,
}

/// Where the pipeline takes it.
pub(super) struct AudioReceiver {
    headers: Consumer<Header>,
    samples: Consumer<f32>,
    #[cfg(feature = "opus")]
    payloads: Consumer<u8>,
}

/// What a push held.
pub(super) enum Pushed<'a> {
    /// Mono samples in two parts, either of which may be empty.
    Pcm { rate: u32, parts: [&'a [f32]; 2] },
    /// This much silence.
    Silence { rate: u32, frames: usize },
    #[cfg(feature = "opus")]
    Rtp { format: RtpFormat, packet: RtpPacket<'a>, muted: bool },
}

/// Both ends of a track's ring.
pub(super) fn ring(track: TrackId, shared: Arc<Shared>, messages: Sender<Message>) -> (AudioSender, AudioReceiver) {
    let (headers, headers_out) = RingBuffer::new(RING_PUSHES);
    let (samples, samples_out) = touched(RING_FRAMES);
    #[cfg(feature = "opus")]
    let (payloads, payloads_out) = touched(RING_BYTES);
    let sender = AudioSender {
        track,
        headers,
        samples,
        #[cfg(feature = "opus")]
        payloads,
        mono: Vec::with_capacity(SLICE),
        lost: None,
        shared,
        messages,
    };
    let receiver = AudioReceiver {
        headers: headers_out,
        samples: samples_out,
        #[cfg(feature = "opus")]
        payloads: payloads_out,
    };
    (sender, receiver)
}

/// A ring whose memory is there: the system gives pages when they are first written, which is no work for a push.
fn touched<T: Copy + Default>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let (mut producer, mut consumer) = RingBuffer::new(capacity);
    if let Ok(all) = producer.write_chunk(capacity) {
        all.commit_all();
    }
    if let Ok(all) = consumer.read_chunk(capacity) {
        all.commit_all();
    }
    (producer, consumer)
}

impl AudioSender {
    /// The track.
    #[must_use]
    pub fn track(&self) -> TrackId {
        self.track
    }

    /// Pushes audio whose first sample was recorded `at`, by the sender's clock. An empty push is none.
    ///
    /// # Errors
    /// [`PushError`]. After [`PushError::Full`] the loss is declared before the next push that is taken; where the host
    /// tries again with the same audio and it is taken, nothing was lost.
    pub fn push(&mut self, at: Timestamp, pcm: Pcm<'_>) -> Result<(), PushError> {
        let frames = pcm.frames();
        if frames == 0 {
            return Ok(());
        }
        if frames > RING_FRAMES {
            return Err(PushError::TooLong { frames });
        }
        let muted = self.is_muted();
        let end = at.plus_nanos(nanos_of_samples(frames as u64, pcm.rate()));
        self.check_room(muted || self.samples.slots() >= frames).inspect_err(|error| {
            if *error == PushError::Full {
                self.note_lost(at, end);
            }
        })?;
        let mut from = if muted { frames } else { 0 };
        while from < frames {
            let to = frames.min(from + SLICE);
            self.mono.clear();
            let non_finite = pcm.mix_into(from, to, &mut self.mono);
            if non_finite > 0 {
                self.shared.non_finite.fetch_add(non_finite, Ordering::Relaxed);
            }
            // There is room: only the other end changes that, and it makes more.
            let _ = self.samples.push_entire_slice(&self.mono);
            from = to;
        }
        self.send(at, muted, Body::Pcm { rate: pcm.rate(), frames });
        Ok(())
    }

    /// [`push_rtp`](Self::push_rtp) of a stream of Opus.
    ///
    /// # Errors
    /// [`PushError`].
    #[cfg(feature = "opus")]
    pub fn push_opus(&mut self, packet: RtpPacket<'_>) -> Result<(), PushError> {
        self.push_rtp(RtpFormat::OPUS, packet)
    }

    /// Pushes one packet of an RTP stream, as it came from the network: late, twice, or out of order.
    /// [`RtpPacket::at`] dates it; [`audio::rtp`](crate::audio::rtp) says what becomes of losses and pauses. A packet of
    /// another format begins another stream.
    ///
    /// # Errors
    /// [`PushError`]. After [`PushError::Full`] the loss is declared before the next push that is taken, as of
    /// [`push`](Self::push).
    #[cfg(feature = "opus")]
    pub fn push_rtp(&mut self, format: RtpFormat, packet: RtpPacket<'_>) -> Result<(), PushError> {
        let RtpPacket { at, ssrc, sequence, timestamp, payload } = packet;
        let bytes = payload.len();
        if bytes > MAX_PAYLOAD_BYTES {
            return Err(PushError::PayloadTooLong { bytes });
        }
        self.check_room(self.payloads.slots() >= bytes).inspect_err(|error| {
            // Of what is no audio, nothing is lost.
            if *error == PushError::Full
                && let Some(nanos) = format.payload_nanos(payload)
            {
                self.note_lost(at, at.plus_nanos(nanos));
            }
        })?;
        let _ = self.payloads.push_entire_slice(payload);
        self.send(at, self.is_muted(), Body::Rtp { format, ssrc, sequence, timestamp, bytes });
        Ok(())
    }

    fn note_lost(&mut self, at: Timestamp, end: Timestamp) {
        let (from, to) = self.lost.unwrap_or((at, end));
        self.lost = Some((from.min(at), to.max(end)));
    }

    fn is_muted(&self) -> bool {
        self.shared.muted.load(Ordering::Relaxed)
    }

    fn check_room(&self, has_room: bool) -> Result<(), PushError> {
        if self.headers.is_abandoned() {
            return Err(PushError::Ended);
        }
        if has_room && self.headers.slots() > 0 {
            return Ok(());
        }
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        Err(PushError::Full)
    }

    fn send(&mut self, at: Timestamp, muted: bool, body: Body) {
        // Audio that came again and was taken now is not lost.
        let lost = self.lost.take().map(|(from, to)| (from, to.min(at))).filter(|(from, to)| from < to);
        // There is room, as above.
        let _ = self.headers.push(Header { at, lost, muted, body });
        self.shared.taken.fetch_add(1, Ordering::Release);
    }
}

impl Drop for AudioSender {
    fn drop(&mut self) {
        // An engine that is gone has ended the track already.
        let _ = self.messages.send(Message::End { track: self.track, lost: self.lost.take() });
    }
}

impl AudioReceiver {
    /// Gives the next push to `hear`, with its time and what was lost before it; `None` where there is none.
    pub(super) fn next<R>(&mut self, hear: impl FnOnce(Timestamp, Option<Span>, Pushed<'_>) -> R) -> Option<R> {
        let Header { at, lost, muted, body } = self.headers.pop().ok()?;
        Some(match body {
            Body::Pcm { rate, frames } if muted => hear(at, lost, Pushed::Silence { rate, frames }),
            Body::Pcm { rate, frames } => {
                // The samples were there before their header.
                let chunk = self.samples.read_chunk(frames).ok()?;
                let (first, second) = chunk.as_slices();
                let heard = hear(at, lost, Pushed::Pcm { rate, parts: [first, second] });
                chunk.commit_all();
                heard
            }
            #[cfg(feature = "opus")]
            Body::Rtp { format, ssrc, sequence, timestamp, bytes } => {
                let mut payload = [0; MAX_PAYLOAD_BYTES];
                let payload = &mut payload[..bytes];
                self.payloads.pop_entire_slice(payload).ok()?;
                let packet = RtpPacket { at, ssrc, sequence, timestamp, payload };
                hear(at, lost, Pushed::Rtp { format, packet, muted })
            }
        })
    }
}
