//! Lists of calls and members, a page at a time.
//!
//! In: a filter, sorts, and where the page begins. Out: what matches and may be read, and where the pages beside it begin.

use std::ops::ControlFlow;

use serde_json::{Map, Value, json};

use super::calls::whole;
use super::{
    MAX_OFFSET, MOST_ANSWERED_BYTES, MOST_LOOKED_AT, MOST_LOOKED_AT_BYTES, MOST_SORTS, PAGE, Request, actor, input,
    object, short, text,
};
use crate::call::grants::Capability;
use crate::call::{Actor, Call, Cid, Command};
use crate::host::Change;
use crate::store::{CALL_FIELDS, Query};
use crate::wire::error::ApiError;

/// A page: how many are wanted, and behind how many.
pub(super) fn page(change: &Change<'_>, body: &Map<String, Value>) -> Result<(u32, u32), ApiError> {
    let most = change.limits().page;
    let limit = match body.get("limit").filter(|limit| !limit.is_null()) {
        None => PAGE.min(most),
        Some(limit) => {
            match limit.as_u64().and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit <= most) {
                Some(0) => PAGE.min(most),
                Some(limit) => limit,
                None => return input(format!("limit is {limit}: allowed are 1 – {most}")),
            }
        }
    };
    let cursor = text(body, "next").filter(|next| !next.is_empty());
    let cursor = cursor.or(text(body, "prev").filter(|prev| !prev.is_empty()));
    let offset = match cursor {
        None => 0,
        Some(cursor) => match cursor.strip_prefix('p').and_then(|offset| offset.parse().ok()) {
            Some(offset) if offset <= MAX_OFFSET => offset,
            _ => return input(format!("next or prev is `{}`: it is not from here", short(cursor))),
        },
    };
    Ok((limit, offset))
}

/// Adds where the next and the previous page are.
fn with_pages(mut answer: Value, limit: u32, offset: u32, next: Option<u32>) -> Value {
    if let Some(next) = next {
        answer["next"] = json!(format!("p{next}"));
    }
    if offset > 0 {
        answer["prev"] = json!(format!("p{}", offset.saturating_sub(limit)));
    }
    answer
}

pub(super) fn sorts(body: &Map<String, Value>) -> Result<Vec<Value>, ApiError> {
    match body.get("sort") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(sorts)) if sorts.len() <= MOST_SORTS => Ok(sorts.clone()),
        Some(_) => input(format!("sort should be a list of at most {MOST_SORTS} {{field, direction}}")),
    }
}

pub(super) fn query_calls(
    change: &mut Change<'_>,
    request: Request,
    connection: Option<String>,
) -> Result<Value, ApiError> {
    let Request { token, mut body, .. } = request;
    let filter = object(&mut body, "filter_conditions")?.unwrap_or_default();
    let query = Query::new(CALL_FIELDS, &filter, &sorts(&body)?)?;
    let (limit, offset) = page(change, &body)?;
    let watching = connection.filter(|_| body.get("watch") == Some(&json!(true)));
    let (mut calls, mut answered, mut next) = (Vec::new(), 0, None);
    let (store, mut at, mut looked_at_bytes) = (change.store, offset, 0);
    // All matches are watched, and not one page of them: as far as one request looks.
    let look = |call: Call, bytes: usize| {
        looked_at_bytes += bytes;
        if at - offset >= MOST_LOOKED_AT || (at > offset && looked_at_bytes > MOST_LOOKED_AT_BYTES) {
            next = next.or(Some(at));
            return Ok(ControlFlow::Break(()));
        }
        let actor = actor(change, &token, call.cid(), None);
        let may_read = match &actor {
            Actor::Server { .. } => true,
            Actor::User { user, token_role } => change.may(&call, user, token_role.as_deref(), Capability::ReadCall)?,
        };
        if may_read && next.is_none() {
            let one = if calls.len() as u32 == limit { None } else { Some(whole(change, &call, &actor)?) };
            let bytes = one.as_ref().map_or(0, |one| one.to_string().len());
            match one.filter(|_| calls.is_empty() || answered + bytes <= MOST_ANSWERED_BYTES) {
                Some(one) => {
                    answered += bytes;
                    calls.push(one);
                }
                None => {
                    next = Some(at);
                    if watching.is_none() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        if let Some(connection) = watching.as_ref().filter(|_| may_read) {
            change.watch(connection, call.cid());
        }
        at += 1;
        Ok::<_, ApiError>(ControlFlow::Continue(()))
    };
    // One more, which says whether there is another page.
    store.look_at_calls(&query, offset, MOST_LOOKED_AT + 1, look)?;
    Ok(with_pages(json!({"calls": calls}), limit, offset, next))
}

pub(super) fn query_members(change: &mut Change<'_>, cid: &Cid, request: Request) -> Result<Value, ApiError> {
    let Request { token, mut body, .. } = request;
    let actor = actor(change, &token, cid, None);
    let call = change.command(cid, &actor, Command::Read)?;
    let (limit, offset) = page(change, &body)?;
    let filter = object(&mut body, "filter_conditions")?.unwrap_or_default();
    let mut all = change.render_members(&call);
    for (field, wanted) in &filter {
        let pointer = match field.as_str() {
            "user_id" => "/user_id",
            "role" | "call_role" => "/role",
            "user.name" | "name" => "/user/name",
            other => {
                return input(format!("`{}` cannot be asked for: allowed are user_id, role, name", short(other)));
            }
        };
        let wanted = match wanted {
            Value::Object(operators) if operators.len() == 1 => match operators.iter().next() {
                Some((operator, Value::Array(list))) if operator == "$in" => list.clone(),
                Some((operator, value)) if operator == "$eq" => vec![value.clone()],
                _ => return input(format!("the test of `{field}`: allowed are $eq, $in")),
            },
            Value::Object(_) | Value::Array(_) => return input(format!("the test of `{field}`: allowed are $eq, $in")),
            value => vec![value.clone()],
        };
        all.retain(|member| member.pointer(pointer).is_some_and(|value| wanted.contains(value)));
    }
    for sort in sorts(&body)?.iter().rev() {
        let field = match sort["field"].as_str() {
            Some(field @ ("user_id" | "created_at")) => field,
            other => {
                return input(format!("a sort by `{}`: allowed are user_id, created_at", short(other.unwrap_or(""))));
            }
        };
        let is_descending = match &sort["direction"] {
            Value::Null => false,
            direction if *direction == json!(1) => false,
            direction if *direction == json!(-1) => true,
            direction => {
                return input(format!("the direction of the sort by `{field}` is {direction}: allowed are 1, -1"));
            }
        };
        all.sort_by(|one, other| {
            let key = |member: &Value| (member[field].as_i64(), member[field].as_str().map(str::to_string));
            let order = key(one).cmp(&key(other));
            if is_descending { order.reverse() } else { order }
        });
    }
    let end = offset + limit;
    let next = (all.len() > end as usize).then_some(end);
    let members: Vec<_> = all.into_iter().skip(offset as usize).take(limit as usize).collect();
    Ok(with_pages(json!({"members": members}), limit, offset, next))
}
