//! Ends a sandbox whose volumes hold more than they may, as the kubelet evicts a pod.

use std::sync::Arc;
use std::time::Duration;

use super::end;
use super::state::{Inner, Sandbox};
use crate::driver::Event;

/// How often volumes with a limit are looked through. The kubelet does it every 10 s, on a machine for many.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks until the sandbox is gone; nothing to do without a limit.
pub(super) fn watch(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) {
    if !sandbox.volumes.as_ref().is_some_and(|volumes| volumes.is_limited()) {
        return;
    }
    let (inner, sandbox) = (Arc::clone(inner), Arc::clone(sandbox));
    inner.runtime.clone().spawn(async move {
        loop {
            tokio::select! {
                _ = sandbox.gone() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let own = Arc::clone(&sandbox);
            let looked = inner
                .runtime
                .spawn_blocking(move || own.volumes.as_ref().and_then(|volumes| volumes.over_limit()));
            if let Ok(Some(why)) = looked.await {
                return evict(&inner, &sandbox, &format!("Evicted: {why}"));
            }
        }
    });
}

/// At once, as the kubelet does: what is too full must not fill on.
fn evict(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, why: &str) {
    {
        let mut progress = sandbox.progress();
        if progress.ended || sandbox.was_requested() {
            return;
        }
        let why: Arc<str> = why.into();
        progress.unhealthy = Some(Arc::clone(&why));
        let (id, revision) = (sandbox.id.clone(), sandbox.revision.clone());
        // Nobody listening is fine.
        let _ = inner.events.send(Event::Unhealthy { id, revision, why });
    }
    end::ask(inner, sandbox, Duration::ZERO);
}
