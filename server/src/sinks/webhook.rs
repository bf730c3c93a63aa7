//! One event to one URL.
//!
//! In: a body, its signature, a URL. Out: whether it was taken.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, header};
use sha2::Sha256;

use super::Parcel;
use crate::keys::hex;
use crate::outward::{chain, check_url, client};

/// Of an answer so much is read, that its connection can be used again.
const MOST_ANSWER_BYTES: usize = 16 * 1024;

/// Delivers to URLs.
pub(super) struct Webhooks {
    client: Client,
    api_key: String,
    api_secret: String,
    may_be_private: bool,
}

impl Webhooks {
    pub(super) fn new(api_key: String, api_secret: String, may_be_private: bool) -> Result<Self, reqwest::Error> {
        Ok(Self { client: client(may_be_private).build()?, api_key, api_secret, may_be_private })
    }

    /// Tells of an event; else why not.
    pub(super) async fn deliver(
        &self,
        url: &str,
        Parcel { webhook_id, body, compressed, attempt, timeout, .. }: Parcel<'_>,
    ) -> Result<(), String> {
        let url = check_url(url, self.may_be_private)?;
        let signature = signature(&self.api_secret, body.as_bytes());
        let mut request = self
            .client
            .post(url)
            .timeout(timeout)
            .header(header::CONTENT_TYPE, "application/json")
            .header("X-Signature", signature)
            .header("X-Api-Key", &self.api_key)
            .header("X-Webhook-Id", webhook_id)
            .header("X-Webhook-Attempt", attempt);
        request = if compressed {
            request.header(header::CONTENT_ENCODING, "gzip").body(gzip(body.as_bytes()))
        } else {
            request.body(body.to_string())
        };
        let mut answer = request.send().await.map_err(|error| chain(&error.without_url()))?;
        let status = answer.status();
        let mut read = 0;
        while let Ok(Some(chunk)) = answer.chunk().await {
            read += chunk.len();
            if read > MOST_ANSWER_BYTES {
                break;
            }
        }
        if status.is_success() {
            return Ok(());
        }
        let why = if status.is_redirection() { ": redirects are not followed" } else { "" };
        Err(format!("status {}{why}", status.as_u16()))
    }
}

/// Lower-case hex HMAC-SHA256 of an uncompressed body.
fn signature(secret: &str, body: &[u8]) -> String {
    // A key of any length does.
    Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(body);
            hex(&mac.finalize().into_bytes())
        },
    )
}

pub(super) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_body_is_signed_as_rfc_4231_has_it() {
        let signed = signature("Jefe", b"what do ya want for nothing?");
        assert_eq!(signed, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
