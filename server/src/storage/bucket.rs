//! A bucket: at Amazon and whoever is compatible, Google, Azure.
//!
//! In: names and whole files. Out: where they are. A file is written under a new name or not at all, by the storage's own
//! condition; nothing else is ever done to an external one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::config::{StorageConfig, StorageType};
use crate::hooks::chain;

/// One request, and all attempts of one operation: what fails is tried again by who asked.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MOST_RETRIES: usize = 1;
/// What stays as it is in a URL's path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// An open bucket.
#[derive(Clone)]
pub struct Bucket {
    files: Arc<dyn ObjectStore>,
    signer: Arc<dyn Signer>,
    /// What names begin with.
    path: String,
    /// What plain URLs begin with.
    base_url: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("base_url", &self.base_url).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Reached like this. Nothing is asked of it so far.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn open(config: &StorageConfig) -> Result<Self, String> {
        config.check()?;
        crate::tls::install();
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: MOST_RETRIES,
            retry_timeout: REQUEST_TIMEOUT,
        };
        let options = || {
            ClientOptions::new()
                .with_timeout(REQUEST_TIMEOUT)
                .with_connect_timeout(CONNECT_TIMEOUT)
                .with_user_agent(object_store::HeaderValue::from_static("cuewire"))
        };
        let text = |error: Error| chain(&error);
        let bucket = &config.bucket;
        let (files, signer, base_url): (Arc<dyn ObjectStore>, Arc<dyn Signer>, String) = match config.storage_type {
            StorageType::S3 => {
                let s3 = config.aws_s3.clone().unwrap_or_default();
                let endpoint = s3.s3_custom_endpoint_url.trim_end_matches('/').to_string();
                let mut builder = if s3.s3_api_key.is_empty() {
                    AmazonS3Builder::from_env()
                } else {
                    AmazonS3Builder::new().with_access_key_id(s3.s3_api_key).with_secret_access_key(s3.s3_secret.0)
                };
                builder = builder
                    .with_bucket_name(bucket)
                    .with_region(&s3.s3_region)
                    .with_conditional_put(S3ConditionalPut::ETagMatch)
                    .with_client_options(options().with_allow_http(endpoint.starts_with("http://")))
                    .with_retry(retry);
                let base_url = if endpoint.is_empty() {
                    builder = builder.with_virtual_hosted_style_request(true);
                    format!("https://{bucket}.s3.{}.amazonaws.com", s3.s3_region)
                } else {
                    builder = builder.with_endpoint(&endpoint);
                    format!("{endpoint}/{bucket}")
                };
                let files = Arc::new(builder.build().map_err(text)?);
                (files.clone(), files, base_url)
            }
            StorageType::Gcs => {
                let mut builder = match &config.gcs_credentials {
                    Some(key) => GoogleCloudStorageBuilder::new().with_service_account_key(&key.0),
                    None => GoogleCloudStorageBuilder::from_env(),
                };
                let base_url = config.gcs_base_url().unwrap_or_else(|| "https://storage.googleapis.com".into());
                builder = builder
                    .with_bucket_name(bucket)
                    .with_client_options(options().with_allow_http(base_url.starts_with("http://")))
                    .with_retry(retry);
                // Its text would have the key in it.
                let broken = |error: Error| match error {
                    Error::Generic { .. } => "gcs_credentials: not a service account's key, as JSON".to_string(),
                    other => chain(&other),
                };
                let files = Arc::new(builder.build().map_err(broken)?);
                (files.clone(), files, format!("{base_url}/{bucket}"))
            }
            StorageType::Abs => {
                let azure = config.azure_blob.clone().unwrap_or_default();
                let endpoint = azure.abs_custom_endpoint_url.trim_end_matches('/').to_string();
                let is_plain = endpoint.starts_with("http://") || azure.abs_authority_host.starts_with("http://");
                let mut builder = MicrosoftAzureBuilder::new()
                    .with_account(&azure.abs_account_name)
                    .with_container_name(bucket)
                    .with_client_options(options().with_allow_http(is_plain))
                    .with_retry(retry);
                builder = if azure.abs_account_key.0.is_empty() {
                    builder.with_client_secret_authorization(
                        azure.abs_client_id,
                        azure.abs_client_secret.0,
                        azure.abs_tenant_id,
                    )
                } else {
                    builder.with_access_key(azure.abs_account_key.0)
                };
                if !azure.abs_authority_host.is_empty() {
                    builder = builder.with_authority_host(azure.abs_authority_host);
                }
                let base_url = if endpoint.is_empty() {
                    format!("https://{}.blob.core.windows.net/{bucket}", azure.abs_account_name)
                } else {
                    builder = builder.with_endpoint(endpoint.clone());
                    format!("{endpoint}/{bucket}")
                };
                let files = Arc::new(builder.build().map_err(text)?);
                (files.clone(), files, base_url)
            }
        };
        Ok(Self { files, signer, path: config.path.trim_matches('/').to_string(), base_url })
    }

    fn path_of(&self, name: &str) -> Path {
        if self.path.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.path)) }
    }

    /// Writes a whole file under a new name.
    ///
    /// A name that is taken is this very file's: an earlier attempt whose answer was lost. Names have an id in them that nobody
    /// else has.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn put(&self, name: &str, bytes: Vec<u8>, content_type: &'static str) -> Result<(), String> {
        let mut options = PutOptions::from(PutMode::Create);
        options.attributes.insert(object_store::Attribute::ContentType, content_type.into());
        match self.files.put_opts(&self.path_of(name), PutPayload::from(bytes), options).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(why(&error)),
        }
    }

    /// Deletes a file; one that is gone already is no error.
    ///
    /// # Errors
    /// Why it is still there.
    pub async fn delete(&self, name: &str) -> Result<(), String> {
        match self.files.delete(&self.path_of(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(why(&error)),
        }
    }

    /// Where a file is, for those who may read the bucket.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("{}/{}", self.base_url, utf8_percent_encode(self.path_of(name).as_ref(), PLAIN))
    }

    /// Where a file can be fetched from now on, for a while.
    ///
    /// # Errors
    /// Why it cannot be signed.
    pub async fn signed_url(&self, name: &str, expires_in: Duration) -> Result<String, String> {
        let url = self.signer.signed_url(http::Method::GET, &self.path_of(name), expires_in).await;
        url.map(String::from).map_err(|error| why(&error))
    }
}

/// Why a storage refuses, for whoever watches a call. Its own words, which may have more in them than all should read, are logged.
fn why(error: &Error) -> String {
    let all = chain(error);
    tracing::warn!("a storage: {all}");
    let code = all.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    let why = match error {
        Error::NotFound { .. } => "the bucket is not there",
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => "access is denied: look at its credentials",
        _ => "it cannot be reached, or fails",
    };
    let is_plain = |code: &&str| code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric());
    code.filter(is_plain).map_or_else(|| why.to_string(), |code| format!("{why} ({code})"))
}
