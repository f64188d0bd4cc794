//! Where a request's time went: `Server-Timing` (W3C), and the phases of a cold start for the metrics. PURE.

use std::time::Duration;

use activator::{Temperature, Waited};
use http::HeaderValue;

/// The phases of a request, in order; together they are the time to the first byte, retries left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Phases {
    /// From the head of the request to its route.
    pub(crate) route: Duration,
    /// What it waited for, and how long.
    pub(crate) waited: Waited,
    /// What it met.
    pub(crate) temperature: Temperature,
    /// From the slot to a connection.
    pub(crate) connect: Duration,
    /// From the connection to the head of the response: the app's own time.
    pub(crate) app: Duration,
}

impl Phases {
    /// In milliseconds: `route;dur=0.021, queue;dur=0.000, start;desc=cold;dur=3.140, connect;dur=0.110, app;dur=1.200`.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let text = format!(
            "route;dur={:.3}, queue;dur={:.3}, start;desc={};dur={:.3}, connect;dur={:.3}, app;dur={:.3}",
            ms(self.route),
            ms(self.waited.queue),
            self.temperature.as_str(),
            ms(self.waited.start),
            ms(self.connect),
            ms(self.app),
        );
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use manifests::exchange::Rung;

    use super::*;

    #[test]
    fn says_milliseconds() {
        let us = Duration::from_micros;
        let phases = Phases {
            route: us(21),
            waited: Waited {
                queue: Duration::ZERO,
                start: us(3_140),
                cold: Some(Rung::Zero),
            },
            temperature: Temperature::Cold,
            connect: us(110),
            app: us(1_200),
        };
        assert_eq!(
            phases.header().expect("ASCII"),
            "route;dur=0.021, queue;dur=0.000, start;desc=cold;dur=3.140, connect;dur=0.110, app;dur=1.200"
        );
    }
}
