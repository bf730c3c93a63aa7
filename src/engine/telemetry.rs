//! Metrics and spans for whoever runs the engine.
//!
//! In: what happens. Out: whatever recorder (`metrics`) and subscriber (`tracing`) the host has installed. Without the features
//! all of this is empty. Neither ever holds what was said, nor who said it.

use super::Tag;
use super::event::{Ledger, OverloadLevel, TrackId};
use super::ring::Shared;
use super::workers::Job;
use crate::asr::{DecodeError, JobKind};
#[cfg(feature = "opus")]
use crate::audio::rtp::ReceiverStats;
use crate::caption::CaptionEvent;
#[cfg(feature = "metrics")]
use crate::session::Accounting;
use crate::session::Session;

/// Names, kinds and meanings of all metrics, as the exporter says them: the table in the engine's documentation.
#[cfg(feature = "metrics")]
pub(super) mod names {
    use crate::asr::JobKind;

    pub(crate) const TRACKS: &str = "cuewire_tracks";
    pub(crate) const OVERLOAD_LEVEL: &str = "cuewire_overload_level";
    pub(crate) const CAPACITY_TRACKS: &str = "cuewire_capacity_tracks";
    pub(crate) const AUDIO_SAMPLES: &str = "cuewire_audio_samples_total";
    pub(crate) const CAPTIONS: &str = "cuewire_captions_total";
    pub(crate) const GAPS: &str = "cuewire_gaps_total";
    pub(crate) const RTP_FAULTS: &str = "cuewire_rtp_faulty_packets_total";
    pub(crate) const PUSHES_REFUSED: &str = "cuewire_pushes_refused_total";
    pub(crate) const INTERIMS_DECLINED: &str = "cuewire_interims_declined_total";
    pub(crate) const TRANSLATIONS_DECLINED: &str = "cuewire_translations_declined_total";
    pub(crate) const DECODE_FAILURES: &str = "cuewire_decode_failures_total";
    pub(crate) const EVENTS_MISSED: &str = "cuewire_events_missed_total";
    pub(crate) const FINAL_LATENCY: &str = "cuewire_final_latency_seconds";
    pub(crate) const QUEUE: &str = "cuewire_queue_seconds";
    pub(crate) const DECODE: &str = "cuewire_decode_seconds";

    pub(crate) fn describe() {
        use metrics::Unit::{Count, Seconds};
        use metrics::{describe_counter, describe_gauge, describe_histogram};
        describe_gauge!(TRACKS, Count, "Tracks that are there");
        describe_gauge!(
            OVERLOAD_LEVEL,
            Count,
            "What is done without: 0 nothing, 1 translations and every second interim, \
            2 interims, 3 the larger model, 4 captions"
        );
        describe_gauge!(CAPACITY_TRACKS, Count, "How many more tracks fit");
        describe_counter!(AUDIO_SAMPLES, Count, "What became of the audio, in samples at 16 kHz");
        describe_counter!(CAPTIONS, Count, "Captions, and interims and translations of them");
        describe_counter!(GAPS, Count, "Spans that were declared to be without a caption");
        describe_counter!(RTP_FAULTS, Count, "Packets of RTP that were not played as they came, or never came");
        describe_counter!(PUSHES_REFUSED, Count, "Pushes that found the ring full");
        describe_counter!(INTERIMS_DECLINED, Count, "Interims that were left out for want of time");
        describe_counter!(TRANSLATIONS_DECLINED, Count, "Translations that were left out for want of time");
        describe_counter!(DECODE_FAILURES, Count, "Decodes that failed twice");
        describe_counter!(EVENTS_MISSED, Count, "Events that subscribers were too slow for");
        describe_histogram!(FINAL_LATENCY, Seconds, "From the end of the silence to the final");
        describe_histogram!(QUEUE, Seconds, "How long a job waited for a worker");
        describe_histogram!(DECODE, Seconds, "How long a decode took");
        // There from the start, so that the first one is an increase.
        for name in [PUSHES_REFUSED, INTERIMS_DECLINED, TRANSLATIONS_DECLINED, EVENTS_MISSED] {
            metrics::counter!(name).increment(0);
        }
        for fault in ["lost", "late", "duplicate", "damaged", "stray"] {
            metrics::counter!(RTP_FAULTS, "fault" => fault).increment(0);
        }
        use crate::caption::GapReason::{Abandoned, ClockRestarted, DecodeFailed, NoAudio, Overload};
        for reason in [NoAudio, ClockRestarted, DecodeFailed, Overload, Abandoned] {
            metrics::counter!(GAPS, "reason" => super::label(&reason)).increment(0);
        }
        for kind in [JobKind::Final, JobKind::Interim, JobKind::Translation] {
            metrics::counter!(DECODE_FAILURES, "kind" => super::kind_label(kind)).increment(0);
        }
    }
}

/// Says once what the metrics mean.
pub(super) fn describe() {
    #[cfg(feature = "metrics")]
    names::describe();
}

/// How an enum's value is called in JSON, where it is called anything there.
#[cfg(feature = "metrics")]
fn label(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_default()
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
fn kind_label(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Final => "final",
        JobKind::Interim => "interim",
        JobKind::Translation => "translation",
    }
}

/// The load, every now and then.
pub(super) fn assessed(tracks: usize, level: OverloadLevel, capacity: Option<usize>) {
    #[cfg(feature = "metrics")]
    {
        metrics::gauge!(names::TRACKS).set(tracks as f64);
        metrics::gauge!(names::OVERLOAD_LEVEL).set(f64::from(level as u8));
        if let Some(capacity) = capacity {
            metrics::gauge!(names::CAPACITY_TRACKS).set(capacity as f64);
        }
    }
    let _ = (tracks, level, capacity);
}

/// Another step of the ladder.
pub(super) fn overloaded(level: OverloadLevel) {
    #[cfg(feature = "tracing")]
    tracing::info!(?level, "overload");
    let _ = level;
}

/// An event that a subscriber will not get.
pub(super) fn missed() {
    #[cfg(feature = "metrics")]
    metrics::counter!(names::EVENTS_MISSED).increment(1);
}

/// What was counted of one track.
#[derive(Default)]
pub(super) struct Meter {
    #[cfg(feature = "metrics")]
    accounting: Accounting,
    #[cfg(feature = "metrics")]
    refused: u64,
    #[cfg(all(feature = "metrics", feature = "opus"))]
    rtp: ReceiverStats,
}

impl Meter {
    /// Counts what became of audio and pushes since the last time.
    pub(super) fn count(&mut self, session: &Session, shared: &Shared) {
        #[cfg(feature = "metrics")]
        {
            let (now, before) = (session.accounting(), self.accounting);
            for (fate, samples) in [
                ("captioned", now.captioned - before.captioned),
                ("suppressed", now.suppressed - before.suppressed),
                ("silence", now.silence - before.silence),
                ("lost", now.lost - before.lost),
            ] {
                if samples > 0 {
                    metrics::counter!(names::AUDIO_SAMPLES, "fate" => fate).increment(samples);
                }
            }
            let refused = shared.refused.load(std::sync::atomic::Ordering::Relaxed);
            if refused > self.refused {
                metrics::counter!(names::PUSHES_REFUSED).increment(refused - self.refused);
            }
            (self.accounting, self.refused) = (now, refused);
        }
        let _ = (session, shared);
    }

    /// Counts what became of packets since the last time.
    #[cfg(feature = "opus")]
    pub(super) fn count_rtp(&mut self, now: ReceiverStats) {
        #[cfg(feature = "metrics")]
        {
            let before = std::mem::replace(&mut self.rtp, now);
            for (fault, packets) in [
                ("lost", now.lost - before.lost),
                ("late", now.late - before.late),
                ("duplicate", now.duplicate - before.duplicate),
                ("damaged", now.damaged - before.damaged),
                ("stray", now.stray - before.stray),
            ] {
                if packets > 0 {
                    metrics::counter!(names::RTP_FAULTS, "fault" => fault).increment(packets);
                }
            }
        }
        let _ = now;
    }
}

/// A job was answered, or left out.
pub(super) fn answered(track: TrackId, kind: JobKind, error: Option<&DecodeError>) {
    #[cfg(feature = "metrics")]
    match error {
        Some(DecodeError::Shed) => match kind {
            JobKind::Interim => metrics::counter!(names::INTERIMS_DECLINED).increment(1),
            JobKind::Translation => metrics::counter!(names::TRANSLATIONS_DECLINED).increment(1),
            JobKind::Final => {}
        },
        None | Some(DecodeError::Cancelled) => {}
        Some(_) => metrics::counter!(names::DECODE_FAILURES, "kind" => kind_label(kind)).increment(1),
    }
    #[cfg(feature = "tracing")]
    if let Some(error) = error.filter(|error| !matches!(error, DecodeError::Shed | DecodeError::Cancelled)) {
        tracing::warn!(track = track.0, kind = kind_label(kind), %error, "decode failed");
    }
    let _ = (track, kind, error);
}

/// A job went through the queue and a decoder, in seconds.
pub(super) fn decoded(kind: JobKind, queue_s: f64, decode_s: f64) {
    #[cfg(feature = "metrics")]
    {
        metrics::histogram!(names::QUEUE, "kind" => kind_label(kind)).record(queue_s);
        metrics::histogram!(names::DECODE, "kind" => kind_label(kind)).record(decode_s);
    }
    let _ = (kind, queue_s, decode_s);
}

/// Something was said.
pub(super) fn said(event: &CaptionEvent, ledger: Option<&Ledger>) {
    #[cfg(feature = "metrics")]
    {
        let caption = |outcome: &'static str| metrics::counter!(names::CAPTIONS, "outcome" => outcome).increment(1);
        match event {
            CaptionEvent::Interim { .. } => caption("interim"),
            CaptionEvent::Final { .. } => caption("final"),
            CaptionEvent::Translation { .. } => caption("translation"),
            CaptionEvent::Suppressed { .. } => caption("suppressed"),
            CaptionEvent::Retracted { .. } => caption("retracted"),
            CaptionEvent::Gap { reason, .. } => {
                metrics::counter!(names::GAPS, "reason" => label(reason)).increment(1);
            }
        }
        if let Some(ledger) = ledger {
            metrics::histogram!(names::FINAL_LATENCY).record(ledger.latency_nanos() as f64 / 1e9);
        }
    }
    let _ = (event, ledger);
}

/// The span of a caption: from its first job until something was said of it, and its translation was decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct CaptionSpan(#[cfg(feature = "tracing")] Option<tracing::Span>);

impl CaptionSpan {
    pub(super) fn begin(track: TrackId) -> Self {
        let _ = track;
        Self(
            #[cfg(feature = "tracing")]
            Some(tracing::info_span!(
                parent: None,
                "caption",
                track = track.0,
                id = tracing::field::Empty,
                outcome = tracing::field::Empty,
                latency_ms = tracing::field::Empty,
            )),
        )
    }

    /// How it ended.
    pub(super) fn end(&self, event: &CaptionEvent, ledger: Option<&Ledger>) {
        #[cfg(feature = "tracing")]
        if let Some(span) = &self.0 {
            let (id, outcome) = match event {
                CaptionEvent::Final { id, .. } => (Some(id), "final"),
                CaptionEvent::Suppressed { id, .. } => (Some(id), "suppressed"),
                _ => (None, "gap"),
            };
            span.record("outcome", outcome);
            id.map(|id| span.record("id", id.0));
            ledger.map(|ledger| span.record("latency_ms", ledger.latency_nanos() as f64 / 1e6));
        }
        let _ = (event, ledger);
    }
}

/// The span of a decode, within its caption's: it begins when the job is put into the queue, and is entered by the worker.
#[derive(Clone, Debug, Default)]
pub(super) struct DecodeSpan(#[cfg(feature = "tracing")] Option<tracing::Span>);

impl DecodeSpan {
    pub(super) fn begin(caption: &CaptionSpan, job: &Job<Tag>) -> Self {
        let _ = (caption, job);
        Self(
            #[cfg(feature = "tracing")]
            Some(tracing::info_span!(
                parent: caption.0.as_ref().and_then(tracing::Span::id),
                "decode",
                job = job.job.id.0,
                kind = kind_label(job.job.kind),
                model = job.model.0,
                audio_ms = job.job.audio.len() as u64 / 16,
            )),
        )
    }

    /// Does something within it.
    pub(super) fn within<R>(&self, act: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        let _entered = self.0.as_ref().map(tracing::Span::enter);
        act()
    }
}
