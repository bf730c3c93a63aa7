//! What an engine tells a recorder and a subscriber: all that is documented, and nothing that was said.
#![cfg(all(feature = "metrics", feature = "tracing"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cuewire::Pcm;
use cuewire::asr::{DecodeError, DecodeJob, Hypothesis, JobKind, ScriptedDecoder};
use cuewire::caption::CaptionEvent;
use cuewire::engine::{Engine, EngineConfig, EngineEvent, Idle, PushError, TrackConfig};
use support::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

#[path = "support/session.rs"]
mod support;

const SECRET: &str = "the secret words";

#[derive(Clone, Debug, Default)]
struct Span {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
    entered: bool,
}

impl Visit for Span {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// Those that were opened, by number, and those that were closed.
type Spans = (BTreeMap<u64, Span>, Vec<Span>);

/// Keeps all spans, also those that were closed; the text of all events.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Spans>>);

impl Keep {
    fn change(&self, id: &Id, change: impl FnOnce(&mut Span)) {
        change(self.0.lock().unwrap().0.entry(id.into_u64()).or_default());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Keep {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut span = Span { name: attributes.metadata().name(), ..Span::default() };
        span.parent = attributes.parent().map(Id::into_u64);
        attributes.record(&mut span);
        self.change(id, |kept| *kept = span);
    }
    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |span| values.record(span));
    }
    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.change(id, |span| span.entered = true);
    }
    fn on_close(&self, id: Id, _: Context<'_, S>) {
        // The registry gives numbers again.
        let mut kept = self.0.lock().unwrap();
        let mut span = kept.0[&id.into_u64()].clone();
        span.fields.insert("number", id.into_u64().to_string());
        kept.1.push(span);
    }
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut kept = Span { name: "event", ..Span::default() };
        event.record(&mut kept);
        self.0.lock().unwrap().1.push(kept);
    }
}

#[test]
fn metrics_and_spans_are_those_documented_and_hold_nothing_that_was_said() {
    let prometheus = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let kept = Keep::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(kept.clone())).unwrap();

    // Four captions: one is said, one fails, one has no words, and one is said that is not translated for want of time.
    // Interims of all.
    let decoder = |job: &DecodeJob| match (job.start.0 + 4_800) / 64_000 {
        0 => Ok(Hypothesis::certain(SECRET, job)),
        1 => Err(DecodeError::Failed("out of order".into())),
        2 => Ok(Hypothesis::certain(" ", job)),
        _ if job.kind == JobKind::Translation => Err(DecodeError::Shed),
        _ => Ok(Hypothesis::certain(SECRET, job)),
    };
    let engine =
        Engine::start(EngineConfig::default(), Arc::new(move |_: &Idle| ScriptedDecoder::new(decoder))).unwrap();
    let events = engine.subscribe();
    let mut config = TrackConfig::new("somebody");
    config.patience = Duration::from_secs(600);
    (config.config.language, config.config.translations) = ("fr".parse().unwrap(), true);
    // A caption is not over when the thread that pushes does not run for a while.
    config.config.speech_segment_config.silence_duration_ms = 1_500.try_into().unwrap();
    let (mut sender, track) = engine.add_track(config).unwrap();
    let samples = sound(16_000, 16_000, &[(500, 2_500), (4_500, 6_500), (8_500, 10_500), (12_500, 14_500)]);
    let mut at = 0;
    for push in samples.chunks(320) {
        while let Err(error) = sender.push(at_ms(at), Pcm::mono(16_000, push).unwrap()) {
            assert_eq!(error, PushError::Full);
            std::thread::sleep(Duration::from_millis(5));
        }
        at += 20;
        // Ten times as fast as it was spoken, so that interims are decoded on the way.
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(sender);
    let mut said = Vec::new();
    loop {
        match events.recv_timeout(Duration::from_secs(30)).unwrap() {
            EngineEvent::Caption { event, .. } => said.push(event),
            EngineEvent::Ended { .. } => break,
            _ => {}
        }
    }
    let is_passing =
        |event: &CaptionEvent| matches!(event, CaptionEvent::Interim { .. } | CaptionEvent::Translation { .. });
    let finals: Vec<_> = said.iter().filter(|event| !is_passing(event)).collect();
    use CaptionEvent::{Final, Gap, Suppressed};
    assert!(matches!(finals[..], [Final { .. }, Gap { .. }, Suppressed { .. }, Final { .. }]), "{finals:?}");
    drop(engine);

    let text = prometheus.render();
    let documentation = include_str!("../src/engine/mod.rs");
    let names = documentation.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    let names: Vec<_> = names.filter(|name| name.starts_with("cuewire_")).collect();
    assert_eq!(names.len(), 15, "{names:?}");
    for name in &names {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is documented and not told:\n{text}");
    }
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(names.contains(&name), "{name} is told and not documented");
    }
    for (line, count) in [
        ("cuewire_captions_total{outcome=\"final\"} ", 2),
        ("cuewire_captions_total{outcome=\"translation\"} ", 1),
        ("cuewire_captions_total{outcome=\"suppressed\"} ", 1),
        ("cuewire_gaps_total{reason=\"decode_failed\"} ", 1),
        ("cuewire_final_latency_seconds_count ", 2),
        ("cuewire_queue_seconds_count{kind=\"translation\"} ", 1),
        ("cuewire_decode_seconds_count{kind=\"translation\"} ", 1),
        ("cuewire_translations_declined_total ", 1),
        ("cuewire_audio_samples_total{fate=\"lost\"} ", 0),
    ] {
        let told = text.lines().find_map(|told| told.strip_prefix(line)?.parse::<u64>().ok());
        assert!(told.is_some_and(|told| told == count || count == 0 && told > 30_000), "{line}{told:?}\n{text}");
    }
    let samples = text.lines().filter(|line| line.starts_with("cuewire_audio_samples_total{"));
    let samples: u64 = samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(samples, 256_000);

    let kept = kept.0.lock().unwrap().1.clone();
    let mut captions: Vec<_> = kept.iter().filter(|span| span.name == "caption").collect();
    // A span with a translation may end behind the next one.
    captions.sort_by_key(|span| (&span.fields["outcome"], span.fields.get("id")));
    let outcomes: Vec<_> = captions.iter().map(|span| span.fields["outcome"].trim_matches('"')).collect();
    assert_eq!(outcomes, ["final", "final", "gap", "suppressed"]);
    assert!(captions.iter().all(|span| span.fields["track"] == track.0.to_string() && span.parent.is_none()));
    assert!(captions[0].fields.contains_key("latency_ms") && captions[0].fields["id"] == "0", "{captions:?}");
    for caption in captions {
        let number: u64 = caption.fields["number"].parse().unwrap();
        let has = |kind: &str| {
            let mut decodes = kept.iter().filter(|span| span.name == "decode" && span.parent == Some(number));
            decodes.any(|span| span.fields["kind"].trim_matches('"') == kind && span.entered)
        };
        let was_said = caption.fields["outcome"] == "\"final\"";
        assert!(has("final") && (has("translation") || !was_said), "{caption:?} in {kept:?}");
    }
    assert!(kept.iter().any(|event| event.name == "event" && event.fields["message"] == "decode failed"));
    let all = format!("{text}{kept:?}");
    assert!(!all.contains(SECRET) && !all.contains("somebody"), "{all}");
}
