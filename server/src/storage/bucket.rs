//! A bucket: at Amazon and whoever is compatible, Google, Azure.
//!
//! In: names and whole files. Out: where they are. A file is written under a new name or not at all, by the storage's own
//! condition; nothing else is ever done to an external one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3Key, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as GcsKey};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::Connector;
use super::config::{StorageConfig, StorageType};
use crate::outward::{chain, check_url};
use crate::retry::Seldom;

/// One request, and all attempts of one operation: what fails is tried again by who asked.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MOST_RETRIES: usize = 1;
/// Of what a storage says, characters that are logged.
const MOST_LOGGED: usize = 1000;
/// All that is taken of the environment: who we are, and never where to.
const S3_CREDENTIALS: [S3Key; 12] = [
    S3Key::AccessKeyId,
    S3Key::SecretAccessKey,
    S3Key::Token,
    S3Key::WebIdentityTokenFile,
    S3Key::RoleArn,
    S3Key::RoleSessionName,
    S3Key::StsEndpoint,
    S3Key::ContainerCredentialsRelativeUri,
    S3Key::ContainerCredentialsFullUri,
    S3Key::ContainerAuthorizationTokenFile,
    S3Key::MetadataEndpoint,
    S3Key::ImdsV1Fallback,
];
const GCS_CREDENTIALS: [GcsKey; 4] =
    [GcsKey::ServiceAccount, GcsKey::ServiceAccountKey, GcsKey::ApplicationCredentials, GcsKey::BearerToken];
/// What stays as it is in a URL's path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Where a file is, whatever is set of its storage later on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket, or Azure's container.
    pub bucket: String,
    /// The whole name in it.
    pub key: String,
    /// The URL for those who may read the bucket.
    pub url: String,
}

/// An open bucket.
#[derive(Clone)]
pub struct Bucket {
    files: Arc<dyn ObjectStore>,
    signer: Arc<dyn Signer>,
    name: String,
    /// What names begin with.
    path: String,
    /// What plain URLs begin with.
    base_url: String,
    failures: Arc<Seldom>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("base_url", &self.base_url).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Reached like this. Nothing is asked of it so far. Unless it `may_be_private` its own URLs lead to addresses that the whole
    /// net has, and nowhere else.
    ///
    /// # Errors
    /// What makes no sense, or is not allowed.
    pub fn open(config: &StorageConfig, may_be_private: bool) -> Result<Self, String> {
        config.check()?;
        crate::outward::install_tls();
        let urls = config.urls();
        for url in urls.iter().filter(|_| !may_be_private) {
            check_url(url, false).map_err(|why| format!("the storage's URL `{url:.100}`: {why}"))?;
        }
        // Where the storages of its kind are, and where a cloud's machines get their credentials, nobody else says.
        let is_guarded = !may_be_private && !urls.is_empty();
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
                    s3_credentials_of(&AmazonS3Builder::from_env())
                } else {
                    AmazonS3Builder::new().with_access_key_id(s3.s3_api_key).with_secret_access_key(s3.s3_secret.0)
                };
                builder = builder
                    .with_bucket_name(bucket)
                    .with_region(&s3.s3_region)
                    .with_conditional_put(S3ConditionalPut::ETagMatch)
                    .with_client_options(options().with_allow_http(endpoint.starts_with("http://")))
                    .with_retry(retry)
                    .with_http_connector(Connector { is_guarded });
                let base_url = if endpoint.is_empty() && bucket.contains('.') {
                    // Amazon's certificate is for one name below its own.
                    format!("https://s3.{}.amazonaws.com/{bucket}", s3.s3_region)
                } else if endpoint.is_empty() {
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
                    None => gcs_credentials_of(&GoogleCloudStorageBuilder::from_env()),
                };
                let base_url = config.gcs_base_url().unwrap_or_else(|| "https://storage.googleapis.com".into());
                builder = builder
                    .with_bucket_name(bucket)
                    .with_base_url(&base_url)
                    .with_client_options(options().with_allow_http(base_url.starts_with("http://")))
                    .with_retry(retry)
                    .with_http_connector(Connector { is_guarded });
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
                    .with_retry(retry)
                    .with_http_connector(Connector { is_guarded });
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
        let (name, path) = (bucket.clone(), config.path.trim_matches('/').to_string());
        Ok(Self { files, signer, name, path, base_url, failures: Arc::default() })
    }

    /// Where a file of this name goes.
    fn place_of(&self, name: &str) -> Place {
        let key = if self.path.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.path)) };
        Place { bucket: self.name.clone(), url: self.url(key.as_ref()), key: key.into() }
    }

    /// The way to what was put here: not to what has the same name somewhere else, where this leads by now.
    fn path_to(&self, place: &Place) -> Result<Path, String> {
        if self.url(&place.key) == place.url {
            return Ok(Path::from(&*place.key));
        }
        Err(format!("it leads to {} by now, and the file is at {}", self.base_url, place.url))
    }

    /// Writes a whole file under a new name, and gives where it is.
    ///
    /// A name that is taken is this very file's: an earlier attempt whose answer was lost. Names have an id in them that nobody
    /// else has.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn put(&self, name: &str, bytes: Vec<u8>, content_type: &'static str) -> Result<Place, String> {
        let place = self.place_of(name);
        let mut options = PutOptions::from(PutMode::Create);
        options.attributes.insert(object_store::Attribute::ContentType, content_type.into());
        match self.files.put_opts(&Path::from(&*place.key), PutPayload::from(bytes), options).await {
            Ok(_) => Ok(place),
            Err(error) if is_there(&error) => Ok(place),
            Err(error) => Err(self.why(&error)),
        }
    }

    /// Deletes a file; one that is gone already is no error.
    ///
    /// # Errors
    /// Why it is still there.
    pub(crate) async fn delete(&self, place: &Place) -> Result<(), String> {
        match self.files.delete(&self.path_to(place)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.why(&error)),
        }
    }

    /// Where what has this key is, for those who may read the bucket.
    #[must_use]
    pub(crate) fn url(&self, key: &str) -> String {
        format!("{}/{}", self.base_url, utf8_percent_encode(key, PLAIN))
    }

    /// Where a file can be fetched from now on, for a while.
    ///
    /// # Errors
    /// Why it cannot be signed.
    pub(crate) async fn signed_url(&self, place: &Place, expires_in: Duration) -> Result<String, String> {
        let url = self.signer.signed_url(http::Method::GET, &self.path_to(place)?, expires_in).await;
        url.map(String::from).map_err(|error| self.why(&error))
    }

    /// Why a storage refuses, for whoever watches a call. Its own words, which may have more in them than all should read, are
    /// logged.
    fn why(&self, error: &Error) -> String {
        let all = chain(error);
        if let Some(others) = self.failures.is_due(Instant::now()) {
            let said: String = all.chars().take(MOST_LOGGED).collect();
            tracing::warn!("{}: {said}; {others} failures before it were not logged", self.base_url);
        }
        let why = match error {
            Error::NotFound { .. } => "the bucket is not there",
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                "access is denied: look at its credentials"
            }
            _ => "it cannot be reached, or fails",
        };
        code_of(&all).map_or_else(|| why.to_string(), |code| format!("{why} ({code})"))
    }
}

/// Whether a file of this name is there: that is what the condition says, and on Azure this code. 409 has many other reasons, of
/// which the library makes the same error: an upload that is still under way, a container that is being deleted.
fn is_there(error: &Error) -> bool {
    let Error::AlreadyExists { source, .. } = error else { return false };
    let said = chain(&**source);
    // The library's own words: what the storage says comes behind them.
    let status = said.split_once("status code: ").map_or("", |(_, status)| status);
    ["412", "304"].iter().any(|code| status.starts_with(code)) || code_of(&said) == Some("BlobAlreadyExists")
}

/// The code in a storage's answer.
fn code_of(said: &str) -> Option<&str> {
    let (code, _) = said.split_once("<Code>")?.1.split_once("</Code>")?;
    Some(code).filter(|code| code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric()))
}

fn s3_credentials_of(environment: &AmazonS3Builder) -> AmazonS3Builder {
    let known = S3_CREDENTIALS.into_iter().filter_map(|key| Some((key, environment.get_config_value(&key)?)));
    known.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
}

fn gcs_credentials_of(environment: &GoogleCloudStorageBuilder) -> GoogleCloudStorageBuilder {
    let known = GCS_CREDENTIALS.into_iter().filter_map(|key| Some((key, environment.get_config_value(&key)?)));
    known.fold(GoogleCloudStorageBuilder::new(), |builder, (key, value)| builder.with_config(key, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::S3;

    #[test]
    fn the_environment_says_who_we_are_and_not_where_to() {
        let said = [
            (S3Key::AccessKeyId, "AKIA"),
            (S3Key::SecretAccessKey, "secret"),
            (S3Key::Token, "token"),
            (S3Key::Endpoint, "https://elsewhere.example"),
            (S3Key::S3Endpoint, "https://elsewhere.example"),
            (S3Key::SkipSignature, "true"),
            (S3Key::VirtualHostedStyleRequest, "true"),
        ];
        let environment = said.iter().fold(AmazonS3Builder::new(), |all, (key, value)| all.with_config(*key, *value));
        let taken = s3_credentials_of(&environment);
        for (key, value) in &said[..3] {
            assert_eq!(taken.get_config_value(key).as_deref(), Some(*value));
        }
        assert_eq!(taken.get_config_value(&S3Key::Endpoint).or(taken.get_config_value(&S3Key::S3Endpoint)), None);
        for key in [S3Key::SkipSignature, S3Key::VirtualHostedStyleRequest] {
            assert_eq!(taken.get_config_value(&key).as_deref(), Some("false"), "{key:?}");
        }
        let said = [(GcsKey::BearerToken, "token"), (GcsKey::BaseUrl, "https://elsewhere.example")];
        let environment = said.iter().fold(GoogleCloudStorageBuilder::new(), |all, (k, v)| all.with_config(*k, *v));
        let taken = gcs_credentials_of(&environment);
        assert_eq!(taken.get_config_value(&GcsKey::BearerToken).as_deref(), Some("token"));
        assert_eq!(taken.get_config_value(&GcsKey::BaseUrl), None);
    }

    fn s3(bucket: &str, endpoint: &str) -> StorageConfig {
        let s3 = S3 {
            s3_region: "eu-west-1".into(),
            s3_api_key: "AKIA".into(),
            s3_secret: crate::secret::Secret("secret".into()),
            s3_custom_endpoint_url: endpoint.into(),
        };
        StorageConfig {
            storage_type: StorageType::S3,
            bucket: bucket.into(),
            path: "a/".into(),
            aws_s3: Some(s3),
            gcs_credentials: None,
            azure_blob: None,
        }
    }

    #[tokio::test]
    async fn what_a_storage_says_is_logged_now_and_then() {
        let open = Bucket::open(&s3("captions", "http://127.0.0.1:1"), true).unwrap();
        let now = Instant::now();
        assert!(open.clone().put("f.txt", Vec::new(), "text/plain").await.is_err());
        assert_eq!(open.failures.is_due(now), None, "it was logged, of all that lead there");
    }

    #[tokio::test]
    async fn plain_and_signed_urls_are_of_the_same_host_and_have_amazons_certificate() {
        for (bucket, expected) in [
            ("captions", "https://captions.s3.eu-west-1.amazonaws.com/a/f.txt"),
            ("captions.example.org", "https://s3.eu-west-1.amazonaws.com/captions.example.org/a/f.txt"),
        ] {
            let open = Bucket::open(&s3(bucket, ""), true).unwrap();
            let place = open.place_of("f.txt");
            assert_eq!((place.key.as_str(), place.url.as_str()), ("a/f.txt", expected));
            let signed = open.signed_url(&place, Duration::from_secs(60)).await.unwrap();
            assert_eq!(signed.split_once('?').unwrap().0, expected);
        }
    }
}
