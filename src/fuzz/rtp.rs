//! RTP packets of any content, order and time, through a receiver into a session.

use arbitrary::{Result, Unstructured};

use crate::audio::rtp::{ReorderWindow, RtpCodec, RtpFormat, RtpPacket, RtpReceiver};
use crate::config::Config;
use crate::session::{Input, Output, Session};
use crate::time::{Timestamp, nanos_of_samples};

/// Packets of one run.
const MOST_PACKETS: usize = 400;

/// Gives a receiver the packets that `data` describes.
///
/// # Panics
/// Where a piece is empty, too long or no sound, where its time is one that a session refuses, or where the counts do not
/// add up.
pub fn rtp(data: &[u8]) {
    // Where the bytes are over, so are the packets.
    let _ = receive(&mut Unstructured::new(data));
}

fn format(u: &mut Unstructured<'_>) -> Result<RtpFormat> {
    let codec = *u.choose(&[RtpCodec::Opus, RtpCodec::Opus, RtpCodec::Pcmu, RtpCodec::Pcma, RtpCodec::L16])?;
    let rate = *u.choose(&[48_000, 8_000, 16_000, 44_100, 192_000, 11_025])?;
    let made = RtpFormat::new(codec, rate, usize::from(u.int_in_range(0..=20u8)?));
    Ok(made.unwrap_or(RtpFormat::OPUS))
}

fn receive(u: &mut Unstructured<'_>) -> Result<()> {
    let window = ReorderWindow { packets: u.int_in_range(0..=55)?, ms: u.int_in_range(0..=1100)? };
    let Ok(mut receiver) = RtpReceiver::new(format(u)?, window) else {
        assert!(window.packets > 50 || window.ms > 1000, "{window:?} is allowed");
        return Ok(());
    };
    let mut session = Session::new("fuzz", Config::default());
    let (mut sequence, mut timestamp, mut at, mut ssrc) = (u.arbitrary::<u16>()?, u.arbitrary::<u32>()?, 0_i64, 0);
    for _ in 0..MOST_PACKETS {
        if u.is_empty() {
            break;
        }
        let step = u.int_in_range(0..=15u8)?;
        let packet_ms = *u.choose(&[20, 20, 20, 10, 60, 120])?;
        let ticks = receiver.format().clock_rate() / 1000 * packet_ms;
        match step {
            0 => sequence = sequence.wrapping_add(u.arbitrary::<u16>()?),
            1 => sequence = sequence.wrapping_add_signed(i16::from(u.arbitrary::<i8>()?)),
            2 => timestamp = u.arbitrary()?,
            3 => timestamp = timestamp.wrapping_add(ticks * u32::from(u.arbitrary::<u8>()?)),
            4 => at = at.saturating_add(i64::from(u.arbitrary::<i32>()?)),
            5 => at = at.saturating_add(u.arbitrary::<i64>()?),
            6 => ssrc = u.int_in_range(0..=2)?,
            7 => receiver.flush(),
            8 => {
                receiver.flush();
                drain(&mut receiver, &mut session);
                let format = format(u)?;
                receiver.change_format(format).expect("a format that exists has a decoder");
            }
            9 => {
                receiver.flush();
                drain(&mut receiver, &mut session);
                receiver.restart();
            }
            _ => {}
        }
        let length = usize::from(u.arbitrary::<u8>()?) * if step == 10 { 8 } else { 1 };
        let payload = u.bytes(length.min(u.len()))?;
        let before = receiver.stats();
        let packet = RtpPacket { at: Timestamp::from_nanos(at), ssrc, sequence, timestamp, payload };
        match receiver.handle_packet(packet) {
            Ok(()) => assert_eq!(receiver.stats().received, before.received + 1, "what is taken is counted"),
            Err(_) => assert_eq!(receiver.stats(), before, "what is refused changes nothing"),
        }
        drain(&mut receiver, &mut session);
        sequence = sequence.wrapping_add(1);
        timestamp = timestamp.wrapping_add(ticks);
        at = at.saturating_add(i64::from(packet_ms) * 1_000_000);
    }
    receiver.flush();
    drain(&mut receiver, &mut session);
    let stats = receiver.stats();
    let dropped = stats.late + stats.duplicate + stats.damaged + stats.stray;
    assert!(dropped <= stats.received, "{stats:?}");
    Ok(())
}

fn drain(receiver: &mut RtpReceiver, session: &mut Session) {
    let mut most = 10_000;
    while let Some(piece) = receiver.poll_output() {
        let (rate, frames) = (piece.pcm.rate(), piece.pcm.frames());
        assert!(frames > 0 && piece.pcm.channels() == 1, "a piece is mono sound");
        let seconds = nanos_of_samples(frames as u64, rate) / 1_000_000_000;
        assert!(seconds < 2, "a piece of {frames} frames at {rate} Hz");
        most -= 1;
        assert!(most > 0, "what a packet gives has an end");
        let pushed = session.handle_input(Input::Audio { at: piece.at, pcm: piece.pcm });
        assert_eq!(pushed, Ok(()), "a session takes every piece");
        while !matches!(session.poll_output(), Output::Wait(_)) {}
    }
    assert_eq!(session.accounting().non_finite, 0, "a decoder gives numbers");
}
