//! Hostile and odd archives, unpacked without a jail: the paths' resolution alone must keep them inside.

mod field;
mod odd;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::report::{Failure, Problem, Report, Rules};
use super::unpack::unpack;
use field::{Field, archive, is_root, walk};

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
