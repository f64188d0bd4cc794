//! What changed between two objects, field by field, for the details of an error.

use serde::Serialize;
use serde_json::Value;

/// One block per field that differs: its path, the old value after `-:`, the new one after `+:`.
pub(super) fn lines<T: Serialize>(old: &T, new: &T) -> String {
    let value = |object: &T| serde_json::to_value(object).unwrap_or_default();
    let mut lines = String::new();
    compare(&value(old), &value(new), "", &mut lines);
    lines
}

fn compare(old: &Value, new: &Value, path: &str, lines: &mut String) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let keys = before
                .keys()
                .chain(after.keys().filter(|key| !before.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                compare(&old[key], &new[key], &path, lines);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(before, after, &format!("{path}[{index}]"), lines);
            }
        }
        _ if old == new => {}
        _ => lines.push_str(&format!("{path}:\n\t-: {old}\n\t+: {new}\n")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_each_field_that_differs() {
        let old = json!({"a": 1, "b": {"c": [1, 2]}, "d": "x"});
        let new = json!({"a": 1, "b": {"c": [1, 3]}, "e": [1]});
        assert_eq!(
            lines(&old, &new),
            "b.c[1]:\n\t-: 2\n\t+: 3\nd:\n\t-: \"x\"\n\t+: null\ne:\n\t-: null\n\t+: [1]\n"
        );
        assert_eq!(lines(&old, &old), "");
    }
}
