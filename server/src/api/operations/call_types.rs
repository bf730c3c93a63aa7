//! Call types.
//!
//! In: settings and grants, as a platform's server writes them. Out: the whole call type.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{input, known_storage, object, settings};
use crate::api::models::{self, id};
use crate::api::route::Operation;
use crate::api::schema::{self, Described, any_object, component, list, map, request, with};
use crate::api::shared::text;
use crate::call::grants::Grants;
use crate::call::{CallType, Cid};
use crate::host::Change;
use crate::wire::error::ApiError;
use crate::wire::render;

/// Call types that there may be: all of them are in one answer.
pub(crate) const MOST_CALL_TYPES: usize = 100;

pub(super) fn described(operation: Operation) -> Described {
    let written = || {
        request(
            &[],
            json!({
                "settings": component("CallSettingsRequest"), "grants": map(list(schema::text())),
                "external_storage": schema::text(), "notification_settings": any_object(),
            }),
        )
    };
    match operation {
        Operation::ListCallTypes => {
            let answer = schema::object(json!({"call_types": map(component("CallTypeResponse"))}));
            Described::new("All call types", answer)
        }
        Operation::CreateCallType => {
            let mut body = with(written(), json!({"name": id()}));
            body["required"] = json!(["name"]);
            Described::new("Makes a call type", models::call_type_response()).body(body).errors(&[404])
        }
        Operation::GetCallType => Described::new("A call type", models::call_type_response()).errors(&[404]),
        Operation::UpdateCallType => {
            Described::new("Changes a call type; what is left out stays", models::call_type_response())
                .body(written())
                .errors(&[404])
        }
        _ => Described::new("Deletes a call type that has no calls", schema::object(json!({}))).errors(&[404]),
    }
}

pub(super) fn call_types(
    change: &mut Change<'_>,
    operation: Operation,
    name: Option<String>,
    mut body: Map<String, Value>,
) -> Result<Value, ApiError> {
    if operation == Operation::ListCallTypes {
        let all = change.store.call_types()?;
        let rendered: BTreeMap<_, _> =
            all.iter().map(|call_type| (call_type.name.clone(), render::call_type(call_type))).collect();
        return Ok(json!({"call_types": rendered}));
    }
    let name = name.or(text(&body, "name").map(str::to_string)).unwrap_or_default();
    // Of a call's name the type is a part.
    Cid::new(&name, "x")?;
    let now = change.now;
    let mut call_type = match operation {
        Operation::CreateCallType => {
            if change.store.call_type(&name)?.is_some() {
                return input(format!("the call type {name} is there already"));
            }
            if change.store.call_types()?.len() >= MOST_CALL_TYPES {
                return input(format!("{MOST_CALL_TYPES} call types are the most there may be: delete one"));
            }
            CallType::new(&name, now)
        }
        _ => change.call_type(&name)?,
    };
    match operation {
        Operation::GetCallType => return Ok(render::call_type(&call_type)),
        Operation::DeleteCallType => {
            if change.store.has_calls_of(&name)? {
                return input(format!("the call type {name} has calls: delete them first"));
            }
            change.store.delete_call_type(&name)?;
            return Ok(json!({}));
        }
        _ => {}
    }
    let written = settings(&mut body, "settings")?;
    call_type.settings = call_type.settings.overridden(&written);
    if let Some(grants) = body.remove("grants").filter(|grants| !grants.is_null()) {
        let Ok(grants) = serde_json::from_value::<BTreeMap<String, Vec<String>>>(grants) else {
            return input("grants should be an object of roles, each with a list of capabilities");
        };
        call_type.grants = call_type.grants.overridden(&Grants::new(grants));
    }
    if body.get("external_storage").is_some_and(|name| !name.is_null()) {
        // An empty name is the default storage.
        call_type.external_storage = known_storage(change, &body, "external_storage")?;
    }
    if let Some(notifications) = object(&mut body, "notification_settings")? {
        call_type.notification_settings.extend(notifications);
    }
    call_type.updated_at = now;
    change.check_recognition(&call_type.settings)?;
    change.put_call_type(&call_type, &written)?;
    Ok(render::call_type(&call_type))
}
