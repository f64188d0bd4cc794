//! The app of this crate's own tests, their spawner and unpack worker: a test binary's `main` belongs to the test harness.
//!
//! `knarr-sandbox-testapp serve [--after MS] [--for MS CODE] [--say N] [--sick FROM FOR] [--eat MS] [--stubborn] [ID]`,
//! `never`, `crash`, `quit`, `break`, `ask PATH`, which asks the app beside it, or `check`, which tries what a sandbox must not be able to do and serves what it found; `findings` says it. `drive DIR N` is a driver of its
//! own with N sandboxes, for tests that kill it. `escape`, `fork-bomb`, `memory-bomb` and `disk-bomb` are attacks; what
//! can be told of them is served; `/look` looks into other processes.

#![allow(unsafe_code, missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod escape;
mod net;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::exit;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

fn main() {
    sandbox::spawner::main_if_asked();
    images::worker::main_if_asked();
    let args: Vec<String> = env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("serve") => serve(&args[1..]),
        Some("never") => loop {
            thread::park();
        },
        Some("crash") => {
            println!("no luck");
            exit(3);
        }
        Some("quit") => {}
        // SAFETY: none; that is what it is for. The kernel ends even the first process of a namespace for it.
        Some("break") => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
        Some("ask") => exit(ask(&args[1])),
        Some("drive") => drive(&args[1], args[2].parse().unwrap()),
        Some("findings") => print!("{}", findings()),
        Some("check") => answer_all(listen(), &findings()),
        Some("escape") => answer_all(listen(), &escape::attempts()),
        Some("fork-bomb") => answer_at(listen(), escape::fork_bomb),
        Some("memory-bomb") => answer_at(listen(), || escape::memory_bomb()),
        Some("disk-bomb") => answer_at(listen(), escape::disk_bomb),
        _ => exit(64),
    }
}

fn serve(args: &[String]) {
    let mut args = args.iter();
    let mut stubborn = false;
    let mut number = 0;
    let mut end = None;
    let mut sick = (u64::MAX, 0);
    let mut eat = None;
    while let Some(arg) = args.next() {
        let mut next = || args.next().unwrap().parse::<u64>().unwrap();
        match arg.as_str() {
            "--after" => number = next(),
            "--for" => end = Some((next(), next())),
            "--say" => (0..next()).for_each(|i| println!("chatty {i}")),
            "--sick" => sick = (next(), next()),
            "--eat" => eat = Some(next()),
            "--stubborn" => stubborn = true,
            _id => {}
        }
    }
    // SAFETY: handlers that only end the process, or nothing.
    unsafe {
        let handler: extern "C" fn(libc::c_int) = if stubborn { ignore } else { end_well };
        libc::signal(libc::SIGTERM, handler as *const () as libc::sighandler_t);
    }
    thread::sleep(Duration::from_millis(number));
    let listener = listen();
    if let Some((millis, code)) = end {
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(millis));
            exit(i32::try_from(code).unwrap());
        });
    }
    if let Some(millis) = eat {
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(millis));
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1u8; 1 << 20]);
            }
        });
    }
    let _ = SICK.set((Instant::now(), sick));
    answer_all(listener, &env::var("HOSTNAME").unwrap_or_default());
}

/// Since when it serves; from and for how many milliseconds `/sick` answers 503.
static SICK: OnceLock<(Instant, (u64, u64))> = OnceLock::new();

fn is_sick() -> bool {
    SICK.get().is_some_and(|(since, (from, lasts))| {
        let at = since.elapsed().as_millis();
        (u128::from(*from)..u128::from(from.saturating_add(*lasts))).contains(&at)
    })
}

extern "C" fn end_well(_: libc::c_int) {
    // SAFETY: async-signal-safe.
    unsafe { libc::_exit(0) };
}

extern "C" fn ignore(_: libc::c_int) {}

fn listen() -> TcpListener {
    let port: u16 = env::var("PORT").unwrap().parse().unwrap();
    TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|error| {
        println!("port {port}: {error}");
        exit(98)
    })
}

/// The exit code of a probe: whether the app answers 200.
fn ask(path: &str) -> i32 {
    let port: u16 = env::var("PORT").unwrap().parse().unwrap();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return 2;
    };
    let mut line = String::new();
    let asked = write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let read = asked.and_then(|()| BufReader::new(stream).read_line(&mut line));
    i32::from(read.is_err() || !line.starts_with("HTTP/1.1 200 "))
}

/// Ready first, then the attack, whose outcome is the answer to everybody who waits for it.
fn answer_at(listener: TcpListener, attack: impl FnOnce() -> String) {
    let outcome = attack();
    // A thread for each connection may be more than is left.
    for stream in listener.incoming().flatten() {
        answer(stream, &outcome);
    }
}

fn answer_all(listener: TcpListener, text: &str) {
    for stream in listener.incoming().flatten() {
        let text = text.to_owned();
        thread::spawn(move || answer(stream, &text));
    }
}

/// One connection: every request gets `text`, but `/env` the environment, `/status/N` that status, `/net/...` what became
/// of a try, and `/sick` 503 while the app is.
fn answer(stream: TcpStream, text: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut path = String::new();
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 0 && line.trim_end() != "" {
            if path.is_empty() {
                path = line.split(' ').nth(1)?.to_owned();
            }
            line.clear();
        }
        if path.is_empty() {
            return None;
        }
        let healthy = if path == "/sick" && is_sick() { "503" } else { "200" };
        let status = path.strip_prefix("/status/").unwrap_or(healthy).to_owned();
        let body = match path.as_str() {
            path if path.starts_with("/net/") => net::answer(&path[5..]),
            "/look" => look(),
            "/env" => env::vars().map(|(k, v)| format!("{k}={v}\n")).collect(),
            _ => text.to_owned(),
        };
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
    }
}

/// What can be seen of processes that are still the spawner's: one word for each, `seen` or what was reached of it.
fn look() -> String {
    use std::fs;
    let mut words = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim_end() != "knarr-spawner" {
            continue;
        }
        words.push("seen".to_owned());
        for dir in ["fd", "map_files", "fdinfo"] {
            if let Ok(entries) = fs::read_dir(path.join(dir)) {
                words.push(format!("REACHED {dir} {}", entries.count()));
            }
        }
        for link in ["exe", "cwd", "root", "fd/0", "ns/net"] {
            if let Ok(target) = fs::read_link(path.join(link)) {
                words.push(format!("REACHED {link} {}", target.display()));
            }
        }
        for file in ["environ", "maps", "auxv", "mem"] {
            use std::io::Read;
            let mut byte = [0];
            // Opening some of them is allowed, and says nothing.
            match fs::File::open(path.join(file)).and_then(|mut file| file.read(&mut byte)) {
                Ok(count) if count > 0 => words.push(format!("REACHED {file}")),
                _ => {}
            }
        }
        let pid: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let mut word = 0usize;
        let own = libc::iovec {
            iov_base: (&raw mut word).cast(),
            iov_len: size_of::<usize>(),
        };
        let theirs = libc::iovec {
            iov_base: look as *mut libc::c_void,
            iov_len: size_of::<usize>(),
        };
        // SAFETY: one word of this stack is written, at most.
        if unsafe { libc::process_vm_readv(pid, &raw const own, 1, &raw const theirs, 1, 0) } > 0 {
            words.push("REACHED memory".to_owned());
        }
    }
    words.join(" ")
}

/// Runs sandboxes until it is killed.
fn drive(dir: &str, count: u32) {
    use manifests::ids::{ObjectId, RevisionId, SandboxId};
    use sandbox::driver::Driver;
    let began = Instant::now();
    let clock = std::sync::Arc::new(move || manifests::units::Timestamp::EPOCH.plus(began.elapsed()));
    let driver = sandbox::LocalDriver::new(sandbox::LocalConfig::new(dir, clock)).unwrap();
    let mut workload = manifests::workload::Workload::host(env::current_exe().unwrap());
    workload.serving.args = vec!["serve".into()];
    workload.stop_grace = Duration::ZERO;
    let workload = std::sync::Arc::new(workload);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for i in 0..count {
            let spec = sandbox::driver::SandboxSpec {
                id: SandboxId::new(format!("driven-{i}")),
                revision: RevisionId::new("default", "driven-00001"),
                configuration: ObjectId::new("default", "driven"),
                service: None,
                workload: workload.clone(),
                limits: sandbox::driver::Limits::default(),
                deadline: Duration::from_secs(20),
            };
            driver.start(spec).await.unwrap();
        }
        println!("{}", driver.describe());
        std::future::pending::<()>().await;
    });
}

/// One line per attempt: `name: refused ...` or `name: REACHED ...`.
fn findings() -> String {
    use std::fs;
    let mut lines = Vec::new();
    let mut tell = |name: &str, result: Result<String, String>| match result {
        Ok(what) => lines.push(format!("{name}: REACHED {what}")),
        Err(why) => lines.push(format!("{name}: refused {why}")),
    };
    for path in env::var("FORBIDDEN")
        .unwrap_or_default()
        .split(':')
        .filter(|p| !p.is_empty())
    {
        let read = fs::read(path).map(|b| format!("{} bytes", b.len()));
        let listed = || fs::read_dir(path).map(|d| format!("{} entries", d.count()));
        tell(path, read.or_else(|_| listed()).map_err(|e| e.to_string()));
    }
    for path in [
        "/knarr-x",
        "/usr/knarr-x",
        "/etc/knarr-x",
        "/dev/knarr-x",
        "/proc/sys/kernel/hostname",
    ] {
        tell(
            &format!("write {path}"),
            fs::write(path, "x").map(|()| String::new()).map_err(|e| e.to_string()),
        );
    }
    for port in env::var("PORTS")
        .unwrap_or_default()
        .split(',')
        .filter_map(|p| p.parse::<u16>().ok())
    {
        let reached = TcpStream::connect(("127.0.0.1", port))
            .map(|_| String::new())
            .map_err(|e| e.to_string());
        tell(&format!("port {port}"), reached);
    }
    let errno = |result: i64| {
        if result >= 0 {
            Ok(result.to_string())
        } else {
            Err(std::io::Error::last_os_error().to_string())
        }
    };
    // SAFETY: system calls on constants, whose success is the finding.
    unsafe {
        let tmp = c"/tmp".as_ptr();
        let none = c"none".as_ptr();
        let null = std::ptr::null::<libc::c_void>();
        tell(
            "mount",
            errno(libc::mount(none, tmp, c"tmpfs".as_ptr(), 0, null).into()),
        );
        tell(
            "umount",
            errno(libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH).into()),
        );
        tell("chroot", errno(libc::chroot(tmp).into()));
        tell("unshare user", errno(libc::unshare(libc::CLONE_NEWUSER).into()));
        tell("unshare mount", errno(libc::unshare(libc::CLONE_NEWNS).into()));
        tell("ptrace", errno(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)));
        tell(
            "raw socket",
            errno(libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).into()),
        );
        tell(
            "packet socket",
            errno(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).into()),
        );
        tell("setuid", errno(libc::setuid(0).into()));
        tell("bpf", errno(libc::syscall(libc::SYS_bpf, 0, 0, 0)));
        tell("keyctl", errno(libc::syscall(libc::SYS_keyctl, 0, -3, 1)));
        tell("init_module", errno(libc::syscall(libc::SYS_init_module, 0, 0, 0)));
        tell("reboot", errno(libc::syscall(libc::SYS_reboot, 0, 0, 0, 0)));
        tell("kill outside", errno(libc::kill(libc::getppid().max(2), 0).into()));
    }
    let links = |dir: &str| {
        let mut found: Vec<String> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| Some((e.file_name(), fs::read_link(e.path()).ok()?)))
            .filter(|(_, target)| !target.starts_with("/proc"))
            .map(|(name, target)| format!("{}={}", name.to_string_lossy(), target.display()))
            .collect();
        found.sort();
        found.join(" ")
    };
    lines.push(format!("fds: {}", links("/proc/self/fd")));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for key in [
        "Pid:",
        "Uid:",
        "Gid:",
        "Groups:",
        "CapInh:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp:",
    ] {
        lines.extend(status.lines().filter(|l| l.starts_with(key)).map(str::to_owned));
    }
    let list = |dir: &str| {
        let mut names: Vec<String> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names.join(" ")
    };
    for dir in [
        "/",
        "/etc",
        "/dev",
        "/tmp",
        "/run",
        "/var",
        "/home",
        "/sys",
        "/sys/class/net",
    ] {
        lines.push(format!("ls {dir}: {}", list(dir)));
    }
    lines.push(format!(
        "processes: {}",
        list("/proc").split(' ').filter(|n| n.parse::<u32>().is_ok()).count()
    ));
    lines.push(format!(
        "cgroup: {}",
        fs::read_to_string("/proc/self/cgroup")
            .unwrap_or_default()
            .replace('\n', " ")
    ));
    lines.push(format!(
        "interfaces: {}",
        fs::read_to_string("/proc/net/dev")
            .unwrap_or_default()
            .lines()
            .skip(2)
            .filter_map(|l| l.split(':').next())
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    ));
    lines.push(format!(
        "tmp: {:?}",
        fs::write("/tmp/own", "x").map_err(|e| e.to_string())
    ));
    lines.push(format!(
        "stdout: {:?}",
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/stdout")
            .map(drop)
            .map_err(|e| e.to_string())
    ));
    lines.push(format!(
        "low port: {:?}",
        TcpListener::bind(("127.0.0.1", 80))
            .map(drop)
            .map_err(|e| e.to_string())
    ));
    lines.join("\n") + "\n"
}
