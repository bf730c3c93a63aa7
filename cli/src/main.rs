//! `cuewire` on the command line: a thin shell over the library.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

mod args;
mod bench;
mod cache;
#[cfg(feature = "serve")]
mod call;
#[cfg(feature = "serve")]
mod client;
#[cfg(feature = "hub")]
mod hub;
mod live;
#[cfg(feature = "serve")]
mod logs;
mod model;
mod output;
mod places;
mod recognizer;
mod record;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod stats;
mod tracks;
mod transcribe;

use args::{Command, ModelCommand};

/// Some input could not be captioned, or only in part; the others were.
const FAILED: u8 = 1;
/// The command line makes no sense, the model cannot be loaded, or a place not be written: nothing was begun.
const USAGE: u8 = 2;
/// Ctrl-C: what was begun is finalised and written.
const INTERRUPTED: u8 = 130;

/// What went wrong before anything was captioned.
struct Failure(String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn main() -> ExitCode {
    let result = match args::Cli::parse().command {
        Command::Transcribe(args) => transcribe::run(&args),
        Command::Live(args) => live::run(&args),
        Command::Bench(command) => bench::run(&command),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
        #[cfg(feature = "serve")]
        Command::Call(args) => call::run(&args),
        #[cfg(feature = "serve")]
        Command::Key(command) => serve::key(&command),
        #[cfg(feature = "serve")]
        Command::Backup(args) => serve::backup(&args),
        #[cfg(feature = "hub")]
        Command::Model(ModelCommand::Pull(args)) => hub::pull(&args),
        #[cfg(not(feature = "hub"))]
        Command::Model(ModelCommand::Pull(args)) => model::pull(&args),
        Command::Model(ModelCommand::Info(args)) => model::info(&args),
        Command::Model(ModelCommand::Convert(args)) => model::convert(&args),
    };
    result.unwrap_or_else(|Failure(message)| {
        #[cfg(feature = "serve")]
        if logs::fail(&message) {
            return ExitCode::from(USAGE);
        }
        complain(&message);
        ExitCode::from(USAGE)
    })
}

/// Errors and warnings go to standard error, one line each, with the program's name.
fn complain(message: &str) {
    #[cfg(feature = "serve")]
    if logs::say(message) {
        return;
    }
    // Where nobody can read it, nobody is told: that is no reason to end.
    let _ = writeln!(std::io::stderr(), "cuewire: {message}");
}
