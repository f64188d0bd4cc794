//! Who runs and who waits: per-revision pools, slots, bounded queues and load accounting.
//!
//! The life of a request here:
//!
//! ```text
//! enter ─▶ try_slot ───────────── free ──────────────▶ Slot ─▶ (gateway: connect, send, whole body) ─▶ drop ─┐
//! counted     │ none free, or others wait               ▲                                                    │
//! from here   ▼                                         │ oldest first                                       │
//! to drop   wait ─▶ queue (bounded, deadline) ──────────┘◀── a slot came back, or an EndpointSet brought one ┘
//!             │        └─ deadline, full, retired ─▶ Reject ─▶ facts()
//!             └─ nothing serves, or the queue doubled ─▶ LoadReport (Wake), at once
//! ```
//!
//! The core is pure: [`queue`], [`load`], [`pick`], [`assign`], [`throttler`], [`wake`] take `now` and do no I/O. Around it lie the word
//! (one sandbox's slots), the gate (where a freed slot meets a waiter) and the pool, the shell that reads the clock.

pub mod assign;
#[cfg(not(loom))] // tokio has no sockets under loom
mod dial;
mod entered;
mod gate;
mod limits;
pub mod load;
mod members;
mod outbox;
mod parked;
pub mod pick;
mod pool;
mod pools;
pub mod queue;
mod reject;
mod sample;
mod sandbox;
mod slot;
mod state;
mod sync;
pub mod throttler;
pub mod wake;
mod word;

#[cfg(not(loom))]
pub use dial::{BoxFuture, Dial};
pub use entered::Entered;
pub use limits::Limits;
pub use parked::OpenConnection;
pub use pool::Pool;
pub use pools::Pools;
pub use reject::{Facts, Reject};
pub use sandbox::Sandbox;
pub use slot::{Slot, Temperature, Waited};
