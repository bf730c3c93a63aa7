//! JSON that is grown from bytes.
//!
//! In: a schema as the server's own document has it. Out: a value that is often as it says, and sometimes anything: so that what
//! lies behind the first check is reached too.

use serde_json::{Map, Number, Value, json};

use super::Dice;
use super::world::USERS;

/// Deeper than this nothing grows of itself.
const MAX_DEPTH: usize = 8;
/// Texts that mean something somewhere; and none that leads to another machine.
const TEXTS: &[&str] = &[
    "ann",
    "bob",
    "eve",
    "a",
    "default",
    "development",
    "default:a",
    "call_member",
    "admin",
    "host",
    "user",
    "guest",
    "en",
    "de",
    "auto",
    "uk",
    "auto-on",
    "available",
    "disabled",
    "end-call",
    "StartTranscription",
    "send-audio",
    "archive",
    "",
    "x",
    "*",
    "2026-11-28T12:00:00Z",
    "1970-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59.999999999Z",
    "-262144-01-01T00:00:00Z",
    "0",
    "-1",
    "http://127.0.0.1:9/hook",
    "http://[::1]:9/",
    "https://hooks.invalid/x",
    "webhook",
    "sqs",
    "s3",
    "gcs",
    "abs",
    "opus",
    "pcmu",
    "127.0.0.1:9",
    "call.ended",
    "\u{0}",
    "\u{202e}",
    "💬",
    "'; DROP TABLE calls; --",
    "../../x",
    "%2e%2e",
    "$in",
];
/// Names of fields, beside those of schemas: of queries, and of what is kept as it was set.
const NAMES: &[&str] = &[
    "id",
    "cid",
    "type",
    "user_id",
    "role",
    "custom",
    "members",
    "transcription",
    "mode",
    "language",
    "session",
    "created_at",
    "starts_at",
    "ended_at",
    "created_by_user_id",
    "ongoing",
    "team",
    "custom.x",
    "$and",
    "$or",
    "$in",
    "$gt",
    "$lte",
    "$exists",
    "$eq",
    "$autocomplete",
    "field",
    "direction",
    "x",
    "name",
    "data",
    "settings_override",
    "",
];
const NUMBERS: &[f64] =
    &[0.0, 1.0, -1.0, 0.5, 7.0, 255.0, 65_536.0, 1e9, 1_700_000_000.5, 1e18, 1e19, -1e19, 1e300, f64::MIN_POSITIVE];

/// Of one of the document's schemas.
pub(super) fn grown(document: &Value, schema: &Value, dice: &mut Dice<'_>) -> Value {
    of(document, schema, dice, 0)
}

fn of(document: &Value, schema: &Value, dice: &mut Dice<'_>, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    if dice.below(16) == 15 {
        return anything(dice, depth);
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null);
        return of(document, schema, dice, depth);
    }
    if let Some(any) = schema["anyOf"].as_array().filter(|any| !any.is_empty()) {
        return of(document, &any[dice.below(any.len())], dice, depth);
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.is_empty()) {
        return allowed[dice.below(allowed.len())].clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => json!(text(dice)),
        Some("boolean") => json!(dice.maybe()),
        Some("integer" | "number") => number(schema, dice),
        Some("array") => (0..dice.below(4)).map(|_| of(document, &schema["items"], dice, depth + 1)).collect(),
        Some("object") => {
            let mut fields = Map::new();
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if dice.maybe() {
                    fields.insert(name.clone(), of(document, schema, dice, depth + 1));
                }
            }
            match &schema["additionalProperties"] {
                Value::Object(values) => {
                    let values = Value::Object(values.clone());
                    for _ in 0..dice.below(4) {
                        let name = dice.pick(&["ann", "bob", "user", "host", "x"]);
                        fields.insert(name.into(), of(document, &values, dice, depth + 1));
                    }
                }
                _ if dice.below(8) == 7 => drop(fields.insert(name(dice), anything(dice, depth + 1))),
                _ => {}
            }
            Value::Object(fields)
        }
        _ => anything(dice, depth),
    }
}

fn number(schema: &Value, dice: &mut Dice<'_>) -> Value {
    let ends = [schema["minimum"].as_i64(), schema["maximum"].as_i64()];
    match dice.below(8) {
        0 | 1 => json!(dice.byte()),
        2 => json!(ends[0].unwrap_or(i64::MIN)),
        3 => json!(ends[1].unwrap_or(i64::MAX)),
        4 => json!(ends[0].unwrap_or_default().saturating_sub(1)),
        5 => json!(ends[1].unwrap_or_default().saturating_add(1)),
        6 => json!(u64::MAX),
        _ => Number::from_f64(dice.pick(NUMBERS)).map_or(Value::Null, Value::Number),
    }
}

/// A text that is known, or one of any bytes.
pub(super) fn text(dice: &mut Dice<'_>) -> String {
    match dice.below(8) {
        0..3 => dice.pick(&USERS).into(),
        3..6 => TEXTS[usize::from(dice.byte()) % TEXTS.len()].into(),
        6 => {
            let count = dice.below(40);
            String::from_utf8_lossy(dice.take(count)).into_owned()
        }
        _ => "x".repeat([64, 65, 255, 256, 1024, 20_000][dice.below(6)]),
    }
}

fn name(dice: &mut Dice<'_>) -> String {
    if dice.below(8) == 7 { text(dice) } else { NAMES[usize::from(dice.byte()) % NAMES.len()].into() }
}

/// JSON of any kind.
pub(super) fn anything(dice: &mut Dice<'_>, depth: usize) -> Value {
    let deepest = if depth > MAX_DEPTH { 5 } else { 9 };
    match dice.below(deepest) {
        0 => Value::Null,
        1 => json!(dice.maybe()),
        2 => number(&Value::Null, dice),
        3 | 4 => json!(text(dice)),
        5 => (0..dice.below(5)).map(|_| anything(dice, depth + 1)).collect(),
        // Deep: with as many levels as a letter says.
        6 => (0..dice.below(140)).fold(json!(1), |inner, _| json!({ "x": inner })),
        _ => (0..dice.below(6)).map(|_| (name(dice), anything(dice, depth + 1))).collect(),
    }
}
