//! JSON writes characters beyond U+FFFF as two escapes (`\ud83d\ude00`, RFC 8259 section 7); YAML does not know that.

/// The text with every such pair replaced by its character; `None` when there is none.
pub(super) fn join(text: &str) -> Option<String> {
    let mut joined = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find('\\') {
        joined.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(c) = pair(rest) {
            joined.push(c);
            rest = &rest[12..];
            found = true;
        } else {
            // The escape and what it escapes stay together, so that `\\ud83d` is left alone.
            let escaped = rest.chars().nth(1).map_or(0, char::len_utf8);
            joined.push_str(&rest[..1 + escaped]);
            rest = &rest[1 + escaped..];
        }
    }
    joined.push_str(rest);
    found.then_some(joined)
}

/// The character of a pair of escapes at the start of `text`.
fn pair(text: &str) -> Option<char> {
    let unit = |at: usize| {
        let hex = text.get(at..at + 6)?.strip_prefix("\\u")?;
        let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u16::from_str_radix(hex, 16).ok()).flatten()
    };
    let mut decoded = char::decode_utf16([unit(0)?, unit(6)?]);
    decoded.next()?.ok().filter(|c| c.len_utf16() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_pairs_and_nothing_else() {
        assert_eq!(
            join(r#"a\n"\ud83d\ude00" \\ é\uD83D\uDE01"#).as_deref(),
            Some(r#"a\n"😀" \\ é😁"#)
        );
        for text in [
            "",
            r"\",
            r"\u00e9",
            r"\\ud83d\ude00",
            r"\ud83d",
            r"\ud83d\n",
            r"\ude00\ud83d",
            r"\ud83d\u+e00",
            r"\é",
        ] {
            assert_eq!(join(text), None, "{text}");
        }
    }
}
