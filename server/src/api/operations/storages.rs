//! External storages.
//!
//! In: how a platform's server says that they are reached. Out: what there is of them, without secrets.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::app::CHECK_TIME;
use super::{input, read, short};
use crate::api::models::id;
use crate::api::route::Operation;
use crate::api::schema::{self, Described, component, map, one_of, request, text_of};
use crate::api::shared::text;
use crate::call::Cid;
use crate::clock::new_id;
use crate::host::{Change, Host};
use crate::storage::{MAX_NAME_BYTES, MAX_PATH_BYTES, MOST_STORAGES, PARTS, Part, StorageConfig, StorageType, TEXTS};
use crate::wire::error::{ApiError, Code};

/// The storage that a field names; `None` where it names none.
pub(super) fn known_storage(
    change: &Change<'_>,
    body: &Map<String, Value>,
    field: &str,
) -> Result<Option<String>, ApiError> {
    let Some(name) = text(body, field).filter(|name| !name.is_empty()) else { return Ok(None) };
    match change.storage(name)? {
        Some(_) => Ok(Some(name.to_string())),
        None => missing(&format!("{field}: "), name),
    }
}

fn missing<T>(field: &str, name: &str) -> Result<T, ApiError> {
    Err(ApiError::new(Code::DoesNotExist, format!("{field}there is no external storage `{}`", short(name))))
}

pub(super) fn described(operation: Operation) -> Described {
    let whole = || {
        let kinds = StorageType::ALL.map(StorageType::name);
        schema::object(json!({
            "name": schema::text(), "bucket": schema::text(), "path": schema::text(), "type": one_of(kinds),
        }))
    };
    match operation {
        Operation::ListStorages => {
            let answer = schema::object(json!({"external_storages": map(component("ExternalStorageResponse"))}));
            Described::new("All external storages, without secrets", answer)
        }
        Operation::CreateStorage => Described::new("Makes an external storage", whole()).body(written(&["name"])),
        Operation::UpdateStorage => {
            Described::new("Changes an external storage; secrets that are left out stay", whole())
                .body(written(&[]))
                .errors(&[404])
        }
        Operation::DeleteStorage => {
            Described::new("Forgets an external storage", schema::object(json!({}))).errors(&[404])
        }
        _ => Described::new("Writes a test file", schema::object(json!({"file_url": schema::text()}))).errors(&[404]),
    }
}

/// How a storage is reached, as it is written.
fn written(needed: &[&str]) -> Value {
    let texts = |names: &[&str]| names.iter().map(|name| ((*name).to_string(), schema::text())).collect::<Map<_, _>>();
    let mut fields = json!({
        "storage_type": one_of(StorageType::ALL.map(StorageType::name)),
        "bucket": text_of(1..=MAX_NAME_BYTES), "path": text_of(0..=MAX_PATH_BYTES),
    });
    for name in TEXTS {
        fields[name] = schema::text();
    }
    for Part { name, needed, fields: names } in PARTS {
        fields[name] = request(needed, Value::Object(texts(names)));
    }
    let needed: Vec<_> = needed.iter().copied().chain(["storage_type", "bucket"]).collect();
    if needed.contains(&"name") {
        fields["name"] = id();
    }
    request(&needed, fields)
}

/// A storage as it is written, of which unknown fields are ignored.
fn config_of(mut body: Map<String, Value>) -> Result<StorageConfig, ApiError> {
    fn only(fields: &mut Map<String, Value>, names: &[&str]) {
        fields.retain(|name, value| names.contains(&name.as_str()) && !value.is_null());
    }
    let parts = PARTS.iter().map(|part| part.name);
    only(&mut body, &["storage_type", "bucket", "path"].into_iter().chain(TEXTS).chain(parts).collect::<Vec<_>>());
    for Part { name, fields, .. } in PARTS {
        if let Some(Value::Object(part)) = body.get_mut(name) {
            only(part, fields);
        }
    }
    read(body)
}

/// A storage as an `ExternalStorageResponse`; no secret is in it.
fn render(name: &str, config: &StorageConfig) -> Value {
    let StorageConfig { storage_type, bucket, path, .. } = config;
    json!({"name": name, "bucket": bucket, "path": path, "type": storage_type.name()})
}

pub(super) async fn storages(
    host: &Arc<Host>,
    operation: Operation,
    name: Option<String>,
    body: Map<String, Value>,
) -> Result<Value, ApiError> {
    if operation == Operation::ListStorages {
        let all = host.read(|change| change.storages()).await?;
        let all: Map<String, Value> = all.iter().map(|(name, config)| (name.clone(), render(name, config))).collect();
        return Ok(json!({"external_storages": all}));
    }
    let name = name.or(text(&body, "name").map(str::to_string)).unwrap_or_default();
    if Cid::new(&name, "x").is_err() {
        return input(format!("name is `{}`: allowed are 1 – 64 letters, digits, `_` and `-`", short(&name)));
    }
    let of = name.clone();
    let known = host.read(move |change| change.storage(&of)).await?;
    match (operation, known) {
        (Operation::CreateStorage, Some(_)) => input(format!("the external storage {name} is there already")),
        (Operation::CreateStorage, None) => put(host, name, config_of(body)?).await,
        (_, None) => missing("", &name),
        (Operation::CheckStorage, Some(config)) => check(host, &name, &config).await,
        (_, Some(_)) if host.storages.is_configured(&name) => {
            input(format!("the external storage {name} is one of the server's configuration: change it there"))
        }
        (Operation::UpdateStorage, Some(before)) => put(host, name, config_of(body)?.or_secrets_of(before)).await,
        (_, Some(_)) => host.run(move |change| delete(change, &name)).await,
    }
}

async fn put(host: &Arc<Host>, name: String, config: StorageConfig) -> Result<Value, ApiError> {
    host.storages.check(&config).or_else(input)?;
    host.run(move |change| {
        if change.store.storages()?.len() >= MOST_STORAGES && change.storage(&name)?.is_none() {
            return input(format!("{MOST_STORAGES} external storages are the most there may be: delete one"));
        }
        change.store.put_storage(&name, &config)?;
        Ok(render(&name, &config))
    })
    .await
}

fn delete(change: &Change<'_>, name: &str) -> Result<Value, ApiError> {
    let uses = |of: &crate::call::CallType| of.external_storage.as_deref() == Some(name);
    if let Some(of) = change.store.call_types()?.iter().find(|of| uses(of)) {
        return input(format!("the external storage {name} is that of the call type {}: change it first", of.name));
    }
    if change.store.is_waited_for(name)? {
        return input(format!("transcripts are still to go to the external storage {name}"));
    }
    change.store.delete_storage(name)?;
    Ok(json!({}))
}

/// Writes a test file.
async fn check(host: &Arc<Host>, name: &str, config: &StorageConfig) -> Result<Value, ApiError> {
    let bucket = host.storages.bucket(name, config).or_else(input)?;
    let file = format!("cuewire_check_{}.txt", new_id());
    let put = bucket.put(&file, b"cuewire can write here.\n".to_vec(), "text/plain");
    match tokio::time::timeout(CHECK_TIME, put).await {
        Ok(Ok(place)) => Ok(json!({"file_url": place.url})),
        Ok(Err(why)) => input(format!("the external storage {name} cannot be written: {why}")),
        Err(_) => input(format!("the external storage {name} does not answer within {} s", CHECK_TIME.as_secs())),
    }
}
