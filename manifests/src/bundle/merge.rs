//! Applying a manifest to the object that is stored, as `kubectl apply` does: what the manifest does not say stays.

use serde_json::Value;

/// The stored object after a manifest that was `before` became `after`: what `after` says holds, what only `before` said
/// goes, everything else (filled in by defaulting) stays. Lists are one value, as for any custom resource (RFC 7386).
pub(super) fn apply(before: &Value, after: &Value, stored: &Value) -> Value {
    let (Value::Object(after), Value::Object(stored)) = (after, stored) else {
        return after.clone();
    };
    let mut merged = stored.clone();
    if let Value::Object(before) = before {
        merged.retain(|key, _| after.contains_key(key) || !before.contains_key(key));
    }
    for (key, value) in after {
        let kept = stored.get(key).unwrap_or(&Value::Null);
        merged.insert(key.clone(), apply(before.get(key).unwrap_or(&Value::Null), value, kept));
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_says_stays() {
        let table = [
            (
                json!({"a": 1}),
                json!({"a": 1}),
                json!({"a": 1, "d": 5}),
                json!({"a": 1, "d": 5}),
            ),
            (
                json!({"a": 1}),
                json!({"a": 2}),
                json!({"a": 1, "d": 5}),
                json!({"a": 2, "d": 5}),
            ),
            (
                json!({"a": 1, "b": 2}),
                json!({"a": 1}),
                json!({"a": 1, "b": 2, "d": 5}),
                json!({"a": 1, "d": 5}),
            ),
            (
                json!({}),
                json!({"n": {"x": 1}}),
                json!({"d": 5}),
                json!({"d": 5, "n": {"x": 1}}),
            ),
            (
                json!({"n": {"x": 1, "y": 1}}),
                json!({"n": {"x": 2}}),
                json!({"n": {"x": 1, "y": 1, "d": 5}}),
                json!({"n": {"x": 2, "d": 5}}),
            ),
            (
                json!({"l": [1]}),
                json!({"l": [{"x": 1}]}),
                json!({"l": [{"x": 1, "d": 5}]}),
                json!({"l": [{"x": 1}]}),
            ),
            (
                json!({"n": {"x": 1}}),
                json!({"n": 3}),
                json!({"n": {"x": 1}}),
                json!({"n": 3}),
            ),
        ];
        for (before, after, stored, want) in table {
            assert_eq!(apply(&before, &after, &stored), want, "{before} -> {after} on {stored}");
        }
    }
}
