//! The values of `knarr.dev/*`, parsed once.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::egress::parse_egress_rules;
use super::planning::Reader;
use super::{Annotation, EGRESS, EGRESS_ALLOW, SERVER_TIMING, UPSTREAM_KEEPALIVE};
use crate::config::ClusterConfig;
use crate::domains::StringMap;
use crate::golang;
use crate::idle_ignore::IdleIgnore;
use crate::revision::{ColdStartSla, IdlePolicy, Planning};
use crate::workload::Egress;

/// What the `knarr.dev/*` annotations of a template say, and Alibaba's that mean the same, over the cluster's defaults;
/// without any, exactly what Knative does.
#[derive(Clone, PartialEq, Debug)]
pub struct KnarrSettings {
    /// `knarr.dev/idle` with `knarr.dev/freeze-delay`.
    pub idle: IdlePolicy,
    /// What the planner may choose from, and what must hold.
    pub planning: Planning,
    /// `knarr.dev/idle-ignore`.
    pub idle_ignore: Option<IdleIgnore>,
    /// `knarr.dev/server-timing`.
    pub server_timing: bool,
    /// `knarr.dev/upstream-keepalive`.
    pub upstream_keepalive: bool,
    /// `knarr.dev/egress` with `knarr.dev/egress-allow`; `None` is the server's setting.
    pub egress: Option<Egress>,
    /// What was left out, by annotation: specs of Alibaba's that the catalogue does not have.
    pub left_out: Vec<(&'static str, String)>,
}

/// Reads all `knarr.dev/*` annotations; each error is the annotation's key with what is wrong.
pub fn knarr_settings(
    annotations: &StringMap,
    cluster: &ClusterConfig,
) -> Result<KnarrSettings, Vec<(&'static str, String)>> {
    let mut errors = Vec::new();
    let mut word = |annotation: &'static Annotation, words: &[&'static str], default: &'static str| {
        let value = annotation.value(annotations).unwrap_or(default);
        words.iter().copied().find(|word| *word == value).unwrap_or_else(|| {
            errors.push((annotation.key, format!("invalid value: {value}")));
            default
        })
    };
    let server_timing = word(&SERVER_TIMING, &["enabled", "disabled"], "disabled") == "enabled";
    let upstream_keepalive = word(&UPSTREAM_KEEPALIVE, &["enabled", "disabled"], "enabled") == "enabled";

    let egress = EGRESS.value(annotations);
    let egress = egress.map(|_| word(&EGRESS, &["none", "full", "allow-list"], "none"));
    let mut reader = Reader::new(annotations, cluster);
    let said = reader.read();
    errors.append(&mut reader.errors);
    let rules = EGRESS_ALLOW.value(annotations).map(parse_egress_rules).transpose();
    let rules = rules.unwrap_or_else(|error| {
        errors.push((EGRESS_ALLOW.key, error));
        None
    });
    let egress = match (egress, rules) {
        (Some("allow-list"), Some(rules)) => Some(Egress::AllowList(rules)),
        (Some("allow-list"), None) if EGRESS_ALLOW.value(annotations).is_none() => {
            errors.push((EGRESS.key, "allow-list without knarr.dev/egress-allow".to_owned()));
            None
        }
        (Some("full"), _) => Some(Egress::Full),
        (word, _) => word.map(|_| Egress::None),
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(KnarrSettings {
        idle: said.idle,
        planning: said.planning,
        idle_ignore: said.idle_ignore,
        server_timing,
        upstream_keepalive,
        egress,
        left_out: reader.warnings,
    })
}

/// The text is not an SLA.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid value: {text}: {fault}")]
pub struct NotAnSla {
    text: String,
    fault: &'static str,
}

/// `p99<1s`.
impl Default for ColdStartSla {
    fn default() -> Self {
        Self {
            quantile: 0.99,
            limit: Duration::from_secs(1),
        }
    }
}

pub(super) fn parse_delay(text: &str) -> Result<Duration, String> {
    match golang::parse_duration(text) {
        Ok(delay) if delay <= MOST => Ok(delay),
        Ok(_) => Err(format!("invalid value: {text}: longer than 1h")),
        Err(_) => Err(format!("invalid value: {text}: not a duration such as 30s")),
    }
}

const MOST: Duration = Duration::from_secs(3600);

impl FromStr for ColdStartSla {
    type Err = NotAnSla;

    fn from_str(text: &str) -> Result<Self, NotAnSla> {
        let fail = |fault| {
            Err(NotAnSla {
                text: text.to_owned(),
                fault,
            })
        };
        let Some((quantile, limit)) = text.split_once('<') else {
            return fail("there is no \"<\" in it");
        };
        let Some(quantile) = parse_quantile(quantile) else {
            return fail("the percentile is not p1 to p99, or p0.1 to p99.9");
        };
        let Some(limit) = parse_limit(limit) else {
            return fail("the limit is not a whole number with us, ms or s");
        };
        if limit.is_zero() || limit > MOST {
            return fail("the limit is not more than 0 and at most 3600s");
        }
        Ok(Self { quantile, limit })
    }
}

/// `p99` is 0.99, `p99.9` is 0.999.
fn parse_quantile(text: &str) -> Option<f64> {
    let (whole, tenth) = text
        .strip_prefix('p')?
        .split_once('.')
        .unwrap_or((text.strip_prefix('p')?, "0"));
    let digits = |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 2) || !digits(tenth, 1) {
        return None;
    }
    let tenths: u16 = format!("{whole}{tenth}").parse().ok()?;
    (tenths > 0).then(|| f64::from(tenths) / 1000.0)
}

fn parse_limit(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = number.parse().ok()?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// As it is written in the annotation.
impl fmt::Display for ColdStartSla {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to a tenth of a percent, the finest that can be written: 0.29 * 100 is not 29.
        let percent = (self.quantile * 1000.0).round() / 10.0;
        let micros = self.limit.as_micros();
        let (number, unit) = match micros {
            _ if micros.is_multiple_of(1_000_000) => (micros / 1_000_000, "s"),
            _ if micros.is_multiple_of(1_000) => (micros / 1_000, "ms"),
            _ => (micros, "us"),
        };
        write!(f, "p{percent}<{number}{unit}")
    }
}
