//! The flight recorder: everything that enters the fleet, and a digest of what it decided, so that it can be decided again.
//!
//! ```text
//! events, `now`, what the host could take ─▶ Fleet ─▶ Recording ─ lines ─▶ writer: a thread ─▶ ring of segment files
//!                                                                                                  │
//!                  the same decisions, bit for bit, or the first that differs ◀─ Replay ◀─ read ───┘
//! ```
//!
//! A segment can be read alone, so that the oldest may go: it begins with what all revisions share, and the first time that
//! something happens to a revision in it, the revision's whole state of just before stands in front. A revision that nothing
//! happens to costs nothing, so a hundred thousand idle ones do not weigh on it. Read in a row, the same states check the
//! replay.
//!
//! | file | what |
//! |---|---|
//! | `event`, `manifest`, `columns`, `endpoints` | what a recording says of an event, a revision, a load report, an endpoint set |
//! | `line` | the lines of a segment |
//! | `recording` | PURE  the fleet's side: lines as they come |
//! | `digest` | PURE  what was decided, in 64 bits |
//! | `file` | PURE  blocks on disk: compressed, checked, torn or whole |
//! | `ring`, `writer` | the directory of segments, and the thread that writes it |
//! | `replay` | PURE  lines in, the same decisions out |

mod columns;
pub(crate) mod digest;
pub(crate) mod endpoints;
mod event;
pub mod file;
mod line;
pub(crate) mod manifest;
pub(crate) mod pairs;
mod recording;
pub mod replay;
pub mod ring;
pub mod writer;

pub(crate) use event::Recorded;
pub use recording::Lines;
pub(crate) use recording::{Answers, Recording};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::decides_again;
