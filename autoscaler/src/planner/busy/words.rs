//! PURE  A busy plan for people: the mix, what it is for, and what became of the others.

use std::sync::Arc;
use std::time::Duration;

use manifests::units::PricePerHour;
use serde::{Deserialize, Serialize};

/// What serves the load, and why.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BusyPlan {
    /// Requests in flight on average, as they would be on full instances.
    pub average: f64,
    /// Room for so many at once is wanted.
    pub need: f64,
    /// Full instances that the decider would have.
    pub count: u32,
    /// What shall run; in the order of names.
    pub mix: Vec<Part>,
    /// What that costs.
    pub price: PricePerHour,
    /// How long a need like this is expected to last.
    pub holding: Duration,
    /// Every mix that was looked at last, the chosen one among them; cheapest first.
    pub considered: Vec<Considered>,
}

/// So many instances of a spec.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the catalogue.
    pub spec: Arc<str>,
    /// How many.
    pub count: u32,
}

/// A mix that could serve.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Considered {
    /// What would run.
    pub mix: Vec<Part>,
    /// Requests at once that it takes.
    pub capacity: f64,
    /// What it costs.
    pub price: PricePerHour,
    /// Full instances alone, as many as take the need.
    pub full: bool,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a mix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Verdict {
    /// It serves.
    Chosen,
    /// It serves, but nothing that can be had would take the whole need.
    AllThereIs,
    /// It takes the need and costs more.
    Dearer,
    /// It costs less, but not by as much as its starts cost.
    DoesNotPay,
    /// It costs less, and may be chosen once the mix has stayed for a minute.
    Waits,
    /// Requests would take longer there by more than the SLA allows.
    TooSlow,
    /// There are not as many.
    OutOfStock,
    /// max-scale allows fewer, or min-scale wants full ones.
    TooMany,
    /// Nothing runs yet, and starts on it are not known to be as quick as on a full one.
    StartsSlowly,
    /// It takes nothing at all: its credits are used up.
    TooLittle,
}

impl Verdict {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::AllThereIs => "chosen: as much as can be had, less than is wanted",
            Self::Dearer => "takes the load, costs more",
            Self::DoesNotPay => "costs less, but not by as much as its starts cost",
            Self::Waits => "costs less; the mix stays for a minute first",
            Self::TooSlow => "rejected: requests may take longer by more than the SLA allows",
            Self::OutOfStock => "rejected: not as many can be had",
            Self::TooMany => "rejected: max-scale allows fewer, or min-scale wants full ones",
            Self::StartsSlowly => "rejected: requests wait, and it is not known to start as quickly as a full one",
            Self::TooLittle => "rejected: it has no CPU credits left",
        }
    }
}

/// `2 small, 1 full`.
pub fn mix_text(mix: &[Part]) -> String {
    let parts: Vec<String> = mix.iter().map(|it| format!("{} {}", it.count, it.spec)).collect();
    if parts.is_empty() {
        return "nothing".into();
    }
    parts.join(", ")
}

impl BusyPlan {
    /// The choice in a clause; it stays the same while the choice does.
    pub fn reason(&self) -> String {
        format!("on {}", mix_text(&self.mix))
    }

    /// What full instances alone would cost, as many as take the need; `None` when there are not as many.
    pub fn on_full(&self) -> Option<PricePerHour> {
        let full = self.considered.iter().find(|it| it.full);
        full.map(|it| it.price)
    }

    /// The choice and what it is for, in a line.
    pub fn in_a_line(&self) -> String {
        let instead = match self.on_full() {
            Some(full) if full.0 > self.price.0 => format!(", {full} on full instances"),
            _ => String::new(),
        };
        format!(
            "{} at {}{instead}; room for {:.1} at once, {:.1} in flight",
            mix_text(&self.mix),
            self.price,
            self.need,
            self.average
        )
    }
}
