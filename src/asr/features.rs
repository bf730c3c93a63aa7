//! What the jobs of one caption share, so that an interim or final computes only what is new.
//!
//! In: nothing at first; a decoder leaves here what it computed. Out: the same, to the caption's next job.
//! An answer never depends on it.

use std::fmt;
use std::sync::{Arc, Mutex};

#[cfg(feature = "whisper")]
use super::whisper::mel::Features;
// Without a front end there is nothing to keep.
#[cfg(not(feature = "whisper"))]
type Features = ();

/// What a front end has computed of a caption's audio so far. Clones share it; it lasts as long as one of them.
#[derive(Clone, Default)]
pub struct FeatureCache(Arc<Mutex<Features>>);

impl FeatureCache {
    /// Whether these two are clones of one.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What is kept; nothing while another job uses it. Never waits.
    #[cfg(feature = "whisper")]
    pub(crate) fn try_lock(&self) -> Option<std::sync::MutexGuard<'_, Features>> {
        self.0.try_lock().ok()
    }
}

impl fmt::Debug for FeatureCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeatureCache").finish_non_exhaustive()
    }
}
