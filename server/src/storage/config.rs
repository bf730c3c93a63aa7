//! How a storage is reached.
//!
//! In: the fields that clients send, or the same in the configuration file. Out: a [`StorageConfig`], checked.

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Longest name of a bucket, a region, an account; longest path in a bucket.
pub(crate) const MAX_NAME_BYTES: usize = 255;
pub(crate) const MAX_PATH_BYTES: usize = 512;

/// Where files go, under the names of the clients' fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Of which kind it is.
    pub storage_type: StorageType,
    /// The bucket, or Azure's container.
    pub bucket: String,
    /// What names of files begin with.
    #[serde(default)]
    pub path: String,
    /// Of `s3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_s3: Option<S3>,
    /// Of `gcs`: a service account's key, as JSON; without it the environment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs_credentials: Option<Secret>,
    /// Of `abs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure_blob: Option<Azure>,
}

/// The kinds of storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageType {
    /// Amazon S3, and what is compatible with it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Abs,
}

impl StorageType {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Abs];

    /// As clients name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Abs => "abs",
        }
    }
}

/// An object of a [`StorageConfig`] as it is written: those of its fields that are read, and that are needed; all are text.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) needed: &'static [&'static str],
    pub(crate) fields: &'static [&'static str],
}

/// A kind's own fields, of [`S3`] and [`Azure`],
pub(crate) const PARTS: [Part; 2] = [
    Part {
        name: "aws_s3",
        needed: &["s3_region"],
        fields: &["s3_region", "s3_api_key", "s3_secret", "s3_custom_endpoint_url"],
    },
    Part {
        name: "azure_blob",
        needed: &["abs_account_name"],
        fields: &[
            "abs_account_name",
            "abs_client_id",
            "abs_client_secret",
            "abs_tenant_id",
            "abs_account_key",
            "abs_custom_endpoint_url",
            "abs_authority_host",
        ],
    },
];
/// and those that are one text.
pub(crate) const TEXTS: [&str; 1] = ["gcs_credentials"];

/// How an S3 bucket is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The region.
    pub s3_region: String,
    /// The access key's id; empty: of the server's own environment, or of the machine's role.
    #[serde(default)]
    pub s3_api_key: String,
    /// The access key's secret.
    #[serde(default)]
    pub s3_secret: Secret,
    /// Where it is, if not at Amazon.
    #[serde(default)]
    pub s3_custom_endpoint_url: String,
}

/// How an Azure container is reached: by a client's secret, or by the account's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Azure {
    /// The storage account.
    pub abs_account_name: String,
    /// The registered application.
    #[serde(default)]
    pub abs_client_id: String,
    /// Its secret.
    #[serde(default)]
    pub abs_client_secret: Secret,
    /// Whose application it is.
    #[serde(default)]
    pub abs_tenant_id: String,
    /// The account's key, in place of the application.
    #[serde(default)]
    pub abs_account_key: Secret,
    /// Where it is, if not at Azure's public cloud.
    #[serde(default)]
    pub abs_custom_endpoint_url: String,
    /// Where tokens are issued, if not there.
    #[serde(default)]
    pub abs_authority_host: String,
}

impl StorageConfig {
    /// Whether it is whole.
    ///
    /// # Errors
    /// What is missing, or makes no sense.
    pub fn check(&self) -> Result<(), String> {
        let Self { bucket, path, .. } = self;
        // Parts of URLs, of hosts' names among them: what they lead to is not theirs to say.
        let is_name = |name: &str, also: &str| {
            let is_char = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
            (1..=MAX_NAME_BYTES).contains(&name.len()) && name.chars().all(is_char)
        };
        let checked = |field: &str, name: &str, also: &str| {
            if is_name(name, also) {
                return Ok(());
            }
            let shown: String = name.chars().take(100).collect();
            let also: Vec<_> = also.chars().map(String::from).collect();
            let also = if also.is_empty() { String::new() } else { format!(" and `{}`", also.join("`, `")) };
            Err(format!("{field} is `{shown}`: allowed are 1 – {MAX_NAME_BYTES} letters, digits{also}"))
        };
        checked("bucket", bucket, "-_.$")?;
        // Of other characters clients, storages and signatures have different spellings.
        let is_plain = |name: &str| {
            let is_char = |c: char| c.is_ascii_alphanumeric() || "-_.=".contains(c);
            !name.is_empty() && name != "." && name != ".." && name.chars().all(is_char)
        };
        let names = path.trim_matches('/');
        if path.len() > MAX_PATH_BYTES || !(names.is_empty() || names.split('/').all(is_plain)) {
            let why =
                "allowed are names of letters, digits, `-`, `_`, `.` and `=`, parted by `/`, none of them `.` or `..`";
            return Err(format!("path: {why}, of {MAX_PATH_BYTES} bytes in all"));
        }
        let is_url = |url: &str| url.is_empty() || is_http_url(url);
        match (self.storage_type, &self.aws_s3, &self.azure_blob) {
            (StorageType::S3, Some(s3), _) => {
                checked("aws_s3.s3_region", &s3.s3_region, "-_")?;
                if s3.s3_api_key.is_empty() != s3.s3_secret.0.is_empty() {
                    return Err("aws_s3: set both s3_api_key and s3_secret, or neither; a secret is kept only where \
                                s3_custom_endpoint_url stays"
                        .into());
                }
                if !is_url(&s3.s3_custom_endpoint_url) {
                    return Err("aws_s3.s3_custom_endpoint_url: allowed is https://minio.example.org".into());
                }
            }
            (StorageType::S3, None, _) => return Err("aws_s3 is missing".into()),
            (StorageType::Abs, _, Some(azure)) => {
                let client = [&azure.abs_client_id, &azure.abs_client_secret.0, &azure.abs_tenant_id];
                let has_client = client.iter().all(|field| !field.is_empty());
                if azure.abs_account_name.is_empty() || (!has_client && azure.abs_account_key.0.is_empty()) {
                    return Err("azure_blob: abs_account_name is needed, and abs_client_id, abs_client_secret and \
                                abs_tenant_id, or abs_account_key; secrets are kept only where what they go to stays"
                        .into());
                }
                checked("azure_blob.abs_account_name", &azure.abs_account_name, "-")?;
                if has_client {
                    checked("azure_blob.abs_tenant_id", &azure.abs_tenant_id, "-.")?;
                }
                if !is_url(&azure.abs_custom_endpoint_url) || !is_url(&azure.abs_authority_host) {
                    return Err("azure_blob: abs_custom_endpoint_url and abs_authority_host are URLs".into());
                }
            }
            (StorageType::Abs, _, None) => return Err("azure_blob is missing".into()),
            (StorageType::Gcs, ..) => {
                if self.gcs_base_url().is_some_and(|url| !is_http_url(&url)) {
                    return Err("gcs_credentials: its gcs_base_url is no URL".into());
                }
            }
        }
        Ok(())
    }

    /// The URLs in it: where requests go, if not to where its kind of storage is.
    pub(super) fn urls(&self) -> Vec<String> {
        let s3 = self.aws_s3.iter().map(|s3| s3.s3_custom_endpoint_url.clone());
        let azure = self.azure_blob.iter();
        let azure = azure.flat_map(|azure| [azure.abs_custom_endpoint_url.clone(), azure.abs_authority_host.clone()]);
        let urls = match self.storage_type {
            StorageType::S3 => s3.collect(),
            StorageType::Abs => azure.collect(),
            StorageType::Gcs => Vec::from_iter(self.gcs_base_url()),
        };
        urls.into_iter().filter(|url: &String| !url.is_empty()).collect()
    }

    /// Where the credentials say that Google is, if not there.
    pub(super) fn gcs_base_url(&self) -> Option<String> {
        let key: serde_json::Value = serde_json::from_str(&self.gcs_credentials.as_ref()?.0).ok()?;
        Some(key["gcs_base_url"].as_str()?.trim_end_matches('/').to_string())
    }

    /// With the secrets of what it takes the place of, where it has none of its own: as long as they go where they went before.
    /// Who may write a storage need not know its secrets, and is not to have them sent to a host of their own.
    #[must_use]
    pub fn or_secrets_of(mut self, before: Self) -> Self {
        if let (Some(s3), Some(kept)) = (&mut self.aws_s3, before.aws_s3)
            && s3.s3_secret.0.is_empty()
            && (s3.s3_api_key.is_empty() || s3.s3_api_key == kept.s3_api_key)
        {
            // The key's id alone is refused: without both it would be the environment's.
            s3.s3_api_key = kept.s3_api_key;
            if s3.s3_custom_endpoint_url == kept.s3_custom_endpoint_url {
                s3.s3_secret = kept.s3_secret;
            }
        }
        if self.storage_type == before.storage_type {
            // They say themselves where they go.
            self.gcs_credentials = self.gcs_credentials.or(before.gcs_credentials);
        }
        if let (Some(azure), Some(kept)) = (&mut self.azure_blob, before.azure_blob)
            && azure.abs_account_name == kept.abs_account_name
            && azure.abs_custom_endpoint_url == kept.abs_custom_endpoint_url
        {
            // The authority is sent the secret itself, and the endpoint what the authority gives for it.
            let is_same = azure.abs_client_id == kept.abs_client_id
                && azure.abs_tenant_id == kept.abs_tenant_id
                && azure.abs_authority_host == kept.abs_authority_host;
            if azure.abs_client_secret.0.is_empty() && is_same {
                azure.abs_client_secret = kept.abs_client_secret;
            }
            if azure.abs_account_key.0.is_empty() {
                azure.abs_account_key = kept.abs_account_key;
            }
        }
        self
    }
}

fn is_http_url(url: &str) -> bool {
    // Clients of storages read it as the one and as the other.
    let is_url =
        |url: &reqwest::Url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none();
    reqwest::Url::parse(url).is_ok_and(|url| is_url(&url)) && url.parse::<http::Uri>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(part: &serde_json::Value) -> StorageConfig {
        let mut config = serde_json::json!({"storage_type": "s3", "bucket": "captions"});
        config.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn secrets_are_kept_as_long_as_they_go_where_they_went() {
        let s3 = serde_json::json!({"storage_type": "s3", "aws_s3": {
            "s3_region": "eu-west-1", "s3_api_key": "AKIA", "s3_secret": "a secret",
            "s3_custom_endpoint_url": "https://minio.example",
        }});
        let azure = serde_json::json!({"storage_type": "abs", "azure_blob": {
            "abs_account_name": "account", "abs_client_id": "app", "abs_client_secret": "a secret", "abs_tenant_id": "us",
            "abs_authority_host": "https://login.example", "abs_custom_endpoint_url": "https://blobs.example",
        }});
        let by_key = serde_json::json!({"storage_type": "abs", "azure_blob": {
            "abs_account_name": "account", "abs_account_key": "a secret",
        }});
        let elsewhere = "https://elsewhere.example";
        for (before, field, value, is_kept) in [
            (&s3, "/bucket", "another", true),
            (&s3, "/aws_s3/s3_region", "eu-north-1", true),
            (&s3, "/aws_s3/s3_api_key", "", true),
            (&s3, "/aws_s3/s3_api_key", "AKIB", false),
            (&s3, "/aws_s3/s3_custom_endpoint_url", elsewhere, false),
            (&azure, "/bucket", "another", true),
            (&azure, "/azure_blob/abs_account_name", "theirs", false),
            (&azure, "/azure_blob/abs_client_id", "theirs", false),
            (&azure, "/azure_blob/abs_tenant_id", "theirs", false),
            (&azure, "/azure_blob/abs_authority_host", elsewhere, false),
            (&azure, "/azure_blob/abs_custom_endpoint_url", elsewhere, false),
            (&by_key, "/bucket", "another", true),
            (&by_key, "/azure_blob/abs_account_name", "theirs", false),
            (&by_key, "/azure_blob/abs_custom_endpoint_url", elsewhere, false),
        ] {
            let mut changed = serde_json::to_value(config(before)).unwrap();
            for secret in ["/aws_s3/s3_secret", "/azure_blob/abs_client_secret", "/azure_blob/abs_account_key"] {
                if let Some(secret) = changed.pointer_mut(secret) {
                    *secret = "".into();
                }
            }
            *changed.pointer_mut(field).unwrap() = value.into();
            let changed: StorageConfig = serde_json::from_value(changed).unwrap();
            let kept = changed.or_secrets_of(config(before));
            let is_there = serde_json::to_string(&kept).unwrap().contains("a secret");
            assert_eq!((is_there, kept.check().is_ok()), (is_kept, is_kept), "{field} = {value}: {kept:?}");
        }
        // Neither key nor secret, and another place: not the environment's key instead.
        let changed = serde_json::json!({"aws_s3": {"s3_region": "eu-west-1", "s3_custom_endpoint_url": elsewhere}});
        assert!(config(&changed).or_secrets_of(config(&s3)).check().is_err());
    }
}
