//! `knarr inspect`: everything known of one thing, for people or as JSON.

use serde_json::Value;

use crate::args::Inspect;
use crate::ask::{answer, directory, encoded};
use crate::out;

/// Prints it.
pub(crate) async fn inspect(args: Inspect) -> anyhow::Result<()> {
    let path = format!("/v1/inspect?target={}", encoded(&args.target));
    let found: Value = answer(&directory(args.data)?, &path).await?;
    let text = if args.json {
        serde_json::to_string_pretty(&found)? + "\n"
    } else {
        let mut text = String::new();
        write(&mut text, &found, 0);
        text
    };
    out::print(text.as_bytes())
}

/// As indented lines, one for each value; what is empty is left out.
fn write(text: &mut String, value: &Value, depth: usize) {
    let blank = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(_, value)| !is_empty(value)) {
                *text += &format!("{blank}{name}:");
                inside(text, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                *text += &format!("{blank}-");
                inside(text, item, depth);
            }
        }
        plain => *text += &format!("{blank}{}\n", word(plain)),
    }
}

fn inside(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(_) | Value::Array(_) => {
            text.push('\n');
            write(text, value, depth + 1);
        }
        plain => *text += &format!(" {}\n", word(plain)),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', " "),
        other => other.to_string(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn what_is_there_is_written_and_what_is_empty_is_not() {
        let mut text = String::new();
        let value = json!({
            "name": "a", "none": null, "nothing": "", "list": [], "inner": { "x": {} },
            "limits": { "cpu": 1, "memory": null }, "mounts": ["/a\nb", { "path": "/b" }], "ready": false,
        });
        super::write(&mut text, &value, 0);
        assert_eq!(
            text,
            "name: a\nlimits:\n  cpu: 1\nmounts:\n  - /a b\n  -\n    path: /b\nready: false\n"
        );
    }
}
