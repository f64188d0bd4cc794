//! PURE  The weighted window's arithmetic, to the last bit of Go's `math.Pow` on amd64.
//!
//! Knative computes the smoothing coefficient and the weight of trailing silent buckets with Go's `math.Pow`, whose last
//! bit differs from the C library's. Only the coefficients of windows of 1 to 41 buckets need a fractional power, so they
//! stand here as a table; the integer powers follow Go's loop of repeated squaring on mantissa and exponent.

/// Knative: `max(1 - 0.0001^(1/buckets), 0.2)`, the share of the newest bucket in the weighted average.
pub(crate) fn smoothing_coefficient(buckets: usize) -> f64 {
    SMOOTHING.get(buckets.saturating_sub(1)).copied().unwrap_or(LEAST)
}

/// `base` to the power of `exponent`, as Go computes it. `base` is finite and more than 0.
pub(crate) fn integer_power(base: f64, exponent: u64) -> f64 {
    let (mut square, mut square_exponent) = split(base);
    let (mut result, mut result_exponent) = (1.0, 0i64);
    let mut rest = exponent;
    while rest != 0 {
        // Beyond this the result under- or overflows whatever follows; Go stops here too.
        if !(-(1 << 12)..=1 << 12).contains(&square_exponent) {
            result_exponent += square_exponent;
            break;
        }
        if rest & 1 == 1 {
            result *= square;
            result_exponent += square_exponent;
        }
        square *= square;
        square_exponent <<= 1;
        if square < 0.5 {
            square += square;
            square_exponent -= 1;
        }
        rest >>= 1;
    }
    join(result, result_exponent)
}

/// Mantissa in [0.5, 1) and binary exponent; C's `frexp` for finite positive values.
fn split(value: f64) -> (f64, i64) {
    let (value, shift) = if value < f64::MIN_POSITIVE {
        (value * TWO_TO_64, 64)
    } else {
        (value, 0)
    };
    let bits = value.to_bits();
    let exponent = i64::try_from(bits >> 52).unwrap_or(0) - 1022 - shift;
    (f64::from_bits(bits & !(0x7ff << 52) | (1022 << 52)), exponent)
}

/// `mantissa * 2^exponent`; C's `ldexp`, in two steps so that neither factor leaves the range of normal numbers.
fn join(mantissa: f64, exponent: i64) -> f64 {
    let exponent = exponent.clamp(-2000, 2000);
    mantissa * two_to(exponent / 2) * two_to(exponent - exponent / 2)
}

/// For -1022 to 1023.
fn two_to(exponent: i64) -> f64 {
    f64::from_bits(u64::try_from(exponent + 1023).unwrap_or(0) << 52)
}

const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

/// Knative's `minExponent`: windows of 42 buckets and more all use it.
const LEAST: f64 = 0.2;

/// Entry i is for i + 1 buckets.
const SMOOTHING: [f64; 41] = [
    0.9999,
    0.99,
    0.9535841116638721,
    0.9,
    0.8415106807538886,
    0.7845565309968116,
    0.7317304204720274,
    0.683772233983162,
    0.6406186336195372,
    0.6018928294465027,
    0.5671238718916941,
    0.535841116638722,
    0.507611736829326,
    0.4820525320768788,
    0.45883047345353634,
    0.4376586748096509,
    0.41829086706256413,
    0.40051574968105896,
    0.3841517889339736,
    0.36904265551980675,
    0.3550533228962376,
    0.342066775342432,
    0.3299812496490411,
    0.31870793094203875,
    0.3081690290810636,
    0.29829617132961717,
    0.28902905676875645,
    0.28031432699884795,
    0.27210461560168486,
    0.2643577455403586,
    0.25703604924050527,
    0.2501057906675441,
    0.24353667244537114,
    0.23730141409765548,
    0.231375389960226,
    0.2257363173188729,
    0.22036398695947668,
    0.21524002964853872,
    0.21034771315002732,
    0.2056717652757185,
    0.20119821919842973,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_every_row_of_knative() {
        let rows = include_str!("../tests/vectors/kpa_smoothing.jsonl");
        let mut powers = 0;
        for row in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            let buckets = row["num_buckets"].as_u64().unwrap();
            let coefficient = smoothing_coefficient(usize::try_from(buckets).unwrap());
            assert_eq!(
                coefficient,
                row["smoothing_coeff"].as_f64().unwrap(),
                "{buckets} buckets"
            );
            for (z, want) in row["pow"].as_array().unwrap().iter().enumerate() {
                let exponent = u64::try_from(z).unwrap() + 1;
                let got = integer_power(1.0 - coefficient, exponent);
                assert_eq!(got, want.as_f64().unwrap(), "{buckets} buckets, z {exponent}");
                powers += 1;
            }
        }
        assert_eq!((rows.lines().count(), powers), (50, 2184));
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(integer_power(0.8, 0), 1.0);
        assert_eq!(integer_power(1e-4, 100), 0.0);
        assert_eq!(split(5e-324), (0.5, -1073));
    }
}
