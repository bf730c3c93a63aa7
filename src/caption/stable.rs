//! How much of an interim stands.
//!
//! In: the hypotheses about one open caption, one after the other. Out: texts of which an ever longer beginning is
//! stable, and how much of that the final changed. Stable are the words on which two consecutive hypotheses agreed
//! (LocalAgreement-2, Liu et al., Interspeech 2020), or one or three, as [`Stability`] says. Words are what stands between
//! spaces; where a script has none, characters as a reader sees them.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::config::Stability;
use crate::script::is_unspaced;

/// With [`Stability::Low`] the last words of a hypothesis, the likeliest to change, are not stable.
const HELD_BACK: usize = 2;

/// The stable words of one open caption.
#[derive(Clone, Debug, Default)]
pub(crate) struct StablePrefix {
    stability: Stability,
    stable: Vec<String>,
    /// The hypotheses before, as many as must agree.
    earlier: VecDeque<Vec<String>>,
}

/// Words that interims called stable, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StabilityCount {
    /// Stable words of the last interims.
    pub stable_words: u64,
    /// Of these, words that are not at the same place in the final.
    pub changed_by_final: u64,
}

impl StablePrefix {
    /// Of a caption of which nothing was heard yet.
    pub(crate) fn new(stability: Stability) -> Self {
        Self { stability, ..Self::default() }
    }

    /// Takes the next hypothesis; returns the text to show and how many characters at its start are stable. Its last
    /// `undecided` words may still become others, whatever the recogniser says: they are not stable.
    pub(crate) fn advance(&mut self, hypothesis: &str, undecided: usize) -> (String, usize) {
        let words = words(hypothesis);
        let (before, held_back) = match self.stability {
            Stability::Low => (0, HELD_BACK),
            Stability::Medium => (1, 0),
            Stability::High => (2, 0),
        };
        let common = |earlier: &Vec<String>| words.iter().zip(earlier).take_while(|(a, b)| a == b).count();
        let agreed = self.earlier.iter().map(common).min().unwrap_or(words.len());
        let agreed = agreed.min(words.len().saturating_sub(undecided.max(held_back)));
        let contradicts = words.iter().zip(&self.stable).any(|(a, b)| a != b);
        if self.earlier.len() == before && agreed > self.stable.len() && !contradicts {
            self.stable = words[..agreed].to_vec();
        }
        // Stable words stay on the screen even where this hypothesis has others in their place.
        let rest = words.get(self.stable.len()..).unwrap_or_default();
        let stable_chars = self.stable.concat().chars().count();
        let text = self.stable.iter().chain(rest).map(String::as_str).collect();
        self.earlier.push_back(words);
        if self.earlier.len() > before {
            self.earlier.pop_front();
        }
        (text, stable_chars)
    }

    /// How many words are stable, and how many of them the final's text has not at the same place.
    pub(crate) fn compared_with(&self, final_text: &str) -> StabilityCount {
        let words = words(final_text);
        let changed = self.stable.iter().enumerate().filter(|(place, word)| words.get(*place) != Some(word)).count();
        StabilityCount { stable_words: self.stable.len() as u64, changed_by_final: changed as u64 }
    }
}

/// Words, each with the space before it.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in text.split_whitespace() {
        let mut space = if words.is_empty() { "" } else { " " };
        if !part.chars().any(is_unspaced) {
            words.push([space, part].concat());
            continue;
        }
        for grapheme in part.graphemes(true) {
            words.push([space, grapheme].concat());
            space = "";
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_stable_when_two_hypotheses_agree_and_are_never_taken_back() {
        let mut prefix = StablePrefix::default();
        for (hypothesis, text, stable) in [
            ("the", "the", ""),
            ("the cat", "the cat", "the"),
            ("the cats sat", "the cats sat", "the"),
            ("the cats sat on", "the cats sat on", "the cats sat"),
            ("a cats sat on", "the cats sat on", "the cats sat"),
            ("the", "the cats sat", "the cats sat"),
            ("the cats sat on it", "the cats sat on it", "the cats sat"),
            ("the cats sat on it", "the cats sat on it", "the cats sat on it"),
        ] {
            assert_eq!(prefix.advance(hypothesis, 0), (text.to_string(), stable.chars().count()), "{hypothesis}");
        }
    }

    #[test]
    fn fewer_or_more_hypotheses_must_agree() {
        // What is stable after each, with low, medium and high stability.
        let rows = [
            ("so it was a", ["so it", "", ""]),
            ("so it was the case", ["so it was", "so it was", ""]),
            ("so it was the case", ["so it was", "so it was the case", "so it was"]),
            ("so I was the case then too", ["so it was", "so it was the case", "so it was"]),
            ("so it was the case then too", ["so it was the case", "so it was the case", "so it was"]),
            ("so it was the case then too", ["so it was the case", "so it was the case then too", "so it was"]),
            (
                "so it was the case then too",
                ["so it was the case", "so it was the case then too", "so it was the case then too"],
            ),
        ];
        for (row, stability) in [Stability::Low, Stability::Medium, Stability::High].into_iter().enumerate() {
            let mut prefix = StablePrefix::new(stability);
            let mut before = String::new();
            for (hypothesis, stable) in rows {
                let (text, chars) = prefix.advance(hypothesis, 0);
                assert_eq!(&text[..chars], stable[row], "{stability:?}, {hypothesis}");
                assert!(text.starts_with(&before), "{stability:?}: {before} was stable and {text} is shown");
                before = text[..chars].to_string();
            }
        }
        // What the rules for texts may still change is never stable.
        assert_eq!(StablePrefix::new(Stability::Low).advance("so it was a case", 3).1, "so it".len());
    }

    #[test]
    fn words_that_the_final_changed_are_counted() {
        let mut prefix = StablePrefix::default();
        assert_eq!(prefix.compared_with("anything"), StabilityCount::default());
        prefix.advance("the cat sat on", 0);
        prefix.advance("the cat sat on", 0);
        for (text, changed) in [
            ("the cat sat on it", 0),
            ("the cat sat", 1),
            ("The cat sat, on", 2),
            ("a the cat sat on", 4),
            ("the cats sat on", 1),
            ("", 4),
        ] {
            let expected = StabilityCount { stable_words: 4, changed_by_final: changed };
            assert_eq!(prefix.compared_with(text), expected, "{text}");
        }
    }

    #[test]
    fn scripts_without_spaces_grow_too() {
        let mut prefix = StablePrefix::default();
        for (hypothesis, text, stable) in [
            ("これは", "これは", ""),
            ("これは", "これは", "これは"),
            ("これはOK ペンです", "これはOK ペンです", "これは"),
            ("これはOK ペンでした", "これはOK ペンでした", "これはOK ペンで"),
        ] {
            assert_eq!(prefix.advance(hypothesis, 0), (text.to_string(), stable.chars().count()), "{hypothesis}");
        }
    }
}
