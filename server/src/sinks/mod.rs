//! Where events go that leave the house: a kind of sink a file.
//!
//! In: an event, and a hook's [`Target`]. Out: whether it was taken. When it is tried again, and in which order, is the
//! [hooks'](crate::hooks).
//!
//! A further kind is a variant of [`Target`], its fields in [`Fields`], and what delivers to it in [`Sinks`]: all of it here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::Cid;
use crate::secret::Secret;

#[cfg(feature = "sqs")]
mod sqs;
mod webhook;

/// Why there are no queues.
pub(crate) const WITHOUT_SQS: &str = "this server was built without SQS: build it with the feature `sqs`";

/// Where a hook's events go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A POST each to this URL.
    Webhook {
        /// `https://…` or `http://…`.
        url: String,
    },
    /// A message each into an Amazon SQS queue.
    Sqs(Queue),
}

/// A queue, and how to get in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its URL.
    pub url: String,
    /// The region; empty: that of the URL.
    pub region: String,
    /// The access key's id; empty: of the server's own environment.
    pub key: String,
    /// The access key's secret.
    pub secret: Secret,
}

/// The fields of a hook that are its target's, as they are written.
#[derive(Default, Deserialize)]
pub(crate) struct Fields {
    webhook_url: Option<String>,
    sqs_queue_url: Option<String>,
    sqs_region: Option<String>,
    sqs_key: Option<String>,
    sqs_secret: Option<String>,
}

impl Fields {
    /// Their names.
    pub(crate) const NAMES: [&str; 5] = ["webhook_url", "sqs_queue_url", "sqs_region", "sqs_key", "sqs_secret"];

    /// The URL, where the target is of this kind.
    pub(crate) fn url(&self, kind: &str) -> Option<&str> {
        let url = match kind {
            "webhook" => &self.webhook_url,
            "sqs" => &self.sqs_queue_url,
            _ => &None,
        };
        url.as_deref()
    }
}

impl Target {
    /// The kinds, as clients name them.
    pub(crate) const KINDS: [&str; 2] = ["webhook", "sqs"];

    /// Of which it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Sqs(_) => "sqs",
        }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Webhook { url } => url,
            Self::Sqs(queue) => &queue.url,
        }
    }

    /// Why this server cannot deliver to it, where it cannot.
    pub(crate) fn refused(&self) -> Option<&'static str> {
        match self {
            Self::Sqs(_) if !cfg!(feature = "sqs") => Some(WITHOUT_SQS),
            Self::Webhook { .. } | Self::Sqs(_) => None,
        }
    }

    /// What is shown of it: no secret.
    pub(crate) fn shown(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Webhook { url } => vec![("webhook_url", url)],
            Self::Sqs(queue) => vec![("sqs_queue_url", &queue.url), ("sqs_region", &queue.region)],
        }
    }

    /// As it is written, in the place of what is `known`: what is never given back is not sent back either.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn written(kind: &str, fields: Fields, known: Option<&Self>) -> Result<Self, String> {
        let given = |url: Option<String>| url.filter(|url| !url.is_empty());
        match kind {
            "webhook" => Ok(Self::Webhook { url: given(fields.webhook_url).ok_or("webhook_url is missing")? }),
            "sqs" => {
                let url = given(fields.sqs_queue_url).ok_or("sqs_queue_url is missing")?;
                let kept = match known {
                    Some(Self::Sqs(queue)) => queue.clone(),
                    _ => Queue::default(),
                };
                Ok(Self::Sqs(Queue {
                    url,
                    region: fields.sqs_region.unwrap_or(kept.region),
                    key: given(fields.sqs_key).unwrap_or(kept.key),
                    secret: given(fields.sqs_secret).map_or(kept.secret, Secret),
                }))
            }
            other => {
                let shown: String = other.chars().take(100).collect();
                Err(format!("hook_type is `{shown}`: allowed are {}", Self::KINDS.join(", ")))
            }
        }
    }
}

/// An event on its way.
pub(crate) struct Parcel<'a> {
    /// The same, however often it is tried.
    pub(crate) webhook_id: &'a str,
    /// Whose events stay in order.
    #[cfg_attr(not(feature = "sqs"), expect(dead_code, reason = "queues alone have an order of their own"))]
    pub(crate) cid: &'a Cid,
    /// Its JSON.
    pub(crate) body: &'a str,
    /// Whether it goes as gzip.
    pub(crate) compressed: bool,
    /// Counts from 1.
    pub(crate) attempt: u32,
    /// What this one may take.
    pub(crate) timeout: Duration,
}

/// All kinds of sinks.
pub(crate) struct Sinks {
    webhooks: webhook::Webhooks,
    #[cfg(feature = "sqs")]
    queues: sqs::Queues,
}

impl Sinks {
    /// # Errors
    /// Where TLS cannot be had.
    pub(crate) fn new(api_key: String, api_secret: String, may_be_private: bool) -> Result<Self, reqwest::Error> {
        Ok(Self {
            webhooks: webhook::Webhooks::new(api_key, api_secret, may_be_private)?,
            #[cfg(feature = "sqs")]
            queues: sqs::Queues::new(may_be_private),
        })
    }

    /// Delivers an event; else why not.
    pub(crate) async fn deliver(&self, target: &Target, parcel: Parcel<'_>) -> Result<(), String> {
        match target {
            Target::Webhook { url } => self.webhooks.deliver(url, parcel).await,
            #[cfg(feature = "sqs")]
            Target::Sqs(queue) => self.queues.deliver(queue, parcel).await,
            #[cfg(not(feature = "sqs"))]
            Target::Sqs(_) => Err(WITHOUT_SQS.into()),
        }
    }
}
