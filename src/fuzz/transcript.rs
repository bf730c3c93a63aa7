//! Transcripts: any bytes through the readers, any fragments through the writers and back.

use arbitrary::{Result, Unstructured};

use crate::caption::cues::Profile;
use crate::config::Language;
use crate::time::Timestamp;
use crate::transcript::{Cue, Format, Fragment, ReadError, TranscriptWriter, jsonl, sort, srt, webvtt};

/// Fragments of one run.
const MOST_FRAGMENTS: usize = 64;

/// Reads `data` as a transcript, or as a description of fragments that are written and read again.
///
/// # Panics
/// Where a reader does not end, where what it read does not survive being written, or where a file that was written cannot
/// be read.
pub fn transcript(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    match how % 4 {
        0 => survives(&read(jsonl::Reader::new(data), data)),
        1 => drop(read(srt::Reader::new(data), data)),
        2 => drop(read(webvtt::Reader::new(data), data)),
        _ => {
            let mut u = Unstructured::new(data);
            let profile = u.choose(Profile::ALL.as_slice()).copied().unwrap_or_default();
            let mut fragments = Vec::new();
            while !u.is_empty() && fragments.len() < MOST_FRAGMENTS {
                // Where the bytes are over, so are the fragments.
                let Ok(fragment) = fragment(&mut u) else { break };
                fragments.push(fragment);
            }
            survives(&fragments);
            sort(&mut fragments);
            shown(&fragments, profile);
        }
    }
}

/// What can be read of `data`; an error costs a line, and reading ends.
fn read<T>(reader: impl Iterator<Item = std::result::Result<T, ReadError>>, data: &[u8]) -> Vec<T> {
    let (mut read, mut steps) = (Vec::new(), 0);
    for item in reader {
        steps += 1;
        assert!(steps <= data.len() + 1, "a reader of {} bytes does not end", data.len());
        match item {
            Ok(item) => read.push(item),
            Err(error) => drop(error.to_string()),
        }
    }
    read
}

/// JSONL keeps every byte.
fn survives(fragments: &[Fragment]) {
    let mut written = Vec::new();
    for fragment in fragments {
        jsonl::write_fragment(&mut written, fragment).expect("memory takes what is written");
    }
    let lines = written.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(lines, fragments.len(), "a fragment is a line");
    let again: Vec<Fragment> =
        jsonl::Reader::new(&written[..]).map(|fragment| fragment.expect("what was written can be read")).collect();
    let kept = |fragment: &Fragment| {
        let Fragment { start_time, stop_time, speaker_id, text, .. } = fragment.clone();
        Fragment { start_time, stop_time, speaker_id, text, ..Fragment::default() }
    };
    assert_eq!(again, fragments.iter().map(kept).collect::<Vec<_>>(), "fragments survive being written");
}

/// Cues show every word, in order, and their files can be read.
fn shown(fragments: &[Fragment], profile: Profile) {
    let written = |format| {
        let mut writer = TranscriptWriter::new(Vec::new(), format, profile, Timestamp::EPOCH);
        for fragment in fragments {
            writer.write(fragment).expect("memory takes what is written");
        }
        writer.finish().expect("memory takes what is written").writer
    };
    let cues = |read: Vec<std::result::Result<Cue, ReadError>>| -> Vec<Cue> {
        read.into_iter().map(|cue| cue.expect("a cue that was written can be read")).collect()
    };
    let (srt, vtt) = (written(Format::Srt), written(Format::Vtt));
    let (srt, vtt) = (cues(srt::Reader::new(&srt[..]).collect()), cues(webvtt::Reader::new(&vtt[..]).collect()));
    let times = |cues: &[Cue]| -> Vec<(u64, u64)> { cues.iter().map(|cue| (cue.start_ms, cue.end_ms)).collect() };
    // What SRT cannot hold is written as something longer.
    if !fragments.iter().any(|fragment| fragment.text.contains("-->")) {
        assert_eq!(times(&srt), times(&vtt), "SRT and WebVTT have the same cues");
    }
    assert!(vtt.iter().all(|cue| cue.start_ms < cue.end_ms), "a cue is shown for a time");
    assert!(vtt.iter().is_sorted_by_key(|cue| cue.start_ms), "cues are in the order of their starts");
    let mut words = shown_words(vtt.iter().map(|cue| cue.text.as_str()));
    let mut said = shown_words(fragments.iter().map(|fragment| fragment.text.as_str()));
    // Cues of speakers who talk at once change places.
    words.sort_unstable();
    said.sort_unstable();
    assert_eq!(words, said, "every word is shown");
    for format in [Format::Json, Format::Txt] {
        let text = String::from_utf8(written(format)).expect("files are UTF-8");
        let whole = format != Format::Json || serde_json::from_str::<serde_json::Value>(&text).is_ok();
        assert!(whole, "a JSON file is JSON: {text}");
    }
}

fn shown_words<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<char> {
    // Cues break lines where a script has no spaces: what is kept are the signs.
    texts.flat_map(str::chars).filter(|c| !c.is_control() && !c.is_whitespace()).collect()
}

fn fragment(u: &mut Unstructured<'_>) -> Result<Fragment> {
    // Mostly times of a call, sometimes any there are.
    let time = |u: &mut Unstructured<'_>| -> Result<i64> {
        if u.ratio(1, 16)? { u.arbitrary() } else { Ok(i64::from(u.arbitrary::<u32>()?) * 1_000_000) }
    };
    let start = time(u)?;
    let stop =
        if u.ratio(1, 8)? { time(u)? } else { start.saturating_add(i64::from(u.arbitrary::<u16>()?) * 1_000_000) };
    let language = *u.choose(&[None, Some("en"), Some("ja"), Some("th"), Some("ar"), Some("de")])?;
    Ok(Fragment {
        start_time: Timestamp::from_nanos(start),
        stop_time: Timestamp::from_nanos(stop),
        speaker_id: text(u, 4)?,
        text: text(u, 40)?,
        language: language.and_then(|code| code.parse::<Language>().ok()),
        ..Fragment::default()
    })
}

/// Text with a bias to what means something in one of the formats.
pub(super) fn text(u: &mut Unstructured<'_>, most: u8) -> Result<String> {
    const PIECES: [&str; 32] = [
        "-->",
        "<v bob>",
        "</v>",
        "&amp;",
        "&#62;",
        "&",
        "<",
        ">",
        "\n\n",
        "\r",
        "\0",
        "\u{85}",
        "\u{2028}",
        "\u{a0}",
        "\u{feff}",
        "NOTE",
        "WEBVTT",
        "STYLE",
        "42",
        "{\\an8}",
        "\"",
        "\\",
        " ",
        " ",
        "hello",
        "Dr. Lee, ",
        "東京",
        "привет ",
        "[Music]",
        "e\u{301}",
        "…",
        "👩‍👧",
    ];
    let mut text = String::new();
    for _ in 0..u.int_in_range(0..=most)? {
        match u.arbitrary::<u8>()? {
            index @ 0..=127 => text.push_str(PIECES[usize::from(index) % PIECES.len()]),
            letter @ 128..=240 => text.push(char::from(b'a' + letter % 26)),
            _ => text.push(u.arbitrary()?),
        }
    }
    Ok(text)
}
