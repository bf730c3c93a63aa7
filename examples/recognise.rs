//! Recognises every utterance of a folder, whole and one at a time, and says what that cost.
//!
//! `cargo run --release --example recognise -- MODEL SPEECH_DIR OUT_DIR --language en --threads 2`
//!
//! In: a model, and a folder of recordings with a `manifest.jsonl`. Out: one text a recording, and one JSON line a run.
//! The model is loaded, the audio in memory and one utterance decoded before the clock starts; there is no voice
//! activity detection and no draft, so that the figures are those of recognition alone. `benches/compare.py` sets them
//! beside those of other programs.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use crossbeam_channel::Receiver;
use cuewire::asr::whisper::WhisperModel;
use cuewire::asr::{DecodeJob, JobId};
use cuewire::audio::file::AudioFile;
use cuewire::config::LanguageSetting;
use cuewire::engine::{Answer, Job, Workers, default_threads};
use cuewire::time::SAMPLE_RATE;
use serde::{Deserialize, Serialize};

const HELP: &str = r#"Recognises every utterance of a folder, whole and one at a time, and says what that cost.

Usage: recognise MODEL SPEECH_DIR OUT_DIR [OPTIONS]

  MODEL           a Whisper model: a Hugging Face or CTranslate2 folder, a GGUF or ggml file
  SPEECH_DIR      a folder with manifest.jsonl, one JSON object a line: {"file": "name.flac", …}
                  The recordings are mono at 16 kHz, up to 30 s each.
  OUT_DIR         where name.txt goes: what was recognised, nothing where the model's guards suppressed it

  --language CODE   what is spoken, or auto [en]
  --threads N       decode workers [as many as the process may use]
  --parallel N      utterances in flight; above 1, work_s is the time of the whole run [1]
  --runs N          how often all of it is done, each with its own line [1]
  -h, --help        this text

Standard output gets one JSON line a run: seconds of audio (audio_s), of recognition by the clock (work_s) and of CPU
(cpu_s); work_s / audio_s (rtf); the time of an utterance in the median and at the 95th and 99th percentile (p50_ms,
p95_ms, p99_ms); how many were decoded again with the whole window (fallbacks); the process's memory at its peak (peak_rss_bytes). Only Linux tells cpu_s and peak_rss_bytes; elsewhere
they are null.
"#;

/// What the command line asks for.
struct Args {
    model: PathBuf,
    speech: PathBuf,
    out: PathBuf,
    language: LanguageSetting,
    threads: NonZeroUsize,
    parallel: NonZeroUsize,
    runs: NonZeroUsize,
}

/// A line of the manifest; what else it holds is not needed here.
#[derive(Deserialize)]
struct Row {
    file: PathBuf,
}

struct Utterance {
    file: PathBuf,
    /// Mono at 16 kHz.
    audio: Arc<[f32]>,
}

/// What a run found, and how long it took.
struct Run {
    texts: Vec<String>,
    /// From the submission of each utterance to its answer.
    latencies: Vec<Duration>,
    /// Utterances that were decoded again with the whole window.
    fallbacks: usize,
    elapsed: Duration,
    cpu_s: Option<f64>,
}

/// The line on standard output.
#[derive(Serialize)]
struct Report {
    peer: &'static str,
    threads: usize,
    files: usize,
    audio_s: f64,
    work_s: f64,
    cpu_s: Option<f64>,
    rtf: f64,
    p50_ms: u64,
    p95_ms: u64,
    p99_ms: u64,
    fallbacks: usize,
    peak_rss_bytes: Option<u64>,
}

fn main() -> ExitCode {
    let result = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => run(&args),
        Ok(None) => {
            print!("{HELP}");
            Ok(())
        }
        Err(error) => Err(format!("{error}; see --help").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recognise: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments, or nothing where help is asked for.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Args>, Box<dyn Error>> {
    let mut paths = Vec::new();
    let mut language = LanguageSetting::default();
    let (mut threads, mut parallel, mut runs) = (default_threads(), NonZeroUsize::MIN, NonZeroUsize::MIN);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "-h" | "--help" => return Ok(None),
            "--language" => language = value()?.parse()?,
            "--threads" => threads = number(&arg, &value()?)?,
            "--parallel" => parallel = number(&arg, &value()?)?,
            "--runs" => runs = number(&arg, &value()?)?,
            option if option.starts_with('-') => return Err(format!("there is no option {option}").into()),
            path => paths.push(PathBuf::from(path)),
        }
    }
    let [model, speech, out] = <[PathBuf; 3]>::try_from(paths)
        .map_err(|paths| format!("MODEL, SPEECH_DIR and OUT_DIR are needed, and {} were given", paths.len()))?;
    Ok(Some(Args { model, speech, out, language, threads, parallel, runs }))
}

fn number(option: &str, value: &str) -> Result<NonZeroUsize, String> {
    value.parse().map_err(|_| format!("{option} is {value}: allowed are whole numbers from 1 on"))
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let utterances = read_speech(&args.speech)?;
    let first = utterances.first().ok_or("the manifest is empty: list at least one recording")?;
    fs::create_dir_all(&args.out).map_err(|error| about(&args.out, error))?;
    let model = Arc::new(WhisperModel::load(&args.model)?);
    model.check_language(args.language)?;
    let (sender, answers) = crossbeam_channel::unbounded();
    let workers = Workers::start(args.threads, model, move |answer| drop(sender.send(answer)))?;
    let workers = (&workers, &answers);

    recognise(workers, std::slice::from_ref(first), args.language, 1)?; // warm-up
    for _ in 0..args.runs.get() {
        let run = recognise(workers, &utterances, args.language, args.parallel.get())?;
        for (utterance, text) in utterances.iter().zip(&run.texts) {
            let path = args.out.join(utterance.file.file_stem().unwrap_or_default()).with_extension("txt");
            fs::write(&path, text).map_err(|error| about(&path, error))?;
        }
        println!("{}", serde_json::to_string(&report(args, &utterances, &run))?);
    }
    Ok(())
}

/// Every recording of the manifest.
fn read_speech(folder: &Path) -> Result<Vec<Utterance>, Box<dyn Error>> {
    let manifest = folder.join("manifest.jsonl");
    let lines = fs::read_to_string(&manifest).map_err(|error| about(&manifest, error))?;
    let rows = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    rows.map(|(index, line)| {
        let Row { file } = serde_json::from_str(line)
            .map_err(|error| format!("{}, line {}: {error}", manifest.display(), index + 1))?;
        let audio = read_audio(&folder.join(&file))?;
        Ok(Utterance { file, audio })
    })
    .collect()
}

fn read_audio(path: &Path) -> Result<Arc<[f32]>, Box<dyn Error>> {
    let mut file = AudioFile::open(path)?;
    let mut samples = Vec::new();
    while let Some(block) = file.next_block()? {
        if (block.channels, block.sample_rate) != (1, SAMPLE_RATE) {
            let (name, channels, rate) = (path.display(), block.channels, block.sample_rate);
            let found = format!("{name}: {channels} channel(s) at {rate} Hz");
            return Err(format!("{found}, where mono at {SAMPLE_RATE} Hz is needed: convert it first").into());
        }
        samples.extend_from_slice(block.samples);
    }
    Ok(samples.into())
}

/// Decodes all utterances, `parallel` of them at a time.
fn recognise(
    (workers, answers): (&Workers<usize>, &Receiver<Answer<usize>>),
    utterances: &[Utterance],
    language: LanguageSetting,
    parallel: usize,
) -> Result<Run, Box<dyn Error>> {
    let mut texts = vec![String::new(); utterances.len()];
    let mut latencies = vec![Duration::ZERO; utterances.len()];
    let mut submitted = Vec::with_capacity(utterances.len());
    let (mut answered, mut fallbacks) = (0, 0);
    let (cpu, start) = (cpu_s(), Instant::now());
    while answered < utterances.len() {
        while let Some(utterance) = utterances.get(submitted.len())
            && submitted.len() - answered < parallel
        {
            let job = DecodeJob::new(JobId(submitted.len() as u64), utterance.audio.clone(), language);
            let at = Instant::now();
            workers.submit(Job::new(submitted.len(), job));
            submitted.push(at);
        }
        let answer = answers.recv()?;
        let index = answer.tag;
        latencies[index] = submitted[index].elapsed();
        answered += 1;
        let hypothesis = answer.result.map_err(|error| about(&utterances[index].file, error))?;
        fallbacks += usize::from(hypothesis.fallback);
        if hypothesis.suppressed.is_none() {
            texts[index] = hypothesis.text;
        }
    }
    let elapsed = start.elapsed();
    let cpu_s = cpu.zip(cpu_s()).map(|(before, after)| after - before);
    Ok(Run { texts, latencies, fallbacks, elapsed, cpu_s })
}

fn report(args: &Args, utterances: &[Utterance], run: &Run) -> Report {
    let audio_s =
        utterances.iter().map(|utterance| utterance.audio.len()).sum::<usize>() as f64 / f64::from(SAMPLE_RATE);
    let one_by_one = args.parallel.get() == 1;
    let work = if one_by_one { run.latencies.iter().sum() } else { run.elapsed }.as_secs_f64();
    let mut ms: Vec<f64> = run.latencies.iter().map(|latency| latency.as_secs_f64() * 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    Report {
        peer: "cuewire",
        threads: args.threads.get(),
        files: utterances.len(),
        audio_s: rounded(audio_s, 10.0),
        work_s: rounded(work, 100.0),
        cpu_s: run.cpu_s.map(|cpu_s| rounded(cpu_s, 100.0)),
        rtf: rounded(work / audio_s, 10_000.0),
        p50_ms: percentile(&ms, 0.50).round() as u64,
        p95_ms: percentile(&ms, 0.95).round() as u64,
        p99_ms: percentile(&ms, 0.99).round() as u64,
        fallbacks: run.fallbacks,
        peak_rss_bytes: peak_rss_bytes(),
    }
}

fn rounded(number: f64, steps: f64) -> f64 {
    (number * steps).round() / steps
}

/// Interpolated between neighbours, as numpy does; `sorted` holds at least one number.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let rank = part * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    low + (high - low) * rank.fract()
}

/// CPU time of all the process's threads so far, user and system: fields 14 and 15 of proc(5)'s stat.
fn cpu_s() -> Option<f64> {
    /// `USER_HZ`, which Linux shows every program, whatever the kernel's own clock.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name, is in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) as f64 / TICKS_A_SECOND)
}

/// The most memory that the process has held: proc(5)'s `VmHWM`.
fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn about(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
