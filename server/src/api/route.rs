//! Which operation a request is.
//!
//! In: a method and a path. Out: the [`Operation`] and the path's parts, decoded. One table has all that is served: requests are
//! matched against it, and `/openapi.json` is made from it.

use axum::http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

/// Who may ask for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Anybody, without a key.
    Anybody,
    /// Who was given a signed URL.
    UrlHolder,
    /// Who has the API key; the token comes in the first frame, or in the header.
    KeyHolder,
    /// Who has the API key, with a token or without one.
    Reporter,
    /// The platform's server, or a user who has the capability.
    Caller,
    /// The platform's server.
    Server,
}

/// What is served under one method and path.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) operation: Operation,
    /// In logs, and in the document.
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    /// With `{parts}` in it. One that begins with `/` is whole; others are behind a family's prefix: `/api/v2/` of servers,
    /// and of browsers `/` where it begins with `video/`.
    pub(crate) path: &'static str,
    pub(crate) asker: Asker,
    /// Of an answer that is no error.
    status: u16,
}

impl Row {
    /// Of an answer that is no error.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK)
    }
}

macro_rules! operations {
    ($($operation:ident $name:literal $method:ident $path:literal $asker:ident $status:literal)*) => {
        /// What clients ask for, under the names of the clients' own models.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Operation { $($operation),* }

        /// All that is served, in the order of [`Operation`].
        pub(crate) const TABLE: &[Row] = &[$(Row {
            operation: Operation::$operation,
            name: $name,
            method: stringify!($method),
            path: $path,
            asker: Asker::$asker,
            status: $status,
        }),*];
    };
}

// The operation, its name, method and path, who may ask, and the status of an answer that is no error.
operations! {
    UpdateUsers "update_users" POST "users" Server 201
    UpdateUsersPartial "update_users_partial" PATCH "users" Server 200
    QueryUsers "query_users" GET "users" Server 200
    GetOrCreateCall "get_or_create_call" POST "video/call/{type}/{id}" Caller 201
    GetCall "get_call" GET "video/call/{type}/{id}" Caller 200
    UpdateCall "update_call" PATCH "video/call/{type}/{id}" Caller 200
    DeleteCall "delete_call" POST "video/call/{type}/{id}/delete" Server 200
    MarkEnded "mark_ended" POST "video/call/{type}/{id}/mark_ended" Caller 200
    QueryCalls "query_calls" POST "video/calls" Caller 200
    QueryMembers "query_members" POST "video/call/members" Caller 200
    UpdateMembers "update_members" POST "video/call/{type}/{id}/members" Caller 200
    UpdateUserPermissions "update_user_permissions" POST "video/call/{type}/{id}/user_permissions" Caller 200
    StartTranscription "start_transcription" POST "video/call/{type}/{id}/start_transcription" Caller 201
    StopTranscription "stop_transcription" POST "video/call/{type}/{id}/stop_transcription" Caller 200
    StartClosedCaptions "start_closed_captions" POST "video/call/{type}/{id}/start_closed_captions" Caller 201
    StopClosedCaptions "stop_closed_captions" POST "video/call/{type}/{id}/stop_closed_captions" Caller 200
    SendClosedCaption "send_closed_caption" POST "video/call/{type}/{id}/closed_captions" Caller 200
    ListClosedCaptions "list_closed_captions" GET "video/call/{type}/{id}/closed_captions" Caller 200
    ListTranscriptions "list_transcriptions" GET "video/call/{type}/{id}/transcriptions" Caller 200
    DeleteTranscription "delete_transcription" DELETE "video/call/{type}/{id}/{session}/transcriptions/{filename}" Server 200
    ListCallTypes "list_call_types" GET "video/calltypes" Server 200
    CreateCallType "create_call_type" POST "video/calltypes" Server 201
    GetCallType "get_call_type" GET "video/calltypes/{name}" Server 200
    UpdateCallType "update_call_type" PUT "video/calltypes/{name}" Server 200
    DeleteCallType "delete_call_type" DELETE "video/calltypes/{name}" Server 200
    ListRoles "list_roles" GET "roles" Server 200
    CreateRole "create_role" POST "roles" Server 201
    ListPermissions "list_permissions" GET "permissions" Server 200
    GetApp "get_app" GET "app" Server 200
    UpdateApp "update_app" PATCH "app" Server 200
    ListDeadLetters "list_dead_letters" GET "app/dead_letters" Server 200
    CheckSqs "check_sqs" POST "check_sqs" Server 200
    ListStorages "list_external_storage" GET "external_storage" Server 200
    CreateStorage "create_external_storage" POST "external_storage" Server 200
    UpdateStorage "update_external_storage" PUT "external_storage/{name}" Server 200
    DeleteStorage "delete_external_storage" DELETE "external_storage/{name}" Server 200
    CheckStorage "check_external_storage" GET "external_storage/{name}/check" Server 200
    CallClientEvent "call_client_event" POST "video/call_client_event" Reporter 201
    Connect "connect" GET "video/connect" KeyHolder 101
    Audio "audio" GET "video/call/{type}/{id}/audio" KeyHolder 101
    OpenRtp "open_rtp" POST "video/call/{type}/{id}/rtp" Caller 201
    CloseRtp "close_rtp" DELETE "video/call/{type}/{id}/rtp/{port}" Caller 200
    DownloadTranscript "download_transcript" GET "/transcripts/{egress_id}/{filename}" UrlHolder 200
    ProbeTranscript "probe_transcript" HEAD "/transcripts/{egress_id}/{filename}" UrlHolder 200
    Health "health" GET "/healthz" Anybody 200
    Readiness "readiness" GET "/readyz" Anybody 200
    OpenApi "openapi" GET "/openapi.json" Anybody 200
}

impl Operation {
    pub(crate) fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name in logs.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        self.row().name
    }
}

/// A path in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Whether times are RFC 3339.
    pub(crate) is_browsers: bool,
    /// Behind a server's prefix; decoded.
    parts: Vec<String>,
}

impl Path {
    /// Of a URL's path. `None`: its parts are no text.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let decode = |part: &str| percent_decode_str(part).decode_utf8().ok().map(String::from);
        let mut parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Option<_>>()?;
        let is_servers = parts.len() >= 2 && parts[0] == "api" && parts[1] == "v2";
        if is_servers {
            parts.drain(..2);
        }
        Some(Self { is_browsers: !is_servers, parts })
    }

    /// Which operation it is, with the parts that it names: of calls their type and id first.
    pub(crate) fn operation(&self, method: &Method) -> Option<(Operation, Vec<&str>)> {
        TABLE.iter().filter(|row| row.method == method.as_str()).find_map(|row| Some((row.operation, self.names(row)?)))
    }

    /// What the path has in the place of the row's `{parts}`.
    fn names(&self, row: &Row) -> Option<Vec<&str>> {
        let is_whole = row.path.starts_with('/');
        let is_there = if self.is_browsers { is_whole || row.path.starts_with("video/") } else { !is_whole };
        if !is_there {
            return None;
        }
        let mut names = Vec::new();
        let mut parts = self.parts.iter();
        for wanted in row.path.trim_start_matches('/').split('/') {
            let part = parts.next()?;
            if wanted.starts_with('{') {
                names.push(part.as_str());
            } else if wanted != part {
                return None;
            }
        }
        parts.next().is_none().then_some(names)
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
        assert_eq!(Path::parse("/video/%ff"), None);
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/app"),
            ("GET", "/api/v2/healthz"),
            ("POST", "/api/v1/video/calls"),
            ("PUT", "/video/calls"),
            ("POST", "/api/v2/app"),
            ("POST", "/video/call/default/a/go_live"),
        ] {
            let path = Path::parse(path).unwrap();
            assert_eq!(path.operation(&Method::from_bytes(method.as_bytes()).unwrap()), None, "{path:?}");
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_operations_and_no_path_is_two() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.operation as usize, i, "{row:?}");
            let path = if row.path.starts_with('/') { row.path.to_string() } else { format!("/api/v2/{}", row.path) };
            let (found, names) = Path::parse(&path)
                .unwrap()
                .operation(&row.method.parse().unwrap())
                .map(|(operation, names)| (operation, names.len()))
                .unwrap();
            assert_eq!((found, names), (row.operation, row.path.matches('{').count()), "{row:?}");
            assert!(TABLE[..i].iter().all(|other| other.name != row.name), "{row:?}");
        }
    }
}
