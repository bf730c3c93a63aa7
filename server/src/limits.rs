//! What may come, how much of it, and how often.
//!
//! In: the operator's settings. Out: bounds, each of which holds before anything is allocated for what is beyond it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Descriptors beside those of connections: the database, files, hooks, uploads.
const OTHER_FILES: u64 = 256;
/// Of sockets whose first frame is to say who speaks: it may be as long as a frame of audio.
const FIRST_FRAMES_BYTES: u32 = 256 * 1024 * 1024;

/// Bounds of a server. A machine with 2 processors and 4 GB holds what the defaults let in: 2000 tracks take 1.5 GB where frames are
/// of a second or less, bodies 448 MiB, first frames 256 MiB, the built-in model 200 MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Longest body of a request, in bytes; 16 384 – 67 108 864, default 1 048 576.
    pub body_bytes: u32,
    /// Seconds within which a connection's TLS handshake and first head have come, and each further head, the time that it is
    /// idle included; 1 – 300, default 10.
    pub head_s: u32,
    /// Seconds within which a body has come; 1 – 300, default 20.
    pub body_s: u32,
    /// Seconds after which a client that takes no byte of what it is sent is closed; 1 – 3600, default 30.
    pub write_s: u32,
    /// Connections that are open at a time, WebSockets among them; 8 – 1 000 000, default 16 384.
    pub connections: u32,
    /// Of these from one address, `trusted_proxies` apart; 0 – 1 000 000, default 0: as many as there may be.
    pub connections_per_address: u32,
    /// Longest frame of a participant's audio, in bytes; 16 384 – 16 777 216, default 524 288.
    pub frame_bytes: u32,
    /// Messages a second, audio apart, that one WebSocket may send; 1 – 10 000, default 50.
    pub messages_per_s: u32,
    /// Longest call, and call type, as it is kept, in bytes: settings, custom fields and members, and who is there; 16 384 –
    /// 67 108 864, default 524 288.
    pub call_bytes: u32,
    /// Longest user, as they are kept, in bytes; 4096 – 1 048 576, default 65 536.
    pub user_bytes: u32,
    /// Calls that are kept; 1 – 100 000 000, default 1 000 000.
    pub calls: u32,
    /// Participants of one call at a time; 1 – 100 000, default 1000.
    pub participants_per_call: u32,
    /// Tracks in all: participants who are there, or have left a session that goes on; 1 – 1 000 000, default 2000. What the
    /// engine can caption is less, and found out while it runs.
    pub max_tracks: u32,
    /// Whether somebody new is refused where the engine cannot caption one more in time; default yes. Else all get less: the
    /// engine does without interims, and then without more.
    pub refuse_overload: bool,
    /// Members of one call; 1 – 100 000, default 1000.
    pub members_per_call: u32,
    /// Hooks in all; 1 – 100, default 20.
    pub hooks: u32,
    /// Calls, members, users or dead letters in one page; 1 – 1000, default 100.
    pub page: u32,
    /// Requests a minute of one user, at once or spread; 1 – 1 000 000, default 3000.
    pub user_requests_per_min: u32,
    /// Requests a minute with a server's token; 1 – 100 000 000, default 60 000.
    pub server_requests_per_min: u32,
    /// Requests a minute without a token, or with one that is refused, from one address; 1 – 1 000 000, default 600. This
    /// machine's own addresses are not counted: a proxy may be there.
    pub address_requests_per_min: u32,
    /// WebSockets a minute that one user may open; 1 – 100 000, default 300.
    pub connects_per_min: u32,
    /// WebSockets that one user may have open, to watch or to speak; 1 – 100 000, default 50.
    pub sockets_per_user: u32,
    /// Proxies whose `X-Forwarded-For` tells a client's address; default none.
    pub trusted_proxies: Vec<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            head_s: 10,
            body_s: 20,
            write_s: 30,
            connections: 16 * 1024,
            connections_per_address: 0,
            frame_bytes: 512 * 1024,
            messages_per_s: 50,
            call_bytes: 512 * 1024,
            user_bytes: 64 * 1024,
            calls: 1_000_000,
            participants_per_call: 1000,
            max_tracks: 2000,
            refuse_overload: true,
            members_per_call: 1000,
            hooks: 20,
            page: 100,
            user_requests_per_min: 3000,
            server_requests_per_min: 60_000,
            address_requests_per_min: 600,
            connects_per_min: 300,
            sockets_per_user: 50,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Limits {
    /// Whether its values make sense.
    ///
    /// # Errors
    /// Names the first that does not, and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        const KIB: u32 = 1024;
        let bounds = [
            ("body_bytes", self.body_bytes, 16 * KIB, 64 * KIB * KIB),
            ("head_s", self.head_s, 1, 300),
            ("body_s", self.body_s, 1, 300),
            ("write_s", self.write_s, 1, 3600),
            ("connections", self.connections, 8, 1_000_000),
            ("connections_per_address", self.connections_per_address, 0, 1_000_000),
            ("frame_bytes", self.frame_bytes, 16 * KIB, 16 * KIB * KIB),
            ("messages_per_s", self.messages_per_s, 1, 10_000),
            ("call_bytes", self.call_bytes, 16 * KIB, 64 * KIB * KIB),
            ("user_bytes", self.user_bytes, 4 * KIB, KIB * KIB),
            ("calls", self.calls, 1, 100_000_000),
            ("participants_per_call", self.participants_per_call, 1, 100_000),
            ("max_tracks", self.max_tracks, 1, 1_000_000),
            ("members_per_call", self.members_per_call, 1, 100_000),
            ("hooks", self.hooks, 1, 100),
            ("page", self.page, 1, 1000),
            ("user_requests_per_min", self.user_requests_per_min, 1, 1_000_000),
            ("server_requests_per_min", self.server_requests_per_min, 1, 100_000_000),
            ("address_requests_per_min", self.address_requests_per_min, 1, 1_000_000),
            ("connects_per_min", self.connects_per_min, 1, 100_000),
            ("sockets_per_user", self.sockets_per_user, 1, 100_000),
        ];
        let wrong = bounds.into_iter().find(|(_, value, least, most)| !(least..=most).contains(&value));
        wrong.map_or(Ok(()), |(name, value, least, most)| {
            Err(format!("limits.{name} is {value}: allowed are {least} – {most}"))
        })
    }

    /// Frames that may be on their way at a time of whom nobody knows who sends them.
    pub(crate) fn first_frames(&self) -> u32 {
        FIRST_FRAMES_BYTES / self.frame_bytes.max(1)
    }

    /// Connections that the system has descriptors for too; of the ports of RTP those that it has them for are left. Each of these
    /// is two sockets, and all of them have a quarter of the descriptors at most.
    pub(crate) fn connections_within(&self, files: u64, rtp_ports: &mut [u16; 2]) -> u32 {
        let [first, last] = rtp_ports.map(|port| port.div_ceil(2));
        let pairs = last.saturating_sub(first);
        let most = u16::try_from(files / 8).unwrap_or(u16::MAX).max(1);
        if most < pairs {
            rtp_ports[1] = (first + most) * 2 - 1;
            tracing::warn!("this process may have {files} files open: {most} RTP ports of {pairs} are given out");
        }
        let of_rtp = u64::from(pairs.min(most)) * 2;
        let room = u32::try_from(files.saturating_sub(OTHER_FILES + of_rtp)).unwrap_or(u32::MAX).max(8);
        if room < self.connections {
            tracing::warn!(
                "limits.connections is {}, and this process may have {files} files open: {room} connections are let in",
                self.connections
            );
        }
        room.min(self.connections)
    }
}

/// Lets this process have as many files open as the system allows it: each connection is one. Gives how many.
pub fn raise_open_files() -> u64 {
    // Where it may not ask for more, what it has has to do.
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|_| open_files())
}

/// How many files this process may have open.
pub(crate) fn open_files() -> u64 {
    #[cfg(unix)]
    return rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft);
    #[cfg(not(unix))]
    return u64::MAX;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn defaults_make_sense_and_what_does_not_is_named_with_its_range() {
        Limits::default().check().unwrap();
        let set = |name: &str, value: u64| -> Result<(), String> {
            let mut limits = serde_json::to_value(Limits::default()).unwrap();
            limits[name] = value.into();
            serde_json::from_value::<Limits>(limits).unwrap().check()
        };
        for (name, value, expected) in [
            ("body_bytes", 16_383, "limits.body_bytes is 16383: allowed are 16384 – 67108864"),
            ("head_s", 0, "limits.head_s is 0: allowed are 1 – 300"),
            ("connections", 7, "limits.connections is 7: allowed are 8 – 1000000"),
            ("page", 1001, "limits.page is 1001: allowed are 1 – 1000"),
            ("connects_per_min", 0, "limits.connects_per_min is 0: allowed are 1 – 100000"),
        ] {
            assert_eq!(set(name, value).unwrap_err(), expected);
        }
        // Every number has a range.
        for (name, value) in serde_json::to_value(Limits::default()).unwrap().as_object().unwrap() {
            assert!(!value.is_number() || set(name, 0xffff_ffff).is_err(), "{name}");
        }
        assert!(serde_json::from_str::<Limits>(r#"{"body_byte": 1}"#).is_err());
    }

    #[test]
    fn no_more_connections_and_rtp_ports_are_let_in_than_there_are_descriptors() {
        let limits = Limits::default();
        for (files, connections, last) in [
            (1024, 512, 20_255),
            (4096, 2840, 20_999),
            (1 << 20, 16_384, 20_999),
            (u64::MAX, 16_384, 20_999),
            (0, 8, 20_001),
        ] {
            let mut ports = [20_000, 20_999];
            assert_eq!(limits.connections_within(files, &mut ports), connections, "{files}");
            assert_eq!(ports, [20_000, last], "{files}");
        }
        let mut ports = [1025, u16::MAX];
        limits.connections_within(1024, &mut ports);
        assert_eq!(ports, [1025, 1281], "from the even one on");
    }
}
