//! Logs through real pipes and files: lines, rotation, following, full disks.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

const SMALL: LogLimits = LogLimits {
    file: Bytes(400),
    files: 3,
    ended: Bytes(1000),
    ended_files: 4,
};

struct Rig {
    _dir: tempfile::TempDir,
    logs: LogDir,
    id: SandboxId,
    writer: LogWriter,
    stdout: (OwnedFd, fs::File),
    now: Timestamp,
}

impl Rig {
    fn new(limits: LogLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let logs = LogDir::open(dir.path().join("logs"), limits).unwrap();
        let id = SandboxId::new("hello-00001-abcde");
        let writer = logs.writer(&id).unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let now = Timestamp::from_nanos(1_772_366_400_000_000_001);
        Self {
            _dir: dir,
            logs,
            id,
            writer,
            stdout: (read, write.into()),
            now,
        }
    }

    fn say(&mut self, text: &str) -> Pumped {
        self.stdout.1.write_all(text.as_bytes()).unwrap();
        self.writer
            .pump(self.stdout.0.as_fd(), Stream::Stdout, self.now)
            .unwrap()
    }

    fn read(&self, lines: Option<usize>) -> Vec<String> {
        texts(&mut Follower::open(self.logs.current(&self.id), lines).unwrap())
    }
}

fn texts(follower: &mut Follower) -> Vec<String> {
    follower
        .poll()
        .unwrap()
        .into_iter()
        .map(|e| String::from_utf8(e.text).unwrap())
        .collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

#[test]
fn lines_are_in_kubernetes_format_and_come_back() {
    let mut rig = Rig::new(LogLimits::default());
    assert_eq!(rig.say("hello wor"), Pumped::Idle);
    assert_eq!(rig.say("ld\n\n  indented\nno end"), Pumped::Idle);
    let mut stderr = pipe_with(PipeFlags::NONBLOCK).unwrap();
    rustix::io::write(&stderr.1, b"oops\n").unwrap();
    rig.writer.pump(stderr.0.as_fd(), Stream::Stderr, rig.now).unwrap();
    stderr.1 = rig.stdout.1.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(
        rig.writer.pump(stderr.0.as_fd(), Stream::Stderr, rig.now).unwrap(),
        Pumped::Closed
    );
    rig.writer.finish(rig.now);

    let text = fs::read_to_string(rig.logs.current(&rig.id)).unwrap();
    let time = "2026-03-01T12:00:00.000000001Z";
    let want = [
        "stdout F hello world",
        "stdout F ",
        "stdout F   indented",
        "stderr F oops",
        "stdout F no end",
    ];
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        want.map(|line| format!("{time} {line}"))
    );
    let entries = Follower::open(rig.logs.current(&rig.id), None).unwrap().poll().unwrap();
    assert_eq!(
        entries[3],
        Entry {
            time: rig.now,
            stream: Stream::Stderr,
            partial: false,
            text: b"oops".to_vec()
        }
    );
    assert_eq!(entries.len(), 5);
    assert_eq!(rig.writer.tail(), "hello world\n\n  indented\nno endoops\n");
}

#[test]
fn long_lines_are_cut_and_lose_nothing() {
    let mut rig = Rig::new(LogLimits::default());
    let long: String = (0..40_000u32).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    rig.say(&long);
    rig.say("\nnext\n");
    let entries = Follower::open(rig.logs.current(&rig.id), None).unwrap().poll().unwrap();
    let shape: Vec<_> = entries.iter().map(|e| (e.partial, e.text.len())).collect();
    assert_eq!(
        shape,
        [(true, 16_384), (true, 16_384), (false, 40_000 - 2 * 16_384), (false, 4)]
    );
    assert_eq!(
        entries[..3].iter().flat_map(|e| e.text.clone()).collect::<Vec<_>>(),
        long.as_bytes()
    );
    // Exactly the bound is one line, and no empty piece follows.
    let mut rig = Rig::new(LogLimits::default());
    rig.say(&long[..16_384]);
    rig.say("\n");
    assert_eq!(rig.read(None), [&long[..16_384]]);
}

#[test]
fn files_rotate_within_their_bound_and_readers_go_across() {
    let mut rig = Rig::new(SMALL);
    let mut follower = Follower::open(rig.logs.current(&rig.id), None).unwrap();
    let mut followed = Vec::new();
    for n in 0..40 {
        rig.say(&format!("line {n}\n"));
        if n % 3 == 0 {
            followed.extend(texts(&mut follower));
        }
    }
    followed.extend(texts(&mut follower));
    assert_eq!(
        followed,
        numbers(0..40),
        "a follower that keeps up misses nothing and repeats nothing"
    );

    let files = rig.logs.files(&rig.id);
    assert_eq!(files.len(), 3);
    for file in &files {
        let len = fs::metadata(file).unwrap().len();
        assert!((1..=400).contains(&len), "{}: {len}", file.display());
    }
    let kept = rig.read(None);
    assert_eq!(
        kept,
        numbers(40 - u32::try_from(kept.len()).unwrap()..40),
        "the newest are kept, in order"
    );
    assert!(kept.len() >= 16, "two full files at least: {}", kept.len());
    for n in [0, 1, 8, 12] {
        assert_eq!(
            rig.read(Some(n)),
            numbers(40 - u32::try_from(n).unwrap()..40),
            "the last {n}"
        );
    }
    assert_eq!(rig.read(Some(1000)), kept);
}

#[test]
fn following_starts_at_the_end_and_before_the_file_is_there() {
    let mut rig = Rig::new(SMALL);
    rig.say("old\n");
    let mut end = Follower::open(rig.logs.current(&rig.id), Some(0)).unwrap();
    assert!(texts(&mut end).is_empty());
    rig.say("new\nhalf");
    assert_eq!(texts(&mut end), ["new"]);
    rig.say(" and half\n");
    assert_eq!(texts(&mut end), ["half and half"]);

    let other = SandboxId::new("other");
    let mut early = Follower::open(rig.logs.current(&other), Some(10)).unwrap();
    assert!(texts(&mut early).is_empty());
    let mut writer = rig.logs.writer(&other).unwrap();
    rustix::io::write(&rig.stdout.1, b"first\n").unwrap();
    writer.pump(rig.stdout.0.as_fd(), Stream::Stdout, rig.now).unwrap();
    assert_eq!(texts(&mut early), ["first"]);
}

#[test]
fn a_chatty_sandbox_yields_its_turn() {
    let mut rig = Rig::new(LogLimits::default());
    rustix::pipe::fcntl_setpipe_size(&rig.stdout.1, 1 << 20).unwrap();
    let line = "x".repeat(99) + "\n";
    assert_eq!(rig.say(&line.repeat(5_000)), Pumped::More);
    let mut turns = 1;
    while rig.say("") == Pumped::More {
        turns += 1;
    }
    assert_eq!(turns, 500_000 / 65_536);
    let mut follower = Follower::open(rig.logs.current(&rig.id), None).unwrap();
    let mut seen = 0;
    loop {
        match texts(&mut follower).len() {
            0 => break,
            n => seen += n,
        }
    }
    assert_eq!(seen, 5_000);
}

#[test]
fn the_tail_is_whole_characters_of_the_end() {
    let mut rig = Rig::new(LogLimits::default());
    let text = "ä".repeat(1500);
    rig.say(&format!("{text}x"));
    let tail = rig.writer.tail();
    assert!(tail.len() <= 2048 && tail.len() > 2040, "{}", tail.len());
    assert!(text.ends_with(tail.strip_suffix('x').unwrap()));
    rustix::io::write(&rig.stdout.1, &[0xff; 2048]).unwrap();
    rig.say("end");
    assert!(rig.writer.tail().len() <= 2048 && rig.writer.tail().ends_with("end"));
}

#[test]
fn what_cannot_be_written_is_counted_and_the_app_goes_on() {
    let mut rig = Rig::new(LogLimits::default());
    rig.say("before\n");
    // A descriptor that cannot be written to, as a full disk cannot.
    rig.writer.file_for_test(fs::File::open("/dev/null").unwrap());
    assert_eq!(rig.say("gone\ngone\n"), Pumped::Idle);
    rig.writer.file_for_test(
        fs::OpenOptions::new()
            .append(true)
            .open(rig.logs.current(&rig.id))
            .unwrap(),
    );
    rig.say("after\n");
    let read = rig.read(None);
    assert_eq!((read[0].as_str(), read[2].as_str(), read.len()), ("before", "after", 3));
    assert!(
        read[1].starts_with("knarr: 90 bytes of output are lost: "),
        "{}",
        read[1]
    );
}

#[test]
fn a_new_writer_goes_on_where_the_last_one_was() {
    let mut rig = Rig::new(SMALL);
    for n in 0..6 {
        rig.say(&format!("line {n}\n"));
    }
    rig.writer = rig.logs.writer(&rig.id).unwrap();
    for n in 6..12 {
        rig.say(&format!("line {n}\n"));
    }
    assert_eq!(rig.read(None), numbers(0..12));
    assert_eq!(rig.logs.files(&rig.id).len(), 2);
}

#[test]
fn logs_of_the_gone_are_pruned_and_those_of_the_living_are_not() {
    let rig = Rig::new(SMALL);
    let file = |name: &str, len: usize, age: u64| {
        let path = rig.logs.dir.join(name);
        fs::write(&path, vec![b'x'; len]).unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
        fs::File::open(&path).unwrap().set_modified(at).unwrap();
        path
    };
    let living = [file("a.log", 900, 50), file("a.log.1", 900, 100)];
    let (oldest, old, new) = (file("b.log.1", 300, 90), file("b.log", 400, 80), file("c.log", 500, 10));
    let foreign = file("notes.txt", 5000, 99);
    let lives = |id: &SandboxId| id.as_str() == "a" || *id == rig.id;
    assert_eq!(rig.logs.prune(lives).unwrap(), Bytes(300));
    assert!(!oldest.exists() && old.exists() && new.exists() && foreign.exists());
    assert!(living.iter().all(|path| path.exists()));
    assert_eq!(
        rig.logs.prune(lives).unwrap(),
        Bytes(0),
        "within the bound there is nothing to do"
    );
}

#[test]
fn lines_that_are_not_log_lines_are_skipped() {
    for bad in [
        "",
        "x",
        "2026-03-01T12:00:00Z stdout F",
        "2026-03-01T12:00:00Z stdin F a",
        "noon stdout F a",
    ] {
        assert_eq!(Entry::parse(bad.as_bytes()), None, "{bad:?}");
    }
    let entry = Entry::parse(b"2026-03-01T12:00:00.5Z stdout P a b ");
    assert_eq!(entry.map(|e| (e.partial, e.text)), Some((true, b"a b ".to_vec())));
}
