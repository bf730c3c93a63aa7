//! TLS by two files: handshakes, files that change, files that are wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuewire::engine::{Engine, EngineConfig};
use cuewire_server::certificate::Certificate;
use cuewire_server::{Metrics, Server, ServerConfig};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use support::{KEY, SECRET, Service, eventually, token};
use tungstenite::Message;

type Pair = rcgen::CertifiedKey<rcgen::KeyPair>;
type Tls = StreamOwned<ClientConnection, TcpStream>;

fn pair() -> Pair {
    rcgen::generate_simple_self_signed(["localhost".into()]).unwrap()
}

fn write(folder: &Path, pair: &Pair) -> Certificate {
    let certificate = Certificate { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    fs::write(&certificate.cert, pair.cert.pem()).unwrap();
    fs::write(&certificate.key, pair.signing_key.serialize_pem()).unwrap();
    certificate
}

/// A connection of a client that trusts this certificate and no other.
fn connect(service: &Service, trusted: &CertificateDer<'static>, alpn: &[&str]) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(&service.addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut tls = StreamOwned::new(client, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

fn get(tls: &mut Tls, path: &str) -> String {
    tls.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\n\r\n", token("")).as_bytes())
        .unwrap();
    let mut bytes = [0; 4096];
    let count = tls.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn requests_and_sockets_come_by_tls_and_a_new_certificate_does_not_disturb_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_string()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 3, 17) + std::time::Duration::from_secs(64_000);
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let (old, new) = (pair(), rcgen::CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key });
    let certificate = write(folder.path(), &old);
    let metrics = Metrics::install(([127, 0, 0, 1], 0).into()).unwrap();
    let service = Service::start_with(|config: &mut ServerConfig| {
        (config.certificate, config.metrics) = (Some(certificate.clone()), Some(metrics));
        config.limits.head_s = 3;
    });
    let listen = service.metrics_addr();
    // When it expires, for alarms.
    let expires = |at: f64| {
        let text = ureq::get(format!("http://{listen}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
        text.contains(&format!("\ncuewire_certificate_expires_timestamp_seconds {at}\n"))
    };
    // What rcgen writes where nothing is said: the year 4096, which is behind all times here.
    eventually("its end is told", || expires(i64::MAX as f64 / 1e9));
    let (old_cert, new_cert) = (old.cert.der(), new.cert.der());
    let mut tls = connect(&service, old_cert, &["h2", "http/1.1"]).unwrap();
    assert_eq!(tls.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(get(&mut tls, &format!("/api/v2/app?api_key={KEY}")).starts_with("HTTP/1.1 200"));
    let ws = || {
        let tls = connect(&service, old_cert, &[]).unwrap();
        let request = format!("ws://localhost/video/connect?api_key={KEY}");
        let (mut socket, _) = tungstenite::client(request, tls).unwrap();
        socket.send(Message::text(json!({"token": token("carol")}).to_string())).unwrap();
        assert!(socket.read().unwrap().to_text().unwrap().contains("connection.ok"));
        socket
    };
    let mut socket = ws();
    // Another certificate, or none that is known, is none.
    assert!(connect(&service, new_cert, &[]).is_err());
    assert!(connect(&service, old_cert, &["h2"]).is_err(), "HTTP/2 is not spoken");
    // Without TLS, and without a word.
    let mut plain = TcpStream::connect(&service.addr).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard);
    assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
    let start = Instant::now();
    let _ = TcpStream::connect(&service.addr).unwrap().read(&mut [0]);
    assert!((3..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());

    // A key that is not the certificate's: the old pair is kept.
    fs::write(&certificate.key, new.signing_key.serialize_pem()).unwrap();
    std::thread::sleep(Duration::from_millis(3000));
    connect(&service, old_cert, &[]).unwrap();
    fs::write(&certificate.cert, new.cert.pem()).unwrap();
    eventually("the new certificate is in use", || connect(&service, new_cert, &[]).is_ok());
    eventually("its end is told", || expires(1_900_000_000.0));
    assert!(connect(&service, old_cert, &[]).is_err());
    socket.send(Message::text(r#"[{"type":"health.check"}]"#)).unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().contains("health.check"), "the old connection goes on");
    // URLs that the server makes.
    let answer = get(&mut connect(&service, new_cert, &[]).unwrap(), "/healthz");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_server_does_not_start_with_files_that_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write(folder.path(), &pair());
    fs::write(&certificate.key, pair().signing_key.serialize_pem()).unwrap();
    let mut config = ServerConfig::new(folder.path().join("data"), KEY, SECRET);
    config.listen = ([127, 0, 0, 1], 0).into();
    config.certificate = Some(certificate.clone());
    let why = config.check().unwrap_err().to_string();
    assert!(why.contains("key.pem") && why.contains("not the key of") && why.contains("cert.pem"), "{why}");
    let model = support::scripted_model();
    let engine = Engine::start(EngineConfig::default(), vec![model.clone()]).unwrap();
    assert_eq!(Server::start(config, engine, model).map(drop).unwrap_err().to_string(), why);
}
