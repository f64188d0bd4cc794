//! The routing table in place, and its one writer.

use std::collections::HashMap;
use std::sync::Arc;

use activator::{Pool, Pools};
use arc_swap::ArcSwap;
use manifests::exchange::Snapshot;
use manifests::ids::{Generation, RevisionId};
use manifests::revision::Revision;

use crate::metrics::Meters;
use crate::router::Router;

/// What serves a revision, found once when the table is built.
pub(crate) struct Target {
    pub(crate) pool: Arc<Pool>,
    pub(crate) revision: Arc<Revision>,
    pub(crate) meters: Arc<Meters>,
}

/// The table that data threads read.
pub(crate) type Table = Arc<ArcSwap<Router<Target>>>;

/// The only writer of the table; lives on the control runtime.
pub(crate) struct Routes {
    table: Table,
    pools: Arc<Pools>,
    targets: HashMap<RevisionId, Arc<Target>>,
    /// Tables that a data thread may still be reading. They are freed here and never there: a large one takes as long to
    /// drop as ten thousand requests.
    retired: Vec<Arc<Router<Target>>>,
}

impl Routes {
    pub(crate) fn new(pools: Arc<Pools>) -> Self {
        let table = Arc::new(ArcSwap::from_pointee(Router::empty()));
        Self {
            table,
            pools,
            targets: HashMap::new(),
            retired: Vec::new(),
        }
    }

    /// What data threads read.
    pub(crate) fn table(&self) -> Table {
        Arc::clone(&self.table)
    }

    /// The snapshot whose routes are in place.
    pub(crate) fn generation(&self) -> Generation {
        self.table.load().generation
    }

    /// Puts a snapshot in place: its pools first, then the routes to them. An older one than the one in place is refused.
    pub(crate) fn publish(&mut self, snapshot: &Snapshot) -> bool {
        let before = self.table.load_full();
        if snapshot.generation < before.generation || !self.pools.apply_snapshot(snapshot) {
            return false;
        }
        self.targets.retain(|id, _| snapshot.revisions.contains_key(id));
        let table = Router::build(snapshot, &before, |id| self.resolve(snapshot, id));
        tracing::debug!(generation = %table.generation, hosts = table.len(), "routes in place");
        drop(before);
        self.retired.push(self.table.swap(Arc::new(table)));
        self.tidy();
        true
    }

    /// Frees what nobody reads any more; true when nothing is left.
    pub(crate) fn tidy(&mut self) -> bool {
        // Nobody can get hold of a retired table anew, so one that only we own stays that way.
        self.retired.retain(|table| Arc::strong_count(table) > 1);
        self.retired.is_empty()
    }

    fn resolve(&mut self, snapshot: &Snapshot, id: &RevisionId) -> Option<Arc<Target>> {
        let revision = snapshot.revisions.get(id)?;
        let pool = self.pools.get(id)?;
        let known = self.targets.get(id).filter(|known| Arc::ptr_eq(&known.pool, &pool));
        if let Some(known) = known
            && Arc::ptr_eq(&known.revision, revision)
        {
            return Some(Arc::clone(known));
        }
        let meters = known.map(|known| Arc::clone(&known.meters)).unwrap_or_default();
        let target = Arc::new(Target {
            pool,
            revision: Arc::clone(revision),
            meters,
        });
        self.targets.insert(id.clone(), Arc::clone(&target));
        Some(target)
    }
}
