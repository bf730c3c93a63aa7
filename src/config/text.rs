//! Settings of a caption's text: terms to expect, terms to replace, words to mask.
//!
//! In: texts from outside, bounded here. Out: types that are cheap to clone: every job carries them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names and terms that the recogniser is told to expect, in the order of their weight. At most
/// [`Vocabulary::MOST_CHARS`] characters.
///
/// What does not fit into the model's prompt is silently left out, from the end; `WhisperModel::check_vocabulary`
/// tells before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Vocabulary(Arc<[String]>);

/// A text setting is too large, or empty where it must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}: allowed are {allowed}")]
pub struct TextError {
    field: &'static str,
    problem: String,
    allowed: String,
}

impl Vocabulary {
    /// Characters of all terms together. Whisper's prompt holds 223 tokens, some 800 characters of English.
    pub const MOST_CHARS: usize = 2000;

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Vocabulary {
    type Error = TextError;

    fn try_from(terms: Vec<String>) -> Result<Self, TextError> {
        let chars: usize = terms.iter().map(|term| term.chars().count()).sum();
        if chars > Self::MOST_CHARS {
            let (problem, allowed) = (format!("has {chars} characters"), format!("up to {}", Self::MOST_CHARS));
            return Err(TextError { field: "vocabulary", problem, allowed });
        }
        let tidy = |term: String| term.split_whitespace().collect::<Vec<_>>().join(" ");
        let terms: Arc<[String]> = terms.into_iter().map(tidy).filter(|term| !term.is_empty()).collect();
        Ok(Self(terms))
    }
}

impl From<Vocabulary> for Vec<String> {
    fn from(vocabulary: Vocabulary) -> Self {
        vocabulary.terms().to_vec()
    }
}

/// A term and what stands in its place. Terms are found as whole words, in any case; spaces between their words match any
/// white space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replacement {
    /// What was recognised.
    pub from: String,
    /// What is shown; may be empty.
    pub to: String,
}

/// What is changed in a text before it is shown: in finals and interims alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TextRules {
    /// Terms and what stands in their place; of two that match, the longer, then the earlier one. Default none.
    pub replacements: Replacements,
    /// Whether swear words are shown as their first letter and stars. Default off. The list is English; others are
    /// [`TextRules::masked_words`].
    pub mask_profanity: bool,
    /// More words that are masked. Default none.
    pub masked_words: Words,
    /// Whether names of sounds in brackets, `[Music]`, `(applause)`, stay. Default off: they are removed, and what holds
    /// nothing else is no caption.
    pub keep_sound_tags: bool,
}

/// A table of replacements, at most [`MOST_ENTRIES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Replacement>", into = "Vec<Replacement>")]
pub struct Replacements(Arc<[Replacement]>);

/// A list of words, at most [`MOST_ENTRIES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Words(Arc<[String]>);

/// Entries of a table or list.
pub const MOST_ENTRIES: usize = 1000;
/// Characters of one entry.
const MOST_ENTRY_CHARS: usize = 200;

fn check<'a>(field: &'static str, entries: usize, texts: impl Iterator<Item = &'a str>) -> Result<(), TextError> {
    let error = |problem, allowed| Err(TextError { field, problem, allowed });
    if entries > MOST_ENTRIES {
        return error(format!("has {entries} entries"), format!("up to {MOST_ENTRIES}"));
    }
    for text in texts {
        let chars = text.chars().count();
        if chars > MOST_ENTRY_CHARS {
            return error(format!("has an entry of {chars} characters"), format!("up to {MOST_ENTRY_CHARS}"));
        }
    }
    Ok(())
}

/// A term without a letter or digit is found nowhere.
fn says_something<'a>(field: &'static str, mut texts: impl Iterator<Item = &'a str>) -> Result<(), TextError> {
    match texts.find(|text| !text.chars().any(char::is_alphanumeric)) {
        None => Ok(()),
        Some(text) => {
            let problem = format!("has the entry `{}`", text.chars().take(40).collect::<String>());
            Err(TextError { field, problem, allowed: "entries with a letter or a digit".to_string() })
        }
    }
}

impl Replacements {
    /// The table's rows.
    #[must_use]
    pub fn rows(&self) -> &[Replacement] {
        &self.0
    }
}

impl TryFrom<Vec<Replacement>> for Replacements {
    type Error = TextError;

    fn try_from(rows: Vec<Replacement>) -> Result<Self, TextError> {
        check("replacements", rows.len(), rows.iter().flat_map(|row| [row.from.as_str(), row.to.as_str()]))?;
        says_something("replacements", rows.iter().map(|row| row.from.as_str()))?;
        Ok(Self(rows.into()))
    }
}

impl From<Replacements> for Vec<Replacement> {
    fn from(table: Replacements) -> Self {
        table.rows().to_vec()
    }
}

impl Words {
    /// The words.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Words {
    type Error = TextError;

    fn try_from(words: Vec<String>) -> Result<Self, TextError> {
        check("masked_words", words.len(), words.iter().map(String::as_str))?;
        says_something("masked_words", words.iter().map(String::as_str))?;
        Ok(Self(words.into()))
    }
}

impl From<Words> for Vec<String> {
    fn from(list: Words) -> Self {
        list.words().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_or_empty_is_an_error_that_says_so() {
        let long = "x".repeat(201);
        for (json, parts) in [
            (format!(r#"{{"masked_words":["{long}"]}}"#), ["masked_words", "201 characters", "up to 200"]),
            (r#"{"masked_words":["..."]}"#.to_string(), ["masked_words", "`...`", "a letter or a digit"]),
            (
                format!(r#"{{"masked_words":[{}]}}"#, vec![r#""a""#; 1001].join(",")),
                ["masked_words", "1001 entries", "up to 1000"],
            ),
            (r#"{"replacements":[{"from":"","to":"x"}]}"#.to_string(), ["replacements", "``", "a letter or a digit"]),
        ] {
            let error = serde_json::from_str::<TextRules>(&json).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let error = Vocabulary::try_from(vec!["x".repeat(2001)]).unwrap_err().to_string();
        assert_eq!(error, "vocabulary has 2001 characters: allowed are up to 2000");
        let vocabulary = Vocabulary::try_from(vec![" Ann \n Lee ".to_string(), " ".to_string()]).unwrap();
        assert_eq!(vocabulary.terms(), ["Ann Lee"]);
    }
}
