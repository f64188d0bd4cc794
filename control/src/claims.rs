//! PersistentVolumeClaims as the driver hears of them: a claim's directory goes when its object is deleted while Knarr runs.
//! What Knarr finds at its start and no manifest names stays: another Knarr may have been told of other manifests.

use std::collections::BTreeSet;
use std::sync::Arc;

use manifests::ids::ObjectId;
use sandbox::LocalDriver;

use crate::desired::Desired;

/// What the driver knows.
pub(crate) struct Claims {
    driver: Arc<LocalDriver>,
    told: BTreeSet<ObjectId>,
}

impl Claims {
    pub(crate) fn new(driver: Arc<LocalDriver>) -> Self {
        Self {
            driver,
            told: BTreeSet::new(),
        }
    }

    /// Tells what has changed since the last time. Also at the start: those whose deletion was put off may go now.
    pub(crate) fn settle(&mut self, desired: &Desired) {
        let there: BTreeSet<ObjectId> = desired.claims().cloned().collect();
        let deleted: Vec<ObjectId> = self.told.difference(&there).cloned().collect();
        let all: Vec<ObjectId> = there.iter().cloned().collect();
        self.driver.settle_claims(&all, &deleted);
        self.told = there;
    }
}
