//! Which operation a request is.
//!
//! In: a method and a path of either family. Out: the [`Operation`] and the path's parts, decoded.

use axum::http::Method;
use percent_encoding::percent_decode_str;

/// What clients ask for, under the names of the clients' own models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the clients' operations")]
pub(crate) enum Operation {
    UpdateUsers,
    UpdateUsersPartial,
    QueryUsers,
    GetOrCreateCall,
    GetCall,
    UpdateCall,
    DeleteCall,
    MarkEnded,
    QueryCalls,
    QueryMembers,
    UpdateMembers,
    UpdateUserPermissions,
    StartTranscription,
    StopTranscription,
    StartClosedCaptions,
    StopClosedCaptions,
    SendClosedCaption,
    ListClosedCaptions,
    ListTranscriptions,
    DeleteTranscription,
    ListCallTypes,
    CreateCallType,
    GetCallType,
    UpdateCallType,
    DeleteCallType,
    ListRoles,
    CreateRole,
    ListPermissions,
    GetApp,
    UpdateApp,
    ListDeadLetters,
    CheckSqs,
    ListStorages,
    CreateStorage,
    UpdateStorage,
    DeleteStorage,
    CheckStorage,
    CallClientEvent,
    Connect,
    Audio,
    OpenRtp,
    CloseRtp,
}

impl Operation {
    /// Its name in logs.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UpdateUsers => "update_users",
            Self::UpdateUsersPartial => "update_users_partial",
            Self::QueryUsers => "query_users",
            Self::GetOrCreateCall => "get_or_create_call",
            Self::GetCall => "get_call",
            Self::UpdateCall => "update_call",
            Self::DeleteCall => "delete_call",
            Self::MarkEnded => "mark_ended",
            Self::QueryCalls => "query_calls",
            Self::QueryMembers => "query_members",
            Self::UpdateMembers => "update_members",
            Self::UpdateUserPermissions => "update_user_permissions",
            Self::StartTranscription => "start_transcription",
            Self::StopTranscription => "stop_transcription",
            Self::StartClosedCaptions => "start_closed_captions",
            Self::StopClosedCaptions => "stop_closed_captions",
            Self::SendClosedCaption => "send_closed_caption",
            Self::ListClosedCaptions => "list_closed_captions",
            Self::ListTranscriptions => "list_transcriptions",
            Self::DeleteTranscription => "delete_transcription",
            Self::ListCallTypes => "list_call_types",
            Self::CreateCallType => "create_call_type",
            Self::GetCallType => "get_call_type",
            Self::UpdateCallType => "update_call_type",
            Self::DeleteCallType => "delete_call_type",
            Self::ListRoles => "list_roles",
            Self::CreateRole => "create_role",
            Self::ListPermissions => "list_permissions",
            Self::GetApp => "get_app",
            Self::UpdateApp => "update_app",
            Self::ListDeadLetters => "list_dead_letters",
            Self::CheckSqs => "check_sqs",
            Self::ListStorages => "list_external_storage",
            Self::CreateStorage => "create_external_storage",
            Self::UpdateStorage => "update_external_storage",
            Self::DeleteStorage => "delete_external_storage",
            Self::CheckStorage => "check_external_storage",
            Self::CallClientEvent => "call_client_event",
            Self::Connect => "connect",
            Self::Audio => "audio",
            Self::OpenRtp => "open_rtp",
            Self::CloseRtp => "close_rtp",
        }
    }
}

/// A path in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Whether times are RFC 3339.
    pub(crate) is_browsers: bool,
    /// Behind the family's prefix; decoded.
    parts: Vec<String>,
}

impl Path {
    /// Of a URL's path. `None`: of neither family.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let decode = |part: &str| percent_decode_str(part).decode_utf8().ok().map(String::from);
        let mut parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Option<_>>()?;
        let is_servers = parts.len() >= 2 && parts[0] == "api" && parts[1] == "v2";
        if is_servers {
            parts.drain(..2);
        }
        (is_servers || parts.first().is_some_and(|first| first == "video"))
            .then_some(Self { is_browsers: !is_servers, parts })
    }

    /// Which operation it is, with the parts that it names: of calls their type and id first.
    pub(crate) fn operation(&self, method: &Method) -> Option<(Operation, Vec<&str>)> {
        #[allow(clippy::enum_glob_use, reason = "all of them are here")]
        use Operation::*;
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).collect();
        Some(match (method.as_str(), &parts[..]) {
            ("POST", ["users"]) => (UpdateUsers, vec![]),
            ("PATCH", ["users"]) => (UpdateUsersPartial, vec![]),
            ("GET", ["users"]) => (QueryUsers, vec![]),
            ("GET", ["roles"]) => (ListRoles, vec![]),
            ("POST", ["roles"]) => (CreateRole, vec![]),
            ("GET", ["permissions"]) => (ListPermissions, vec![]),
            ("GET", ["app"]) => (GetApp, vec![]),
            ("PATCH", ["app"]) => (UpdateApp, vec![]),
            ("GET", ["app", "dead_letters"]) => (ListDeadLetters, vec![]),
            ("POST", ["check_sqs"]) => (CheckSqs, vec![]),
            ("GET", ["external_storage"]) => (ListStorages, vec![]),
            ("POST", ["external_storage"]) => (CreateStorage, vec![]),
            ("PUT", ["external_storage", name]) => (UpdateStorage, vec![*name]),
            ("DELETE", ["external_storage", name]) => (DeleteStorage, vec![*name]),
            ("GET", ["external_storage", name, "check"]) => (CheckStorage, vec![*name]),
            ("POST", ["video", "calls"]) => (QueryCalls, vec![]),
            ("POST", ["video", "call", "members"]) => (QueryMembers, vec![]),
            ("POST", ["video", "call_client_event"]) => (CallClientEvent, vec![]),
            ("GET", ["video", "connect"]) => (Connect, vec![]),
            ("GET", ["video", "calltypes"]) => (ListCallTypes, vec![]),
            ("POST", ["video", "calltypes"]) => (CreateCallType, vec![]),
            (method, ["video", "calltypes", name]) => {
                let operation = match method {
                    "GET" => GetCallType,
                    "PUT" => UpdateCallType,
                    "DELETE" => DeleteCallType,
                    _ => return None,
                };
                (operation, vec![*name])
            }
            (method, ["video", "call", call_type, id]) => {
                let operation = match method {
                    "POST" => GetOrCreateCall,
                    "GET" => GetCall,
                    "PATCH" => UpdateCall,
                    _ => return None,
                };
                (operation, vec![*call_type, *id])
            }
            ("POST", ["video", "call", call_type, id, verb]) => {
                let operation = match *verb {
                    "delete" => DeleteCall,
                    "mark_ended" => MarkEnded,
                    "members" => UpdateMembers,
                    "user_permissions" => UpdateUserPermissions,
                    "start_transcription" => StartTranscription,
                    "stop_transcription" => StopTranscription,
                    "start_closed_captions" => StartClosedCaptions,
                    "stop_closed_captions" => StopClosedCaptions,
                    "closed_captions" => SendClosedCaption,
                    "rtp" => OpenRtp,
                    _ => return None,
                };
                (operation, vec![*call_type, *id])
            }
            ("GET", ["video", "call", call_type, id, "transcriptions"]) => (ListTranscriptions, vec![*call_type, *id]),
            ("GET", ["video", "call", call_type, id, "closed_captions"]) => (ListClosedCaptions, vec![*call_type, *id]),
            ("GET", ["video", "call", call_type, id, "audio"]) => (Audio, vec![*call_type, *id]),
            ("DELETE", ["video", "call", call_type, id, "rtp", port]) => (CloseRtp, vec![*call_type, *id, *port]),
            ("DELETE", ["video", "call", call_type, id, session, "transcriptions", filename]) => {
                (DeleteTranscription, vec![*call_type, *id, *session, *filename])
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_families_lead_to_the_same_operations_whatever_the_slashes_and_percents() {
        for (method, path, name, parts) in [
            ("POST", "/api/v2/video/call/default/a-b", "get_or_create_call", &["default", "a-b"][..]),
            ("POST", "/video/call/default/a-b", "get_or_create_call", &["default", "a-b"]),
            ("GET", "/video//call/default/a%2Db/", "get_call", &["default", "a-b"]),
            ("POST", "/api/v2/video/call/members", "query_members", &[]),
            ("POST", "/api/v2/video/call/default/a/members", "update_members", &["default", "a"]),
            (
                "DELETE",
                "/video/call/default/a/s%201/transcriptions/%2e%2e%2ff.jsonl",
                "delete_transcription",
                &["default", "a", "s 1", "../f.jsonl"],
            ),
        ] {
            let path = Path::parse(path).unwrap();
            let (operation, found) = path.operation(&Method::from_bytes(method.as_bytes()).unwrap()).unwrap();
            assert_eq!((operation.name(), &found[..]), (name, parts));
        }
        for path in ["/", "/healthz", "/api/v1/video/calls", "/video/%ff"] {
            assert_eq!(Path::parse(path), None, "{path}");
        }
        for (method, path) in
            [("PUT", "/video/calls"), ("POST", "/api/v2/app"), ("POST", "/video/call/default/a/go_live")]
        {
            let path = Path::parse(path).unwrap();
            assert_eq!(path.operation(&Method::from_bytes(method.as_bytes()).unwrap()), None, "{path:?}");
        }
    }
}
