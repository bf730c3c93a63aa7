//! What the environment says about the hub, as `huggingface_hub` documents it
//! (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).
//!
//! In: variables and the token's file. Out: [`Settings`], checked.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use crate::Failure;
use crate::cache::{environment, location};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

pub(super) struct Settings {
    /// Without a slash at its end.
    pub(super) endpoint: String,
    pub(super) token: Option<Token>,
    pub(super) offline: bool,
    /// How long the other side may be silent.
    pub(super) silence: Duration,
}

/// An access token. Never shown: not in errors, not in `Debug`, which it does not have.
pub(super) struct Token {
    pub(super) secret: String,
    /// Where it is from.
    pub(super) source: String,
}

impl Settings {
    pub(super) fn from_environment() -> Result<Self, Failure> {
        Self::read(&environment)
    }

    fn read(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().trim().to_string());
        let is_true =
            |name| text(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_string());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        if !(endpoint.starts_with("https://") || endpoint.starts_with("http://")) {
            return Err(Failure(format!("HF_ENDPOINT is `{endpoint}`, not a URL such as {DEFAULT_ENDPOINT}")));
        }
        let seconds = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|v| v.parse().ok()).filter(|s| *s > 0).unwrap_or(10);
        let offline =
            is_true(if variable("HF_HUB_OFFLINE").is_some() { "HF_HUB_OFFLINE" } else { "TRANSFORMERS_OFFLINE" });
        let token = if offline || is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { token(variable)? };
        Ok(Self { endpoint, token, offline, silence: Duration::from_secs(seconds) })
    }
}

fn token(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Token>, Failure> {
    let from_variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| {
        Some(Token { secret: variable(name)?.to_string_lossy().trim().to_string(), source: name.to_string() })
    });
    let token = match from_variable.filter(|token| !token.secret.is_empty()) {
        Some(token) => token,
        None => {
            let path = location(variable, &["HF_TOKEN_PATH"], "token")?;
            match std::fs::read_to_string(&path) {
                Ok(secret) => Token { secret: secret.trim().to_string(), source: path.display().to_string() },
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(None);
                }
                Err(error) => return Err(Failure(format!("cannot read the token in {}: {error}", path.display()))),
            }
        }
    };
    if !token.secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure(format!("what {} holds is no access token", token.source)));
    }
    Ok(Some(token).filter(|token| !token.secret.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_mean_what_the_hub_documents() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().to_str().unwrap();
        std::fs::write(format!("{home}/token"), "hf_file\n").unwrap();
        let read = |set: &[(&str, &str)]| {
            Settings::read(&|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)))
        };
        let token = |set: &[(&str, &str)]| read(set).ok().unwrap().token.map(|token| token.secret);
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " hf_env ")]).as_deref(), Some("hf_env"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN_PATH", "/nowhere/x")]), None);
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert!(read(&[("HF_HOME", home), ("HF_TOKEN", "two words")]).is_err());

        let settings = read(&[("HF_HOME", home)]).ok().unwrap();
        assert_eq!((settings.endpoint.as_str(), settings.offline), (DEFAULT_ENDPOINT, false));
        let settings = read(&[("HF_HOME", home), ("HF_ENDPOINT", "http://x:1/hf/"), ("HF_HUB_OFFLINE", "yes")]);
        let settings = settings.ok().unwrap();
        assert_eq!((settings.endpoint.as_str(), settings.offline), ("http://x:1/hf", true));
        assert!(read(&[("HF_HOME", home), ("HF_ENDPOINT", "x")]).is_err());
        let both = [("HF_HOME", home), ("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")];
        assert!(!read(&both).ok().unwrap().offline);
    }
}
