//! `images/HEX.json`: which image a name stands for, and when it was last used.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, write_whole};
use crate::digest::Digest;
use crate::error::ImageError;

/// An image by its name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// As in `image:`, normalised.
    pub(super) name: String,
    /// What the name stood for at its source: an index, or the manifest itself.
    pub(super) top: Digest,
    /// The manifest of this platform.
    pub(super) manifest: Digest,
    /// Its configuration.
    pub(super) config: Digest,
    /// Uncompressed layers, lowest first.
    pub(super) diff_ids: Vec<Digest>,
}

impl Record {
    fn path(disk: &Disk, name: &str) -> PathBuf {
        disk.root
            .join("images")
            .join(format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    /// What the name stands for; one that cannot be read is as if it were not there.
    pub(super) fn read(disk: &Disk, name: &str) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(Self::path(disk, name)).ok()?).ok()?;
        (record.name == name).then_some(record)
    }

    /// All of them with the time of their last use.
    pub(super) fn all(disk: &Disk) -> Result<Vec<(Self, SystemTime)>, ImageError> {
        let failed = |error: io::Error| disk.failed("cannot list images", error);
        let mut records = Vec::new();
        for entry in fs::read_dir(disk.root.join("images")).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Ok(bytes) = fs::read(&path) else { continue };
            let used = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if let (Ok(record), Ok(used)) = (serde_json::from_slice::<Self>(&bytes), used) {
                records.push((record, used));
            }
        }
        records.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Ok(records)
    }

    /// Writes it, with its name's present time as last use. The caller holds the store's lock.
    pub(super) fn write(&self, disk: &Disk) -> Result<(), ImageError> {
        let failed = |error: io::Error| disk.failed("cannot record the image", error);
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        write_whole(&Self::path(disk, &self.name), &text).map_err(failed)
    }

    /// It was used then, in nanoseconds since 1970.
    pub(super) fn touch(disk: &Disk, name: &str, used: u64) {
        const SECOND: u64 = 1_000_000_000;
        // Only the order in which images are collected hangs on it. Another process may have used it later.
        let older = |file: &File| {
            let time = file.metadata().and_then(|metadata| metadata.modified()).ok();
            let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            since.is_none_or(|since| since.as_nanos() < u128::from(used))
        };
        let file = File::options().append(true).open(Self::path(disk, name));
        if let Some(file) = file.ok().filter(older) {
            let [tv_sec, tv_nsec] = [used / SECOND, used % SECOND].map(|part| i64::try_from(part).unwrap_or_default());
            let time = rustix::fs::Timespec { tv_sec, tv_nsec };
            let _ = rustix::fs::futimens(
                &file,
                &rustix::fs::Timestamps {
                    last_access: time,
                    last_modification: time,
                },
            );
        }
    }

    pub(super) fn remove(disk: &Disk, name: &str) -> Result<(), ImageError> {
        match fs::remove_file(Self::path(disk, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk.failed("cannot forget an image", error)),
            _ => Ok(()),
        }
    }
}
