//! Guards against invented text.
//!
//! In: what decoding gave. Out: the reason for which it is no caption, if there is one.
//! Whisper was trained on subtitles of the web: over silence, noise and music it says what such subtitles say.

use std::io::Write as _;
use std::ops::Range;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::asr::Suppression;
use crate::script::is_unspaced;
use crate::sounds::has_words;

/// Thresholds of the guards. The defaults are those of openai/whisper, `transcribe.py`, where it has them. As there, a low
/// log-probability or a high compression ratio makes the decoder try again at a higher temperature; there the last try
/// stands, here a text that fails at every temperature is suppressed with its reason.
///
/// What is no matter of degree is fixed:
///
/// | guard | value | source |
/// |---|---|---|
/// | temperatures | 0.2, 0.4, 0.6, 0.8, 1.0 | `transcribe.py`; there the best of five draws each, here one: five would cost a caption seconds |
/// | loop | a phrase three times over and twelve tokens in all ends decoding | people say things three times, Whisper does not stop |
/// | early end | nothing of the last four tokens was heard within 1 s of the end of what is loud: the whole window decides | ends that are early in truth miss 2 s and more; a comma looks anywhere |
/// | vocabulary | a term that stands where other sounds were heard without it (0.6 of the letters differ) | misspelt names differ by a third to a half |
/// | language | below 0.9 the five likeliest are tried with their texts; below 0.5, or with a mean log-probability below −0.5, the next caption is asked anew | chosen on prompts in five languages (`docs/accuracy.md`) |
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Guards {
    /// Above this probability of no speech, together with a low log-probability: no speech.
    /// Default 0.6 (`no_speech_threshold`).
    pub no_speech_probability: f32,
    /// Below this mean log-probability a token, natural: too unlikely. Default −1.0 (`logprob_threshold`).
    pub mean_log_probability: f32,
    /// Above this ratio of the text's bytes to its bytes compressed: it repeats itself.
    /// Default 2.4 (`compression_ratio_threshold`).
    pub compression_ratio: f32,
    /// Below this many characters a second of audio, and above the probability of no speech: no speech, however likely the
    /// few characters are. Default 2: slow speech has about 8, and the mean over the two tokens of a lone "you" says
    /// nothing.
    pub characters_per_second: f32,
    /// Below this mean log-probability a text of one word, above the probability of no speech, is none. Default −0.5: the
    /// "you" that Whisper hears in noise has −0.8 to −1 with its end, and a word that was said −0.3 and no such
    /// probability.
    pub lone_word_log_probability: f32,
    /// Tokens that a second of audio may give, on top of `tokens_at_least`; decoding stops there. Default 30:
    /// fast English is 7, scripts that take several tokens a character (Tamil, Thai) stay below 25.
    pub tokens_per_second: f32,
    /// Tokens allowed however short the audio is. Default 20.
    pub tokens_at_least: usize,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            no_speech_probability: 0.6,
            mean_log_probability: -1.0,
            compression_ratio: 2.4,
            characters_per_second: 2.0,
            lone_word_log_probability: -0.5,
            tokens_per_second: 30.0,
            tokens_at_least: 20,
        }
    }
}

impl Guards {
    /// Tokens that audio of so many samples at 16 kHz may give.
    #[must_use]
    pub fn token_cap(&self, samples: usize) -> usize {
        let seconds = samples as f32 / crate::time::SAMPLE_RATE as f32;
        (seconds * self.tokens_per_second).ceil() as usize + self.tokens_at_least
    }

    /// Why the text of audio of so many samples (16 kHz) is no caption, the plainest reason first. With `sound_tags` the
    /// name of a sound is one, where no speech was expected too.
    #[must_use]
    pub fn judge(
        &self,
        text: &str,
        samples: usize,
        sound_tags: bool,
        no_speech_probability: f32,
        mean_log_probability: f32,
    ) -> Option<Suppression> {
        let seconds = samples as f32 / crate::time::SAMPLE_RATE as f32;
        let sparse = (text.chars().count() as f32) < self.characters_per_second * seconds;
        let unlikely = mean_log_probability < self.mean_log_probability;
        let lone = word_count(text) < 2 && mean_log_probability < self.lone_word_log_probability;
        if !has_words(text) {
            let names_a_sound = sound_tags && text.chars().any(|c| c.is_alphanumeric() || c == '♪');
            if names_a_sound { unlikely.then_some(Suppression::LowProbability) } else { Some(Suppression::Empty) }
        } else if no_speech_probability > self.no_speech_probability && (unlikely || sparse || lone) {
            Some(Suppression::NoSpeech)
        } else if compression_ratio(text) > self.compression_ratio {
            Some(Suppression::Repetition)
        } else if unlikely {
            Some(Suppression::LowProbability)
        } else {
            None
        }
    }
}

/// Where the end of `tokens` is one phrase said three times over: its first time.
///
/// A loop in greedy decoding never ends by itself. Three times is what people say; so they must also be
/// twelve tokens in all, more than people repeat.
pub(crate) fn looped(tokens: &[u32]) -> Option<Range<usize>> {
    let longest = tokens.len() / LOOP_TIMES;
    (1..=longest).find_map(|n| {
        let times = LOOP_TIMES.max(LOOP_TOKENS.div_ceil(n));
        let tail = tokens.len().checked_sub(times * n)?;
        let phrase = &tokens[tail..tail + n];
        tokens[tail..].chunks_exact(n).all(|other| other == phrase).then_some(tail..tail + n)
    })
}

/// Times that a phrase must follow itself to be a loop.
const LOOP_TIMES: usize = 3;
/// Tokens that these must have in all.
const LOOP_TOKENS: usize = 12;

/// Bytes of the text to its bytes compressed by zlib at its default level: openai/whisper, `utils.py`.
#[must_use]
pub fn compression_ratio(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    // Writing to memory does not fail.
    match encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()) {
        Ok(compressed) => text.len() as f32 / compressed.len().max(1) as f32,
        Err(_) => 0.0,
    }
}

/// Words of a text, about: where a script has no spaces, two characters count as one.
pub(crate) fn word_count(text: &str) -> usize {
    let count = |part: &str| part.chars().filter(|&c| is_unspaced(c)).count().div_ceil(2).max(1);
    text.split_whitespace().map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guard_speaks_for_itself() {
        let text = "That agent is already logged on.";
        let loops = "thank you very much ".repeat(20);
        for (text, no_speech, log_probability, expected) in [
            (text, 0.1, -0.3, None),
            (text, 0.9, -0.3, None), // sure of its words: no-speech alone does not count
            (text, 0.9, -1.1, Some(Suppression::NoSpeech)),
            (text, 0.1, -1.1, Some(Suppression::LowProbability)),
            (text, f32::NAN, f32::NAN, None),
            (&loops, 0.1, -0.1, Some(Suppression::Repetition)),
            ("", 0.9, -2.0, Some(Suppression::Empty)),
            (" . . .", 0.0, 0.0, Some(Suppression::Empty)),
            ("♪♪", 0.0, 0.0, Some(Suppression::Empty)),
            ("[Music]", 0.0, 0.0, Some(Suppression::Empty)),
            ("(upbeat music) [Applause]", 0.0, 0.0, Some(Suppression::Empty)),
            ("*sigh*", 0.0, 0.0, Some(Suppression::Empty)),
            ("[Music] Hello.", 0.0, 0.0, None),
            ("(Hello", 0.0, 0.0, None),
            ("5", 0.0, 0.0, None),
            ("Да.", 0.0, 0.0, None),
            ("はい", 0.0, 0.0, None),
        ] {
            assert_eq!(Guards::default().judge(text, 16_000, false, no_speech, log_probability), expected, "{text}");
        }
    }

    #[test]
    fn a_lone_word_over_seconds_of_no_speech_is_no_caption() {
        let judge =
            |seconds: usize, no_speech| Guards::default().judge("you", seconds * 16_000, false, no_speech, -0.5);
        assert_eq!(judge(8, 0.7), Some(Suppression::NoSpeech));
        assert_eq!(judge(8, 0.5), None);
        assert_eq!(judge(1, 0.7), None);
        // Shortly, in noise: sure that it is no speech, and not sure of the word.
        let judge = |text: &str, log_probability| Guards::default().judge(text, 11_000, false, 0.96, log_probability);
        assert_eq!(judge("you", -0.8), Some(Suppression::NoSpeech));
        assert_eq!(judge("Yes.", -0.3), None);
        assert_eq!(judge("Yes, please.", -0.8), None);
        assert_eq!(judge("今日は晴れです", -0.8), None, "several words, without spaces");
        assert_eq!(judge("啊", -0.8), Some(Suppression::NoSpeech));
    }

    #[test]
    fn names_of_sounds_are_captions_where_they_are_wanted() {
        let judge = |text: &str, wanted| Guards::default().judge(text, 64_000, wanted, 0.9, -0.4);
        assert_eq!(judge("[Music]", false), Some(Suppression::Empty));
        assert_eq!(judge("[Music]", true), None);
        assert_eq!(judge("...", true), Some(Suppression::Empty));
    }

    #[test]
    fn a_loop_is_cut_behind_its_first_turn_and_repetition_that_people_speak_is_not() {
        for (tokens, keep) in [
            (vec![5, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], Some(1..5)),
            ([vec![9, 8], vec![7; 12]].concat(), Some(2..3)),
            (vec![7; 11], None),
            (vec![1, 2, 3, 4, 1, 2, 3, 4], None),
            (vec![1, 2, 1, 2, 1, 2], None),
            (vec![1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 5], None),
            (vec![], None),
        ] {
            assert_eq!(looped(&tokens), keep, "{tokens:?}");
        }
    }

    #[test]
    fn the_ratio_is_that_of_zlib() {
        // python: len(t) / len(zlib.compress(t)); another deflate may differ by a few bytes, which changes large
        // ratios, and none of the judgements.
        for (text, python) in [
            ("thank you very much ".repeat(20), 400.0 / 33.0),
            ("The quick brown fox jumps over the lazy dog.".to_string(), 44.0 / 51.0),
            ("Я не знаю. ".repeat(12), 216.0 / 29.0),
        ] {
            let ours = compression_ratio(&text);
            assert!((ours / python - 1.0).abs() < if python < 3.0 { 0.1 } else { 0.4 }, "{ours}, {python}: {text}");
        }
        assert!(compression_ratio("") < 1.0);
    }
}
