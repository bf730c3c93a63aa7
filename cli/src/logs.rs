//! The log of `cuewire serve`, on standard error: text for people, or a line of JSON an event.
//!
//! In: what cuewire and the crates beneath it say. Out: what is of this level; of other crates warnings and errors at most, since
//! what they say beyond that may have secrets in it.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// A line a person reads.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// What is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevel {
    /// What failed.
    Error,
    /// What is about to.
    #[default]
    Warn,
    /// Each request too.
    Info,
    /// All that cuewire says.
    Debug,
}

/// What the program says of itself, in JSON at any level.
const TARGET: &str = "serve";

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// From here on there is a log.
pub(crate) fn begin(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("cuewire", level);
    let log = tracing_subscriber::registry().with(targets.with_target(TARGET, LevelFilter::INFO));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // Where a log cannot be written, its disk being full, saying so there would be a panic.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => log.with(layer).init(),
        LogFormat::Json => {
            log.with(layer.json().flatten_event(true).with_span_list(false)).init();
            std::panic::set_hook(Box::new(
                |panic| tracing::error!(target: TARGET, "a fault of the program's: {panic}"),
            ));
            IS_JSON.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether this was said as a line of JSON.
pub(crate) fn say(message: &str) -> bool {
    let is_json = IS_JSON.load(Ordering::Relaxed);
    if is_json {
        tracing::info!(target: TARGET, "{message}");
    }
    is_json
}

/// The same of what ends the program.
pub(crate) fn fail(message: &str) -> bool {
    let is_json = IS_JSON.load(Ordering::Relaxed);
    if is_json {
        tracing::error!(target: TARGET, "{message}");
    }
    is_json
}
