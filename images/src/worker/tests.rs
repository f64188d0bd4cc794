//! Hostile and odd archives, unpacked without a jail: the paths' resolution alone must keep them inside.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::report::{Failure, Problem, Report, Rules};
use super::unpack::unpack;

/// A directory to unpack into, between others that must stay as they are.
struct Field {
    temp: tempfile::TempDir,
}

impl Field {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for name in ["inside", "outside", "outside/deep"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        fs::write(temp.path().join("outside/secret"), "secret").unwrap();
        fs::write(temp.path().join("secret"), "secret").unwrap();
        Self { temp }
    }

    fn inside(&self) -> PathBuf {
        self.temp.path().join("inside")
    }

    fn unpack(&self, archive: Vec<u8>) -> Result<Report, Failure> {
        self.unpack_with(archive, &Rules::default())
    }

    fn unpack_with(&self, archive: Vec<u8>, rules: &Rules) -> Result<Report, Failure> {
        let before = self.outside();
        let root = fs::File::open(self.inside()).unwrap().into();
        let result = unpack(std::io::Cursor::new(archive), root, rules);
        assert_eq!(self.outside(), before, "something outside has changed");
        result
    }

    /// Everything that is not inside, with content, mode, owner and links.
    fn outside(&self) -> Vec<String> {
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

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.inside().join(name)).unwrap_or_else(|error| format!("<{error}>"))
    }

    fn exists(&self, name: &str) -> bool {
        self.inside().join(name).symlink_metadata().is_ok()
    }
}

fn walk(directory: &Path) -> Vec<PathBuf> {
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
struct Archive(Vec<u8>);

impl Archive {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
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

    fn append(mut self, header: &tar::Header, data: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
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

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, data.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn archive() -> Archive {
    Archive::default()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn names_that_lead_out_are_refused_or_stay_inside() {
    for name in [
        "../secret",
        "a/../../secret",
        "..",
        "a/..",
        "./../secret",
        ".wh...",
        ".wh..",
        ".wh.",
    ] {
        let error = Field::new().unpack(archive().file(name, "x").end()).unwrap_err();
        assert_eq!(error.problem, Problem::Archive, "{name}: {error:?}");
    }
    // `..` within a name is a name.
    let field = Field::new();
    field
        .unpack(
            archive()
                .file("/etc/passwd", "mine")
                .file("..a/b..", "odd")
                .file(".//x///y", "slashes")
                .end(),
        )
        .unwrap();
    assert_eq!(
        (field.read("etc/passwd"), field.read("..a/b.."), field.read("x/y")),
        ("mine".into(), "odd".into(), "slashes".into())
    );
}

#[test]
fn links_never_lead_out() {
    let outside = "../outside";
    let table: Vec<(&str, Vec<u8>)> = vec![
        (
            "file through a relative link",
            archive().symlink("l", outside).file("l/secret", "x").end(),
        ),
        (
            "file through an absolute link",
            archive().symlink("l", "/tmp").file("l/secret", "x").end(),
        ),
        (
            "directory through a link",
            archive().symlink("l", outside).directory("l/deep").end(),
        ),
        (
            "directory over a link",
            archive()
                .symlink("l", outside)
                .directory("l")
                .file("l/secret", "x")
                .end(),
        ),
        (
            "file over a link",
            archive().symlink("secret", "../secret").file("secret", "x").end(),
        ),
        (
            "link over a directory",
            archive()
                .directory("d")
                .file("d/f", "x")
                .symlink("d", outside)
                .file("d/secret", "x")
                .end(),
        ),
        (
            "link to a link",
            archive()
                .symlink("a", "..")
                .symlink("b", "a/outside")
                .file("b/secret", "x")
                .end(),
        ),
        ("hard link out by name", archive().hardlink("h", "../secret").end()),
        (
            "hard link out by a link",
            archive()
                .symlink("l", outside)
                .hardlink("h", "l/secret")
                .file("h", "x")
                .end(),
        ),
        (
            "hard link to a link, written to",
            archive()
                .symlink("l", "../secret")
                .hardlink("h", "l")
                .file("h", "x")
                .end(),
        ),
        (
            "through proc",
            archive().symlink("l", "/proc/self/root").file("l/secret", "x").end(),
        ),
        (
            "through proc's descriptors",
            archive().symlink("l", "/proc/self/cwd/..").file("l/secret", "x").end(),
        ),
        (
            "whiteout through a link",
            archive().symlink("l", outside).file("l/.wh.secret", "").end(),
        ),
        (
            "opaque through a link",
            archive().symlink("l", outside).file("l/.wh..wh..opq", "").end(),
        ),
        (
            "links in a circle",
            archive().symlink("a", "b").symlink("b", "a").file("a/x", "x").end(),
        ),
        ("hard link to the root", archive().hardlink("h", "/").end()),
        (
            "hard link to a directory",
            archive().directory("d").hardlink("h", "d").end(),
        ),
        (
            "the root as a link",
            archive().symlink(".", outside).file("secret", "x").end(),
        ),
        ("the root as a file", archive().file("/", "x").end()),
        (
            "fifo over a link",
            archive()
                .symlink("f", "../secret")
                .entry(EntryType::Fifo, "f", "", 0o644, b"")
                .end(),
        ),
    ];
    for (name, bytes) in table {
        let field = Field::new();
        // Inside or refused, both are right; what is outside is compared by `unpack`.
        let result = field.unpack(bytes);
        if let Err(error) = result {
            assert!(matches!(error.problem, Problem::Archive), "{name}: {error:?}");
        }
    }
}

#[test]
fn a_link_means_what_it_means_in_the_image() {
    let field = Field::new();
    let bytes = archive()
        .directory("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .symlink("up", "../../usr");
    field
        .unpack(bytes.file("lib/a", "1").file("abs/b", "2").file("up/lib/c", "3").end())
        .unwrap();
    assert_eq!(
        [
            field.read("usr/lib/a"),
            field.read("usr/lib/b"),
            field.read("usr/lib/c")
        ],
        ["1", "2", "3"]
    );
    assert!(field.inside().join("lib").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_later_entry_replaces_and_never_writes_through() {
    let field = Field::new();
    let bytes = archive()
        .file("a", "first")
        .hardlink("b", "a")
        .file("a", "second")
        .file("d/x", "x")
        .file("d", "file now");
    let bytes = bytes
        .symlink("s", "b")
        .file("s", "not b")
        .file("t", "t")
        .directory("t")
        .file("t/u", "u")
        .hardlink("b", "b");
    field.unpack(bytes.end()).unwrap();
    assert_eq!(
        [
            field.read("a"),
            field.read("b"),
            field.read("d"),
            field.read("s"),
            field.read("t/u")
        ],
        ["second", "first", "file now", "not b", "u"]
    );
}

#[test]
fn hard_links_within_the_layer_only() {
    let field = Field::new();
    field
        .unpack(
            archive()
                .file("d/a", "x")
                .hardlink("b", "/d/a")
                .hardlink("./c", "./b")
                .end(),
        )
        .unwrap();
    let inode = |name: &str| fs::metadata(field.inside().join(name)).unwrap().ino();
    assert!(inode("d/a") == inode("b") && inode("b") == inode("c"));
    let error = Field::new()
        .unpack(archive().hardlink("a", "usr/bin/env").end())
        .unwrap_err();
    assert!(error.message.contains("not in the same layer"), "{error:?}");
    // Not even to the mark of a removed file: it would make another name vanish.
    assert!(
        Field::new()
            .unpack(archive().file(".wh.a", "").hardlink("b", "a").end())
            .is_err()
    );
}

#[test]
fn devices_are_left_out_and_pipes_are_made() {
    let field = Field::new();
    let mut bytes = archive();
    for (name, kind) in [
        ("dev/sda", EntryType::Block),
        ("dev/mem", EntryType::Char),
        ("whiteout", EntryType::Char),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_mode(0o666);
        header.set_size(0);
        header.set_device_major(if name == "whiteout" { 0 } else { 8 }).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        bytes = bytes.append(&header, b"");
    }
    let report = field
        .unpack(bytes.entry(EntryType::Fifo, "pipe", "", 0o640, b"").end())
        .unwrap();
    assert_eq!(report.devices, 3);
    assert!(!field.exists("dev/sda") && !field.exists("dev/mem") && !field.exists("whiteout"));
    let pipe = fs::symlink_metadata(field.inside().join("pipe")).unwrap();
    assert!(pipe.file_type().is_fifo() && pipe.mode() & 0o777 == 0o640);
}

#[test]
fn whiteouts_and_opaque_directories() {
    let field = Field::new();
    let bytes = archive()
        .file("gone/.wh.file", "")
        .file(".wh.tree", "")
        .directory("tree")
        .file("tree/new", "new")
        .directory("late")
        .file(".wh.late", "")
        .file("kept", "kept")
        .file(".wh.kept", "")
        .file("hidden/.wh..wh..opq", "")
        .file(".wh.back", "")
        .file("back", "back")
        .file(".wh.implied", "")
        .file("implied/new", "new")
        .file(".wh..wh.plnk", "aufs");
    let report = field.unpack(bytes.end()).unwrap();
    let mark = fs::symlink_metadata(field.inside().join("gone/file")).unwrap();
    assert!(mark.file_type().is_char_device() && mark.rdev() == 0);
    let opaque: Vec<String> = report
        .opaque
        .iter()
        .map(|path| String::from_utf8(path.clone()).unwrap())
        .collect();
    assert_eq!(opaque, ["hidden", "implied", "late", "tree"]);
    assert_eq!(
        [field.read("tree/new"), field.read("kept"), field.read("back")],
        ["new", "kept", "back"]
    );
    assert!(
        walk(&field.inside())
            .iter()
            .all(|path| !path.to_string_lossy().contains(".wh."))
    );
    let root = Field::new().unpack(archive().file(".wh..wh..opq", "").end()).unwrap();
    assert_eq!(root.opaque, [b"."]);
}

#[test]
fn modes_owners_times_and_attributes() {
    if !is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let field = Field::new();
    let mut header = tar::Header::new_gnu();
    header.set_path("suid").unwrap();
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(2000);
    header.set_mtime(1);
    header.set_size(0);
    header.set_cksum();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let bytes = archive()
        .append(&header, b"")
        .entry(EntryType::Directory, "closed", "", 0o500, b"")
        .file("closed/in", "in")
        .entry(EntryType::Directory, "sticky", "", 0o1777, b"")
        .pax(&[
            ("mtime", b"1700000000.123456789"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"hello"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ])
        .file("caps", "x")
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ])
        .directory("redirected");
    let report = field.unpack(bytes.end()).unwrap();
    assert_eq!(report.attributes, 5, "left out");
    let stat = |name: &str| fs::symlink_metadata(field.inside().join(name)).unwrap();
    assert_eq!(
        (
            stat("suid").mode() & 0o7777,
            stat("suid").uid(),
            stat("suid").gid(),
            stat("suid").mtime()
        ),
        (0o4755, 1000, 2000, 1)
    );
    assert_eq!(
        (stat("closed").mode() & 0o7777, stat("closed").mtime()),
        (0o500, 1_700_000_000)
    );
    assert_eq!(stat("sticky").mode() & 0o7777, 0o1777);
    assert_eq!(
        (stat("caps").mtime(), stat("caps").mtime_nsec()),
        (1_700_000_000, 123_456_789)
    );
    let attributes = |name: &str| {
        let path = field.inside().join(name);
        let mut list = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, list.as_mut_slice()).unwrap();
        list.truncate(length);
        let mut names: Vec<String> = list
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(attributes("caps"), ["security.capability", "user.note"]);
    assert!(attributes("redirected").is_empty());
}

#[test]
fn without_owners_set_id_bits_go() {
    let field = Field::new();
    let rules = Rules {
        owners: false,
        ..Rules::default()
    };
    field
        .unpack_with(
            archive().entry(EntryType::Regular, "suid", "", 0o6755, b"").end(),
            &rules,
        )
        .unwrap();
    assert_eq!(
        fs::metadata(field.inside().join("suid")).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

#[test]
fn bombs_end_at_the_bounds() {
    let rules = Rules {
        bytes: 1 << 20,
        entries: 50,
        depth: 10,
        ..Rules::default()
    };
    let many = (0..60).fold(archive(), |archive, number| archive.file(&number.to_string(), ""));
    let implied = (0..20).fold(archive(), |archive, number| archive.file(&format!("{number}/a/b"), ""));
    let deep = "a/".repeat(12);
    // Each step is short, and lies in the one before.
    let creeping = (0..12).fold(archive(), |archive, _| {
        archive.directory("l/d").symlink("l", "").directory("x")
    });
    let mut through = archive().directory("d").symlink("l", "d");
    for _ in 0..12 {
        through = through.directory("l/d/d/d").file("l2", "").symlink("l", "l/d/d/d");
    }
    let zeros = vec![0; 2 << 20];
    let mut padded = archive().file("a", "").end();
    padded.resize(2 << 20, 0);
    let mut sparse = tar::Header::new_gnu();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_path("sparse").unwrap();
    sparse.set_size(0);
    sparse.set_mode(0o644);
    sparse.as_gnu_mut().unwrap().set_real_size(1 << 40);
    sparse.as_gnu_mut().unwrap().sparse[0].set_offset(1 << 40);
    sparse.as_gnu_mut().unwrap().sparse[0].set_length(0);
    sparse.set_cksum();
    let too_large = [
        (
            "bytes",
            archive().entry(EntryType::Regular, "a", "", 0o644, &zeros).end(),
        ),
        ("bytes after the end", padded),
        ("files", many.end()),
        ("directories that no entry names", implied.end()),
        ("sparse", archive().append(&sparse, b"").end()),
    ];
    for (name, bytes) in too_large {
        let error = Field::new().unpack_with(bytes, &rules).unwrap_err();
        assert_eq!(error.problem, Problem::TooLarge, "{name}: {error:?}");
    }
    let long = "n".repeat(300);
    let path = "n/".repeat(3000);
    let mut memory = archive().0;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(64 << 30);
    header.set_cksum();
    memory.extend_from_slice(header.as_bytes());
    memory.resize(3 << 20, b'n');
    let roomy = Rules {
        bytes: 1 << 30,
        ..rules.clone()
    };
    let wrong = [
        ("depth", archive().file(&deep, "").end()),
        ("depth through links", through.end()),
        ("depth through links, again and again", creeping.end()),
        ("a long name", archive().file(&long, "").end()),
        ("a long path", archive().file(&path, "").end()),
        ("a long link", archive().symlink("a", &"t".repeat(5000)).end()),
        ("an empty link", archive().symlink("a", "").end()),
        ("a name of gigabytes", memory),
    ];
    for (name, bytes) in wrong {
        let error = Field::new().unpack_with(bytes, &roomy).unwrap_err();
        assert_eq!(error.problem, Problem::Archive, "{name}: {error:?}");
    }
}

#[test]
fn broken_archives_are_the_archives_fault() {
    let good = archive().file("a", "content").end();
    let mut checksum = good.clone();
    checksum[0] ^= 1;
    let mut gzip = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&good).unwrap();
        encoder.finish().unwrap()
    };
    let short = gzip[..gzip.len() - 5].to_vec();
    let middle = gzip.len() / 2;
    gzip[middle] ^= 0x55;
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("checksum", checksum),
        ("ends in a file", good[..515].to_vec()),
        ("ends in a header", good[..100].to_vec()),
        ("gzip ends early", short),
        ("gzip is damaged", gzip),
        ("xz", b"\xfd7zXZ\0\0\0".to_vec()),
        ("bzip2", b"BZh91AY&SY".to_vec()),
        (
            "zstd is damaged",
            b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        ),
        ("not an archive", b"hello".repeat(1000)),
        (
            "unknown type",
            archive().entry(EntryType::new(b'Z'), "a", "", 0, b"").end(),
        ),
        (
            "only a long name",
            archive().entry(EntryType::GNULongName, "x", "", 0, b"name\0").end(),
        ),
        ("pax without an entry", archive().pax(&[("path", b"a")]).end()),
    ];
    for (name, bytes) in table {
        let error = Field::new().unpack(bytes).unwrap_err();
        assert_eq!(error.problem, Problem::Archive, "{name}: {error:?}");
        assert!(!error.message.is_empty());
    }
}

#[test]
fn an_empty_layer_and_one_without_an_end() {
    for bytes in [Vec::new(), vec![0; 1024], archive().file("a", "x").0] {
        Field::new().unpack(bytes).unwrap();
    }
}

#[test]
fn long_and_odd_names() {
    let field = Field::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(250));
    let target = "t".repeat(300);
    let bytes = archive()
        .file(&long, "long")
        .symlink("link", &target)
        .pax(&[("path", "pax/ä\n☃".as_bytes())])
        .file("short", "pax");
    let bytes = bytes
        .pax(&[("linkpath", b"from pax")])
        .symlink("paxlink", "x")
        .entry(EntryType::XGlobalHeader, "g", "", 0, b"11 path=zz\n")
        .file("after", "");
    field.unpack(bytes.end()).unwrap();
    assert_eq!([field.read(&long), field.read("pax/ä\n☃")], ["long", "pax"]);
    assert_eq!(
        fs::read_link(field.inside().join("link")).unwrap().to_str(),
        Some(target.as_str())
    );
    assert_eq!(
        fs::read_link(field.inside().join("paxlink")).unwrap().to_str(),
        Some("from pax")
    );
    assert!(field.exists("after"));
}

#[test]
fn sparse_files_of_the_pax_formats() {
    let body = [&[1; 512][..], &[2; 100]].concat();
    let in_record: &[(&str, &[u8])] = &[
        ("GNU.sparse.map", b"0,512,1048576,100"),
        ("GNU.sparse.size", b"2097152"),
        ("GNU.sparse.name", b"real"),
    ];
    let mut map = b"2\n0\n512\n1048576\n100\n".to_vec();
    map.resize(512, 0);
    let before: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"2097152"),
        ("GNU.sparse.name", b"real"),
    ];
    for (records, content) in [(in_record, body.clone()), (before, [map, body].concat())] {
        let field = Field::new();
        field
            .unpack(
                archive()
                    .pax(records)
                    .entry(EntryType::Regular, "GNUSparseFile.0/real", "", 0o644, &content)
                    .file("b", "b")
                    .end(),
            )
            .unwrap();
        let file = fs::read(field.inside().join("real")).unwrap();
        assert!(file.len() == 2 << 20 && file[..512] == [1; 512] && file[1 << 20..(1 << 20) + 100] == [2; 100]);
        assert_eq!(file.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 712);
        assert_eq!(field.read("b"), "b");
    }
    for map in [
        "512,512,0,100",
        "0,512,1048576,101",
        "0,512,1048576",
        "0,612,18446744073709551615,1",
        "x,1",
    ] {
        let records: &[(&str, &[u8])] = &[("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.size", b"2097152")];
        let error = Field::new().unpack(
            archive()
                .pax(records)
                .entry(EntryType::Regular, "a", "", 0o644, &[0; 612])
                .end(),
        );
        assert_eq!(error.unwrap_err().problem, Problem::Archive, "{map}");
    }
}

#[test]
fn gnu_sparse_files_keep_their_holes() {
    let field = Field::new();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("sparse").unwrap();
    header.set_size(512);
    header.set_mode(0o644);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size((8 << 20) + 512);
    gnu.sparse[0].set_offset(8 << 20);
    gnu.sparse[0].set_length(512);
    header.set_cksum();
    field.unpack(archive().append(&header, &[7; 512]).end()).unwrap();
    let stat = fs::metadata(field.inside().join("sparse")).unwrap();
    assert_eq!(stat.len(), (8 << 20) + 512);
    assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
    assert!(fs::read(field.inside().join("sparse")).unwrap().ends_with(&[7; 512]));
}

/// Every kind of entry under names that clash, through links that lead anywhere, with damage: many more than with real
/// workers, and nothing but the paths' resolution between them and the rest of the disk.
#[test]
fn random_archives_stay_inside() {
    use rand::{RngExt as _, SeedableRng as _};
    let kinds = b"0000111223356SLKxg7Z";
    let words = [
        "a",
        "b",
        "c",
        "l",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh.l",
        ".wh..wh..opq",
        ".wh...",
        "proc",
        "outside",
        "secret",
    ];
    let targets = [
        "..",
        "../outside",
        "/",
        "a",
        "b/../..",
        "l/l",
        "../secret",
        "/proc/self/root",
        "/proc/self/cwd",
        "c/../../outside",
    ];
    let (mut unpacked, mut refused) = (0, 0);
    let field = Field::new();
    let rules = Rules {
        bytes: 4 << 20,
        entries: 1000,
        depth: 20,
        ..Rules::default()
    };
    for seed in 0..400u64 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let sane = random.random_bool(0.7);
        let mut all = archive();
        for _ in 0..random.random_range(1..25) {
            let limit = if sane { 4 } else { words.len() };
            let count = random.random_range(1..5);
            let name = (0..count)
                .map(|_| words[random.random_range(0..limit)])
                .collect::<Vec<_>>()
                .join("/");
            let kind = kinds[random.random_range(0..if sane { 13 } else { kinds.len() })];
            let target = match kind {
                b'1' => (0..count)
                    .map(|_| words[random.random_range(0..limit)])
                    .collect::<Vec<_>>()
                    .join("/"),
                _ => targets[random.random_range(0..targets.len())].to_owned(),
            };
            let data = vec![b'd'; if kind == b'0' { random.random_range(0..1500) } else { 0 }];
            all = all.entry(
                EntryType::new(kind),
                &name,
                &target,
                random.random_range(0..0o10000),
                &data,
            );
        }
        let mut bytes = all.end();
        for _ in 0..if random.random_bool(0.2) {
            random.random_range(1..20)
        } else {
            0
        } {
            let place = random.random_range(0..bytes.len());
            bytes[place] = random.random();
        }
        match field.unpack_with(bytes, &rules) {
            Ok(_) => unpacked += 1,
            Err(error) => {
                refused += 1;
                assert!(
                    matches!(error.problem, Problem::Archive | Problem::TooLarge),
                    "seed {seed}: {error:?}"
                );
            }
        }
        fs::remove_dir_all(field.inside()).unwrap();
        fs::create_dir(field.inside()).unwrap();
    }
    assert!(unpacked > 10 && refused > 10, "{unpacked} unpacked, {refused} refused");
}
