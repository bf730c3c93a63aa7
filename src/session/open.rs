//! The caption that is open: its interims, and its final where that is asked for early.
//!
//! In: where it begins and ends, frames that were heard meanwhile, answers about it. Out: decode jobs and interims; once it
//! is closed it waits among the [finals](super::finals).

use std::sync::Arc;

use super::finals::{Awaited, ClosedCaption, Detected, FinalState, probability};
use super::{Output, Session};
use crate::asr::{DecodeError, DecodeJob, FeatureCache, Hypothesis, JobId, JobKind};
use crate::caption::{CaptionEvent, CaptionId, StablePrefix};
use crate::config::{Language, LanguageSetting};
use crate::segment::Segment;
use crate::time::{SAMPLE_RATE, SampleIndex, Timestamp, nanos_of_samples, samples_of_ms};

/// The caption that is open.
pub(super) struct OpenCaption {
    pub(super) id: CaptionId,
    pub(super) start: Timestamp,
    pub(super) heard_from: SampleIndex,
    /// Where the last interim job's audio ended, or the onset.
    pub(super) interim_to: SampleIndex,
    pub(super) interim: Option<InterimJob>,
    pub(super) revision: u32,
    pub(super) prefix: StablePrefix,
    pub(super) draft: Arc<[u32]>,
    /// The final, asked for before the silence was over.
    pub(super) early: Option<EarlyFinal>,
    /// Of the audio from `heard_from` on, which is where that of every job of the caption begins.
    pub(super) features: FeatureCache,
}

pub(super) struct InterimJob {
    pub(super) job: JobId,
    pub(super) end: Timestamp,
    /// Where the one before ended.
    pub(super) after: SampleIndex,
}

pub(super) struct EarlyFinal {
    pub(super) job: DecodeJob,
    pub(super) heard_to: SampleIndex,
    pub(super) answer: Option<Result<Hypothesis, DecodeError>>,
}

impl Session {
    pub(super) fn open_caption(&mut self, start: SampleIndex, heard_from: SampleIndex) {
        let id = CaptionId(self.next_caption);
        self.next_caption += 1;
        let begins = self.timeline.time_of(start);
        self.open = Some(OpenCaption {
            id,
            start: self.last_end.map_or(begins, |end| end.max(begins)),
            heard_from,
            interim_to: start,
            interim: None,
            revision: 0,
            prefix: StablePrefix::new(self.config.stability),
            draft: Arc::from([]),
            early: None,
            features: FeatureCache::default(),
        });
    }

    pub(super) fn close_caption(&mut self, segment: Segment) {
        let Some(open) = self.open.take() else { return };
        if let Some(interim) = &open.interim {
            self.outputs.push_back(Output::Cancel(interim.job));
        }
        let audio = (segment.heard_from, segment.heard_to);
        let (job, asked) = match open.early {
            Some(early) if early.heard_to == segment.heard_to => (early.job, Some(early.answer)),
            early => {
                self.outputs
                    .extend(early.filter(|early| early.answer.is_none()).map(|early| Output::Cancel(early.job.id)));
                (self.job(JobKind::Final, audio, self.framed, open.draft, open.features), None)
            }
        };
        let samples = segment.end.since(segment.start);
        // Where the anchor slewed meanwhile, the caption is no longer than its samples, and may be a little shorter.
        let longest = open.start.plus_nanos(nanos_of_samples(samples, SAMPLE_RATE));
        let end = self.timeline.time_of(segment.end).clamp(open.start, longest);
        self.last_end = Some(end);
        self.accounting.silence += segment.start.since(self.accounted_to);
        self.accounted_to = segment.end;
        self.awaited.push_back(Awaited::Caption(Box::new(ClosedCaption {
            id: open.id,
            start: open.start,
            end,
            samples,
            shown: open.revision > 0,
            prefix: open.prefix,
            heard_at: self.timeline.time_of(segment.heard_from),
            auto: self.config.language == LanguageSetting::Auto,
            epoch: self.epoch,
            rules: self.rules.clone(),
            translate: self.config.translations,
            job,
            state: if asked.is_some() { FinalState::Asked } else { FinalState::Held },
        })));
        self.outputs.push_back(Output::Closed { id: open.id, heard_from: segment.heard_from, end_time: end });
        match asked.flatten() {
            Some(answer) => self.answer(self.awaited.len() - 1, answer),
            None => self.ask_for_finals(),
        }
    }

    /// Asks for the open caption's final as soon as all that it hears is there. Where speech went on, takes that back.
    pub(super) fn ask_early(&mut self) {
        let ending = self.segmenter.ending();
        let Some(open) = &mut self.open else { return };
        if let Some(early) = open.early.take_if(|early| ending.is_none_or(|ending| ending.heard_to != early.heard_to)) {
            match early.answer {
                None => self.outputs.push_back(Output::Cancel(early.job.id)),
                Some(Ok(hypothesis)) if hypothesis.suppressed.is_none() => open.draft = Arc::from(hypothesis.tokens),
                Some(_) => {}
            }
        }
        // A language that is to be detected is known when the captions before are answered, not before.
        let settled = self.config.language != LanguageSetting::Auto || self.awaited.is_empty();
        let Some(ending) = ending.filter(|_| self.config.early_finals && settled && open.early.is_none()) else {
            return;
        };
        // The final says more, and is shown in its place.
        if let Some(interim) = open.interim.take() {
            open.interim_to = interim.after;
            self.outputs.push_back(Output::Cancel(interim.job));
        }
        let (heard_from, draft, features) = (open.heard_from, open.draft.clone(), open.features.clone());
        let mut job = self.job(JobKind::Final, (heard_from, ending.heard_to), ending.due, draft, features);
        self.number(&mut job);
        if let Some(open) = &mut self.open {
            self.outputs.push_back(Output::Decode(job.clone()));
            open.early = Some(EarlyFinal { job, heard_to: ending.heard_to, answer: None });
        }
    }

    /// Gives a job its id, and the language that was detected where it is to be.
    pub(super) fn number(&mut self, job: &mut DecodeJob) {
        job.id = JobId(self.next_job);
        self.next_job += 1;
        if let Some(Detected { language, .. }) = self.detected_in(job.language == LanguageSetting::Auto, self.epoch) {
            job.language = LanguageSetting::Fixed(language);
        }
    }

    /// A job over the audio from one sample to another, not asked yet.
    pub(super) fn job(
        &self,
        kind: JobKind,
        (from, to): (SampleIndex, SampleIndex),
        due: SampleIndex,
        draft: Arc<[u32]>,
        features: FeatureCache,
    ) -> DecodeJob {
        DecodeJob {
            id: JobId(u64::MAX),
            kind,
            audio: self.buffer.copy(from, to),
            start: from,
            due,
            language: self.config.language,
            task: self.config.task,
            vocabulary: self.config.vocabulary.clone(),
            word_times: self.config.word_times && kind == JobKind::Final,
            sound_tags: self.config.text_rules.keep_sound_tags,
            draft,
            features,
        }
    }

    pub(super) fn ask_for_interim(&mut self) {
        let interval = samples_of_ms(self.config.interim_interval_ms.ms());
        let framed = self.framed;
        let Some(open) = &self.open else { return };
        if interval == 0 || open.interim.is_some() || open.early.is_some() || framed.since(open.interim_to) < interval {
            return;
        }
        let (heard_from, draft, features) = (open.heard_from, open.draft.clone(), open.features.clone());
        let mut request = self.job(JobKind::Interim, (heard_from, framed), framed, draft, features);
        self.number(&mut request);
        let job = request.id;
        self.outputs.push_back(Output::Decode(request));
        let end = self.timeline.time_of(framed);
        if let Some(open) = &mut self.open {
            open.interim = Some(InterimJob { job, end, after: open.interim_to });
            open.interim_to = framed;
        }
    }

    /// Shows what was said in the open caption up to `end`, where anything was.
    pub(super) fn show(&mut self, hypothesis: &Hypothesis, end: Timestamp) {
        let Some(open) = self.open.as_mut().filter(|_| hypothesis.suppressed.is_none()) else { return };
        if hypothesis.text.trim().is_empty() {
            return;
        }
        open.draft = Arc::from(&hypothesis.tokens[..]);
        let (shown, _) = self.rules.apply(self.rules.without_open_tag(&hypothesis.text), Vec::new());
        if shown.trim().is_empty() {
            return;
        }
        open.revision += 1;
        let (text, stable_chars) = open.prefix.advance(&shown, self.rules.undecided_words());
        let auto = self.config.language == LanguageSetting::Auto;
        let interim = CaptionEvent::Interim {
            id: open.id,
            revision: open.revision,
            start_time: open.start,
            end_time: end,
            speaker_id: self.speaker_id.clone(),
            language: if hypothesis.translated { Language::ENGLISH } else { hypothesis.language },
            language_probability: probability(hypothesis.language_probability, self.detected_in(auto, self.epoch)),
            spoken_language: hypothesis.translated.then_some(hypothesis.language),
            text,
            stable_chars,
            translated: hypothesis.translated,
        };
        self.outputs.push_back(Output::Event(interim));
    }
}
