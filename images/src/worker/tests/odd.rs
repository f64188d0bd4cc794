//! Bombs, broken archives, sparse files, odd names, and random ones.

use super::*;

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
    // Of the last block of the content, too, only what the file has.
    let whole = archive().file("a", "content").0;
    for end in [512 + 7, 512 + 8, 1023] {
        let field = Field::new();
        field.unpack(whole[..end].to_vec()).unwrap();
        assert_eq!(field.read("a"), "content", "{end}");
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
