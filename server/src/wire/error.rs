//! Errors as clients parse them.

use serde_json::{Value, json};

use crate::call::CallError;

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Which kind, for programs.
    pub code: Code,
    /// What is wrong, for people.
    pub message: String,
}

/// The kinds of errors that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Code {
    /// The API key is not this server's.
    AccessKey = 2,
    /// The request makes no sense, in general or now.
    Input = 4,
    /// There is no token, or it is not one.
    Authentication = 5,
    /// Too many requests.
    RateLimit = 9,
    /// It is not there.
    DoesNotExist = 16,
    /// Whoever asks may not.
    NotAllowed = 17,
    /// The token has expired.
    TokenExpired = 40,
    /// The token is not valid yet.
    TokenNotYetValid = 41,
    /// The token was issued in the future.
    TokenFromTheFuture = 42,
    /// The token was signed by somebody else.
    TokenSignature = 43,
    /// The connection is not there, or another user's.
    ConnectionId = 46,
    /// There is no room for one more track. Clients know no such code: it is that of a fault of the server's, with status 503.
    Full = 65534,
    /// A fault of the server's.
    Internal = 65535,
}

impl Code {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::AccessKey,
        Self::Input,
        Self::Authentication,
        Self::RateLimit,
        Self::DoesNotExist,
        Self::NotAllowed,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenFromTheFuture,
        Self::TokenSignature,
        Self::ConnectionId,
        Self::Full,
        Self::Internal,
    ];

    /// The status of the HTTP answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Input | Self::ConnectionId => 400,
            Self::AccessKey
            | Self::Authentication
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenFromTheFuture
            | Self::TokenSignature => 401,
            Self::NotAllowed => 403,
            Self::DoesNotExist => 404,
            Self::RateLimit => 429,
            Self::Internal => 500,
            Self::Full => 503,
        }
    }

    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Internal | Self::Full => -1,
            code => i32::from(code as u16),
        }
    }
}

impl ApiError {
    /// An error of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The answer's body. All of it is needed: the Python client fails in its own way where a field is missing.
    #[must_use]
    pub fn body(&self, duration: &str) -> Value {
        json!({
            "code": self.code.number(),
            "message": self.message,
            "StatusCode": self.code.status(),
            "duration": duration,
            "more_info": super::request::more_info(self.code),
            "details": [],
        })
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotAllowed(message) => Self::new(Code::NotAllowed, message),
            CallError::Input(message) => Self::new(Code::Input, message),
        }
    }
}
