//! Files that are cut, damaged, hostile, or nothing that can be read.

use super::*;

#[test]
fn a_cut_file_gives_what_is_there_and_then_says_so() {
    for (file, keep_percent) in [
        ("s16.wav", 60),
        ("f32.wav", 50),
        ("ima-adpcm.wav", 50),
        ("s16.aiff", 50),
        ("speech.flac", 60),
        ("lame.mp3", 60),
        ("aac-faststart.m4a", 60),
        ("opus.webm", 60),
    ] {
        let whole = decode(file);
        let mut cut = bytes(file);
        cut.truncate(cut.len() * keep_percent / 100);
        for decoded in [decode_bytes(&cut).unwrap(), decode_piped(&cut).unwrap()] {
            let Some(FileError::Truncated { declared_frames, decoded_frames, sample_rate, .. }) = &decoded.error else {
                panic!("{file}: {:?}", decoded.error);
            };
            let got = decoded.frames();
            assert_eq!((*decoded_frames, Some(*declared_frames)), (got as u64, whole.declared_frames), "{file}");
            assert_eq!(*sample_rate, whole.runs[0].0);
            // A third to three quarters of the audio is there, and it is the right audio.
            assert!(got * 3 > whole.frames() && got * 4 < whole.frames() * 3, "{file}: {got}");
            assert_eq!(decoded.samples(), &whole.samples()[..got], "{file}");
            assert!(decoded.error.as_ref().unwrap().keeps_audio());
        }
    }
}

/// These declare nothing that a reader meets before their end.
#[test]
fn a_cut_stream_without_a_declared_length_just_ends() {
    for file in ["vorbis.ogg", "opus.ogg", "no-xing.mp3", "aac.adts", "aac-fragmented.mp4"] {
        let whole = decode(file);
        let mut cut = bytes(file);
        cut.truncate(cut.len() * 70 / 100);
        for decoded in [decode_bytes(&cut).unwrap(), decode_piped(&cut).unwrap()] {
            assert!(decoded.error.is_none(), "{file}: {:?}", decoded.error);
            let got = decoded.frames();
            assert!(got > 0 && got < whole.frames(), "{file}: {got}");
            assert_eq!(decoded.samples(), &whole.samples()[..got], "{file}");
        }
    }
}

#[test]
fn a_cut_mp4_without_its_index_is_refused() {
    let mut cut = bytes("aac.m4a");
    cut.truncate(6000);
    let error = decode_bytes(&cut).unwrap_err();
    assert!(matches!(error, FileError::Header { .. }) && error.to_string().contains("moov"), "{error}");
    assert!(!error.keeps_audio());
}

#[test]
fn damaged_packets_become_silence_of_their_length() {
    for (file, damage) in
        [("speech.flac", 20_000..20_040), ("lame.mp3", 3000..3100), ("opus.webm", 3019..3029), ("opus.ogg", 3000..3001)]
    {
        let whole = decode(file);
        let mut damaged = bytes(file);
        damaged[damage].fill(0xff);
        let decoded = decode_piped(&damaged).unwrap();
        assert!(decoded.error.is_none(), "{file}: {:?}", decoded.error);
        println!("{file}: {} bad packets, {} frames of silence", decoded.bad_packets, decoded.silence_frames);
        // The end is where it was: what comes after the damage is not early.
        let off = decoded.frames().abs_diff(whole.frames());
        assert!(off <= 1152, "{file}: {off}");
        if file == "speech.flac" {
            assert!(decoded.silence_frames > 0);
            let tail = whole.frames() - 5000;
            assert_eq!(decoded.samples()[tail..], whole.samples()[tail..], "{file}");
        }
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let error = AudioFile::open(&folder.path().join("none.wav")).unwrap_err();
    assert!(
        matches!(&error, FileError::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
    let error = AudioFile::open(folder.path()).unwrap_err();
    assert!(matches!(&error, FileError::Open { .. }) && error.to_string().contains("directory"), "{error}");

    let wav_of = |channels: u16, rate: u32| {
        let mut wav = bytes("s16.wav");
        wav[22..24].copy_from_slice(&channels.to_le_bytes());
        wav[24..28].copy_from_slice(&rate.to_le_bytes());
        wav[32..34].copy_from_slice(&(channels * 2).to_le_bytes());
        wav
    };
    let mut strange_wav = bytes("s16.wav");
    strange_wav[20] = 0x50;
    let noise: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (bytes, part) in [
        (Vec::new(), "it is empty"),
        (b"Dear diary, today I recorded nothing.\n".to_vec(), "it is text"),
        (noise, "first bytes"),
        (bytes("video-only.mp4"), "no audio track"),
        (bytes("layer2.mp2"), "layer II"),
        (strange_wav, "wave format"),
        (wav_of(1, 4000), "4000 Hz"),
        (wav_of(1, 400_000), "400000 Hz"),
        (wav_of(0, 16_000), "0 channels"),
        (wav_of(65, 16_000), "65 channels"),
        (wav_of(27, 16_000), "27 channels"),
        (bytes("s16.wav")[..30].to_vec(), "before its first sound"),
        (bytes("speech.flac")[..30].to_vec(), "before its first sound"),
        (bytes("opus.ogg")[..40].to_vec(), "before its first sound"),
        (bytes("opus.webm")[..40].to_vec(), "before its first sound"),
    ] {
        let error = decode_bytes(&bytes).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(part), "{part}: {message}");
        assert!(!error.keeps_audio());
    }
}

/// A stream of the given length that fails with an error of the system.
struct Failing(Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::ConnectionReset.into()),
            got => Ok(got),
        }
    }
}

#[test]
fn a_failing_reader_is_not_a_truncated_file() {
    let mut part = bytes("s16.wav");
    part.truncate(30_000);
    let file = AudioFile::from_reader("network", Box::new(Failing(Cursor::new(part)))).unwrap();
    let decoded = drain(file);
    assert!(decoded.frames() > 10_000);
    let error = decoded.error.unwrap();
    assert!(matches!(&error, FileError::Read { .. }) && error.keeps_audio(), "{error}");
    let error = AudioFile::from_reader("network", Box::new(Failing(Cursor::new(Vec::new())))).unwrap_err();
    assert!(matches!(&error, FileError::Read { .. }) && !error.keeps_audio(), "{error}");
}

#[test]
fn a_box_of_mp4_whose_long_header_goes_past_what_is_around_it_is_refused() {
    let bytes: &[u8] = b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x10moov\0\0\0\x01mvhd\0\0\0\x10mdat\0\0\0\0\0\0\0\0";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    for opened in [AudioFile::open(file.path()), AudioFile::from_reader("piped", reader(bytes))] {
        assert!(opened.is_err());
    }
}

/// Flipped bits and cuts anywhere: an error or some audio, never a panic, never much more audio than there was.
#[test]
fn hostile_files_do_no_harm() {
    let mut random = 88_172_645_463_325_252_u64;
    let mut random = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % below
    };
    let rounds = std::env::var("CUEWIRE_HOSTILE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40);
    let mut panics = Vec::new();
    for file in FORMATS {
        let bytes = bytes(file);
        for round in 0..rounds {
            let mut hostile = bytes.clone();
            // Headers are where the lengths are.
            let region = if round % 2 == 0 { hostile.len() } else { hostile.len().min(600) };
            for _ in 0..1 + random(12) {
                let at = random(region);
                hostile[at] = match random(3) {
                    0 => 0xff,
                    1 => random(256) as u8,
                    _ => hostile[at] ^ 1 << random(8),
                };
            }
            if round % 3 == 0 {
                hostile.truncate(random(hostile.len()));
            }
            let from_file = round % 5 == 0;
            let saved = hostile.clone();
            let outcome = std::panic::catch_unwind(move || {
                let file = if from_file {
                    let file = tempfile::NamedTempFile::new().unwrap();
                    std::fs::write(file.path(), &hostile).unwrap();
                    AudioFile::open(file.path())
                } else {
                    AudioFile::from_reader("hostile", reader(&hostile))
                };
                let Ok(mut file) = file else { return };
                let mut seconds = 0.0;
                while let Ok(Some(block)) = file.next_block() {
                    seconds += block.frames() as f64 / f64::from(block.sample_rate);
                    assert!(block.samples.iter().all(|sample| sample.is_finite()));
                }
                assert!(seconds < 13.0 * 3600.0, "{seconds} s of audio");
            });
            if outcome.is_err() {
                if let Ok(folder) = std::env::var("CUEWIRE_HOSTILE_KEEP") {
                    std::fs::write(Path::new(&folder).join(format!("{round}-{file}")), &saved).unwrap();
                }
                panics.push(format!("{file} in round {round}"));
            }
        }
    }
    assert!(panics.is_empty(), "{panics:?}");
}
