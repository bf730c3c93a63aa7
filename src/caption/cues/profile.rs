//! What those who caption for a living require of text on a screen, as data.
//!
//! In: a profile's name. Out: its [`ProfileRules`].

use std::fmt;
use std::str::FromStr;

/// Whose rules display cues keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// Netflix, *Timed Text Style Guide*.
    #[default]
    Netflix,
    /// BBC, *Subtitle Guidelines*.
    Bbc,
    /// Described and Captioned Media Program, *Captioning Key*, for adults.
    Dcmp,
    /// CEA-608 ("line 21") pop-on captions.
    Cea608,
    /// One cue a caption, at the caption's times.
    None,
}

/// How much time a reader needs. A full-width character counts as two characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// Any text may be shown for any time.
    Free,
    /// Characters a second, the spaces between words included, line ends counted as spaces.
    CharsPerSecond(u16),
    /// Words a minute. Scripts without spaces: six characters are a word, begun ones counted.
    WordsPerMinute(u16),
}

impl Reading {
    /// Milliseconds, rounded up, to read so many characters and [sixths](super::atoms::sixths_of_words) of words.
    pub(super) fn ms(self, columns: u64, sixths: u64) -> u64 {
        match self {
            Self::Free => 0,
            Self::CharsPerSecond(rate) => (columns * 1000).div_ceil(u64::from(rate)),
            Self::WordsPerMinute(rate) => (sixths.div_ceil(6) * 60_000).div_ceil(u64::from(rate)),
        }
    }
}

/// The rules of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfileRules {
    /// Characters a line; a full-width character is two.
    pub line_chars: usize,
    /// Lines a cue.
    pub lines: usize,
    /// Reading speed.
    pub reading: Reading,
    /// Shortest cue, ms.
    pub min_ms: u64,
    /// Longest cue, ms.
    pub max_ms: u64,
    /// Shortest gap between two cues, ms.
    pub min_gap_ms: u64,
    /// A gap is [`min_gap_ms`](Self::min_gap_ms), or this at least, ms: one between them looks like a flicker.
    pub open_gap_ms: u64,
    /// How far a cue may begin behind its first word, ms.
    pub max_late_ms: u64,
    /// How long a cue may stay behind its last word, ms.
    pub max_linger_ms: u64,
    /// Whether a cue's bytes take time to be sent, 480 bit/s.
    pub paced: bool,
}

/// "English (USA) Timed Text Style Guide", *Character Limitation* (42) and *Reading Speed* (20 a second, adult programs);
/// "Timed Text Style Guide: General Requirements", *Duration* (5/6 s, 7 s), *Frame Gap* (2 frames; 3 to 11 are closed to
/// 2, so that 12 is the shortest that stays), *Subtitle Timing Guidelines* (in within 2 frames of the audio, out at most
/// half a second behind it). A frame is 1/24 s: 2 are 83.3 ms, 12 are 500 ms, and 20 are 5/6 s. What is the least is rounded
/// up, what is the most down.
const NETFLIX: ProfileRules = ProfileRules {
    line_chars: 42,
    lines: 2,
    reading: Reading::CharsPerSecond(20),
    min_ms: 834,
    max_ms: 7000,
    min_gap_ms: 84,
    open_gap_ms: 500,
    max_late_ms: 83,
    max_linger_ms: 500,
    paced: false,
};

/// "Subtitle Guidelines": line length (37, Teletext) and two lines; 160 to 180 words a minute, of which the upper bound is
/// the rule (0.33 s a word); no gap, or one of a second; never more than 2 s from the speech, either way.
const BBC: ProfileRules = ProfileRules {
    line_chars: 37,
    lines: 2,
    reading: Reading::WordsPerMinute(180),
    min_ms: 0,
    max_ms: u64::MAX,
    min_gap_ms: 0,
    open_gap_ms: 1000,
    max_late_ms: 2000,
    max_linger_ms: 2000,
    paced: false,
};

/// "Captioning Key": *Text* (32 characters, two lines) and *Presentation Rate* (130, 140 and 160 words a minute for lower,
/// middle and upper levels, of which the last, for adults; 1 1/3 s to 6 s). It asks for synchrony without a figure:
/// a cue is never early or late, and may stay as long as the BBC allows.
const DCMP: ProfileRules = ProfileRules {
    line_chars: 32,
    lines: 2,
    reading: Reading::WordsPerMinute(160),
    min_ms: 1334,
    max_ms: 6000,
    min_gap_ms: 0,
    open_gap_ms: 0,
    max_late_ms: 0,
    max_linger_ms: 2000,
    paced: false,
};

/// ANSI/CTA-608-E: 32 columns, four rows at a time, two bytes a frame of 1001/30 ms on a field. A cue is loaded behind
/// the one before it, the first from the beginning on, so a fast exchange makes it late; it goes with its speech.
const CEA608: ProfileRules = ProfileRules {
    line_chars: 32,
    lines: 4,
    reading: Reading::Free,
    min_ms: 0,
    max_ms: u64::MAX,
    min_gap_ms: 0,
    open_gap_ms: 0,
    max_late_ms: 0,
    max_linger_ms: 2000,
    paced: true,
};

/// Lines as long as those of [`NETFLIX`], as many as it takes.
const NONE: ProfileRules = ProfileRules {
    line_chars: 42,
    lines: usize::MAX,
    reading: Reading::Free,
    min_ms: 0,
    max_ms: u64::MAX,
    min_gap_ms: 0,
    open_gap_ms: 0,
    max_late_ms: u64::MAX,
    max_linger_ms: u64::MAX,
    paced: false,
};

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 5] = [Self::Netflix, Self::Bbc, Self::Dcmp, Self::Cea608, Self::None];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netflix => "netflix",
            Self::Bbc => "bbc",
            Self::Dcmp => "dcmp",
            Self::Cea608 => "cea608",
            Self::None => "none",
        }
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(self) -> ProfileRules {
        match self {
            Self::Netflix => NETFLIX,
            Self::Bbc => BBC,
            Self::Dcmp => DCMP,
            Self::Cea608 => CEA608,
            Self::None => NONE,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A profile is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile is `{name}`: allowed are {}", Profile::ALL.map(Profile::name).join(", "))]
pub struct UnknownProfile {
    name: String,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    /// Takes a name in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownProfile { name: text.chars().take(40).collect() })
    }
}

/// Milliseconds, rounded up, that a pop-on caption takes to be sent behind the one before it, or the beginning.
///
/// ANSI/CTA-608-E, all control codes sent twice as it recommends: erase the last caption (EDM), resume caption loading
/// (RCL), erase non-displayed memory (ENM), a preamble address code a row, the row's characters filled up to a whole
/// pair, end of caption (EOC).
pub(super) fn sending_ms<'a>(rows: impl Iterator<Item = &'a str>) -> u64 {
    const DOUBLED: u64 = 2 * 2;
    let rows = rows.map(|row| DOUBLED + row.chars().map(sent_bytes).sum::<u64>().next_multiple_of(2));
    let bytes = 4 * DOUBLED + rows.sum::<u64>();
    (bytes / 2 * 1001).div_ceil(30)
}

/// Bytes of a character: the basic set is one byte; the special set is two; the extended sets are two that replace a
/// basic character sent before. What CEA-608 does not have at all is counted like them.
pub(super) fn sent_bytes(c: char) -> u64 {
    match c {
        '*' | '\\' | '^' | '_' | '`' | '{' | '|' | '}' | '~' => 3,
        ' '..='~' | 'á' | 'é' | 'í' | 'ó' | 'ú' | 'ç' | '÷' | 'Ñ' | 'ñ' => 1,
        '®' | '°' | '½' | '¿' | '™' | '¢' | '£' | '♪' | 'à' | '\u{a0}' | 'è' | 'â' | 'ê' | 'î' | 'ô' | 'û' => {
            2
        }
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_known_by_its_name() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().to_uppercase().parse::<Profile>().unwrap(), profile);
        }
        let error = "ebu".parse::<Profile>().unwrap_err().to_string();
        assert_eq!(error, "profile is `ebu`: allowed are netflix, bbc, dcmp, cea608, none");
    }

    #[test]
    fn reading_takes_time() {
        for (reading, columns, sixths, ms) in [
            (Reading::Free, 100, 100, 0),
            (Reading::CharsPerSecond(20), 42, 0, 2100),
            (Reading::CharsPerSecond(17), 1, 0, 59),
            (Reading::WordsPerMinute(180), 0, 6, 334),
            (Reading::WordsPerMinute(160), 0, 13, 1125),
        ] {
            assert_eq!(reading.ms(columns, sixths), ms);
        }
    }

    #[test]
    fn sending_takes_frames() {
        // 16 bytes of codes; a row is 4 and its text, even.
        for (rows, bytes) in [(&[][..], 16), (&["a"], 22), (&["ab", "né!"], 30), (&["Ä"], 24), (&["♪♪"], 24)] {
            assert_eq!(
                sending_ms(rows.iter().copied()),
                (f64::from(bytes) / 2.0 * 1001.0 / 30.0).ceil() as u64,
                "{rows:?}"
            );
        }
    }
}
