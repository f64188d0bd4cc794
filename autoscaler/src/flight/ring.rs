//! The directory of segments: their names, their order, and which of them go when there are too many.
//!
//! `TAKE-SEGMENT.flight`: a take is one life of a Knarr, named by the number of its start, and its segments count up.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::file::Segment;

/// One segment on disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Found {
    /// The number of that Knarr's start.
    pub take: u64,
    /// Which segment of it.
    pub number: u32,
    /// Where.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// The name of a segment.
pub fn name(take: u64, number: u32) -> String {
    format!("{take:020}-{number:06}.{ENDING}")
}

/// All segments in `directory`, in the order in which they were written.
///
/// # Errors
/// When it cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let numbers = name
            .to_str()
            .and_then(|name| name.strip_suffix(ENDING)?.strip_suffix('.')?.split_once('-'));
        let Some((Ok(take), Ok(number))) = numbers.map(|(take, number)| (take.parse(), number.parse())) else {
            continue;
        };
        found.push(Found {
            take,
            number,
            path: entry.path(),
            size: entry.metadata()?.len(),
        });
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes the oldest until what is left leaves room for `coming` bytes within `limit`, and is not too many files.
///
/// # Errors
/// When one cannot be removed.
pub fn make_room(directory: &Path, limit: u64, coming: u64) -> io::Result<()> {
    let found = list(directory)?;
    let mut size: u64 = found.iter().map(|segment| segment.size).sum();
    let mut files = found.len();
    for oldest in found {
        if size.saturating_add(coming) <= limit && files < MOST_FILES {
            break;
        }
        std::fs::remove_file(&oldest.path)?;
        size -= oldest.size;
        files -= 1;
    }
    Ok(())
}

/// Makes a new segment's file, for its owner alone: what apps said last may be in it.
///
/// # Errors
/// When it cannot be made.
pub fn create(directory: &Path, take: u64, number: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(directory.join(name(take, number)))
}

/// Opens a segment to read it; `None` when it is none.
///
/// # Errors
/// When it cannot be read.
pub fn open(path: &Path) -> io::Result<Option<Segment<BufReader<File>>>> {
    Segment::open(BufReader::new(File::open(path)?))
}

const ENDING: &str = "flight";

/// A Knarr that is started again and again leaves small ones.
const MOST_FILES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_until_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        for (take, number) in [(9, 0), (9, 1), (10, 0), (10, 10), (10, 9)] {
            std::fs::write(here.join(name(take, number)), [0; 100]).unwrap();
        }
        std::fs::write(here.join("notes.txt"), [0; 100]).unwrap();
        let numbers = || {
            let found = list(here).unwrap().into_iter();
            found.map(|it| (it.take, it.number)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(), [(9, 0), (9, 1), (10, 0), (10, 9), (10, 10)]);
        make_room(here, 450, 150).unwrap();
        assert_eq!(numbers(), [(10, 0), (10, 9), (10, 10)]);
        make_room(here, 450, 150).unwrap();
        assert_eq!(numbers().len(), 3);
        make_room(here, 100, 100).unwrap();
        assert_eq!(numbers(), []);
        assert!(here.join("notes.txt").exists());
    }
}
