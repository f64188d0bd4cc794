//! The check with many hands: whatever meets whatever, each start has its one end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::random::Random;
use super::{App, BOUND, Bench, Command, exchange};
use crate::driver::{Driver, DriverError, Limits, SandboxSpec, StartError};
use crate::exec::{ExecError, ExecSpec};

const GRACE: Duration = Duration::from_secs(10);

/// A frozen sandbox does not answer.
const PATIENCE: Duration = Duration::from_millis(50);

/// Few names and many hands: starts kept and dropped, stops and kills meet each other at every step.
pub(super) async fn churn(bench: &Bench) {
    let specs: Arc<Vec<SandboxSpec>> = Arc::new((0..4).map(|_| bench.spec(App::Quick)).collect());
    let mut workers = JoinSet::new();
    for seed in 0..6 {
        workers.spawn(churn_worker(
            Arc::clone(&bench.fixture.driver),
            Arc::clone(&specs),
            ExecSpec::new((bench.fixture.command)(Command::Forever)),
            seed,
        ));
    }
    let mut random = Random(99);
    let mut started = vec![0; specs.len()];
    loop {
        tokio::select! {
            worker = workers.join_next() => match worker {
                Some(counts) => {
                    let counts = counts.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                    started.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                }
                None => break,
            },
            () = sleep(Duration::from_millis(7)) => (bench.fixture.kill)(&random.of(&specs).id),
        }
    }
    for spec in &*specs {
        bench.stop(&spec.id, GRACE).await;
    }
    bench.settle().await;
    for (spec, started) in specs.iter().zip(started) {
        let exits = bench.exits(&spec.id);
        assert_eq!(
            exits.len(),
            started,
            "{}: started {started} times, and ended as {exits:?}",
            spec.id
        );
    }
}

/// Returns how many starts of each name have succeeded.
async fn churn_worker(
    driver: Arc<dyn Driver>,
    specs: Arc<Vec<SandboxSpec>>,
    command: ExecSpec,
    seed: u64,
) -> Vec<usize> {
    let mut random = Random(seed);
    let mut started = vec![0; specs.len()];
    for step in 0..25 {
        let at = usize::try_from(random.below(specs.len() as u64)).unwrap_or(0);
        let spec = &specs[at];
        match random.below(12) {
            0..5 => {
                let patience = if random.below(2) == 0 {
                    BOUND
                } else {
                    Duration::from_micros(random.below(8_000))
                };
                match timeout(patience, driver.start(spec.clone())).await {
                    Ok(Ok(_)) => started[at] += 1,
                    Err(_) | Ok(Err(StartError::Exited(_) | StartError::Driver(DriverError::Exists(_)))) => {}
                    Ok(Err(error)) => panic!("seed {seed} step {step}: {error}"),
                }
            }
            5..7 => {
                let stopped = driver.stop(&spec.id, GRACE).await;
                assert!(stopped.is_ok(), "seed {seed} step {step}: {stopped:?}");
            }
            // Whoever freezes it may be any of us; one that was stopped or is not ready yet is not there.
            7 => match driver.freeze(&spec.id).await {
                Ok(_) | Err(DriverError::NotFound(_) | DriverError::CannotFreeze(_)) => {}
                Err(error) => panic!("seed {seed} step {step}: {error}"),
            },
            8 => match driver.thaw(&spec.id).await {
                Ok(()) | Err(DriverError::NotFound(_)) => {}
                Err(error) => panic!("seed {seed} step {step}: {error}"),
            },
            9 => {
                let limits = Limits {
                    pids: Some(100 + u32::try_from(random.below(100)).unwrap_or(0)),
                    ..Limits::default()
                };
                match driver.set_limits(&spec.id, limits).await {
                    // Where none can be enforced, that is said.
                    Ok(()) | Err(DriverError::NotFound(_) | DriverError::Io { .. }) => {}
                    Err(error) => panic!("seed {seed} step {step}: {error}"),
                }
            }
            10 => {
                let patience = Duration::from_micros(random.below(20_000));
                match timeout(patience, driver.exec(&spec.id, command.clone())).await {
                    // Killed by its drop.
                    Ok(Ok(_)) | Err(_) => {}
                    Ok(Err(ExecError::Driver(DriverError::NotFound(_)) | ExecError::Refused(_))) => {}
                    Ok(Err(error)) => panic!("seed {seed} step {step}: {error}"),
                }
            }
            _ => {
                if let Ok(mut stream) = driver.dial(&spec.id).await
                    && let Ok(Ok(answer)) = timeout(PATIENCE, exchange(&mut stream)).await
                {
                    assert_eq!(answer, spec.id.as_str(), "seed {seed} step {step}");
                }
            }
        }
    }
    started
}
