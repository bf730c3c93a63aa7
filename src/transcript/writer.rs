//! A transcript as it is written, in any [`Format`].
//!
//! In: [`Fragment`]s, one after the other. Out: the file, through [`Write`], caption by caption.

use std::fmt;
use std::io::{self, Write};

use super::{Format, Fragment};
use crate::caption::cues::{CueCounts, Profile};
use crate::time::Timestamp;

/// What makes one format of [`Fragment`]s. Text is appended to `out`, and written before the next is asked for.
pub(super) trait Encode: fmt::Debug + Send + Sync {
    /// What the file begins with, whatever follows.
    fn header(&self) -> &'static str {
        ""
    }

    /// Takes the next fragment. Says of it, and of those before, what is known by now.
    fn push(&mut self, fragment: &Fragment, out: &mut String) -> io::Result<()>;

    /// There are no more: says what was held back, and what the file ends with.
    fn finish(&mut self, _out: &mut String) -> io::Result<()> {
        Ok(())
    }

    /// Marks no words, where it would.
    fn leave_out_word_marks(&mut self) {}

    /// What its cues could not keep, where it has cues.
    fn cues(&self) -> Option<CueCounts> {
        None
    }
}

/// Writes fragments in the order in which they come, each in one `write_all`: a buffer around the [`Write`] is of use
/// for a finished transcript, and not needed for one that grows with the call.
///
/// JSONL, JSON and plain text are written at once. SRT and WebVTT hold cues, which depend on what follows: see
/// [`DisplayCues`](crate::caption::cues::DisplayCues) for how long a caption is held back. An SRT, WebVTT or JSON file is whole only after
/// [`finish`](Self::finish).
///
/// SRT, WebVTT and plain text show text: a fragment without any has no place there.
#[derive(Debug)]
pub struct TranscriptWriter<W: Write> {
    writer: W,
    format: Box<dyn Encode>,
    /// What waits for the next call: the header, at first.
    pending: String,
}

/// A transcript is written to its end.
#[derive(Debug)]
pub struct Finished<W> {
    /// What it was written to, flushed.
    pub writer: W,
    /// The cues, and what they could not keep; `None` for a format without cues.
    pub cues: Option<CueCounts>,
}

impl<W: Write> TranscriptWriter<W> {
    /// A writer of `format`. The times of SRT and WebVTT are those since `origin`, the start of the recording, and their
    /// cues are those of `profile`; the other formats use neither. Writes nothing yet.
    pub fn new(writer: W, format: Format, profile: Profile, origin: Timestamp) -> Self {
        let format = format.encoder(profile, origin);
        let pending = format.header().to_string();
        Self { writer, format, pending }
    }

    /// Without WebVTT's marks where words begin: the times of words decide about cues, and are not shown.
    #[must_use]
    pub fn without_word_marks(mut self) -> Self {
        self.format.leave_out_word_marks();
        self
    }

    /// Writes one fragment, or what of the ones before it was held back for it.
    ///
    /// # Errors
    /// Those of the [`Write`]. How much of the fragment was written is then unknown: give up the file.
    pub fn write(&mut self, fragment: &Fragment) -> io::Result<()> {
        self.format.push(fragment, &mut self.pending)?;
        self.write_pending()
    }

    /// Writes what was held back and what a file of the format has even without a cue, flushes, and hands the [`Write`]
    /// back.
    ///
    /// # Errors
    /// Those of the [`Write`].
    pub fn finish(mut self) -> io::Result<Finished<W>> {
        self.format.finish(&mut self.pending)?;
        self.write_pending()?;
        self.writer.flush()?;
        Ok(Finished { writer: self.writer, cues: self.format.cues() })
    }

    fn write_pending(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.writer.write_all(self.pending.as_bytes())?;
            self.pending.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Cue, ReadError, srt, webvtt};
    use super::*;
    use crate::caption::cues::ms_since;
    use crate::caption::testing::{any_fragment, fragment, words};

    fn written(format: Format, origin: Timestamp, fragments: &[Fragment]) -> String {
        let mut writer = TranscriptWriter::new(Vec::new(), format, Profile::None, origin);
        for fragment in fragments {
            writer.write(fragment).unwrap();
        }
        String::from_utf8(writer.finish().unwrap().writer).unwrap()
    }

    fn read(format: Format, text: &str) -> Vec<Result<Cue, ReadError>> {
        match format {
            Format::Srt => srt::Reader::new(text.as_bytes()).collect(),
            Format::Vtt => webvtt::Reader::new(text.as_bytes()).collect(),
            Format::Jsonl | Format::Json | Format::Txt => unreachable!("has no cues"),
        }
    }

    /// A line of a script without spaces ends where there is no space.
    fn unspaced(text: &str) -> String {
        words(text).replace(' ', "")
    }

    fn cue(start_ms: u64, end_ms: u64, speaker_id: Option<&str>, text: &str) -> Cue {
        Cue { start_ms, end_ms, speaker_id: speaker_id.map(str::to_string), text: text.to_string() }
    }

    #[test]
    fn each_format_is_what_it_should_be() {
        let origin = Timestamp::from_nanos(1_000_000_000);
        let fragments = [
            fragment(2061, 6401, "alice", "That agent is already logged on. Please enter your agent number."),
            fragment(6500, 6600, "alice", " \r\n\0"),
            fragment(500, 400, "R&D <bob>", "a --> b\n\n2\n00:00:09,000 --> 00:00:10,000\nc & d"),
            fragment(360_001_000, 360_002_500, " ", "\tlate\t"),
        ];
        for (format, expected) in [
            (
                Format::Jsonl,
                concat!(
                    r#"{"type":"speech","start_time":"1970-01-01T00:00:02.061000000Z","stop_time":"1970-01-01T00:00:06.401000000Z","speaker_id":"alice","text":"That agent is already logged on. Please enter your agent number."}"#,
                    "\n",
                    r#"{"type":"speech","start_time":"1970-01-01T00:00:06.500000000Z","stop_time":"1970-01-01T00:00:06.600000000Z","speaker_id":"alice","text":" \r\n\u0000"}"#,
                    "\n",
                    r#"{"type":"speech","start_time":"1970-01-01T00:00:00.500000000Z","stop_time":"1970-01-01T00:00:00.400000000Z","speaker_id":"R&D <bob>","text":"a --> b\n\n2\n00:00:09,000 --> 00:00:10,000\nc & d"}"#,
                    "\n",
                    r#"{"type":"speech","start_time":"1970-01-05T04:00:01.000000000Z","stop_time":"1970-01-05T04:00:02.500000000Z","speaker_id":" ","text":"\tlate\t"}"#,
                    "\n",
                ),
            ),
            (
                Format::Json,
                concat!(
                    r#"{"captions":["#,
                    "\n",
                    r#"{"start_time":"1970-01-01T00:00:02.061000000Z","stop_time":"1970-01-01T00:00:06.401000000Z","speaker_id":"alice","language":null,"text":"That agent is already logged on. Please enter your agent number.","translated":false},"#,
                    "\n",
                    r#"{"start_time":"1970-01-01T00:00:06.500000000Z","stop_time":"1970-01-01T00:00:06.600000000Z","speaker_id":"alice","language":null,"text":" \r\n\u0000","translated":false},"#,
                    "\n",
                    r#"{"start_time":"1970-01-01T00:00:00.500000000Z","stop_time":"1970-01-01T00:00:00.400000000Z","speaker_id":"R&D <bob>","language":null,"text":"a --> b\n\n2\n00:00:09,000 --> 00:00:10,000\nc & d","translated":false},"#,
                    "\n",
                    r#"{"start_time":"1970-01-05T04:00:01.000000000Z","stop_time":"1970-01-05T04:00:02.500000000Z","speaker_id":" ","language":null,"text":"\tlate\t","translated":false}"#,
                    "\n",
                    r#"],"languages":[],"speakers":[" ","R&D <bob>","alice"]}"#,
                    "\n",
                ),
            ),
            (
                Format::Srt,
                "1\n00:00:01,061 --> 00:00:05,401\nThat agent is already logged on.\nPlease enter your agent number.\n\n\
                 2\n00:00:00,000 --> 00:00:00,001\na -- > b 2 00:00:09,000 -- >\n00:00:10,000 c & d\n\n\
                 3\n100:00:00,000 --> 100:00:01,500\nlate\n\n",
            ),
            (
                Format::Vtt,
                "WEBVTT\n\n\
                 00:00:01.061 --> 00:00:05.401\n<v alice>That agent is already logged on.\nPlease enter your agent number.\n\n\
                 00:00:00.000 --> 00:00:00.001\n<v R&amp;D &lt;bob&gt;>a --&gt; b 2 00:00:09,000 --&gt;\n00:00:10,000 c &amp; d\n\n\
                 100:00:00.000 --> 100:00:01.500\nlate\n\n",
            ),
            (
                Format::Txt,
                "That agent is already logged on. Please enter your agent number.\n\
                 a --> b 2 00:00:09,000 --> 00:00:10,000 c & d\nlate\n",
            ),
        ] {
            assert_eq!(written(format, origin, &fragments), expected, "{format}");
        }
    }

    #[test]
    fn a_transcript_without_a_word_is_a_valid_file() {
        for (format, expected) in [
            (Format::Jsonl, ""),
            (Format::Json, "{\"captions\":[],\"languages\":[],\"speakers\":[]}\n"),
            (Format::Srt, ""),
            (Format::Vtt, "WEBVTT\n\n"),
            (Format::Txt, ""),
        ] {
            assert_eq!(written(format, Timestamp::EPOCH, &[]), expected, "{format}");
        }
        for format in [Format::Srt, Format::Vtt] {
            assert!(read(format, &written(format, Timestamp::EPOCH, &[])).is_empty());
        }
    }

    #[test]
    fn json_ends_with_every_language_and_speaker_once() {
        let caption = |language: Option<&str>, speaker_id: &str| Fragment {
            language: language.map(|code| code.parse().unwrap()),
            ..fragment(0, 1, speaker_id, "x")
        };
        let captions = [
            caption(Some("fr"), "bob"),
            caption(Some("en"), "alice"),
            caption(None, "bob"),
            caption(Some("fr"), "bob"),
        ];
        let text = written(Format::Json, Timestamp::EPOCH, &captions);
        assert!(text.ends_with("],\"languages\":[\"en\",\"fr\"],\"speakers\":[\"alice\",\"bob\"]}\n"), "{text}");
    }

    #[test]
    fn json_tells_a_translation_and_how_sure_its_language_is() {
        let language_probability = Some(crate::caption::Probability::from_f32(0.75));
        let caption = Fragment { language_probability, translated: true, ..fragment(0, 1, "a", "x") };
        let text = written(Format::Json, Timestamp::EPOCH, &[caption]);
        assert!(
            text.contains(r#""language":null,"language_probability":0.75,"text":"x","translated":true}"#),
            "{text}"
        );
    }

    #[test]
    fn files_of_others_are_read() {
        for (format, text, expected) in [
            (
                Format::Srt,
                "\u{feff}1\r\n00:00:01,000 --> 00:00:02,000 X1:40 X2:600\r\n<i>one</i>\r\ntwo\r\n\r\n\r\n\
                 00:00:03.000 --> 00:00:04.000\r\n\r\n7\r\n0:00:05,000 --> 0:00:06,000\r\n42",
                vec![cue(1000, 2000, None, "<i>one</i> two"), cue(3000, 4000, None, ""), cue(5000, 6000, None, "42")],
            ),
            (
                Format::Vtt,
                "\u{feff}WEBVTT - a title\r\nKind: captions\r\n\r\nNOTE\r\na comment\r\n\r\nSTYLE\r\n::cue { color: red }\r\n\r\n\
                 intro\r\n00:01.000 --> 00:02.000 align:start line:0\r\n<v.loud Ann &amp; Bob>one</v>\r\n<c.x>t<00:01.500>wo</c>&nbsp;&#33;&lrm; AT&T\r\n\r\n\
                 NOTE 00:00\r\n\r\n00:00:03.000 --> 00:00:04.000\r\nNOTE is a word <v Eve>too",
                vec![
                    cue(1000, 2000, Some("Ann & Bob"), "one two\u{a0}!\u{200e} AT&T"),
                    cue(3000, 4000, Some("Eve"), "NOTE is a word too"),
                ],
            ),
        ] {
            let cues: Vec<_> = read(format, text).into_iter().map(Result::unwrap).collect();
            assert_eq!(cues, expected);
        }
    }

    #[test]
    fn an_error_names_the_line_and_reading_goes_on() {
        let long = format!("{}\n", "x".repeat(1000)).repeat(1100);
        for (format, text, expected) in [
            (Format::Vtt, "1\n00:01.000 --> 00:02.000\n", "line 1: `WEBVTT` is expected"),
            (Format::Vtt, "", "line 1: `WEBVTT` is expected"),
            (Format::Vtt, "\nWEBVTT\n", "line 1: `WEBVTT` is expected"),
            (Format::Vtt, "WEBVTTX\n\n00:01.000 --> 00:02.000\nx", "line 1: `WEBVTT` is expected"),
            (
                Format::Vtt,
                "WEBVTT\n\nid\ntext\n\n00:01.000 --> 00:02.000\nok",
                "line 4: the times of a cue are expected",
            ),
            (Format::Srt, "1\n\n00:00:01,000 --> 00:00:02,000\nok", "line 2: the times of a cue are expected"),
            (
                Format::Srt,
                "1\n00:00:01 --> 00:00:02\n\n2\n00:00:01,000 --> 00:00:02,000\nok",
                "line 2: `00:00:01 --> 00:00:02` are no times of a cue: hh:mm:ss,mmm --> hh:mm:ss,mmm",
            ),
            (
                Format::Srt,
                &format!("1\n00:00:01,000 --> 00:00:02,000\n{long}\n00:00:01,000 --> 00:00:02,000\nok"),
                "line 1050 is longer than 1048576 bytes",
            ),
        ] {
            let seen = read(format, text);
            assert_eq!(seen[0].as_ref().unwrap_err().to_string(), expected);
            let rest: Vec<_> = seen[1..].iter().map(|cue| cue.as_ref().unwrap().text.as_str()).collect();
            assert_eq!(rest, if text.ends_with("ok") { &["ok"][..] } else { &[] });
        }
    }

    proptest! {
        #[test]
        fn cues_survive(fragments in prop::collection::vec(any_fragment(), 0..6), origin in any::<i64>()) {
            let origin = Timestamp::from_nanos(origin);
            let shown: Vec<_> = fragments.iter().filter(|fragment| !words(&fragment.text).is_empty()).collect();
            for format in [Format::Srt, Format::Vtt] {
                let text = written(format, origin, &fragments);
                let cues: Vec<_> = read(format, &text).into_iter().map(Result::unwrap).collect();
                prop_assert_eq!(cues.len(), shown.len());
                for (cue, fragment) in cues.iter().zip(&shown) {
                    let start_ms = ms_since(origin, fragment.start_time);
                    prop_assert_eq!(cue.start_ms, start_ms);
                    prop_assert_eq!(cue.end_ms, ms_since(origin, fragment.stop_time).max(start_ms + 1));
                    prop_assert_eq!(unspaced(&cue.text), unspaced(&fragment.text));
                    if format == Format::Vtt {
                        let speaker = cue.speaker_id.as_deref().unwrap_or_default();
                        prop_assert_eq!(words(speaker), words(&fragment.speaker_id));
                    }
                }
                prop_assert_eq!(text.matches("-->").count(), shown.len());
            }
            let plain = written(Format::Txt, origin, &fragments);
            prop_assert_eq!(plain.lines().count(), shown.len());
        }

        #[test]
        fn no_input_makes_a_reader_panic_or_stay(pieces in prop::collection::vec(prop::sample::select(vec![
            "WEBVTT", "\n", "\n\n", "\r\n", "00:00:01,000", "00:01.000", " --> ", "-->", "1", "<v bob>", "<", "&", "&#x;", ";", "NOTE", "x", "é",
        ]), 0..60)) {
            let text = pieces.concat();
            for format in [Format::Srt, Format::Vtt] {
                for text in [text.clone(), format!("WEBVTT\n\n{text}")] {
                    prop_assert!(read(format, &text).len() <= text.len() + 1);
                }
            }
        }
    }
}
