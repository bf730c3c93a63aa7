//! The spoken languages, and `auto`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Code (ISO 639-1, as Whisper and the service spell it) and English name of every language cuewire captions.
const LANGUAGES: [(&str, &str); 36] = [
    ("en", "English"),
    ("fr", "French"),
    ("es", "Spanish"),
    ("de", "German"),
    ("it", "Italian"),
    ("nl", "Dutch"),
    ("pt", "Portuguese"),
    ("pl", "Polish"),
    ("ca", "Catalan"),
    ("cs", "Czech"),
    ("da", "Danish"),
    ("el", "Greek"),
    ("fi", "Finnish"),
    ("id", "Indonesian"),
    ("ja", "Japanese"),
    ("ru", "Russian"),
    ("sv", "Swedish"),
    ("ta", "Tamil"),
    ("th", "Thai"),
    ("tr", "Turkish"),
    ("hu", "Hungarian"),
    ("ro", "Romanian"),
    ("zh", "Chinese"),
    ("ar", "Arabic"),
    ("tl", "Tagalog"),
    ("he", "Hebrew"),
    ("hi", "Hindi"),
    ("hr", "Croatian"),
    ("ko", "Korean"),
    ("ms", "Malay"),
    ("no", "Norwegian"),
    ("uk", "Ukrainian"),
    ("bg", "Bulgarian"),
    ("et", "Estonian"),
    ("sk", "Slovak"),
    ("sl", "Slovenian"),
];

/// Other codes and the one above that is meant. Deprecated ones and their preferred values: IANA's Language Subtag Registry
/// (BCP 47). Bokmål and Nynorsk are the two parts of the macrolanguage `no` (ISO 639-3). Filipino is the standard form of
/// Tagalog, for which the registry has a code of its own and Whisper has none.
const ALIASES: [(&str, &str); 6] =
    [("nb", "no"), ("nn", "no"), ("iw", "he"), ("in", "id"), ("mo", "ro"), ("fil", "tl")];

/// One of the languages that cuewire captions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Language(u8);

impl Language {
    /// English.
    pub const ENGLISH: Self = Self(0);

    /// All languages, English first.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..LANGUAGES.len() as u8).map(Self)
    }

    /// All codes that are understood, lower case: each language's own, and others of the same languages.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        Self::all().map(Self::code).chain(ALIASES.iter().map(|(alias, _)| *alias))
    }

    /// Two-letter code, lower case.
    #[must_use]
    pub fn code(self) -> &'static str {
        LANGUAGES[usize::from(self.0)].0
    }

    /// English name.
    #[must_use]
    pub fn name(self) -> &'static str {
        LANGUAGES[usize::from(self.0)].1
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A language code is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("language is `{code}`: allowed are auto, {}", known())]
pub struct UnknownLanguage {
    code: String,
}

fn known() -> String {
    Language::all().map(Language::code).collect::<Vec<_>>().join(", ")
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    /// Takes a code in any case, with or without a region: `pt`, `PT`, `pt-BR`, `pt_br`; and other codes of the same
    /// languages: `nb`, `nn`, `iw`, `in`, `mo`, `fil`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut subtags = text.split(['-', '_']);
        let primary = subtags.next().unwrap_or_default();
        let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(primary));
        let primary = alias.map_or(primary, |(_, code)| code);
        // RFC 5646, section 2.1.
        let is_tag =
            subtags.all(|subtag| (1..=8).contains(&subtag.len()) && subtag.bytes().all(|b| b.is_ascii_alphanumeric()));
        LANGUAGES
            .iter()
            .position(|(code, _)| is_tag && code.eq_ignore_ascii_case(primary))
            .map(|index| Self(index as u8))
            .ok_or_else(|| UnknownLanguage { code: text.chars().take(40).collect() })
    }
}

/// What the `language` setting holds: one language, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LanguageSetting {
    /// Detected from the audio, at some cost in accuracy and latency.
    Auto,
    /// Spoken throughout.
    Fixed(Language),
}

impl Default for LanguageSetting {
    fn default() -> Self {
        Self::Fixed(Language::ENGLISH)
    }
}

impl fmt::Display for LanguageSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(language) => language.fmt(f),
        }
    }
}

impl FromStr for LanguageSetting {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("auto") { Ok(Self::Auto) } else { text.parse().map(Self::Fixed) }
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(Language);
serde_as_text!(LanguageSetting);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_parses_in_any_case_and_with_a_region() {
        assert_eq!(Language::all().len(), 36);
        for language in Language::all() {
            for text in [language.code().to_string(), language.code().to_uppercase(), format!("{language}-XX")] {
                assert_eq!(text.parse::<Language>().unwrap(), language);
            }
        }
        assert_eq!("AUTO".parse::<LanguageSetting>().unwrap(), LanguageSetting::Auto);
        for text in ["zh-Hant-TW", "es-419", "de_CH_1901", "en-a-bbb-x-a-ccc"] {
            assert_eq!(text.parse::<Language>().unwrap().code(), &text[..2], "{text}");
        }
    }

    #[test]
    fn other_codes_of_a_language_mean_it() {
        for (alias, code) in ALIASES {
            assert!(LANGUAGES.iter().all(|(known, _)| *known != alias), "{alias}");
            for text in [alias.to_string(), alias.to_uppercase(), format!("{alias}-XX")] {
                assert_eq!(text.parse::<Language>().unwrap().code(), code, "{text}");
            }
        }
    }

    #[test]
    fn an_unknown_code_is_named_beside_the_known_ones() {
        for text in
            ["", "xx", "english", "-fr", "en-", "en_", "en-!!!", "en--US", "en-abcdefghi", "en-ü", "fil-", "auto-US"]
        {
            let error = text.parse::<LanguageSetting>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("auto, en, fr,"), "{error}");
        }
    }
}
