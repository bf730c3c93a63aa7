//! Which datagrams are a participant's audio, without a socket and without a clock.
//!
//! In: datagrams with where they came from and when. Out: packets with their date, or why one was dropped; what RTCP said of the
//! sender's clock.
//!
//! The first packet that is as agreed decides who the sender is, where that was left open. RTCP may come on the same port or on
//! the one behind it (RFC 5761, 4), and from any port of the sender's address.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use cuewire::audio::rtp::{MAX_PAYLOAD_BYTES, RtpFormat, RtpPacket};
use cuewire::time::Timestamp;

use super::clock::{Report, SenderClock};
use crate::ingest::audio::Pace;

/// Longest datagram: the longest payload, behind a header with all contributing sources and some extensions.
pub(crate) const MAX_DATAGRAM_BYTES: usize = MAX_PAYLOAD_BYTES + 1024;

/// What a sender is to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// How payloads are coded.
    pub(crate) format: RtpFormat,
    /// 0 – 127.
    pub(crate) payload_type: u8,
    /// The stream; `None`: any, and another may follow.
    pub(crate) ssrc: Option<u32>,
    /// The sender's address; `None`: the first that sends.
    pub(crate) from: Option<(IpAddr, Option<u16>)>,
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Neither RTP nor RTCP, too long, or it holds nothing of its format.
    Malformed,
    /// From elsewhere.
    Elsewhere,
    /// Of another stream than was agreed.
    Ssrc,
    /// Of another payload type.
    PayloadType,
    /// Faster than audio is taken.
    TooFast,
    /// A report whose wall clock is none.
    Report,
}

impl Dropped {
    pub(super) const ALL: [Self; 6] =
        [Self::Malformed, Self::Elsewhere, Self::Ssrc, Self::PayloadType, Self::TooFast, Self::Report];

    /// As metrics have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Elsewhere => "elsewhere",
            Self::Ssrc => "ssrc",
            Self::PayloadType => "payload_type",
            Self::TooFast => "too_fast",
            Self::Report => "report",
        }
    }
}

/// What was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken<'a> {
    /// A packet of the participant's, and how many nanoseconds it lasts.
    Audio(RtpPacket<'a>, i64),
    /// A packet of theirs of another payload type, such as comfort noise (RFC 3389) or a key that was pressed (RFC 4733), with
    /// nothing in it. They are there, and its number is no loss.
    Other(RtpPacket<'a>),
    /// Something else that was right.
    Control,
}

/// What decides.
pub(crate) struct Gate {
    agreed: Agreed,
    /// Who sends, once that is known.
    sender: Option<SocketAddr>,
    clock: SenderClock,
    pace: Option<Pace>,
}

impl Gate {
    pub(crate) fn new(agreed: Agreed) -> Self {
        let clock = SenderClock::new(agreed.format.clock_rate());
        Self { agreed, sender: None, clock, pace: None }
    }

    /// Takes a datagram that came `now`, by both clocks.
    pub(crate) fn take<'a>(
        &mut self,
        datagram: &'a [u8],
        from: SocketAddr,
        (now, instant): (Timestamp, Instant),
        is_overloaded: bool,
    ) -> Result<Taken<'a>, Dropped> {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if datagram.len() >= MAX_DATAGRAM_BYTES {
            return Err(Dropped::Malformed);
        }
        // Types of RTCP are payload types 64 – 95 with the marker, which no stream here has (RFC 5761, 4).
        if matches!(datagram.get(1), Some(192..=223)) {
            return self.take_rtcp(datagram, from.ip(), now).map(|()| Taken::Control);
        }
        let packet = rtp_types::RtpPacket::parse(datagram).map_err(|_| Dropped::Malformed)?;
        let is_sender = match (self.sender, self.agreed.from) {
            (Some(sender), _) => sender == from,
            (None, Some((ip, port))) => ip == from.ip() && port.is_none_or(|port| port == from.port()),
            (None, None) => true,
        };
        if !is_sender {
            return Err(Dropped::Elsewhere);
        }
        let is_other = packet.payload_type() != self.agreed.payload_type;
        if is_other && self.sender.is_none() {
            return Err(Dropped::PayloadType);
        }
        let (ssrc, timestamp) = (packet.ssrc(), packet.timestamp());
        if self.agreed.ssrc.is_some_and(|agreed| agreed != ssrc) {
            return Err(Dropped::Ssrc);
        }
        let end = datagram.len() - usize::from(packet.padding().unwrap_or(0));
        let payload = datagram.get(packet.payload_offset()..end).filter(|_| !is_other).unwrap_or_default();
        let nanos = self.agreed.format.payload_nanos(payload);
        let nanos = nanos.filter(|_| payload.len() <= MAX_PAYLOAD_BYTES).ok_or(Dropped::Malformed)?;
        let pace = self.pace.get_or_insert_with(|| Pace::new(instant));
        if pace.is_too_fast(instant, is_overloaded) {
            return Err(Dropped::TooFast);
        }
        pace.hear(instant, Duration::from_nanos(nanos.unsigned_abs()));
        self.sender = Some(from);
        let at = self.clock.date(ssrc, timestamp, from.ip(), now.plus_nanos(-nanos));
        let packet = RtpPacket { at, ssrc, sequence: packet.sequence_number(), timestamp, payload };
        Ok(if is_other { Taken::Other(packet) } else { Taken::Audio(packet, nanos) })
    }

    fn take_rtcp(&mut self, datagram: &[u8], from: IpAddr, now: Timestamp) -> Result<(), Dropped> {
        use rtcp_types::{Compound, Packet};
        let sender = self.sender.map(|sender| sender.ip()).or(self.agreed.from.map(|(ip, _)| ip));
        if sender.is_some_and(|sender| sender != from) {
            return Err(Dropped::Elsewhere);
        }
        for packet in Compound::parse(datagram).map_err(|_| Dropped::Malformed)? {
            let Packet::Sr(said) = packet.map_err(|_| Dropped::Malformed)? else { continue };
            let ssrc = said.ssrc();
            if self.agreed.ssrc.is_some_and(|agreed| agreed != ssrc) {
                return Err(Dropped::Ssrc);
            }
            let report = Report { ssrc, from, ntp: said.ntp_timestamp(), timestamp: said.rtp_timestamp() };
            if !self.clock.handle_report(report, now) {
                return Err(Dropped::Report);
            }
        }
        Ok(())
    }
}
