//! One stream of Opus, G.711 or L16 as media servers hold it (RTP: RFC 3550, RFC 3551, RFC 7587), without I/O and without a
//! clock.
//!
//! In: [`RtpPacket`]s as they come from the network, late, twice, in the wrong order or not at all.
//! Out: [`Piece`]s of mono sound with their time, to be handed to a [`Session`](crate::Session); counts of what was lost.
//!
//! The one rule is the session's: change something with [`RtpReceiver::handle_packet`] or [`RtpReceiver::flush`],
//! then drain [`RtpReceiver::poll_output`] until it says `None`.
//!
//! ```
//! use cuewire::audio::rtp::{ReorderWindow, RtpFormat, RtpPacket, RtpReceiver};
//! use cuewire::{Config, Input, Session, Timestamp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut receiver = RtpReceiver::new(RtpFormat::OPUS, ReorderWindow::default())?;
//! let mut session = Session::new("alice", Config::default());
//! # let packets = [RtpPacket { at: Timestamp::EPOCH, ssrc: 1, sequence: 65535, timestamp: 0, payload: &[0x48] }];
//! for packet in packets {
//!     receiver.handle_packet(packet)?;
//!     while let Some(piece) = receiver.poll_output() {
//!         session.handle_input(Input::Audio { at: piece.at, pcm: piece.pcm })?;
//!         // … and drain the session.
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Order and loss
//!
//! A packet that is ahead of its turn is held until those before it are there, or until the [`ReorderWindow`] is
//! exceeded: then they are lost. Nothing is held where nothing is missing, so the window costs no latency but after a
//! loss. It is no jitter buffer, because nobody listens to the rhythm of what comes out; sound of a network in order
//! goes through at once.
//!
//! - What was lost, up to 120 ms (the longest packet there is), is recovered from the copy in the packet behind
//!   (Opus' in-band FEC; RFC 6716, 2.1.7) as far as that reaches, and otherwise concealed: by Opus itself, for the others as
//!   Appendix I of G.711 has it. Its length is told by the RTP timestamps, so the samples given out are as many as they say.
//! - Of a longer loss nothing is given out: the decoder starts anew, and [`Piece::at`] jumps by its length. The
//!   session fills up to 3 s with silence and declares a gap beyond.
//! - Timestamps that jump while the sequence goes on are DTX or a pause: no loss. Up to 120 ms are given out as
//!   silence; beyond, `at` jumps. The decoder stays as the sender's encoder left it.
//! - A damaged payload is lost as to its sound, though not as to the count of packets.
//!
//! # Time
//!
//! The distance between pieces is that of the RTP timestamps, whatever the network does. [`RtpPacket::at`] dates the
//! first packet and is followed slowly from then on, by at most 500 parts per million: a drift is kept up with, jitter
//! makes neither fills nor gaps. Where the two disagree for good, because a sender's RTP time stood still in a pause, `at`
//! is believed: at once where they are more than 10 s apart, and where it is ahead by 250 ms for a second. Where it is
//! behind by up to 10 s, as after a first packet that came late, it is only followed slowly. So `Piece::at` never goes
//! back in a way that a session refuses.
//!
//! # Another stream
//!
//! Another SSRC, or a sequence number 3000 or more ahead or more than 100 behind, is another stream once the number
//! after it comes next (RFC 3550, A.1). Until then the packet is kept; a stray one plays no part. The very first packet
//! is believed: were it a stray, the next two put it right.

use std::collections::VecDeque;

use super::opus::{OpusPacketDecoder, PacketDecoder, PacketError};
use crate::audio::Pcm;
use crate::time::{SAMPLE_RATE, Timestamp};

mod clock;
mod format;
mod pcm;
#[cfg(test)]
mod tests;

pub use format::{FormatError, MAX_RTP_CHANNELS, RtpCodec, RtpFormat};

use clock::Clock;
use pcm::PcmPacketDecoder;

/// Most bytes of a payload: 120 ms as six frames of 20 ms, each of the longest there is, and their lengths (RFC 6716,
/// 3.2). RTP over UDP carries 1.5 kB.
pub const MAX_PAYLOAD_BYTES: usize = opus_pure::MAX_PACKET_BYTES;
/// Most packets that a window may hold.
pub const MAX_WINDOW_PACKETS: usize = 50;
/// Longest time of a window, in milliseconds.
pub const MAX_WINDOW_MS: u32 = 1000;

/// Sequence numbers this far ahead are another stream (`MAX_DROPOUT` of RFC 3550, A.1).
const MAX_DROPOUT: u16 = 3000;
/// Sequence numbers up to this far behind are of this stream (`MAX_MISORDER` of RFC 3550, A.1).
const MAX_MISORDER: u16 = 100;
/// Longest loss that is concealed, in milliseconds: that of the longest packet of Opus. Codecs have faded out by then.
const MAX_CONCEALED_MS: u32 = 120;

/// A packet of one stream, as RTP carries it.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    /// The sender's time of the first sample. May jitter: the time of arrival will do.
    pub at: Timestamp,
    /// The stream. Where the server holds one stream a receiver and does not pass it on: any constant.
    pub ssrc: u32,
    /// The sequence number.
    pub sequence: u16,
    /// The RTP timestamp, at the format's clock rate.
    pub timestamp: u32,
    /// What the packet holds, in the stream's format; at most [`MAX_PAYLOAD_BYTES`]. An empty one is padding.
    pub payload: &'a [u8],
}

/// Some of the sound, in order.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The sender's time of the first sample.
    pub at: Timestamp,
    /// Mono, `f32`, never empty: of Opus 16 kHz and at most 240 ms; of the others at the clock rate, and at most 120 ms and
    /// what a payload holds.
    pub pcm: Pcm<'a>,
}

/// How long a packet ahead of its turn is held. Whichever comes first.
///
/// The default, three packets or 60 ms, is the threshold at which QUIC and TCP take a packet for lost (RFC 9002, 6.1.1;
/// RFC 5681, 3.2): what a path reorders are neighbours. Media servers forward packets as they come, and audio is
/// sent again only where that was negotiated (`nack`); there the window should be longer than the round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReorderWindow {
    /// Most packets held; one more, and what is missing before them is lost. 0 – 50, default 3.
    pub packets: usize,
    /// Time from the first held packet to the newest, in milliseconds, at which what is missing is lost. 0 – 1000,
    /// default 60.
    pub ms: u32,
}

impl Default for ReorderWindow {
    fn default() -> Self {
        Self { packets: 3, ms: 60 }
    }
}

/// What was received and what became of it.
///
/// Each received packet is played, held, or counted in one of `late`, `duplicate`, `damaged`, `stray`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Packets taken.
    pub received: u64,
    /// Packets given up; one that comes afterwards is `late` besides.
    pub lost: u64,
    /// Packets that came after their time and were dropped.
    pub late: u64,
    /// Packets that came twice; the second was dropped.
    pub duplicate: u64,
    /// Payloads that the codec refused.
    pub damaged: u64,
    /// Packets of what turned out to be no stream, dropped.
    pub stray: u64,
    /// Times that another stream took over.
    pub restarts: u64,
    /// Samples invented for what was lost, at the rate of the [`Piece`]s.
    pub concealed_samples: u64,
    /// Samples taken from the copy in the packet behind.
    pub recovered_samples: u64,
}

/// A packet or a setting was refused; the receiver is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The window is outside what is allowed.
    #[error("a window of {} packets and {} ms: allowed are 0 – 50 packets and 0 – 1000 ms", .0.packets, .0.ms)]
    Window(ReorderWindow),
    /// Skip the packet: no format has such.
    #[error("a payload of {0} bytes: allowed are up to {MAX_PAYLOAD_BYTES}")]
    TooLong(usize),
    /// Drain [`RtpReceiver::poll_output`] first.
    #[error("{0} packets wait to be given out: drain the output after every packet")]
    NotDrained(usize),
    /// The decoder cannot be made.
    #[error(transparent)]
    Codec(#[from] PacketError),
}

/// A packet held.
#[derive(Debug, Default)]
struct Held {
    /// The sequence number without its wrap: the low 16 bits are those of the packet.
    place: u64,
    begins_stream: bool,
    at: Timestamp,
    timestamp: u32,
    payload: Vec<u8>,
}

impl Held {
    fn sequence(&self) -> u16 {
        self.place as u16
    }
}

/// Where a packet belongs.
enum Place {
    /// At or after its turn, or filling a hole before packets that are held.
    Ahead(u64),
    /// Before what was given out.
    Past(u64),
    /// Not in this stream.
    Elsewhere,
}

/// The receiver of one stream. See the module's documentation.
///
/// It holds at most `window.packets + 3` payloads, and allocates nothing once it has seen the largest. (The codec does
/// where it conceals.)
#[derive(Debug)]
pub struct RtpReceiver {
    window: ReorderWindow,
    format: RtpFormat,
    decoder: Box<dyn PacketDecoder>,
    clock: Clock,
    ssrc: u32,
    /// Where the newest packet belongs; none before the first.
    newest: Option<u64>,
    /// Whose turn it is.
    next: u64,
    /// Which of the 128 places before `next` were played; the lowest bit is the last.
    played: u128,
    /// What is missing before this place is lost.
    given_up_to: u64,
    /// In order of place.
    held: VecDeque<Held>,
    /// The first packet of what may be another stream, and its SSRC.
    candidate: Option<(u32, Held)>,
    /// Payload buffers to be used again.
    spare: Vec<Held>,
    /// Sound is missing since the last packet that was decoded.
    is_torn: bool,
    output: Vec<f32>,
    stats: ReceiverStats,
}

impl RtpReceiver {
    /// A receiver of a stream that has not begun.
    ///
    /// # Errors
    /// [`ReceiveError::Window`].
    pub fn new(format: RtpFormat, window: ReorderWindow) -> Result<Self, ReceiveError> {
        if window.packets > MAX_WINDOW_PACKETS || window.ms > MAX_WINDOW_MS {
            return Err(ReceiveError::Window(window));
        }
        let decoder = decoder_of(format)?;
        Ok(Self {
            window,
            format,
            clock: Clock::new(format.clock_rate()),
            ssrc: 0,
            newest: None,
            next: 0,
            played: 0,
            given_up_to: 0,
            held: VecDeque::with_capacity(window.packets + 2),
            candidate: None,
            spare: Vec::with_capacity(window.packets + 3),
            is_torn: false,
            output: output_of(&*decoder),
            decoder,
            stats: ReceiverStats::default(),
        })
    }

    /// How payloads are coded.
    #[must_use]
    pub fn format(&self) -> RtpFormat {
        self.format
    }

    /// What comes next is another stream, coded like this; its first packet is believed. Of the stream before, what is held
    /// is lost: [`flush`](Self::flush) and drain before.
    ///
    /// # Errors
    /// [`ReceiveError::Codec`].
    pub fn change_format(&mut self, format: RtpFormat) -> Result<(), ReceiveError> {
        self.decoder = decoder_of(format)?;
        self.output = output_of(&*self.decoder);
        self.format = format;
        self.clock.change_rate(format.clock_rate());
        self.restart();
        Ok(())
    }

    /// The next packet begins another stream, whatever its numbers. What is still held is lost: [`flush`](Self::flush) and drain
    /// before.
    pub fn restart(&mut self) {
        self.stats.lost += self.held.len() as u64;
        self.spare.extend(self.held.drain(..));
        self.drop_candidate();
        (self.newest, self.given_up_to) = (None, 0);
        self.stats.restarts += 1;
    }

    /// What became of the packets so far.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        self.stats
    }

    /// When to [`flush`](Self::flush) if no packet comes until then, by the clock of [`RtpPacket::at`]: packets that
    /// wait for others are held. Ask when the output is drained.
    #[must_use]
    pub fn held_until(&self) -> Option<Timestamp> {
        self.held.front().map(|first| first.at.plus_nanos(i64::from(self.window.ms) * 1_000_000))
    }

    /// Takes one packet. Drain [`poll_output`](Self::poll_output) afterwards.
    ///
    /// # Errors
    /// [`ReceiveError::TooLong`], [`ReceiveError::NotDrained`]; the receiver is as it was before.
    pub fn handle_packet(&mut self, packet: RtpPacket<'_>) -> Result<(), ReceiveError> {
        if packet.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(ReceiveError::TooLong(packet.payload.len()));
        }
        if self.held.len() > self.window.packets {
            return Err(ReceiveError::NotDrained(self.held.len()));
        }
        self.stats.received += 1;
        let place = self.place(&packet);
        if !matches!(place, Place::Elsewhere) {
            self.drop_candidate();
        }
        match place {
            Place::Ahead(place) => self.hold(place, &packet),
            Place::Past(place) => {
                // At most `MAX_MISORDER` places back, so within the bits.
                let was_played =
                    self.played.checked_shr((self.next - 1 - place) as u32).is_some_and(|bits| bits & 1 == 1);
                *if was_played { &mut self.stats.duplicate } else { &mut self.stats.late } += 1;
            }
            Place::Elsewhere => self.consider(&packet),
        }
        Ok(())
    }

    /// Gives up what is missing before packets that are held: the stream has ended, or nothing came for long
    /// ([`held_until`](Self::held_until)). What may be another stream waits for its second packet all the same. Drain
    /// [`poll_output`](Self::poll_output) afterwards.
    pub fn flush(&mut self) {
        self.given_up_to = self.newest.map_or(0, |newest| newest + 1);
    }

    /// The next piece of sound; `None` when there is none until the next packet.
    pub fn poll_output(&mut self) -> Option<Piece<'_>> {
        loop {
            let packet = self.take_ready()?;
            let (at, frames) = self.play(&packet);
            self.spare.push(packet);
            if frames > 0 {
                let pcm = Pcm::mono(self.decoder.sample_rate(), &self.output[..frames]).ok()?;
                return Some(Piece { at, pcm });
            }
        }
    }

    fn place(&mut self, packet: &RtpPacket<'_>) -> Place {
        let Some(newest) = self.newest else {
            // One wrap in advance, so that there are places before the first.
            self.ssrc = packet.ssrc;
            self.next = 0x1_0000 + u64::from(packet.sequence);
            return Place::Ahead(self.next);
        };
        let ahead = packet.sequence.wrapping_sub(newest as u16);
        let behind = ahead.wrapping_neg();
        let place = if packet.ssrc != self.ssrc {
            return Place::Elsewhere;
        } else if ahead < MAX_DROPOUT {
            newest + u64::from(ahead)
        } else if behind <= MAX_MISORDER {
            newest - u64::from(behind)
        } else {
            return Place::Elsewhere;
        };
        if place < self.next { Place::Past(place) } else { Place::Ahead(place) }
    }

    fn hold(&mut self, place: u64, packet: &RtpPacket<'_>) {
        let index = self.held.partition_point(|held| held.place < place);
        if self.held.get(index).is_some_and(|held| held.place == place) {
            self.stats.duplicate += 1;
            return;
        }
        let held = self.copy(place, packet, self.newest.is_none());
        self.held.insert(index, held);
        self.newest = self.newest.max(Some(place));
    }

    fn copy(&mut self, place: u64, packet: &RtpPacket<'_>, begins_stream: bool) -> Held {
        let mut payload = self.spare.pop().unwrap_or_default().payload;
        payload.clear();
        payload.extend_from_slice(packet.payload);
        Held { place, begins_stream, at: packet.at, timestamp: packet.timestamp, payload }
    }

    /// Takes a packet of no known stream: the second in a row begins one.
    fn consider(&mut self, packet: &RtpPacket<'_>) {
        let continued = self
            .candidate
            .take_if(|(ssrc, first)| *ssrc == packet.ssrc && first.sequence().wrapping_add(1) == packet.sequence);
        let Some((ssrc, mut first)) = continued else {
            self.drop_candidate();
            let first = self.copy(u64::from(packet.sequence), packet, true);
            self.candidate = Some((packet.ssrc, first));
            return;
        };
        // Behind all places of the stream before, which is given out first, with what it lacks.
        let newest = self.newest.unwrap_or(0);
        first.place += ((newest >> 16) + 2) << 16;
        self.given_up_to = first.place;
        let second = self.copy(first.place + 1, packet, false);
        self.newest = Some(second.place);
        self.held.push_back(first);
        self.held.push_back(second);
        self.ssrc = ssrc;
        self.stats.restarts += 1;
    }

    fn drop_candidate(&mut self) {
        if let Some((_, stray)) = self.candidate.take() {
            self.spare.push(stray);
            self.stats.stray += 1;
        }
    }

    fn take_ready(&mut self) -> Option<Held> {
        let first = self.held.front()?;
        let is_its_turn = first.place == self.next || first.begins_stream;
        if is_its_turn || first.place < self.given_up_to || self.is_window_exceeded() {
            self.held.pop_front()
        } else {
            None
        }
    }

    fn is_window_exceeded(&self) -> bool {
        let span = self.held.front().zip(self.held.back());
        // Timestamps that go back are a large span as well: there is nothing to wait for.
        let span_ticks = span.map_or(0, |(first, newest)| newest.timestamp.wrapping_sub(first.timestamp));
        self.held.len() > self.window.packets || u64::from(span_ticks) >= self.ticks_of(self.window.ms)
    }

    fn ticks_of(&self, ms: u32) -> u64 {
        u64::from(self.format.clock_rate()) * u64::from(ms) / 1000
    }

    /// Decodes a packet, and what lies before it, to the start of `output`; gives the time and the number of samples.
    fn play(&mut self, packet: &Held) -> (Timestamp, usize) {
        self.pass(packet);
        if packet.payload.is_empty() {
            return (packet.at, 0);
        }
        if self.decoder.packet_frames(&packet.payload).is_err() {
            self.stats.damaged += 1;
            self.is_torn = true;
            return (packet.at, 0);
        }
        // RTP ticks of a sample that is given out.
        let ticks_per_frame = self.format.clock_rate() / self.decoder.sample_rate();
        let before = self.clock.clone();
        let skipped_ticks = self.clock.go_to(packet.timestamp, packet.at);
        let mut at = self.clock.end().unwrap_or(packet.at);
        let mut frames = 0;
        match skipped_ticks {
            Some(ticks) if u64::from(ticks) <= self.ticks_of(MAX_CONCEALED_MS) => {
                at = before.end().unwrap_or(at);
                frames = (ticks / ticks_per_frame) as usize;
                if self.is_torn {
                    self.bridge(frames, &packet.payload);
                } else {
                    // Concealing would move the decoder on, where the encoder rested: the next word begins wrong.
                    self.output[..frames].fill(0.0);
                }
            }
            // What the decoder remembers is not what the encoder does. The voice is sooner right from nothing than
            // from there, or from what a concealment makes of it.
            _ if self.is_torn => self.decoder.reset(),
            _ => {}
        }
        let decoded = self.decoder.decode(&packet.payload, &mut self.output[frames..]);
        self.is_torn = decoded.is_err();
        match decoded {
            Ok(decoded) => {
                self.clock.advance(packet.at, decoded as u32 * ticks_per_frame);
                frames += decoded;
            }
            Err(_) => {
                self.stats.damaged += 1;
                // Where nothing is given out, no time has passed.
                if frames == 0 {
                    self.clock = before;
                }
            }
        }
        (at, frames)
    }

    /// Moves on to the place of `packet`; what lies between is lost.
    fn pass(&mut self, packet: &Held) {
        if packet.begins_stream {
            self.decoder.reset();
            self.clock.restart();
            self.is_torn = false;
            self.played = 1;
        } else {
            let lost = packet.place - self.next;
            self.stats.lost += lost;
            self.is_torn |= lost > 0;
            let shift = u32::try_from(lost + 1).unwrap_or(u32::MAX);
            self.played = self.played.checked_shl(shift).unwrap_or(0) | 1;
        }
        self.next = packet.place + 1;
    }

    /// Makes `frames` samples for what was lost before the packet `next`, at the start of `output`.
    fn bridge(&mut self, frames: usize, next: &[u8]) {
        let copied = self.decoder.fec_frames(next);
        let mut invented = frames;
        if (1..=frames).contains(&copied) {
            invented -= copied;
        }
        let (before, copy) = self.output[..frames].split_at_mut(invented);
        // A codec that fails here is silent: the time has passed all the same.
        if self.decoder.conceal(invented, before).is_err() {
            before.fill(0.0);
        }
        if !copy.is_empty() && self.decoder.decode_fec(next, copy).is_err() {
            copy.fill(0.0);
        }
        self.stats.concealed_samples += invented as u64;
        self.stats.recovered_samples += (frames - invented) as u64;
    }
}

fn decoder_of(format: RtpFormat) -> Result<Box<dyn PacketDecoder>, PacketError> {
    Ok(match format.codec() {
        RtpCodec::Opus => Box::new(OpusPacketDecoder::new(SAMPLE_RATE, 1)?),
        RtpCodec::Pcmu | RtpCodec::Pcma | RtpCodec::L16 => Box::new(PcmPacketDecoder::new(format)),
    })
}

/// Room for a concealment and a packet, each as long as may be.
fn output_of(decoder: &dyn PacketDecoder) -> Vec<f32> {
    vec![0.0; decoder.sample_rate() as usize * MAX_CONCEALED_MS as usize / 1000 + decoder.max_frames()]
}
