//! From encoded audio to text: the likeliest token each, and where that makes no sense, drawn ones.
//!
//! In: a [`DecodeJob`]. Out: a [`Hypothesis`], judged by the [`Guards`].
//! Definitions (no-speech probability, mean log-probability, suppressed tokens) are those of openai/whisper,
//! `decoding.py`, without timestamps and without what was said in captions before: a vocabulary may stand in its place.
//!
//! The encoder hears the caption and, behind it, silence that was computed once. Where a guard fails, the caption is
//! decoded again with the whole window, and where it is a final and fails again, at rising temperatures.

use std::sync::Arc;

use super::cpu::CpuForward;
use super::draws::Draws;
use super::forward::{CrossAttention, Forward, Step};
use super::guards::{Guards, looped};
use super::kernels::{self, Level};
use super::mel::{HOP, LogMel};
use super::model::WhisperModel;
use super::vocabulary::leaks;
use super::words::Alignment;
use crate::asr::team::Assistant;
use crate::asr::{Cancel, DecodeError, DecodeJob, Decoder, HeardWord, Hypothesis, JobKind, Suppression};
use crate::config::{Language, LanguageSetting, Task};

/// Tokens at the end of a text, of which one must have been heard near the end of the speech.
const LAST_TOKENS: usize = 4;

/// Positions of speech that a text may leave unheard at its end, 1 s. Texts that end early leave far more.
const UNHEARD: usize = 50;

/// From this probability on a detected language is taken at its word; below it the likeliest few are tried.
const LANGUAGE_SURE: f32 = 0.9;
/// How many are tried at most, and how likely they must be at least.
const CANDIDATES: usize = 5;
const LANGUAGE_POSSIBLE: f32 = 0.01;

/// Temperatures at which tokens are drawn, one after the other, where the likeliest ones make no sense: openai/whisper,
/// `transcribe.py`, but one draw each and not the best of five.
const TEMPERATURES_TENTHS: [u8; 5] = [2, 4, 6, 8, 10];

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
    alignment: Alignment,
    /// Whether the job wants words' times.
    times: bool,
    /// How loud each frame is of what is decoded: the mean of its log-mel.
    loudness: Vec<f32>,
    /// Where each alignment head looks.
    looked_at: Vec<usize>,
    /// The model's masks without what names of sounds are written with: those of the first token and of later ones. Made
    /// for the first job that wants such names.
    tag_masks: Option<[Vec<f32>; 2]>,
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

/// What an attempt's decoding found.
struct Found {
    tokens: Vec<u32>,
    /// Of the text's tokens, and of the end where it was reached.
    log_probabilities: Vec<f32>,
    no_speech: f32,
    translated: bool,
    /// It ended in a loop, and was cut; so many tokens came before.
    looped: Option<usize>,
    /// It passed the guards' number of tokens, and was cut.
    capped: bool,
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
        let heads = model.timing_heads();
        Self {
            mel: LogMel::new(model.config.num_mel_bins),
            model,
            forward,
            guards: Guards::default(),
            log_mel: Vec::new(),
            logits: Vec::new(),
            looked_at: Vec::with_capacity(heads.len()),
            attention: CrossAttention { heads, weights: Vec::new() },
            tag_masks: None,
            alignment: Alignment::default(),
            times: false,
            loudness: Vec::new(),
            level: Level::detect(),
        }
    }

    /// Other thresholds.
    #[must_use]
    pub fn guards(mut self, guards: Guards) -> Self {
        self.guards = guards;
        self
    }

    /// The job's log-mel, `[frames, bands]`, to `self.log_mel`, and how loud each is. Returns its floor.
    fn hear(&mut self, job: &DecodeJob, frames: usize) -> f32 {
        let floor = match job.features.try_lock() {
            Some(mut features) => {
                let rows = features.rows(&job.audio, &mut self.mel);
                self.mel.window(&job.audio, rows, frames, &mut self.log_mel)
            }
            None => self.mel.compute(&job.audio, frames, &mut self.log_mel),
        };
        loudness(&self.log_mel, self.mel.bands(), &mut self.loudness);
        floor
    }

    /// Appends tokens; logits of the first `vocabulary` tokens, from the `from`th of those appended on, are in
    /// `self.logits` afterwards.
    fn advance(&mut self, tokens: &[u32], from: usize, vocabulary: usize) -> Result<(), DecodeError> {
        let step = Step { segment: SEGMENT, tokens, logits_from: from };
        self.attention.weights.clear();
        let attention = (self.times || !self.model.alignment_heads().is_empty()).then_some(&mut self.attention);
        self.forward.decode(&[step], vocabulary, &mut self.logits, attention)
    }

    /// What is added to logits, for a text's first token or a later one.
    fn mask(&self, first: bool, sound_tags: bool) -> &[f32] {
        match &self.tag_masks {
            Some(masks) if sound_tags => &masks[usize::from(!first)],
            _ if first => &self.model.first_mask,
            _ => &self.model.mask,
        }
    }

    /// The probability of `<|nospeech|>` behind the start of transcript, of which the first logits are; nothing
    /// suppressed.
    fn read_no_speech(&self) -> Result<f32, DecodeError> {
        let logits = &self.logits[..self.model.config.vocab_size];
        let top = logits.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let total: f32 = logits.iter().map(|v| (v - top).exp()).sum();
        let no_speech = (logits[self.model.tokens.no_speech as usize] - top).exp() / total;
        if no_speech.is_finite() { Ok(no_speech) } else { Err(not_finite()) }
    }

    /// The languages that are known, the likeliest first, and their probabilities among each other.
    fn rank_languages(&mut self) -> Result<Vec<(Language, f32)>, DecodeError> {
        self.forward.rewind(SEGMENT, 0);
        self.advance(&[self.model.tokens.start], 0, self.model.config.vocab_size)?;
        self.read_no_speech()?;
        let score = |id: u32| self.logits[id as usize];
        let mut ranked: Vec<(Language, f32)> =
            self.model.tokens.languages.iter().map(|&(language, id)| (language, score(id))).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        let top = ranked.first().map_or(0.0, |&(_, score)| score);
        let total: f32 = ranked.iter().map(|&(_, score)| (score - top).exp()).sum();
        ranked.iter_mut().for_each(|(_, score)| *score = (*score - top).exp() / total);
        Ok(ranked)
    }

    /// What is spoken in what was encoded, and how likely that is where it is not given. Where the model hesitates, the
    /// text itself tells: the likeliest language and text together, P(language) · P(text | language).
    fn language(
        &mut self,
        job: &DecodeJob,
        positions: usize,
        cancel: &Cancel,
    ) -> Result<(Language, Option<f32>), DecodeError> {
        match job.language {
            LanguageSetting::Fixed(language) => return Ok((language, None)),
            LanguageSetting::Auto if !self.model.is_multilingual() => return Ok((Language::ENGLISH, None)),
            LanguageSetting::Auto => {}
        }
        let ranked = self.rank_languages()?;
        let Some(&(mut language, mut probability)) = ranked.first() else { return Ok((Language::ENGLISH, None)) };
        if probability < LANGUAGE_SURE {
            let job = DecodeJob { task: Task::Transcribe, word_times: false, draft: Arc::from([]), ..job.clone() };
            let mut best = f32::NEG_INFINITY;
            for &(candidate, likely) in ranked.iter().take(CANDIDATES).filter(|(_, p)| *p >= LANGUAGE_POSSIBLE) {
                let attempt = Attempt {
                    positions,
                    temperature_tenths: 0,
                    prompted: false,
                    language: candidate,
                    probability: None,
                };
                let found = self.decode_tokens(&job, attempt, cancel)?;
                let score = found.log_probabilities.iter().sum::<f32>() + likely.ln();
                // A loop was cut, and is likelier for it: it is no text in any language.
                if score > best && found.looped.is_none() && !found.capped {
                    (language, probability, best) = (candidate, likely, score);
                }
            }
        }
        Ok((language, Some(probability)))
    }

    /// The likeliest token of one row of logits, `width` wide, and its log-probability among those not suppressed.
    fn pick(&self, row: usize, width: usize, mask: &[f32]) -> Result<(u32, f32), DecodeError> {
        let logits = &self.logits[row * width..row * width + mask.len()];
        let top = kernels::masked_max(self.level, logits, mask);
        let best = logits.iter().zip(mask).position(|(v, m)| v + m >= top);
        let log_probability = -kernels::masked_sum_exp(self.level, logits, mask, top).ln();
        match best {
            Some(token) if top.is_finite() && log_probability.is_finite() => Ok((token as u32, log_probability)),
            _ => Err(not_finite()),
        }
    }

    /// A token of one row of logits, drawn, and its log-probability (at temperature 1).
    fn draw(&self, row: usize, width: usize, mask: &[f32], draws: &mut Draws) -> Result<(u32, f32), DecodeError> {
        let logits = &self.logits[row * width..row * width + mask.len()];
        let top = kernels::masked_max(self.level, logits, mask);
        let total = kernels::masked_sum_exp(self.level, logits, mask, top);
        let temperature = draws.temperature();
        let chances = || logits.iter().zip(mask).map(|(v, m)| f64::from((v + m - top) / temperature).exp());
        let all: f64 = chances().sum();
        if !(top.is_finite() && total.is_finite() && all.is_finite()) {
            return Err(not_finite());
        }
        let mut left = draws.uniform() * all;
        let drawn = chances().position(|chance| {
            left -= chance;
            left < 0.0
        });
        // What rounding leaves over at the end is the likeliest.
        let token = drawn.or_else(|| logits.iter().zip(mask).position(|(v, m)| v + m >= top)).unwrap_or_default();
        Ok((token as u32, logits[token] - top - total.ln()))
    }

    /// The position at which the alignment heads look from one row of the last step, of `positions` encoded: the median of
    /// where each looks most.
    fn heard_at(&mut self, row: usize, positions: usize) -> Option<usize> {
        let heads = self.model.alignment_heads().len();
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

    /// Decodes the segment that was encoded. Above temperature 0 tokens are drawn, each by its probability.
    fn decode_tokens(
        &mut self,
        job: &DecodeJob,
        Attempt { positions, temperature_tenths, prompted, language, .. }: Attempt,
        cancel: &Cancel,
    ) -> Result<Found, DecodeError> {
        let model = self.model.clone();
        let tokens = &model.tokens;
        let (all, text) = (model.config.vocab_size, tokens.end as usize + 1);
        // A draft that could not be said counts up to where it could.
        let capacity = model.config.max_target_positions;
        let draft = &job.draft[..job.draft.len().min(capacity / 2)];
        let draft = &draft[..draft.iter().position(|&token| token >= tokens.end).unwrap_or(draft.len())];
        let draft = if temperature_tenths == 0 { draft } else { &[] };
        let mut draws = Draws::new(job.start, temperature_tenths);
        let mut step = Vec::with_capacity(capacity);
        if prompted && !job.vocabulary.terms().is_empty() {
            let (terms, _) = model.prompt(&job.vocabulary);
            step.push(tokens.previous);
            step.extend(terms);
        }
        let before = step.len();
        let id = model.language_token(language).map_err(|e| DecodeError::Invalid(e.to_string()))?;
        step.push(tokens.start);
        let task = tokens.translate.filter(|_| job.task == Task::Translate && language != Language::ENGLISH);
        let translated = task.is_some();
        if let Some(id) = id {
            step.extend([id, task.unwrap_or(tokens.transcribe)]);
        }
        step.push(tokens.no_timestamps);
        let prompt = step.len();
        if prompt >= capacity {
            return Err(DecodeError::Invalid(format!("the prompt has {prompt} tokens, the model holds {capacity}")));
        }
        let draft = &draft[..draft.len().min(capacity - prompt)];
        step.extend(draft);
        self.forward.rewind(SEGMENT, 0);
        self.advance(&step, before, all)?;
        let (no_speech, mut width) = (self.read_no_speech()?, all);
        // Half of the decoder's positions at most: `sample_len` of decoding.py.
        let most = self.guards.token_cap(job.audio.len());
        let cap = (capacity / 2).min(capacity - prompt).min(most);
        let (tokens_found, log_probabilities, heard_at) =
            (Vec::with_capacity(cap), Vec::with_capacity(cap + 1), Vec::with_capacity(cap + 1));
        let mut found = Found {
            tokens: tokens_found,
            log_probabilities,
            no_speech,
            translated,
            looped: None,
            capped: false,
            heard_at,
        };
        // Rows of logits, one for each token of the last step from some token of the prompt on.
        let mut row = self.logits.len() / width - draft.len() - 1;
        let mut weights_row = step.len() - draft.len() - 1;
        loop {
            let mask = self.mask(found.tokens.is_empty(), job.sound_tags);
            let (token, log_probability) = match &mut draws {
                None => self.pick(row, width, mask)?,
                Some(draws) => self.draw(row, width, mask, draws)?,
            };
            found.log_probabilities.push(log_probability);
            found.heard_at.extend(self.heard_at(weights_row, positions));
            if job.word_times {
                self.align(weights_row, positions);
            }
            if token == tokens.end {
                break;
            }
            found.tokens.push(token);
            if let Some(phrase) = looped(&found.tokens) {
                // What was said before the loop stands, its phrase once.
                found.tokens.truncate(phrase.end);
                found.log_probabilities.truncate(phrase.end);
                found.looped = Some(phrase.start);
                break;
            }
            if found.tokens.len() == cap {
                found.capped = cap == most;
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

    /// Files where the alignment heads looked from one row of the last step.
    fn align(&mut self, row: usize, positions: usize) {
        let row_length = self.attention.heads.len() * positions;
        if let Some(looked) = self.attention.weights.get(row * row_length..(row + 1) * row_length) {
            self.alignment.push(looked, positions);
        }
    }

    /// Decodes once what was encoded, and judges it.
    fn attempt(&mut self, job: &DecodeJob, attempt: Attempt, cancel: &Cancel) -> Result<Tried, DecodeError> {
        let heard = (job.audio.len().div_ceil(2 * HOP)).min(attempt.positions);
        self.alignment.clear(self.attention.heads.len(), heard);
        let found = self.decode_tokens(job, attempt, cancel)?;
        let text = self.model.tokens.text(&found.tokens).map_err(DecodeError::Failed)?;
        let mean_log_probability = found.mean_log_probability();
        let words = if job.word_times {
            let probabilities: Vec<f32> = found.log_probabilities.iter().map(|v| v.exp()).collect();
            let words = self.alignment.words(&self.model.tokens, &found.tokens, &probabilities, &self.loudness);
            // The last position may reach beyond the audio.
            let end = u32::try_from(job.audio.len()).unwrap_or(u32::MAX);
            words.into_iter().map(|word| HeardWord { end: word.end.min(end), ..word }).collect()
        } else {
            Vec::new()
        };
        let (heard_to, looped) = (found.heard_to(), found.looped);
        let judged = self.guards.judge(&text, job.audio.len(), job.sound_tags, found.no_speech, mean_log_probability);
        let hypothesis = Hypothesis {
            suppressed: judged.or(found.capped.then_some(Suppression::TooManyTokens)),
            text,
            tokens: found.tokens,
            language: attempt.language,
            language_probability: attempt.probability,
            translated: found.translated,
            words,
            mean_log_probability,
            no_speech_probability: found.no_speech,
            fallback: false,
            temperature_tenths: attempt.temperature_tenths,
        };
        Ok(Tried { hypothesis, heard_to, looped })
    }

    /// The likeliest text with the vocabulary, if there is one, and without: the second verifies the first in one pass
    /// where they agree, and says where they do not whether the terms were heard, or came from the prompt alone.
    fn attempt_unprompted(&mut self, job: &DecodeJob, attempt: Attempt, cancel: &Cancel) -> Result<Tried, DecodeError> {
        let tried = self.attempt(job, Attempt { prompted: true, ..attempt }, cancel)?;
        if job.vocabulary.terms().is_empty() {
            return Ok(tried);
        }
        let verified = DecodeJob { draft: Arc::from(tried.hypothesis.tokens.as_slice()), ..job.clone() };
        let plain = self.attempt(&verified, attempt, cancel)?;
        let leaked = tried.hypothesis.suppressed.is_some()
            || plain.hypothesis.suppressed.is_some()
            || leaks(&tried.hypothesis.text, &plain.hypothesis.text, &job.vocabulary);
        Ok(if leaked { plain } else { tried })
    }
}

/// One way to decode what was encoded.
#[derive(Clone, Copy)]
struct Attempt {
    positions: usize,
    temperature_tenths: u8,
    /// With the vocabulary.
    prompted: bool,
    /// What is spoken.
    language: Language,
    /// How likely that is, where it was detected.
    probability: Option<f32>,
}

/// What an attempt gave.
struct Tried {
    hypothesis: Hypothesis,
    /// Where the audio was heard last.
    heard_to: Option<usize>,
    /// Tokens before a loop.
    looped: Option<usize>,
}

impl Tried {
    /// Whether another attempt may find better words.
    fn failed(&self) -> bool {
        use Suppression::{LowProbability, Repetition, TooManyTokens};
        matches!(self.hypothesis.suppressed, Some(LowProbability | Repetition | TooManyTokens)) || self.looped.is_some()
    }
}

/// The mean over the bands of each frame of `log_mel` `[frames, bands]`.
fn loudness(log_mel: &[f32], bands: usize, to: &mut Vec<f32>) {
    to.clear();
    to.extend(log_mel.chunks_exact(bands).map(|row| row.iter().sum::<f32>() / bands as f32));
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
        self.model.check_task(job.task).map_err(|e| DecodeError::Invalid(e.to_string()))?;
        self.times = job.word_times;
        if job.sound_tags {
            let model = &self.model;
            self.tag_masks.get_or_insert_with(|| {
                [&model.first_mask, &model.mask].map(|mask| {
                    let mut mask = mask.clone();
                    model.tag_marks.iter().for_each(|&id| mask[id as usize] = 0.0);
                    mask
                })
            });
        }
        if cancel.is_cancelled() {
            return Err(DecodeError::Cancelled);
        }
        let whole = self.model.config.max_source_positions;
        let mut detected = None;
        let mut fallback = false;
        if let Some(positions) = self.forward.positions(job.audio.len()) {
            let floor = self.hear(job, 2 * positions + 1);
            // Behind the last position that is nearer to the loudest than to silence.
            let loudest = self.loudness.iter().copied().fold(floor, f32::max);
            let last = self.loudness.iter().rposition(|loudness| *loudness > (loudest + floor) / 2.0);
            let speech_end = last.map_or(0, |frame| frame / 2 + 1);
            self.forward.encode(SEGMENT, &self.log_mel, positions, cancel)?;
            let (language, probability) = self.language(job, positions, cancel)?;
            detected = Some((language, probability));
            let attempt = Attempt { positions, temperature_tenths: 0, prompted: false, language, probability };
            let tried = self.attempt_unprompted(job, attempt, cancel)?;
            let unheard = tried.heard_to.is_some_and(|heard_to| heard_to + UNHEARD < speech_end);
            let no_speech = tried.hypothesis.no_speech_probability;
            fallback = tried.failed()
                || match tried.hypothesis.suppressed {
                    // Speech without a word is the earliest end of all; but no window finds words in what is no speech.
                    Some(Suppression::Empty) => unheard && no_speech <= self.guards.no_speech_probability,
                    Some(_) => false,
                    None => unheard,
                };
            if !fallback {
                return Ok(tried.hypothesis);
            }
        }
        self.hear(job, window / HOP);
        self.forward.encode(SEGMENT, &self.log_mel, whole, cancel)?;
        let (language, probability) = match detected {
            Some(detected) => detected,
            None => self.language(job, whole, cancel)?,
        };
        let mut attempt = Attempt { positions: whole, temperature_tenths: 0, prompted: false, language, probability };
        let greedy = self.attempt_unprompted(job, attempt, cancel)?;
        // An interim is a look at what comes; what stands may try harder.
        if greedy.failed() && job.kind != JobKind::Interim {
            for tenths in TEMPERATURES_TENTHS {
                // Without the vocabulary: what could not be told with it is not to be guessed with it.
                attempt.temperature_tenths = tenths;
                let drawn = self.attempt(job, attempt, cancel)?;
                if !drawn.failed() && drawn.hypothesis.suppressed.is_none() {
                    return Ok(Hypothesis { fallback, ..drawn.hypothesis });
                }
            }
        }
        // What was said before a loop stands. Nothing but a loop is nothing that was said.
        let only_loop = (greedy.looped == Some(0)).then_some(Suppression::Repetition);
        let suppressed = greedy.hypothesis.suppressed.or(only_loop);
        Ok(Hypothesis { fallback, suppressed, ..greedy.hypothesis })
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
