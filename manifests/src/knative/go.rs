//! Values as Go prints them in Knative's messages.

use std::fmt::Write;
use std::time::Duration;

/// Go: `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            ' '..='~' => quoted.push(c),
            // Rust escapes what it cannot print, by nearly the same tables as Go.
            _ if !c.is_ascii() && c.escape_debug().count() == 1 => quoted.push(c),
            _ => {
                let code = u32::from(c);
                let _ = match code {
                    0..0x80 => write!(quoted, "\\x{code:02x}"),
                    0x80..0x1_0000 => write!(quoted, "\\u{code:04x}"),
                    _ => write!(quoted, "\\U{code:08x}"),
                };
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Go: `%v` of a list of strings.
pub(super) fn sprint(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}

/// Go: `%v` of a float64: shortest digits, exponents below -4 and from 21.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let power: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..21).contains(&power) {
        return format!("{value}");
    }
    format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

/// Go: `%v` of a `time.Duration` of whole seconds: `0s`, `6s`, `1h0m0s`.
pub(super) fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// Go: `path.Clean`: no `.`, no `//`, `..` resolved, no slash at the end.
pub(super) fn clean_path(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_owned(),
        (false, joined) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        for (text, quoted) in [
            ("a\"b\\", r#""a\"b\\""#),
            ("\n\t\u{7}\u{0}\u{7f}", r#""\n\t\a\x00\x7f""#),
            ("é'…", "\"é'…\""),
            ("\u{200b}\u{e000}", r#""\u200b\ue000""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn floats_and_durations() {
        for (value, text) in [
            (0.0, "0"),
            (-0.05, "-0.05"),
            (100.5, "100.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(float(value), text);
        }
        for (seconds, text) in [(0, "0s"), (6, "6s"), (90, "1m30s"), (3600, "1h0m0s"), (3661, "1h1m1s")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn paths() {
        for (path, clean) in [
            ("", "."),
            ("/", "/"),
            ("//", "/"),
            ("/dev/", "/dev"),
            ("/a/./b//c", "/a/b/c"),
            ("/a/../..", "/"),
            ("a/../..", ".."),
            ("../a", "../a"),
            ("./x", "x"),
            ("a/..", "."),
            ("/../dev", "/dev"),
        ] {
            assert_eq!(clean_path(path), clean, "{path}");
        }
    }
}
