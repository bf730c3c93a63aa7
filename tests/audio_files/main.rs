//! One utterance in every format that is understood: the first sample out is the first sample of the original.
//!
//! In: `testdata/formats`, and the same files cut, joined and damaged. Out: samples compared with the original.
#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cuewire::audio::file::{AudioFile, Container, FileError};

mod damage;

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/formats").join(file)
}

fn bytes(file: &str) -> Vec<u8> {
    std::fs::read(path(file)).unwrap()
}

fn reader(bytes: &[u8]) -> Box<dyn Read + Send + Sync> {
    Box::new(Cursor::new(bytes.to_vec()))
}

/// Everything a file gives.
#[derive(Debug, Default)]
struct Decoded {
    /// One run of blocks of the same rate and channel count: rate, channels, interleaved samples.
    runs: Vec<(u32, usize, Vec<f32>)>,
    error: Option<FileError>,
    bad_packets: u64,
    silence_frames: u64,
    declared_frames: Option<u64>,
}

impl Decoded {
    fn samples(&self) -> &[f32] {
        assert!(self.runs.len() <= 1, "{} runs", self.runs.len());
        self.runs.first().map_or(&[], |run| &run.2)
    }

    fn frames(&self) -> usize {
        self.runs.iter().map(|(_, channels, samples)| samples.len() / channels).sum()
    }
}

fn drain(mut file: AudioFile) -> Decoded {
    let mut decoded = Decoded { declared_frames: file.declared_frames(), ..Decoded::default() };
    let first = (file.sample_rate(), file.channels());
    loop {
        match file.next_block() {
            Ok(Some(block)) => {
                assert!(!block.samples.is_empty() && block.samples.len().is_multiple_of(block.channels));
                assert!(block.samples.iter().all(|sample| sample.is_finite()));
                match decoded.runs.last_mut() {
                    Some((rate, channels, samples)) if (*rate, *channels) == (block.sample_rate, block.channels) => {
                        samples.extend_from_slice(block.samples);
                    }
                    _ => decoded.runs.push((block.sample_rate, block.channels, block.samples.to_vec())),
                }
            }
            Ok(None) => break,
            Err(error) => {
                decoded.error = Some(error);
                assert!(file.next_block().unwrap().is_none(), "behind an error comes nothing");
                break;
            }
        }
    }
    if let Some((rate, channels, _)) = decoded.runs.first() {
        assert_eq!((*rate, *channels), first);
    }
    decoded.bad_packets = file.bad_packets();
    decoded.silence_frames = file.silence_frames();
    decoded
}

fn decode(file: &str) -> Decoded {
    drain(AudioFile::open(&path(file)).unwrap())
}

fn decode_piped(bytes: &[u8]) -> Result<Decoded, FileError> {
    AudioFile::from_reader("pipe", reader(bytes)).map(drain)
}

/// By way of a real file, so that the demuxers may jump.
fn decode_bytes(bytes: &[u8]) -> Result<Decoded, FileError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    AudioFile::open(file.path()).map(drain)
}

/// The original, at 16 kHz.
fn original() -> Vec<f32> {
    let wav = bytes("s16.wav");
    assert_eq!(&wav[36..40], b"data");
    wav[44..].chunks_exact(2).map(|sample| f32::from(i16::from_le_bytes([sample[0], sample[1]])) / 32_768.0).collect()
}

/// Three samples for one, on straight lines.
fn at_48_khz(samples: &[f32], rate: u32) -> Vec<f32> {
    match rate {
        48_000 => samples.to_vec(),
        16_000 => samples
            .windows(2)
            .flat_map(|pair| [pair[0], (2.0 * pair[0] + pair[1]) / 3.0, (pair[0] + 2.0 * pair[1]) / 3.0])
            .collect(),
        _ => unreachable!("{rate}"),
    }
}

/// Where `samples` fit the original best: by how many 48 kHz samples they come late, and the correlation there.
fn lag(original: &[f32], samples: &[f32]) -> (isize, f32) {
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let overlap = |lag: isize| {
        let (a, b) = (&original[(-lag).max(0) as usize..], &samples[lag.max(0) as usize..]);
        let len = a.len().min(b.len());
        (&a[..len], &b[..len])
    };
    let product = |lag: isize| {
        let (a, b) = overlap(lag);
        dot(a, b)
    };
    let products = (-1000..=1000_isize).map(|lag| (lag, product(lag)));
    let (best, _) = products.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let (a, b) = overlap(best);
    (best, dot(a, b) / (dot(a, a) * dot(b, b)).sqrt())
}

/// What a row of the table expects.
struct Expected {
    file: &'static str,
    container: Container,
    rate: u32,
    /// Length of the original that the file holds, in 16 kHz samples; 0 is all of it.
    original_samples: usize,
    /// How far the length may be off, in milliseconds.
    length_ms: i64,
    /// How late the first sample may be, in 48 kHz samples.
    lag: std::ops::RangeInclusive<isize>,
    correlation: f32,
}

const fn row(file: &'static str, container: Container, rate: u32) -> Expected {
    Expected { file, container, rate, original_samples: 0, length_ms: 0, lag: -1..=1, correlation: 0.95 }
}

#[test]
fn every_format_gives_the_recording_from_its_first_sample_to_its_last() {
    use Container::*;
    // A thousandth of a second, in 48 kHz samples.
    let ms = -48..=48;
    let original = original();
    for expected in [
        Expected { correlation: 0.9999, ..row("s16.wav", Wav, 16_000) },
        Expected { correlation: 0.9999, original_samples: 9600, ..row("f32.wav", Wav, 16_000) },
        Expected { correlation: 0.995, original_samples: 16_000, ..row("alaw.wav", Wav, 16_000) },
        Expected { correlation: 0.995, original_samples: 16_000, ..row("mulaw.wav", Wav, 16_000) },
        // Whole blocks of 2041 samples; the last is filled up.
        Expected { correlation: 0.99, length_ms: 128, ..row("ima-adpcm.wav", Wav, 16_000) },
        Expected { correlation: 0.9999, original_samples: 12_800, ..row("s16.aiff", Aiff, 16_000) },
        Expected { correlation: 0.9999, ..row("speech.flac", Flac, 16_000) },
        Expected { lag: ms.clone(), ..row("lame.mp3", Mpeg, 16_000) },
        // Without a LAME tag nothing tells the delay of encoder and decoder: 1105 samples at 16 kHz.
        Expected { lag: 3267..=3363, length_ms: 110, ..row("no-xing.mp3", Mpeg, 16_000) },
        Expected { lag: ms.clone(), ..row("vorbis.ogg", Ogg, 16_000) },
        Expected { lag: ms.clone(), ..row("opus.ogg", Ogg, 48_000) },
        // The end of the last block is not told.
        Expected { lag: ms.clone(), length_ms: 40, ..row("vorbis.webm", Matroska, 16_000) },
        Expected { lag: ms.clone(), length_ms: 20, ..row("opus.webm", Matroska, 48_000) },
        Expected { lag: ms.clone(), ..row("aac.m4a", Mp4, 16_000) },
        Expected { lag: ms.clone(), ..row("aac-faststart.m4a", Mp4, 16_000) },
        Expected { lag: ms.clone(), length_ms: 64, ..row("aac-fragmented.mp4", Mp4, 16_000) },
        // Raw frames and Matroska tell nothing: the delay of the encoder is 1024 samples.
        Expected { lag: 3024..=3120, length_ms: 128, ..row("aac.mkv", Matroska, 16_000) },
        Expected { lag: 3024..=3120, length_ms: 128, ..row("aac.adts", Adts, 16_000) },
        Expected { correlation: 0.9999, original_samples: 12_800, ..row("alac.m4a", Mp4, 16_000) },
        Expected { lag: ms.clone(), ..row("opus.mp4", Mp4, 48_000) },
        Expected {
            lag: ms.clone(),
            original_samples: 12_800,
            length_ms: 64,
            ..row("video-and-speech.mp4", Mp4, 16_000)
        },
    ] {
        let name = expected.file;
        let file = AudioFile::open(&path(name)).unwrap();
        assert_eq!(file.container(), expected.container, "{name}");
        assert_eq!((file.sample_rate(), file.channels()), (expected.rate, 1), "{name}");
        let decoded = drain(file);
        assert!(
            decoded.error.is_none() && decoded.bad_packets == 0 && decoded.silence_frames == 0,
            "{name}: {decoded:?}"
        );
        let original = match expected.original_samples {
            0 => &original[..],
            samples => &original[..samples],
        };
        let samples = at_48_khz(decoded.samples(), expected.rate);
        let (lag, correlation) = lag_of(original, &samples, &expected.lag);
        let frames = original.len() as i64 * i64::from(expected.rate) / 16_000;
        let off = (decoded.frames() as i64 - frames) * 1000;
        println!(
            "{name:22} lag {:+.3} ms, correlation {correlation:.4}, length {:+} frames, declared {:?} of {frames}",
            lag as f64 / 48.0,
            off / 1000,
            decoded.declared_frames,
        );
        assert!(correlation > expected.correlation, "{name}: {correlation}");
        assert!(expected.lag.contains(&lag), "{name}: {lag}");
        // One sample of slack: ffmpeg rounds times.
        assert!(off.abs() <= expected.length_ms * i64::from(expected.rate) + 1000, "{name}: {} frames", off / 1000);
    }
}

/// The search window follows what is expected, so that a late file is still found.
fn lag_of(original: &[f32], samples: &[f32], around: &std::ops::RangeInclusive<isize>) -> (isize, f32) {
    let shift = around.start().midpoint(*around.end()).max(0) as usize;
    let (found, correlation) = lag(&at_48_khz(original, 16_000), &samples[shift.min(samples.len())..]);
    (found + shift as isize, correlation)
}

#[test]
fn lossless_formats_give_the_very_samples() {
    let original = original();
    for (file, samples) in [
        ("s16.wav", original.len()),
        ("speech.flac", original.len()),
        ("f32.wav", 9600),
        ("s16.aiff", 12_800),
        ("alac.m4a", 12_800),
    ] {
        assert_eq!(decode(file).samples(), &original[..samples], "{file}");
    }
}

#[test]
fn channels_stay_apart() {
    let original = original();
    let stereo = decode("stereo.wav");
    assert_eq!(stereo.runs[0].1, 2);
    for (frame, original) in stereo.samples().chunks_exact(2).zip(&original) {
        assert_eq!(frame[0], *original);
        assert!((frame[1] + 0.5 * original).abs() < 2.0 / 32_768.0);
    }
    // Front left, centre, front right, …: the order of Vorbis.
    let surround = decode("surround.ogg");
    let (rate, channels, samples) = &surround.runs[0];
    assert_eq!((*rate, *channels), (48_000, 6));
    let channel = |at: usize| samples.iter().skip(at).step_by(6).copied().collect::<Vec<f32>>();
    let (late, correlation) = lag(&at_48_khz(&original[..6400], 16_000), &channel(0));
    assert!(late.abs() <= 48 && correlation > 0.9, "{late} {correlation}");
    assert_eq!(samples.len() / 6, 19_200);
}

#[test]
fn the_declared_length_is_told() {
    let all = original().len() as u64;
    for (file, frames) in [
        ("s16.wav", Some(all)),
        ("speech.flac", Some(all)),
        ("lame.mp3", Some(all)),
        ("vorbis.ogg", Some(all)),
        ("opus.ogg", Some(all * 3)),
        ("aac.m4a", Some(all)),
        ("aac.adts", None),
        ("no-xing.mp3", None),
    ] {
        let file = AudioFile::open(&path(file)).unwrap();
        assert_eq!(file.declared_frames(), frames, "{file:?}");
        let duration =
            frames.map(|frames| Duration::from_nanos(frames * 1_000_000_000 / u64::from(file.sample_rate())));
        assert_eq!(file.declared_duration(), duration);
    }
}

#[test]
fn a_pipe_gives_what_the_file_gives() {
    for file in FORMATS {
        let bytes = bytes(file);
        let from_file = decode(file);
        match decode_piped(&bytes) {
            Ok(piped) => {
                assert!(piped.error.is_none(), "{file}: {:?}", piped.error);
                assert_eq!(piped.runs, from_file.runs, "{file}");
            }
            Err(error) => {
                // The index of these comes last.
                assert!(["aac.m4a", "alac.m4a", "opus.mp4", "video-and-speech.mp4"].contains(&file), "{file}: {error}");
                assert!(matches!(error, FileError::NeedsSeeking { .. }), "{error}");
                assert!(error.to_string().contains("faststart"));
            }
        }
    }
}

/// All files with audio of the folder.
const FORMATS: [&str; 23] = [
    "aac.mkv",
    "s16.wav",
    "f32.wav",
    "alaw.wav",
    "mulaw.wav",
    "ima-adpcm.wav",
    "stereo.wav",
    "s16.aiff",
    "speech.flac",
    "lame.mp3",
    "no-xing.mp3",
    "vorbis.ogg",
    "opus.ogg",
    "surround.ogg",
    "vorbis.webm",
    "opus.webm",
    "aac.m4a",
    "aac-faststart.m4a",
    "aac-fragmented.mp4",
    "aac.adts",
    "alac.m4a",
    "opus.mp4",
    "video-and-speech.mp4",
];

#[test]
fn wav_headers_of_every_writer_are_read() {
    let wav = bytes("s16.wav");
    let samples = original();
    let with_sizes = |riff: u32, data: u32| {
        let mut wav = wav.clone();
        wav[4..8].copy_from_slice(&riff.to_le_bytes());
        wav[40..44].copy_from_slice(&data.to_le_bytes());
        wav
    };
    let len = wav.len() as u32 - 44;
    // Written before the length was known: nothing is missing.
    for (riff, data) in [
        (0, 0),
        (36, 0),
        (u32::MAX, u32::MAX),
        (u32::MAX, 0),
        (0, u32::MAX),
        (0x7fff_f024, 0x7fff_f000),
        (0x7fff_ff24, 0x7fff_ff00),
        (0x8000_0024, 0x8000_0000),
    ] {
        for decoded in [decode_bytes(&with_sizes(riff, data)).unwrap(), decode_piped(&with_sizes(riff, data)).unwrap()]
        {
            assert!(decoded.error.is_none(), "{riff:x} {data:x}: {:?}", decoded.error);
            assert_eq!(decoded.declared_frames, None);
            assert_eq!(decoded.samples(), samples);
        }
    }
    // Only the outer length is wrong.
    for riff in [0, 4, 36, 1000, u32::MAX] {
        let decoded = decode_piped(&with_sizes(riff, len)).unwrap();
        assert!(decoded.error.is_none());
        assert_eq!((decoded.declared_frames, decoded.samples()), (Some(u64::from(len / 2)), &samples[..]));
    }
    // An empty recording with a title behind it.
    let mut empty = with_sizes(36 + 12, 0);
    empty.truncate(44);
    empty.extend_from_slice(b"LIST\x04\0\0\0INFO");
    let decoded = decode_piped(&empty).unwrap();
    assert!(decoded.runs.is_empty() && decoded.error.is_none());
    let file = AudioFile::from_reader("empty", reader(&empty)).unwrap();
    assert_eq!((file.sample_rate(), file.channels(), file.declared_frames()), (16_000, 1, Some(0)));
    // A malformed list before the audio.
    let list = [&wav[..36], b"LIST\x08\0\0\0INFO\xff\xff\xff\xff", &wav[36..]].concat();
    assert_eq!(decode_piped(&list).unwrap().samples(), samples);
    // RF64: the real length is in a chunk of its own, and the title behind the audio is no audio.
    let ds64 = [
        &b"ds64"[..],
        &28_u32.to_le_bytes(),
        &(u64::from(len) + 72).to_le_bytes(),
        &u64::from(len).to_le_bytes(),
        &[0; 12],
    ]
    .concat();
    let mut rf64 = [&b"RF64\xff\xff\xff\xffWAVE"[..], &ds64, &wav[12..40], &[0xff; 4], &wav[44..]].concat();
    rf64.extend_from_slice(b"LIST\x04\0\0\0INFO");
    for decoded in [decode_bytes(&rf64).unwrap(), decode_piped(&rf64).unwrap()] {
        assert!(decoded.error.is_none());
        assert_eq!((decoded.declared_frames, decoded.samples()), (Some(u64::from(len / 2)), &samples[..]));
    }
    rf64.truncate(30_000);
    assert!(matches!(decode_piped(&rf64).unwrap().error, Some(FileError::Truncated { .. })));
}

#[test]
fn joined_recordings_are_read_to_the_last() {
    // Two Ogg files one behind the other: another codec and another rate.
    let chained = [bytes("opus.ogg"), bytes("vorbis.ogg")].concat();
    for decoded in [decode_bytes(&chained).unwrap(), decode_piped(&chained).unwrap()] {
        assert!(decoded.error.is_none(), "{:?}", decoded.error);
        assert_eq!(decoded.runs.len(), 2);
        assert_eq!(decoded.runs[0].2, decode("opus.ogg").samples());
        assert_eq!((decoded.runs[1].0, &decoded.runs[1].2[..]), (16_000, decode("vorbis.ogg").samples()));
    }
    // Two MP3 files: the header of the first counts only the first.
    let joined = [bytes("lame.mp3"), bytes("lame.mp3")].concat();
    let decoded = decode_piped(&joined).unwrap();
    assert!(decoded.error.is_none());
    let twice = 2 * original().len();
    assert!((twice..twice + 4000).contains(&decoded.frames()), "{} of {twice}", decoded.frames());
}

#[test]
fn tags_before_the_audio_are_skipped() {
    // 1000 bytes that would pass for an MPEG frame.
    let tag = [&b"ID3\x04\0\0\0\0\x07\x68"[..], &[0xff, 0xfb, 0x90, 0x00].repeat(250)].concat();
    for file in ["lame.mp3", "aac.adts", "speech.flac"] {
        let tagged = [tag.clone(), tag.clone(), bytes(file)].concat();
        for decoded in [decode_bytes(&tagged).unwrap(), decode_piped(&tagged).unwrap()] {
            assert_eq!(decoded.samples(), decode(file).samples(), "{file}");
        }
    }
}

/// A recording without end, that counts what is taken from it.
struct Endless(Cursor<Vec<u8>>, std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.position() == self.0.get_ref().len() as u64 {
            self.0.set_position(44);
        }
        let got = self.0.read(buffer)?;
        self.1.fetch_add(got, std::sync::atomic::Ordering::Relaxed);
        Ok(got)
    }
}

#[test]
fn a_pipe_is_not_read_ahead() {
    let mut wav = bytes("s16.wav");
    wav[4..8].fill(0xff);
    wav[40..44].fill(0xff);
    let taken = std::sync::Arc::default();
    let endless = Endless(Cursor::new(wav), std::sync::Arc::clone(&taken));
    let mut file = AudioFile::from_reader("microphone", Box::new(endless)).unwrap();
    assert_eq!(file.declared_duration(), None);
    let mut given = 0;
    for _ in 0..1000 {
        given += file.next_block().unwrap().unwrap().samples.len() * 2;
        let ahead = taken.load(std::sync::atomic::Ordering::Relaxed) - given;
        assert!(ahead <= 64 * 1024, "{ahead} bytes");
    }
}
