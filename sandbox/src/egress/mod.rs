//! The way out of a sandbox, and the names that it knows.
//!
//! A sandbox's network has a loopback interface and nothing else. Rules inside make every address local and lead every
//! outbound connection to a listener that Knarr holds; Knarr judges the destination, connects from outside, and only then
//! lets the first packet go on, so that an app sees `connect` succeed or fail as if it were outside.
//!
//! ```text
//! app ── SYN ─▶ queue ─▶ proxy: policy, host ── connect ─▶ destination
//!                          │ refused: reset         │ connected
//!                          ▼                        ▼
//!                     app sees ECONNREFUSED    SYN goes on ─▶ listener ─▶ carry: bytes both ways
//! app ── DNS ─▶ proxy: a service ─▶ an address that leads to the gateway
//!                      another name ─▶ the host's name servers, if the policy has a use for it
//! ```
//! `inside` runs in the sandbox's network namespace, once, while the sandbox is still a shell in the pool; all else runs on
//! one thread in the host's. One task per sandbox owns what is held for it, and ends with it.

mod addresses;
mod answer;
mod carry;
mod dns;
mod host;
mod inside;
mod meters;
mod names;
mod netlink;
mod pins;
mod policy;
mod proxy;
mod resolvers;
mod rules;
mod setup;
mod syn;

#[cfg(test)]
mod kernel_tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;

use manifests::ids::RevisionId;
use manifests::units::Clock;
use manifests::workload::Egress;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use inside::{Doors, open as open_doors};
pub use meters::{TABLE as METRICS, describe};
pub(crate) use names::resolv_conf;
pub(crate) use setup::trial;

use host::Host;
use resolvers::Resolvers;

/// What an app sees as its own address: of a range that is never on the internet (RFC 2544).
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Where DNS is answered.
const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// Of DNS, and of the listener that every outbound connection comes to: one port that an app cannot have, not two.
const LISTEN_PORT: u16 = 53;

/// What sandboxes find outside.
#[derive(Clone)]
pub struct EgressConfig {
    /// Of workloads that say nothing. Default `none`.
    pub default: Egress,
    /// The services that sandboxes reach by name; nobody's by default.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// The host's name servers; default `/etc/resolv.conf`.
    pub name_servers: PathBuf,
    /// Connections that one sandbox may have, 1 or more. Each costs about 20 KiB and two descriptors. Default 1024.
    pub connections: usize,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            default: Egress::None,
            cluster: None,
            name_servers: PathBuf::from("/etc/resolv.conf"),
            connections: 1024,
        }
    }
}

/// The rest of Knarr, as sandboxes reach it by name.
pub trait Cluster: Send + Sync + 'static {
    /// Whether there is a service of this whole host name (`NAME.NAMESPACE.svc.cluster.local`).
    fn exists(&self, host: &str) -> bool;

    /// Takes a connection that a sandbox has made to port 80 of `host`.
    fn serve(&self, host: &Arc<str>, stream: TcpStream, from: SocketAddr);
}

/// Everything that all sandboxes share here.
struct Shared {
    config: EgressConfig,
    clock: Clock,
    host: Host,
    resolvers: Resolvers,
}

/// The thread that carries what goes out of sandboxes.
pub(crate) struct Network {
    shared: Arc<Shared>,
    runtime: Handle,
    setup: OnceLock<setup::Setup>,
    /// Dropped, it ends the thread.
    _running: oneshot::Sender<()>,
}

/// Whose network it is, and where it may lead.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub revision: RevisionId,
    pub policy: Egress,
}

impl Network {
    /// Starts the thread, in the network namespace of the caller.
    pub(crate) fn start(config: EgressConfig, clock: Clock) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        thread::Builder::new().name("knarr-egress".to_owned()).spawn(move || {
            // An error is how the sender's end is told.
            let _ = runtime.block_on(ended);
        })?;
        let resolvers = Resolvers::new(config.name_servers.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                clock,
                host: Host::new(),
                resolvers,
            }),
            runtime: handle,
            setup: OnceLock::new(),
            _running: running,
        })
    }

    /// Root only: has the doors of a network namespace opened, by a thread that goes there and back.
    pub(crate) fn open(&self, netns: OwnedFd) -> oneshot::Receiver<io::Result<Doors>> {
        self.setup.get_or_init(setup::Setup::start).open(netns)
    }

    /// Serves a sandbox from now on.
    pub(crate) fn attach(&self, doors: Doors, owner: Owner) -> Attached {
        let serving = proxy::serve(Arc::clone(&self.shared), doors, owner);
        Attached(self.runtime.spawn(serving))
    }

    /// The policy of a workload.
    pub(crate) fn policy(&self, own: Option<&Egress>) -> Egress {
        own.unwrap_or(&self.shared.config.default).clone()
    }
}

/// A sandbox that is served. Dropped, every connection of it ends.
pub(crate) struct Attached(JoinHandle<()>);

impl Attached {
    /// Ends it, and returns when nothing is held of it any more.
    pub(crate) async fn close(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.abort();
    }
}
