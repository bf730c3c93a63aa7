//! Who may do what.
//!
//! In: the grants of a call type, somebody's roles. Out: capabilities.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The capabilities of each role. Others than cuewire's own are kept as they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(BTreeMap<String, BTreeSet<String>>);

/// What cuewire asks for before it does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Creating a call.
    CreateCall,
    /// Seeing it and its events.
    ReadCall,
    /// Entering it.
    JoinCall,
    /// Entering it when it has ended.
    JoinEndedCall,
    /// Being heard.
    SendAudio,
    /// Starting transcription.
    StartTranscription,
    /// Stopping it.
    StopTranscription,
    /// Starting captions.
    StartClosedCaptions,
    /// Stopping them.
    StopClosedCaptions,
    /// Captions from elsewhere.
    SendClosedCaptions,
    /// Seeing what there is of transcripts.
    ListTranscriptions,
    /// Changing the call's data.
    UpdateCall,
    /// Changing its settings.
    UpdateCallSettings,
    /// Changing its members.
    UpdateCallMember,
    /// Changing what others may.
    UpdateCallPermissions,
    /// Ending it.
    EndCall,
}

impl Capability {
    /// All.
    pub const ALL: [Self; 16] = [
        Self::CreateCall,
        Self::ReadCall,
        Self::JoinCall,
        Self::JoinEndedCall,
        Self::SendAudio,
        Self::StartTranscription,
        Self::StopTranscription,
        Self::StartClosedCaptions,
        Self::StopClosedCaptions,
        Self::SendClosedCaptions,
        Self::ListTranscriptions,
        Self::UpdateCall,
        Self::UpdateCallSettings,
        Self::UpdateCallMember,
        Self::UpdateCallPermissions,
        Self::EndCall,
    ];

    /// How clients write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateCall => "create-call",
            Self::ReadCall => "read-call",
            Self::JoinCall => "join-call",
            Self::JoinEndedCall => "join-ended-call",
            Self::SendAudio => "send-audio",
            Self::StartTranscription => "start-transcription-call",
            Self::StopTranscription => "stop-transcription-call",
            Self::StartClosedCaptions => "start-closed-captions-call",
            Self::StopClosedCaptions => "stop-closed-captions-call",
            Self::SendClosedCaptions => "send-closed-captions-call",
            Self::ListTranscriptions => "list-transcriptions",
            Self::UpdateCall => "update-call",
            Self::UpdateCallSettings => "update-call-settings",
            Self::UpdateCallMember => "update-call-member",
            Self::UpdateCallPermissions => "update-call-permissions",
            Self::EndCall => "end-call",
        }
    }

    /// The other spelling that grants may have.
    fn permission(self) -> Option<&'static str> {
        match self {
            Self::StartTranscription => Some("StartTranscription"),
            Self::StopTranscription => Some("StopTranscription"),
            Self::StartClosedCaptions => Some("StartClosedCaptions"),
            Self::StopClosedCaptions => Some("StopClosedCaptions"),
            Self::ListTranscriptions => Some("ListTranscriptions"),
            _ => None,
        }
    }
}

/// A capability as cuewire writes it.
fn canonical(name: &str) -> &str {
    let known = Capability::ALL.into_iter().find(|capability| capability.permission() == Some(name));
    known.map_or(name, |capability| capability.as_str())
}

/// The capabilities that somebody has.
pub type Capabilities = BTreeSet<String>;

impl Grants {
    /// Of each role its capabilities, in either spelling.
    pub fn new<R, C>(grants: impl IntoIterator<Item = (R, C)>) -> Self
    where
        R: Into<String>,
        C: IntoIterator,
        C::Item: AsRef<str>,
    {
        let all = |names: C| names.into_iter().map(|name| canonical(name.as_ref()).to_string()).collect();
        Self(grants.into_iter().map(|(role, names)| (role.into(), all(names))).collect())
    }

    /// These, with what `other` says of a role in its place.
    #[must_use]
    pub fn overridden(&self, other: &Self) -> Self {
        let mut grants = self.0.clone();
        grants.extend(other.0.clone());
        Self(grants)
    }

    /// Roles and their capabilities.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().map(|(role, names)| (role.as_str(), names))
    }

    /// What somebody with these roles may.
    pub fn of<'a>(&self, roles: impl IntoIterator<Item = &'a str>) -> Capabilities {
        roles.into_iter().filter_map(|role| self.0.get(role)).flatten().cloned().collect()
    }

    /// Those that every call type begins with.
    #[must_use]
    pub fn default_for(call_type: &str) -> Self {
        use Capability::{CreateCall, JoinCall, ListTranscriptions, ReadCall, SendAudio};
        let all = || Capability::ALL.to_vec();
        let user = || vec![CreateCall, ReadCall, JoinCall, SendAudio, ListTranscriptions];
        let signed_in = if call_type == "development" { all } else { user };
        let roles = [
            ("admin", all()),
            ("host", all()),
            ("user", signed_in()),
            ("call_member", signed_in()),
            ("guest", vec![ReadCall]),
            ("anonymous", vec![ReadCall]),
        ];
        Self::new(roles.map(|(role, capabilities)| (role, capabilities.into_iter().map(Capability::as_str))))
    }
}

/// What one user's capabilities were changed by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    granted: BTreeSet<String>,
    revoked: BTreeSet<String>,
}

impl Changed {
    /// The last word on a capability counts.
    pub fn change<'a>(
        &mut self,
        grant: impl IntoIterator<Item = &'a String>,
        revoke: impl IntoIterator<Item = &'a String>,
    ) {
        for name in grant.into_iter().map(|name| canonical(name)) {
            self.revoked.remove(name);
            self.granted.insert(name.to_string());
        }
        for name in revoke.into_iter().map(|name| canonical(name)) {
            self.granted.remove(name);
            self.revoked.insert(name.to_string());
        }
    }

    /// What is left of `capabilities`, and what comes to them.
    #[must_use]
    pub fn applied_to(&self, capabilities: Capabilities) -> Capabilities {
        let kept = capabilities.into_iter().filter(|name| !self.revoked.contains(name));
        kept.chain(self.granted.iter().cloned()).collect()
    }
}
