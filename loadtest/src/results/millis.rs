//! Durations as milliseconds in JSON: to the nanosecond for what lasts less than 26 days. Pure.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 nanoseconds: 104 days")]
    serializer.serialize_f64(duration.as_nanos() as f64 / 1e6)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let millis = f64::deserialize(deserializer)?;
    let wrong = || de::Error::custom(format!("{millis} milliseconds are no duration"));
    let nanos = (millis * 1e6).round();
    if !(0.0..9e18).contains(&nanos) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within u64, as just checked"
    )]
    Ok(Duration::from_nanos(nanos as u64))
}
