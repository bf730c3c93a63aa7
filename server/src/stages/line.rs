//! Where a participant's audio goes, and when it was.
//!
//! In: frames of known length as they come, and the times that a sender states. Out: their dates, and pushes into the track.
//!
//! The first samples are dated by their arrival, and those behind by their count: so neither jitter nor a sender that is faster
//! than its clock makes holes. Where arrival runs half a second ahead of the count, the sender paused, and arrival dates what
//! follows. A time that is stated dates what follows whatever was before.

use cuewire::audio::Pcm;
use cuewire::audio::rtp::{RtpFormat, RtpPacket};
use cuewire::engine::{AudioSender, PushError};
use cuewire::time::Timestamp;

/// Arrival this much ahead of the count of samples is a pause of the sender's.
const PAUSE_NANOS: i64 = 500_000_000;
/// A date that goes back by less is a mistake, as the engine has it: the audio follows what was there.
const RESTART_NANOS: i64 = 10_000_000_000;
/// Where a participant's audio goes, whichever of their connections it comes by.
pub(crate) struct Line {
    sender: AudioSender,
    dating: Dating,
    /// Packets of Opus so far.
    packets: u16,
}

impl Line {
    /// Of a track.
    pub(crate) fn new(sender: AudioSender) -> Self {
        Self { sender, dating: Dating::default(), packets: 0 }
    }

    /// When audio begins that comes by another connection than what was heard before, and is dated `at`: the track refuses times
    /// that go back by a little.
    pub(crate) fn not_before(&self, at: Timestamp) -> Timestamp {
        self.dating.end.filter(|end| (1..RESTART_NANOS).contains(&end.nanos_since(at))).unwrap_or(at)
    }

    /// Dates a frame that lasts so long, and came now.
    pub(crate) fn date(&mut self, now: Timestamp, nanos: i64) -> Timestamp {
        self.dating.date(now, nanos)
    }

    /// The sender says when the next frame begins.
    pub(crate) fn say(&mut self, at: Timestamp) {
        self.dating.said = Some(at);
    }

    /// Numbers a packet of Opus.
    pub(crate) fn next_packet(&mut self) -> u16 {
        self.packets = self.packets.wrapping_add(1);
        self.packets
    }

    /// Pushes samples.
    pub(crate) fn push(&mut self, at: Timestamp, pcm: Pcm<'_>) -> Result<(), PushError> {
        self.sender.push(at, pcm)
    }

    /// Pushes a packet of Opus.
    pub(crate) fn push_opus(&mut self, packet: RtpPacket<'_>) -> Result<(), PushError> {
        self.sender.push_opus(packet)
    }

    /// Pushes a packet of RTP, behind which the track ends about then; of one that holds no audio, where it did.
    pub(crate) fn push_rtp(
        &mut self,
        format: RtpFormat,
        packet: RtpPacket<'_>,
        end: Option<Timestamp>,
    ) -> Result<(), PushError> {
        self.sender.push_rtp(format, packet)?;
        self.dating.end = end.map(|end| self.not_before(end)).or(self.dating.end);
        Ok(())
    }
}

/// Dates frames.
#[derive(Default)]
struct Dating {
    /// Where the last frame ended.
    end: Option<Timestamp>,
    /// When the next one begins, where the sender said so.
    said: Option<Timestamp>,
    /// By how much the sender's clock is behind ours: other than nothing once they said a time.
    lag_nanos: i64,
}

impl Dating {
    /// Of a frame that lasts so long, and came now.
    fn date(&mut self, now: Timestamp, nanos: i64) -> Timestamp {
        let arrived = now.plus_nanos(-nanos);
        let at = match (self.said.take(), self.end) {
            (Some(said), end) => {
                // The track refuses times that go back by a little.
                let goes_back = |end: &Timestamp| (1..RESTART_NANOS).contains(&end.nanos_since(said));
                let at = end.filter(goes_back).unwrap_or(said);
                self.lag_nanos = arrived.nanos_since(at);
                at
            }
            (None, None) => arrived,
            (None, Some(end)) => {
                let arrived = arrived.plus_nanos(-self.lag_nanos);
                if arrived.nanos_since(end) < PAUSE_NANOS { end } else { arrived }
            }
        };
        self.end = Some(at.plus_nanos(nanos));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_dated_by_their_count_and_by_arrival_behind_a_pause() {
        let mut dating = Dating::default();
        let ms = |ms: i64| Timestamp::from_nanos(ms * 1_000_000);
        let date = |dating: &mut Dating, now_ms| dating.date(ms(now_ms), 20_000_000).as_nanos() / 1_000_000;
        for (now_ms, at_ms, why) in [
            (1_020, 1_000, "the first"),
            (1_039, 1_020, "early"),
            (1_400, 1_040, "late, by jitter"),
            (1_401, 1_060, "with a burst behind it"),
            (1_600, 1_580, "behind a pause"),
            (1_601, 1_600, "faster than its clock"),
            (1_602, 1_620, "which another connection goes on with"),
        ] {
            assert_eq!(date(&mut dating, now_ms), at_ms, "{why}");
        }
        dating.said = Some(ms(500_000));
        for (now_ms, at_ms, why) in [
            (1_640, 500_000, "as the sender says"),
            (1_660, 500_020, "and on from there"),
            (3_700, 502_060, "a pause, by the sender's clock"),
        ] {
            assert_eq!(date(&mut dating, now_ms), at_ms, "{why}");
        }
        dating.said = Some(ms(502_000));
        assert_eq!(date(&mut dating, 3_720), 502_080, "back by a little: a mistake");
        dating.said = Some(ms(400_000));
        assert_eq!(date(&mut dating, 3_740), 400_000, "back by much: another clock");
        assert_eq!(date(&mut dating, 3_760), 400_020);
    }
}
