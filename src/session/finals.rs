//! From closed captions to what becomes of them.
//!
//! In: captions that are closed, answers to their final jobs. Out: jobs, and finals, suppressed captions and gaps in order
//! of time; translations behind their finals. Where the language is detected, it is remembered here from one caption to the
//! next.

use std::sync::Arc;

use super::{Output, Session};
use crate::asr::{DecodeError, DecodeJob, HeardWord, Hypothesis, JobId, JobKind, Suppression};
use crate::caption::{CaptionEvent, CaptionId, GapReason, Probability, Retraction, Rules, StablePrefix, Word};
use crate::config::{Language, LanguageSetting, Task};
use crate::sounds::has_words;
use crate::time::{SAMPLE_RATE, Timestamp, nanos_of_samples};

/// A detected language is believed from this probability on; below it the next caption is asked again.
const LANGUAGE_BELIEVED: f32 = 0.5;
/// A mean log-probability below this, half-way to the guards' own threshold, makes a caption's language doubtful: text in
/// the wrong language is unlikely text.
const LANGUAGE_DOUBTED: f32 = -0.5;

/// A caption that is closed and whose final is awaited.
pub(super) struct ClosedCaption {
    pub(super) id: CaptionId,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) samples: u64,
    pub(super) shown: bool,
    /// What was stable of the last interim.
    pub(super) prefix: StablePrefix,
    pub(super) job: DecodeJob,
    /// When the job's audio begins.
    pub(super) heard_at: Timestamp,
    /// Whether the language is to be detected, or was.
    pub(super) auto: bool,
    /// Of the language setting.
    pub(super) epoch: u32,
    pub(super) rules: Arc<Rules>,
    /// Whether it is to be translated too.
    pub(super) translate: bool,
    pub(super) state: FinalState,
}

/// A caption whose final was said and whose translation is awaited.
pub(super) struct Translating {
    pub(super) id: CaptionId,
    start_time: Timestamp,
    end_time: Timestamp,
    spoken_language: Language,
    rules: Arc<Rules>,
}

pub(super) enum FinalState {
    /// The language of the captions before it is not known yet.
    Held,
    Asked,
    /// Asked once more, the language being doubtful; what was answered first.
    AskedAgain(Hypothesis),
    Answered(Result<Hypothesis, DecodeError>),
}

/// Whether an answer is a caption.
fn is_caption(result: &Result<Hypothesis, DecodeError>) -> bool {
    result.as_ref().is_ok_and(|hypothesis| hypothesis.suppressed.is_none())
}

/// What was found to be spoken.
#[derive(Clone, Copy)]
pub(super) struct Detected {
    pub(super) language: Language,
    pub(super) probability: Probability,
    /// Of the language setting: what was found before it changed does not count.
    pub(super) epoch: u32,
}

/// What is still to be said, in order of time.
pub(super) enum Awaited {
    Caption(Box<ClosedCaption>),
    /// A gap behind captions whose finals are awaited.
    Gap(CaptionEvent),
}

impl Session {
    /// Asks for what is awaited and was not asked yet. Where the language is detected, a caption is asked only when those
    /// before it are answered: it is decoded in the language that they were found in, whenever answers come.
    pub(super) fn ask_for_finals(&mut self) {
        let mut unanswered = false;
        let detected = self.detected;
        for awaited in &mut self.awaited {
            let Awaited::Caption(caption) = awaited else { continue };
            if matches!(caption.state, FinalState::Held) && !(caption.auto && unanswered) {
                caption.job.id = JobId(self.next_job);
                self.next_job += 1;
                if let Some(Detected { language, .. }) = detected.filter(|d| caption.auto && d.epoch == caption.epoch) {
                    caption.job.language = LanguageSetting::Fixed(language);
                }
                caption.state = FinalState::Asked;
                self.outputs.push_back(Output::Decode(caption.job.clone()));
            }
            unanswered |= !matches!(caption.state, FinalState::Answered(_));
        }
    }

    /// Files the answer to a caption's final. One that doubts its language is asked again, to detect it.
    pub(super) fn answer(&mut self, place: usize, mut result: Result<Hypothesis, DecodeError>) {
        let Some(Awaited::Caption(caption)) = self.awaited.get_mut(place) else { return };
        // A second look that finds nothing takes back no words.
        if let FinalState::AskedAgain(first) = &caption.state
            && !is_caption(&result)
        {
            result = Ok(first.clone());
        }
        if caption.auto
            && let Ok(hypothesis) = &result
        {
            let doubtful = match hypothesis.suppressed {
                Some(Suppression::LowProbability | Suppression::Repetition | Suppression::TooManyTokens) => true,
                Some(_) => false,
                None => hypothesis.mean_log_probability < LANGUAGE_DOUBTED,
            };
            if doubtful && matches!(caption.state, FinalState::Asked) && caption.job.language != LanguageSetting::Auto {
                caption.job.id = JobId(self.next_job);
                self.next_job += 1;
                caption.job.language = LanguageSetting::Auto;
                caption.job.draft = Arc::from([]);
                caption.state = FinalState::AskedAgain(hypothesis.clone());
                self.detected = None;
                self.outputs.push_back(Output::Decode(caption.job.clone()));
                return;
            }
            if let Some(probability) = hypothesis.language_probability
                && hypothesis.suppressed.is_none()
            {
                let detected = Detected {
                    language: hypothesis.language,
                    probability: Probability::from_f32(probability),
                    epoch: caption.epoch,
                };
                self.detected = Some(detected).filter(|_| probability >= LANGUAGE_BELIEVED && !doubtful);
            }
        }
        caption.state = FinalState::Answered(result);
        self.ask_for_finals();
        self.finish_captions();
    }

    /// Says what became of closed captions, in their order.
    pub(super) fn finish_captions(&mut self) {
        while let Some(awaited) = self.awaited.pop_front() {
            match awaited {
                Awaited::Gap(gap) => self.outputs.push_back(Output::Event(gap)),
                Awaited::Caption(mut caption) => match std::mem::replace(&mut caption.state, FinalState::Asked) {
                    FinalState::Answered(result) => self.finish_caption(*caption, result),
                    state => {
                        caption.state = state;
                        self.awaited.push_front(Awaited::Caption(caption));
                        return;
                    }
                },
            }
        }
    }

    /// A span without captions, behind the captions that are awaited.
    pub(super) fn declare_gap(&mut self, from: Timestamp, to: Timestamp, reason: GapReason) {
        let speaker_id = self.speaker_id.clone();
        self.awaited.push_back(Awaited::Gap(CaptionEvent::Gap { from, to, speaker_id, reason }));
        self.finish_captions();
    }

    pub(super) fn finish_caption(&mut self, caption: ClosedCaption, result: Result<Hypothesis, DecodeError>) {
        let ClosedCaption {
            id,
            start: start_time,
            end: end_time,
            samples,
            shown,
            prefix,
            heard_at,
            auto,
            epoch,
            rules,
            translate,
            job,
            ..
        } = caption;
        let speaker_id = self.speaker_id.clone();
        let result = result.map(|mut hypothesis| {
            let heard = std::mem::take(&mut hypothesis.words);
            let nothing = if has_words(&hypothesis.text) { Suppression::Removed } else { Suppression::Empty };
            (hypothesis.text, hypothesis.words) = rules.apply(hypothesis.text.trim(), heard);
            // A decoder that found nothing may say so in either way; and the rules may leave nothing.
            if hypothesis.text.is_empty() {
                hypothesis.suppressed = hypothesis.suppressed.or(Some(nothing));
            }
            hypothesis
        });
        let mut translating = None;
        let event = match result {
            Ok(Hypothesis { suppressed: None, text, language, language_probability, translated, words, .. }) => {
                self.accounting.captioned += samples;
                let count = prefix.compared_with(&text);
                self.stability.stable_words += count.stable_words;
                self.stability.changed_by_final += count.changed_by_final;
                let at = |sample: u32| {
                    heard_at.plus_nanos(nanos_of_samples(u64::from(sample), SAMPLE_RATE)).clamp(start_time, end_time)
                };
                let word = |word: HeardWord| Word {
                    start_time: at(word.start),
                    end_time: at(word.end.max(word.start)),
                    text: word.text,
                    confidence: Probability::from_f32(word.probability),
                };
                if translate && !translated && language != Language::ENGLISH {
                    translating = Some(Translating { id, start_time, end_time, spoken_language: language, rules });
                }
                CaptionEvent::Final {
                    id,
                    start_time,
                    end_time,
                    speaker_id,
                    language: if translated { Language::ENGLISH } else { language },
                    language_probability: probability(language_probability, self.detected_in(auto, epoch)),
                    spoken_language: translated.then_some(language),
                    text,
                    translated,
                    words: words.into_iter().map(word).collect(),
                }
            }
            Ok(Hypothesis { suppressed: Some(reason), .. }) => {
                self.accounting.suppressed += samples;
                *self.suppressions.entry(reason).or_default() += 1;
                self.retract(id, shown, Retraction::Suppressed);
                CaptionEvent::Suppressed { id, start_time, end_time, speaker_id, reason }
            }
            Err(error) => {
                self.accounting.lost += samples;
                self.retract(id, shown, Retraction::Lost);
                let reason = match error {
                    DecodeError::Shed => GapReason::Overload,
                    DecodeError::Cancelled => GapReason::Abandoned,
                    DecodeError::Invalid(_) | DecodeError::Failed(_) => GapReason::DecodeFailed,
                };
                CaptionEvent::Gap { from: start_time, to: end_time, speaker_id, reason }
            }
        };
        self.outputs.push_back(Output::Event(event));
        if let Some(translating) = translating {
            self.ask_for_translation(translating, job);
        }
    }

    /// Asks what a caption is in English, of which this was the final's job.
    fn ask_for_translation(&mut self, translating: Translating, job: DecodeJob) {
        let mut job = DecodeJob {
            kind: JobKind::Translation,
            due: self.framed,
            language: LanguageSetting::Fixed(translating.spoken_language),
            task: Task::Translate,
            word_times: false,
            draft: Arc::from([]),
            ..job
        };
        self.number(&mut job);
        self.translating.insert(job.id, translating);
        self.outputs.push_back(Output::Decode(job));
    }

    /// Says what a caption is in English, where that was found.
    pub(super) fn finish_translation(&mut self, translating: Translating, result: Result<Hypothesis, DecodeError>) {
        let Some(hypothesis) = result.ok().filter(|hypothesis| hypothesis.suppressed.is_none()) else { return };
        let Translating { id, start_time, end_time, spoken_language, rules } = translating;
        let (text, _) = rules.apply(hypothesis.text.trim(), Vec::new());
        if !text.is_empty() {
            self.outputs.push_back(Output::Event(CaptionEvent::Translation {
                id,
                start_time,
                end_time,
                speaker_id: self.speaker_id.clone(),
                language: Language::ENGLISH,
                spoken_language,
                text,
            }));
        }
    }

    /// What was found to be spoken, for a caption whose language is to be detected.
    pub(super) fn detected_in(&self, auto: bool, epoch: u32) -> Option<Detected> {
        self.detected.filter(|detected| auto && detected.epoch == epoch)
    }

    pub(super) fn retract(&mut self, id: CaptionId, shown: bool, reason: Retraction) {
        if shown {
            let speaker_id = self.speaker_id.clone();
            self.outputs.push_back(Output::Event(CaptionEvent::Retracted { id, speaker_id, reason }));
        }
    }
}

/// The probability found with this answer, or else with an earlier one.
pub(super) fn probability(found: Option<f32>, detected: Option<Detected>) -> Option<Probability> {
    found.map(Probability::from_f32).or(detected.map(|detected| detected.probability))
}
