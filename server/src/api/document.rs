//! The OpenAPI document.
//!
//! In: the table of what is served, and what each handler says of itself. Out: `/openapi.json`, in which every row is, and
//! nothing else.

use serde_json::{Map, Value, json};

use super::route::{Asker, Operation, Row, TABLE};
use super::schema::{Described, any_object, component, text};
use super::{models, operations};
use crate::limits::Limits;
use crate::rates;

/// What is behind a component's name where times are texts.
const OF_BROWSERS: &str = "OfBrowsers";

/// The document of a server with these limits, as JSON.
pub(crate) fn document(limits: &Limits) -> String {
    make(limits).to_string()
}

fn make(limits: &Limits) -> Value {
    let mut paths = Map::new();
    for row in TABLE {
        let whole = row.path.starts_with('/');
        if whole {
            add(&mut paths, row, limits, row.path.to_string(), false);
            continue;
        }
        add(&mut paths, row, limits, format!("/api/v2/{}", row.path), false);
        if row.path.starts_with("video/") {
            add(&mut paths, row, limits, format!("/{}", row.path), true);
        }
    }
    let answers = models::of_answers();
    let mut schemas = models::of_requests();
    for (name, schema) in &answers {
        schemas.insert(format!("{name}{OF_BROWSERS}"), of_browsers(schema.clone()));
    }
    schemas.insert(format!("Time{OF_BROWSERS}"), json!({"type": "string", "format": "date-time"}));
    schemas.extend(answers);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cuewire",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Calls, captions and transcripts. Server SDKs speak below /api/v2/, where times are integers of \
                nanoseconds; the browser's client below /video/, where they are RFC 3339. A body that is empty is `{}`, and \
                unknown fields are ignored. A head of more than 64 KiB is answered with 431, without a body.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": {
                "RequestId": {
                    "name": "x-client-request-id", "in": "header", "schema": text(),
                    "description": "What the request is called in logs and in its answer: 1 – 64 letters, digits, `-`, `_`, `.` and `:`; \
                        of another one nothing is taken",
                },
                "Client": {
                    "name": "x-stream-client", "in": "header", "schema": text(),
                    "description": "What asks, for the log of requests; also in the query",
                },
            },
            "headers": {
                "RequestId": {"schema": text(), "description": "The client's id of the request, or a new one"},
                "RateLimit": {"schema": {"type": "integer"}, "description": "Requests a minute that are allowed"},
                "RateLimitRemaining": {"schema": {"type": "integer"}, "description": "How many of them are left"},
                "RateLimitReset": {"schema": {"type": "integer"}, "description": "When all of them are, in Unix seconds"},
                "RetryAfter": {"schema": {"type": "integer"}, "description": "When to ask again, in seconds"},
            },
            "securitySchemes": {
                "api_key": {
                    "type": "apiKey", "in": "query", "name": "api_key", "description": "Which platform's server this is",
                },
                "api_key_in_header": {
                    "type": "apiKey", "in": "header", "name": "api-key", "description": "The same, where the query has none",
                },
                "token": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "A JSON Web Token, without `Bearer`: HS256 with the API secret; a server's or a user's",
                },
                "anonymous": {
                    "type": "apiKey", "in": "header", "name": "stream-auth-type",
                    "description": "`anonymous`, where there is no token; else `jwt`, or nothing",
                },
            },
        },
    })
}

/// Adds what a row is under one path.
fn add(paths: &mut Map<String, Value>, row: &Row, limits: &Limits, path: String, is_browsers: bool) {
    let mut described = operations::described(row.operation, limits);
    let mut parameters: Vec<Value> =
        row.path.split('/').filter_map(|part| part.strip_prefix('{')).map(parameter).collect();
    parameters.append(&mut described.query);
    if has_connection(row) {
        parameters.push(json!({
            "name": "connection_id", "in": "query", "schema": text(), "description": "Which of their connections is to watch",
        }));
    }
    if has_key(row) {
        parameters.push(json!({
            "name": "user_id", "in": "query", "schema": text(), "description": "Must be a user's token's",
        }));
    }
    parameters.extend(["RequestId", "Client"].map(|name| json!({"$ref": format!("#/components/parameters/{name}")})));
    let mut operation = json!({
        "operationId": if is_browsers { format!("{}_of_browsers", row.name) } else { row.name.to_string() },
        "summary": described.summary,
        "description": who(row.asker),
        "parameters": parameters,
        "responses": responses(row, &described, is_browsers),
        "security": security(row.asker),
    });
    if let Some(body) = described.body {
        let is_required = body.get("required").is_some();
        operation["requestBody"] = json!({"required": is_required, "content": {"application/json": {"schema": body}}});
    }
    let methods = paths.entry(path).or_insert_with(|| json!({}));
    methods[row.method.to_lowercase()] = operation;
}

fn parameter(name: &str) -> Value {
    let name = name.trim_end_matches('}');
    let schema = match name {
        "type" | "id" | "name" => models::id(),
        _ => text(),
    };
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

fn who(asker: Asker) -> &'static str {
    match asker {
        Asker::Anybody => "For anybody.",
        Asker::UrlHolder => "For whoever was given the URL.",
        Asker::KeyHolder => "For users: the token comes in the first frame, or in the header.",
        Asker::Reporter => "For users, and for whoever is none yet.",
        Asker::Caller => "For the platform's server, and for users who may.",
        Asker::Server => "For the platform's server.",
    }
}

fn has_key(row: &Row) -> bool {
    !matches!(row.asker, Asker::Anybody | Asker::UrlHolder)
}

/// Whether the request may name a connection: it watches, or must not be another user's.
fn has_connection(row: &Row) -> bool {
    row.asker == Asker::Caller
        && !matches!(row.operation, Operation::OpenRtp | Operation::CloseRtp | Operation::QueryMembers)
}

/// Whether its requests are counted, and answers say what is left.
fn is_counted(row: &Row) -> bool {
    matches!(row.asker, Asker::Caller | Asker::Server | Asker::Reporter) || row.operation == Operation::OpenApi
}

fn security(asker: Asker) -> Value {
    let with = |names: &[&str]| -> Vec<Value> {
        let needed = |key: &str| names.iter().chain([&key]).map(|name| ((*name).to_string(), json!([]))).collect();
        ["api_key", "api_key_in_header"].map(|key| Value::Object(needed(key))).into()
    };
    json!(match asker {
        Asker::Anybody | Asker::UrlHolder => Vec::new(),
        Asker::KeyHolder => [with(&[]), with(&["token"])].concat(),
        Asker::Reporter => [with(&["token"]), with(&["anonymous"])].concat(),
        Asker::Caller | Asker::Server => with(&["token"]),
    })
}

/// Errors that a request may get whatever it is about: it makes no sense, is nobody's, comes too often, meets a fault, or its
/// body finds no room.
fn general_errors(row: &Row, has_body: bool) -> Vec<u16> {
    let all: &[u16] = match row.asker {
        Asker::Anybody => &[],
        Asker::UrlHolder => &[500],
        Asker::KeyHolder | Asker::Reporter => &[400, 401, 429],
        Asker::Caller => &[400, 401, 429, 500],
        Asker::Server => &[400, 401, 403, 429, 500],
    };
    all.iter().copied().chain(has_body.then_some(503)).collect()
}

fn responses(row: &Row, described: &Described, is_browsers: bool) -> Value {
    let content = |kind: &str, schema: Value| json!({kind: {"schema": schema}});
    let plain = || content("text/plain; charset=utf-8", text());
    let answer = match row.operation {
        Operation::Connect | Operation::Audio | Operation::ProbeTranscript => None,
        Operation::Health | Operation::Readiness => Some(plain()),
        Operation::OpenApi => Some(content("application/json", any_object())),
        Operation::DownloadTranscript => Some(content("application/jsonl", text())),
        _ => {
            let mut answer = described.answer.clone();
            answer["properties"]["duration"] = text();
            if let Some(needed) = answer["required"].as_array_mut() {
                needed.push(json!("duration"));
            }
            Some(content("application/json", if is_browsers { of_browsers(answer) } else { answer }))
        }
    };
    let mut all = Map::new();
    let mut said = json!({"description": row.status().canonical_reason().unwrap_or_default()});
    if let Some(content) = answer {
        said["content"] = content;
    }
    all.insert(row.status().as_str().into(), said.clone());
    for status in general_errors(row, described.body.is_some()).into_iter().chain(described.errors.iter().copied()) {
        let error = match (row.operation, status) {
            (Operation::ProbeTranscript, _) => json!({}),
            (Operation::Readiness, 503) => json!({"content": plain()}),
            (Operation::DownloadTranscript, 206) => said.clone(),
            (_, 304 | 412 | 416) => json!({}),
            _ => json!({"content": content("application/json", component("Error"))}),
        };
        all.insert(status.to_string(), described_as(status, error));
    }
    for (status, response) in &mut all {
        response["headers"]["x-request-id"] = header("RequestId");
        if is_counted(row) {
            for (name, of) in rates::HEADERS.iter().zip(["RateLimit", "RateLimitRemaining", "RateLimitReset"]) {
                response["headers"][*name] = header(of);
            }
            if status == "429" {
                response["headers"]["Retry-After"] = header("RetryAfter");
            }
        }
    }
    Value::Object(all)
}

fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

fn described_as(status: u16, mut response: Value) -> Value {
    let why = match status {
        206 => "A range of it",
        304 => "It is what whoever asks has already",
        400 => "The request makes no sense, in general or now",
        401 => "The API key, or the token, is not good",
        403 => "Whoever asks may not",
        404 => "It is not there",
        412 => "It is not as whoever asks wants it",
        416 => "There is no such range of it",
        429 => "Too many requests",
        500 => "A fault of the server's",
        503 => "Not ready, or full",
        _ => "",
    };
    response["description"] = json!(why);
    if status == 206 {
        response["headers"] = json!({"Content-Range": {"schema": text()}});
    }
    response
}

/// The same with the components of browsers.
fn of_browsers(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match value {
                    Value::String(reference) if name == "$ref" => reference.push_str(OF_BROWSERS),
                    value => *value = of_browsers(value.take()),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = of_browsers(value.take())),
        _ => {}
    }
    schema
}
