//! `knarr exec`: a command in a sandbox, as its user sees it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Knarr, Output, needs, processes, until};

fn one() -> Knarr {
    let web = service("web").proven().with("min-scale", "1").env("GREETING", "hi");
    Knarr::serve(&[
        SHORT_WINDOWS,
        ("web.yaml", &web.yaml()),
        ("idle.yaml", &service("idle").yaml()),
    ])
}

#[test]
fn streams_codes_and_names() {
    let knarr = one();
    let sandbox = knarr.revision("web-00001").sandboxes[0].clone();
    let script = "echo $GREETING $K_REVISION $EXTRA; echo err >&2; exit 3";
    for target in ["web", "web-00001", "default/web", sandbox.as_str()] {
        let said = knarr.ask(&["exec", "--env", "EXTRA=more", target, "--", "sh", "-c", script]);
        assert_eq!(
            (said.code, said.out.as_str(), said.err.as_str()),
            (Some(3), "hi web-00001 more\n", "err\n"),
            "{target}"
        );
    }
    // Without --, too; options of the command are its own.
    assert_eq!(knarr.ask(&["exec", "web", "sh", "-c", "exit 7"]).code, Some(7));
    for (script, code) in [("kill -9 $$", 137), ("kill -15 $$", 143), ("true", 0), ("nope", 127)] {
        assert_eq!(
            knarr.ask(&["exec", "web", "sh", "-c", script]).code,
            Some(code),
            "{script}"
        );
    }
    // What is wrong is said; the code tells it from the command's.
    for (words, code, wanted) in [
        (&["web", "nope"][..], 127, "there is no program \"nope\""),
        (&["web", "/etc/hostname"], 126, "Permission denied"),
        (
            &["nothing", "sh"],
            125,
            "no service, revision or sandbox nothing runs here",
        ),
        (&["other/web", "sh"], 125, "no service, revision or sandbox other/web"),
        (&["idle", "sh"], 125, "service default/idle runs nothing now"),
        (
            &["idle-00001", "sh"],
            125,
            "revision default/idle-00001 runs nothing now",
        ),
        (&["-c", "side", "web", "sh"], 126, "no container \"side\""),
        (&["--env", "A", "web", "sh"], 125, "write NAME=VALUE"),
        (
            &["-u", "root", "web", "sh"],
            126,
            "user \"root\": a program of this machine has one user",
        ),
    ] {
        let said = knarr.ask(&[&["exec"], words].concat());
        assert!(
            said.code == Some(code) && said.err.contains(wanted),
            "{words:?} {said:?}"
        );
    }
    let place = Arc::clone(knarr.place());
    knarr.stop();
    let said = Output::of(place.knarr(&["exec", "web", "ls"]));
    assert!(
        said.code == Some(125) && said.err.contains("no Knarr runs on"),
        "{said:?}"
    );
}

#[test]
fn input_goes_in_and_ends_whatever_its_size() {
    let knarr = one();
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut command = knarr.place().knarr(&["exec", "-i", "web", "--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn({
        let sent = sent.clone();
        move || stdin.write_all(&sent).unwrap()
    });
    let mut got = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success() && got == sent, "{} bytes", got.len());

    // Without -i the command's input is empty, whatever ours is.
    assert_eq!(knarr.ask(&["exec", "web", "cat"]).well().out, "");
    // A reader who has seen enough.
    let mut command = knarr.place().knarr(&["exec", "web", "--", "yes"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    until("yes has ended", || running("yes").is_empty(), String::new);
}

/// Processes anywhere on this host with this command line.
fn running(line: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let found = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<&[u8]> = found.strip_suffix(b"\0")?.split(|byte| *byte == 0).collect();
            let same = words.join(&b' ') == line.as_bytes();
            same.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
        })
        .collect()
}

#[test]
fn ends_come_from_every_side() {
    let knarr = one();
    let begin = |seconds: &str| {
        let mut command = knarr.place().knarr(&["exec", "web", "--", "sleep", seconds]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until(
            "it runs",
            || !running(&format!("sleep {seconds}")).is_empty(),
            String::new,
        );
        child
    };
    let gone = |seconds: &str| {
        until(
            "the command is gone",
            || running(&format!("sleep {seconds}")).is_empty(),
            || seconds.to_owned(),
        );
    };
    // A signal to the client is one to the command.
    let mut child = begin("86301");
    processes::signal(child.id(), Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    gone("86301");
    // The client is killed.
    let mut child = begin("86302");
    child.kill().unwrap();
    child.wait().unwrap();
    gone("86302");
    // The sandbox ends.
    let child = begin("86303");
    for pid in processes::apps(knarr.pid(), "web-00001") {
        if !running("sleep 86303").contains(&pid) {
            processes::kill(pid);
        }
    }
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(137));
    gone("86303");
    knarr.until("it is replaced", |_| {
        knarr.ask(&["exec", "web", "true"]).code == Some(0)
    });
    // Knarr ends.
    let child = begin("86304");
    knarr.stop();
    let said = child.wait_with_output().unwrap();
    assert!([Some(125), Some(137)].contains(&said.status.code()), "{said:?}");
    gone("86304");
}

/// `knarr exec` on a terminal of its own.
struct Terminal {
    master: File,
    slave: OwnedFd,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Terminal {
    fn begin(knarr: &Knarr, words: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        tcsetwinsize(&slave, size(30, 100)).unwrap();
        // A session of its own, so that the terminal is its, and tells it of sizes.
        let exec = knarr
            .place()
            .knarr(&[&["exec", "-i", "-t", "web", "--"], words].concat());
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(exec.get_program())
            .args(exec.get_args());
        let end = || Stdio::from(slave.try_clone().unwrap());
        let command = command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let master = File::from(master);
        let (mut reader, into) = (master.try_clone().unwrap(), Arc::clone(&said));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self {
            master,
            slave,
            child,
            said,
        }
    }

    fn until(&self, wanted: &str) {
        let said = || self.said.lock().unwrap().clone();
        until(&format!("it says {wanted:?}"), || said().contains(wanted), said);
    }

    fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[test]
fn a_terminal_goes_through() {
    let has_setsid = Command::new("setsid").arg("--version").output().is_ok();
    if !needs("setsid of util-linux", has_setsid) {
        return;
    }
    let knarr = one();
    let script = "tty; echo $TERM; stty size; read line; echo got:$line:; while :; do stty size; sleep 0.1; done";
    let mut terminal = Terminal::begin(&knarr, &["sh", "-c", script]);
    terminal.until("/dev/pts/");
    terminal.until("xterm\r\n30 100\r\n");
    let is_raw = |it: &Terminal| !tcgetattr(&it.slave).unwrap().local_modes.contains(LocalModes::ICANON);
    assert!(is_raw(&terminal), "keys go through as they are");
    terminal.keys("a word\r");
    terminal.until("got:a word:\r\n");
    tcsetwinsize(&terminal.master, size(50, 132)).unwrap();
    terminal.until("50 132\r\n");
    terminal.keys("\x03");
    assert_eq!(
        terminal.child.wait().unwrap().code(),
        Some(130),
        "Ctrl-C is a key for the command"
    );
    assert!(!is_raw(&terminal), "the terminal is as before");

    // It is gone with the terminal, or with the client.
    let mut terminal = Terminal::begin(&knarr, &["sh", "-c", "echo begun; sleep 86305"]);
    terminal.until("begun");
    until("it runs", || !running("sleep 86305").is_empty(), String::new);
    terminal.child.kill().unwrap();
    terminal.child.wait().unwrap();
    until("the command is gone", || running("sleep 86305").is_empty(), String::new);

    // Without one there is none for the command either.
    let mut piped = knarr.place().knarr(&["exec", "-it", "web", "--", "tty"]);
    piped.stdin(Stdio::piped());
    let said = Output::of(piped);
    assert!(
        said.code == Some(1) && said.out == "not a tty\n" && said.err.contains("no terminal"),
        "{said:?}"
    );
}
