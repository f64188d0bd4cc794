//! Kubernetes quantities: `250m`, `1Gi`, `2e3`, printed in canonical form (Kubernetes: `resource.Quantity`).

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number with a unit. Equal when the values are equal: `1000m` is `1`.
///
/// Kept in thousandth millionths (1e-9), rounded away from zero as Kubernetes does; larger than 1.7e29 is capped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The unit family that was written, kept when printing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Format {
    /// `n u m k M G T P E`.
    #[default]
    Decimal,
    /// `Ki Mi Gi Ti Pi Ei`.
    Binary,
    /// `e3`, `E-6`.
    Exponent,
}

/// The text is not a quantity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct NotAQuantity;

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// The value in whole units, rounded up (Kubernetes: Value).
    pub fn value(self) -> i128 {
        ceil(self.nanos, NANO)
    }

    /// The value in thousandths, rounded up (Kubernetes: MilliValue).
    pub fn milli_value(self) -> i128 {
        ceil(self.nanos, NANO / 1000)
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }
}

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let digits = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
        let (whole, rest) = unsigned.split_at(digits);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(NotAQuantity);
        }
        let (format, power, factor) = unit(suffix).ok_or(NotAQuantity)?;
        let magnitude = magnitude(whole, fraction, power + 9, factor);
        // Go prints a binary quantity below 1024 with decimal units.
        let format = if format == Format::Binary && magnitude < 1024 * NANO {
            Format::Decimal
        } else {
            format
        };
        Ok(Self {
            nanos: if negative { -magnitude } else { magnitude },
            format,
        })
    }
}

/// The format of a suffix, its power of ten, and its factor.
fn unit(suffix: &str) -> Option<(Format, i32, i128)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Decimal, *power, 1));
    }
    if let Some(index) = BINARY.iter().position(|name| *name == suffix) {
        return Some((Format::Binary, 0, 1 << (10 * (index + 1))));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let power: i32 = exponent.parse().ok()?;
    Some((Format::Exponent, power, 1))
}

/// `whole.fraction * factor * 10^power`, rounded away from zero, capped.
fn magnitude(whole: &str, fraction: &str, power: i32, factor: i128) -> i128 {
    let point = i32::try_from(whole.len()).unwrap_or(i32::MAX).saturating_add(power);
    let mut value: i128 = 0;
    let mut rest = false;
    // Digits before the moved point are kept; the binary factor is applied with 9 digits more, so that 0.1Ki is exact.
    let spare = if factor == 1 { 0 } else { 9 };
    for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if i32::try_from(index).unwrap_or(i32::MAX) < point.saturating_add(spare) {
            value = value.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
        } else {
            rest |= digit != b'0';
        }
    }
    let given = i32::try_from(whole.len() + fraction.len()).unwrap_or(i32::MAX);
    let zeros = point.saturating_add(spare).saturating_sub(given);
    for _ in 0..zeros.clamp(0, 60) {
        value = value.saturating_mul(10);
    }
    let value = value.saturating_mul(factor);
    let unspared = ceil(value, 10_i128.pow(spare.unsigned_abs()));
    let exact = unspared.saturating_mul(10_i128.pow(spare.unsigned_abs())) == value;
    unspared.saturating_add(i128::from(rest && exact)).min(i128::MAX / 2)
}

fn ceil(value: i128, unit: i128) -> i128 {
    value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = if self.format == Format::Binary && self.nanos % NANO != 0 {
            Format::Decimal
        } else {
            self.format
        };
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if format == Format::Binary {
            let mut value = self.nanos / NANO;
            let mut suffix = "";
            for name in BINARY {
                if value % 1024 != 0 {
                    break;
                }
                value /= 1024;
                suffix = name;
            }
            return write!(f, "{value}{suffix}");
        }
        let (mut value, mut index) = (self.nanos, 0);
        while value % 1000 == 0 && index + 1 < DECIMAL.len() {
            value /= 1000;
            index += 1;
        }
        let (suffix, power) = DECIMAL[index];
        match format {
            Format::Exponent if power != 0 => write!(f, "{value}e{power}"),
            Format::Exponent => write!(f, "{value}"),
            _ => write!(f, "{value}{suffix}"),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 250m, 1Gi or 2")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity {
                    nanos: i128::from(number) * NANO,
                    format: Format::Decimal,
                })
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity {
                    nanos: i128::from(number) * NANO,
                    format: Format::Decimal,
                })
            }
            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Quantity, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_kubernetes_does() {
        for (text, canonical) in [
            ("0", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("100M", "100M"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("0.1Ki", "102400m"),
            ("-250m", "-250m"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("1e2", "100"),
            ("5n", "5n"),
            ("0.5n", "1n"),
            (".5", "500m"),
            ("5.", "5"),
            ("+3", "3"),
            ("0.0001Ki", "102400u"),
            ("1000Ki", "1000Ki"),
            ("1025", "1025"),
            ("1E", "1E"),
            ("1023Ki", "1023Ki"),
            ("0Gi", "0"),
            ("00012", "12"),
            ("1.10", "1100m"),
        ] {
            let quantity: Quantity = text.parse().unwrap_or_else(|_| panic!("{text} must parse"));
            assert_eq!(quantity.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_quantity() {
        for text in [
            "", "x", "1x", "1 Gi", " 1", "1gi", "1ki", "m", ".", "-", "1.2.3", "1e", "1e1.5", "1Kii", "0x10", "1_000",
            "١",
        ] {
            assert_eq!(text.parse::<Quantity>().ok(), None, "{text:?}");
        }
    }

    #[test]
    fn rounds_up_and_compares_by_value() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(quantity("1000m"), quantity("1"));
        assert!(quantity("1Gi") > quantity("1G"));
        assert_eq!(quantity("250m").value(), 1);
        assert_eq!(quantity("-250m").value(), 0);
        assert_eq!(quantity("1.0001").milli_value(), 1001);
        assert_eq!(
            quantity("9999999999999999999999999999999999999999E").value(),
            (i128::MAX / 2).div_euclid(NANO) + 1
        );
    }
}
