//! Services as sandboxes reach them: by name, through the gateway.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};

use gateway::Inlet;
use manifests::exchange::Snapshot;
use sandbox::egress::Cluster;
use tokio::sync::watch;

/// The services of the newest snapshot.
pub(crate) struct Services {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Sandboxes come first, the gateway after them: nothing asks before both are there.
    inlet: OnceLock<Inlet>,
}

impl Services {
    /// Those of a snapshot that may change.
    pub(crate) fn new(snapshots: watch::Receiver<Arc<Snapshot>>) -> Arc<Self> {
        Arc::new(Self {
            snapshots,
            inlet: OnceLock::new(),
        })
    }

    /// From now on they are served; once.
    pub(crate) fn serve_by(&self, inlet: Inlet) {
        let _ = self.inlet.set(inlet);
    }
}

impl Cluster for Services {
    fn exists(&self, host: &str) -> bool {
        self.snapshots.borrow().hosts.contains_key(host)
    }

    fn serve(&self, host: &Arc<str>, stream: TcpStream, from: SocketAddr) {
        if let Some(inlet) = self.inlet.get() {
            inlet.serve(stream, from, Arc::clone(host));
        }
    }
}
