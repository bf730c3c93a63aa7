//! Where transcripts are kept: on the server's disk, or in buckets.
//!
//! In: whole files under new names. Out: URLs.
//!
//! The *default* storage is the disk, or a bucket that the configuration names: its URLs are signed and expire, and its files are
//! deleted, when somebody asks or when their time is over. An *external* storage is somebody else's: files are put there, once.
//!
//! A further kind is a variant of [`StorageType`] with its fields, in `config`, and how it is opened, in `bucket`: all of it here.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

mod bucket;
mod client;
mod config;
mod local;

pub use bucket::{Bucket, Place};
pub use config::{Azure, S3, StorageConfig, StorageType};
pub(crate) use config::{MAX_NAME_BYTES, MAX_PATH_BYTES, PARTS, Part, TEXTS};
pub use local::Local;
pub(crate) use local::URL_TIME;

/// Storages that platforms may have.
pub(crate) const MOST_STORAGES: usize = 50;

/// All of them.
#[derive(Debug)]
pub(crate) struct Storages {
    /// The server's disk.
    pub(crate) local: Local,
    configured: BTreeMap<String, StorageConfig>,
    default: Option<String>,
    /// Whether requests may set storages that are in this network.
    may_be_private: bool,
    /// By the storage's name and the bucket's: there are files in what was its bucket before.
    open: Mutex<HashMap<(String, String), (StorageConfig, Bucket)>>,
}

impl Storages {
    /// The disk, and those that the configuration names: they are wherever it says, and those that requests set in this network
    /// only if they `may_be_private`.
    #[must_use]
    pub(crate) fn new(
        local: Local,
        configured: BTreeMap<String, StorageConfig>,
        default: Option<String>,
        may_be_private: bool,
    ) -> Self {
        Self { local, configured, default, may_be_private, open: Mutex::default() }
    }

    /// Whether a request may set a storage like this.
    ///
    /// # Errors
    /// What makes no sense, or is not allowed.
    pub(crate) fn check(&self, config: &StorageConfig) -> Result<(), String> {
        Bucket::open(config, self.may_be_private).map(drop)
    }

    /// Which bucket is the default storage; `None`: the disk is.
    #[must_use]
    pub(crate) fn default(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// Whether the configuration names it, so that no request changes it.
    #[must_use]
    pub(crate) fn is_configured(&self, name: &str) -> bool {
        self.configured.contains_key(name)
    }

    /// Those that the configuration names.
    #[must_use]
    pub(crate) fn configured(&self) -> &BTreeMap<String, StorageConfig> {
        &self.configured
    }

    /// A bucket, opened once as long as it is reached in the same way.
    ///
    /// # Errors
    /// What makes no sense.
    pub(crate) fn bucket(&self, name: &str, config: &StorageConfig) -> Result<Bucket, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (name.to_string(), config.bucket.clone());
        if let Some((_, bucket)) = open.get(&of).filter(|(known, _)| known == config) {
            return Ok(bucket.clone());
        }
        let bucket = Bucket::open(config, self.may_be_private || self.is_configured(name))?;
        open.insert(of, (config.clone(), bucket.clone()));
        Ok(bucket)
    }

    /// Where a file of the disk is.
    #[must_use]
    pub(crate) fn path(&self, filename: &str) -> PathBuf {
        self.local.path(filename)
    }
}
