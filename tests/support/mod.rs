//! The real binary on loopback with a directory of its own: started, asked, waited for, stopped.
//!
//! Waiting has a generous bound and no test asserts a speed. Every test has its own data directory and ports, so tests may
//! run at once.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs
)]

pub mod http;
pub mod manifest;
pub mod processes;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use control::status::{Ready, RevisionStatus, ServiceStatus, Status};
use loadtest::{Plan, Report, Target};
use rustix::process::Signal;

pub use self::http::{Client, Reply};

pub const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// How long anything may take before the test has failed.
pub const BOUND: Duration = Duration::from_secs(60);

/// A running `knarr serve`. Dropping it sends SIGTERM and checks that it ends well.
pub struct Knarr {
    child: Child,
    pub gateway: SocketAddr,
    pub admin: SocketAddr,
    pub greeting: String,
    errors: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    place: Arc<Place>,
}

/// Where a Knarr lives: its manifests and its data, removed at the end.
pub struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Arc<Self> {
        let root = tempfile::Builder::new().prefix("knarr-e2e-").tempdir().unwrap();
        // Other users' sandboxes must reach the programs in it.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(root.path().join("manifests")).unwrap();
        Arc::new(Self { root })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn manifests(&self) -> PathBuf {
        self.path("manifests")
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a manifest as editors do: beside it, then renamed.
    pub fn write(&self, name: &str, text: &str) {
        let (new, to) = (
            self.manifests().join(format!(".{name}.new")),
            self.manifests().join(name),
        );
        fs::write(&new, text).unwrap();
        fs::rename(new, to).unwrap();
    }

    /// A program in a directory of its own; the path.
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.path(&format!("programs-{name}"));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        for path in [&dir, &path] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    }

    /// `knarr` with these words, this data directory where it is wanted, and nothing of the environment that it may mind.
    pub fn knarr(&self, words: &[&str]) -> Command {
        let mut command = Command::new(KNARR);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        if let Some((&"exec", rest)) = words.split_first() {
            // What comes last is the command's.
            command.arg("exec").arg("--data-dir").arg(self.data()).args(rest);
            return command;
        }
        command.args(words);
        if !matches!(
            words.first(),
            Some(&"check" | &"completions" | &"--help" | &"--version") | None
        ) {
            command.arg("--data-dir").arg(self.data());
        }
        command
    }
}

impl Knarr {
    /// Serves the files, each a name and a text, and waits until every service is ready.
    pub fn serve(files: &[(&str, &str)]) -> Self {
        Self::serve_with(files, &[])
    }

    /// The same with more flags.
    pub fn serve_with(files: &[(&str, &str)], flags: &[&str]) -> Self {
        let place = Place::new();
        for (name, text) in files {
            place.write(name, text);
        }
        Self::at(&place, flags)
    }

    /// Serves what is in the place.
    pub fn at(place: &Arc<Place>, flags: &[&str]) -> Self {
        let manifests = place.manifests();
        let mut words = vec!["serve", manifests.to_str().unwrap()];
        words.extend(ANY_PORTS);
        words.extend(flags);
        let knarr = Self::spawn(place, place.knarr(&words));
        knarr.until_ready();
        knarr
    }

    /// Starts this command and reads the addresses from its greeting.
    pub fn spawn(place: &Arc<Place>, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let reader = {
            let errors = Arc::clone(&errors);
            thread::spawn(move || {
                let mut line = Vec::new();
                while stderr.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    errors.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            })
        };
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        let addresses = loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                let status = child.wait().unwrap();
                reader.join().unwrap();
                panic!("no greeting, {status}:\n{greeting}{}", errors.lock().unwrap());
            }
            greeting += &line;
            if let Some(addresses) = addresses(&line) {
                break addresses;
            }
        };
        let rest = thread::spawn(move || drop(stdout.read_to_end(&mut Vec::new())));
        Self {
            child,
            gateway: addresses.0,
            admin: addresses.1,
            greeting,
            errors,
            readers: vec![reader, rest],
            place: Arc::clone(place),
        }
    }

    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    pub fn status(&self) -> Status {
        let reply = Client::connect(self.admin).get("localhost", "/v1/status");
        assert_eq!(reply.status, 200, "{reply:?}");
        serde_json::from_str(&reply.text()).unwrap()
    }

    pub fn revision(&self, name: &str) -> RevisionStatus {
        let found = self.status().revisions.into_iter().find(|it| it.name == name);
        found.unwrap_or_else(|| panic!("no revision {name}\n{}", self.errors()))
    }

    pub fn service(&self, name: &str) -> ServiceStatus {
        let found = self.status().services.into_iter().find(|it| it.name == name);
        found.unwrap_or_else(|| panic!("no service {name}\n{}", self.errors()))
    }

    /// Waits until the status is as wanted; on failure says what it was instead, over time.
    pub fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let began = Instant::now();
        let mut history: Vec<String> = Vec::new();
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            let now = in_short(&status);
            if history.last().is_none_or(|last| !last.ends_with(&now)) {
                history.push(format!("{:>8.3} s{now}", began.elapsed().as_secs_f64()));
            }
            assert!(
                began.elapsed() < BOUND,
                "not within {BOUND:?}: {what}\n{}\n{}",
                history[history.len().saturating_sub(30)..].join("\n"),
                self.errors()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until this revision is as wanted.
    pub fn until_revision(&self, name: &str, what: &str, wanted: impl Fn(&RevisionStatus) -> bool) -> RevisionStatus {
        let is = |status: &Status| status.revisions.iter().any(|it| it.name == name && wanted(it));
        let status = self.until(&format!("{name} {what}"), is);
        status.revisions.into_iter().find(|it| it.name == name).unwrap()
    }

    /// Waits until standard error says so.
    pub fn until_said(&self, what: &str) {
        until(
            &format!("standard error says {what:?}"),
            || self.errors().contains(what),
            || self.errors(),
        );
    }

    pub fn until_ready(&self) {
        self.until("every service and route is ready", |status| {
            let services = status.services.iter().map(|it| &it.ready);
            services
                .chain(status.routes.iter().map(|it| &it.ready))
                .all(|ready| ready.status == "True")
        });
    }

    pub fn until_zero(&self, revision: &str) {
        self.until_revision(revision, "runs nothing", |it| {
            it.actual_replicas == 0 && it.starting_replicas == 0
        });
    }

    /// `GET` over a connection of its own.
    pub fn get(&self, service: &str, path: &str) -> Reply {
        self.client().get(&host(service), path)
    }

    pub fn client(&self) -> Client {
        Client::connect(self.gateway)
    }

    pub fn target(&self, service: &str, path: &str) -> Target {
        Target::new(self.gateway, host(service)).path(path)
    }

    pub fn load(&self, plan: Plan) -> Load {
        Load::begin(plan)
    }

    pub fn burst(&self, service: &str, path: &str, count: u64) -> Load {
        self.load(Plan::burst(self.target(service, path), count))
    }

    /// A command on this Knarr's data directory.
    pub fn ask(&self, words: &[&str]) -> Output {
        Output::of(self.place.knarr(words))
    }

    pub fn signal(&self, signal: Signal) {
        processes::signal(self.child.id(), signal);
    }

    /// Waits until it has ended; its exit status and standard error.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.child);
        (status, self.last_words())
    }

    /// Stops it as a user does, and checks that it ends well.
    pub fn stop(self) {
        self.signal(Signal::TERM);
        let (status, errors) = self.ended();
        assert!(status.success(), "{status}\n{errors}");
    }

    fn last_words(&mut self) -> String {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        self.errors()
    }
}

impl Drop for Knarr {
    fn drop(&mut self) {
        if self.readers.is_empty() {
            return; // it has been seen to end
        }
        self.signal(Signal::TERM);
        let status = wait(&mut self.child);
        let errors = self.last_words();
        if thread::panicking() {
            eprintln!("Knarr said:\n{errors}");
        } else {
            assert!(status.success(), "{status}\n{errors}");
        }
    }
}

/// Load under way, on a thread of its own.
pub struct Load(JoinHandle<Report>);

impl Load {
    pub fn begin(plan: Plan) -> Self {
        Self(thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(loadtest::run(plan, |_| {})).unwrap().report()
        }))
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub fn report(self) -> Report {
        let report = self.0.join().unwrap();
        assert_eq!(report.schedule.never_sent, 0, "never sent\n{report}");
        report
    }
}

/// What a command that ends by itself has said.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Output {
    /// Runs it to its end; one that goes on is killed.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let read = |mut from: Box<dyn Read + Send>| {
            thread::spawn(move || {
                let mut text = String::new();
                from.read_to_string(&mut text).map(|_| text)
            })
        };
        let out = read(Box::new(child.stdout.take().unwrap()));
        let err = read(Box::new(child.stderr.take().unwrap()));
        let code = wait(&mut child).code();
        Self {
            code,
            out: out.join().unwrap().unwrap(),
            err: err.join().unwrap().unwrap(),
        }
    }

    /// Checks that it went well.
    pub fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// Waits until `done`, or fails with `or`.
pub fn until(what: &str, mut done: impl FnMut() -> bool, or: impl Fn() -> String) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < BOUND, "not within {BOUND:?}: {what}\n{}", or());
        thread::sleep(Duration::from_millis(10));
    }
}

/// False, with the reason printed, where the caller cannot run; with `CI=true` that is a failure.
pub fn is_root() -> bool {
    needs("root", rustix::process::geteuid().is_root())
}

/// As [`is_root`], for a Python with its library.
pub fn has_python() -> bool {
    let mut python = Command::new("/usr/bin/python3");
    let there = python.args(["-c", "import http.server"]).stderr(Stdio::null()).status();
    needs(
        "/usr/bin/python3 with http.server",
        there.is_ok_and(|status| status.success()),
    )
}

/// The same for anything else a test needs.
pub fn needs(what: &str, there: bool) -> bool {
    if !there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have {what}");
        eprintln!("skipped: needs {what}");
    }
    there
}

/// What tests wait for, a line per service, route and revision.
fn in_short(status: &Status) -> String {
    let ready =
        |kind: &str, name: &str, it: &Ready| format!("\n  {kind} {name}: {} {} {}", it.status, it.reason, it.message);
    let services = status.services.iter().map(|it| {
        ready("service", &it.name, &it.ready) + &format!(" latest {} ready {}", it.latest_created, it.latest_ready)
    });
    let routes = status.routes.iter().map(|it| ready("route", &it.name, &it.ready));
    let revisions = status.revisions.iter().map(|it| {
        ready("revision", &it.name, &it.ready)
            + &format!(
                " replicas {}+{}/{:?} at {} in flight {} waiting {}",
                it.actual_replicas, it.starting_replicas, it.desired_replicas, it.rung, it.in_flight, it.waiting
            )
    });
    let warnings = status.warnings.iter().map(|warning| format!("\n  warning: {warning}"));
    services.chain(routes).chain(revisions).chain(warnings).collect()
}

/// `NAME` of namespace `default`, or `NAME.NAMESPACE`; a whole host stays as it is.
pub fn host(service: &str) -> String {
    if service.ends_with(".localhost") {
        service.to_owned()
    } else if service.contains('.') {
        format!("{service}.localhost")
    } else {
        format!("{service}.default.localhost")
    }
}

/// `Knarr 0.1.0 serves on ADDRESS[, ADDRESS]; status on http://ADDRESS/v1/status`
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (gateways, admin) = line.split_once(" serves on ")?.1.split_once("; status on http://")?;
    let first = gateways.split(", ").next()?;
    Some((first.parse().ok()?, admin.split('/').next()?.parse().ok()?))
}

fn wait(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > BOUND {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it did not end within {BOUND:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap()
}

pub const ANY_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
