//! Merges those who want the same layer at the same time into one download.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Inner;
use super::layer::{self, Layer, Wanted};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::progress::{Progress, Stage};

/// Layers that are being fetched, by the digest of their uncompressed bytes.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Digest, Weak<Flight>>>);

/// One fetch. It stops when nobody waits for it any more.
struct Flight {
    stage: watch::Receiver<Stage>,
    outcome: watch::Receiver<Option<Outcome>>,
    task: JoinHandle<()>,
}

type Outcome = Result<Arc<Layer>, Arc<ImageError>>;

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Gets a layer: by a fetch that is under way, or by one of its own.
pub(super) async fn get(inner: &Arc<Inner>, wanted: Wanted, progress: &dyn Progress) -> Result<Arc<Layer>, ImageError> {
    if let Some(layer) = inner.layer_in_use(&wanted.diff_id) {
        progress.stage(&wanted.descriptor.digest, Stage::Present);
        return Ok(layer);
    }
    loop {
        let (flight, ours) = inner.flights.join(inner, &wanted);
        match flight.wait(&wanted.descriptor.digest, progress).await {
            Ok(layer) => return Ok(inner.share_layer(wanted.diff_id, layer)),
            // The other one may have had another source, or other credentials.
            Err(_) if !ours => {}
            Err(error) => return Err(error.again()),
        }
    }
}

impl Flights {
    /// The fetch under way, or a new one; and whether it is new.
    fn join(&self, inner: &Arc<Inner>, wanted: &Wanted) -> (Arc<Flight>, bool) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = flights.get(&wanted.diff_id).and_then(Weak::upgrade);
        // One that has failed is of use to those who waited for it, and to nobody else.
        if let Some(flight) = there.filter(|flight| !flight.failed()) {
            return (flight, false);
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let (stage_sender, stage) = watch::channel(Stage::Waiting);
        let (sender, outcome) = watch::channel(None);
        let fetch = layer::fetch(inner.clone(), wanted.clone(), stage_sender);
        let task = tokio::spawn(async move {
            let result = fetch.await.map_err(Arc::new);
            sender.send_replace(Some(result));
        });
        let flight = Arc::new(Flight { stage, outcome, task });
        flights.insert(wanted.diff_id, Arc::downgrade(&flight));
        (flight, true)
    }
}

impl Flight {
    fn failed(&self) -> bool {
        matches!(&*self.outcome.borrow(), Some(Err(_)))
    }

    /// Waits for the end, and tells how it goes meanwhile.
    async fn wait(&self, layer: &Digest, progress: &dyn Progress) -> Outcome {
        let (mut stages, mut outcome) = (self.stage.clone(), self.outcome.clone());
        stages.mark_changed();
        let mut telling = true;
        loop {
            tokio::select! {
                biased;
                changed = stages.changed(), if telling => match changed {
                    Ok(()) => {
                        let stage = *stages.borrow_and_update();
                        progress.stage(layer, stage);
                    }
                    Err(_) => telling = false,
                },
                done = outcome.wait_for(Option::is_some) => {
                    let ended = || ImageError::Unreachable("interrupted: the runtime is shutting down".to_owned());
                    return match done.ok().and_then(|outcome| outcome.clone()) {
                        Some(outcome) => outcome,
                        None => Err(Arc::new(ended())),
                    };
                }
            }
        }
    }
}
