//! Names, URLs and addresses that lead elsewhere.

use super::*;

#[test]
fn no_name_leads_out_of_its_place() {
    let service = Service::start();
    let (session, file) = world(&service);
    let canary = service.folder.path().join("canary.jsonl");
    std::fs::write(&canary, "still here").unwrap();
    let before = contents(&service);
    let long = "x".repeat(65);
    let names = "\
        .. . %2e%2e %252e%252e ..%2f..%2fcanary.jsonl %2e%2e%2fcanary.jsonl %252e%252e%252fcanary.jsonl \
        %2fetc%2fpasswd ..%5c..%5ccanary.jsonl a%00 %00 canary.jsonl%00 %c0%ae%c0%ae %c0%af %e0%80%ae \
        %f0%80%80%ae %ff a%2fb a%20b ..; a%0d%0aX-Evil:%201 %u002e%u002e a'%20OR%20'1'='1 %ef%bc%8e $(id) %25 % \
        %zz a:b ~";
    for name in names.split(' ').chain([long.as_str()]) {
        let is_text = percent_encoding::percent_decode_str(name).decode_utf8().is_ok();
        let input = if is_text { (400, Some(4)) } else { (404, Some(16)) };
        for family in ["/api/v2", ""] {
            for (method, path) in [
                ("GET", format!("{family}/video/call/{name}/a")),
                ("POST", format!("{family}/video/call/{name}/a")),
                ("GET", format!("{family}/video/call/locked/{name}")),
                ("POST", format!("{family}/video/call/locked/{name}")),
                ("POST", format!("{family}/video/call/locked/{name}/delete")),
                ("GET", format!("{family}/video/call/locked/{name}/transcriptions")),
                ("DELETE", format!("{family}/video/call/{name}/a/{session}/transcriptions/{file}")),
                ("GET", format!("{family}/video/calltypes/{name}")),
                ("DELETE", format!("{family}/video/calltypes/{name}")),
            ] {
                assert_eq!(target(&service, method, &path), input, "{method} {path}");
            }
            for path in [
                format!("{family}{C}/{name}/transcriptions/{file}"),
                format!("{family}{C}/{session}/transcriptions/{name}"),
                format!("{family}{C}/{session}/transcriptions/{name}%2f{file}"),
                format!("{family}{C}/{session}/transcriptions/{file}{name}"),
            ] {
                assert_eq!(target(&service, "DELETE", &path), (404, Some(16)), "{path}");
            }
        }
        for (method, path) in [("PUT", ""), ("DELETE", ""), ("GET", "/check")] {
            let path = format!("/api/v2/external_storage/{name}{path}");
            assert_eq!(target(&service, method, &path), input, "{method} {path}");
        }
        let (code, _) = service.refused(
            "POST",
            "/api/v2/external_storage",
            "",
            &json!({"name": name, "bucket": "b",
            "storage_type": "s3", "aws_s3": {"s3_region": "r"}}),
        );
        assert_eq!(code, 4, "{name}");
    }
    for path in [
        "/..",
        "/../../etc/passwd",
        "/video/../api/v2/app",
        "/api/v2/../../healthz",
        "/api/v2/video/call/locked/a/../../../../app",
        "/api//v1/app",
        "/API/V2/app",
        "/api/v2%2fapp",
        "/api/v2/app%00",
        "/api/v2/app;x",
        "//example.org/api/v2/app",
    ] {
        let got = target(&service, "GET", path);
        assert!(matches!(got, (404, Some(16)) | (400, Some(4))), "{path}: {got:?}");
    }
    // Where storages keep files.
    let storage = |field: &str, value: &str| {
        let mut body =
            json!({"name": "another", "bucket": "b", "path": "", "storage_type": "s3", "aws_s3": {"s3_region": "r"}});
        *body.pointer_mut(field).unwrap() = json!(value);
        service.refused("POST", "/api/v2/external_storage", "", &body).0
    };
    let long = "x/".repeat(300);
    for path in ["..", "a/../..", "/../x", "a//b", "a/./b", "a\\b", "a%2fb", "a\0", "a b", "a?b", "a#b", "ä", &long] {
        assert_eq!(storage("/path", path), 4, "{path}");
    }
    // A bucket, a region, an account are part of a host's name.
    for name in
        ["", "..\\", "127.0.0.1\\", "127.0.0.1/", "a@b", "a:80", "a?", "a#", "a b", "a%2f", "a\0", "ä", "a\r\nHost: b"]
    {
        assert_eq!(storage("/bucket", name), 4, "{name}");
        assert_eq!(storage("/aws_s3/s3_region", name), 4, "{name}");
        for field in ["abs_account_name", "abs_tenant_id"] {
            let mut azure =
                json!({"abs_account_name": "a", "abs_client_id": "i", "abs_client_secret": "s", "abs_tenant_id": "t"});
            azure[field] = json!(name);
            let body = json!({"name": "another", "bucket": "b", "storage_type": "abs", "azure_blob": azure});
            assert_eq!(service.refused("POST", "/api/v2/external_storage", "", &body).0, 4, "{field} {name}");
        }
    }
    assert_eq!(contents(&service), before);
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "still here");
    assert!(service.folder.path().join("transcripts").join(&file).exists());
}

#[test]
fn a_transcript_is_fetched_by_its_own_url_and_no_other() {
    let service = Service::start();
    let (_, filename) = world(&service);
    let list = service.ok("GET", &format!("/api/v2{C}/transcriptions"), "", &json!({}));
    let url = list["transcriptions"][0]["url"].as_str().unwrap().to_string();
    assert_eq!(service.fetch(&url, None).0, 200);
    let (path, query) = url.trim_start_matches("http://").split_once('/').unwrap().1.split_once('?').unwrap();
    let (path, egress) = (format!("/{path}"), path.split('/').nth(1).unwrap());
    let (expires, signature) = query.split_once('&').unwrap();
    let expires: i64 = expires.trim_start_matches("expires=").parse().unwrap();
    let signature = signature.trim_start_matches("signature=");
    let signed = |path: &str| format!("{path}?{query}");
    // As this server signs, and as another one does.
    let folder = tempfile::tempdir().unwrap();
    let made = |key: [u8; 64], at| Local::new(folder.path().into(), key, "").unwrap().url(egress, &filename, at);
    let key = cuewire_server::keys::url_key(service.folder.path()).unwrap();
    assert_eq!(target(&service, "GET", &made(key, now())).0, 200, "the same key makes a URL that does");
    for path in [
        path.clone(),
        format!("{path}?expires={expires}"),
        format!("{path}?signature={signature}"),
        format!("{path}?expires={}&signature={signature}", expires + 1),
        format!("{path}?expires=9223372036854775807&signature={signature}"),
        format!("{path}?expires=99999999999999999999&signature={signature}"),
        format!("{path}?expires=-1&signature={signature}"),
        format!("{path}?expires={expires}&signature={}", &signature[..62]),
        format!("{path}?expires={expires}&signature={signature}00"),
        format!("{path}?expires={expires}&signature={}", "0".repeat(64)),
        format!("{path}?expires={expires}&signature=%00{signature}"),
        format!("{path}?expires={expires}&signature={}", "é".repeat(32).replace('é', "%c3%a9")),
        format!("{path}?{query}&expires=1"),
        format!("{path}?{query}&signature="),
        made(key, now().plus_nanos(-2 * 3_600_000_000_000)),
        made([7; 64], now()),
        signed("/transcripts/"),
        signed(&format!("/transcripts/{egress}%2f..%2f..%2fcuewire.db")),
        signed("/transcripts/../cuewire.db"),
        signed("/transcripts/%2e%2e/cuewire.db"),
        signed(&format!("/transcripts/x{egress}/{filename}")),
        signed("/transcripts/00000000-0000-0000-0000-000000000000/f.jsonl"),
    ] {
        // Of what is no transcript's path nobody needs to ask.
        let refused = target(&service, "GET", &path);
        assert!([(403, Some(17)), (401, Some(2)), (404, Some(16))].contains(&refused), "{path}: {refused:?}");
    }
    // Whatever the rest of the path says, it is that file or none.
    let (_, expected, _) = service.fetch(&url, None);
    for rest in ["%2e%2e%2f%2e%2e%2fcuewire.db", "x"] {
        let url = url.replace(&filename, rest);
        assert_eq!(service.fetch(&url, None).1, expected, "{url}");
    }
    assert_eq!(service.fetch(&url.replace(&filename, "../../cuewire.db"), None).0, 401);
    assert_eq!(service.fetch(&url, Some("bytes=0-0,1-1,2-2,3-3")).0 / 100, 4);
}

/// Hosts that are this machine, this network, or a cloud's metadata, in every notation.
const PRIVATE: &str = "\
    127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 0x7f.0x0.0x0.0x1 0177.0.0.1 017700000001 127.0.0.1. \
    127.000.000.001 127.255.255.254 0 0.0.0.0 0x0 [::1] [::] [0:0:0:0:0:0:0:1] [::127.0.0.1] [::ffff:127.0.0.1] \
    [::ffff:7f00:1] [::ffff:0:0] [64:ff9b::127.0.0.1] [64:ff9b::a9fe:a9fe] [64:ff9b:1::a9fe:a9fe] [2002:7f00:1::] \
    [2002:a9fe:a9fe::1] [2001:0:7f00:1::] [fd00:ec2::254] [fc00::1] [fe80::1] [fec0::1] [ff02::1] [2001:db8::1] \
    [100::1] 169.254.169.254 [::ffff:169.254.169.254] 0xa9fea9fe 2852039166 0251.0376.0251.0376 169.254.43518 \
    169.254.170.2 100.100.100.200 192.0.0.192 10.0.0.1 10.1 172.16.0.1 172.31.255.255 192.168.0.1 192.168.257 \
    198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 user@127.0.0.1 \
    hooks.example.org@169.254.169.254 hooks.example.org:80@127.1 \
    127\u{3002}0\u{3002}0\u{3002}1 \u{2460}\u{2461}\u{2466}.\u{24ea}.\u{24ea}.\u{2460} %31%32%37.0.0.1 \
    127%2e0%2e0%2e1";

#[test]
fn nothing_that_is_set_leads_into_this_network() {
    let service = Service::start();
    world(&service);
    let before = contents(&service);
    let storage = |what: &Value| service.refused("POST", "/api/v2/external_storage", "", what);
    let set = |body: Value| service.refused("PATCH", "/api/v2/app", "", &body);
    let urls =
        PRIVATE.split_whitespace().flat_map(|host| [format!("http://{host}/x"), format!("https://{host}:8443/x")]);
    let others = [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "ftp://127.0.0.1/",
        "data:,x",
        "//127.0.0.1/",
        "http://",
        "javascript:alert(1)",
        "http://[fe80::1%25lo]/",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "jar:http://127.0.0.1!/",
    ];
    for url in urls.chain(others.map(String::from)) {
        let sqs = json!({"hook_type": "sqs", "enabled": true, "sqs_queue_url": url, "sqs_region": "r", "sqs_key": "k", "sqs_secret": "s"});
        let webhook = json!({"hook_type": "webhook", "enabled": true, "webhook_url": url});
        let s3 = json!({"s3_region": "r", "s3_api_key": "k", "s3_secret": "s", "s3_custom_endpoint_url": url});
        let azure =
            json!({"abs_account_name": "a", "abs_client_id": "i", "abs_client_secret": "s", "abs_tenant_id": "t"});
        let (mut endpoint, mut authority) = (azure.clone(), azure);
        (endpoint["abs_custom_endpoint_url"], authority["abs_authority_host"]) = (json!(url), json!(url));
        let google = json!({"type": "service_account", "private_key": "p", "private_key_id": "i", "client_email": "e",
            "gcs_base_url": url, "disable_oauth": true});
        for (what, (code, why)) in [
            ("webhook_url", set(json!({"webhook_url": url}))),
            ("sqs_url", set(json!({"sqs_url": url, "sqs_key": "k", "sqs_secret": "s"}))),
            ("a webhook", set(json!({"event_hooks": [webhook]}))),
            ("a queue", set(json!({"event_hooks": [sqs]}))),
            ("S3", storage(&json!({"name": "x", "bucket": "b", "storage_type": "s3", "aws_s3": s3}))),
            ("Azure", storage(&json!({"name": "x", "bucket": "b", "storage_type": "abs", "azure_blob": endpoint}))),
            (
                "Azure's tokens",
                storage(&json!({"name": "x", "bucket": "b", "storage_type": "abs", "azure_blob": authority})),
            ),
            (
                "Google",
                storage(
                    &json!({"name": "x", "bucket": "b", "storage_type": "gcs", "gcs_credentials": google.to_string()}),
                ),
            ),
            (
                "a storage that is there",
                service.refused(
                    "PUT",
                    "/api/v2/external_storage/archive",
                    "",
                    &json!({"bucket": "b", "storage_type": "s3", "aws_s3": s3}),
                ),
            ),
        ] {
            assert_eq!(code, 4, "{what}: {url}: {why}");
            let is_why = why.contains("hooks_to_private_addresses");
            let is_no_url = why.contains("allowed is https://") || why.contains(" URL");
            assert!(is_why || is_no_url || others.contains(&url.as_str()), "{what}: {url}: {why}");
            check_harmless(what, &why);
        }
        let (status, checked) = service.request("POST", "/api/v2/check_sqs", "", &json!({"sqs_url": url}));
        let is_refused = if cfg!(feature = "sqs") { checked["status"] == "error" } else { status == 400 };
        assert!(is_refused, "{url}: {checked}");
    }
    assert_eq!(contents(&service), before);
}

/// A name of this machine that does not say so.
fn private_name() -> Option<String> {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let names = [host.trim(), "ip6-localhost", "ip6-loopback", "localhost.localdomain", "localhost4", "localhost6"];
    let leads_here = |name: &&str| {
        let found = (*name, 0).to_socket_addrs();
        found.is_ok_and(|mut found| found.any(|address| address.ip().is_loopback()))
    };
    names.into_iter().filter(|name| !name.is_empty()).find(leads_here).map(str::to_string)
}

/// Somebody who listens, and how many came.
fn listener() -> (u16, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (port, came) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let counter = came.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::Relaxed);
            drop(stream);
        }
    });
    (port, came)
}

#[test]
fn a_name_that_leads_here_is_looked_at_where_it_leads() {
    let Some(name) = private_name() else {
        return eprintln!("SKIPPED: this machine has no name other than localhost, as in /etc/hosts");
    };
    let (port, came) = listener();
    let url = format!("http://{name}:{port}");
    let service = Service::start_with(|config| config.hook_max_age_s = 1);
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_url": url}));
    service.ok("POST", "/api/v2/video/call/default/a", "", &json!({"data": {"created_by_id": "alice"}}));
    let s3 = json!({"s3_region": "r", "s3_api_key": "k", "s3_secret": STORED_SECRET, "s3_custom_endpoint_url": url});
    let google = json!({"type": "service_account", "private_key": "p", "private_key_id": "i", "client_email": "e",
        "gcs_base_url": url, "disable_oauth": true});
    let azure = json!({"abs_account_name": "a", "abs_account_key": "c2VjcmV0", "abs_custom_endpoint_url": url});
    for storage in [
        json!({"name": "s3", "bucket": "b", "storage_type": "s3", "aws_s3": s3}),
        json!({"name": "gcs", "bucket": "b", "storage_type": "gcs", "gcs_credentials": google.to_string()}),
        json!({"name": "abs", "bucket": "b", "storage_type": "abs", "azure_blob": azure}),
    ] {
        let name = storage["name"].as_str().unwrap();
        service.ok("POST", "/api/v2/external_storage", "", &storage);
        let (code, why) = service.refused("GET", &format!("/api/v2/external_storage/{name}/check"), "", &json!({}));
        assert_eq!(code, 4, "{why}");
        check_harmless(name, &why);
    }
    let letters = || service.ok("GET", "/api/v2/app/dead_letters", "", &json!({}));
    eventually("the hook is given up", || letters()["count"] != 0);
    let why = letters()["dead_letters"][0]["error"].as_str().unwrap().to_string();
    assert!(why.contains("hooks_to_private_addresses"), "{why}");
    assert_eq!(came.load(Ordering::Relaxed), 0, "nobody came");
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    eventually("who comes is counted", || came.load(Ordering::Relaxed) == 1);
}

#[test]
fn a_redirect_leads_nowhere() {
    let (port, came) = listener();
    let answer: &'static str = format!("307 Temporary Redirect\r\nlocation: http://127.0.0.1:{port}/").leak();
    let receiver = Receiver::answering(move |_| answer);
    let service = Service::start_with(|config| config.hooks_to_private_addresses = true);
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_url": receiver.url}));
    service.ok("POST", "/api/v2/video/call/default/a", "", &json!({"data": {"created_by_id": "alice"}}));
    eventually("it is tried again", || receiver.got().len() > 1);
    assert_eq!(came.load(Ordering::Relaxed), 0);
}
