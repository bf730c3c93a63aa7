//! What is rendered, against schemas of the clients' own models.
//!
//! `CUEWIRE_TEST_SCHEMAS` names the file that `tests/clients/schemas.py` writes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cuewire_server::api::render;
use serde_json::{Value, json};

/// The file's schemas, or a loud word that there are none.
pub(crate) fn schemas() -> Option<Value> {
    use std::io::Write as _;
    let Some(path) = std::env::var_os("CUEWIRE_TEST_SCHEMAS") else {
        let why = b"SKIPPED: CUEWIRE_TEST_SCHEMAS is not set; it should name what tests/clients/schemas.py writes\n";
        std::io::stderr().write_all(why).unwrap();
        return None;
    };
    Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

/// Checks `value` against a schema, and that its times are integers, or texts where browsers are to read them.
pub(crate) fn check_for(is_browsers: bool, schemas: &Value, schema: &Value, value: &Value, what: &str) {
    let whole = json!({"$ref": schema["$ref"], "$defs": schemas["$defs"]});
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?} in {value:#}");
    check_times(is_browsers, schemas, schema, value, what);
}

/// Of what servers read, and browsers once its times are turned into texts.
pub(crate) fn check(schemas: &Value, schema: &Value, value: &Value, what: &str) {
    check_for(false, schemas, schema, value, what);
    let mut value = value.clone();
    render::for_browser(&mut value);
    check_for(true, schemas, schema, &value, what);
}

/// Fields that the schema calls times are integers, or texts.
fn check_times(is_browsers: bool, schemas: &Value, schema: &Value, value: &Value, what: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => &schemas["$defs"][reference.rsplit('/').next().unwrap()],
        None => schema,
    };
    let options = schema["anyOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
    for option in options {
        if option["x-time"] == true {
            let is_right = if is_browsers { value.is_string() } else { value.is_i64() || value.is_u64() };
            assert!(value.is_null() || is_right, "{what}: {value} is a time of the other kind");
        }
        for (name, schema) in option["properties"].as_object().into_iter().flatten() {
            if let Some(value) = value.get(name) {
                check_times(is_browsers, schemas, schema, value, &format!("{what}.{name}"));
            }
        }
        for (place, value) in value.as_array().into_iter().flatten().enumerate() {
            check_times(is_browsers, schemas, &option["items"], value, &format!("{what}[{place}]"));
        }
    }
}
