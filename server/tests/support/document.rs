//! What the server says of itself in `/openapi.json`, against what it answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

/// The document; the same for all servers.
pub(crate) struct Document {
    pub(crate) whole: Value,
    /// By whatever names a schema.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
    /// Operations with the statuses that they were answered with.
    seen: Mutex<BTreeSet<(String, String)>>,
}

impl Document {
    /// As any of the process' servers gave it, once.
    pub(crate) fn of(fetch: impl FnOnce() -> Value) -> &'static Self {
        static DOCUMENT: OnceLock<Document> = OnceLock::new();
        DOCUMENT.get_or_init(|| Self { whole: closed(fetch()), validators: Mutex::default(), seen: Mutex::default() })
    }

    /// The operation that has this path, and a pointer to it.
    pub(crate) fn operation(&self, method: &str, path: &str) -> Option<(&Value, String)> {
        let parts = |path: &str| path.split('/').filter(|part| !part.is_empty()).map(String::from).collect::<Vec<_>>();
        let wanted = parts(path.split('?').next().unwrap());
        let fits = |template: &str| {
            let template = parts(template);
            let pairs = template.iter().zip(&wanted);
            template.len() == wanted.len() && pairs.into_iter().all(|(one, part)| one.starts_with('{') || one == part)
        };
        let method = method.to_lowercase();
        let mut paths = self.whole["paths"].as_object().unwrap().iter();
        let (path, methods) = paths.find(|(path, methods)| fits(path) && methods.get(&method).is_some())?;
        Some((&methods[&method], format!("/paths/{}/{method}", path.replace('/', "~1"))))
    }

    /// What is wrong with a value, by the schema under a pointer.
    pub(crate) fn errors(&self, pointer: &str, value: &Value) -> Vec<String> {
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(pointer.to_string()).or_insert_with(|| {
            // Templates have braces, which references may not.
            let mut schema = self.whole.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone();
            schema["components"] = self.whole["components"].clone();
            let options = jsonschema::options().should_validate_formats(true);
            Arc::new(options.build(&schema).unwrap())
        });
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// An operation was answered with this status, which the document has.
    pub(crate) fn saw(&self, method: &str, path: &str, status: u16) {
        let (operation, _) =
            self.operation(method, path).unwrap_or_else(|| panic!("not in the document: {method} {path}"));
        let response = &operation["responses"][status.to_string()];
        assert!(response.is_object(), "the document has no such status: {method} {path} {status}");
        let id = operation["operationId"].as_str().unwrap().to_string();
        self.seen.lock().unwrap().insert((id, status.to_string()));
    }

    /// What the document has, and nobody has seen: operations and statuses.
    pub(crate) fn unseen(&self) -> BTreeSet<(String, String)> {
        let operations =
            self.whole["paths"].as_object().unwrap().values().flat_map(|one| one.as_object().unwrap().values());
        let all = operations.flat_map(|operation| {
            let id = operation["operationId"].as_str().unwrap();
            operation["responses"].as_object().unwrap().keys().map(move |status| (id.to_string(), status.clone()))
        });
        let seen = self.seen.lock().unwrap();
        all.filter(|one| !seen.contains(one)).collect()
    }

    /// An answer is as the document says; and so is the body of a request that was granted.
    pub(crate) fn check(&self, method: &str, path: &str, body: &str, status: u16, kind: &str, answer: &Value) {
        let what = format!("{method} {path} {body}: {status} {answer:#}");
        let Some((operation, pointer)) = self.operation(method, path) else {
            assert!((400..500).contains(&status), "not in the document: {what}");
            let errors = self.errors("/components/schemas/Error", answer);
            return assert!(errors.is_empty(), "{errors:#?} in {what}");
        };
        let response = &operation["responses"][status.to_string()];
        assert!(response.is_object(), "the document has no such status: {what}");
        self.saw(method, path, status);
        let content = &response["content"][kind];
        assert!(content.is_object(), "the document has no content of type {kind}: {what}");
        let kind = kind.replace('/', "~1");
        let errors = self.errors(&format!("{pointer}/responses/{status}/content/{kind}/schema"), answer);
        assert!(errors.is_empty(), "{errors:#?} in {what}");
        let sent = serde_json::from_str::<Value>(body).unwrap_or_default();
        if status < 300 && sent.is_object() && operation["requestBody"].is_object() {
            let errors = self.errors(&format!("{pointer}/requestBody/content/application~1json/schema"), &sent);
            assert!(errors.is_empty(), "granted, though by the document it is no request: {errors:#?} in {what}");
        }
    }
}

/// Answers with fields that the document does not have are wrong here, though clients may ignore them: requests are as open as
/// they say.
fn closed(mut document: Value) -> Value {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                fields.values_mut().for_each(close);
                if fields.get("properties").is_some_and(Value::is_object) && fields.contains_key("required") {
                    fields.entry("additionalProperties").or_insert(json!(false));
                }
            }
            Value::Array(values) => values.iter_mut().for_each(close),
            _ => {}
        }
    }
    let paths = document["paths"].as_object_mut().unwrap().values_mut();
    for operation in paths.flat_map(|methods| methods.as_object_mut().unwrap().values_mut()) {
        close(&mut operation["responses"]);
    }
    for (name, schema) in document["components"]["schemas"].as_object_mut().unwrap() {
        if !["CallSettingsRequest", "Sort"].contains(&name.as_str()) {
            close(schema);
        }
    }
    document
}
