//! What revisions have taught, in the data directory: a list that grows at its end and is made short again.
//!
//! ```text
//! {"version":1}
//! {"revision":..,"at":..,"learned":..}     one line each time it has changed; the last one counts
//! ```
//!
//! A kill tears the last line at most. A file that is lost or broken is a warning: Knarr begins with what it believes of
//! everybody.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use autoscaler::learned::Learned;
use manifests::ids::RevisionId;
use manifests::units::{Clock, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::cost::replace;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
}

/// Every other one.
#[derive(Clone, Serialize, Deserialize)]
struct Line {
    revision: RevisionId,
    at: Timestamp,
    learned: Learned,
}

/// What was learned before this start.
pub(crate) fn read(path: &Path, now: Timestamp) -> HashMap<RevisionId, Learned> {
    let lines = lines(path, now).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "what was learned cannot be read; it is learned anew");
        HashMap::new()
    });
    lines.into_iter().map(|(id, line)| (id, line.learned)).collect()
}

fn lines(path: &Path, now: Timestamp) -> io::Result<HashMap<RevisionId, Line>> {
    let file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error),
    };
    let mut known: HashMap<RevisionId, Line> = HashMap::new();
    let (mut broken, mut first) = (0, true);
    for line in file.split(b'\n') {
        let line = line?;
        if std::mem::take(&mut first) {
            let head: Head = serde_json::from_slice(&line).map_err(io::Error::other)?;
            if head.version != VERSION {
                return Err(io::Error::other(format!("it was kept in version {}", head.version)));
            }
            continue;
        }
        match serde_json::from_slice::<Line>(&line) {
            Ok(line) if now.since(line.at) < OLDEST => drop(known.insert(line.revision.clone(), line)),
            Ok(_) => {}
            Err(_) => broken += u32::from(!line.is_empty()),
        }
    }
    // A kill tears one.
    if broken > 1 {
        tracing::warn!(path = %path.display(), lines = broken, "some of what was learned cannot be read");
    }
    if known.len() > MOST {
        let mut newest: Vec<Line> = known.into_values().collect();
        newest.sort_unstable_by(|a, b| b.at.cmp(&a.at).then_with(|| a.revision.cmp(&b.revision)));
        newest.truncate(MOST);
        known = newest.into_iter().map(|line| (line.revision.clone(), line)).collect();
    }
    Ok(known)
}

/// The file that is written to.
struct Keeper {
    path: PathBuf,
    file: File,
    size: u64,
    /// Made short again when it is longer.
    limit: u64,
    /// What was written of each, so that nothing is written twice.
    written: HashMap<RevisionId, u64>,
}

impl Keeper {
    /// Makes the file short: one line for each.
    fn open(path: &Path, now: Timestamp) -> io::Result<Self> {
        let known = lines(path, now).unwrap_or_default();
        let mut text = serde_json::to_vec(&Head { version: VERSION })?;
        text.push(b'\n');
        let mut written = HashMap::with_capacity(known.len());
        for (id, line) in known {
            written.insert(id, hash(&line.learned)?);
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        replace(path, &text)?;
        let size = text.len() as u64;
        Ok(Self {
            path: path.to_owned(),
            file: OpenOptions::new().append(true).open(path)?,
            size,
            limit: size * 4 + SLACK,
            written,
        })
    }

    fn write(&mut self, news: Vec<(RevisionId, Learned)>, now: Timestamp) -> io::Result<()> {
        let mut text = Vec::new();
        for (revision, learned) in news {
            let new = hash(&learned)?;
            if self.written.insert(revision.clone(), new) == Some(new) {
                continue;
            }
            let line = Line {
                revision,
                at: now,
                learned,
            };
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        self.file.write_all(&text)?;
        self.size += text.len() as u64;
        if self.size > self.limit {
            let path = std::mem::take(&mut self.path);
            *self = Self::open(&path, now)?;
        }
        Ok(())
    }
}

fn hash(learned: &Learned) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(learned)?.hash(&mut hasher);
    Ok(hasher.finish())
}

/// Writes down what comes, until the end.
pub(crate) async fn keep(
    path: PathBuf,
    mut news: UnboundedReceiver<Vec<(RevisionId, Learned)>>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut keeper: Option<Keeper> = None;
    let mut warned = false;
    // What scaling says last comes after the end was called.
    while let Some(some) = news.recv().await {
        let (path, now) = (path.clone(), clock());
        let before = keeper.take();
        let done = tokio::task::spawn_blocking(move || {
            let mut keeper = match before {
                Some(keeper) => keeper,
                None => Keeper::open(&path, now)?,
            };
            keeper.write(some, now).map(|()| keeper)
        });
        match done.await {
            Ok(Ok(open)) => (keeper, warned) = (Some(open), false),
            Ok(Err(error)) if !warned => {
                tracing::warn!(%error, "what was learned cannot be written down");
                warned = true;
            }
            Ok(Err(_)) => {}
            Err(_) if stop.is_cancelled() => return,
            Err(error) => tracing::error!(%error, "the keeper of what was learned died"),
        }
    }
}

const VERSION: u32 = 1;

/// What nobody has used for so long is forgotten.
const OLDEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Revisions that are kept; the newest.
const MOST: usize = 200_000;

/// The file may grow by this before it is made short again.
const SLACK: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> RevisionId {
        RevisionId::new("default", name)
    }

    fn learned(program: u64) -> Learned {
        let mut learned = Learned::default();
        learned.program = program;
        learned
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_last_word_counts_and_a_torn_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("learned.jsonl");
        let mut keeper = Keeper::open(&path, at(0)).unwrap();
        keeper
            .write(vec![(id("a"), learned(1)), (id("b"), learned(2))], at(1))
            .unwrap();
        keeper
            .write(vec![(id("a"), learned(3)), (id("b"), learned(2))], at(2))
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4, "b has said nothing new: {text}");
        std::fs::write(&path, format!("{text}{{\"revision\":{{\"namespace\":\"def")).unwrap();
        let known = read(&path, at(3));
        assert_eq!(
            (known.len(), known[&id("a")].program, known[&id("b")].program),
            (2, 3, 2)
        );
        drop(Keeper::open(&path, at(3)).unwrap());
        assert_eq!(
            std::fs::read_to_string(&path).unwrap().lines().count(),
            3,
            "short again"
        );
        assert_eq!(read(&path, at(3)), known);
        assert_eq!(read(&path, at(31 * 24 * 3600)).len(), 0, "forgotten");
    }

    #[test]
    fn what_cannot_be_read_is_learned_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("learned.jsonl");
        assert!(read(&path, at(0)).is_empty());
        for broken in ["", "\n", "what", "{\"version\":99}\n", "{\"version\":1}\nwhat\nwhat\n"] {
            std::fs::write(&path, broken).unwrap();
            assert!(read(&path, at(0)).is_empty(), "{broken:?}");
            // And it can be written again.
            let mut keeper = Keeper::open(&path, at(0)).unwrap();
            keeper.write(vec![(id("a"), learned(1))], at(1)).unwrap();
            assert_eq!(read(&path, at(2)).len(), 1, "{broken:?}");
        }
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("learned.jsonl");
        let mut keeper = Keeper::open(&path, at(0)).unwrap();
        keeper.limit = 2000;
        for n in 0..500 {
            keeper.write(vec![(id("a"), learned(n))], at(n)).unwrap();
            keeper.limit = 2000;
            assert!(std::fs::metadata(&path).unwrap().len() < 3000);
        }
        assert_eq!(read(&path, at(500))[&id("a")].program, 499);
    }
}
