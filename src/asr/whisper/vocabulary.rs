//! Names and terms that a model is told to expect.
//!
//! In: a [`Vocabulary`]. Out: the tokens that stand where Whisper expects what was said before; and the suspicion that a
//! text is these terms and not what was said.

use super::model::WhisperModel;
use crate::config::Vocabulary;

/// Terms that follow each other in a text as they do in the prompt, to be suspicious.
const SUSPICIOUS: usize = 3;

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

/// Whether a text looks like the prompt and not like speech: nothing but terms, or several in the prompt's own order.
pub(crate) fn looks_like_prompt(text: &str, vocabulary: &Vocabulary) -> bool {
    let plain = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '\''));
        words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    };
    let (text, terms) = (plain(text), vocabulary.terms().iter().map(|term| plain(term)).collect::<Vec<_>>());
    // From each place in the text: terms that follow each other there, and where the last of them ends.
    let run = |mut at: usize, mut term: usize| {
        let mut count = 0;
        while let Some(words) = terms.get(term).filter(|words| !words.is_empty() && text[at..].starts_with(words)) {
            (at, term, count) = (at + words.len(), term + 1, count + 1);
        }
        (count, at)
    };
    let ordered = (0..text.len()).any(|at| (0..terms.len()).any(|term| run(at, term).0 >= SUSPICIOUS));
    let mut at = 0;
    while let Some((_, next)) = (0..terms.len()).map(|term| run(at, term)).filter(|(count, _)| *count > 0).max() {
        at = next;
    }
    ordered || (!text.is_empty() && at == text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_terms_is_suspicious_and_speech_with_terms_is_not() {
        let terms = ["Ann Lee", "Kubernetes", "cuewire", "Zoë"].map(str::to_string).to_vec();
        let vocabulary = Vocabulary::try_from(terms).unwrap();
        for (text, suspicious) in [
            ("Ann Lee, Kubernetes, cuewire, Zoë.", true),
            ("kubernetes", true),
            ("Zoë. Ann Lee.", true),
            ("So Kubernetes, cuewire and Zoë met.", false),
            ("So we ask Ann Lee, Kubernetes, cuewire today.", true),
            ("Ann Lee runs Kubernetes.", false),
            ("", false),
        ] {
            assert_eq!(looks_like_prompt(text, &vocabulary), suspicious, "{text}");
        }
        assert!(!looks_like_prompt("Hello.", &Vocabulary::default()));
    }
}
