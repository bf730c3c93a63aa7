//! HTTP to storages.
//!
//! In: requests of the library's. Out: their answers, of which no more is read than a storage has to say: the library reads each to
//! its end, wherever it was sent.

use std::pin::Pin;

use http_body_util::{BodyExt as _, Limited};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, Error};

use super::bucket::REQUEST_TIMEOUT;
use crate::outward::client;

/// Longest answer: files are put, and never read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Connects to wherever a storage is.
#[derive(Debug)]
pub(super) struct Connector {
    /// To addresses that the whole net has, without following a redirect, and to no others.
    pub(super) is_guarded: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = if self.is_guarded {
            let client = client(false).timeout(REQUEST_TIMEOUT).build();
            HttpClient::new(client.map_err(|error| Error::Generic { store: "HTTP", source: Box::new(error) })?)
        } else {
            ReqwestConnector::default().connect(options)?
        };
        Ok(HttpClient::new(Bounded(client)))
    }
}

#[derive(Debug)]
struct Bounded(HttpClient);

impl HttpService for Bounded {
    fn call<'a, 'answer>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'answer>>
    where
        'a: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            let bounded = |body| {
                let body = Limited::new(body, MAX_ANSWER_BYTES);
                HttpResponseBody::new(body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error)))
            };
            Ok(self.0.execute(request).await?.map(bounded))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use crate::storage::{Bucket, S3, StorageConfig, StorageType};

    // The connection is closed by another thread than the one that waits for it.
    #[tokio::test(flavor = "multi_thread")]
    async fn of_an_answer_without_an_end_not_much_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let storage = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 64 * 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            let (head, part) = ("HTTP/1.1 403 Forbidden\r\nContent-Length: 1073741824\r\n\r\n", [b'x'; 64 * 1024]);
            stream.write_all(head.as_bytes()).unwrap();
            (0..16 * 1024).take_while(|_| stream.write_all(&part).is_ok()).count() * part.len()
        });
        let config = StorageConfig {
            bucket: "b".into(),
            path: String::new(),
            storage_type: StorageType::S3,
            aws_s3: Some(S3 {
                s3_region: "r".into(),
                s3_api_key: "key".into(),
                s3_secret: crate::app::Secret("secret".into()),
                s3_custom_endpoint_url: url,
            }),
            gcs_credentials: None,
            azure_blob: None,
        };
        let bucket = Bucket::open(&config, true).unwrap();
        let error = bucket.put("x", b"{}".to_vec(), "application/jsonl").await.unwrap_err();
        assert!(error.contains("it cannot be reached, or fails"), "{error}");
        // What the system's buffers hold was sent too.
        let sent = storage.join().unwrap();
        assert!(sent < 64 * 1024 * 1024, "{sent} bytes were taken");
    }
}
