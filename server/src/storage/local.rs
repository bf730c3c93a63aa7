//! The server's disk.
//!
//! In: whole files, names of files. Out: signed URLs that expire, and what they are good for.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use cuewire::time::Timestamp;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::keys::{hex, make_folder};

/// How long a URL does.
pub(crate) const URL_TIME: Duration = Duration::from_secs(3600);

/// A folder, and the key that its URLs are signed with.
pub struct Local {
    folder: PathBuf,
    key: [u8; 64],
    public_url: String,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A URL does no longer do, or was never made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadSignature;

impl Local {
    /// In a folder, which is made where there is none; URLs begin with `public_url`.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(folder: PathBuf, key: [u8; 64], public_url: &str) -> io::Result<Self> {
        make_folder(&folder)?;
        Ok(Self { folder, key, public_url: public_url.trim_end_matches('/').to_string() })
    }

    /// Where a file is. The name is cuewire's own: no client's text is ever part of a path.
    #[must_use]
    pub(crate) fn path(&self, filename: &str) -> PathBuf {
        self.folder.join(filename)
    }

    /// Writes a whole file or none.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn put(&self, filename: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(filename);
        let part = path.with_extension("part");
        let mut file = crate::keys::owned_file().create(true).truncate(true).write(true).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        // The name is on disk when its folder is.
        File::open(&self.folder)?.sync_all()
    }

    /// Deletes a file; one that is gone already is no error.
    ///
    /// # Errors
    /// Where it is still there.
    pub(crate) fn delete(&self, filename: &str) -> io::Result<()> {
        match fs::remove_file(self.path(filename)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Where a file can be fetched from now on, for an hour.
    #[must_use]
    pub fn url(&self, egress_id: &str, filename: &str, now: Timestamp) -> String {
        let expires = now.plus_nanos(URL_TIME.as_nanos() as i64).as_nanos() / 1_000_000_000;
        let signature = hex(&self.mac(egress_id, expires).finalize().into_bytes());
        format!("{}/transcripts/{egress_id}/{filename}?expires={expires}&signature={signature}", self.public_url)
    }

    /// Whether this URL's parts are what was signed, and still do.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub(crate) fn check(
        &self,
        egress_id: &str,
        expires: &str,
        signature: &str,
        now: Timestamp,
    ) -> Result<(), BadSignature> {
        let expires: i64 = expires.parse().map_err(|_| BadSignature)?;
        let signature = unhex(signature).ok_or(BadSignature)?;
        // In constant time.
        self.mac(egress_id, expires).verify_slice(&signature).map_err(|_| BadSignature)?;
        if now.as_nanos() / 1_000_000_000 < expires { Ok(()) } else { Err(BadSignature) }
    }

    fn mac(&self, egress_id: &str, expires: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new((&self.key).into());
        mac.update(format!("{egress_id}\n{expires}").as_bytes());
        mac
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn local(key: [u8; 64]) -> (tempfile::TempDir, Local) {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(folder.path().join("files"), key, "https://captions.example/").unwrap();
        (folder, local)
    }

    #[test]
    fn a_url_is_good_for_one_file_for_a_while() {
        let (_folder, signer) = local([7; 64]);
        let now = Timestamp::from_nanos(1_800_000_000_000_000_000);
        let url = signer.url("one", "f.jsonl", now);
        let (path, query) = url.split_once('?').unwrap();
        assert_eq!(path, "https://captions.example/transcripts/one/f.jsonl");
        let (expires, signature) = query.split_once('&').unwrap();
        let (expires, signature) = (expires.strip_prefix("expires=").unwrap(), signature.split_once('=').unwrap().1);
        let check = |egress_id: &str, expires: &str, signature: &str, now| {
            signer.check(egress_id, expires, signature, now).is_ok()
        };
        assert!(check("one", expires, signature, now));
        assert!(!check("two", expires, signature, now), "another file");
        assert!(!check("one", "1900000000", signature, now), "a later end");
        assert!(!check("one", expires, &signature.replace(|c: char| c.is_ascii_digit(), "0"), now));
        assert!(
            !check("one", expires, "", now) && !check("one", "", signature, now) && !check("one", expires, "zz", now)
        );
        assert!(!check("one", expires, signature, now.plus_nanos(URL_TIME.as_nanos() as i64)), "too late");
        let (_folder, other) = local([8; 64]);
        assert!(other.check("one", expires, signature, now).is_err(), "another key");
    }

    #[test]
    fn a_file_is_written_whole_and_only_its_owner_reads_it() {
        let (_folder, local) = local([7; 64]);
        local.put("t.jsonl", b"before").unwrap();
        local.put("t.jsonl", b"text").unwrap();
        assert_eq!(fs::read(local.path("t.jsonl")).unwrap(), b"text");
        assert_eq!(fs::read_dir(&local.folder).unwrap().count(), 1, "nothing is left beside it");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(local.path("t.jsonl")).unwrap().permissions().mode() & 0o777, 0o600);
        }
        local.delete("t.jsonl").unwrap();
        local.delete("t.jsonl").unwrap();
        assert_eq!(fs::read_dir(&local.folder).unwrap().count(), 0);
    }
}
