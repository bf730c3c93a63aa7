//! Users and their roles.
//!
//! In: what a platform's server says of its people. Out: them, as the clients' models have them.

use std::collections::BTreeMap;

use cuewire::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::described::paged;
use super::{MAX_OFFSET, MOST_ENTRIES, Operation, check_user_id, input, object, page, read, short, sorts};
use crate::api::models::{id, user_id};
use crate::api::schema::{self, Described, any_object, component, integer, list, map, request, text};
use crate::call::grants::Capability;
use crate::host::Change;
use crate::store::{Query, USER_FIELDS};
use crate::user::Profile;
use crate::wire::error::{ApiError, Code};

/// Roles that are there from the start: those of the default grants.
const ROLES: [&str; 6] = ["admin", "anonymous", "call_member", "guest", "host", "user"];

/// Roles that are remembered beside them: all of them are in one answer.
const MOST_ROLES: usize = 250;

/// Somebody, as a server tells of them.
pub(super) fn user_request(needed: &[&str]) -> Value {
    request(
        needed,
        json!({
            "id": user_id(), "role": text(), "name": text(), "image": text(), "language": text(), "teams": list(text()),
            "custom": any_object(),
        }),
    )
}

pub(super) fn described(operation: Operation, limits: &crate::limits::Limits) -> Described {
    let users = |users| schema::object(json!({"users": users}));
    let answer = || {
        let fields = json!({"users": map(component("FullUserResponse")), "membership_deletion_task_id": text()});
        schema::object(fields)
    };
    match operation {
        Operation::UpdateUsers => {
            let mut by_id = map(user_request(&[]));
            by_id["propertyNames"] = user_id();
            (by_id["minProperties"], by_id["maxProperties"]) = (json!(1), json!(MOST_ENTRIES));
            Described::new("Writes users; what is left out of one stays", answer())
                .body(request(&["users"], json!({"users": by_id})))
        }
        Operation::UpdateUsersPartial => {
            let set =
                json!({"type": "object", "additionalProperties": true, "properties": user_request(&[])["properties"]});
            let patch = json!({
                "type": "object", "required": ["id"],
                "properties": {"id": text(), "set": set, "unset": list(text())},
            });
            let patches = schema::list_of_most(MOST_ENTRIES, patch);
            Described::new("Sets and clears fields of users", answer())
                .body(request(&["users"], json!({"users": patches})))
                .errors(&[404])
        }
        Operation::QueryUsers => {
            let offset = request(&[], json!({"offset": integer(0..=i64::from(MAX_OFFSET))}));
            let payload = schema::with(paged(limits), offset["properties"].clone());
            let mut described = Described::new("Users that are like this", users(list(component("FullUserResponse"))));
            described.query.push(json!({
                "name": "payload", "in": "query", "content": {"application/json": {"schema": payload}},
            }));
            described
        }
        Operation::ListRoles => Described::new("All roles", schema::object(json!({"roles": list(component("Role"))}))),
        Operation::CreateRole => Described::new("Remembers a role", schema::object(json!({"role": component("Role")})))
            .body(request(&["name"], json!({"name": id()}))),
        _ => {
            let answer = schema::object(json!({"permissions": list(component("Permission"))}));
            Described::new("What may be granted", answer)
        }
    }
}

/// Writes what a server says of somebody, who keeps what it leaves out. Who calls this checks what they still may.
pub(super) fn upsert(change: &mut Change<'_>, fields: &mut Map<String, Value>) -> Result<Profile, ApiError> {
    #[derive(Deserialize)]
    struct Written {
        id: String,
        role: Option<String>,
        name: Option<String>,
        image: Option<String>,
        language: Option<String>,
        teams: Option<Vec<String>>,
        custom: Option<Map<String, Value>>,
    }
    let written: Written = read(std::mem::take(fields))?;
    check_user_id(&written.id)?;
    let mut profile = change.profile(&written.id);
    profile.user.role = written.role.unwrap_or(profile.user.role);
    profile.name = written.name.or(profile.name);
    profile.image = written.image.or(profile.image);
    profile.language = written.language.unwrap_or(profile.language);
    profile.teams = written.teams.unwrap_or(profile.teams);
    profile.custom = written.custom.unwrap_or(profile.custom);
    profile.updated_at = change.now;
    change.put_user(profile.clone())?;
    Ok(profile)
}

pub(super) fn update_users(
    change: &mut Change<'_>,
    mut body: Map<String, Value>,
    is_partial: bool,
) -> Result<Value, ApiError> {
    #[derive(Deserialize)]
    struct Patch {
        id: String,
        #[serde(default)]
        set: Map<String, Value>,
        #[serde(default)]
        unset: Vec<String>,
    }
    let mut users = BTreeMap::new();
    if is_partial {
        #[derive(Deserialize)]
        struct Patches {
            users: Vec<Patch>,
        }
        let Patches { users: patches } = read(body)?;
        if patches.len() > MOST_ENTRIES {
            return input(format!("users: at most {MOST_ENTRIES}"));
        }
        for Patch { id, set, unset } in patches {
            if change.store.user(&id)?.is_none() {
                return Err(ApiError::new(Code::DoesNotExist, format!("the user {} does not exist", short(&id))));
            }
            let mut profile = change.profile(&id);
            for name in unset {
                match name.as_str() {
                    "name" => profile.name = None,
                    "image" => profile.image = None,
                    "teams" => profile.teams.clear(),
                    name => drop(profile.custom.remove(name)),
                }
            }
            let mut fields = Map::from_iter([("id".to_string(), json!(id))]);
            for (name, value) in set {
                match name.as_str() {
                    "id" => {}
                    "name" | "image" | "role" | "language" | "teams" => drop(fields.insert(name, value)),
                    "custom" => {
                        let Value::Object(custom) = value else { return input("custom should be an object") };
                        profile.custom.extend(custom);
                    }
                    // As the hosted service has it: further fields of a user are custom ones.
                    _ => drop(profile.custom.insert(name, value)),
                }
            }
            change.put_user(profile)?;
            let profile = upsert(change, &mut fields)?;
            users.insert(id, profile.own_json());
        }
    } else {
        let written = object(&mut body, "users")?.unwrap_or_default();
        if written.is_empty() || written.len() > MOST_ENTRIES {
            return input(format!("users should be an object with 1 – {MOST_ENTRIES} users by their ids"));
        }
        for (id, user) in written {
            let Value::Object(mut user) = user else { return input(format!("users.{}: an object", short(&id))) };
            user.insert("id".into(), json!(id));
            let profile = upsert(change, &mut user)?;
            users.insert(id, profile.own_json());
        }
    }
    // Once for all of them: it looks at every call that goes on.
    change.check_users(&users.keys().map(String::as_str).collect::<Vec<_>>())?;
    Ok(json!({"users": users, "membership_deletion_task_id": ""}))
}

pub(super) fn query_users(change: &mut Change<'_>, mut payload: Map<String, Value>) -> Result<Value, ApiError> {
    let filter = object(&mut payload, "filter_conditions")?.unwrap_or_default();
    let query = Query::new(USER_FIELDS, &filter, &sorts(&payload)?)?;
    let (limit, offset) = page(change, &payload)?;
    let offset = match payload.get("offset").filter(|offset| !offset.is_null()) {
        None => offset,
        Some(said) => match said.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= MAX_OFFSET) {
            Some(offset) => offset,
            None => return input(format!("offset is {said}: allowed are 0 – {MAX_OFFSET}")),
        },
    };
    let users = change.store.users_like(&query, offset, limit)?;
    Ok(json!({"users": users.iter().map(Profile::own_json).collect::<Vec<_>>()}))
}

fn role(name: &str, custom: bool, at: Timestamp) -> Value {
    json!({"name": name, "custom": custom, "scopes": [], "created_at": at.as_nanos(), "updated_at": at.as_nanos()})
}

/// All roles: anything may be one, and those that are made here are only remembered.
pub(super) fn list_roles(change: &Change<'_>) -> Result<Value, ApiError> {
    let mut roles: Vec<_> = ROLES.iter().map(|name| role(name, false, Timestamp::EPOCH)).collect();
    roles.extend(change.store.roles()?.iter().map(|(name, at)| role(name, true, *at)));
    Ok(json!({"roles": roles}))
}

pub(super) fn create_role(change: &Change<'_>, body: &Map<String, Value>) -> Result<Value, ApiError> {
    let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
        return input(format!("name is `{}`: allowed are 1 – 64 letters, digits, `_` and `-`", short(name)));
    }
    let is_there = ROLES.contains(&name);
    if !is_there && change.store.roles()?.len() >= MOST_ROLES {
        return input(format!("{MOST_ROLES} roles are the most there may be"));
    }
    if is_there || !change.store.put_role(name, change.now)? {
        return input(format!("the role {name} is there already"));
    }
    Ok(json!({"role": role(name, true, change.now)}))
}

/// What may be granted.
pub(super) fn list_permissions() -> Value {
    let permissions = Capability::ALL.map(|capability| {
        json!({
            "id": capability.as_str(), "name": capability.as_str(), "action": format!("{capability:?}"),
            "description": "", "custom": false, "level": "app", "owner": false, "owner_resource": "",
            "same_team": false, "tags": [],
        })
    });
    json!({"permissions": permissions})
}
