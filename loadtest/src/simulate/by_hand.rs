//! Traces and settings so small that what they come to can be said by hand.

use std::time::Duration;

use manifests::units::Bytes;

use super::{Billing, Prices, Settings, Starts};
use crate::trace::{Calls, Durations, Function, Trace, Trigger};

/// Each of its calls takes so long, and it holds 100 MiB.
pub(super) fn function(name: &str, times: &[f64], seconds: f64) -> Function {
    Function {
        name: name.into(),
        app: String::new(),
        trigger: Trigger::Http,
        calls: Calls::Times(times.iter().map(|at| Duration::from_secs_f64(*at).into()).collect()),
        durations: Durations::new(vec![(0.0, seconds * 1e3), (1.0, seconds * 1e3)]),
        memory: Some(Bytes(100 << 20)),
        start: None,
    }
}

pub(super) fn trace(minutes: u32, functions: Vec<Function>) -> Trace {
    Trace {
        name: "by hand".into(),
        minutes: 0..minutes,
        functions,
    }
}

/// Every start takes two seconds; nothing runs before the first call.
pub(super) fn settings() -> Settings {
    Settings {
        starts: Starts {
            median: Duration::from_secs(2),
            spread: 0.0,
            sigma: 0.0,
        },
        initial_scale: 0,
        ..Settings::default()
    }
}

/// A full instance costs 1 per second, to the last moment.
pub(super) fn prices() -> Prices {
    Prices {
        full: 1.0,
        billing: Billing {
            granularity: Duration::ZERO,
            minimum: Duration::ZERO,
        },
        ..Prices::eci()
    }
}
