//! Tells the driver which services are deployed at zero and never ran, so that their first start finds a shell.

use std::collections::HashSet;
use std::sync::Arc;

use manifests::exchange::Snapshot;
use manifests::ids::{RevisionId, SandboxId};
use manifests::revision::Revision;
use manifests::units::Replicas;
use sandbox::driver::{Limits, SandboxSpec};
use sandbox::{Expected, LocalDriver};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Until `stop`, or until nobody publishes snapshots.
pub(crate) async fn expect_starts(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    driver: Arc<LocalDriver>,
    stop: CancellationToken,
) {
    let mut told = HashSet::new();
    let expecting = async {
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            tell(&snapshot, &driver, &mut told).await;
            drop(snapshot);
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(expecting).await;
}

async fn tell(snapshot: &Snapshot, driver: &LocalDriver, told: &mut HashSet<RevisionId>) {
    told.retain(|id| snapshot.revisions.contains_key(id));
    for revision in snapshot.revisions.values().filter(|it| starts_at_zero(it)) {
        if told.contains(&revision.id) {
            continue;
        }
        match driver.expect(&spec(revision)).await {
            Expected::Yes => drop(told.insert(revision.id.clone())),
            Expected::NotYet => {}
            Expected::Full => return,
        }
    }
}

/// Nothing starts it but a request.
fn starts_at_zero(revision: &Revision) -> bool {
    revision.scaling.initial_scale == Replicas(0) && revision.scaling.min_scale == Replicas(0)
}

/// As its first start would be; of the name and the limits nothing is kept.
fn spec(revision: &Revision) -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new(revision.id.name()),
        revision: revision.id.clone(),
        configuration: revision.configuration.clone(),
        service: revision.service.clone(),
        workload: Arc::clone(&revision.workload),
        limits: Limits::default(),
        deadline: revision.scaling.progress_deadline,
    }
}
