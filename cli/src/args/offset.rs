//! By how much a speaker's recording begins later than the others.
//!
//! In: `SPEAKER=SECONDS`. Out: an [`Offset`], without a float.

use std::str::FromStr;

/// `SPEAKER=SECONDS`. Speakers have no `=` in their names: the first one ends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) speaker_id: String,
    pub(crate) nanos: i64,
}

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (speaker_id, seconds) =
            text.split_once('=').ok_or("SPEAKER=SECONDS is expected, for example bob=1.5 or bob=-0.25")?;
        let nanos = nanos(seconds)
            .ok_or_else(|| format!("`{seconds:.40}` is no number of seconds: up to nine decimals, up to 31 years"))?;
        Ok(Self { speaker_id: speaker_id.into(), nanos })
    }
}

/// `1`, `+1.5`, `-0.25`, `.5`, and an `s` behind it, without a float.
fn nanos(text: &str) -> Option<i64> {
    let text = text.strip_suffix('s').unwrap_or(text);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && part.len() <= 9;
    if !is_number(whole) || !is_number(decimals) || (whole.is_empty() && decimals.is_empty()) {
        return None;
    }
    let number = |part: &str| if part.is_empty() { Some(0) } else { part.parse::<i64>().ok() };
    Some(sign * (number(whole)? * 1_000_000_000 + number(&format!("{decimals:0<9}"))?))
}
