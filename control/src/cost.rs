//! What `knarr cost` shows, and the day's costs in the data directory, so that a restart does not forget them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use autoscaler::cost::{Account, Costs, Ledger, Spent};
use manifests::ids::{ObjectId, RevisionId};
use manifests::resources::Revision;
use manifests::units::{Clock, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::answers::Live;

/// Everything that costs, since midnight (UTC).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CostReport {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What prices are in; empty where the catalogue does not say.
    pub currency: String,
    /// By namespace and name.
    pub revisions: Vec<RevisionCost>,
    /// Of revisions that are gone.
    pub gone: Spent,
    /// All together.
    pub total: Spent,
}

/// What was spent, beside what it is compared with.
pub(crate) fn in_words(spent: &Spent) -> String {
    format!(
        "{:.4}, by Knative's rule {:.4}, always on {:.4}",
        spent.actual, spent.knative, spent.always_on
    )
}

/// What one revision costs.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionCost {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub revision: String,
    /// The Service above it, empty for a bare Configuration's.
    pub service: String,
    /// Where it stands.
    pub rung: String,
    /// What runs of it costs now, per hour.
    pub price_per_hour: f64,
    /// What one full instance costs, per hour.
    pub full_per_hour: f64,
    /// Since midnight.
    pub today: Spent,
    /// The day before.
    pub yesterday: Spent,
    /// What its min-scale costs; absent without one.
    pub min_scale: Option<MinScaleCost>,
}

/// What min-scale costs: its replicas while nobody asks for them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MinScaleCost {
    /// How many.
    pub replicas: u32,
    /// Since midnight, on full instances.
    pub today: f64,
    /// The cheapest rung they could stand on instead; absent where there is none.
    pub cheaper: Option<String>,
    /// What that would have cost.
    pub cheaper_today: f64,
}

impl RevisionCost {
    /// Since midnight.
    pub(crate) const fn today(account: Account) -> Spent {
        account.today
    }

    fn of(id: &RevisionId, account: &Account) -> Self {
        let rates = &account.rates;
        let min_scale = (rates.min_scale > 0 && rates.reachable).then(|| MinScaleCost {
            replicas: rates.min_scale,
            today: account.today.min_scale,
            cheaper: rates.cheaper.map(|(rung, _)| rung.as_str().to_owned()),
            cheaper_today: account.today.min_scale_cheaper,
        });
        Self {
            namespace: id.namespace().to_owned(),
            revision: id.name().to_owned(),
            service: String::new(),
            rung: String::new(),
            price_per_hour: rates.price * 3600.0,
            full_per_hour: rates.full * 3600.0,
            today: account.today,
            yesterday: account.yesterday,
            min_scale,
        }
    }
}

impl Live {
    /// Looks now.
    pub(crate) fn costs_now(&self) -> CostReport {
        let now = (self.clock)();
        let ledger = self.costs.at(now);
        let desired = self.desired();
        let revisions = ledger.accounts.iter().map(|(id, account)| {
            let revision = desired
                .store()
                .get::<Revision>(&ObjectId::new(id.namespace(), id.name()));
            let service = revision.and_then(|it| it.metadata.labels.get("serving.knative.dev/service").cloned());
            RevisionCost {
                service: service.unwrap_or_default(),
                rung: desired
                    .status(id)
                    .map(|it| it.rung)
                    .unwrap_or_default()
                    .as_str()
                    .to_owned(),
                ..RevisionCost::of(id, account)
            }
        });
        CostReport {
            at_ms: now.as_millis(),
            currency: self.snapshots.borrow().instances.currency.to_string(),
            revisions: revisions.collect(),
            gone: ledger.gone.1,
            total: ledger.total(),
        }
    }
}

/// The ledger as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    saved: Timestamp,
    ledger: Ledger,
}

/// What was spent before this start; a file that is lost or broken is a warning.
pub(crate) fn read(path: &Path) -> Ledger {
    let kept: Result<Kept, String> = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ledger::default(),
        Err(error) => Err(error.to_string()),
    };
    match kept {
        Ok(kept) if kept.version == VERSION => kept.ledger,
        Ok(kept) => {
            tracing::warn!(path = %path.display(), version = kept.version, "the costs were kept by another version of Knarr; today's begin anew");
            Ledger::default()
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the costs so far cannot be read; today's begin anew");
            Ledger::default()
        }
    }
}

/// Writes the ledger down once in a while, and at the end.
pub(crate) async fn keep(path: PathBuf, costs: Costs, clock: Clock, stop: CancellationToken) {
    loop {
        let ended = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none();
        let now = clock();
        let (to, ledger) = (path.clone(), costs.at(now));
        let written = tokio::task::spawn_blocking(move || write(&to, now, ledger)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(path = %path.display(), %error, "the costs cannot be written down");
        }
        if ended {
            return;
        }
    }
}

fn write(path: &Path, now: Timestamp, ledger: Ledger) -> io::Result<()> {
    let kept = Kept {
        version: VERSION,
        saved: now,
        ledger,
    };
    replace(path, &serde_json::to_vec(&kept)?)
}

/// Puts a new file in the place of another: whoever is killed leaves the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let new = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)
}

const VERSION: u32 = 1;

/// What a kill loses at most.
const EVERY: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_and_what_is_broken_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("costs.json");
        assert_eq!(read(&path), Ledger::default());
        let spent = Spent {
            actual: 1.5,
            ..Spent::default()
        };
        let ledger = Ledger {
            gone: (7, spent),
            ..Ledger::default()
        };
        write(&path, Timestamp::from_millis(5), ledger.clone()).unwrap();
        assert_eq!(read(&path), ledger);
        for broken in [
            "",
            "{\"version\":1",
            "{\"version\":9,\"saved\":1,\"ledger\":{\"accounts\":[],\"gone\":[0,{}]}}",
            "[]",
        ] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(read(&path), Ledger::default(), "{broken}");
        }
    }
}
