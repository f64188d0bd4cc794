//! Reads `Server-Timing` (W3C Server Timing, section 3): where the time of one request went, in the server's words. Pure.

use std::time::Duration;

use http::HeaderMap;
use serde::{Deserialize, Serialize};

/// How warm the sandbox was that answered, as the server says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Temperature {
    /// The server said nothing.
    #[default]
    Unknown,
    /// It ran, at full size.
    Warm,
    /// It ran on a cheaper spec, and served there.
    Reserve,
    /// It ran with a smaller share of the CPU.
    Throttled,
    /// It was frozen, and had to be thawed.
    Frozen,
    /// It had to be started.
    Cold,
}

impl Temperature {
    /// Its name in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Warm => "warm",
            Self::Reserve => "reserve",
            Self::Throttled => "throttled",
            Self::Frozen => "frozen",
            Self::Cold => "cold",
        }
    }
}

/// The parts of a request's time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Finding the revision.
    Route,
    /// Waiting for a free place.
    Queue,
    /// Starting (or waking) a sandbox.
    Start,
    /// Connecting to it.
    Connect,
    /// The app's own time to its first byte.
    App,
}

impl Phase {
    /// All of them, in the order in which they happen.
    pub const ALL: [Self; 5] = [Self::Route, Self::Queue, Self::Start, Self::Connect, Self::App];

    /// Its name in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Queue => "queue",
            Self::Start => "start",
            Self::Connect => "connect",
            Self::App => "app",
        }
    }
}

/// One response's `Server-Timing`. Unknown metrics and parameters are passed over, as the standard asks.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Timing {
    /// From the description of any known metric; Knarr says it on `start`.
    pub temperature: Temperature,
    /// By [`Phase::ALL`]'s order; `None` where the server names none.
    pub phases: [Option<Duration>; 5],
}

impl Timing {
    /// From a response's headers; empty when there is no such header.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut timing = Self::default();
        for value in headers.get_all("server-timing") {
            timing.add(value.to_str().unwrap_or_default());
        }
        timing
    }

    /// One more header's value; what it says again replaces what was said.
    pub(crate) fn add(&mut self, value: &str) {
        for metric in split_unquoted(value, ',') {
            self.metric(metric);
        }
    }

    fn metric(&mut self, metric: &str) {
        let mut parts = split_unquoted(metric, ';');
        let name = parts.next().unwrap_or_default().trim();
        let Some(index) = Phase::ALL
            .iter()
            .position(|phase| phase.name().eq_ignore_ascii_case(name))
        else {
            return;
        };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                // Milliseconds, fractions allowed.
                "dur" => {
                    let millis = value.parse::<f64>().ok();
                    self.phases[index] = millis.and_then(|millis| Duration::try_from_secs_f64(millis / 1e3).ok());
                }
                "desc" => self.temperature = temperature(value),
                _ => {}
            }
        }
    }
}

fn temperature(desc: &str) -> Temperature {
    let known = [
        Temperature::Warm,
        Temperature::Reserve,
        Temperature::Throttled,
        Temperature::Frozen,
        Temperature::Cold,
    ];
    known
        .into_iter()
        .find(|temperature| temperature.name() == desc)
        .unwrap_or_default()
}

/// Splits where `separator` stands outside quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Timing {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("server-timing", http::HeaderValue::from_static(value));
        }
        Timing::from_headers(&headers)
    }

    #[test]
    fn reads_phases_and_temperature() {
        let ms = |ms: f64| Some(Duration::from_secs_f64(ms / 1e3));
        let all = [ms(0.01), ms(3.0), ms(2.5), ms(0.2), ms(7.0)];
        let cold = Timing {
            temperature: Temperature::Cold,
            phases: all,
        };
        let one = "route;dur=0.01, queue;dur=3,start;desc=cold;dur=2.5 , connect;dur=0.2, app;dur=7";
        assert_eq!(read(&[one]), cold);
        assert_eq!(
            read(&[
                "route;dur=0.01, queue;dur=3",
                "start;dur=2.5, connect;dur=0.2, app;desc=\"cold\";dur=7"
            ]),
            cold
        );
    }

    #[test]
    fn passes_over_what_it_does_not_know() {
        assert_eq!(read(&[]), Timing::default());
        let odd = read(&[r#"cache;desc="a, app;desc=cold";dur=1, app;dur=soon, queue;dur=-1, start, ;;,="#]);
        assert_eq!(odd, Timing::default());
        assert_eq!(read(&["APP; DUR=1; desc=warm"]).temperature, Temperature::Warm);
    }
}
