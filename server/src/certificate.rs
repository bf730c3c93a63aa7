//! TLS for what comes in.
//!
//! In: two PEM files, a certificate with its chain and its key. Out: what connections are accepted with, from those files as they
//! are now: when they change, new connections get the new pair, and nothing happens to those that are open.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOKED_EVERY: Duration = Duration::from_secs(2);
/// Longest file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The server's certificate first, then those that lead to its root.
    pub cert: PathBuf,
    /// Its key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// When a file was changed, how long it is, and of which file that is, and since when it has its owner and mode.
type Stamp = Option<(SystemTime, u64, [i128; 3])>;

impl Certificate {
    /// Whether connections can be accepted with it.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.load().map(drop)
    }

    fn load(&self) -> Result<CertifiedKey, String> {
        let Self { cert, key } = self;
        let named = |path: &Path, why: String| format!("{}: {why}", path.display());
        let pem = read(cert)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|error| named(cert, format!("it is no PEM: {error}")))?;
        if chain.is_empty() {
            return Err(named(cert, "no certificate is in it: PEM is expected, BEGIN CERTIFICATE".into()));
        }
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?);
        let secret = secret.map_err(|error| named(key, format!("no private key in PEM is in it: {error}")))?;
        let provider = rustls::crypto::ring::default_provider();
        let key_of = provider.key_provider.load_private_key(secret.clone_key());
        key_of.map_err(|error| named(key, format!("it is no key that can be used: {error}")))?;
        CertifiedKey::from_der(chain, secret, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => named(key, format!("it is not the key of {}", cert.display())),
            error => named(cert, error.to_string()),
        })
    }

    fn stamps(&self) -> [Stamp; 2] {
        [&self.cert, &self.key].map(|path| {
            let data = fs::metadata(path).ok()?;
            Some((data.modified().ok()?, data.len(), inode(&data)))
        })
    }
}

/// Which file it is, and when anything of it was changed.
#[cfg(unix)]
fn inode(data: &fs::Metadata) -> [i128; 3] {
    use std::os::unix::fs::MetadataExt as _;
    [data.dev().into(), data.ino().into(), i128::from(data.ctime()) * 1_000_000_000 + i128::from(data.ctime_nsec())]
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> [i128; 3] {
    [0; 3]
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let named = |why: String| format!("{}: {why}", path.display());
    let length = fs::metadata(path).map_err(|error| named(error.to_string()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(named(format!("it has {length} bytes: allowed are {MAX_FILE_BYTES}")));
    }
    fs::read(path).map_err(|error| named(error.to_string()))
}

/// The pair that is in use.
#[derive(Debug)]
pub(crate) struct Current {
    certificate: Certificate,
    /// Of the files that the pair is from.
    stamps: [Stamp; 2],
    pair: Arc<Pair>,
    /// Why the files as they are now are not taken.
    refused: Option<String>,
}

#[derive(Debug)]
struct Pair(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Current {
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub(crate) fn load(certificate: Certificate) -> Result<Self, String> {
        let stamps = certificate.stamps();
        let pair = Arc::new(Pair(RwLock::new(Arc::new(certificate.load()?))));
        Ok(Self { certificate, stamps, pair, refused: None })
    }

    /// HTTP/1.1 only: WebSockets are upgrades of it.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, rustls::Error> {
        let provider: Arc<CryptoProvider> = rustls::crypto::ring::default_provider().into();
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.pair.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config).into())
    }

    /// Takes the files as they are now, if they have changed. Of a pair that makes no sense the old one is kept, and it is looked
    /// again: what was wrong may be over without a change of the files.
    fn look(&mut self, load: impl Fn(&Certificate) -> Result<CertifiedKey, String>) {
        // Before they are read: what is written meanwhile is another change.
        let stamps = self.certificate.stamps();
        if stamps == self.stamps {
            self.refused = None;
            return;
        }
        match load(&self.certificate) {
            Ok(pair) => {
                *self.pair.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                (self.stamps, self.refused) = (stamps, None);
                tracing::warn!("{}: new connections get the new certificate", self.certificate.cert.display());
            }
            Err(why) if self.refused.as_ref() == Some(&why) => {}
            Err(why) => {
                tracing::error!("the certificate is not changed: {why}");
                self.refused = Some(why);
            }
        }
    }

    /// Looks at the files again and again.
    pub(crate) async fn watch(mut self, shutdown: CancellationToken) {
        while tokio::time::timeout(LOOKED_EVERY, shutdown.cancelled()).await.is_err() {
            let looked = tokio::task::spawn_blocking(move || {
                self.look(Certificate::load);
                self
            });
            let Ok(back) = looked.await else { return };
            self = back;
        }
    }
}

/// When certificates do.
mod validity {
    use cuewire::time::Timestamp;
    use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
    use der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};

    use super::{Arc, Certificate, CertifiedKey, Current, Pair, PoisonError};

    /// From when to when a certificate does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Validity {
        pub(crate) from: Timestamp,
        pub(crate) until: Timestamp,
    }

    impl Validity {
        /// Of the server's own certificate, the first of the chain.
        fn of(pair: &CertifiedKey) -> Option<Self> {
            read(pair.cert.first()?).ok()
        }
    }

    /// RFC 5280, section 4.1: behind the version, which may be left out, the serial number, the algorithm and the issuer.
    fn read(certificate: &[u8]) -> der::Result<Validity> {
        let certificate = AnyRef::from_der(certificate)?;
        let signed = AnyRef::decode(&mut SliceReader::new(certificate.value())?)?;
        let mut fields = SliceReader::new(signed.value())?;
        let is_version = matches!(fields.peek_tag()?, Tag::ContextSpecific { .. });
        for _ in 0..3 + usize::from(is_version) {
            AnyRef::decode(&mut fields)?;
        }
        let validity = AnyRef::decode(&mut fields)?;
        let mut times = SliceReader::new(validity.value())?;
        Ok(Validity { from: time(&mut times)?, until: time(&mut times)? })
    }

    fn time(times: &mut SliceReader<'_>) -> der::Result<Timestamp> {
        let time = AnyRef::decode(times)?;
        let since_1970 = match time.tag() {
            Tag::UtcTime => time.decode_as::<UtcTime>()?.to_unix_duration(),
            _ => time.decode_as::<GeneralizedTime>()?.to_unix_duration(),
        };
        // As far as times go: the year 2262.
        Ok(Timestamp::from_nanos(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX)))
    }

    impl Certificate {
        /// From when to when it does; `None` where it does not say it as others do.
        ///
        /// # Errors
        /// As of [`check`](Self::check).
        pub(crate) fn validity(&self) -> Result<Option<Validity>, String> {
            Ok(Validity::of(&self.load()?))
        }
    }

    /// What connections get, whatever it is by now.
    pub(crate) struct InUse(Arc<Pair>);

    impl InUse {
        /// Until when it does.
        pub(crate) fn expires_at(&self) -> Option<Timestamp> {
            Some(Validity::of(&self.0.0.read().unwrap_or_else(PoisonError::into_inner))?.until)
        }
    }

    impl Current {
        pub(crate) fn in_use(&self) -> InUse {
            InUse(self.pair.clone())
        }
    }
}

pub(crate) use validity::{InUse, Validity};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_that_could_not_be_read_are_taken_once_they_can_be_though_nothing_of_them_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate { cert: folder.path().join("cert"), key: folder.path().join("key") };
        let write = || {
            let pair = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
            fs::write(&certificate.cert, pair.cert.pem()).unwrap();
            fs::write(&certificate.key, pair.signing_key.serialize_pem()).unwrap();
            pair.cert.der().clone()
        };
        write();
        let mut current = Current::load(certificate.clone()).unwrap();
        let used = |current: &Current| current.pair.0.read().unwrap().cert[0].clone();
        let (old, new) = (used(&current), write());
        let refused = |_: &Certificate| Err("too many open files".to_string());
        for _ in 0..2 {
            current.look(refused);
            assert_eq!((used(&current), current.refused.as_deref()), (old.clone(), Some("too many open files")));
        }
        current.look(Certificate::load);
        assert_eq!((used(&current), &current.refused), (new, &None));
        // What is as it was is not read.
        current.look(refused);
        assert_eq!(current.refused, None);
        // Another file under the same name, as long and as old as the one before.
        let of = |name: &str| folder.path().join(name);
        let (cert, key) = (fs::metadata(&certificate.cert).unwrap(), fs::metadata(&certificate.key).unwrap());
        for (from, data) in [("cert", cert), ("key", key)] {
            fs::copy(of(from), of("other")).unwrap();
            let other = fs::File::options().write(true).open(of("other")).unwrap();
            other.set_modified(data.modified().unwrap()).unwrap();
            fs::rename(of("other"), of(from)).unwrap();
        }
        #[cfg(unix)]
        {
            current.look(refused);
            assert!(current.refused.is_some());
        }
    }

    #[test]
    fn files_that_make_no_sense_are_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let pairs = [(); 2].map(|()| rcgen::generate_simple_self_signed(["localhost".into()]).unwrap());
        for (i, pair) in pairs.iter().enumerate() {
            fs::write(path(&format!("cert{i}")), pair.cert.pem()).unwrap();
            fs::write(path(&format!("key{i}")), pair.signing_key.serialize_pem()).unwrap();
        }
        fs::write(path("empty"), "").unwrap();
        fs::write(path("torn"), &pairs[0].cert.pem()[..200]).unwrap();
        fs::write(path("rubbish"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        fs::File::create(path("long")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        let check = |cert: &str, key: &str| Certificate { cert: path(cert), key: path(key) }.check();
        check("cert0", "key0").unwrap();
        for (cert, key, whose, why) in [
            ("none", "key0", "none", "No such file"),
            ("cert0", "none", "none", "No such file"),
            ("empty", "key0", "empty", "no certificate"),
            ("torn", "key0", "torn", "PEM"),
            ("rubbish", "key0", "rubbish", ""),
            ("cert0", "cert0", "cert0", "no private key"),
            ("cert0", "key1", "key1", "it is not the key of"),
            ("long", "key0", "long", "allowed are"),
        ] {
            let error = check(cert, key).unwrap_err();
            let named = format!("{}: ", path(whose).display());
            assert!(error.starts_with(&named) && error.contains(why), "{cert}, {key}: {error}");
        }
    }
}
