//! The simulator: what a policy would cost, and how many calls it would keep waiting, over a trace of real calls.
//!
//! It drives the shipped decider, gate and planner ([`autoscaler::fleet::Fleet`]) through virtual time, request by request;
//! only what is around them is simulated.
//!
//! | file | what |
//! |---|---|
//! | `engine`, `pool`, `bill` | arrivals, the gateway's slots and queue, the host and its bills, around the fleet |
//! | `market`, `settings`, `starts` | prices; assumptions; how long starts take |
//! | `policy`, `baselines`, `tune` | what is compared |
//! | `gaps`, `shelf` | idle time by idle time instead: the quick engine; what it can stand on |
//! | `faascache` | one pool of memory for all functions, as FaasCache keeps it |
//! | `tally`, `summary`, `statistics` | what happened, and how sure one can be of it |
//! | `agreement` | what a simulation says beside what really happened |
//! | `experiment`, `evaluate`, `scale` | many runs; the verdict; the control loop by its size |
//! | `report`, `svg` | as tables, as a picture |

pub mod agreement;
mod arena;
mod baselines;
mod bill;
#[cfg(test)]
mod by_hand;
mod engine;
mod evaluate;
mod experiment;
mod faascache;
mod gaps;
mod market;
mod policy;
mod pool;
pub mod report;
mod scale;
mod settings;
mod shelf;
mod starts;
mod statistics;
mod summary;
pub mod svg;
mod tally;
mod tune;

use autoscaler::planner::Population;

pub use baselines::Lacks;
pub use bill::{Billing, Costs};
pub use evaluate::{Check, Demand, Evaluation, TEN_MINUTES, cases, evaluate, halves, policies, pools, tuned};
pub use experiment::{Case, Row, minutes, run};
pub use market::{ECI_FULL, ECI_MEMORY, ECI_RESERVE, Market, Prices, Reserve};
pub use policy::Policy;
pub use scale::{Scale, scale};
pub use settings::{Engine, Settings};
pub use starts::Starts;
pub use statistics::{interval, lower_bound};
pub use summary::{Broken, MANY, Summary};
pub use tally::{Added, Tally};

use crate::trace::Trace;

/// Runs one policy over a trace: how each function fared, in the order of the trace. `minute` is called after each minute of
/// the trace and may end the run by `false`.
pub fn simulate(
    trace: &Trace,
    settings: &Settings,
    market: &Market,
    policy: &Policy,
    seed: u64,
    mut minute: impl FnMut() -> bool,
) -> Vec<Tally> {
    if let Policy::FaasCache(pool) = policy {
        let tallies = faascache::live(trace, settings, market, *pool, seed);
        trace.minutes.clone().all(|_| minute());
        return tallies;
    }
    if settings.engine == Engine::Fleet {
        let mut engine = engine::Engine::new(trace, settings, market, policy, seed);
        engine.run(minute);
        return engine.finish();
    }
    let world = policy::World::of(*policy, trace, settings, seed);
    let population = Population::default();
    let live = |function| {
        let life = gaps::Life::of(trace, settings, function, seed);
        let shelf = shelf::Shelf::of(market, trace, settings, function);
        life.live(settings, &shelf, &population, &mut *policy.planner(&world, function))
    };
    let tallies = (0..trace.functions.len()).map(live).collect();
    trace.minutes.clone().all(|_| minute());
    tallies
}
