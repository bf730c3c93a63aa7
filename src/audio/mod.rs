//! Audio on its way to 16 kHz mono: the shapes it comes in, its place in time, its rate.
//!
//! In: PCM of any rate and channel count with the time of its first sample. Out: mono samples at 16 kHz without holes.

#[cfg(feature = "files")]
pub mod file;
#[cfg(feature = "opus")]
pub mod opus;
mod pcm;
mod resample;
#[cfg(feature = "opus")]
pub mod rtp;
mod timeline;

pub use pcm::{MAX_CHANNELS, Pcm, PcmError, Samples, check_rate};
pub use resample::Resampler;
pub use timeline::{Placement, TimeWentBack, Timeline};
