//! How long deciding takes: 10,000 idle plans on one core, each for a revision with gaps of its own.
//!
//! ```sh
//! cargo run --release -p knarr-autoscaler --example plans          # 10,000 plans; more with a number
//! ```

#![allow(clippy::print_stdout, reason = "a command")]
#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::time::{Duration, Instant};

use autoscaler::planner::{Arrival, IdlePlanner as _, Menu, Offer, Pilot, Population, View};
use manifests::exchange::Rung;
use manifests::revision::ColdStartSla;
use manifests::units::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(10_000_usize);
    let (menu, population) = (menu(), Population::default());
    let sla = ColdStartSla {
        quantile: 0.99,
        limit: Duration::from_secs(1),
    };
    let mut random = StdRng::seed_from_u64(1);
    let view = |now| View {
        now,
        since: now,
        at: 3,
        sla: &sla,
        menu: &menu,
        population: &population,
    };
    let mut pilots: Vec<Pilot> = (0..count)
        .map(|_| {
            let (mut pilot, usual) = (Pilot::default(), random.random_range(1.0..12_000.0));
            for nth in 0..20 {
                let gap = Duration::from_secs_f64(usual * random.random_range(0.5..2.0));
                let service = Some(Duration::from_millis(random.random_range(5..2_000)));
                let arrival = Arrival {
                    gap: Some(gap),
                    at: 0,
                    service,
                    late: false,
                };
                pilot.arrived(&arrival, &view(Timestamp::from_millis(nth)));
            }
            pilot
        })
        .collect();
    let (mut steps, now) = (0, Timestamp::from_millis(1_000));
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        steps = pilots
            .iter_mut()
            .map(|pilot| pilot.plan(&view(now)).ladder.steps.len())
            .sum::<usize>();
        best = best.min(begun.elapsed());
    }
    println!("{count} idle plans, 4 rungs each, {steps} steps in all: {best:.1?} (best of 5)");
}

fn menu() -> Menu {
    let never = f64::INFINITY;
    let offers = [
        Offer::new(Rung::Zero, 0.0).woken(1.3e-4, 0.8),
        Offer::new(Rung::Frozen, 6e-7).woken(0.0, 1e-3),
        Offer {
            slow: 2.0,
            ..Offer::new(Rung::Reserve, 9.8e-6)
        },
        Offer::new(Rung::Full, 6.13e-5),
    ];
    Menu {
        offers: offers.map(|offer| Offer { lead: 4.0, ..offer }).into(),
        moves: vec![
            vec![0.0, never, 2e-5, 1.3e-4],
            vec![0.0, 0.0, 0.0, 0.0],
            vec![0.0, 0.0, 0.0, 1.3e-4],
            vec![0.0, 0.0, 2e-5, 0.0],
        ],
    }
}
