//! What a file must hash to: the hub's ETag.
//!
//! In: an ETag, a file's bytes. Out: whether they agree. A file in large file storage has its SHA-256 as ETag, any other
//! one its git blob's SHA-1.

use sha2::Digest as _;

/// The hash of a file, which is its name among the blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Sha256(String),
    GitBlob(String),
}

impl Checksum {
    /// From an ETag header, strong or weak. `None` where it is no hash: it is not taken as a file's name either.
    pub(super) fn of_etag(etag: &str) -> Option<Self> {
        let hash = etag.trim().trim_start_matches("W/").trim_matches('"');
        if !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        match hash.len() {
            64 => Some(Self::Sha256(hash.to_string())),
            40 => Some(Self::GitBlob(hash.to_string())),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Sha256(hash) | Self::GitBlob(hash) => hash,
        }
    }

    /// Begins to hash a file of `size` bytes.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(sha2::Sha256::new()),
            Self::GitBlob(_) => Hasher::Sha1(sha1::Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }
}

pub(super) enum Hasher {
    Sha256(sha2::Sha256),
    Sha1(sha1::Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
        }
    }

    /// The hash in hexadecimal digits.
    pub(super) fn finish(self) -> String {
        let hash = match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
        };
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_hashes_or_nothing() {
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let git = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        for (etag, hash) in [(format!("\"{sha256}\""), sha256), (format!("W/\"{git}\""), git), (git.to_string(), git)] {
            let checksum = Checksum::of_etag(&etag).unwrap();
            assert_eq!(checksum.as_str(), hash);
            let mut hasher = checksum.hasher(5);
            hasher.update(b"hel");
            hasher.update(b"lo");
            assert_eq!(hasher.finish(), hash);
        }
        for wrong in ["", "\"\"", "\"../../x\"", &sha256[1..], &sha256.to_uppercase()] {
            assert_eq!(Checksum::of_etag(wrong), None, "{wrong}");
        }
    }
}
