//! What is taken and answered, as JSON Schema.
//!
//! In: what a handler says of itself, beside its code. Out: a [`Described`] operation, of which the document is made.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

/// What an operation takes and answers.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) summary: &'static str,
    /// Parameters of the query.
    pub(crate) query: Vec<Value>,
    /// The body, where one is read.
    pub(crate) body: Option<Value>,
    /// The answer beside `duration`.
    pub(crate) answer: Value,
    /// Statuses of errors, beside those that any request may get.
    pub(crate) errors: &'static [u16],
}

impl Described {
    /// With the answer's fields, all of which are there.
    pub(crate) fn new(summary: &'static str, answer: Value) -> Self {
        Self { summary, query: Vec::new(), body: None, answer, errors: &[] }
    }

    pub(crate) fn errors(self, errors: &'static [u16]) -> Self {
        Self { errors, ..self }
    }

    pub(crate) fn body(self, schema: Value) -> Self {
        Self { body: Some(schema), ..self }
    }

    /// One without which nothing is answered.
    pub(crate) fn needed(mut self, name: &str, description: &str, schema: Value) -> Self {
        self = self.query(name, description, schema);
        if let Some(parameter) = self.query.last_mut() {
            parameter["required"] = json!(true);
        }
        self
    }

    pub(crate) fn query(mut self, name: &str, description: &str, schema: Value) -> Self {
        self.query.push(json!({"name": name, "in": "query", "description": description, "schema": schema}));
        self
    }
}

/// One of the components.
pub(crate) fn component(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A time in an answer; of browsers another component has this place.
pub(crate) fn time() -> Value {
    component("Time")
}

pub(crate) fn text() -> Value {
    json!({"type": "string"})
}

/// So many bytes; a schema counts characters, of which there are no more.
pub(crate) fn text_of(bytes: RangeInclusive<usize>) -> Value {
    let why = format!("{} – {} bytes", bytes.start(), bytes.end());
    json!({"type": "string", "minLength": usize::from(*bytes.start() > 0), "maxLength": bytes.end(), "description": why})
}

pub(crate) fn one_of<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Value {
    let texts: Vec<_> = texts.into_iter().map(|text| text.as_ref().to_string()).collect();
    json!({"type": "string", "enum": texts})
}

pub(crate) fn flag() -> Value {
    json!({"type": "boolean"})
}

pub(crate) fn integer(range: RangeInclusive<i64>) -> Value {
    json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
}

/// Whatever somebody keeps here.
pub(crate) fn any_object() -> Value {
    json!({"type": "object", "additionalProperties": true})
}

pub(crate) fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

pub(crate) fn list_of_most(most: usize, items: Value) -> Value {
    json!({"type": "array", "maxItems": most, "items": items})
}

/// An object of any names.
pub(crate) fn map(values: Value) -> Value {
    json!({"type": "object", "additionalProperties": values})
}

/// An answer's object: these fields are there.
pub(crate) fn object(fields: Value) -> Value {
    let names: Vec<_> = fields.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    json!({"type": "object", "properties": fields, "required": names})
}

/// An object that may have these fields too.
pub(crate) fn with(mut schema: Value, fields: Value) -> Value {
    if let (Some(properties), Value::Object(fields)) = (schema["properties"].as_object_mut(), fields) {
        properties.extend(fields);
    }
    schema
}

/// An object of a request: any field but those may be left out, which is said by `null` too; unknown ones are ignored.
pub(crate) fn request(needed: &[&str], fields: Value) -> Value {
    let Value::Object(mut fields) = fields else { return Value::Null };
    for (name, schema) in &mut fields {
        if !needed.contains(&name.as_str()) {
            *schema = or_null(schema.take());
        }
    }
    let mut schema = json!({"type": "object", "properties": fields});
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    schema
}

fn or_null(mut schema: Value) -> Value {
    if let Some(allowed) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        allowed.push(Value::Null);
    }
    match schema.get("type").cloned() {
        Some(Value::String(kind)) => schema["type"] = json!([kind, "null"]),
        Some(Value::Array(mut kinds)) => {
            kinds.push(json!("null"));
            schema["type"] = Value::Array(kinds);
        }
        _ => return json!({"anyOf": [schema, {"type": "null"}]}),
    }
    schema
}

/// The kinds of values that clients expect, of values as they are where nothing was set: what is given back, or in a request
/// what overrides it. There may be more.
pub(crate) fn kinds(defaults: &Value, is_request: bool) -> Value {
    let schema = match defaults {
        Value::Null => json!({}),
        Value::Bool(_) => flag(),
        Value::Number(_) => json!({"type": "number"}),
        Value::String(_) => text(),
        Value::Array(_) => json!({"type": "array"}),
        Value::Object(fields) => {
            let fields: Map<_, _> =
                fields.iter().map(|(name, value)| (name.clone(), kinds(value, is_request))).collect();
            let names: Vec<_> = fields.keys().cloned().collect();
            let mut schema = json!({"type": "object", "properties": fields, "additionalProperties": true});
            if !is_request && !names.is_empty() {
                schema["required"] = json!(names);
            }
            schema
        }
    };
    if is_request { or_null(schema) } else { schema }
}
