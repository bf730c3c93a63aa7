//! Greedy decoding.
//!
//! In: a [`DecodeJob`]. Out: a [`Hypothesis`], judged by the [`Guards`].
//! Definitions (no-speech probability, mean log-probability, suppressed tokens) are those of openai/whisper,
//! `decoding.py`, without timestamps, context or temperature.
//!
//! The encoder hears the caption and, behind it, silence that was computed once. Where a guard fails, the caption is
//! decoded again with the whole window.

use std::sync::Arc;

use super::cpu::CpuForward;
use super::forward::{CrossAttention, Forward, Step};
use super::guards::{Guards, loop_start};
use super::kernels::{self, Level};
use super::mel::{HOP, LogMel};
use super::model::WhisperModel;
use super::team::Assistant;
use crate::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, Suppression};
use crate::config::{Language, LanguageSetting};

/// Tokens at the end of a text, of which one must have been heard near the end of the speech.
const LAST_TOKENS: usize = 4;

/// Positions of speech that a text may leave unheard at its end, 1 s. Texts that end early leave far more.
const UNHEARD: usize = 50;

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
    attention: CrossAttention,
    /// Where each alignment head looks.
    looked_at: Vec<usize>,
    level: Level,
}

impl WhisperDecoder {
    /// A decoder on the CPU, one thread, with the default guards.
    #[must_use]
    pub fn new(model: Arc<WhisperModel>) -> Self {
        Self::with_forward(model.clone(), CpuForward::new(model))
    }

    /// The same, but threads that are idle may share its work. The answers are the same, byte for byte.
    #[must_use]
    pub fn assisted(model: Arc<WhisperModel>, assistant: Arc<dyn Assistant>) -> Self {
        Self::with_forward(model.clone(), CpuForward::assisted(model, assistant))
    }
}

/// What greedy decoding found.
struct Found {
    tokens: Vec<u32>,
    /// Of the text's tokens, and of the end where it was reached.
    log_probabilities: Vec<f32>,
    no_speech: f32,
    language: Language,
    /// It was said three times over, and cut.
    looped: bool,
    /// The position that each token, and the end, was heard at; nothing where nobody knows.
    heard_at: Vec<usize>,
}

impl Found {
    /// Where the audio was heard last: a comma looks anywhere, the words before it do not.
    fn heard_to(&self) -> Option<usize> {
        self.heard_at.iter().rev().take(LAST_TOKENS).copied().max()
    }

    fn mean_log_probability(&self) -> f32 {
        self.log_probabilities.iter().sum::<f32>() / (self.tokens.len() + 1) as f32
    }
}

impl<F: Forward> WhisperDecoder<F> {
    /// A decoder whose network runs elsewhere. `forward` must run `model`.
    #[must_use]
    pub fn with_forward(model: Arc<WhisperModel>, forward: F) -> Self {
        let heads = model.alignment_heads().to_vec();
        Self {
            mel: LogMel::new(model.config.num_mel_bins),
            model,
            forward,
            guards: Guards::default(),
            log_mel: Vec::new(),
            logits: Vec::new(),
            looked_at: Vec::with_capacity(heads.len()),
            attention: CrossAttention { heads, weights: Vec::new() },
            level: Level::detect(),
        }
    }

    /// Other thresholds.
    #[must_use]
    pub fn guards(mut self, guards: Guards) -> Self {
        self.guards = guards;
        self
    }

    /// The job's log-mel, `[frames, bands]`, to `self.log_mel`. Returns its floor.
    fn hear(&mut self, job: &DecodeJob, frames: usize) -> f32 {
        match job.features.try_lock() {
            Some(mut features) => {
                let rows = features.rows(&job.audio, &mut self.mel);
                self.mel.window(&job.audio, rows, frames, &mut self.log_mel)
            }
            None => self.mel.compute(&job.audio, frames, &mut self.log_mel),
        }
    }

    /// Appends tokens; logits of the first `vocabulary` tokens, from the `from`th of those appended on, are in
    /// `self.logits` afterwards.
    fn advance(&mut self, tokens: &[u32], from: usize, vocabulary: usize) -> Result<(), DecodeError> {
        let step = Step { segment: SEGMENT, tokens, logits_from: from };
        let attention = (!self.attention.heads.is_empty()).then_some(&mut self.attention);
        self.forward.decode(&[step], vocabulary, &mut self.logits, attention)
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

    /// The likeliest token of one row of logits, `width` wide, and its log-probability among those not suppressed.
    fn pick(&self, row: usize, width: usize, first: bool) -> Result<(u32, f32), DecodeError> {
        let mask = if first { &self.model.first_mask } else { &self.model.mask };
        let logits = &self.logits[row * width..row * width + mask.len()];
        let top = kernels::masked_max(self.level, logits, mask);
        let best = logits.iter().zip(mask).position(|(v, m)| v + m >= top);
        let log_probability = -kernels::masked_sum_exp(self.level, logits, mask, top).ln();
        match best {
            Some(token) if top.is_finite() && log_probability.is_finite() => Ok((token as u32, log_probability)),
            _ => Err(not_finite()),
        }
    }

    /// The position at which the alignment heads look from one row of the last step, of `positions` encoded: the median of
    /// where each looks most.
    fn heard_at(&mut self, row: usize, positions: usize) -> Option<usize> {
        let heads = self.attention.heads.len();
        let rows = self.attention.weights.get(row * heads * positions..(row + 1) * heads * positions)?;
        let most = |weights: &[f32]| {
            let top = weights.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            top.map_or(0, |(position, _)| position)
        };
        self.looked_at.clear();
        self.looked_at.extend(rows.chunks_exact(positions.max(1)).map(most));
        self.looked_at.sort_unstable();
        self.looked_at.get(heads / 2).copied()
    }

    /// Decodes the segment that was encoded.
    fn greedy(&mut self, job: &DecodeJob, positions: usize, cancel: &Cancel) -> Result<Found, DecodeError> {
        let model = self.model.clone();
        let tokens = &model.tokens;
        let (all, text) = (model.config.vocab_size, tokens.end as usize + 1);
        let transcribe = [tokens.transcribe, tokens.no_timestamps];
        // A draft that could not be said counts up to where it could.
        let capacity = model.config.max_target_positions;
        let draft = &job.draft[..job.draft.len().min(capacity / 2)];
        let draft = &draft[..draft.iter().position(|&token| token >= tokens.end).unwrap_or(draft.len())];
        let mut step = Vec::with_capacity(capacity);
        let (no_speech, language, prompt, mut width);
        match job.language {
            LanguageSetting::Auto if model.is_multilingual() => {
                self.advance(&[tokens.start], 0, all)?;
                let (probability, best) = self.read_start(&tokens.languages)?;
                let (spoken, id) = best.unwrap_or((Language::ENGLISH, tokens.start));
                step.extend([id, transcribe[0], transcribe[1]]);
                step.extend(draft);
                self.advance(&step, 2, text)?;
                (no_speech, language, prompt, width) = (probability, spoken, 4, text);
            }
            setting => {
                language = match setting {
                    LanguageSetting::Auto => Language::ENGLISH,
                    LanguageSetting::Fixed(language) => language,
                };
                let id = model.language_token(language).map_err(|e| DecodeError::Invalid(e.to_string()))?;
                match id {
                    Some(id) => step.extend([tokens.start, id, transcribe[0], transcribe[1]]),
                    None => step.extend([tokens.start, tokens.no_timestamps]),
                }
                prompt = step.len();
                step.extend(draft);
                self.advance(&step, 0, all)?;
                no_speech = self.read_start(&[])?.0;
                width = all;
            }
        }
        // Half of the decoder's positions at most: `sample_len` of decoding.py.
        let cap = (capacity / 2).min(capacity - prompt).min(self.guards.token_cap(job.audio.len()));
        let (tokens_found, log_probabilities, heard_at) =
            (Vec::with_capacity(cap), Vec::with_capacity(cap + 1), Vec::with_capacity(cap + 1));
        let mut found = Found { tokens: tokens_found, log_probabilities, no_speech, language, looped: false, heard_at };
        // Rows of logits, one for each token of the last step from some token of the prompt on.
        let mut row = self.logits.len() / width - draft.len() - 1;
        let mut weights_row = step.len() - draft.len() - 1;
        loop {
            let (token, log_probability) = self.pick(row, width, found.tokens.is_empty())?;
            found.log_probabilities.push(log_probability);
            found.heard_at.extend(self.heard_at(weights_row, positions));
            if token == tokens.end {
                break;
            }
            found.tokens.push(token);
            if let Some(keep) = loop_start(&found.tokens) {
                // What was said before the loop, and its phrase once, stands.
                found.tokens.truncate(keep);
                found.log_probabilities.truncate(keep);
                found.looped = true;
                break;
            }
            if found.tokens.len() == cap {
                break;
            }
            if cancel.is_cancelled() {
                return Err(DecodeError::Cancelled);
            }
            let said = found.tokens.len();
            let held = self.forward.position(SEGMENT);
            if prompt + said <= held && draft.get(said - 1) == Some(&token) {
                // The draft had it: its successor's logits are there already.
                (row, weights_row) = (row + 1, weights_row + 1);
                continue;
            }
            self.forward.rewind(SEGMENT, prompt + said - 1);
            self.advance(&[token], 0, text)?;
            (row, weights_row, width) = (0, 0, text);
        }
        Ok(found)
    }

    /// Encodes and decodes once, with so many positions.
    fn attempt(&mut self, job: &DecodeJob, positions: usize, cancel: &Cancel) -> Result<Found, DecodeError> {
        self.forward.encode(SEGMENT, &self.log_mel, positions, cancel)?;
        self.greedy(job, positions, cancel)
    }

    fn hypothesis(&self, job: &DecodeJob, found: Found) -> Result<Hypothesis, DecodeError> {
        let text = self.model.tokens.text(&found.tokens).map_err(DecodeError::Failed)?;
        let mean_log_probability = found.mean_log_probability();
        Ok(Hypothesis {
            suppressed: self.guards.judge(&text, job.audio.len(), found.no_speech, mean_log_probability),
            text,
            tokens: found.tokens,
            language: found.language,
            mean_log_probability,
            no_speech_probability: found.no_speech,
            fallback: false,
        })
    }
}

/// Behind the last position of `log_mel` `[frames, bands]` that is nearer to the loudest than to silence.
fn speech_end(log_mel: &[f32], bands: usize, floor: f32) -> usize {
    let loudness = |row: &[f32]| row.iter().sum::<f32>() / bands as f32;
    let loudest = log_mel.chunks_exact(bands).map(loudness).fold(floor, f32::max);
    let last = log_mel.chunks_exact(bands).rposition(|row| loudness(row) > (loudest + floor) / 2.0);
    last.map_or(0, |frame| frame / 2 + 1)
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
        let whole = self.model.config.max_source_positions;
        let mut fallback = false;
        if let Some(positions) = self.forward.positions(job.audio.len()) {
            let floor = self.hear(job, 2 * positions + 1);
            let found = self.attempt(job, positions, cancel)?;
            let unheard = found
                .heard_to()
                .is_some_and(|heard_to| heard_to + UNHEARD < speech_end(&self.log_mel, self.mel.bands(), floor));
            let (looped, no_speech) = (found.looped, found.no_speech);
            let hypothesis = self.hypothesis(job, found)?;
            fallback = match hypothesis.suppressed {
                Some(Suppression::LowProbability | Suppression::Repetition) => true,
                // Speech without a word is the earliest end of all; but no window finds words in what is no speech.
                Some(Suppression::Empty) => unheard && no_speech <= self.guards.no_speech_probability,
                Some(_) => false,
                None => unheard || looped,
            };
            if !fallback {
                return Ok(hypothesis);
            }
        }
        self.hear(job, window / HOP);
        let found = self.attempt(job, whole, cancel)?;
        Ok(Hypothesis { fallback, ..self.hypothesis(job, found)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::RandomModel;
    use super::*;
    use crate::asr::JobId;

    #[test]
    fn features_that_another_job_holds_are_not_waited_for() {
        let model = Arc::new(WhisperModel::from_bytes(RandomModel::default().gguf().unwrap()).unwrap());
        let audio: Arc<[f32]> = (0..16_000).map(|i| (i as f32 * 0.1).sin() * 0.3).collect();
        let job = DecodeJob::new(JobId(0), audio, LanguageSetting::default());
        let mut decoder = WhisperDecoder::new(model);
        let held = job.features.try_lock().unwrap();
        let alone = decoder.decode(&job, &Cancel::new()).unwrap();
        drop(held);
        for _ in 0..2 {
            assert_eq!(decoder.decode(&job, &Cancel::new()).unwrap(), alone);
        }
    }
}
