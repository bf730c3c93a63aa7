//! Recognition by Whisper, on the CPU.
//!
//! In: [`DecodeJob`](super::DecodeJob)s and a model file. Out: [`Hypothesis`](super::Hypothesis), judged by [`Guards`].
//!
//! [`WhisperModel`] is read once and shared; each worker thread has its own [`WhisperDecoder`], which allocates nothing
//! per token (one that is helped may, some bytes), touches no thread pool and reads no environment variable.
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
//! The way of a job: samples → [`mel`] (log-mel `[frames, bands]`, kept for the caption's next job) → [`Forward::encode`]
//! (the caption's positions `[positions, d_model]`, seen beside silence that was computed once, and from them the keys and
//! values of cross-attention) → [`Forward::decode`], a draft in one pass, then token by token → text → [`Guards`].
//! [`Forward`] is the seam: [`CpuForward`] is ours, a device may bring its own.
//!
//! # Numbers
//!
//! A model is packed when it is loaded, by default in 8 bits ([`Precision`]), and computed by kernels for the best of
//! AVX-512 with VNNI, AVX-VNNI, AVX2, and plain code that this processor has. The same job gives the same bytes on one such
//! level, however many threads, segments or drafts take part; between levels sums of floats may round differently.
//! No kernel makes denormal numbers, so the processor's treatment of them is left alone. `docs/performance.md` in the
//! repository says what each of these steps gave.
//!
//! # Threads
//!
//! A decoder runs on its caller's thread and starts none. One made by [`WhisperDecoder::assisted`] offers shares of its work
//! to an [`Assistant`], which is how [`engine::Workers`](crate::engine::Workers) let an idle worker help.

mod bytes;
mod config;
pub mod convert;
mod cpu;
mod decoder;
mod decoding;
mod draws;
mod encoder;
mod error;
mod forward;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod guards;
mod kernels;
mod linear;
mod load;
pub mod mel;
mod model;
mod tail;
#[doc(hidden)]
pub mod testing;
mod tokenizer;
mod vocabulary;
mod weights;
mod words;

pub use super::team::{Assistant, Task};
pub use config::WhisperConfig;
pub use convert::{Quantization, convert};
pub use cpu::CpuForward;
pub use decoding::WhisperDecoder;
pub use error::ModelError;
pub use forward::{CrossAttention, Forward, Step};
pub use guards::{Guards, compression_ratio};
pub use load::Form;
#[doc(hidden)]
pub use load::{Lack, lack};
pub use model::{ModelInfo, UnsupportedLanguage, UnsupportedTask, WhisperModel};
#[doc(hidden)]
pub use tail::TailShape;
pub use vocabulary::VocabularyTooLong;
pub use weights::Precision;
