//! One event into an Amazon SQS queue.
//!
//! In: a body, a queue. Out: whether it was taken. The message is base64 of the JSON, or of its gzip. Into a FIFO queue each call
//! goes in order, and an event that is sent again is one message.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_sqs::error::ProvideErrorMetadata as _;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::webhook::gzip;
use super::{Parcel, Queue};
use crate::keys::hex;
use crate::outward::{chain, check_url, public_addresses};

/// Longest name of a group of messages.
const MAX_GROUP_CHARS: usize = 128;

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
            // What fails is tried again by who asked, in its order.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).build())
            .build();
        let client = Client::from_conf(config);
        open.insert(queue.url.clone(), (queue.clone(), client.clone()));
        Ok(client)
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
