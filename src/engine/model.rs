//! What recognises.
//!
//! In: weights, or whatever else makes decoders. Out: one decoder for each worker that asks.

use std::fmt;
use std::sync::Arc;

use super::Idle;
use crate::asr::Decoder;
use crate::config::Config;
#[cfg(feature = "whisper")]
use crate::config::Task;

/// Makes decoders. `WhisperModel` is one; so is a closure from [`Idle`] to a [`Decoder`] of your own.
pub trait Model: Send + Sync + 'static {
    /// A decoder for one worker, made on its thread; after a panic another one. It may let workers that are `idle` help.
    fn decoder(self: Arc<Self>, idle: &Idle) -> Box<dyn Decoder>;

    /// Whether it can do what a track's settings ask for.
    ///
    /// # Errors
    /// What it cannot do, as a sentence.
    fn check(&self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }
}

impl<F, D> Model for F
where
    F: Fn(&Idle) -> D + Send + Sync + 'static,
    D: Decoder + 'static,
{
    fn decoder(self: Arc<Self>, idle: &Idle) -> Box<dyn Decoder> {
        Box::new(self(idle))
    }
}

#[cfg(feature = "whisper")]
impl Model for crate::asr::whisper::WhisperModel {
    fn decoder(self: Arc<Self>, idle: &Idle) -> Box<dyn Decoder> {
        Box::new(crate::asr::whisper::WhisperDecoder::assisted(self, Arc::new(idle.clone())))
    }

    fn check(&self, config: &Config) -> Result<(), String> {
        self.check_language(config.language).map_err(|error| error.to_string())?;
        self.check_vocabulary(&config.vocabulary).map_err(|error| error.to_string())?;
        let task = if config.translations { Task::Translate } else { config.task };
        self.check_task(task).map_err(|error| error.to_string())
    }
}

/// Which of the loaded models, from 0 in the order in which they were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub usize);

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model {}", self.0)
    }
}

/// The models that are loaded, from the most accurate to the fastest: under overload a track's jobs may go to a later one.
#[derive(Clone)]
pub struct Models(Arc<[Arc<dyn Model>]>);

impl Models {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, id: ModelId) -> Option<Arc<dyn Model>> {
        self.0.get(id.0).cloned()
    }
}

impl<M: Model> From<Arc<M>> for Models {
    fn from(model: Arc<M>) -> Self {
        Self::from(vec![model as Arc<dyn Model>])
    }
}

impl From<Vec<Arc<dyn Model>>> for Models {
    fn from(models: Vec<Arc<dyn Model>>) -> Self {
        Self(models.into())
    }
}
