//! Audio by WebSocket: the connection is the participant.
//!
//! In: binary frames of samples or Opus packets, text frames that say what they are about. Out: pushes into the participant's
//! track.
//!
//! The track's line dates what is pushed; a `time` frame states a time.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use cuewire::audio::rtp::{RtpFormat, RtpPacket};
use cuewire::audio::{Pcm, Samples, check_rate};
use cuewire::engine::PushError;
use cuewire::time::nanos_of_samples;
use serde_json::{Value, json};

use crate::call::{Cid, Command};
use crate::clock::now;
use crate::host::{Change, Host};
use crate::rates::Messages;
use crate::stages::{Closed, Seated};
use crate::wire::error::{ApiError, Code};
use crate::wire::time_of;
use crate::wire::token::UserToken;

/// Audio that may come at once;
const BURST: Duration = Duration::from_secs(2);
/// beyond it a sender is held to this many times real time,
const FASTEST: f64 = 8.0;
/// and to this while the engine does without anything: real time, by a clock that may be a little fast.
const REAL_TIME: f64 = 1.02;
/// What a frame counts at least, however little is in it: the shortest of Opus. Each is work.
const LEAST_FRAME: Duration = Duration::from_micros(2_500);
/// A sender who waits looks again after this: overload, or a ring that is full, may be over.
const RETRY: Duration = Duration::from_millis(10);
/// A sender of whom nothing was heard for this long, muted or on hold as they may be, is asked whether they are there,
const PING: Duration = Duration::from_secs(20);
/// and has left after as many of these without a word.
const PINGS: u32 = 2;
/// The close code of a server that restarts.
const RESTARTING: u16 = 1012;
/// RTP's clock for Opus, in Hz.
const RTP_RATE: u32 = 48_000;
/// Of a frame of text: the longest that means something is far shorter.
const MAX_TEXT_BYTES: usize = 1024;

/// What binary frames hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// 16-bit samples, little-endian.
    Linear16,
    /// 32-bit float samples, little-endian.
    Float32,
    /// One Opus packet each.
    Opus,
}

/// How audio comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// What frames hold.
    pub(crate) encoding: Encoding,
    /// Frames a second.
    pub(crate) sample_rate: u32,
    /// Interleaved channels.
    pub(crate) channels: usize,
}

impl Format {
    /// Of the query of the connection's URL: `encoding`, `sample_rate`, `channels`.
    ///
    /// # Errors
    /// [`Code::Input`], with what is allowed.
    pub(crate) fn parse(field: impl Fn(&str) -> Option<String>) -> Result<Self, ApiError> {
        let encoding = match field("encoding").as_deref() {
            Some("linear16") | None => Encoding::Linear16,
            Some("float32") => Encoding::Float32,
            Some("opus") => Encoding::Opus,
            Some(other) => {
                let shown: String = other.chars().take(40).collect();
                let why = format!("encoding is `{shown}`: allowed are linear16, float32, opus");
                return Err(ApiError::new(Code::Input, why));
            }
        };
        let number = |name: &str, default: usize| match field(name) {
            None => Ok(default),
            Some(text) => text.parse::<usize>().map_err(|_| {
                let shown: String = text.chars().take(40).collect();
                ApiError::new(Code::Input, format!("{name} is `{shown}`: it should be a number"))
            }),
        };
        let is_opus = encoding == Encoding::Opus;
        let (rate, channels) = (number("sample_rate", if is_opus { 48_000 } else { 16_000 })?, number("channels", 1)?);
        let input = |error: cuewire::audio::PcmError| ApiError::new(Code::Input, error.to_string());
        let sample_rate = check_rate(u32::try_from(rate).unwrap_or(u32::MAX)).map_err(input)?;
        // That there may be so many channels.
        Pcm::new(sample_rate, channels, Samples::I16(&[])).map_err(input)?;
        Ok(Self { encoding, sample_rate, channels })
    }
}

/// How fast a connection sends: two buckets, which audio empties and time fills, each at its rate.
pub(super) struct Pace {
    /// Seconds of audio that may still come at once; below 0, how much too much came.
    fast_s: f64,
    /// The same while the engine does without anything.
    real_s: f64,
    /// When the last frame came, and how long it lasts.
    last: (Instant, Duration),
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        let full_s = BURST.as_secs_f64();
        Self { fast_s: full_s, real_s: full_s, last: (now, Duration::ZERO) }
    }

    pub(super) fn hear(&mut self, now: Instant, frame: Duration) {
        let (fast_s, real_s) = self.at(now);
        let frame_s = frame.max(LEAST_FRAME).as_secs_f64();
        (self.fast_s, self.real_s, self.last) = (fast_s - frame_s, real_s - frame_s, (now, frame));
    }

    fn at(&self, now: Instant) -> (f64, f64) {
        let (elapsed_s, full_s) = (now.saturating_duration_since(self.last.0).as_secs_f64(), BURST.as_secs_f64());
        ((self.fast_s + FASTEST * elapsed_s).min(full_s), (self.real_s + REAL_TIME * elapsed_s).min(full_s))
    }

    /// How long to wait before the next frame is read. Overload slows a fast sender down to real time and no further: a track
    /// to which nothing comes for longer has stalled, and its caption is closed.
    pub(super) fn hold_back(&self, now: Instant, is_overloaded: bool) -> Duration {
        let (fast_s, real_s) = self.at(now);
        let wait = Duration::from_secs_f64((-fast_s / FASTEST).max(0.0));
        if !is_overloaded || real_s >= 0.0 {
            return wait;
        }
        let (came, frame) = self.last;
        wait.max(frame.saturating_sub(now.saturating_duration_since(came)).min(RETRY))
    }

    /// Whether a frame that cannot wait came too early.
    pub(super) fn is_too_fast(&self, now: Instant, is_overloaded: bool) -> bool {
        let (fast_s, real_s) = self.at(now);
        fast_s < 0.0 || is_overloaded && real_s < 0.0
    }
}

/// How a connection ended.
struct Ending {
    code: u16,
    reason: String,
}

impl Ending {
    fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Why a connection ends that neither side has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    TokenExpired,
    ShuttingDown,
}

/// Serves a participant from their join to their leave.
pub(crate) async fn serve(
    host: Arc<Host>,
    mut socket: WebSocket,
    cid: Cid,
    token: UserToken,
    format: Format,
    ended: impl Future<Output = Ended>,
) {
    let user_id = token.user_id.clone();
    let joined = host.run({
        let (cid, host) = (cid.clone(), host.clone());
        move |change| join(&host, change, &cid, &token)
    });
    let ending = match joined.await {
        Ok(Some(seated)) => {
            let text = json!({"type": "joined", "user_id": user_id}).to_string();
            let connection = seated.connection;
            let ending = match socket.send(Message::Text(text.into())).await {
                Ok(()) => hear(&host, &mut socket, seated, format, ended).await,
                Err(_) => Ending::new(1001, ""),
            };
            // Who is sent away by a restart has not left: they may return.
            if ending.code != RESTARTING {
                host.stages.leave(&cid, &user_id, connection);
            }
            ending
        }
        Ok(None) => Ending::new(RESTARTING, "the server is shutting down"),
        Err(error) => refuse(&mut socket, &error).await,
    };
    close(&mut socket, ending.code, &ending.reason, CLOSES_WITHIN).await;
}

/// Somebody joins a call; `None` where the server is shutting down.
pub(super) fn join(
    host: &Arc<Host>,
    change: &mut Change<'_>,
    cid: &Cid,
    token: &UserToken,
) -> Result<Option<Seated>, ApiError> {
    let actor = change.user_actor(token, cid);
    change.keep_user(&token.user_id)?;
    let call = change.command(cid, &actor, Command::Join)?;
    change.seat(host, cid, call.session().map_or("", |session| session.id()), &token.user_id)
}

/// Says why, in the clients' format.
pub(crate) async fn refuse_and_close(mut socket: WebSocket, error: &ApiError) {
    let ending = refuse(&mut socket, error).await;
    close(&mut socket, ending.code, &ending.reason, CLOSES_WITHIN).await;
}

async fn refuse(socket: &mut WebSocket, error: &ApiError) -> Ending {
    let text = json!({"type": "connection.error", "error": error.body("0ms")}).to_string();
    // A client that is gone needs no reason.
    let _ = socket.send(Message::Text(text.into())).await;
    Ending::new(4000 + error.code.status(), error.message.clone())
}

/// How long a socket of audio is given to close.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// Closes, or answers a client that has.
pub(crate) async fn close(socket: &mut WebSocket, code: u16, reason: &str, within: Duration) {
    // A close frame holds 123 bytes.
    let end = (0..=reason.len().min(120)).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    let frame = CloseFrame { code, reason: reason[..end].to_string().into() };
    let closed = async {
        if socket.send(Message::Close(Some(frame))).await.is_err() {
            // The answer to the client's own waits until it is read past.
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = tokio::time::timeout(within, closed).await;
}

/// Pushes what comes until either side has enough.
async fn hear(
    host: &Host,
    socket: &mut WebSocket,
    seated: Seated,
    format: Format,
    ended: impl Future<Output = Ended>,
) -> Ending {
    let Seated { line, track, mut closed, .. } = seated;
    let line = || line.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pace = Pace::new(Instant::now());
    let mut samples = Vec::new();
    let mut unanswered = 0;
    let mut messages = Messages::new(host.limits().messages_per_s);
    tokio::pin!(ended);
    loop {
        let next = async {
            loop {
                let hold_back = pace.hold_back(Instant::now(), host.stages.is_overloaded());
                if hold_back.is_zero() {
                    return socket.recv().await;
                }
                tokio::time::sleep(hold_back).await;
            }
        };
        let message = tokio::select! {
            biased;
            closed = &mut closed => return match closed {
                Ok(Closed::AccessLost) => Ending::new(4001, "the capability to speak is lost"),
                Err(_) => Ending::new(1000, "the participant's place was taken, or the call has ended"),
            },
            ended = &mut ended => return match ended {
                Ended::TokenExpired => Ending::new(4001, "the token has expired"),
                Ended::ShuttingDown => Ending::new(RESTARTING, "the server restarts"),
            },
            message = next => message,
            () = tokio::time::sleep(PING) => {
                unanswered += 1;
                let ping = socket.send(Message::Ping(Vec::new().into()));
                if unanswered > PINGS || !matches!(tokio::time::timeout(PING, ping).await, Ok(Ok(()))) {
                    return Ending::new(1001, "nothing was heard");
                }
                continue;
            }
        };
        unanswered = 0;
        // Audio has its own pace.
        let is_audio = matches!(&message, Some(Ok(Message::Binary(bytes))) if !bytes.is_empty());
        if !is_audio && messages.are_too_many() {
            return Ending::new(4429, "too many messages");
        }
        match message {
            Some(Ok(Message::Binary(bytes))) => {
                let pushed = match format.encoding {
                    Encoding::Opus => {
                        let nanos = RtpFormat::OPUS.payload_nanos(&bytes).filter(|nanos| *nanos > 0);
                        let Some(nanos) = nanos else { return Ending::new(1007, "a frame holds no Opus packet") };
                        pace.hear(Instant::now(), Duration::from_nanos(nanos.unsigned_abs()));
                        let (at, sequence) = {
                            let mut line = line();
                            (line.date(now(), nanos), line.next_packet())
                        };
                        // By the date, so that a pause is one: no packet is missing.
                        let timestamp = (i128::from(at.as_nanos()) * i128::from(RTP_RATE) / 1_000_000_000) as u32;
                        let packet = RtpPacket { at, ssrc: 0, sequence, timestamp, payload: &bytes };
                        push(|| line().push_opus(packet)).await
                    }
                    Encoding::Linear16 | Encoding::Float32 => {
                        let pcm = match read(&bytes, format, &mut samples) {
                            Ok(pcm) => pcm,
                            Err(error) => return Ending::new(1007, error),
                        };
                        let nanos = nanos_of_samples(pcm.frames() as u64, pcm.rate());
                        pace.hear(Instant::now(), Duration::from_nanos(nanos.unsigned_abs()));
                        let at = line().date(now(), nanos);
                        push(|| line().push(at, pcm)).await
                    }
                };
                match pushed {
                    Ok(()) => {}
                    // It failed; or the server is shutting down, and may have it that nobody has left.
                    Err(PushError::Ended) => return Ending::new(RESTARTING, "the track has ended: connect again"),
                    Err(error) => return Ending::new(1009, error.to_string()),
                }
            }
            Some(Ok(Message::Text(text))) => {
                // What it says is short, and takes many times its size once it is read.
                if text.len() > MAX_TEXT_BYTES {
                    return Ending::new(
                        1009,
                        format!("a text frame has {} bytes: allowed are {MAX_TEXT_BYTES}", text.len()),
                    );
                }
                let said: Value = serde_json::from_str(&text).unwrap_or_default();
                match said["type"].as_str() {
                    Some("time") => match time_of(&said["at"]) {
                        Some(at) => line().say(at),
                        None => return Ending::new(1007, "`at` of a time frame is no time"),
                    },
                    Some("mute") => {
                        let muted = said["muted"].as_bool().unwrap_or(true);
                        host.stages.with_track(track, |engine, track| engine.mute(track, muted));
                    }
                    Some("unmute") => host.stages.with_track(track, |engine, track| engine.mute(track, false)),
                    Some("flush") => host.stages.with_track(track, |engine, track| engine.flush(track)),
                    Some("close") => return Ending::new(1000, ""),
                    _ => return Ending::new(1007, "a text frame's type is one of time, mute, unmute, flush, close"),
                }
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            // A frame that is too long; nobody hears of a connection that is broken.
            Some(Err(error)) => return Ending::new(1009, error.to_string()),
            Some(Ok(Message::Close(_))) | None => return Ending::new(1000, ""),
        }
    }
}

/// Pushes once there is room: whoever sends too fast waits.
pub(super) async fn push(push: impl Fn() -> Result<(), PushError>) -> Result<(), PushError> {
    let deadline = Instant::now() + BURST;
    loop {
        match push() {
            Err(PushError::Full) if Instant::now() < deadline => tokio::time::sleep(RETRY).await,
            // The engine is far behind: the loss is a declared gap.
            Err(PushError::Full) => return Ok(()),
            pushed => return pushed,
        }
    }
}

/// Samples of a frame.
fn read<'a>(bytes: &[u8], format: Format, samples: &'a mut Vec<f32>) -> Result<Pcm<'a>, String> {
    let width = if format.encoding == Encoding::Linear16 { 2 } else { 4 };
    let frame = width * format.channels;
    if !bytes.len().is_multiple_of(frame) {
        return Err(format!("a frame has {} bytes: samples of all channels have {frame}", bytes.len()));
    }
    samples.clear();
    if format.encoding == Encoding::Linear16 {
        let (pairs, _) = bytes.as_chunks::<2>();
        samples.extend(pairs.iter().map(|pair| f32::from(i16::from_le_bytes(*pair)) / 32_768.0));
    } else {
        let (quads, _) = bytes.as_chunks::<4>();
        samples.extend(quads.iter().map(|quad| f32::from_le_bytes(*quad)));
    }
    Pcm::interleaved(format.sample_rate, format.channels, &samples[..]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn formats_are_checked() {
        let parse = |query: &[(&str, &str)]| {
            Format::parse(|name| query.iter().find(|(field, _)| *field == name).map(|(_, value)| value.to_string()))
                .map_err(|error| error.message)
        };
        assert_eq!(parse(&[]), Ok(Format { encoding: Encoding::Linear16, sample_rate: 16_000, channels: 1 }));
        assert_eq!(parse(&[("encoding", "opus")]).unwrap().sample_rate, 48_000);
        for (field, value, part) in [
            ("encoding", "mp3", "`mp3`"),
            ("sample_rate", "5", "5"),
            ("sample_rate", "x", "`x`"),
            ("channels", "0", "0"),
        ] {
            let error = parse(&[(field, value)]).unwrap_err();
            assert!(error.contains(part), "{field}={value}: {error}");
        }
    }

    #[test]
    fn who_sends_too_fast_is_slowed_down_and_under_overload_to_real_time_and_no_further() {
        let frame = Duration::from_millis(20);
        let start = Instant::now();
        for (is_overloaded, takes_s) in [(false, 0.9..1.1), (true, 7.7..8.1)] {
            let (mut pace, mut now, mut longest) = (Pace::new(start), start, Duration::ZERO);
            // 10 s, all there at once.
            for _ in 0..500 {
                let before = now;
                loop {
                    let wait = pace.hold_back(now, is_overloaded);
                    if wait.is_zero() {
                        break;
                    }
                    now += wait;
                }
                longest = longest.max(now - before);
                pace.hear(now, frame);
            }
            assert!(longest <= frame, "the stream seems to have stalled for {longest:?}");
            assert!(takes_s.contains(&(now - start).as_secs_f64()), "{:?}", now - start);
        }
        // Who has spoken for long may send no more at once than anybody.
        let (mut pace, mut now) = (Pace::new(start), start);
        for _ in 0..50_000 {
            pace.hear(now, frame);
            now += frame;
        }
        for _ in 0..99 {
            pace.hear(now, frame);
        }
        assert!(pace.hold_back(now, true).is_zero() && !pace.is_too_fast(now, true));
        pace.hear(now, frame);
        pace.hear(now, frame);
        assert!(!pace.hold_back(now, false).is_zero() && pace.is_too_fast(now, false));
        // What holds next to nothing is work all the same.
        let mut pace = Pace::new(start);
        (0..801).for_each(|_| pace.hear(start, Duration::ZERO));
        assert!(!pace.hold_back(start, false).is_zero());
        // Overload begins when much was sent already.
        let mut pace = Pace::new(start);
        pace.hear(start, Duration::from_secs(60));
        pace.hear(start + Duration::from_secs(10), frame);
        assert_eq!(pace.hold_back(start + Duration::from_secs(10), true), RETRY);
        assert_eq!(pace.hold_back(start + Duration::from_secs(10) + frame, true), Duration::ZERO);
    }
}
