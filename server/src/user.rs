//! Users, as the platform tells of them.
//!
//! In: what a server, or a user's own client, says of somebody. Out: what clients are shown.

use cuewire::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::User;

/// Somebody, as the host keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Who, and their role.
    #[serde(flatten)]
    pub user: User,
    /// What they are called.
    pub name: Option<String>,
    /// Where their picture is.
    pub image: Option<String>,
    /// What they speak, as a code, or nothing.
    pub language: String,
    /// Their groups.
    pub teams: Vec<String>,
    /// Whatever the platform keeps here.
    pub custom: Map<String, Value>,
    /// When they became known.
    pub created_at: Timestamp,
    /// When that was last changed.
    pub updated_at: Timestamp,
}

impl Profile {
    /// Somebody of whom only the id is known.
    #[must_use]
    pub fn unknown(id: &str, now: Timestamp) -> Self {
        Self {
            user: User { id: id.to_string(), role: "user".into() },
            name: None,
            image: None,
            language: String::new(),
            teams: Vec::new(),
            custom: Map::new(),
            created_at: now,
            updated_at: now,
        }
    }

    /// As a `UserResponse`.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut user = json!({
            "id": self.user.id,
            "role": self.user.role,
            "language": self.language,
            "teams": self.teams,
            "custom": self.custom,
            "created_at": self.created_at.as_nanos(),
            "updated_at": self.updated_at.as_nanos(),
            "banned": false,
            "invisible": false,
            "online": false,
            "shadow_banned": false,
            "blocked_user_ids": [],
        });
        for (field, value) in [("name", &self.name), ("image", &self.image)] {
            if let Some(value) = value {
                user[field] = json!(value);
            }
        }
        user
    }

    /// As an `OwnUserResponse`, and a `FullUserResponse`.
    #[must_use]
    pub fn own_json(&self) -> Value {
        let mut user = self.json();
        let counts = json!({
            "total_unread_count": 0, "unread_channels": 0, "unread_count": 0, "unread_threads": 0,
            "channel_mutes": [], "devices": [], "mutes": [],
        });
        if let (Some(user), Value::Object(counts)) = (user.as_object_mut(), counts) {
            user.extend(counts);
        }
        user
    }
}
