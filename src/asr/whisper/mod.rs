//! Recognition by Whisper, on the CPU.
//!
//! In: [`DecodeJob`](super::DecodeJob)s and a model file. Out: [`Hypothesis`](super::Hypothesis), judged by [`Guards`].
//!
//! [`WhisperModel`] is read once and shared; each worker thread has its own [`WhisperDecoder`], which allocates nothing
//! per token, starts no thread, touches no thread pool and reads no environment variable.
//!
//! ```no_run
//! use std::sync::Arc;
//! use cuewire::asr::whisper::{WhisperDecoder, WhisperModel};
//! use cuewire::asr::{Cancel, DecodeJob, Decoder, JobId};
//! use cuewire::config::LanguageSetting;
//!
//! let model = Arc::new(WhisperModel::load("models/tiny.en")?);
//! let mut decoder = WhisperDecoder::new(model);
//! let audio: Arc<[f32]> = vec![0.0; 16_000].into(); // mono, 16 kHz
//! let job = DecodeJob::new(JobId(0), audio, LanguageSetting::default());
//! println!("{}", decoder.decode(&job, &Cancel::new())?.text);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The way of a job: samples → [`mel`] (log-mel `[bands, frames]`) → [`Forward::encode`] (positions
//! `[frames / 2, d_model]`, and from them the keys and values of cross-attention) → [`Forward::decode`], token by token
//! → text → [`Guards`]. [`Forward`] is the seam: [`CpuForward`] is ours, a device may bring its own.

mod config;
pub mod convert;
mod decoder;
mod decoding;
mod encoder;
mod error;
mod forward;
mod guards;
mod kernels;
mod linear;
mod load;
pub mod mel;
mod model;
#[doc(hidden)]
pub mod testing;
mod tokenizer;
mod weights;

pub use config::WhisperConfig;
pub use convert::{Quantization, convert};
pub use decoding::WhisperDecoder;
pub use encoder::CpuForward;
pub use error::ModelError;
pub use forward::{CrossAttention, Forward, Step};
pub use guards::{Guards, compression_ratio};
pub use load::Form;
pub use model::{ModelInfo, UnsupportedLanguage, WhisperModel};
