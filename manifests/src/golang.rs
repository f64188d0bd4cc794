//! Numbers, flags and durations as Go's standard library reads them: manifests and ConfigMaps are written for it.

use std::time::Duration;

/// Go: `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Go: `strconv.ParseInt(text, 10, 64)`. A sign and leading zeros are fine, underscores and spaces are not.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    }
    text.parse()
        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: value out of range"))
}

/// Go: `strconv.ParseFloat(text, 64)`: also `NaN`, `Inf`, `infinity` in any case, `1_000`, and `0x1p4`.
pub fn parse_float(text: &str) -> Result<f64, String> {
    let syntax = || format!("strconv.ParseFloat: parsing {text:?}: invalid syntax");
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => {
            return Ok(if text.starts_with('-') {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            });
        }
        "nan" if unsigned == text => return Ok(f64::NAN),
        _ => {}
    }
    if !underscores_separate_digits(unsigned) {
        return Err(syntax());
    }
    let plain = unsigned.replace('_', "");
    let magnitude = match plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        Some(hex) => parse_hex_float(hex).ok_or_else(syntax)?,
        None => {
            // Rust's own parser would also take words and a second sign.
            let numeric = plain
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
            if !numeric || plain.starts_with(['+', '-']) {
                return Err(syntax());
            }
            plain.parse::<f64>().map_err(|_| syntax())?
        }
    };
    if magnitude.is_infinite() {
        return Err(format!("strconv.ParseFloat: parsing {text:?}: value out of range"));
    }
    Ok(if text.starts_with('-') { -magnitude } else { magnitude })
}

/// An underscore stands between two digits, or between the `0x` prefix and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = text.starts_with("0x") || text.starts_with("0X");
    let digit = |at: usize| {
        bytes.get(at).is_some_and(|byte| {
            if is_hex {
                byte.is_ascii_hexdigit()
            } else {
                byte.is_ascii_digit()
            }
        })
    };
    (0..bytes.len())
        .filter(|at| bytes[*at] == b'_')
        .all(|at| at > 0 && (digit(at - 1) || (is_hex && at == 2)) && digit(at + 1))
}

/// `1.8p-3`: hexadecimal mantissa and a decimal exponent of two, which is required.
fn parse_hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let shift = exponent.checked_sub(i32::try_from(fraction.len()).ok()?.checked_mul(4)?)?;
    Some(value * 2f64.powi(shift))
}

/// Go: `time.ParseDuration`, in nanoseconds; may be negative.
pub fn parse_duration_nanos(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit_name, after) = after.split_at(end);
        let unit: u64 = match unit_name {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| invalid())?
        };
        let part = whole
            .checked_mul(unit)
            .and_then(|part| part.checked_add(fraction_of(fraction, unit)));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
        rest = after;
    }
    if negative {
        return 0i64.checked_sub_unsigned(total).ok_or_else(invalid);
    }
    i64::try_from(total).map_err(|_| invalid())
}

/// [`parse_duration_nanos`] for durations that cannot be negative.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let nanos = parse_duration_nanos(text)?;
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| format!("duration {text:?} is negative"))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.FRACTION` of `unit`, rounded down; digits beyond what 64 bits hold do not count, as in Go.
fn fraction_of(fraction: &str, unit: u64) -> u64 {
    let mut value: u64 = 0;
    let mut scale: f64 = 1.0;
    for digit in fraction.bytes() {
        let Some(next) = value
            .checked_mul(10)
            .and_then(|next| next.checked_add(u64::from(digit - b'0')))
        else {
            break;
        };
        if next > i64::MAX.unsigned_abs() {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "Go's own arithmetic"
    )]
    let nanos = (value as f64 * (unit as f64 / scale)) as u64;
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("0", 0),
            ("+0", 0),
            ("5s", 5_000_000_000),
            ("30s", 30_000_000_000),
            ("1478s", 1_478_000_000_000),
            ("-5s", -5_000_000_000),
            ("5.6s", 5_600_000_000),
            ("5.s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.004s", 1_004_000_000),
            ("10us", 10_000),
            ("12µs", 12_000),
            ("3h30m", 12_600_000_000_000),
            ("39h9m14.425s", 140_954_425_000_000),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.9223372036854775807h", 3_320_413_933_267),
        ];
        for (text, want) in table {
            assert_eq!(parse_duration_nanos(text), Ok(want), "{text}");
        }
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            " 5s",
            "9223372036854775808ns",
            "3000000h",
            "1s-2s",
        ] {
            assert!(parse_duration_nanos(text).is_err(), "{text}");
        }
        assert!(parse_duration("-1s").is_err());
    }

    #[test]
    fn floats() {
        let table = [
            ("+5", 5.0),
            ("1_000", 1000.0),
            ("-2.5e1", -25.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("0x1p4", 16.0),
            ("0x_1.8p1", 3.0),
        ];
        for (text, want) in table {
            assert_eq!(parse_float(text), Ok(want), "{text}");
        }
        assert!(parse_float("NaN").is_ok_and(f64::is_nan));
        assert_eq!(parse_float("-Inf"), Ok(f64::NEG_INFINITY));
        for text in [
            "", "0x10", "_1", "1_", "1__0", "1._5", "+nan", "five", "1 ", "1e999", "--1",
        ] {
            assert!(parse_float(text).is_err(), "{text}");
        }
    }

    #[test]
    fn integers() {
        assert_eq!(parse_int("+3"), Ok(3));
        assert_eq!(parse_int("007"), Ok(7));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        for text in ["", "+", "1_000", "0x1", " 1", "1.0", "9223372036854775808"] {
            assert!(parse_int(text).is_err(), "{text}");
        }
    }
}
