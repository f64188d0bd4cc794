//! The short form of a run, for tests and demos.

use std::future::pending;

use crate::engine::{Progress, run_scenario};
use crate::plan::{Plan, PlanError};
use crate::results::Results;

/// Runs the plan to its end: until every request that was due has an answer or an error, at most `plan.timeout` after
/// the last one was due. `progress` is called about ten times a second and once at the end, not on the generator's thread.
/// Dropping the future ends the run.
///
/// # Errors
/// When the plan cannot run.
pub async fn run(plan: Plan, progress: impl FnMut(&Progress) + Send + 'static) -> Result<Results, PlanError> {
    run_scenario(plan.scenario(), progress, pending()).await
}
