//! `cuewire bench …`: how many people at a time, how late, at what cost.
//!
//! Tracks are pushed in real time whatever the engine does (open loop): what it is late by, one waits for.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuewire::asr::whisper::WhisperModel;
use cuewire::audio::Pcm;
use cuewire::audio::file::AudioFile;
use cuewire::caption::{CaptionEvent, CaptionId, GapReason, StabilityCount};
use cuewire::config::Config;
use cuewire::engine::{
    AudioSender, Engine, EngineConfig, EngineEvent, OverloadLevel, Subscription, TrackConfig, TrackId,
};
use cuewire::time::{Timestamp, nanos_of_samples};
use serde::Serialize;

use crate::args::{BenchCapacityArgs, BenchCommand, BenchStreamsArgs, LoadArgs};
use crate::run::Interrupt;
use crate::stats::peak_rss_bytes;
use crate::{Failure, INTERRUPTED, model};

#[cfg(feature = "serve")]
mod calls;

/// Length of a push.
const PUSH: Duration = Duration::from_millis(20);
/// Tracks start within this.
const STAGGER: Duration = Duration::from_secs(2);
/// What counts as in time: 99 of 100 finals, by then after their silence.
const IN_TIME_MS: f64 = 500.0;
/// Of so many interims, one may be left out.
const MOST_DECLINED: u64 = 100;
/// Where the search for the capacity begins.
const FIRST_STREAMS: usize = 4;

pub(crate) fn run(command: &BenchCommand) -> Result<ExitCode, Failure> {
    match command {
        BenchCommand::Streams(args) => streams(args),
        BenchCommand::Capacity(args) => capacity(args),
        #[cfg(feature = "serve")]
        BenchCommand::Calls(args) => calls::run(args),
    }
}

fn streams(args: &BenchStreamsArgs) -> Result<ExitCode, Failure> {
    let bench = Bench::new(&args.load)?;
    let report = bench.run(args.streams.get())?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(bench.exit_code())
}

fn capacity(args: &BenchCapacityArgs) -> Result<ExitCode, Failure> {
    let bench = Bench::new(&args.load)?;
    let (mut fits, mut too_many) = (0, None);
    let mut runs = Vec::new();
    let mut streams = FIRST_STREAMS;
    // Up until they no longer fit, guided by what the engine thinks; then between.
    while !bench.interrupt.is_asked() {
        let run = bench.run(streams)?;
        let estimate = run.capacity_estimate.unwrap_or(2 * streams);
        if run.is_in_time() {
            fits = streams
        } else {
            too_many = Some(streams)
        }
        runs.push(run);
        streams = match too_many {
            None => estimate.clamp(fits + fits.div_ceil(6), 3 * fits),
            Some(too_many) if too_many - fits <= (fits / 20).max(1) => break,
            Some(too_many) => (fits + too_many) / 2,
        };
    }
    // As a host would ask: with no more than fits.
    let estimate = runs.iter().filter(|run| run.is_in_time()).max_by_key(|run| run.streams);
    let estimate = estimate.and_then(|run| run.capacity_estimate);
    println!("{}", serde_json::to_string_pretty(&Capacity { streams: fits, engine_estimate: estimate, runs })?);
    Ok(bench.exit_code())
}

/// What `bench capacity` finds.
#[derive(Serialize)]
struct Capacity {
    /// The largest number of streams of which all came in time, and nothing was dropped.
    streams: usize,
    /// What the engine said while it captioned as many.
    engine_estimate: Option<usize>,
    runs: Vec<Report>,
}

/// What `bench streams` prints.
#[derive(Serialize)]
struct Report {
    streams: usize,
    seconds: f64,
    finals: usize,
    final_latency_ms: Option<Quantiles>,
    cut_latency_ms: Option<Quantiles>,
    end_latency_ms: Option<Quantiles>,
    ledger_ms: Option<Quantiles>,
    first_interim_ms: Option<Quantiles>,
    interim_churn: Option<f64>,
    stability: Stability,
    push_us: Push,
    push_late_ms: Option<Quantiles>,
    drops: u64,
    interims: u64,
    interims_declined: u64,
    overload: BTreeMap<String, u64>,
    capacity_estimate: Option<usize>,
    cpu_per_audio_s: Option<f64>,
    peak_rss_bytes: Option<u64>,
}

impl Report {
    fn is_in_time(&self) -> bool {
        let is_in_time = |latency: &Option<Quantiles>| latency.as_ref().is_none_or(|latency| latency.p99 <= IN_TIME_MS);
        let interims = self.interims + self.interims_declined;
        self.drops == 0
            && self.interims_declined * MOST_DECLINED <= interims
            && is_in_time(&self.final_latency_ms)
            && is_in_time(&self.cut_latency_ms)
    }
}

#[derive(Serialize)]
struct Stability {
    stable_words: u64,
    changed_by_final: u64,
}

#[derive(Serialize)]
pub(crate) struct Quantiles {
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

#[derive(Serialize)]
struct Push {
    p99_9: f64,
    max: f64,
}

/// The smallest of the values that at least `share` of them do not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// To a thousandth.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Quantiles {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |share| rounded(quantile(&values, share));
        (!values.is_empty()).then(|| Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) })
    }
}

/// What all runs have in common.
struct Bench {
    tracks: Vec<PathBuf>,
    config: Config,
    model: Arc<WhisperModel>,
    workers: Option<NonZeroUsize>,
    seconds: u64,
    interrupt: Interrupt,
}

impl Bench {
    fn new(args: &LoadArgs) -> Result<Self, Failure> {
        let tracks = tracks(&args.call)?;
        let mut config = args.recognition.config(args.interim_interval_ms, false)?;
        config.early_finals = true;
        let model = model::load(args.recognition.model.as_deref())?;
        let (workers, seconds) = (args.recognition.threads, u64::from(args.seconds.get()));
        Ok(Self { tracks, config, model, workers, seconds, interrupt: Interrupt::listen()? })
    }

    fn exit_code(&self) -> ExitCode {
        if self.interrupt.is_asked() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS }
    }

    /// Captions so many streams. On Ctrl-C what was measured by then.
    fn run(&self, streams: usize) -> Result<Report, Failure> {
        let mut config = EngineConfig::default();
        config.workers = self.workers.unwrap_or(config.workers);
        let engine = Engine::start(config, self.model.clone())?;
        let events = engine.subscribe();
        let mut senders = Vec::new();
        let mut pushers = Vec::new();
        for i in 0..streams {
            let path = &self.tracks[i % self.tracks.len()];
            let mut track = TrackConfig::new(format!("{}-{i}", path.display()));
            track.config = self.config.clone();
            let (sender, id) = engine.add_track(track)?;
            senders.push(id);
            let start = STAGGER * u32::try_from(i)? / u32::try_from(streams)?;
            pushers.push(Pusher {
                sender: Some(sender),
                path,
                file: AudioFile::open(path)?,
                pcm: Vec::new(),
                start,
                frames: 0,
            });
        }
        let start = Instant::now();
        let (cpu, length) = (cpu_time(), Duration::from_secs(self.seconds));
        let schedule = Schedule {
            start,
            epoch: Timestamp::from_nanos(1_800_000_000_000_000_000),
            starts: senders.iter().copied().zip(pushers.iter().map(|pusher| pusher.start)).collect(),
            length,
            config: self.config.clone(),
        };
        let (pushed, heard) = std::thread::scope(|scope| {
            let heard = scope.spawn(|| listen(&events, &schedule, streams));
            let pushed = self.push_all(pushers, &schedule, &engine);
            // The senders are dropped, so the tracks end by themselves; not later than that.
            let until = Instant::now() + Duration::from_secs(10);
            while !heard.is_finished() && Instant::now() < until {
                std::thread::sleep(PUSH);
            }
            engine.shutdown(Duration::ZERO);
            (pushed, heard.join())
        });
        let pushed = pushed?;
        let heard = heard.map_err(|_| Failure("the thread that listens panicked".into()))?;
        let cpu_s = cpu.zip(cpu_time()).map(|(before, after)| after - before);
        let latencies = schedule.latencies(&heard.finals);
        let mut push_us = pushed.push_us;
        push_us.sort_by(f64::total_cmp);
        Ok(Report {
            streams,
            seconds: rounded(pushed.audio_s / streams as f64),
            finals: heard.finals.values().map(Vec::len).sum(),
            final_latency_ms: Quantiles::of(latencies.silence),
            cut_latency_ms: Quantiles::of(latencies.cut),
            end_latency_ms: Quantiles::of(latencies.end),
            ledger_ms: Quantiles::of(heard.finals.values().flatten().map(|said| said.since_closed_ms).collect()),
            first_interim_ms: Quantiles::of(heard.first_interim_ms),
            interim_churn: (heard.words > 0).then(|| rounded(heard.erased as f64 / heard.words as f64)),
            stability: Stability {
                stable_words: heard.stability.stable_words,
                changed_by_final: heard.stability.changed_by_final,
            },
            push_us: Push {
                p99_9: rounded(quantile(&push_us, 0.999)),
                max: rounded(push_us.last().copied().unwrap_or(0.0)),
            },
            push_late_ms: Quantiles::of(pushed.late_ms),
            drops: heard.dropped + pushed.refused,
            interims: heard.interims,
            interims_declined: heard.interims_declined,
            overload: heard.overload,
            capacity_estimate: pushed.more_fit.map(|more| more + streams),
            cpu_per_audio_s: cpu_s.map(|cpu| (cpu / pushed.audio_s * 1e6).round() / 1e6),
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    /// Pushes all streams, each 20 ms when they are over.
    fn push_all(&self, mut pushers: Vec<Pusher<'_>>, schedule: &Schedule, engine: &Engine) -> Result<Pushed, Failure> {
        let progress = if std::io::stderr().is_terminal() {
            indicatif::ProgressBar::new(self.seconds).with_prefix(format!("{} streams", pushers.len()))
        } else {
            indicatif::ProgressBar::hidden()
        };
        progress.set_style(indicatif::ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} s")?);
        let mut pushed = Pushed::default();
        let mut order: Vec<usize> = (0..pushers.len()).collect();
        order.sort_by_key(|&i| pushers[i].start.as_nanos() % PUSH.as_nanos());
        for round in 0_u32.. {
            if PUSH * round > schedule.length + STAGGER || self.interrupt.is_asked() {
                break;
            }
            progress.set_position((PUSH * round).as_secs());
            for &i in &order {
                let pusher = &mut pushers[i];
                let phase = Duration::from_nanos((pusher.start.as_nanos() % PUSH.as_nanos()) as u64);
                let due = PUSH * (round + 1) + phase;
                if due > pusher.start + schedule.length {
                    // While all are there.
                    pushed.more_fit = pushed.more_fit.or_else(|| engine.capacity());
                    pusher.sender = None;
                }
                if due <= pusher.start || pusher.sender.is_none() {
                    continue;
                }
                let wait = due.saturating_sub(schedule.start.elapsed());
                if !wait.is_zero() {
                    std::thread::sleep(wait);
                }
                pusher.push(schedule, due, &mut pushed)?;
            }
        }
        progress.finish_and_clear();
        Ok(pushed)
    }
}

/// One stream's sender.
struct Pusher<'a> {
    /// Until all was pushed.
    sender: Option<AudioSender>,
    path: &'a Path,
    file: AudioFile,
    /// Mono samples that were read and not pushed.
    pcm: Vec<f32>,
    /// After the start of all.
    start: Duration,
    frames: u64,
}

/// What was pushed.
#[derive(Default)]
struct Pushed {
    audio_s: f64,
    push_us: Vec<f64>,
    /// How late the harness itself was.
    late_ms: Vec<f64>,
    refused: u64,
    /// Tracks, as the engine said.
    more_fit: Option<usize>,
}

impl Pusher<'_> {
    fn push(&mut self, schedule: &Schedule, due: Duration, pushed: &mut Pushed) -> Result<(), Failure> {
        let rate = self.file.sample_rate();
        let frames = (rate / 50) as usize;
        let mut has_begun_anew = false;
        while self.pcm.len() < frames {
            match self.file.next_block()? {
                Some(block) => {
                    let block = Pcm::interleaved(block.sample_rate, block.channels, block.samples)?;
                    block.mix_into(0, block.frames(), &mut self.pcm);
                    has_begun_anew = false;
                }
                None if has_begun_anew => return Err(Failure(format!("{}: it holds no audio", self.path.display()))),
                None => (self.file, has_begun_anew) = (AudioFile::open(self.path)?, true),
            }
        }
        let at = schedule.epoch.plus_nanos(nanos(self.start) + nanos_of_samples(self.frames, rate));
        let pcm = Pcm::mono(rate, &self.pcm[..frames])?;
        let Some(sender) = &mut self.sender else { return Ok(()) };
        let before = Instant::now();
        let result = sender.push(at, pcm);
        pushed.push_us.push(before.elapsed().as_secs_f64() * 1e6);
        pushed.refused += u64::from(result.is_err());
        let late = before.duration_since(schedule.start).saturating_sub(due);
        pushed.late_ms.push(late.as_secs_f64() * 1e3);
        pushed.audio_s += PUSH.as_secs_f64();
        self.pcm.drain(..frames);
        self.frames += frames as u64;
        Ok(())
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// When what is pushed.
struct Schedule {
    start: Instant,
    /// The tracks' time at the start.
    epoch: Timestamp,
    starts: HashMap<TrackId, Duration>,
    length: Duration,
    config: Config,
}

impl Schedule {
    /// When the push with this instant of a track is due, after the start.
    fn pushed(&self, track: TrackId, at: Timestamp) -> Duration {
        let start = self.starts.get(&track).copied().unwrap_or_default();
        let at = Duration::from_nanos(u64::try_from(at.nanos_since(self.epoch)).unwrap_or(0)).saturating_sub(start);
        let pushes = u32::try_from(at.as_nanos() / PUSH.as_nanos()).unwrap_or(u32::MAX - 1) + 1;
        (start + PUSH * pushes).min(self.end(track))
    }

    /// How late finals were: after the push with which the silence was over or the stream ended; where the caption was cut,
    /// after the engine did that.
    fn latencies(&self, finals: &HashMap<TrackId, Vec<Final>>) -> Latencies {
        let silence = i64::from(self.config.speech_segment_config.silence_duration_ms.ms()) * 1_000_000;
        let mut latencies = Latencies::default();
        for (&track, finals) in finals {
            for (i, Final { end_time, received, since_closed_ms, .. }) in finals.iter().enumerate() {
                let due = self.pushed(track, end_time.plus_nanos(silence));
                let late = (received.as_secs_f64() - due.as_secs_f64()) * 1e3;
                // Speech that goes on sooner shows that it was cut.
                if finals.get(i + 1).is_some_and(|next| next.start_time.nanos_since(*end_time) < silence) {
                    latencies.cut.push(*since_closed_ms);
                } else if due >= self.end(track) {
                    latencies.end.push(late);
                } else {
                    latencies.silence.push(late);
                }
            }
        }
        latencies
    }

    /// When a track's last push is due.
    fn end(&self, track: TrackId) -> Duration {
        self.starts.get(&track).copied().unwrap_or_default() + self.length
    }
}

/// When a final came, after the start.
struct Final {
    start_time: Timestamp,
    end_time: Timestamp,
    received: Duration,
    /// By the engine's ledger, from the end of the caption's audio until it was said.
    since_closed_ms: f64,
}

/// How late finals were, in milliseconds, by what ended the caption.
#[derive(Default)]
struct Latencies {
    silence: Vec<f64>,
    cut: Vec<f64>,
    end: Vec<f64>,
}

/// What was heard.
#[derive(Default)]
struct Heard {
    /// In order.
    finals: HashMap<TrackId, Vec<Final>>,
    first_interim_ms: Vec<f64>,
    words: usize,
    /// Words that were shown and then taken back or replaced, with all behind them.
    erased: usize,
    stability: StabilityCount,
    dropped: u64,
    interims: u64,
    interims_declined: u64,
    /// How often each step of the ladder was reached.
    overload: BTreeMap<String, u64>,
}

/// Receives until all tracks have ended.
fn listen(events: &Subscription, schedule: &Schedule, tracks: usize) -> Heard {
    let mut heard = Heard::default();
    let mut shown: HashMap<(TrackId, CaptionId), String> = HashMap::new();
    let mut ended = 0;
    while ended < tracks {
        let Some(event) = events.recv() else { break };
        let now = schedule.start.elapsed();
        let since = |due: Duration| (now.as_secs_f64() - due.as_secs_f64()) * 1e3;
        match event {
            EngineEvent::Caption { track, event: CaptionEvent::Interim { id, start_time, text, .. }, .. } => {
                heard.interims += 1;
                match shown.insert((track, id), text.clone()) {
                    Some(before) => heard.erased += erased(&before, &text),
                    None => heard.first_interim_ms.push(since(schedule.pushed(track, start_time))),
                }
            }
            EngineEvent::Caption {
                track,
                event: CaptionEvent::Final { id, start_time, end_time, text, .. },
                ledger,
                ..
            } => {
                let since_closed_ms = ledger.map_or(0.0, |ledger| ledger.latency_nanos() as f64 / 1e6);
                let said = Final { start_time, end_time, received: now, since_closed_ms };
                heard.finals.entry(track).or_default().push(said);
                heard.words += text.split_whitespace().count();
                heard.erased += shown.remove(&(track, id)).map_or(0, |before| erased(&before, &text));
            }
            EngineEvent::Caption { event: CaptionEvent::Gap { reason, .. }, .. } => {
                heard.dropped += u64::from(reason != GapReason::NoAudio);
            }
            EngineEvent::Caption { track, event: CaptionEvent::Suppressed { id, .. }, .. } => {
                heard.erased += shown.remove(&(track, id)).map_or(0, |before| erased(&before, ""));
            }
            EngineEvent::Overload { level } if level > OverloadLevel::None => {
                *heard.overload.entry(format!("{level:?}")).or_default() += 1;
            }
            EngineEvent::Ended { report, .. } => {
                ended += 1;
                heard.interims_declined += report.interims_declined;
                heard.stability.stable_words += report.stability.stable_words;
                heard.stability.changed_by_final += report.stability.changed_by_final;
            }
            EngineEvent::Missed { events } => heard.dropped += events,
            _ => {}
        }
    }
    heard
}

/// Words of `before` from the first on that `after` has not in its place.
fn erased(before: &str, after: &str) -> usize {
    let kept = before.split_whitespace().zip(after.split_whitespace()).take_while(|(a, b)| a == b).count();
    before.split_whitespace().count() - kept
}

/// The recordings of the calls, each a track.
pub(crate) fn tracks(calls: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut tracks = Vec::new();
    for call in calls {
        let failed = |error: std::io::Error| Failure(format!("cannot read the call {}: {error}", call.display()));
        let mut own = Vec::new();
        for entry in fs::read_dir(call).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_audio =
                |name: &std::ffi::OsStr| ["wav", "flac"].iter().any(|known| name.eq_ignore_ascii_case(known));
            if path.extension().is_some_and(is_audio) {
                own.push(path);
            }
        }
        own.sort();
        if own.is_empty() {
            return Err(Failure(format!(
                "the call {} holds no track: NAME.wav or NAME.flac is expected",
                call.display()
            )));
        }
        tracks.append(&mut own);
    }
    Ok(tracks)
}

/// Processor time of this process, user and system, in seconds; of Linux.
fn cpu_time() -> Option<f64> {
    /// `USER_HZ`, which is the same on all of Linux's architectures that this runs on.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let of = |values: &[f64]| Quantiles::of(values.to_vec()).map(|q| [q.p50, q.p95, q.p99, q.max]);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some([3.0; 4]));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(of(&hundred), Some([50.0, 95.0, 99.0, 100.0]));
        assert_eq!(quantile(&hundred.iter().rev().copied().collect::<Vec<_>>(), 0.999), 100.0);
    }

    #[test]
    fn a_word_is_erased_with_all_behind_it() {
        for (before, after, expected) in
            [("a b c", "a b c d", 0), ("a b c", "a x c", 2), ("a b", "", 2), ("", "a", 0), ("a b c", "a b", 1)]
        {
            assert_eq!(erased(before, after), expected, "{before:?} {after:?}");
        }
    }
}
