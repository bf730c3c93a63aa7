//! The OpenAPI document.
//!
//! In: the table of what is served, and what each handler says of itself. Out: `/openapi.json`, in which every row is, and
//! nothing else.

use serde_json::{Map, Value, json};

use super::route::{Asker, Operation, Row, TABLE};
use super::schema::{Described, any_object, component, text};
use super::{models, operations};
use crate::limits::Limits;

/// Errors that any request may get: it comes too often, meets a fault, or finds no room.
const EVERYWHERE: &[u16] = &[429, 500, 503];
/// And any with a key: it makes no sense, or is nobody's.
const WITH_KEY: &[u16] = &[400, 401];
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
            "securitySchemes": {
                "api_key": {
                    "type": "apiKey", "in": "query", "name": "api_key", "description": "Which platform's server this is",
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
    if row.asker == Asker::Caller {
        parameters.push(json!({
            "name": "connection_id", "in": "query", "schema": text(), "description": "Which of their connections is to watch",
        }));
    }
    if matches!(row.asker, Asker::Caller | Asker::Server | Asker::KeyHolder) {
        parameters.push(json!({
            "name": "user_id", "in": "query", "schema": text(), "description": "Must be a user's token's",
        }));
    }
    let mut operation = json!({
        "operationId": if is_browsers { format!("{}_of_browsers", row.name) } else { row.name.to_string() },
        "summary": described.summary,
        "description": who(row.asker),
        "parameters": parameters,
        "responses": responses(row, &described, is_browsers),
        "security": security(row.asker),
    });
    if let Some(body) = described.body {
        operation["requestBody"] = json!({"content": {"application/json": {"schema": body}}});
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

fn security(asker: Asker) -> Value {
    match asker {
        Asker::Anybody | Asker::UrlHolder => json!([]),
        Asker::KeyHolder => json!([{"api_key": []}, {"api_key": [], "token": []}]),
        Asker::Reporter => json!([{"api_key": [], "token": []}, {"api_key": [], "anonymous": []}]),
        Asker::Caller | Asker::Server => json!([{"api_key": [], "token": []}]),
    }
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
    let server_only: &[u16] = if row.asker == Asker::Server { &[403] } else { &[] };
    let with_key = if matches!(row.asker, Asker::Anybody | Asker::UrlHolder) { &[] } else { WITH_KEY };
    for status in EVERYWHERE.iter().chain(with_key).chain(server_only).chain(described.errors) {
        let error = match (row.operation, *status) {
            (Operation::ProbeTranscript, _) => json!({}),
            (Operation::Readiness, 503) => json!({"content": plain()}),
            (Operation::DownloadTranscript, 206) => said.clone(),
            (_, 304 | 412 | 416) => json!({}),
            _ => json!({"content": content("application/json", component("Error"))}),
        };
        all.insert(status.to_string(), described_as(*status, error));
    }
    Value::Object(all)
}

fn described_as(status: u16, mut response: Value) -> Value {
    let (why, headers) = match status {
        206 => ("A range of it", json!({"Content-Range": {"schema": text()}})),
        304 => ("It is what whoever asks has already", Value::Null),
        400 => ("The request makes no sense, in general or now", Value::Null),
        401 => ("The API key, or the token, is not good", Value::Null),
        403 => ("Whoever asks may not", Value::Null),
        404 => ("It is not there", Value::Null),
        412 => ("It is not as whoever asks wants it", Value::Null),
        416 => ("There is no such range of it", Value::Null),
        429 => {
            let number = || json!({"schema": {"type": "integer"}});
            let names = ["Retry-After", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
            let headers: Map<_, _> = names.iter().map(|name| ((*name).to_string(), number())).collect();
            ("Too many requests", Value::Object(headers))
        }
        500 => ("A fault of the server's", Value::Null),
        503 => ("Not ready, or full", Value::Null),
        _ => ("", Value::Null),
    };
    response["description"] = json!(why);
    if !headers.is_null() {
        response["headers"] = headers;
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
