//! Tokens: JWT, HS256 only, signed with the API secret.
//!
//! In: the token as the client sends it. Out: who it is.

use std::time::Duration;

use cuewire::time::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde_json::{Map, Value, json};

use super::error::{ApiError, Code};
use crate::clock::now;

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// What clocks may differ by: tokens are made on other machines.
const LEEWAY_S: i64 = 5;

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The platform's own server.
    Server,
    /// A user's.
    User(UserToken),
}

/// A user's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserToken {
    /// Whose.
    pub user_id: String,
    /// The role that it grants in `call_cids`.
    pub role: Option<String>,
    /// Calls in which it grants a role.
    pub call_cids: Vec<String>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

impl UserToken {
    /// The role that it grants in a call.
    #[must_use]
    pub fn role_in(&self, cid: &str) -> Option<&str> {
        let is_named = self.call_cids.iter().any(|named| named == cid);
        is_named.then(|| self.role.as_deref().unwrap_or("call_member"))
    }
}

/// When the token expires; never, where it does not.
pub(crate) async fn expiry(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let left = at.nanos_since(now()).max(0).unsigned_abs();
            tokio::time::sleep(Duration::from_nanos(left)).await;
        }
        None => std::future::pending().await,
    }
}

/// Checks a token.
///
/// # Errors
/// With the code that makes a client fetch another one, or give up.
pub fn verify(token: &str, secret: &str, now: Timestamp) -> Result<Token, ApiError> {
    let refused = |code, message: &str| Err(ApiError::new(code, message));
    if token.is_empty() {
        return refused(Code::Authentication, "there is no token: it is expected in the header Authorization");
    }
    if token.len() > MAX_TOKEN_BYTES {
        return refused(Code::Authentication, "the token is longer than 8 KiB");
    }
    let mut validation = Validation::new(Algorithm::HS256);
    // Times are checked below: the clients tell them apart.
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    let key = DecodingKey::from_secret(secret.as_bytes());
    let claims = match decode::<Map<String, Value>>(token, &key, &validation) {
        Ok(token) => token.claims,
        Err(error) => {
            return match error.kind() {
                ErrorKind::InvalidSignature => {
                    refused(Code::TokenSignature, "the token's signature is not this secret's")
                }
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                    refused(Code::Authentication, "the token is not signed with HS256")
                }
                _ => refused(Code::Authentication, "the token is no JSON Web Token"),
            };
        }
    };
    let time = |name: &str| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|s| *s >= 0.0) {
            // As far as times go: the year 2262.
            Some(seconds) => Ok(Some(seconds.min(9e9) as i64)),
            None => Err(ApiError::new(Code::Authentication, format!("the token's {name} is no time in seconds"))),
        },
    };
    let now_s = now.as_nanos().div_euclid(1_000_000_000);
    let (issued, not_before, expires) = (time("iat")?, time("nbf")?, time("exp")?);
    if expires.is_some_and(|expires| expires <= now_s) {
        return refused(Code::TokenExpired, "the token has expired");
    }
    if not_before.is_some_and(|not_before| not_before > now_s + LEEWAY_S) {
        return refused(Code::TokenNotYetValid, "the token is not valid yet");
    }
    if issued.is_some_and(|issued| issued > now_s + LEEWAY_S) {
        return refused(Code::TokenFromTheFuture, "the token was issued in the future: compare the clocks");
    }
    let Some(user_id) = claims.get("user_id") else {
        let is_servers = |(name, value): (&String, &Value)| match name.as_str() {
            "server" => *value == Value::Bool(true),
            name => ["iat", "nbf", "exp"].contains(&name),
        };
        if claims.iter().all(is_servers) {
            return Ok(Token::Server);
        }
        return refused(Code::Authentication, "the token names no user, and is no server's");
    };
    let texts = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_string)).collect()
    };
    let role = claims.get("role").filter(|role| !role.is_null());
    let call_cids = claims.get("call_cids").filter(|cids| !cids.is_null());
    match (user_id.as_str(), role.map(Value::as_str), call_cids.map(texts)) {
        (Some(user_id), None | Some(Some(_)), None | Some(Some(_)))
            if (1..=255).contains(&user_id.len())
                && !user_id.chars().any(char::is_control)
                && !claims.contains_key("server") =>
        {
            Ok(Token::User(UserToken {
                user_id: user_id.to_string(),
                role: role.and_then(Value::as_str).map(str::to_string),
                call_cids: call_cids.and_then(texts).unwrap_or_default(),
                expires_at: expires.map(|s| Timestamp::from_nanos(s * 1_000_000_000)),
            }))
        }
        _ => refused(Code::Authentication, "the token's user_id, role or call_cids make no sense"),
    }
}

/// A token for somebody, or for the platform's own server, until then; what clients make for themselves with the same secret.
///
/// # Errors
/// Where it cannot be signed.
pub fn sign(user_id: Option<&str>, expires_at: Timestamp, secret: &str) -> Result<String, ApiError> {
    let mut claims = json!({"exp": expires_at.as_nanos().div_euclid(1_000_000_000)});
    match user_id {
        Some(user_id) => claims["user_id"] = json!(user_id),
        None => claims["server"] = json!(true),
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| ApiError::new(Code::Internal, format!("a token cannot be signed: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECRET: &str = "a secret of the platform's";

    fn signed(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn check(claims: Value) -> Result<Token, Code> {
        let now = Timestamp::from_nanos(1_800_000_000_000_000_000);
        verify(&signed(Algorithm::HS256, &claims, SECRET), SECRET, now).map_err(|error| error.code)
    }

    fn user(claims: Value) -> UserToken {
        match check(claims) {
            Ok(Token::User(token)) => token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_clients_tokens_are_told_apart_and_all_else_is_refused() {
        for claims in [json!({}), json!({"server": true}), json!({"server": true, "iat": 1_799_999_999})] {
            assert_eq!(check(claims.clone()), Ok(Token::Server), "{claims}");
        }
        let alice =
            user(json!({"user_id": "alice", "iat": 1_799_999_995, "exp": 1_800_000_001, "validity_in_seconds": 6}));
        assert_eq!((alice.user_id.as_str(), alice.role_in("default:a")), ("alice", None));
        assert_eq!(alice.expires_at, Some(Timestamp::from_nanos(1_800_000_001_000_000_000)));
        let call = user(json!({"user_id": "bob", "role": "host", "call_cids": ["default:a"]}));
        assert_eq!((call.role_in("default:a"), call.role_in("default:b")), (Some("host"), None));
        assert_eq!(
            user(json!({"user_id": "bob", "call_cids": ["default:a"]})).role_in("default:a"),
            Some("call_member")
        );
        for (claims, code) in [
            (json!({"user_id": "alice", "exp": 1_800_000_000}), Code::TokenExpired),
            (json!({"user_id": "alice", "nbf": 1_800_000_060}), Code::TokenNotYetValid),
            (json!({"user_id": "alice", "iat": 1_800_000_060}), Code::TokenFromTheFuture),
            (json!({"user_id": "alice", "iat": "yesterday"}), Code::Authentication),
            (json!({"user_id": ""}), Code::Authentication),
            (json!({"user_id": 7}), Code::Authentication),
            (json!({"user_id": "alice", "server": true}), Code::Authentication),
            (json!({"user_id": "alice", "role": 1}), Code::Authentication),
            (json!({"user_id": "alice", "call_cids": "default:a"}), Code::Authentication),
            (json!({"server": false}), Code::Authentication),
            (json!({"role": "admin"}), Code::Authentication),
            (json!({"call_cids": []}), Code::Authentication),
            (json!({"server": true, "role": "admin"}), Code::Authentication),
        ] {
            assert_eq!(check(claims.clone()), Err(code), "{claims}");
        }
    }

    #[test]
    fn another_secret_another_algorithm_none_and_rubbish_are_refused() {
        let claims = json!({"user_id": "alice"});
        // {"alg":"none","typ":"JWT"} and {"user_id":"alice"}, without a signature.
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJ1c2VyX2lkIjoiYWxpY2UifQ.".to_string();
        for (token, code) in [
            (signed(Algorithm::HS256, &claims, "another"), Code::TokenSignature),
            (signed(Algorithm::HS512, &claims, SECRET), Code::Authentication),
            (none, Code::Authentication),
            (String::new(), Code::Authentication),
            ("rubbish".into(), Code::Authentication),
            ("x".repeat(MAX_TOKEN_BYTES + 1), Code::Authentication),
        ] {
            assert_eq!(verify(&token, SECRET, Timestamp::EPOCH).unwrap_err().code, code, "{token:.40}");
        }
    }
}
