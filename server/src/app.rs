//! The platform's own settings: where the events of all calls go.
//!
//! In: what its server writes. Out: the [`Hook`]s, and all of it as clients expect it, without secrets.

use cuewire::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use crate::secret::Secret;
pub use crate::sinks::{Queue, Target};

/// What the hook is called that the platform's `webhook_url` stands for, and that of its `sqs_url`.
pub const PLAIN_HOOKS: [&str; 2] = ["webhook", "sqs"];

/// The settings of the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSettings {
    /// Whether what hooks are told is compressed.
    pub compression: bool,
    /// Where events go.
    pub hooks: Vec<Hook>,
    /// What cuewire does not act on.
    pub kept: Map<String, Value>,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Names it.
    pub id: String,
    /// Whether anything goes there.
    pub enabled: bool,
    /// The types of events that go there; empty: all.
    pub event_types: Vec<String>,
    /// Whether times are RFC 3339 text and not integers of nanoseconds.
    pub rfc3339: bool,
    /// Milliseconds that one delivery may take.
    pub timeout_ms: u32,
    /// Where.
    pub target: Target,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl AppSettings {
    /// The hooks that an event goes to.
    pub fn hooks_for<'a>(&'a self, event_type: &'a str) -> impl Iterator<Item = &'a Hook> {
        self.hooks.iter().filter(move |hook| hook.enabled && hook.takes(event_type))
    }

    /// A hook, by its id.
    #[must_use]
    pub fn hook(&self, id: &str) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.id == id)
    }

    /// As an `AppResponseFields`; no secret is in it.
    #[must_use]
    pub fn render(&self) -> Value {
        let mut app = defaults();
        if let Some(fields) = app.as_object_mut() {
            fields.extend(self.kept.clone());
        }
        for hook in &self.hooks {
            match &hook.target {
                Target::Webhook { url } if hook.id == PLAIN_HOOKS[0] => {
                    (app["webhook_url"], app["webhook_events"]) = (json!(url), json!(hook.event_types));
                }
                Target::Sqs(queue) if hook.id == PLAIN_HOOKS[1] => app["sqs_url"] = json!(queue.url),
                _ => {}
            }
        }
        let hooks = self.hooks.iter().filter(|hook| !PLAIN_HOOKS.contains(&hook.id.as_str())).map(Hook::render);
        app["event_hooks"] = hooks.collect();
        app["enable_hook_payload_compression"] = json!(self.compression);
        app
    }
}

impl Hook {
    fn takes(&self, event_type: &str) -> bool {
        self.event_types.is_empty() || self.event_types.iter().any(|one| one == event_type)
    }

    fn render(&self) -> Value {
        let mut hook = json!({
            "id": self.id,
            "enabled": self.enabled,
            "event_types": self.event_types,
            "rfc3339": self.rfc3339,
            "timeout_ms": self.timeout_ms,
            "product": "video",
            "created_at": self.created_at.as_nanos(),
            "updated_at": self.updated_at.as_nanos(),
        });
        hook["hook_type"] = json!(self.target.kind());
        for (field, value) in self.target.shown() {
            hook[field] = json!(value);
        }
        hook
    }
}

/// Everything that clients need of an app, as it is where nothing was set.
#[must_use]
pub fn defaults() -> Value {
    let flags = [
        "allow_multi_user_devices",
        "async_url_enrich_enabled",
        "auto_translation_enabled",
        "campaign_enabled",
        "disable_auth_checks",
        "disable_permissions_checks",
        "feed_audit_logs_enabled",
        "guest_user_creation_disabled",
        "image_moderation_enabled",
        "member_custom_on_mentioned_users_enabled",
        "member_custom_on_messages_enabled",
        "member_custom_on_typing_events_enabled",
        "moderation_audio_call_moderation_enabled",
        "moderation_enabled",
        "moderation_keyframe_video_enabled",
        "moderation_llm_configurability_enabled",
        "moderation_multitenant_blocklist_enabled",
        "moderation_video_call_moderation_enabled",
        "multi_tenant_enabled",
        "suspended",
        "use_hook_v2",
        "user_response_time_enabled",
    ];
    // Secrets and the keys to them are among these, and stay empty.
    let texts = [
        "custom_action_handler_url",
        "moderation_webhook_url",
        "organization",
        "placement",
        "sns_key",
        "sns_secret",
        "sns_topic_arn",
        "sqs_key",
        "sqs_secret",
        "sqs_url",
        "suspended_explanation",
        "webhook_url",
    ];
    let upload = || {
        json!({
            "size_limit": 0, "allowed_file_extensions": [], "blocked_file_extensions": [],
            "allowed_mime_types": [], "blocked_mime_types": [],
        })
    };
    let mut app = json!({
        "id": 1,
        "name": "cuewire",
        "permission_version": "v2",
        "enforce_unique_usernames": "no",
        "cdn_expiration_seconds": 0,
        "max_aggregated_activities_length": 0,
        "reminders_interval": 0,
        "event_hooks": [],
        "user_search_disallowed_roles": [],
        "webhook_events": [],
        "call_types": {},
        "channel_configs": {},
        "grants": {},
        "policies": {},
        "file_upload_config": upload(),
        "image_upload_config": upload(),
        "push_notifications": {
            "offline_only": false,
            "version": "v2",
            "apn": {"development": false, "enabled": false},
            "firebase": {"enabled": false},
            "huawei": {"enabled": false},
            "xiaomi": {"enabled": false},
        },
    });
    flags.iter().for_each(|name| app[*name] = json!(false));
    texts.iter().for_each(|name| app[*name] = json!(""));
    app
}
