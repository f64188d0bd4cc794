//! A place to unpack into, and archives exactly as said.

use super::*;

/// A directory to unpack into, between others that must stay as they are.
pub(super) struct Field {
    temp: tempfile::TempDir,
}

impl Field {
    pub(super) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for name in ["inside", "outside", "outside/deep"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        fs::write(temp.path().join("outside/secret"), "secret").unwrap();
        fs::write(temp.path().join("secret"), "secret").unwrap();
        Self { temp }
    }

    pub(super) fn inside(&self) -> PathBuf {
        self.temp.path().join("inside")
    }

    pub(super) fn unpack(&self, archive: Vec<u8>) -> Result<Report, Failure> {
        self.unpack_with(archive, &Rules::default())
    }

    pub(super) fn unpack_with(&self, archive: Vec<u8>, rules: &Rules) -> Result<Report, Failure> {
        let before = self.outside();
        let root = fs::File::open(self.inside()).unwrap().into();
        let result = unpack(std::io::Cursor::new(archive), root, rules);
        assert_eq!(self.outside(), before, "something outside has changed");
        result
    }

    /// Everything that is not inside, with content, mode, owner and links.
    pub(super) fn outside(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for entry in walk(self.temp.path()) {
            if entry.starts_with(self.inside()) {
                continue;
            }
            let stat = fs::symlink_metadata(&entry).unwrap();
            let content = fs::read(&entry).unwrap_or_default();
            let (mode, user, links) = (stat.mode(), stat.uid(), stat.nlink());
            seen.push(format!(
                "{} {mode:o} {user} {links} {content:?} {:?}",
                entry.display(),
                stat.mtime()
            ));
        }
        seen
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.inside().join(name)).unwrap_or_else(|error| format!("<{error}>"))
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.inside().join(name).symlink_metadata().is_ok()
    }
}

pub(super) fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

/// An archive, entry by entry, exactly as said.
#[derive(Default)]
pub(super) struct Archive(pub Vec<u8>);

impl Archive {
    pub(super) fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        for (text, long) in [(name, b'L'), (link, b'K')] {
            if text.len() > 100 {
                self = self.entry(
                    EntryType::new(long),
                    "././@LongLink",
                    "",
                    0,
                    format!("{text}\0").as_bytes(),
                );
            }
        }
        let old = header.as_old_mut();
        for (field, text) in [(&mut old.name, name), (&mut old.linkname, link)] {
            let bytes = text.as_bytes();
            let bytes = &bytes[..bytes.len().min(100)];
            field[..bytes.len()].copy_from_slice(bytes);
        }
        header.set_cksum();
        self.append(&header, data)
    }

    pub(super) fn append(mut self, header: &tar::Header, data: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let digits = |length: usize| length.to_string().len();
            let length = rest + digits(rest + digits(rest));
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, "PaxHeaders/x", "", 0o644, &data)
    }

    pub(super) fn file(self, name: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, data.as_bytes())
    }

    pub(super) fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    pub(super) fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(super) fn archive() -> Archive {
    Archive::default()
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
