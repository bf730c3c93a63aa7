//! Greedy decoding.
//!
//! In: a [`DecodeJob`]. Out: a [`Hypothesis`], judged by the [`Guards`].
//! Definitions (no-speech probability, mean log-probability, suppressed tokens) are those of openai/whisper,
//! `decoding.py`, without timestamps, context or temperature.

use std::sync::Arc;

use super::encoder::CpuForward;
use super::forward::{Forward, Step};
use super::guards::{Guards, loop_start};
use super::kernels::{self, Level};
use super::mel::{HOP, LogMel};
use super::model::WhisperModel;
use crate::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis};
use crate::config::{Language, LanguageSetting};

/// The segment that jobs are decoded in.
const SEGMENT: usize = 0;

/// Decodes jobs with a model. Holds caches and scratch; one a thread. The model is shared.
pub struct WhisperDecoder<F: Forward = CpuForward> {
    model: Arc<WhisperModel>,
    forward: F,
    guards: Guards,
    mel: LogMel,
    log_mel: Vec<f32>,
    logits: Vec<f32>,
    level: Level,
}

impl WhisperDecoder {
    /// A decoder on the CPU, one thread, with the default guards.
    #[must_use]
    pub fn new(model: Arc<WhisperModel>) -> Self {
        Self::with_forward(model.clone(), CpuForward::new(model))
    }
}

/// What greedy decoding found.
struct Found {
    tokens: Vec<u32>,
    /// Of the text's tokens, and of the end where it was reached.
    log_probabilities: Vec<f32>,
    no_speech: f32,
    language: Language,
}

impl<F: Forward> WhisperDecoder<F> {
    /// A decoder whose network runs elsewhere. `forward` must run `model`.
    #[must_use]
    pub fn with_forward(model: Arc<WhisperModel>, forward: F) -> Self {
        Self {
            mel: LogMel::new(model.config.num_mel_bins),
            model,
            forward,
            guards: Guards::default(),
            log_mel: Vec::new(),
            logits: Vec::new(),
            level: Level::detect(),
        }
    }

    /// Other thresholds.
    #[must_use]
    pub fn guards(mut self, guards: Guards) -> Self {
        self.guards = guards;
        self
    }

    /// Appends tokens; logits from the `from`th of them on are in `self.logits` afterwards.
    fn advance(&mut self, tokens: &[u32], from: usize) -> Result<(), DecodeError> {
        let step = Step { segment: SEGMENT, tokens, logits_from: from };
        self.forward.decode(&[step], &mut self.logits, None)
    }

    /// The probability of `<|nospeech|>` behind the start of transcript, nothing suppressed; and if it is to be
    /// detected, the language.
    fn read_start(&self, languages: &[(Language, u32)]) -> Result<(f32, Option<(Language, u32)>), DecodeError> {
        let logits = &self.logits[..self.model.config.vocab_size];
        let top = logits.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let total: f32 = logits.iter().map(|v| (v - top).exp()).sum();
        let no_speech = (logits[self.model.tokens.no_speech as usize] - top).exp() / total;
        if !no_speech.is_finite() {
            return Err(not_finite());
        }
        let score = |id: u32| logits[id as usize];
        let best = languages.iter().copied().reduce(|a, b| if score(b.1) > score(a.1) { b } else { a });
        Ok((no_speech, best))
    }

    /// The likeliest token of the last logits, and its log-probability among those not suppressed.
    fn pick(&self, first: bool) -> Result<(u32, f32), DecodeError> {
        let mask = if first { &self.model.first_mask } else { &self.model.mask };
        let logits = &self.logits[self.logits.len() - mask.len()..];
        let top = kernels::masked_max(self.level, logits, mask);
        let best = logits.iter().zip(mask).position(|(v, m)| v + m >= top);
        let log_probability = -kernels::masked_sum_exp(self.level, logits, mask, top).ln();
        match best {
            Some(token) if top.is_finite() && log_probability.is_finite() => Ok((token as u32, log_probability)),
            _ => Err(not_finite()),
        }
    }

    fn greedy(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Found, DecodeError> {
        let model = self.model.clone();
        let tokens = &model.tokens;
        let transcribe = [tokens.transcribe, tokens.no_timestamps];
        let (no_speech, language, prompt);
        match job.language {
            LanguageSetting::Auto if model.is_multilingual() => {
                self.advance(&[tokens.start], 0)?;
                let (probability, best) = self.read_start(&tokens.languages)?;
                let (spoken, id) = best.unwrap_or((Language::ENGLISH, tokens.start));
                self.advance(&[id, transcribe[0], transcribe[1]], 2)?;
                (no_speech, language, prompt) = (probability, spoken, 4);
            }
            setting => {
                language = match setting {
                    LanguageSetting::Auto => Language::ENGLISH,
                    LanguageSetting::Fixed(language) => language,
                };
                let id = model.language_token(language).map_err(|e| DecodeError::Invalid(e.to_string()))?;
                match id {
                    Some(id) => self.advance(&[tokens.start, id, transcribe[0], transcribe[1]], 0)?,
                    None => self.advance(&[tokens.start, tokens.no_timestamps], 0)?,
                }
                no_speech = self.read_start(&[])?.0;
                prompt = if id.is_some() { 4 } else { 2 };
            }
        }
        let capacity = model.config.max_target_positions;
        // Half of the decoder's positions at most: `sample_len` of decoding.py.
        let cap = (capacity / 2).min(capacity - prompt).min(self.guards.token_cap(job.audio.len()));
        let (tokens_found, log_probabilities) = (Vec::with_capacity(cap), Vec::with_capacity(cap + 1));
        let mut found = Found { tokens: tokens_found, log_probabilities, no_speech, language };
        loop {
            let (token, log_probability) = self.pick(found.tokens.is_empty())?;
            found.log_probabilities.push(log_probability);
            if token == tokens.end {
                return Ok(found);
            }
            found.tokens.push(token);
            if let Some(keep) = loop_start(&found.tokens) {
                // What was said before the loop, and its phrase once, stands.
                found.tokens.truncate(keep);
                found.log_probabilities.truncate(keep);
                return Ok(found);
            }
            if found.tokens.len() == cap {
                return Ok(found);
            }
            if cancel.is_cancelled() {
                return Err(DecodeError::Cancelled);
            }
            self.advance(&[token], 0)?;
        }
    }
}

fn not_finite() -> DecodeError {
    DecodeError::Failed("the model gave values that are not finite".to_string())
}

impl<F: Forward> Decoder for WhisperDecoder<F> {
    fn decode(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError> {
        let window = self.model.config.window();
        if job.audio.is_empty() || job.audio.len() > window {
            return Err(DecodeError::Invalid(format!(
                "its audio has {} samples, allowed are 1 to {window} (16 kHz)",
                job.audio.len()
            )));
        }
        self.model.check_language(job.language).map_err(|e| DecodeError::Invalid(e.to_string()))?;
        if cancel.is_cancelled() {
            return Err(DecodeError::Cancelled);
        }
        self.mel.compute(&job.audio, window / HOP, &mut self.log_mel);
        self.forward.encode(SEGMENT, &self.log_mel, cancel)?;
        let found = self.greedy(job, cancel)?;
        let text = self.model.tokens.text(&found.tokens).map_err(DecodeError::Failed)?;
        let mean_log_probability = found.log_probabilities.iter().sum::<f32>() / (found.tokens.len() + 1) as f32;
        Ok(Hypothesis {
            suppressed: self.guards.judge(&text, job.audio.len(), found.no_speech, mean_log_probability),
            text,
            tokens: found.tokens,
            language: found.language,
            mean_log_probability,
            no_speech_probability: found.no_speech,
        })
    }
}
