//! How a gateway is set up: every knob with its default, range and cost.

use std::net::SocketAddr;
use std::time::Duration;

/// Settings of one gateway process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where to listen, IPv4 or IPv6; port 0 takes any free one. An IPv6 address takes IPv6 clients only, so `[::]` and
    /// `0.0.0.0` may stand side by side. No default.
    pub listen: Vec<SocketAddr>,
    /// Threads, 1 or more; each has its own runtime, listeners and upstream connections. Default: one per core.
    pub threads: usize,
    /// Client connections per thread, 1 or more. At the limit a thread accepts no more until one closes; the kernel keeps
    /// those that wait. Each costs about 15 KiB and a file descriptor. Default 16,384.
    pub connections: usize,
    /// How long a new connection has for the head of its first request, and so for a slow one that never ends its head.
    /// Default 30 s.
    pub first_head: Duration,
    /// How long a connection may stay without a request, and how long the head of its next one may take. Default 75 s.
    pub keep_alive: Duration,
    /// How long a request may wait for a slot before it is refused with 503, on top of its revision's own limits (which
    /// answer 504). `None`, the default, is Knative's: only those.
    pub queue: Option<Duration>,
    /// A dial to a sandbox that takes longer has failed, and another sandbox is tried. Default 2 s.
    pub dial: Duration,
    /// An idle connection to a sandbox is closed after this long. Default 30 s.
    pub upstream_idle: Duration,
    /// Idle connections kept per thread and sandbox, 1 or more. Each costs about 10 KiB and a file descriptor.
    /// Default 128.
    pub upstream_idle_most: usize,
}

impl Config {
    /// The defaults, listening on `listen`.
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        Self {
            listen,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            connections: 16_384,
            first_head: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            queue: None,
            dial: Duration::from_secs(2),
            upstream_idle: Duration::from_secs(30),
            upstream_idle_most: 128,
        }
    }
}
