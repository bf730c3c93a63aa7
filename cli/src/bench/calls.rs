//! `cuewire bench calls`: a server under load, as its clients see it.
//!
//! In: recordings, which participants of one call stream in real time, and watchers. Out: how late captions were, by their
//! ledgers and at the watchers' sockets.
//!
//! Server and load share one clock: they run on one machine.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cuewire::audio::file::AudioFile;
use cuewire::time::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::{Quantiles, tracks};
use crate::args::BenchCallsArgs;
use crate::client::{Client, Socket, hear, send_frames, send_recording};
use crate::run::Interrupt;
use crate::{Failure, INTERRUPTED};

/// Who starts the call.
const HOST: &str = "bench-host";
/// Stack of a watcher's thread, of which there may be thousands.
const STACK_BYTES: usize = 256 * 1024;
/// What is said behind the participants' leave comes within this.
const REST: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Report {
    participants: usize,
    watchers: usize,
    idle_calls: usize,
    seconds: f64,
    finals: u64,
    /// From the end of the silence until the engine said it.
    ledger_ms: Option<Quantiles>,
    /// From there to a watcher's socket, each.
    delivery_ms: Option<Quantiles>,
    /// Both.
    final_ms: Option<Quantiles>,
    interims: u64,
    /// Finals that a watcher should have had and had not.
    missing: u64,
}

/// What the watchers heard.
#[derive(Default)]
struct Heard {
    delivery_ms: Mutex<Vec<f64>>,
    final_ms: Mutex<Vec<f64>>,
    ledger_ms: Mutex<Vec<f64>>,
    received: AtomicU64,
    finals: AtomicU64,
    interims: AtomicU64,
}

/// A time of a caption's ledger.
fn time_in(event: &str, name: &str) -> Option<Timestamp> {
    let (_, behind) = event.split_once(&format!("\"{name}\":\""))?;
    behind.split_once('"')?.0.parse().ok()
}

fn push(values: &Mutex<Vec<f64>>, value: f64) {
    values.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(value);
}

fn take(values: &Mutex<Vec<f64>>) -> Vec<f64> {
    std::mem::take(&mut values.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

impl Heard {
    /// Of hundreds of watchers on the server's own machine: so nothing is parsed but what is needed.
    fn take(&self, event: &str, at: Timestamp, is_first: bool) {
        if is_first && event.contains("\"call.closed_caption_interim\"") {
            self.interims.fetch_add(1, Ordering::Relaxed);
        }
        if !event.contains("\"call.closed_caption\"") {
            return;
        }
        self.received.fetch_add(1, Ordering::Relaxed);
        let Some((emitted, reached)) = time_in(event, "emitted").zip(time_in(event, "silence_reached")) else { return };
        let ms = |nanos: i64| nanos as f64 / 1e6;
        push(&self.delivery_ms, ms(at.nanos_since(emitted)));
        if is_first {
            self.finals.fetch_add(1, Ordering::Relaxed);
            push(&self.final_ms, ms(at.nanos_since(reached)));
            push(&self.ledger_ms, ms(emitted.nanos_since(reached)));
        }
    }
}

pub(crate) fn run(args: &BenchCallsArgs) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen()?;
    let client = Client::new(&args.server)?;
    let recordings = if args.participants == 0 { Vec::new() } else { tracks(&args.call)? };
    let cid = format!("default:bench-{:016x}", getrandom::u64()?);
    let path = format!("/call/{}", cid.replacen(':', "/", 1));
    client.post(&path, "", None, &json!({"data": {"created_by_id": HOST}}))?;
    let mut sockets = Vec::new();
    for i in 0..args.watchers {
        let user = if i == 0 { HOST.to_string() } else { format!("bench-{i}") };
        let (socket, connection) = client.events(&user)?;
        client.post(&path, &format!("&connection_id={connection}"), Some(&user), &json!({}))?;
        sockets.push(socket);
    }
    // Each in a call of its own, of which nothing is ever said.
    let mut idle = Vec::new();
    for i in 0..args.idle_calls {
        let user = format!("bench-idle-{i}");
        let (socket, connection) = client.events(&user)?;
        client.post(&format!("{path}-{i}"), &format!("&connection_id={connection}"), Some(&user), &json!({}))?;
        idle.push(socket);
    }
    let (heard, is_over) = (Heard::default(), AtomicBool::new(false));
    let start = Instant::now();
    let length = Duration::from_secs(args.seconds.get().into());
    std::thread::scope(|scope| -> Result<(), Failure> {
        for (i, mut socket) in sockets.into_iter().enumerate() {
            let (heard, is_over) = (&heard, &is_over);
            let watch = move || {
                // One that is closed early misses finals, and these are counted.
                let _ = hear(&mut socket, |event, at| {
                    heard.take(event, at, i == 0);
                    !is_over.load(Ordering::Relaxed)
                });
            };
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, watch)?;
        }
        let (is_over, idle) = (&is_over, std::mem::take(&mut idle));
        let kept = scope.spawn(move || keep_alive(idle, is_over));
        let work = || -> Result<(), Failure> {
            if args.participants > 0 {
                let start = json!({"language": args.language.to_string(), "enable_transcription": args.transcription});
                client.post(&format!("{path}/start_closed_captions"), "", None, &start)?;
            }
            speak(&client, &cid, &recordings, args, &interrupt, length)?;
            let until = start + length + REST;
            while Instant::now() < until && !interrupt.is_asked() {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        };
        let worked = work();
        is_over.store(true, Ordering::Relaxed);
        // A last event wakes the watchers.
        let ended = client.post(&format!("{path}/mark_ended"), "", None, &json!({}));
        let kept = kept.join().unwrap_or_else(|_| Err(Failure("the idle connections' thread panicked".into())));
        worked.and(kept).and(ended.map(drop))
    })?;
    let (finals, received) = (heard.finals.load(Ordering::Relaxed), heard.received.load(Ordering::Relaxed));
    let report = Report {
        participants: args.participants,
        watchers: args.watchers,
        idle_calls: args.idle_calls,
        seconds: start.elapsed().as_secs_f64(),
        finals,
        ledger_ms: Quantiles::of(take(&heard.ledger_ms)),
        delivery_ms: Quantiles::of(take(&heard.delivery_ms)),
        final_ms: Quantiles::of(take(&heard.final_ms)),
        interims: heard.interims.load(Ordering::Relaxed),
        missing: (finals * args.watchers as u64).saturating_sub(received),
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(if interrupt.is_asked() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// The participants, each a thread, until the time is over.
fn speak(
    client: &Client,
    cid: &str,
    recordings: &[PathBuf],
    args: &BenchCallsArgs,
    interrupt: &Interrupt,
    length: Duration,
) -> Result<(), Failure> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let speak = |i: usize| -> Result<(), Failure> {
            // They do not start at once.
            std::thread::sleep(Duration::from_secs(2) * u32::try_from(i)? / u32::try_from(args.participants)?);
            let is_to_stop = || start.elapsed() >= length || interrupt.is_asked();
            for recording in recordings.iter().cycle().skip(i) {
                let mut file = AudioFile::open(recording)?;
                let speaker = format!("speaker-{i}");
                if args.rtp {
                    let to = client.rtp(cid, &speaker, &file)?;
                    send_rtp(to, &mut file, is_to_stop)?;
                    client.close_rtp(cid, to.port())?;
                } else {
                    let mut socket = client.speak(cid, &speaker, &file)?;
                    send_recording(&mut socket, &mut file, false, is_to_stop)?;
                }
                if is_to_stop() {
                    return Ok(());
                }
            }
            Ok(())
        };
        let threads: Vec<_> = (0..args.participants).map(|i| scope.spawn(move || speak(i))).collect();
        let panicked = |_| Err(Failure("a participant's thread panicked".into()));
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
    })
}

/// Sends a recording as RTP in real time, until it is over or is to stop.
fn send_rtp(to: SocketAddr, file: &mut AudioFile, is_to_stop: impl Fn() -> bool) -> Result<(), Failure> {
    let socket = UdpSocket::bind((to.ip(), 0))?;
    let (channels, ssrc) = (file.channels(), getrandom::u32()?.to_be_bytes());
    let (mut sequence, mut timestamp, mut packet) = (0_u16, 0_u32, Vec::new());
    send_frames(file, false, is_to_stop, |samples| {
        packet.clear();
        packet.extend_from_slice(&[0x80, 96]);
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&timestamp.to_be_bytes());
        packet.extend_from_slice(&ssrc);
        packet.extend(samples.iter().flat_map(|sample| ((sample * 32_767.0) as i16).to_be_bytes()));
        socket.send_to(&packet, to)?;
        sequence = sequence.wrapping_add(1);
        timestamp = timestamp.wrapping_add((samples.len() / channels) as u32);
        Ok(())
    })
}

/// Says that the idle connections are there, as clients do each 25 s, until all is over.
fn keep_alive(mut sockets: Vec<Socket>, is_over: &AtomicBool) -> Result<(), Failure> {
    const ROUND: Duration = Duration::from_secs(20);
    let (start, count, mut asked) = (Instant::now(), sockets.len() as u128, 0);
    while !is_over.load(Ordering::Relaxed) {
        // Spread over the round.
        let due = start.elapsed().as_nanos() * count / ROUND.as_nanos();
        while asked < due && !is_over.load(Ordering::Relaxed) {
            let socket = &mut sockets[(asked % count) as usize];
            socket.send(tungstenite::Message::text(r#"[{"type":"health.check"}]"#))?;
            while !matches!(socket.read()?, tungstenite::Message::Text(_)) {}
            asked += 1;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
