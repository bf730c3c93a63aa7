//! A decoder that says what it is told to: tests and demonstrations of everything around recognition.

use super::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis};
use crate::config::{Language, LanguageSetting};

/// Answers each job with what a function makes of it.
pub struct ScriptedDecoder<F>(F);

impl<F> ScriptedDecoder<F>
where
    F: FnMut(&DecodeJob) -> Result<Hypothesis, DecodeError> + Send,
{
    /// A decoder that calls `script` for every job.
    pub fn new(script: F) -> Self {
        Self(script)
    }
}

impl<F> Decoder for ScriptedDecoder<F>
where
    F: FnMut(&DecodeJob) -> Result<Hypothesis, DecodeError> + Send,
{
    fn decode(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError> {
        if cancel.is_cancelled() { Err(DecodeError::Cancelled) } else { (self.0)(job) }
    }
}

impl Hypothesis {
    /// A certain hypothesis with this text: what scripts answer.
    #[must_use]
    pub fn certain(text: &str, job: &DecodeJob) -> Self {
        let language = match job.language {
            LanguageSetting::Fixed(language) => language,
            LanguageSetting::Auto => Language::ENGLISH,
        };
        Self {
            text: text.to_string(),
            tokens: Vec::new(),
            language,
            language_probability: None,
            translated: false,
            words: Vec::new(),
            temperature_tenths: 0,
            mean_log_probability: 0.0,
            no_speech_probability: 0.0,
            fallback: false,
            suppressed: None,
        }
    }
}
