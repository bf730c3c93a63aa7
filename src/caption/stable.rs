//! How much of an interim stands.
//!
//! In: the hypotheses about one open caption, one after the other. Out: texts of which an ever longer beginning is
//! stable: the words on which two consecutive hypotheses agreed (LocalAgreement-2, Liu et al., Interspeech 2020). Words
//! are what stands between spaces; where a script has none, characters as a reader sees them.

use unicode_segmentation::UnicodeSegmentation as _;

use crate::script::is_unspaced;

/// The stable words of one open caption.
#[derive(Clone, Debug, Default)]
pub struct StablePrefix {
    stable: Vec<String>,
    last: Vec<String>,
}

impl StablePrefix {
    /// Takes the next hypothesis; returns the text to show and how many characters at its start are stable. Its last
    /// `undecided` words may still become others, whatever the recogniser says: they are not stable.
    pub fn advance(&mut self, hypothesis: &str, undecided: usize) -> (String, usize) {
        let words = words(hypothesis);
        let agreed = words.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        let agreed = agreed.min(words.len().saturating_sub(undecided));
        let contradicts = words.iter().zip(&self.stable).any(|(a, b)| a != b);
        if agreed > self.stable.len() && !contradicts {
            self.stable = words[..agreed].to_vec();
        }
        // Stable words stay on the screen even where this hypothesis has others in their place.
        let rest = words.get(self.stable.len()..).unwrap_or_default();
        let stable_chars = self.stable.concat().chars().count();
        let text = self.stable.iter().chain(rest).map(String::as_str).collect();
        self.last = words;
        (text, stable_chars)
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
