//! What Go reads, and what no archive may say.

use super::*;

#[test]
fn numbers_as_archives_write_them() {
    let table: [(&[u8], Option<u64>); 9] = [
        (b"0000644\0", Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0", Some(0)),
        (b"", Some(0)),
        (b"77777777777\0", Some(0o77_777_777_777)),
        (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(2 << 32)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
        (b"648", None),
    ];
    for (field, wanted) in table {
        assert_eq!(number(field).ok(), wanted, "{field:?}");
    }
}

#[test]
fn records_may_hold_line_feeds() {
    let parsed = records(b"15 path=a\nb\nc=\n12 x=\n\n\n\n\n\n\n8 a=bcd\n").unwrap();
    let wanted: [(&[u8], &[u8]); 3] = [(b"path", b"a\nb\nc="), (b"x", b"\n\n\n\n\n\n"), (b"a", b"bcd")];
    assert_eq!(parsed, wanted.map(|(key, value)| (key.to_vec(), value.to_vec())));
    for wrong in [
        "5 a=b",
        "6 a=b\nx",
        "3 a=b\n",
        "99 a=b\n",
        "a=b\n",
        "6 =bb\n",
        " 6 a=b\n",
        "-6 a=b\n",
        "12 path=a\0b\n",
    ] {
        assert!(records(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
}

#[test]
fn times() {
    let table = [
        ("0", Some((0, 0))),
        ("1.5", Some((1, 500_000_000))),
        ("1.1234567899", Some((1, 123_456_789))),
        ("-1.25", Some((-2, 750_000_000))),
        ("-1", Some((-1, 0))),
        ("", None),
        ("x", None),
        ("1.-5", None),
    ];
    for (text, wanted) in table {
        assert_eq!(time(text.as_bytes()), wanted, "{text}");
    }
}
