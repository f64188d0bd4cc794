//! Fields of headers and descriptions: numbers, times, and PAX records.

use std::io;

/// PAX records by key.
pub(super) type Extensions = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) fn find<'a>(extensions: &'a Extensions, key: &[u8]) -> Option<&'a [u8]> {
    // The last counts, and an empty one takes back.
    let found = extensions.iter().rev().find(|(name, _)| name == key);
    found
        .map(|(_, value)| value.as_slice())
        .filter(|value| !value.is_empty())
}

/// `LENGTH KEY=VALUE\n`, one after the other; the length is of the whole record, and the value may hold anything.
pub(super) fn records(mut text: &[u8]) -> io::Result<Extensions> {
    let wrong = || broken("an extended header has a broken record");
    let mut records = Extensions::new();
    while !text.is_empty() {
        let space = text.iter().position(|&byte| byte == b' ').ok_or_else(wrong)?;
        let length = usize::try_from(decimal(&text[..space])?).map_err(|_| wrong())?;
        let record = text.get(space + 1..length).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record
            .iter()
            .position(|&byte| byte == b'=')
            .filter(|&place| place > 0)
            .ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // A name with a zero byte is one to this and another to the kernel.
        if matches!(key, b"path" | b"linkpath") && value.contains(&0) {
            return Err(wrong());
        }
        records.push((key.to_vec(), value.to_vec()));
        text = &text[length..];
    }
    Ok(records)
}

/// A numeric field: octal text, or binary when the first bit is set. Empty is zero.
pub(super) fn number(field: &[u8]) -> io::Result<u64> {
    let wrong = || broken("a header has a field that is not a number");
    let value = match field.first() {
        Some(first) if first & 0x40 != 0 && first & 0x80 != 0 => None,
        Some(first) if first & 0x80 != 0 => {
            let mut rest = field[1..].iter();
            let start = u64::from(first & 0x3f);
            rest.try_fold(start, |value, &byte| {
                value.checked_mul(256)?.checked_add(u64::from(byte))
            })
        }
        _ => {
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            let mut digits = field[..end].trim_ascii().iter();
            digits.try_fold(0u64, |value, &byte| {
                let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
                value.checked_mul(8)?.checked_add(u64::from(digit))
            })
        }
    };
    value.ok_or_else(wrong)
}

pub(super) fn decimal(text: &[u8]) -> io::Result<u64> {
    let digits = text.iter().all(u8::is_ascii_digit) && !text.is_empty();
    let number = std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| broken("an extended header has a value that is not a number"))
}

/// `SECONDS[.FRACTION]`, maybe negative.
pub(super) fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().take(9).collect();
    let nanoseconds: i64 = format!("{digits:0<9}")
        .parse()
        .ok()
        .filter(|nanoseconds| *nanoseconds >= 0)?;
    match text.starts_with('-') && nanoseconds > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        false => Some((seconds, nanoseconds)),
    }
}

pub(super) fn broken(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
