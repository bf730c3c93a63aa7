//! Live captions and transcripts from an embeddable engine.
//!
//! A media server links this crate, pushes each participant's audio, and gets caption events while people speak, with
//! no service behind it.
//!
//! # The engine
//!
//! With the feature `engine` (on by default) that is all there is to do:
//!
#![cfg_attr(feature = "engine", doc = "```")]
#![cfg_attr(not(feature = "engine"), doc = "```ignore")]
//! use cuewire::asr::{DecodeJob, Hypothesis, ScriptedDecoder};
//! use cuewire::engine::{Engine, EngineConfig, EngineEvent, Idle, TrackConfig};
//! use cuewire::{CaptionEvent, Pcm, Timestamp};
//! use std::{sync::Arc, time::Duration};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A real one is `Arc::new(WhisperModel::load(path)?)`, of the feature `whisper`.
//! let model = Arc::new(|_: &Idle| ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain("hello", job))));
//! let engine = Engine::start(EngineConfig::default(), model)?; // its threads; share it in an `Arc`
//! let events = engine.subscribe(); // blocking, polling, or an async stream
//!
//! let (mut alice, track) = engine.add_track(TrackConfig::new("alice"))?; // when she joins
//! # let (now, samples) = (Timestamp::EPOCH, [0i16; 960]);
//! alice.push(now, Pcm::mono(48_000, &samples[..])?)?; // wait-free; RTP: `push_rtp`
//! drop(alice); // when she leaves
//!
//! # engine.shutdown(Duration::from_secs(2));
//! while let Some(event) = events.recv() {
//!     match event {
//!         EngineEvent::Caption { event: CaptionEvent::Final { speaker_id, text, .. }, .. } => {
//!             println!("{speaker_id}: {text}");
//!         }
//!         EngineEvent::Ended { track: ended, .. } if ended == track => break,
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The module `engine` says what its threads do, which caption comes first, and what happens under overload. `examples/`
//! has complete programs: `embed`, `sfu` (Opus), `tokio_host`, `custom_decoder`.
//!
//! Inside, everything between audio and events is one deterministic state machine a track, [`Session`]; recognition is I/O
//! that the session asks for and is told the answer of. Who has threads of their own, or wants none, drives it by hand:
//!
//! # The parts
//!
//! The way of a sample, in the order of the modules that it passes; each knows those above it in this list, and none below:
//!
//! | module | |
//! |---|---|
//! | [`time`], [`config`] | samples and nanoseconds; the settings of a track, which hold allowed values only |
//! | [`audio`] | PCM of any shape, its place in time, 16 kHz; recordings, RTP |
//! | [`vad`] | which 20 ms are speech-like |
//! | [`segment`] | when captions begin and end |
//! | [`asr`] | recognition: a job, its answer, and who gives it |
//! | [`caption`] | what is told of a caption, in which words, and its display cues |
//! | [`session`] | one track: all of the above, without thread or clock |
//! | `engine` | many tracks, on threads |
//! | [`transcript`] | files of final captions, beside sessions and engine |
//!
//! # The run loop
//!
//! Change something with [`handle_input`](Session::handle_input), then drain [`poll_output`](Session::poll_output)
//! until it says `Wait`. That is the whole protocol:
//!
//! ```
//! use cuewire::asr::{Cancel, Decoder, DecodeJob, Hypothesis, ScriptedDecoder};
//! use cuewire::{CaptionEvent, Config, Input, Output, Pcm, Session, Timestamp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A real one is `WhisperDecoder::new(WhisperModel::load(path)?)`.
//! let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain("hello", job)));
//! let mut session = Session::new("alice", Config::default());
//!
//! let packets = (0..50).map(|i| (Timestamp::from_nanos(i * 20_000_000), vec![0i16; 960]));
//! for (at, samples) in packets {
//!     session.handle_input(Input::Audio { at, pcm: Pcm::mono(48_000, &samples[..])? })?;
//!     loop {
//!         match session.poll_output() {
//!             Output::Decode(job) => {
//!                 let result = decoder.decode(&job, &Cancel::new()); // here, on a worker, or elsewhere
//!                 session.handle_input(Input::Decoded { job: job.id, result })?;
//!             }
//!             Output::Event(CaptionEvent::Final { text, .. }) => println!("{text}"),
//!             Output::Event(_) | Output::Cancel(_) | Output::Closed { .. } => {}
//!             Output::Wait(_wake_up) => break,
//!         }
//!     }
//! }
//! session.handle_input(Input::End)?; // … and drain once more
//! # Ok(())
//! # }
//! ```
//!
//! For live audio set [`Config::early_finals`]: a final is then asked for inside the silence that must pass before it is
//! shown, and is ready when that is over. [`Output::Closed`] says when, [`asr::DecodeJob::due`] when an answer is wanted.
//!
//! Audio that a host lost before the session saw it is [`Input::Lost`], a job that it gives up is answered with
//! [`Shed`](asr::DecodeError::Shed): both become gaps that say so. [`Input::Flush`] ends a caption where the host knows that
//! a turn is over.
//!
//! Between the two, `engine::Workers` runs decoders on threads: submit each [`asr::DecodeJob`], give each answer back to
//! the session that asked.
//!
//! # The clocks
//!
//! - [`SampleIndex`](time::SampleIndex): 16 kHz samples of one track since it began. Silence, limits and intervals are
//!   counted in these, never by a clock.
//! - [`Timestamp`]: nanoseconds UTC, as the sender states them with each push and events carry them. One anchor a track
//!   joins the two; it slews where the sender's clock drifts (see [`audio::Timeline`]).
//! - `Wait(Some(time))` and [`Input::Tick`] speak the sender's time as well: "if no audio comes until then, say so".
//!   The session reads no clock; whoever drives it maps its own.
//!
//! # What is promised
//!
//! - The same inputs give the same outputs, byte for byte; how audio is cut into pushes changes no caption. A
//!   [`session::trace`] records the inputs and replays them.
//! - Recognition by Whisper is the same to the byte on processors with the same instructions, however many threads.
//! - Captions of a track never overlap, are never longer than `max_speech_caption_ms`, and come in order.
//! - Every sample is accounted for once: captioned, suppressed (with the reason), silence, or a declared gap
//!   ([`Session::accounting`](session::Session::accounting)).
//! - Input that makes no sense is an `Err` that names the value and what is allowed; the session is as it was before.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `whisper` | yes | `asr::whisper`: Whisper on the CPU, from Hugging Face, CTranslate2, GGUF and ggml models |
//! | `opus` | with `files` | `audio::rtp`: RTP streams of Opus, G.711 and L16 to PCM with its time; `audio::opus`: the decoder alone |
//! | `files` | yes | `audio::file`: recordings to PCM |
//! | `engine` | yes | `engine`: many tracks on threads; the only threads there are |
//! | `metrics` | no | what the engine does, for the host's recorder of the `metrics` facade |
//! | `tracing` | no | a span a caption, for the host's `tracing` subscriber |
//!
//! With `default-features = false` the core remains: everything above but these, with [`asr::ScriptedDecoder`] or a
//! decoder of your own behind [`asr::Decoder`].

// Helpers of integration tests call it by its name.
#[cfg(all(test, any(shuttle, pthread_sync)))]
extern crate self as cuewire;

pub mod asr;
pub mod audio;
pub mod caption;
pub mod config;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod script;
pub mod segment;
pub mod session;
mod sounds;
mod sync;
pub mod time;
pub mod transcript;
pub mod vad;

pub use audio::Pcm;
pub use caption::CaptionEvent;
pub use config::Config;
pub use session::{Input, Output, Session};
pub use time::Timestamp;
