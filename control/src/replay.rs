//! `knarr replay`: recordings on disk, decided again.

use std::io;
use std::path::{Path, PathBuf};

use autoscaler::flight::file::{Next, Segment};
pub use autoscaler::flight::replay::Nobody;
use autoscaler::flight::replay::{Difference, Problem, Replay, Summary, Watch};
use autoscaler::flight::ring::{self, Found};

use crate::datadir::flight_in;

/// What was replayed.
#[derive(Clone, PartialEq, Debug)]
pub struct Replayed {
    /// How much.
    pub summary: Summary,
    /// Files that end in the middle: their Knarr was killed.
    pub torn: Vec<PathBuf>,
    /// The first decision that differs.
    pub difference: Option<Difference>,
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is nothing.
    #[error("{path}: no recording; give a *.flight file, a directory of them, or a data directory of Knarr's", path = .0.display())]
    Nothing(PathBuf),
    /// It is something else.
    #[error("{path}: not a recording of Knarr's", path = .0.display())]
    Foreign(PathBuf),
    /// It cannot be understood.
    #[error("{path}: {why}", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Replays a segment, a directory of segments, or those of a data directory, until the first difference.
///
/// # Errors
/// When there is no recording, or one that cannot be read.
pub fn replay(path: &Path, watch: &mut dyn Watch) -> Result<Replayed, ReplayError> {
    let mut replay = Replay::new(watch);
    let (mut take, mut torn) = (None, Vec::new());
    for Found { take: of, path, .. } in segments(path)? {
        if take.replace(of) != Some(of) {
            replay.begin_take();
        }
        let failed = |source| ReplayError::Io {
            path: path.clone(),
            source,
        };
        let Some(mut segment) = open(&path)? else { continue };
        loop {
            match segment.next_block().map_err(failed)? {
                Next::End => break,
                Next::Torn(_) => {
                    torn.push(path.clone());
                    break;
                }
                Next::Lines(lines) => match replay.lines(&lines) {
                    Ok(()) => {}
                    Err(Problem::Differs(difference)) => {
                        return Ok(Replayed {
                            summary: *replay.summary(),
                            torn,
                            difference: Some(*difference),
                        });
                    }
                    Err(Problem::Unreadable(why)) => return Err(ReplayError::Unreadable { path, why }),
                },
            }
        }
    }
    Ok(Replayed {
        summary: *replay.summary(),
        torn,
        difference: None,
    })
}

/// `None` when its Knarr was killed before it had written anything.
fn open(path: &Path) -> Result<Option<Segment<io::BufReader<std::fs::File>>>, ReplayError> {
    let failed = |source| ReplayError::Io {
        path: path.to_owned(),
        source,
    };
    let segment = ring::open(path).map_err(failed)?;
    if segment.is_none() && std::fs::metadata(path).map_err(failed)?.len() > 0 {
        return Err(ReplayError::Foreign(path.to_owned()));
    }
    Ok(segment)
}

fn segments(path: &Path) -> Result<Vec<Found>, ReplayError> {
    let failed = |source| ReplayError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_file() {
        return Ok(vec![Found {
            take: 0,
            number: 0,
            path: path.to_owned(),
            size: metadata.len(),
        }]);
    }
    let mut found = ring::list(path).map_err(failed)?;
    let inside = flight_in(path);
    if found.is_empty() && inside.is_dir() {
        found = ring::list(&inside).map_err(failed)?;
    }
    if found.is_empty() {
        return Err(ReplayError::Nothing(path.to_owned()));
    }
    Ok(found)
}
