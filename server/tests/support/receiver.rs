//! A hook's end: a small HTTP server that keeps what it was sent.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// Uncompressed.
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The event's type, and its call's id.
    pub(crate) fn what(&self) -> (String, String) {
        let event = self.event();
        let cid = event["call_cid"].as_str().unwrap();
        (event["type"].as_str().unwrap().to_string(), cid.split_once(':').unwrap().1.to_string())
    }

    pub(crate) fn id(&self) -> &str {
        &self.headers["x-webhook-id"]
    }

    pub(crate) fn is_signed(&self, secret: &str) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(self.body.as_bytes());
        let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.headers["x-signature"] == expected
    }
}

/// What is answered: a status line's status and further headers. It may take its time.
type Answer = dyn Fn(&Got) -> &'static str + Send + Sync;

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    /// Takes everything.
    pub(crate) fn start() -> Self {
        Self::answering(|_| "200 OK")
    }

    pub(crate) fn answering(answer: impl Fn(&Got) -> &'static str + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let receiver = Self { url, got: Arc::default() };
        let (got, answer): (_, Arc<Answer>) = (receiver.got.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (got, answer) = (got.clone(), answer.clone());
                std::thread::spawn(move || serve(&stream, &got, &*answer));
            }
        });
        receiver
    }

    /// Everything so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Types of events of a call, in the order in which they came.
    pub(crate) fn types(&self, call: &str) -> Vec<String> {
        self.got().iter().map(Got::what).filter(|(_, of)| of == call).map(|(event_type, _)| event_type).collect()
    }
}

fn serve(stream: &TcpStream, got: &Mutex<Vec<Got>>, answer: &Answer) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut headers = HashMap::new();
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_string());
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).ok()?;
        let body = if headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
            let mut text = String::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
            text
        } else {
            String::from_utf8(body).unwrap()
        };
        let one = Got { headers, body };
        got.lock().unwrap().push(one.clone());
        let status = answer(&one);
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}
