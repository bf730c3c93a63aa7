//! Keys that a server makes for itself at its first start.
//!
//! In: the data folder. Out: an API key with its secret, and the key that URLs are signed with; each in a file that only its
//! owner reads.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What clients of a server need to know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Named in each request.
    pub api_key: String,
    /// What tokens are signed with.
    pub api_secret: String,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

impl ApiKey {
    /// The one in the data folder; `None` where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read, or is not one.
    pub fn load(data_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(data_dir.join("api_key.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new one, kept in the data folder from now on.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn make(data_dir: &Path) -> io::Result<Self> {
        make_folder(data_dir)?;
        let key = Self { api_key: random_text(12)?, api_secret: random_text(40)? };
        let mut bytes = serde_json::to_vec_pretty(&key)?;
        bytes.push(b'\n');
        write_secret(&data_dir.join("api_key.json"), &bytes)?;
        Ok(key)
    }
}

/// The key that the data folder's URLs are signed with, made where there is none.
///
/// # Errors
/// Where it can neither be read nor written.
pub fn url_key(data_dir: &Path) -> io::Result<[u8; 64]> {
    let path = data_dir.join("url_key");
    let mut key = [0; 64];
    match File::open(&path) {
        Ok(mut file) => file.read_exact(&mut key)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            getrandom::fill(&mut key).map_err(io::Error::other)?;
            write_secret(&path, &key)?;
        }
        Err(error) => return Err(error),
    }
    Ok(key)
}

/// A folder that only its owner reads, where there is none.
///
/// # Errors
/// Where it cannot be made.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Takes a folder for as long as the file is open.
///
/// # Errors
/// Where somebody else has it, or the file in it cannot be made.
pub fn lock(data_dir: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(data_dir.join("lock"))?;
    file.try_lock()?;
    Ok(file)
}

/// Options of a file that only its owner reads, where it is made.
pub(crate) fn owned_file() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A file that was there already is its owner's alone too.
pub(crate) fn own(file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // On file systems without modes nobody can.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    }
    #[cfg(not(unix))]
    let _ = file;
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that only its owner reads, whole or not at all.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = owned_file().write(true).create(true).truncate(true).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)
}

fn random_text(chars: usize) -> io::Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0; chars];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_made_once_and_only_their_owner_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        assert_eq!(ApiKey::load(&data_dir).unwrap(), None);
        let key = ApiKey::make(&data_dir).unwrap();
        assert_eq!(ApiKey::load(&data_dir).unwrap(), Some(key.clone()));
        assert_ne!(key, ApiKey::make(&data_dir).unwrap(), "another one each time");
        let url_key = super::url_key(&data_dir).unwrap();
        assert_eq!(super::url_key(&data_dir).unwrap(), url_key);
        #[cfg(unix)]
        for name in ["api_key.json", "url_key"] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(data_dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
