//! Filters and sorts, as clients write them.
//!
//! In: `{"field": value}`, `{"field": {"$op": value}}`, `{"$and": […]}`, and a list of sorts. Out: a condition and an order in
//! SQL, whose text holds nothing of the client's: fields are looked up, values are parameters.

use rusqlite::types::Value as SqlValue;
use serde_json::{Map, Value};

/// Conditions within one another.
const MAX_DEPTH: u32 = 8;
/// Most conditions of a filter.
const MAX_CONDITIONS: usize = 100;
/// Values in one query.
const MAX_VALUES: usize = 1000;

/// A filter or a sort makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct QueryError(String);

/// What can be asked for: of a field's name its SQL expression, and of which kind its values are.
pub(crate) type Fields = &'static [(&'static str, &'static str, Kind)];

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Text,
    /// RFC 3339 in UTC with nine decimals: in order of time.
    Time,
    /// Yes or no.
    Flag,
    /// The keys of an object.
    Keys,
}

/// Of calls.
pub(crate) const CALL_FIELDS: Fields = &[
    ("cid", "(type || ':' || id)", Kind::Text),
    ("type", "type", Kind::Text),
    ("id", "id", Kind::Text),
    ("created_by_user_id", "state ->> '$.created_by'", Kind::Text),
    ("team", "state ->> '$.team'", Kind::Text),
    ("created_at", "state ->> '$.created_at'", Kind::Time),
    ("updated_at", "state ->> '$.updated_at'", Kind::Time),
    ("starts_at", "state ->> '$.starts_at'", Kind::Time),
    ("ended_at", "state ->> '$.ended_at'", Kind::Time),
    ("ongoing", "(state ->> '$.session' IS NOT NULL)", Kind::Flag),
    ("members", "state -> '$.members'", Kind::Keys),
];

/// Of users.
pub(crate) const USER_FIELDS: Fields = &[
    ("id", "id", Kind::Text),
    ("name", "state ->> '$.name'", Kind::Text),
    ("role", "state ->> '$.role'", Kind::Text),
    ("created_at", "state ->> '$.created_at'", Kind::Time),
    ("updated_at", "state ->> '$.updated_at'", Kind::Time),
];

/// A condition and an order, in SQL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    pub(super) condition: String,
    pub(super) order: String,
    pub(super) values: Vec<SqlValue>,
}

impl Query {
    /// Of a filter and sorts.
    ///
    /// # Errors
    /// [`QueryError`] names the field or the operator, and what is allowed.
    pub(crate) fn new(fields: Fields, filter: &Map<String, Value>, sorts: &[Value]) -> Result<Self, QueryError> {
        if conditions(filter, 0) > MAX_CONDITIONS {
            return error(format!("the filter has more than {MAX_CONDITIONS} conditions"));
        }
        let mut values = Vec::new();
        let condition = all(fields, filter, &mut values, 0)?;
        let order = sorts.iter().map(|sort| order(fields, sort)).collect::<Result<Vec<_>, _>>()?.join(", ");
        Ok(Self { condition, order, values })
    }
}

fn error<T>(message: String) -> Result<T, QueryError> {
    Err(QueryError(message))
}

fn field(fields: Fields, name: &str) -> Result<(String, Kind), QueryError> {
    if let Some((_, sql, kind)) = fields.iter().find(|(known, ..)| *known == name) {
        return Ok(((*sql).to_string(), *kind));
    }
    // Names of custom fields are part of the text, and so plain.
    let is_plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if let Some(custom) = name.strip_prefix("custom.").filter(|custom| custom.len() <= 64 && is_plain(custom)) {
        return Ok((format!("state ->> '$.custom.{custom}'"), Kind::Text));
    }
    let shown: String = name.chars().take(100).collect();
    let known = fields.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    error(format!("`{shown}` cannot be asked for: allowed are {known}, custom.NAME"))
}

fn order(fields: Fields, sort: &Value) -> Result<String, QueryError> {
    let name = sort["field"].as_str().unwrap_or_default();
    let (sql, kind) = field(fields, name)?;
    if kind == Kind::Keys {
        return error(format!("`{name}` has no order"));
    }
    match &sort["direction"] {
        Value::Null => Ok(sql),
        direction => match direction.as_i64() {
            Some(1) => Ok(sql),
            Some(-1) => Ok(format!("{sql} DESC")),
            _ => error(format!("the direction of the sort by `{name}` is {direction}: allowed are 1, -1")),
        },
    }
}

/// How many conditions a filter has: SQLite takes no expression that is deeper than a thousand.
fn conditions(filter: &Map<String, Value>, depth: u32) -> usize {
    let parts = |wanted: &Value| match wanted {
        Value::Array(parts) if depth <= MAX_DEPTH => {
            parts.iter().filter_map(Value::as_object).map(|part| 1 + conditions(part, depth + 1)).sum()
        }
        Value::Object(operators) => operators.len(),
        _ => 0,
    };
    filter.values().map(|wanted| 1 + parts(wanted)).sum()
}

/// Every entry holds.
fn all(
    fields: Fields,
    filter: &Map<String, Value>,
    values: &mut Vec<SqlValue>,
    depth: u32,
) -> Result<String, QueryError> {
    if depth > MAX_DEPTH {
        return error(format!("the filter is deeper than {MAX_DEPTH}"));
    }
    let mut conditions = Vec::new();
    for (name, wanted) in filter {
        conditions.push(match name.as_str() {
            "$and" | "$or" | "$nor" => {
                let parts = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
                let parts = parts.iter().map(|part| match part {
                    Value::Object(part) => all(fields, part, values, depth + 1),
                    _ => error(format!("{name} takes a list of objects")),
                });
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                if parts.is_empty() {
                    return error(format!("{name} takes a list of objects"));
                }
                let joined = parts.join(if name == "$and" { " AND " } else { " OR " });
                format!("{}({joined})", if name == "$nor" { "NOT " } else { "" })
            }
            name => {
                let (sql, kind) = field(fields, name)?;
                match wanted {
                    Value::Object(operators) => {
                        let tests = operators.iter();
                        let tests = tests.map(|(operator, wanted)| test(name, &sql, kind, operator, wanted, values));
                        let tests = tests.collect::<Result<Vec<_>, _>>()?;
                        if tests.is_empty() { "1".into() } else { tests.join(" AND ") }
                    }
                    wanted => test(name, &sql, kind, "$eq", wanted, values)?,
                }
            }
        });
    }
    Ok(if conditions.is_empty() { "1".into() } else { format!("({})", conditions.join(" AND ")) })
}

fn test(
    name: &str,
    sql: &str,
    kind: Kind,
    operator: &str,
    wanted: &Value,
    values: &mut Vec<SqlValue>,
) -> Result<String, QueryError> {
    let mut list = |wanted: &Value| -> Result<String, QueryError> {
        let Some(list) = wanted.as_array() else { return error(format!("{operator} of `{name}` takes a list")) };
        let places = list.iter().map(|wanted| place(name, kind, wanted, values)).collect::<Result<Vec<_>, _>>()?;
        Ok(places.join(", "))
    };
    let compare = |with: &str, wanted: &Value, values: &mut Vec<SqlValue>| {
        Ok(format!("{sql} {with} {}", place(name, kind, wanted, values)?))
    };
    match (operator, kind) {
        ("$exists", Kind::Text | Kind::Time) => match wanted.as_bool() {
            Some(true) => Ok(format!("{sql} IS NOT NULL")),
            Some(false) => Ok(format!("{sql} IS NULL")),
            None => error(format!("$exists of `{name}` takes true or false")),
        },
        ("$in", Kind::Keys) => {
            let list = list(wanted)?;
            Ok(format!("EXISTS (SELECT 1 FROM json_each({sql}) WHERE key IN ({list}))"))
        }
        ("$eq" | "$contains", Kind::Keys) => {
            let wanted = place(name, kind, wanted, values)?;
            Ok(format!("EXISTS (SELECT 1 FROM json_each({sql}) WHERE key = {wanted})"))
        }
        ("$in", _) => Ok(format!("{sql} IN ({})", list(wanted)?)),
        ("$nin", Kind::Text | Kind::Time | Kind::Flag) => Ok(format!("{sql} NOT IN ({})", list(wanted)?)),
        ("$eq", _) if wanted.is_null() => Ok(format!("{sql} IS NULL")),
        ("$ne", Kind::Text | Kind::Time) if wanted.is_null() => Ok(format!("{sql} IS NOT NULL")),
        ("$eq", _) => compare("IS", wanted, values),
        ("$ne", Kind::Text | Kind::Time | Kind::Flag) => compare("IS NOT", wanted, values),
        ("$gt", Kind::Text | Kind::Time) => compare(">", wanted, values),
        ("$gte", Kind::Text | Kind::Time) => compare(">=", wanted, values),
        ("$lt", Kind::Text | Kind::Time) => compare("<", wanted, values),
        ("$lte", Kind::Text | Kind::Time) => compare("<=", wanted, values),
        _ => {
            let shown: String = operator.chars().take(40).collect();
            error(format!(
                "`{shown}` is no test of `{name}`: there are $eq, $ne, $in, $nin, $gt, $gte, $lt, $lte, $exists"
            ))
        }
    }
}

/// A parameter with this value.
fn place(name: &str, kind: Kind, wanted: &Value, values: &mut Vec<SqlValue>) -> Result<String, QueryError> {
    let value = match (kind, wanted) {
        (Kind::Text | Kind::Keys, Value::String(text)) => SqlValue::Text(text.clone()),
        // Of custom fields: JSON's own numbers and flags are SQL's.
        (Kind::Text, Value::Bool(flag)) => SqlValue::Integer(i64::from(*flag)),
        (Kind::Text, Value::Number(number)) => match number.as_i64() {
            Some(number) => SqlValue::Integer(number),
            None => SqlValue::Real(number.as_f64().unwrap_or_default()),
        },
        (Kind::Time, wanted) => match crate::wire::time_of(wanted) {
            Some(time) => SqlValue::Text(time.to_string()),
            None => return error(format!("`{name}` is compared with {wanted}: allowed is a time, as RFC 3339")),
        },
        (Kind::Flag, Value::Bool(flag)) => SqlValue::Integer(i64::from(*flag)),
        _ => return error(format!("`{name}` is compared with {wanted}: that is of another kind")),
    };
    if values.len() >= MAX_VALUES {
        return error(format!("the filter has more than {MAX_VALUES} values"));
    }
    values.push(value);
    Ok(format!("?{}", values.len()))
}
