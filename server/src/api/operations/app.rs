//! The platform's own settings.
//!
//! In: what its server writes of hooks and the rest. Out: all of it, without secrets.

use std::time::Duration;

use cuewire::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{App, Operation, flag, input, page, read, short, texts};
use crate::api::schema::{self, Described, component, integer, list, list_of_most, one_of, request, text_of, with};
use crate::api::shared::text;
use crate::app::{AppSettings, Hook, PLAIN_HOOKS, Queue, Secret, Target, defaults};
use crate::call::Cid;
use crate::clock::{new_id, now};
use crate::host::Change;
use crate::limits::Limits;
use crate::outward::check_url;
use crate::sinks::{Fields, Parcel, WITHOUT_SQS};
use crate::wire::error::ApiError;

/// Types of events in one filter, and the longest.
const MOST_EVENT_TYPES: usize = 200;
const EVENT_TYPE_BYTES: std::ops::RangeInclusive<usize> = 1..=100;
/// Longest id of a hook.
const MAX_HOOK_ID_BYTES: usize = 64;
/// The filter of the hook that `webhook_url` stands for.
const FILTER: &str = "webhook_events";
/// Milliseconds that one delivery may take: from, to, and where nothing is said.
const TIMEOUT_MS: (u32, u32, u32) = (100, 30_000, 6000);

/// A check is answered within this: clients give up after three seconds.
pub(super) const CHECK_TIME: Duration = Duration::from_secs(2);

/// A hook as it is written.
#[derive(Deserialize)]
struct Written {
    id: Option<String>,
    hook_type: String,
    enabled: Option<bool>,
    #[serde(default)]
    event_types: Option<Vec<String>>,
    rfc3339: Option<bool>,
    timeout_ms: Option<u32>,
    #[serde(flatten)]
    target: Fields,
}

pub(super) fn described(operation: Operation, limits: &Limits) -> Described {
    match operation {
        Operation::GetApp => {
            let answer = schema::object(json!({"app": component("AppResponseFields")}));
            Described::new("The platform's settings, without secrets", answer)
        }
        Operation::UpdateApp => {
            Described::new("Changes the platform's settings; what is left out stays", schema::object(json!({})))
                .body(written(limits))
        }
        Operation::ListDeadLetters => {
            let number = || json!({"type": "integer"});
            let answer = json!({"count": number(), "waiting": number(), "dead_letters": list(component("DeadLetter"))});
            let answer = with(schema::object(answer), json!({"next": schema::text()}));
            Described::new("Events that hooks did not take, the newest first", answer)
                .query("limit", "How many at most", integer(0..=limits.page.into()))
                .query("next", "Before which: as an answer said", schema::text())
        }
        _ => {
            let fields =
                ["sqs_url", "sqs_region", "sqs_key", "sqs_secret"].map(|name| (name.to_string(), schema::text()));
            let answer =
                with(schema::object(json!({"status": one_of(["ok", "error"])})), json!({"error": schema::text()}));
            Described::new("Sends a message into a queue: that of the body, or that of the settings", answer)
                .body(request(&[], Value::Object(fields.into_iter().collect())))
        }
    }
}

fn event_types() -> Value {
    list_of_most(MOST_EVENT_TYPES, text_of(EVENT_TYPE_BYTES))
}

/// What is acted on. Further fields of [`defaults`] are kept, if they are of its kinds.
fn written(limits: &Limits) -> Value {
    let (least, most, default) = TIMEOUT_MS;
    let timeout = json!({
        "type": "integer", "anyOf": [{"const": 0}, {"minimum": least, "maximum": most}],
        "description": format!("{least} – {most}; 0 stands for {default}"),
    });
    let mut fields = json!({
        "id": text_of(0..=MAX_HOOK_ID_BYTES), "hook_type": one_of(Target::KINDS), "enabled": schema::flag(),
        "event_types": event_types(), "rfc3339": schema::flag(), "timeout_ms": timeout,
    });
    for name in Fields::NAMES {
        fields[name] = schema::text();
    }
    let hook = request(&["hook_type"], fields);
    request(
        &[],
        json!({
            "enable_hook_payload_compression": schema::flag(), "event_hooks": list_of_most(limits.hooks as usize, hook),
            "webhook_url": schema::text(), "webhook_events": event_types(), "sqs_url": schema::text(),
            "sqs_key": schema::text(), "sqs_secret": schema::text(),
        }),
    )
}

pub(super) fn get_app(change: &Change<'_>) -> Result<Value, ApiError> {
    Ok(json!({"app": change.store.app()?.render()}))
}

pub(super) fn update_app(
    change: &mut Change<'_>,
    mut body: Map<String, Value>,
    private: bool,
) -> Result<Value, ApiError> {
    let before = change.store.app()?;
    let mut app = AppSettings::clone(&before);
    let now = change.now;
    if body.get("enable_hook_payload_compression").is_some_and(|value| !value.is_null()) {
        app.compression = flag(&body, "enable_hook_payload_compression")?;
    }
    update_plain(&mut app, &body, now)?;
    match body.remove("event_hooks") {
        None | Some(Value::Null) => {}
        Some(Value::Array(written)) => {
            app.hooks.retain(|hook| PLAIN_HOOKS.contains(&&*hook.id));
            for (i, hook) in written.into_iter().enumerate() {
                let Value::Object(hook) = hook else { return input(format!("event_hooks[{i}] should be an object")) };
                let hook = read(hook).and_then(|written| hook_of(&before, &app, written, now));
                let hook = hook.map_err(|error| ApiError { message: format!("event_hooks[{i}]: {error}"), ..error })?;
                if app.hook(&hook.id).is_some() {
                    return input(format!("event_hooks[{i}]: the id {} is there twice", short(&hook.id)));
                }
                app.hooks.push(hook);
            }
        }
        Some(_) => return input("event_hooks should be a list"),
    }
    let most = change.limits().hooks as usize;
    if app.hooks.len() > most {
        return input(format!("{} hooks: allowed are {most}", app.hooks.len()));
    }
    for hook in &app.hooks {
        let url = hook.target.url();
        // Those that are there already were checked, with what was allowed then.
        if !before.hooks.contains(hook) {
            check_url(url, private).or_else(|why| input(format!("the hook `{}`: {why}", short(url))))?;
        }
        if let Some(why) = hook.target.refused() {
            return input(why);
        }
    }
    keep(&mut app, body);
    change.put_app(&app)?;
    Ok(json!({}))
}

/// `webhook_url`, `webhook_events` and `sqs_…` at top level: two hooks of their own.
fn update_plain(app: &mut AppSettings, body: &Map<String, Value>, now: Timestamp) -> Result<(), ApiError> {
    let [webhook, sqs] = PLAIN_HOOKS;
    let known = plain_queue(app);
    let filter = match (body.get(FILTER).filter(|value| !value.is_null()), app.hook(webhook)) {
        (Some(_), _) => checked_types(texts(body, FILTER)?)?,
        (None, Some(hook)) => hook.event_types.clone(),
        (None, None) => texts(&app.kept, FILTER)?,
    };
    let mut of = |id: &str, target: Option<Target>, event_types: Option<Vec<String>>| {
        let known = app.hooks.iter().position(|hook| hook.id == id);
        match (target, known) {
            (Some(target), None) => app.hooks.insert(
                0,
                Hook {
                    id: id.to_string(),
                    enabled: true,
                    event_types: event_types.unwrap_or_default(),
                    rfc3339: false,
                    timeout_ms: TIMEOUT_MS.2,
                    target,
                    created_at: now,
                    updated_at: now,
                },
            ),
            (target, Some(known)) => {
                let hook = &mut app.hooks[known];
                let before = hook.clone();
                hook.target = target.unwrap_or_else(|| hook.target.clone());
                hook.event_types = event_types.unwrap_or_else(|| hook.event_types.clone());
                if *hook != before {
                    hook.updated_at = now;
                }
            }
            (None, None) => {}
        }
    };
    let url = text(body, "webhook_url").map(|url| Target::Webhook { url: url.to_string() });
    of(webhook, url, Some(filter.clone()));
    if ["sqs_url", "sqs_key", "sqs_secret"].iter().any(|name| text(body, name).is_some()) {
        // An empty URL is none; what is never given back is not sent back either.
        let field = |name, kept| text(body, name).filter(|text| !text.is_empty()).map_or(kept, str::to_string);
        let queue = Queue {
            url: text(body, "sqs_url").map_or(known.url, str::to_string),
            key: field("sqs_key", known.key),
            secret: Secret(field("sqs_secret", known.secret.0)),
            region: known.region,
        };
        of(sqs, Some(Target::Sqs(queue)), None);
    }
    app.hooks.retain(|hook| !hook.target.url().is_empty());
    // It waits for a URL, the first or the next.
    match app.hook(webhook) {
        Some(_) => app.kept.remove(FILTER),
        None => app.kept.insert(FILTER.into(), json!(filter)),
    };
    Ok(())
}

/// The queue of `sqs_…` at top level.
fn plain_queue(app: &AppSettings) -> Queue {
    match app.hook(PLAIN_HOOKS[1]).map(|hook| &hook.target) {
        Some(Target::Sqs(queue)) => queue.clone(),
        _ => Queue::default(),
    }
}

fn checked_types(event_types: Vec<String>) -> Result<Vec<String>, ApiError> {
    let is_one = |name: &String| EVENT_TYPE_BYTES.contains(&name.len());
    if event_types.len() > MOST_EVENT_TYPES || !event_types.iter().all(is_one) {
        let (least, most) = (EVENT_TYPE_BYTES.start(), EVENT_TYPE_BYTES.end());
        return input(format!("types of events: allowed are {MOST_EVENT_TYPES}, each of {least} – {most} bytes"));
    }
    Ok(event_types)
}

/// A hook as it is written, in place of the one `before` that has its id, or, where it says none, its type and URL and was not
/// taken `so_far`: what waits for that one is not lost.
fn hook_of(before: &AppSettings, so_far: &AppSettings, written: Written, now: Timestamp) -> Result<Hook, ApiError> {
    let kind = written.hook_type.as_str();
    let url = written.target.url(kind).map(str::to_string);
    let is_same = |hook: &&Hook| {
        !PLAIN_HOOKS.contains(&&*hook.id)
            && so_far.hook(&hook.id).is_none()
            && hook.target.kind() == kind
            && Some(hook.target.url()) == url.as_deref()
    };
    let id = written.id.clone().filter(|id| !id.is_empty());
    let id = id.or_else(|| before.hooks.iter().find(is_same).map(|hook| hook.id.clone()));
    if let Some(id) = id.as_ref().filter(|id| id.len() > MAX_HOOK_ID_BYTES || PLAIN_HOOKS.contains(&&***id)) {
        let (most, taken) = (MAX_HOOK_ID_BYTES, PLAIN_HOOKS.join(", "));
        return input(format!("the id `{}`: allowed are 1 – {most} bytes, and not {taken}", short(id)));
    }
    let known = id.as_deref().and_then(|id| before.hook(id));
    let target = Target::written(kind, written.target, known.map(|hook| &hook.target)).or_else(input)?;
    let timeout_ms = written.timeout_ms.filter(|ms| *ms != 0).unwrap_or(TIMEOUT_MS.2);
    if !(TIMEOUT_MS.0..=TIMEOUT_MS.1).contains(&timeout_ms) {
        return input(format!("timeout_ms is {timeout_ms}: allowed are {} – {}", TIMEOUT_MS.0, TIMEOUT_MS.1));
    }
    let hook = Hook {
        id: id.clone().unwrap_or_else(new_id),
        enabled: written.enabled.unwrap_or(true),
        event_types: checked_types(written.event_types.unwrap_or_default())?,
        rfc3339: written.rfc3339.unwrap_or(false),
        timeout_ms,
        target,
        created_at: known.map_or(now, |hook| hook.created_at),
        updated_at: now,
    };
    Ok(match known {
        Some(known) if (Hook { updated_at: known.updated_at, ..hook.clone() }) == *known => known.clone(),
        _ => hook,
    })
}

/// What cuewire does not act on is kept, where it is of the kind that clients expect, and no secret.
fn keep(app: &mut AppSettings, body: Map<String, Value>) {
    let defaults = defaults();
    let acted_on = ["event_hooks", "webhook_url", FILTER, "id"];
    let is_secret = |name: &str| name.starts_with("sqs_") || name.starts_with("sns_");
    for (name, value) in body {
        let is_kept = match (&value, defaults.get(&name)) {
            (Value::Bool(_), Some(Value::Bool(_))) | (Value::Number(_), Some(Value::Number(_))) => true,
            (Value::String(text), Some(Value::String(_))) => text.len() <= 2048,
            _ => false,
        };
        if is_kept && !is_secret(&name) && !acted_on.contains(&name.as_str()) {
            app.kept.insert(name, value);
        }
    }
}

/// Sends a message into a queue, to see whether that works.
pub(super) async fn check_sqs(app: &App, body: Map<String, Value>) -> Result<Value, ApiError> {
    if !cfg!(feature = "sqs") {
        return input(WITHOUT_SQS);
    }
    let known = app.host.read(|change| Ok(plain_queue(&*change.store.app()?))).await?;
    let field = |name, kept| text(&body, name).filter(|text| !text.is_empty()).map_or(kept, str::to_string);
    let queue = Queue {
        url: field("sqs_url", known.url),
        region: field("sqs_region", known.region),
        key: field("sqs_key", known.key),
        secret: Secret(field("sqs_secret", known.secret.0)),
    };
    let answer = |why: String| Ok(json!({"status": "error", "error": why}));
    if let Err(why) = check_url(&queue.url, app.hooks_to_private_addresses) {
        return answer(format!("the queue `{}`: {why}", short(&queue.url)));
    }
    let event = json!({"type": "cuewire.check", "created_at": now().as_nanos()}).to_string();
    let cid = Cid::new("cuewire", "check")?;
    let parcel =
        Parcel { webhook_id: &new_id(), cid: &cid, body: &event, compressed: false, attempt: 1, timeout: CHECK_TIME };
    match app.hooks.sinks.deliver(&Target::Sqs(queue), parcel).await {
        Ok(()) => Ok(json!({"status": "ok"})),
        Err(why) => answer(why),
    }
}

/// Events that hooks did not take for so long that they were given up, the newest first.
pub(super) fn dead_letters(change: &Change<'_>, query: &Map<String, Value>) -> Result<Value, ApiError> {
    let mut asked = query.clone();
    if let Some(limit) = text(query, "limit") {
        let Ok(limit) = limit.parse::<u32>() else { return input(format!("limit is `{}`", short(limit))) };
        asked.insert("limit".into(), json!(limit));
    }
    let before = match text(query, "next").filter(|next| !next.is_empty()) {
        None => i64::MAX,
        Some(next) => match next.parse() {
            Ok(before) => before,
            Err(_) => return input(format!("next is `{}`: it is not from here", short(next))),
        },
    };
    asked.remove("next");
    let (limit, _) = page(change, &asked)?;
    let (count, letters) = change.store.dead_letters(before, limit)?;
    let next = (letters.len() == limit as usize).then(|| letters.last().map(|(number, _)| number.to_string()));
    let letters: Vec<_> = letters
        .into_iter()
        .map(|(_, letter)| {
            json!({
                "hook_id": letter.hook,
                "webhook_id": letter.event.webhook_id,
                "call_cid": letter.event.cid.to_string(),
                "created_at": letter.event.at.as_nanos(),
                "given_up_at": letter.given_up_at.as_nanos(),
                "attempts": letter.attempts,
                "error": letter.error,
                "event": serde_json::from_str::<Value>(&letter.event.event).unwrap_or_default(),
            })
        })
        .collect();
    let mut answer = json!({"count": count, "waiting": change.store.deliveries_waiting()?, "dead_letters": letters});
    if let Some(next) = next.flatten() {
        answer["next"] = json!(next);
    }
    Ok(answer)
}
