//! Display cues against their rules: by a checker that knows the rules as they are published and reads the finished
//! file through other people's parsers.
//!
//! `CUEWIRE_TEST_SPEECH` names a folder that holds `en/manifest.jsonl` and the real recordings that it lists with their
//! durations. Without it the test that needs it says so and checks nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use cuewire::caption::cues::{CueCounts, Profile};
use cuewire::caption::{Probability, Word};
use cuewire::time::Timestamp;
use cuewire::transcript::{Format, Fragment, TranscriptWriter, webvtt};
use proptest::prelude::*;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

#[cfg(all(feature = "whisper", feature = "files"))]
#[path = "support/session.rs"]
mod support;

/// A cue as a parser of others gives it.
#[derive(Debug)]
struct Seen {
    start: i64,
    end: i64,
    speaker: String,
    lines: Vec<String>,
}

fn written(format: Format, profile: Profile, fragments: &[Fragment]) -> (String, CueCounts) {
    let mut writer = TranscriptWriter::new(Vec::new(), format, profile, Timestamp::EPOCH);
    for fragment in fragments {
        writer.write(fragment).unwrap();
    }
    let finished = writer.finish().unwrap();
    (String::from_utf8(finished.writer).unwrap(), finished.cues.unwrap())
}

fn parsed_srt(text: &str) -> Vec<Seen> {
    let cues = srtlib::Subtitles::parse_from_str(text.to_string()).unwrap().to_vec();
    let ms = |time: &srtlib::Timestamp| {
        let (h, m, s, ms) = time.get();
        ((i64::from(h) * 60 + i64::from(m)) * 60 + i64::from(s)) * 1000 + i64::from(ms)
    };
    for (index, cue) in cues.iter().enumerate() {
        assert_eq!(cue.num, index + 1);
    }
    let seen = |cue: &srtlib::Subtitle| Seen {
        start: ms(&cue.start_time),
        end: ms(&cue.end_time),
        speaker: String::new(),
        lines: cue.text.lines().map(str::to_string).collect(),
    };
    cues.iter().map(seen).collect()
}

/// The cues of a WebVTT file, whose inline times are checked and taken out.
fn parsed_vtt(text: &str) -> Vec<Seen> {
    use subtp::vtt::{VttBlock, VttTimestamp, WebVtt};
    let ms = |time: VttTimestamp| {
        let (h, m, s) = (i64::from(time.hours), i64::from(time.minutes), i64::from(time.seconds));
        ((h * 60 + m) * 60 + s) * 1000 + i64::from(time.milliseconds)
    };
    let mut seen = Vec::new();
    for block in WebVtt::parse(text).unwrap().blocks {
        let VttBlock::Que(cue) = block else { panic!("{block:?}") };
        let (start, end) = (ms(cue.timings.start), ms(cue.timings.end));
        let mut speaker = String::new();
        let mut now = start;
        let mut lines = Vec::new();
        for line in &cue.payload {
            let mut plain = String::new();
            let mut rest = line.as_str();
            while let Some((before, tagged)) = rest.split_once('<') {
                let (tag, after) = tagged.split_once('>').unwrap();
                if let Some(name) = tag.strip_prefix("v ") {
                    speaker = name.to_string();
                } else {
                    let part = |range: std::ops::Range<usize>| tag[range].parse::<i64>().unwrap();
                    let time = ((part(0..2) * 60 + part(3..5)) * 60 + part(6..8)) * 1000 + part(9..12);
                    assert!(now < time && time < end, "{line} in {start} to {end}");
                    now = time;
                }
                plain.push_str(before);
                rest = after;
            }
            lines.push(plain + rest);
        }
        seen.push(Seen { start, end, speaker, lines });
    }
    seen
}

/// The published rules, once more.
struct Published {
    chars: usize,
    lines: usize,
    shortest: i64,
    longest: i64,
    /// Milliseconds to read a text.
    reading: fn(&str) -> i64,
    is_good_gap: fn(i64) -> bool,
    late: i64,
    linger: i64,
}

fn columns(text: &str) -> i64 {
    text.width() as i64
}

/// What has a letter or a digit between spaces; of scripts without spaces, six columns a word.
fn spoken_words(text: &str) -> i64 {
    let (mut sixths, mut inside) = (0, false);
    for c in text.chars() {
        // Thai, or as wide as Chinese and Japanese.
        let unspaced = matches!(c as u32, 0xe00..=0xe7f) || c.width() == Some(2);
        match (c.is_whitespace() && c != '\u{a0}', unspaced) {
            (true, _) => inside = false,
            (false, true) => {
                sixths += c.width().unwrap() as i64;
                inside = false;
            }
            (false, false) if c.is_alphanumeric() => {
                sixths += if inside { 0 } else { 6 };
                inside = true;
            }
            (false, false) => {}
        }
    }
    (sixths + 5) / 6
}

fn published(profile: Profile) -> Published {
    let none = Published {
        chars: 42,
        lines: usize::MAX,
        shortest: 0,
        longest: i64::MAX,
        reading: |_| 0,
        is_good_gap: |_| true,
        late: i64::MAX / 2,
        linger: i64::MAX / 2,
    };
    match profile {
        Profile::Netflix => Published {
            lines: 2,
            shortest: 834,
            longest: 7000,
            reading: |text| (columns(text) * 1000 + 19) / 20,
            is_good_gap: |gap| gap == 84 || gap >= 500,
            late: 83,
            linger: 500,
            ..none
        },
        Profile::Bbc => Published {
            chars: 37,
            lines: 2,
            reading: |text| (spoken_words(text) * 1000 + 2) / 3,
            is_good_gap: |gap| gap == 0 || gap >= 1000,
            late: 2000,
            linger: 2000,
            ..none
        },
        Profile::Dcmp => Published {
            chars: 32,
            lines: 2,
            shortest: 1334,
            longest: 6000,
            reading: |text| spoken_words(text) * 375,
            late: 0,
            linger: 2000,
            ..none
        },
        Profile::Cea608 => Published { chars: 32, lines: 4, late: 0, linger: 2000, ..none },
        _ => none,
    }
}

/// A pop-on caption's time on a field: two bytes in 1001/30 ms.
fn sent_ms(lines: &[String]) -> i64 {
    let bytes = |c: char| match c {
        'á' | 'é' | 'í' | 'ó' | 'ú' | 'ç' | 'ñ' => 1,
        // The special set, in which the no-break space is the transparent one.
        'à' | 'è' | 'â' | 'ê' | 'î' | 'ô' | 'û' | '\u{a0}' => 2,
        ' '..='~' => 1,
        _ => 3,
    };
    let pairs: i64 = lines.iter().map(|line| 2 + (line.chars().map(bytes).sum::<i64>() + 1) / 2).sum();
    ((8 + pairs) * 1001 + 29) / 30
}

fn letters(text: &str) -> Vec<char> {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// When each letter of a fragment begins and ends, ms.
fn letter_times(fragment: &Fragment) -> Vec<(i64, i64)> {
    let ms = |time: Timestamp| (time.as_nanos() + 500_000) / 1_000_000;
    let spread = |text: &str, start: i64, end: i64| -> Vec<(i64, i64)> {
        let count = text.chars().count() as i64;
        let at = |place: i64| start + (end - start) * place / count;
        let times = text.chars().zip(0..).filter(|(c, _)| !c.is_whitespace());
        times.map(|(_, place)| (at(place), at(place + 1))).collect()
    };
    if fragment.words.is_empty() {
        return spread(&fragment.text, ms(fragment.start_time), ms(fragment.stop_time));
    }
    fragment.words.iter().flat_map(|word| spread(&word.text, ms(word.start_time), ms(word.end_time))).collect()
}

/// Whether what ends a line and begins the next is an article and its noun, or a first and a last name.
fn is_one_phrase(code: &str, before: &str, behind: &str) -> bool {
    let (articles, others): (&[&str], &[&str]) = match code {
        "en" => (&["the", "a", "an"], &["the", "a", "an", "and", "or", "of", "in", "is", "at", "to"]),
        "fr" => (&["le", "la", "les", "un", "une"], &["le", "à", "et", "de", "dans", "où"]),
        "de" => (&["der", "die", "das", "ein"], &["das", "und", "ist", "mit", "in"]),
        _ => return false,
    };
    let (Some(last), Some(next)) = (before.split(' ').next_back(), behind.split(' ').next()) else { return false };
    let bare = next.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let is_noun = next.starts_with(char::is_alphabetic) && !others.contains(&bare.as_str());
    let is_name = matches!(last, "Ada" | "Charles" | "Jane" | "Katherine");
    let mut letters = next.chars();
    let follows = letters.next().is_some_and(char::is_uppercase) && letters.next().is_some_and(char::is_lowercase);
    (articles.contains(&last.to_lowercase().as_str()) && is_noun) || (is_name && follows)
}

/// Checks one speaker's cues against the text and the rules; gives what is broken.
fn check(profile: Profile, fragments: &[&Fragment], cues: &[&Seen]) -> CueCounts {
    let rules = published(profile);
    let mut counts = CueCounts::default();
    counts.cues = cues.len() as u64;
    let said: Vec<char> = fragments.iter().flat_map(|fragment| letters(&fragment.text)).collect();
    let shown: Vec<char> = cues.iter().flat_map(|cue| letters(&cue.lines.concat())).collect();
    assert_eq!(said, shown, "all the text, in order");
    let times: Vec<(i64, i64)> = fragments.iter().flat_map(|fragment| letter_times(fragment)).collect();
    let glue: Vec<&str> = fragments
        .iter()
        .flat_map(|fragment| {
            let code = fragment.language.map_or("", |language| language.code());
            let glue = if matches!(code, "ja" | "zh" | "th") { "" } else { " " };
            letters(&fragment.text).into_iter().map(move |_| glue)
        })
        .collect();
    // Where a line ends, unless that is the end of a caption.
    let mut ends: Vec<Option<&str>> = Vec::new();
    for fragment in fragments {
        let code = fragment.language.map_or("", |language| language.code());
        ends.extend(letters(&fragment.text).iter().map(|_| Some(code)));
        if let Some(end) = ends.last_mut() {
            *end = None;
        }
    }
    let lines: Vec<&str> = cues.iter().flat_map(|cue| &cue.lines).map(String::as_str).collect();
    let mut end = 0;
    for pair in lines.windows(2) {
        end += letters(pair[0]).len();
        counts.split_phrase += u64::from(ends[end - 1].is_some_and(|code| is_one_phrase(code, pair[0], pair[1])));
    }
    let mut letter = 0;
    for (index, cue) in cues.iter().enumerate() {
        assert!(!cue.lines.is_empty() && cue.lines.len() <= rules.lines, "{cue:?}");
        for line in &cue.lines {
            assert!(!line.trim().is_empty() && line.trim() == line, "{cue:?}");
            if line.width() > rules.chars {
                assert!(!line.contains(' '), "{cue:?}");
                counts.line_too_long += 1;
            }
        }
        assert!(cue.start < cue.end, "{cue:?}");
        if profile == Profile::Cea608 {
            let last_start = index.checked_sub(1).map_or(0, |last| cues[last].start);
            assert!(cue.start - last_start >= sent_ms(&cue.lines), "{cue:?} behind {last_start}");
        }
        // In scripts without spaces a line ends where nothing is.
        let text = cue.lines.join(glue[letter]);
        let reading = (rules.reading)(&text);
        let lasts = cue.end - cue.start;
        counts.too_short += u64::from(lasts < rules.shortest);
        counts.too_long += u64::from(lasts > rules.longest);
        counts.too_fast += u64::from(lasts < reading);
        let next = cues.get(index + 1);
        if let Some(next) = next {
            assert!(cue.end <= next.start, "{cue:?} {next:?}");
            counts.gap += u64::from(!(rules.is_good_gap)(next.start - cue.end));
        }
        let first = times[letter];
        letter += letters(&text).len();
        let last = times[letter - 1];
        // Without a profile a cue has its caption's times.
        assert!(cue.start >= first.0 || profile == Profile::None, "{cue:?} is early: {first:?}");
        let may_go = next.map_or(i64::MAX, |next| next.start - 84);
        assert!(cue.end >= last.1.min(may_go), "{cue:?} goes before {last:?} is said");
        counts.late += u64::from(cue.start > first.0 + rules.late || cue.end > last.1 + rules.linger);
    }
    counts
}

/// How many cues, of all speakers, come to more lines on the screen than there may be or, in CEA-608, too soon behind the
/// one before to be sent.
fn crowded(profile: Profile, cues: &[Seen]) -> u64 {
    let is_crowded = |index: usize| {
        let cue = &cues[index];
        let shown = cues[..=index].iter().filter(|other| other.end > cue.start);
        let ready = index.checked_sub(1).map_or(0, |last| cues[last].start) + sent_ms(&cue.lines);
        shown.map(|other| other.lines.len()).sum::<usize>() > published(profile).lines
            || (profile == Profile::Cea608 && cue.start < ready)
    };
    (0..cues.len()).filter(|&index| is_crowded(index)).count() as u64
}

/// Checks a transcript of one or more speakers, each of whom says one thing after the other.
fn check_file(format: Format, profile: Profile, fragments: &[Fragment]) -> CueCounts {
    let (text, counted) = written(format, profile, fragments);
    let cues = match format {
        Format::Srt => parsed_srt(&text),
        _ => parsed_vtt(&text),
    };
    if format == Format::Vtt {
        let ours: Vec<_> = webvtt::Reader::new(text.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(ours.len(), cues.len());
        for (ours, cue) in ours.iter().zip(&cues) {
            assert_eq!((ours.start_ms as i64, ours.end_ms as i64), (cue.start, cue.end));
            assert_eq!(ours.text, cue.lines.join(" "));
        }
    }
    assert!(cues.is_sorted_by_key(|cue| cue.start), "in order of time");
    let mut found = CueCounts::default();
    let mut speakers: Vec<&str> = fragments.iter().map(|fragment| fragment.speaker_id.as_str()).collect();
    speakers.sort_unstable();
    speakers.dedup();
    for speaker in speakers {
        let fragments: Vec<_> = fragments.iter().filter(|fragment| fragment.speaker_id == speaker).collect();
        let cues: Vec<_> = cues.iter().filter(|cue| format == Format::Srt || cue.speaker == speaker).collect();
        found.add(&check(profile, &fragments, &cues));
    }
    found.crowded = crowded(profile, &cues);
    // The library knows more of what belongs together.
    assert!(found.split_phrase <= counted.split_phrase, "{profile}: {found:?} {counted:?}\n{text}");
    found.split_phrase = counted.split_phrase;
    assert_eq!(found, counted, "{profile}\n{text}");
    counted
}

const VOCABULARY: [(&str, &str, &[&str]); 7] = [
    (
        "en",
        " ",
        &["the", "a", "and", "Ada", "Lovelace", "is", "running,", "house.", "of", "incomprehensibilities", "I"],
    ),
    ("fr", " ", &["le", "été", "à", "mangé.", "et", "l'homme", "où,", "maison", "« oui\u{a0}»", "«", "»", "?", "–"]),
    ("de", " ", &["das", "Haus", "und", "Donaudampfschifffahrtsgesellschaftskapitän", "ist", "gut.", "mit"]),
    ("ru", " ", &["не", "знаю,", "и", "дом.", "в", "электрификация", "был"]),
    ("ja", "", &["電話", "に", "出る", "こと", "ができません。", "ただいま、", "インターネット", "OK"]),
    ("zh", "", &["您好，", "电话", "暂时", "无法", "接通。", "谢谢", "VIP"]),
    ("th", "", &["ขออภัย", "เจ้าหน้าที่", "กำลัง", "ให้บริการ", "ลูกค้า", "อยู่"]),
];

/// One speaker: pauses, words with times or without, any of the languages. A caption begins before its first word and
/// ends behind its last.
fn turns(speaker: &'static str) -> impl Strategy<Value = Vec<Fragment>> {
    let word = (any::<prop::sample::Index>(), 1_i64..900, prop_oneof![4 => Just(0), 1 => 0_i64..1500]);
    let silence = || prop_oneof![1 => Just(0), 2 => 0_i64..700];
    let turn =
        (0..VOCABULARY.len(), prop::collection::vec(word, 1..40), 0_i64..4000, any::<bool>(), (silence(), silence()));
    prop::collection::vec(turn, 1..5).prop_map(move |turns| {
        let mut now = 0;
        let at = |ms: i64| Timestamp::from_nanos(ms * 1_000_000);
        let mut fragments = Vec::new();
        for (language, picked, pause, timed, (silence_before, silence_behind)) in turns {
            let (code, space, vocabulary) = VOCABULARY[language];
            now += pause;
            let start = now;
            now += silence_before;
            let mut words = Vec::new();
            for (word, lasts, pause) in picked {
                let text = word.get(vocabulary).to_string();
                let confidence = Probability::from_f32(0.9);
                words.push(Word { text, start_time: at(now), end_time: at(now + lasts), confidence });
                now += lasts + pause;
            }
            now += silence_behind;
            let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(space);
            fragments.push(Fragment {
                start_time: at(start),
                stop_time: at(now),
                speaker_id: speaker.to_string(),
                text,
                language: Some(code.parse().unwrap()),
                words: if timed { words } else { Vec::new() },
                ..Fragment::default()
            });
        }
        fragments
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_rule_is_kept_or_counted(fragments in turns("ada")) {
        for profile in Profile::ALL {
            for format in [Format::Srt, Format::Vtt] {
                check_file(format, profile, &fragments);
            }
        }
    }

    #[test]
    fn speakers_who_talk_at_once_do_not_disturb_each_other(ada in turns("ada"), bob in turns("bob")) {
        let mut fragments = [ada, bob].concat();
        cuewire::transcript::sort(&mut fragments);
        for profile in Profile::ALL {
            check_file(Format::Vtt, profile, &fragments);
        }
    }
}

#[test]
fn words_are_marked_as_they_are_spoken() {
    let word = |text: &str, start_ms: i64, end_ms: i64| {
        let at = |ms: i64| Timestamp::from_nanos(ms * 1_000_000);
        let confidence = Probability::from_f32(1.0);
        Word { text: text.into(), start_time: at(start_ms), end_time: at(end_ms), confidence }
    };
    let words =
        vec![word("Cats", 1000, 1400), word("&", 1400, 1500), word("dogs,", 1500, 1500), word("too.", 1500, 3000)];
    let fragment = Fragment {
        start_time: Timestamp::from_nanos(1_000_000_000),
        stop_time: Timestamp::from_nanos(3_000_000_000),
        speaker_id: "ada".into(),
        text: "Cats & dogs, too.".into(),
        language: None,
        words,
        ..Fragment::default()
    };
    // A time that does not grow has no mark.
    let (text, _) = written(Format::Vtt, Profile::Netflix, &[fragment]);
    assert_eq!(text, "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\n<v ada>Cats &amp; <00:00:01.500>dogs, too.\n\n");
}

/// Recordings as the repository's model hears them, with the times of words: one speaker, one recording after the other,
/// from an interruption to a long silence between them.
#[cfg(all(feature = "whisper", feature = "files"))]
mod recognised {
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use cuewire::asr::whisper::{WhisperDecoder, WhisperModel};
    use cuewire::audio::Pcm;
    use cuewire::audio::file::AudioFile;
    use cuewire::caption::CaptionEvent;
    use cuewire::config::{Language, LanguageSetting};
    use cuewire::session::{Input, Session};
    use cuewire::time::nanos_of_samples;

    use super::support::{drain, no_interims};
    use super::*;

    fn testdata(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
    }

    /// The recordings of a folder with a `manifest.jsonl` that last longer than this; where it names no language, English.
    fn recordings(folder: &Path, longer_than_s: f64) -> Vec<(PathBuf, Language)> {
        let manifest = std::fs::read_to_string(folder.join("manifest.jsonl")).unwrap();
        let entries = manifest.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        entries
            .filter(|entry| entry["duration_s"].as_f64().is_none_or(|duration_s| duration_s > longer_than_s))
            .map(|entry| {
                let language = entry["language"].as_str().unwrap_or("en").parse().unwrap();
                (folder.join(entry["file"].as_str().unwrap()), language)
            })
            .collect()
    }

    fn heard(recordings: &[(PathBuf, Language)]) -> Vec<Fragment> {
        let model = WhisperModel::load(testdata("models/whisper-base-q8_0.gguf")).unwrap();
        let mut decoder = WhisperDecoder::new(Arc::new(model));
        let mut fragments = Vec::new();
        let mut now = Timestamp::EPOCH;
        for (number, (path, language)) in recordings.iter().enumerate() {
            let mut config = no_interims();
            config.word_times = true;
            config.language = LanguageSetting::Fixed(*language);
            let mut session = Session::new("prompt", config);
            let mut file = AudioFile::open(path).unwrap();
            let (began, rate) = (now, file.sample_rate());
            let mut frames = 0;
            let mut events = Vec::new();
            while let Some(block) = file.next_block().unwrap() {
                let pcm = Pcm::interleaved(rate, block.channels, block.samples).unwrap();
                frames += pcm.frames() as u64;
                session.handle_input(Input::Audio { at: now, pcm }).unwrap();
                now = began.plus_nanos(nanos_of_samples(frames, rate));
                events.extend(drain(&mut session, &mut decoder));
            }
            session.handle_input(Input::End).unwrap();
            events.extend(drain(&mut session, &mut decoder));
            let before = fragments.len();
            fragments.extend(events.into_iter().filter_map(|event| match event {
                CaptionEvent::Final { start_time, end_time, speaker_id, text, language, words, .. } => Some(Fragment {
                    start_time,
                    stop_time: end_time,
                    speaker_id: speaker_id.to_string(),
                    text,
                    language: Some(language),
                    words,
                    ..Fragment::default()
                }),
                _ => None,
            }));
            assert!(fragments.len() > before, "{} is not heard", path.display());
            now = now.plus_nanos([0, 200, 700, 5000][number % 4] * 1_000_000);
        }
        assert!(fragments.iter().all(|fragment| !fragment.words.is_empty()));
        fragments
    }

    fn check_all(name: &str, fragments: &[Fragment]) {
        for profile in Profile::ALL {
            let counts = check_file(Format::Vtt, profile, fragments);
            assert_eq!(check_file(Format::Srt, profile, fragments), counts);
            println!("{name}, {profile}, {} captions: {counts:?}", fragments.len());
            assert_eq!(counts.line_too_long + counts.overlap, 0, "{profile}");
        }
    }

    #[test]
    fn the_recordings_of_the_repository_keep_the_rules() {
        check_all("testdata/speech", &heard(&recordings(&testdata("speech"), 0.0)));
    }

    #[test]
    fn real_utterances_keep_the_rules() {
        let Some(folder) = std::env::var_os("CUEWIRE_TEST_SPEECH") else {
            let line =
                b"SKIPPED: CUEWIRE_TEST_SPEECH is not set; it should name a folder that holds en/manifest.jsonl\n";
            std::io::stderr().write_all(line).unwrap();
            return;
        };
        let utterances = recordings(&PathBuf::from(folder).join("en"), 5.0);
        assert!(utterances.len() >= 5, "{} utterances over 5 s", utterances.len());
        check_all("utterances over 5 s", &heard(&utterances));
    }
}
