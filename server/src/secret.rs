//! What a server keeps and never shows.
//!
//! In: keys and passwords of hooks and storages. Out: the same to who needs them; to a log `…`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
