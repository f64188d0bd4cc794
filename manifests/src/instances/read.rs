//! The specs of a catalogue as text to what they mean, with every mistake at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::price::SECONDS;
use super::{Burst, FrozenPrice, InstanceSpec, RawBurst, RawSpec, RawStart, Scheduling, StartPrior, lookup};
use crate::golang;
use crate::problem::Problem;
use crate::read::{is_within, place_in};
use crate::resources::{Mirror, Quantity};
use crate::units::{Bytes, Millicores};

/// The specs of a catalogue's text; what is wrong, with paths from the list (`[3].price`), goes to `problems`.
pub(crate) fn specs(text: &str, problems: &mut Vec<Problem>) -> Vec<InstanceSpec> {
    let (value, wrong, places) = crate::read::read_problems(text, Vec::<RawSpec>::SHAPE);
    let damaged: Vec<String> = wrong.iter().map(|problem| problem.path.clone()).collect();
    problems.extend(wrong);
    // It fits the shape that the type was made from.
    let raw: Vec<RawSpec> = serde_json::from_value(value).unwrap_or_default();
    if raw.len() > MOST {
        problems.push(problem(
            "",
            format!("{} specs are too many", raw.len()),
            format!("write at most {MOST}"),
        ));
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut found: Vec<Problem> = Vec::new();
    let mut specs = Vec::new();
    for (nth, raw) in raw.into_iter().enumerate() {
        let mut read = Reader {
            at: format!("[{nth}]"),
            found: &mut found,
        };
        read.name(&raw.name, &mut names);
        specs.push(read.spec(raw));
    }
    // What was left out because it was wrong is not missing.
    found.retain(|problem| {
        !damaged
            .iter()
            .any(|damaged| is_within(&problem.path, damaged) || is_within(damaged, &problem.path))
    });
    for problem in &mut found {
        problem.line = place_in(&places, &problem.path).map(|place| place.line);
    }
    problems.extend(found);
    problems.sort_by_key(|problem| problem.line);
    specs
}

/// Reads one spec.
struct Reader<'a> {
    at: String,
    found: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn name(&mut self, name: &str, names: &mut BTreeSet<String>) {
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() {
            self.wrong("name", "missing", "give each spec a name");
        } else if name.len() > LONGEST || !name.chars().all(right) {
            let hint = format!("write letters, digits, -, _ and ., at most {LONGEST}");
            self.wrong("name", format!("invalid value: {name:?}"), hint);
        } else if !names.insert(name.to_owned()) {
            self.wrong(
                "name",
                format!("a second spec is called {name}"),
                "give each spec a name of its own",
            );
        }
    }

    fn spec(&mut self, raw: RawSpec) -> InstanceSpec {
        let cpu = raw.cpu.and_then(|cpu| self.cpu(cpu));
        let memory = raw.memory.and_then(|memory| self.memory(memory));
        if raw.throttled && raw.cpu.is_none() {
            self.wrong(
                "throttled",
                "has the revision's own CPU limit",
                "write cpu, such as 50m",
            );
        }
        let burst = raw.burst.map(|burst| self.burst(&burst));
        // A burst is at full speed while credits last.
        let slow = cpu
            .filter(|_| burst.is_none())
            .map_or(1.0, |cpu| (1000.0 / f64::from(cpu.0)).max(1.0));
        InstanceSpec {
            name: raw.name.into(),
            pool: if raw.pool.is_empty() {
                "default".into()
            } else {
                raw.pool.into()
            },
            cpu,
            memory,
            price: self.price("price", &raw.price).unwrap_or_else(|| {
                if raw.price.is_empty() {
                    self.wrong("price", "missing", PRICE_HINT);
                }
                0.0
            }),
            memory_price: self.price("memory-price", &raw.memory_price).unwrap_or(0.0),
            granularity: self.duration("granularity", &raw.granularity, Duration::from_secs(1), MS..=HOUR),
            minimum: self.duration("minimum", &raw.minimum, Duration::ZERO, Duration::ZERO..=DAY),
            start: raw.start.map(|start| self.start(&start)),
            burst,
            stock: raw.stock.and_then(|stock| {
                let read = u32::try_from(stock).ok();
                if read.is_none() {
                    self.wrong("stock", format!("{stock} is out of range"), "must be 0 to 4294967295");
                }
                read
            }),
            in_place: raw.in_place || raw.throttled,
            throttled: raw.throttled,
            slow: raw.slow.map_or(slow, |slow| self.number("slow", slow, 0.01, 1000.0)),
            scheduling: Scheduling {
                node_selector: raw.node_selector,
                tolerations: raw.tolerations,
                annotations: raw.annotations,
            },
        }
    }

    fn cpu(&mut self, cpu: Quantity) -> Option<Millicores> {
        let read = lookup::millicores(&cpu.to_string()).filter(|cpu| cpu.0 <= MOST_CPU);
        if read.is_none() {
            self.wrong(
                "cpu",
                format!("{cpu} is out of range"),
                "must be 1m to 10k; leave it out for the revision's own limit",
            );
        }
        read
    }

    fn memory(&mut self, memory: Quantity) -> Option<Bytes> {
        let read = lookup::bytes(&memory.to_string()).filter(|memory| (LEAST_MEMORY..=MOST_MEMORY).contains(&memory.0));
        if read.is_none() {
            let hint = "must be 1Mi to 1Pi; leave it out for the revision's own limit";
            self.wrong("memory", format!("{memory} is out of range"), hint);
        }
        read
    }

    /// Per second; `None` when nothing is written, or nothing that is a price.
    fn price(&mut self, field: &str, text: &str) -> Option<f64> {
        if text.is_empty() {
            return None;
        }
        match price(text) {
            Ok(price) => Some(price),
            Err(fault) => {
                self.wrong(field, format!("invalid value: {text}: {fault}"), PRICE_HINT);
                None
            }
        }
    }

    fn start(&mut self, raw: &RawStart) -> StartPrior {
        let missing = raw.median.is_empty();
        if missing {
            self.wrong("start.median", "missing", "write a duration such as 8s");
        }
        let median = self.duration("start.median", &raw.median, Duration::from_secs(1), MS..=HOUR);
        let sigma = raw
            .sigma
            .map_or(SIGMA, |sigma| self.number("start.sigma", sigma, 0.0, 5.0));
        StartPrior { median, sigma }
    }

    fn burst(&mut self, raw: &RawBurst) -> Burst {
        let percent = raw
            .baseline
            .strip_suffix('%')
            .and_then(|text| text.trim().parse::<f64>().ok());
        let baseline = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
        if baseline.is_none() {
            let message = format!("invalid value: {:?}", raw.baseline);
            self.wrong(
                "burst.baseline",
                message,
                "write the share of its CPU that it always has, such as 20%",
            );
        }
        let mut credits = |field: &str, said: Option<Quantity>| match said {
            Some(said) => self.number(field, said, 0.0, 1e6),
            None => {
                self.wrong(field, "missing", "write a number; a credit is one CPU for a minute");
                0.0
            }
        };
        Burst {
            baseline: baseline.unwrap_or(100.0) / 100.0,
            credits_per_hour: credits("burst.credits-per-hour", raw.credits_per_hour),
            most: credits("burst.most", raw.most),
        }
    }

    fn duration(
        &mut self,
        field: &str,
        text: &str,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        if text.is_empty() {
            return default;
        }
        match golang::parse_duration(text) {
            Ok(duration) if range.contains(&duration) => duration,
            read => {
                let (low, high) = (range.start(), range.end());
                let hint = format!("must be {low:?} to {high:?}, written as in 500ms, 60s or 1h");
                let message = match read {
                    Ok(_) => format!("{text} is out of range"),
                    Err(_) => format!("invalid value: {text}"),
                };
                self.wrong(field, message, hint);
                default
            }
        }
    }

    fn number(&mut self, field: &str, said: Quantity, low: f64, high: f64) -> f64 {
        match amount(said) {
            number if (low..=high).contains(&number) => number,
            _ => {
                self.wrong(
                    field,
                    format!("{said} is out of range"),
                    format!("must be {low} to {high}"),
                );
                high.min(1.0)
            }
        }
    }

    fn wrong(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        let path = format!("{}.{field}", self.at);
        self.found.push(problem(&path, message.into(), hint.into()));
    }
}

/// `0.39/h`, `0.0000613/s`: per second.
fn price(text: &str) -> Result<f64, &'static str> {
    let (number, unit) = text.split_once('/').ok_or("it does not say per what")?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => SECONDS,
        "d" => 24.0 * SECONDS,
        _ => return Err("the unit is not s, m, h or d"),
    };
    let number = number.trim();
    let written = !number.is_empty()
        && number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    match number.parse::<f64>() {
        Ok(price) if written && price.is_finite() && (0.0..=MOST_PRICE).contains(&(price / seconds)) => {
            Ok(price / seconds)
        }
        Ok(price) if written && price.is_sign_negative() => Err("it is negative"),
        Ok(_) if written => Err("it is too large"),
        _ => Err("it is not a number"),
    }
}

/// `0.4/h`, `0.4/h whole`, `none`.
pub(crate) fn frozen_price(text: &str) -> Result<Option<FrozenPrice>, String> {
    let text = text.trim();
    if text == "none" {
        return Ok(None);
    }
    let (text, whole) = match text.strip_suffix("whole") {
        Some(rest) => (rest.trim(), true),
        None => (text, false),
    };
    match price(text) {
        Ok(memory_price) => Ok(Some(FrozenPrice { memory_price, whole })),
        Err(fault) => Err(format!(
            "{fault}; write a price per GiB such as 0.4/h, with `whole` behind it when all memory of the spec is paid for, or none"
        )),
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of a catalogue are small")]
fn amount(quantity: Quantity) -> f64 {
    quantity.milli_value() as f64 / 1000.0
}

/// What `word` was meant to be, or what there is.
pub(crate) fn hint_at<'a>(word: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    match crate::nearest(word, names.clone()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are {}", names.take(SHOWN).collect::<Vec<_>>().join(", ")),
    }
}

fn problem(path: &str, message: String, hint: String) -> Problem {
    Problem::new(&Arc::from(""), 0, message).on(path).hint(hint)
}

const PRICE_HINT: &str = "write a number of 0 or more per s, m, h or d, such as 0.39/h";
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Of starts, when nobody says.
const SIGMA: f64 = 0.5;
/// Most specs of a catalogue.
const MOST: usize = 1000;
/// Most bytes of a name.
const LONGEST: usize = 100;
/// Per second.
const MOST_PRICE: f64 = 1e6;
/// Millicores.
const MOST_CPU: u32 = 10_000_000;
const LEAST_MEMORY: u64 = 1 << 20;
const MOST_MEMORY: u64 = 1 << 50;
/// Names in a hint.
const SHOWN: usize = 8;
