//! Types in words: what a field must hold, what was found there, and how to mend it.

use serde_json::{Map, Value};

use super::tree::Scalar;
use crate::resources::Shape;

pub(super) fn expected(shape: Shape) -> &'static str {
    match shape {
        Shape::String => "text",
        Shape::Time => "a time such as \"2026-01-31T12:00:00Z\"",
        Shape::Base64 => "text in base64",
        Shape::Bool => "true or false",
        Shape::Int(..) => "a whole number",
        Shape::IntOrString => "a port number or a port name",
        Shape::Quantity => "a quantity such as 250m, 1Gi or 2",
        Shape::Any => "anything",
        Shape::List(_) => "a list",
        Shape::Map(_) | Shape::Object(_) => "an object",
    }
}

pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

pub(super) fn hint_for_type(value: &Value, scalar: &Scalar, shape: Shape) -> String {
    match (value, shape) {
        (Value::Bool(_) | Value::Number(_), Shape::String | Shape::Time | Shape::Base64) => {
            format!("quote it: \"{}\"", scalar.text)
        }
        (Value::String(text), Shape::Int(..) | Shape::Bool) if !scalar.plain && fits_unquoted(text, shape) => {
            "remove the quotes".to_owned()
        }
        (_, Shape::List(_)) => "write one item per line, each after `- `".to_owned(),
        (_, Shape::Base64) => "put plain text into `stringData`".to_owned(),
        _ => String::new(),
    }
}

fn fits_unquoted(text: &str, shape: Shape) -> bool {
    match shape {
        Shape::Bool => matches!(text, "true" | "false"),
        _ => text.parse::<i64>().is_ok(),
    }
}

/// What stands in for a list item that was wrong.
pub(super) fn empty(shape: Shape) -> Value {
    match shape {
        Shape::String | Shape::Time | Shape::Base64 => Value::String(String::new()),
        Shape::Bool => Value::Bool(false),
        Shape::Int(..) | Shape::IntOrString | Shape::Quantity => Value::from(0),
        Shape::Any => Value::Null,
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Map(_) | Shape::Object(_) => Value::Object(Map::new()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked to be whole and small enough to be exact"
)]
pub(super) fn whole(value: &Value) -> Option<i128> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i128)
}

/// `2026-01-31T12:00:00Z`, with any offset and fraction: the form, not the calendar.
pub(super) fn is_time(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range)
            .is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit()))
    };
    let marks = text.len() >= 20
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .iter()
            .all(|(at, mark)| text.as_bytes()[*at] == *mark);
    let offset = text.ends_with('Z')
        || text
            .get(text.len().saturating_sub(6)..)
            .is_some_and(|tail| tail.starts_with(['+', '-']));
    marks
        && offset
        && digits(0..4)
        && digits(5..7)
        && digits(8..10)
        && digits(11..13)
        && digits(14..16)
        && digits(17..19)
}
