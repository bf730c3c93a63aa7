//! When a packet's first sample was recorded, by the sender's wall clock.
//!
//! In: RTCP sender reports, and each packet's RTP timestamp with its arrival. Out: a date.
//!
//! A report says which wall clock time an RTP timestamp had (RFC 3550, 6.4.1), so that packets are dated by it, whatever the
//! network does. Before the first report of a stream the date is that of arrival. So it is where the sender's clock is more than
//! [`APART_NANOS`] from ours: senders that have no wall clock report the time since they started (mediasoup, for one), and the
//! engine takes no time that goes back by less than that.

use std::net::IpAddr;

use cuewire::audio::rtp::RtpPacket;
use cuewire::time::{Timestamp, nanos_of_samples};

/// A wall clock that differs by more is none.
const APART_NANOS: i64 = 10_000_000_000;
/// A report is believed for so long: senders report every five seconds, or seldomer where they are many.
const BELIEVED_NANOS: i64 = 300_000_000_000;
/// Dates that are ahead of the timestamps by more are believed (as the engine has it).
const PAUSE_NANOS: i64 = 250_000_000;
/// From 1900, when NTP's first era begins, to 1970.
const NTP_TO_UNIX_S: i64 = 2_208_988_800;

/// What ties the two clocks of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) ssrc: u32,
    /// Who sent it: before somebody was latched to, anybody may have.
    pub(super) from: IpAddr,
    /// The wall clock, in seconds since 1900 and 32 bits behind the point.
    pub(super) ntp: u64,
    /// The RTP timestamp at that time.
    pub(super) timestamp: u32,
}

/// A report that makes sense.
#[derive(Clone, Copy, Debug)]
struct Tie {
    report: Report,
    at: Timestamp,
    came: Timestamp,
}

/// The clocks of one sender.
#[derive(Debug)]
pub(super) struct SenderClock {
    /// Ticks a second of RTP timestamps.
    rate: u32,
    /// Of the stream that is heard.
    tie: Option<Tie>,
    /// The last of any other stream: it may be about to begin.
    other: Option<Tie>,
}

impl SenderClock {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, tie: None, other: None }
    }

    /// Takes a report; whether its wall clock is one.
    pub(super) fn handle_report(&mut self, report: Report, now: Timestamp) -> bool {
        let at = unix_time(report.ntp, now);
        if at.nanos_since(now).saturating_abs() > APART_NANOS {
            return false;
        }
        let tie = Some(Tie { report, at, came: now });
        let is_heard = self.tie.is_some_and(|tie| tie.report.ssrc == report.ssrc);
        *if is_heard { &mut self.tie } else { &mut self.other } = tie;
        true
    }

    /// Dates a packet from `from` whose first sample was recorded at `arrived`, had it taken no time to come.
    pub(super) fn date(&mut self, ssrc: u32, timestamp: u32, from: IpAddr, arrived: Timestamp) -> Timestamp {
        if let Some(other) = self.other.take_if(|other| other.report.ssrc == ssrc && other.report.from == from) {
            self.tie = Some(other);
        }
        let is_of_it = |tie: &Tie| tie.report.ssrc == ssrc && arrived.nanos_since(tie.came) < BELIEVED_NANOS;
        let Some(tie) = self.tie.filter(is_of_it) else { return arrived };
        let at = tie.at.plus_nanos(nanos_of_ticks(timestamp.wrapping_sub(tie.report.timestamp), self.rate));
        if at.nanos_since(arrived).saturating_abs() > APART_NANOS { arrived } else { at }
    }
}

/// About where the engine is in a stream: it counts by RTP timestamps, and follows dates that are ahead.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// A packet's stream, date and timestamp.
    from: Option<(u32, Timestamp, u32)>,
}

impl Progress {
    /// When a packet ends that lasts so long.
    pub(crate) fn end(&mut self, packet: &RtpPacket<'_>, rate: u32, nanos: i64) -> Timestamp {
        let fresh = (packet.ssrc, packet.at, packet.timestamp);
        let (ssrc, at, timestamp) = *self.from.get_or_insert(fresh);
        let counted = at.plus_nanos(nanos_of_ticks(packet.timestamp.wrapping_sub(timestamp), rate));
        if ssrc == packet.ssrc && packet.at.nanos_since(counted) <= PAUSE_NANOS {
            return counted.plus_nanos(nanos);
        }
        self.from = Some(fresh);
        packet.at.plus_nanos(nanos)
    }
}

/// Of ticks that are as much behind as ahead.
fn nanos_of_ticks(ticks: u32, rate: u32) -> i64 {
    let ticks = ticks as i32;
    nanos_of_samples(ticks.unsigned_abs().into(), rate) * i64::from(ticks.signum())
}

/// NTP's time in the era that is nearest to now (RFC 5905, 6): the first one ends in 2036.
fn unix_time(ntp: u64, now: Timestamp) -> Timestamp {
    let now_s = now.as_nanos().div_euclid(1_000_000_000);
    let seconds = (ntp >> 32) as u32;
    let apart_s = seconds.wrapping_sub(now_s.wrapping_add(NTP_TO_UNIX_S) as u32) as i32;
    let fraction_nanos = ((ntp & 0xffff_ffff) * 1_000_000_000) >> 32;
    Timestamp::from_nanos(
        (now_s + i64::from(apart_s)).saturating_mul(1_000_000_000).saturating_add(fraction_nanos as i64),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use cuewire::audio::Timeline;
    use cuewire::audio::rtp::{ReorderWindow, RtpCodec, RtpFormat, RtpPacket, RtpReceiver};
    use cuewire::time::SampleIndex;

    use super::*;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const MS: i64 = 1_000_000;
    const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

    fn ntp(at: Timestamp) -> u64 {
        let (seconds, nanos) = (at.as_nanos().div_euclid(1_000_000_000), at.as_nanos().rem_euclid(1_000_000_000));
        // Rounded up, as what is cut off makes a nanosecond.
        (((seconds + NTP_TO_UNIX_S) as u64) << 32) + (((nanos as u64) << 32).div_ceil(1_000_000_000))
    }

    fn report(ssrc: u32, at: Timestamp, timestamp: u32) -> Report {
        Report { ssrc, from: FROM, ntp: ntp(at), timestamp }
    }

    #[test]
    fn ntp_is_read_in_both_eras() {
        // The last second of the first era, and the first of the second.
        for unix_s in [1_800_000_000_i64, 2_085_978_495, 2_085_978_496, 2_200_000_000] {
            let at = Timestamp::from_nanos(unix_s * 1_000_000_000 + 123_456_789);
            assert_eq!(unix_time(ntp(at), at.plus_nanos(-5_000 * MS)), at);
            assert_eq!(unix_time(ntp(at), at.plus_nanos(5_000 * MS)), at);
        }
    }

    #[test]
    fn packets_are_dated_by_arrival_before_the_first_report_and_by_the_sender_behind_it() {
        let mut clock = SenderClock::new(8_000);
        let at = |ms: i64| NOW.plus_nanos(ms * MS);
        assert_eq!(clock.date(7, 1_000, FROM, at(0)), at(0));
        assert!(clock.handle_report(report(7, at(-300), u32::MAX), at(10)));
        assert_eq!(clock.date(7, 159, FROM, at(77)), at(-280), "20 ms behind it, over the wrap");
        assert_eq!(clock.date(7, u32::MAX - 160, FROM, at(99)), at(-320), "20 ms before it");
        assert_eq!(clock.date(8, 159, FROM, at(80)), at(80), "of another stream nothing is known");
        // A report may come before its stream: who sent it must be who sends the stream.
        let stranger = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        assert!(clock.handle_report(Report { from: stranger, ..report(8, at(-999), 0) }, at(81)));
        assert_eq!(clock.date(8, 0, FROM, at(82)), at(82));
        assert!(clock.handle_report(report(8, at(40), 0), at(83)));
        assert_eq!(clock.date(8, 160, FROM, at(84)), at(60));
        assert_eq!(clock.date(8, 160 + 8_000 * 3_600, FROM, at(85)), at(85), "an hour ahead: nonsense");
        assert_eq!(clock.date(8, 160, FROM, at(301_000)), at(301_000), "nothing was reported for long");
    }

    #[test]
    fn a_clock_that_is_none_is_not_believed() {
        let mut clock = SenderClock::new(48_000);
        // Never set; since the machine was started; an hour off; eleven seconds off.
        for ntp in [
            0,
            1,
            u64::MAX,
            1 << 63,
            86_400 << 32,
            ntp(NOW.plus_nanos(3_600_000 * MS)),
            ntp(NOW.plus_nanos(-11_000 * MS)),
        ] {
            assert!(!clock.handle_report(Report { ssrc: 7, from: FROM, ntp, timestamp: 0 }, NOW), "{ntp:#x}");
            assert_eq!(clock.date(7, 0, FROM, NOW), NOW);
        }
        for at in [i64::MIN, -1, 0, i64::MAX] {
            let now = Timestamp::from_nanos(at);
            clock.handle_report(Report { ssrc: 7, from: FROM, ntp: u64::MAX / 3, timestamp: 5 }, now);
            let _ = clock.date(7, u32::MAX / 2 + 9, FROM, now);
        }
    }

    /// An hour of 20 ms packets whose crystal is off by `ppm`, over a network that takes 5 – 45 ms. Gives how far each piece is
    /// from the truth, in ns, once `settled` packets were heard.
    fn hour(ppm: i64, reports: bool, settled: i64) -> i64 {
        let format = RtpFormat::new(RtpCodec::L16, 8_000, 1).unwrap();
        let mut receiver = RtpReceiver::new(format, ReorderWindow::default()).unwrap();
        let (mut clock, mut session) = (SenderClock::new(8_000), Timeline::new());
        let payload = [0; 320];
        let mut worst = 0;
        for index in 0..3_600 * 50_i64 {
            // When the packet's first sample was recorded in truth.
            let truth = |index: i64| NOW.plus_nanos(index * 20 * MS + index * 20 * ppm);
            let timestamp = (u32::MAX - 5_000).wrapping_add(index as u32 * 160);
            let delay = (5 + index * 7_919 % 41) * MS;
            if reports && index % 250 == 100 {
                assert!(clock.handle_report(report(7, truth(index), timestamp), truth(index).plus_nanos(delay)));
            }
            let at = clock.date(7, timestamp, FROM, truth(index).plus_nanos(delay));
            receiver
                .handle_packet(RtpPacket { at, ssrc: 7, sequence: index as u16, timestamp, payload: &payload })
                .unwrap();
            while let Some(piece) = receiver.poll_output() {
                // As the session has it, whose captions are dated by its own timeline.
                let placed = session.place(piece.at, 8_000).unwrap();
                if session.end().is_none() {
                    session.anchor(SampleIndex(0), piece.at, 8_000);
                } else {
                    assert_eq!(placed, cuewire::audio::Placement::Contiguous, "{index}");
                }
                let dated = session.end().unwrap();
                session.advance(piece.at, piece.pcm.frames() as u64);
                if index > settled {
                    worst =
                        worst.max(piece.at.nanos_since(truth(index)).abs()).max(dated.nanos_since(truth(index)).abs());
                }
            }
        }
        assert_eq!(receiver.stats().concealed_samples, 0);
        worst
    }

    #[test]
    fn an_hour_of_drift_is_followed_within_50_ms() {
        for ppm in [-100, 0, 100] {
            let (with, without) = (hour(ppm, true, 5_000), hour(ppm, false, 0));
            assert!(with < 15 * MS, "{ppm} ppm, with reports: {with} ns");
            assert!(without < 50 * MS, "{ppm} ppm, without: {without} ns");
        }
    }
}
