//! `--check-config`, finding by finding: what would fail is said before it does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};

use cuewire_server::certificate::Certificate;
use cuewire_server::check::{Finding, Severity, check};
use cuewire_server::{Metrics, ServerConfig, now};
use serde_json::json;
use support::bucket::{FakeBucket, in_order};
use support::{KEY, SECRET, Service};

/// What is found of a configuration over this folder.
fn findings(folder: &Path, network: bool, change: impl FnOnce(&mut ServerConfig)) -> Vec<Finding> {
    let mut config = ServerConfig::new(folder, KEY, SECRET);
    config.listen = ([127, 0, 0, 1], 0).into();
    change(&mut config);
    check(&config, network).unwrap()
}

/// There is exactly one finding of this, so and so.
fn expect(findings: &[Finding], what: &str, severity: Severity, found: &str) {
    let of_it: Vec<_> = findings.iter().filter(|finding| finding.what.starts_with(what)).collect();
    let is_it = matches!(of_it[..], [one] if one.severity == severity && one.found.contains(found));
    assert!(is_it, "expected {what}: {severity:?} {found}, got {findings:#?}");
}

/// A certificate that does from so many days on until so many, from now.
fn certificate(folder: &Path, days: (i64, i64)) -> Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_string()]).unwrap();
    let at = |days: i64| {
        let at = now().plus_nanos(days * 24 * 3600 * 1_000_000_000).to_string();
        let part = |range: std::ops::Range<usize>| at[range].parse::<i32>().unwrap();
        rcgen::date_time_ymd(part(0..4), part(5..7) as u8, part(8..10) as u8)
    };
    (params.not_before, params.not_after) = (at(days.0), at(days.1));
    let files = Certificate { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn a_certificate_is_told_of_before_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    for (days, severity, found) in [
        ((-9, 90), Severity::Ok, "does until 20"),
        ((-9, 7), Severity::Warning, "expires at 20"),
        ((-9, -2), Severity::Error, "has expired at 20"),
        ((2, 90), Severity::Error, "does not do before 20"),
        // Beyond 2049 times are written in another way, and beyond 2262 none is told apart.
        ((-9, 100_000), Severity::Ok, "does until 2262"),
    ] {
        let certificate = certificate(folder.path(), days);
        let found_here = findings(folder.path(), false, |config| config.certificate = Some(certificate));
        expect(&found_here, "tls_cert", severity, found);
    }
}

#[test]
fn addresses_that_cannot_be_had_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let free = || TcpListener::bind(local(0)).unwrap().local_addr().unwrap();
    let metrics = |listen| Some(Metrics::new(listen, String::new));
    // One for both, in either way to say it.
    let one = free();
    let both = findings(folder.path(), false, |config| (config.listen, config.metrics) = (one, metrics(one)));
    expect(&both, "metrics_listen", Severity::Error, "that of `listen`");
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, one.port()));
    let both = findings(folder.path(), false, |config| (config.listen, config.metrics) = (all, metrics(one)));
    expect(&both, "metrics_listen", Severity::Error, "in use");
    let both = findings(folder.path(), false, |config| config.metrics = metrics(local(0)));
    expect(&both, "metrics_listen", Severity::Ok, "is free");

    // RTP.
    let elsewhere = findings(folder.path(), false, |config| config.rtp.address = [203, 0, 113, 1].into());
    expect(&elsewhere, "rtp_address", Severity::Error, "");
    // An even port whose next one is taken, and nothing else in the range: not of those that the tests beside this one
    // try, which are the default's, nor of those that the system hands out.
    let (port, _taken) = (0..500)
        .map(|i| 23_000 + i * 2)
        .find_map(|port| {
            let even = UdpSocket::bind(local(port)).ok();
            even.and_then(|_| Some((port, UdpSocket::bind(local(port + 1)).ok()?)))
        })
        .unwrap();
    let taken = findings(folder.path(), false, |config| config.rtp.ports = [port, port + 1]);
    expect(&taken, "rtp_ports", Severity::Error, "none is free");
    drop(_taken);
    let free = findings(folder.path(), false, |config| config.rtp.ports = [port, port + 1]);
    expect(&free, "rtp_ports", Severity::Ok, &format!("{port} is free"));
}

#[test]
fn folders_and_databases_that_do_not_do_are_named() {
    // Where root cannot write either.
    let nowhere = findings(Path::new("/proc/self"), false, |_| ());
    expect(&nowhere, "folder /proc/self", Severity::Error, "cannot be written");
    let mut service = Service::start();
    service.end();
    let path = service.folder.path().join("cuewire.db");
    let database = format!("database {}", path.display());
    expect(&findings(service.folder.path(), false, |_| ()), &database, Severity::Ok, "version");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    expect(&findings(service.folder.path(), false, |_| ()), &database, Severity::Error, "version 99");
}

#[test]
fn hooks_whose_names_lead_nowhere_are_named() {
    let service = Service::start();
    let hook = json!({"id": "lost", "hook_type": "webhook", "webhook_url": "https://name.invalid/hook"});
    service.ok("PATCH", "/api/v2/app", "", &json!({"event_hooks": [hook]}));
    let found = findings(service.folder.path(), true, |config| {
        config.listen = service.addr.parse().unwrap();
    });
    expect(&found, "hook lost", Severity::Error, "name.invalid");
    expect(&found, "listen", Severity::Ok, "by the server that runs");
}

#[test]
fn of_the_default_storage_all_is_tried_that_is_done_with_it() {
    let folder = tempfile::tempdir().unwrap();
    // A bucket that keeps files, or does without one of the things.
    let bucket = |without: &'static str| {
        let kept = Arc::new(Mutex::new(None));
        FakeBucket::answering(move |asked| {
            let is_deletion = asked.method == "DELETE" || asked.body.contains("<Delete");
            match asked.method.as_str() {
                method if method == without || (is_deletion && without == "DELETE") => {
                    ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>".into())
                }
                "PUT" => {
                    *kept.lock().unwrap() = Some(asked.body.clone());
                    in_order(asked)
                }
                "GET" if without == "text" => ("200 OK", "another text".into()),
                "GET" => ("200 OK", kept.lock().unwrap().clone().unwrap_or_default()),
                _ => in_order(asked),
            }
        })
    };
    for (without, is_default, severity, found) in [
        ("", true, Severity::Ok, "gave it back and deleted it"),
        ("PUT", true, Severity::Error, "cannot be written"),
        ("GET", true, Severity::Error, "cannot be read"),
        ("text", true, Severity::Error, "something else"),
        ("DELETE", true, Severity::Error, "cannot be deleted from"),
        // Of others nothing is fetched or deleted.
        ("GET", false, Severity::Ok, "took "),
        ("DELETE", false, Severity::Ok, "took "),
    ] {
        let fake = bucket(without);
        let storage = json!({"storage_type": "s3", "bucket": "captions", "aws_s3": {
            "s3_region": "eu", "s3_api_key": "k", "s3_secret": "never told", "s3_custom_endpoint_url": fake.url,
        }});
        let here = findings(folder.path(), true, |config| {
            config.storages.insert("archive".into(), serde_json::from_value(storage).unwrap());
            config.default_storage = Some("archive".to_string()).filter(|_| is_default);
        });
        expect(&here, "storage archive", severity, found);
        let told = format!("{here:?}");
        assert!(!told.contains("never told") && !told.to_lowercase().contains("x-amz-signature"), "{told}");
        let others = fake.asked().iter().filter(|asked| asked.method != "PUT").count();
        assert_eq!(others == 0, !is_default || without == "PUT", "{without}: {:?}", fake.asked());
    }
}
