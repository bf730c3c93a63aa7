//! A storage's end: a small HTTP server that keeps what it was asked, and answers as much as uploads and deletions need.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) body: String,
}

/// A status line's status, and a body. It may take its time.
type Answer = dyn Fn(&Asked) -> (&'static str, String) + Send + Sync;

#[derive(Clone)]
pub(crate) struct FakeBucket {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeBucket {
    pub(crate) fn answering(answer: impl Fn(&Asked) -> (&'static str, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let bucket = Self { url: format!("http://{}", listener.local_addr().unwrap()), asked: Arc::default() };
        let (asked, answer): (_, Arc<Answer>) = (bucket.asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asked, answer) = (asked.clone(), answer.clone());
                std::thread::spawn(move || serve(&stream, &asked, &*answer));
            }
        });
        bucket
    }

    /// Everything so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Of one method.
    pub(crate) fn of(&self, method: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.method == method).collect()
    }
}

/// As S3 answers what is in order.
pub(crate) fn in_order(asked: &Asked) -> (&'static str, String) {
    let key = asked.body.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>")).map(|(key, _)| key);
    let deleted = key.map(|key| format!("<DeleteResult><Deleted><Key>{key}</Key></Deleted></DeleteResult>"));
    ("200 OK", deleted.unwrap_or_default())
}

fn serve(stream: &TcpStream, asked: &Mutex<Vec<Asked>>, answer: &Answer) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let (method, path) = line.split_once(' ')?;
        let (method, path) = (method.to_string(), path.split(' ').next()?.to_string());
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let one = Asked { method, path, body: String::from_utf8(body).unwrap() };
        asked.lock().unwrap().push(one.clone());
        let (status, body) = answer(&one);
        let head = "etag: \"1\"\r\nlast-modified: Sat, 28 Nov 2026 00:00:00 GMT";
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()?;
    }
}
