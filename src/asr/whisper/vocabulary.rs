//! Names and terms that a model is told to expect.
//!
//! In: a [`Vocabulary`]. Out: the tokens that stand where Whisper expects what was said before; and whether
//! terms in a text come from there and not from what was said.

use super::model::WhisperModel;
use crate::config::Vocabulary;

impl WhisperModel {
    /// Tokens that a prompt may have: half of the decoder's positions less one (openai/whisper, `decoding.py`).
    fn prompt_tokens(&self) -> usize {
        self.config.max_target_positions / 2 - 1
    }

    /// The terms as a list, as many whole ones as fit; and how many those are.
    pub(crate) fn prompt(&self, vocabulary: &Vocabulary) -> (Vec<u32>, usize) {
        let (mut tokens, mut terms) = (Vec::new(), 0);
        for term in vocabulary.terms() {
            let more = self.tokens.encode(&if terms == 0 { format!(" {term}") } else { format!(", {term}") });
            // Behind the last one stands a full stop.
            if tokens.len() + more.len() + 1 > self.prompt_tokens() {
                break;
            }
            tokens.extend(more);
            terms += 1;
        }
        if terms > 0 {
            tokens.extend(self.tokens.encode("."));
        }
        (tokens, terms)
    }

    /// Whether all terms fit into the model's prompt.
    ///
    /// # Errors
    /// [`VocabularyTooLong`] names the first that does not.
    pub fn check_vocabulary(&self, vocabulary: &Vocabulary) -> Result<(), VocabularyTooLong> {
        let (tokens, fit) = self.prompt(vocabulary);
        match vocabulary.terms().get(fit) {
            None => Ok(()),
            Some(term) => {
                let (term, most) = (term.clone(), self.prompt_tokens());
                Err(VocabularyTooLong { fit, tokens: tokens.len(), term, most })
            }
        }
    }
}

/// A vocabulary does not fit into a model's prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "vocabulary: {fit} terms take {tokens} tokens, and `{term}` does not fit any more: {most} tokens are allowed; put the \
     terms that matter first and leave out others"
)]
pub struct VocabularyTooLong {
    fit: usize,
    tokens: usize,
    term: String,
    most: usize,
}

/// Whether terms in a text decoded with the prompt come from the prompt and not from the speech: where it differs from the
/// text decoded without, it has words that are a term's, and what stands there without does not sound like them.
pub(crate) fn leaks(prompted: &str, plain: &str, vocabulary: &Vocabulary) -> bool {
    let words = |text: &str| -> Vec<Vec<char>> {
        let folded = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        folded.map(|word| word.chars().flat_map(char::to_lowercase).collect()).collect()
    };
    let (prompted, plain) = (words(prompted), words(plain));
    let before = prompted.iter().zip(&plain).take_while(|(a, b)| a == b).count();
    let (prompted, plain) = (&prompted[before..], &plain[before..]);
    let behind = prompted.iter().rev().zip(plain.iter().rev()).take_while(|(a, b)| a == b).count();
    let (prompted, plain) = (&prompted[..prompted.len() - behind], &plain[..plain.len() - behind]);
    let terms: Vec<Vec<char>> = vocabulary.terms().iter().flat_map(|term| words(term)).collect();
    // A term that leaks may be misspelt.
    let is_term = |word: &Vec<char>| terms.iter().any(|term| 3 * distance(word, term) <= term.len());
    let (said, heard) = (prompted.concat(), plain.concat());
    prompted.iter().any(is_term) && distance(&said, &heard) as f32 > UNLIKE * said.len().max(heard.len()) as f32
}

/// Letters to change, of the longer text's, from which on two texts do not sound alike. Names that Whisper misspells
/// differ from what it writes by a third to a half ("Spignev Bruszynski"), other words by three quarters.
const UNLIKE: f32 = 0.6;

/// Letters to put in, take out or change (Levenshtein).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_nobody_said_leaks_and_one_that_is_spelt_right_does_not() {
        let terms = ["Zbigniew Brzezinski", "Kubernetes", "cuewire", "Zoë"].map(str::to_string).to_vec();
        let vocabulary = Vocabulary::try_from(terms).unwrap();
        for (prompted, plain, leaked) in [
            ("Zbigniew Brzezinski, Kubernetes.", "They have been carried away by monkeys.", true),
            ("followed by the panel in Kubernetes.", "followed by the pound key.", true),
            ("Dzigniew, Dzigniew,", "You know something not good.", true),
            ("Kubernetes.", "Cooper Netties.", false),
            ("It was Zbigniew Brzezinski who asked.", "It was Spignev Bruszynski who asked.", false),
            ("So Kubernetes, cuewire and Zoë met.", "So Kubernetes, Q-wire and Zoe met.", false),
            ("They were carried away.", "They have been, by monkeys.", false),
            ("Kubernetes", "", true),
            ("", "", false),
        ] {
            assert_eq!(leaks(prompted, plain, &vocabulary), leaked, "{prompted}");
        }
    }
}
