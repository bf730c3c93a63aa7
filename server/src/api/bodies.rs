//! Requests' bodies: how much of them is read at a time, and what they hold.
//!
//! In: bodies as they come. Out: objects, each in its room until all that is done for its request is done.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::wire::error::{ApiError, Code};

/// Of a body that is too long, or that nobody wants, so much is read all the same, within `limits.body_s`: a client that
/// still writes hears no answer.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;
/// Deepest nesting of what clients write: it is kept, and told of, within something else, and JSON is read 128 deep at most.
const MAX_NESTING: usize = 64;
/// What bodies take, with what they become as JSON, all of them that are read or waited for together: those that take little
/// each, and, apart, so that they keep none of these out, all others.
const SMALL_KIB: usize = 64;
const ALL_SMALL_KIB: usize = 64 * 1024;
const ALL_LARGE_KIB: usize = 384 * 1024;

/// Room for bodies.
pub(crate) struct Bodies {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Bodies {
    fn default() -> Self {
        let of = |kib| Arc::new(Semaphore::new(kib));
        Self { small: of(ALL_SMALL_KIB), large: of(ALL_LARGE_KIB) }
    }
}

/// A body, in its room.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    kib: usize,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl Kept {
    /// Takes room for so much in all.
    pub(super) fn reserve(&mut self, bytes: usize, bodies: &Bodies) -> Result<(), ApiError> {
        // What is larger than all room that there is has it alone.
        let kib = bytes.div_ceil(1024).min(ALL_LARGE_KIB);
        if kib <= self.kib {
            return Ok(());
        }
        let (is_small, was_small) = (kib <= SMALL_KIB, self.kib <= SMALL_KIB);
        let held = if is_small == was_small { self.kib } else { 0 };
        let of = if is_small { &bodies.small } else { &bodies.large };
        let busy = |_| ApiError::new(Code::Full, "the server reads too much at once: try again");
        let more = of.clone().try_acquire_many_owned((kib - held) as u32).map_err(busy)?;
        match &mut self.room {
            Some(room) if held > 0 => room.merge(more),
            room => *room = Some(more),
        }
        self.kib = kib;
        Ok(())
    }
}

/// What a body takes at most, with what it becomes as JSON: a list's first value has room for four, an object's first field for
/// eleven, and a list that grows has up to twice what it needs.
pub(super) fn taken_by(body: &[u8]) -> usize {
    const VALUE: usize = size_of::<Value>();
    const FIELD: usize = size_of::<String>() + VALUE;
    let of = |byte: &u8| match byte {
        b'{' => 11 * FIELD + 32,
        b'[' => 4 * VALUE + 16,
        b':' => 2 * FIELD,
        b',' => 2 * VALUE,
        // Of a text's own memory, which is no less than this.
        b'"' => 16,
        _ => 0,
    };
    2 * body.len() + body.iter().map(of).sum::<usize>()
}

/// A whole body, of no more than `most` bytes. A longer one is read to its end too; without room it is only read.
pub(super) async fn read(
    mut body: Body,
    most: usize,
    within: Duration,
    bodies: Option<&Bodies>,
) -> Result<Kept, ApiError> {
    let (mut kept, mut total) = (Kept::default(), 0_usize);
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::new(Code::Input, "the body broke off"))?;
            let chunk = frame.into_data().unwrap_or_default();
            total = total.saturating_add(chunk.len());
            if let Some(bodies) = bodies.filter(|_| total <= most) {
                kept.reserve(total, bodies)?;
                kept.bytes.extend_from_slice(&chunk);
            } else if total > MAX_DISCARDED_BYTES {
                break;
            }
        }
        Ok(())
    };
    let late = |_| Err(ApiError::new(Code::Input, format!("the body did not come within {} s", within.as_secs())));
    tokio::time::timeout(within, reading).await.unwrap_or_else(late)?;
    if total > most {
        return Err(ApiError::new(Code::Input, format!("the body is longer than {} KiB", most / 1024)));
    }
    Ok(kept)
}

/// What is nested deeper than what is kept of it could be read again.
pub(crate) fn check_nesting(fields: &Map<String, Value>) -> Result<(), ApiError> {
    fn nesting(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(nesting).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(nesting).max().unwrap_or(0),
            _ => 0,
        }
    }
    match fields.iter().find(|(_, value)| nesting(value) >= MAX_NESTING) {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(100).collect();
            Err(ApiError::new(Code::Input, format!("{name} is nested deeper than {MAX_NESTING}")))
        }
    }
}

/// A body as an object: none at all, and an empty form, are one without fields.
pub(super) fn object_of(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let input = |why: String| ApiError::new(Code::Input, why);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => check_nesting(&fields).map(|()| fields),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(input("the body should be a JSON object".into())),
        Err(_) if is_form => Err(input("the body is a form: it should be a JSON object".into())),
        Err(error) => Err(input(format!("the body is no JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn large_bodies_share_their_room_and_keep_no_small_one_out() {
        let bodies = Bodies::default();
        let of = |kib: usize| Body::from(vec![b' '; kib * 1024]);
        let read = |kib| read(of(kib), 64 * 1024 * 1024, Duration::from_secs(5), Some(&bodies));
        let mut held = Vec::new();
        for _ in 0..ALL_LARGE_KIB / (64 * 1024) {
            held.push(read(64 * 1024).await.unwrap());
        }
        let error = read(SMALL_KIB + 1).await.err().unwrap();
        assert_eq!((error.code, error.code.status()), (Code::Full, 503));
        let mut small = Vec::new();
        for _ in 0..ALL_SMALL_KIB / SMALL_KIB {
            small.push(read(SMALL_KIB).await.unwrap());
        }
        assert!(read(1).await.is_err(), "they are counted too");
        held.pop();
        // One that grows moves, and leaves its place to another.
        small[0].reserve(1 << 40, &bodies).err().unwrap();
        small[0].reserve((SMALL_KIB + 1) * 1024, &bodies).unwrap();
        read(SMALL_KIB).await.unwrap();
        drop((held, small));
        assert_eq!(bodies.small.available_permits(), ALL_SMALL_KIB);
        Kept::default().reserve(1 << 40, &bodies).unwrap();
    }

    #[test]
    fn bodies_take_what_they_become() {
        const MIB: usize = 1024 * 1024;
        let filled = |with: &str| with.repeat(MIB / with.len());
        for (what, body, least, most) in [
            ("a text", filled("words, and more "), 2, 8),
            ("numbers", filled("0,"), 32, 64),
            ("lists", filled("[0],"), 44, 64),
            ("lists in lists", filled("[[[[0]]]],"), 58, 72),
            ("objects", filled("{\"\":0},"), 80, 128),
        ] {
            let taken = taken_by(body.as_bytes());
            assert!((least * MIB..=most * MIB).contains(&taken), "{what}: {} MiB", taken / MIB);
        }
    }
}
