//! TLS, for what goes out: to hooks, queues and storages.

/// Names the one implementation of this process, unless the host of this library has named another.
pub(crate) fn install() {
    // Somebody did it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
