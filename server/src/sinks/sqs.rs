//! One event into an Amazon SQS queue.
//!
//! In: a body, a queue. Out: whether it was taken. The message is base64 of the JSON, or of its gzip. Into a FIFO queue each call
//! goes in order, and an event that is sent again is one message.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Config, ConfigBag, Credentials, Intercept, Region, RuntimeComponents};
use aws_sdk_sqs::error::ProvideErrorMetadata as _;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Limited;
use sha2::{Digest as _, Sha256};

use super::webhook::gzip;
use super::{Parcel, Queue};
use crate::keys::hex;
use crate::outward::{chain, check_url, public_addresses};

/// Longest name of a group of messages.
const MAX_GROUP_CHARS: usize = 128;
/// Longest answer: it says little more than that the message was taken.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Delivers into queues.
pub(super) struct Queues {
    may_be_private: bool,
    open: Mutex<HashMap<String, (Queue, Client)>>,
}

impl Queues {
    pub(super) fn new(may_be_private: bool) -> Self {
        Self { may_be_private, open: Mutex::default() }
    }

    /// Sends an event; else why not.
    pub(super) async fn deliver(
        &self,
        queue: &Queue,
        Parcel { webhook_id, cid, body, compressed, timeout, .. }: Parcel<'_>,
    ) -> Result<(), String> {
        let body = if compressed { STANDARD.encode(gzip(body.as_bytes())) } else { STANDARD.encode(body) };
        let mut message = self.client(queue)?.send_message().queue_url(&queue.url).message_body(body);
        if queue.url.ends_with(".fifo") {
            let cid = cid.to_string();
            let group = if cid.len() <= MAX_GROUP_CHARS { cid } else { hex(&Sha256::digest(cid)) };
            message = message.message_group_id(group).message_deduplication_id(webhook_id);
        }
        match tokio::time::timeout(timeout, message.send()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(match (error.code(), error.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(code), None) => code.to_string(),
                _ => chain(&error),
            }),
            Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
        }
    }

    /// Opened once as long as it is reached in the same way.
    fn client(&self, queue: &Queue) -> Result<Client, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = open.get(&queue.url).filter(|(known, _)| known == queue) {
            return Ok(client.clone());
        }
        let url = check_url(&queue.url, self.may_be_private)?;
        let host = url.host_str().unwrap_or_default();
        let of_host = host.strip_prefix("sqs.").and_then(|rest| rest.split('.').next());
        let region = if queue.region.is_empty() { of_host.unwrap_or("us-east-1") } else { &queue.region };
        let of_environment = |name: &str| std::env::var(name).unwrap_or_default();
        let credentials = if queue.key.is_empty() {
            let token = Some(of_environment("AWS_SESSION_TOKEN")).filter(|token| !token.is_empty());
            let (key, secret) = (of_environment("AWS_ACCESS_KEY_ID"), of_environment("AWS_SECRET_ACCESS_KEY"));
            Credentials::new(key, secret, token, None, "environment")
        } else {
            Credentials::new(&queue.key, &queue.secret.0, None, None, "hook")
        };
        let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
        let http = http.build_with_resolver(Resolver { may_be_private: self.may_be_private });
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_string()))
            .endpoint_url(url.origin().ascii_serialization())
            .credentials_provider(credentials)
            .http_client(http)
            .interceptor(Bounded)
            // What fails is tried again by who asked, in its order.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).build())
            .build();
        let client = Client::from_conf(config);
        open.insert(queue.url.clone(), (queue.clone(), client.clone()));
        Ok(client)
    }
}

/// Reads answers to a limit.
#[derive(Debug)]
struct Bounded;

impl Intercept for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let answer = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(answer, MAX_ANSWER_BYTES));
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Resolver {
    may_be_private: bool,
}

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = public_addresses(name, self.may_be_private).await;
            found
                .map(|found| found.into_iter().map(|address| address.ip()).collect::<Vec<IpAddr>>())
                .map_err(ResolveDnsError::new)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::call::Cid;

    #[tokio::test]
    async fn an_answer_without_end_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/1/queue", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n\r\n").unwrap();
            // Until nobody reads it any more.
            while stream.write_all(&[b' '; 1024]).is_ok() {}
        });
        let queue = Queue { url, region: "us-east-1".into(), key: "key".into(), ..Queue::default() };
        let timeout = Duration::from_secs(60);
        let cid = Cid::new("default", "c").unwrap();
        let parcel = Parcel { webhook_id: "1", cid: &cid, body: "{}", compressed: false, attempt: 1, timeout };
        let error = Queues::new(true).deliver(&queue, parcel).await.unwrap_err();
        assert!(error.contains("length limit exceeded"), "{error}");
        // The connection is closed on this thread.
        tokio::task::spawn_blocking(|| server.join()).await.unwrap().unwrap();
    }
}
