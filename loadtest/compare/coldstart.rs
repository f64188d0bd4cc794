//! Cold starts through Knarr's gateway beside plain starts of the same program: what the sandbox and the way there add.
//!
//! Plain: vfork, exec, connect in a busy loop, request, first byte. Through Knarr: a service at zero, the request out to
//! the first byte back. Both in turns, so that a busy moment of the machine hits both. Started by `compare/coldstart`.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use loadtest::{Phase, Temperature, Timing};
use rustix::process::{Pid, Signal, kill_process};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "\
Usage: loadtest/compare/coldstart [FLAGS]

  --starts N        cold starts of the workload app [default: 200]
  --others N        cold starts of Python and Node, where installed in /usr/bin; 0 for none [default: 20]
  --at-most MS      fail when Knarr adds more than this to the workload's median
  --knarr PATH, --workload PATH   the programs [given by the script]
";

fn main() -> ExitCode {
    match Flags::parse(std::env::args().skip(1)).and_then(|flags| flags.map_or(Ok(()), |flags| measure(&flags))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Flags {
    starts: usize,
    others: usize,
    at_most: Option<f64>,
    knarr: PathBuf,
    workload: PathBuf,
}

impl Flags {
    /// `None` when help was wanted.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut flags = Self {
            starts: 200,
            others: 20,
            at_most: None,
            knarr: PathBuf::new(),
            workload: PathBuf::new(),
        };
        while let Some(name) = args.next() {
            if matches!(name.as_str(), "-h" | "--help") {
                print!("{USAGE}");
                return Ok(None);
            }
            let value = args
                .next()
                .ok_or_else(|| format!("{name} needs a value, or is no flag; see --help"))?;
            let wrong = || format!("{name} is {value:?}, but must be a number");
            match name.as_str() {
                "--starts" => flags.starts = value.parse().map_err(|_| wrong())?,
                "--others" => flags.others = value.parse().map_err(|_| wrong())?,
                "--at-most" => flags.at_most = Some(value.parse().map_err(|_| wrong())?),
                "--knarr" => flags.knarr = value.into(),
                "--workload" => flags.workload = value.into(),
                _ => return Err(format!("unknown flag {name}; see --help").into()),
            }
        }
        for (name, path) in [("--knarr", &flags.knarr), ("--workload", &flags.workload)] {
            if !path.is_file() {
                return Err(format!("{name} must name a program, and {path:?} is none").into());
            }
        }
        Ok(Some(flags))
    }
}

/// A program that listens on `$PORT`.
struct App {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    starts: usize,
}

/// What was measured of one app.
#[derive(Default)]
struct Times {
    plain: Vec<Duration>,
    cold: Vec<Duration>,
    warm: Vec<Duration>,
    phases: [Vec<Duration>; 5],
}

fn measure(flags: &Flags) -> Result<()> {
    let work = tempfile::tempdir()?;
    let apps = apps(flags, work.path())?;
    let manifest = work.path().join("apps.yaml");
    fs::write(&manifest, manifests(&apps)?)?;
    let services = apps.iter().map(|app| app.starts + 1).sum();
    let knarr = Knarr::start(&flags.knarr, &manifest, work.path(), services)?;
    let mut all = Vec::new();
    for app in &apps {
        // The last service of each app is for warming up: page cache, and Knarr's first sight of the program.
        knarr.cold(app, app.starts)?;
        plain(app)?;
        let mut times = Times::default();
        for index in 0..app.starts {
            times.plain.push(plain(app)?);
            let (cold, timing) = knarr.cold(app, index)?;
            times.cold.push(cold);
            times.warm.push(knarr.request(app, index)?.0);
            for (all, one) in times.phases.iter_mut().zip(timing.phases) {
                all.extend(one);
            }
        }
        all.push(times);
    }
    drop(knarr);
    print(&apps, &mut all);
    let added = added_ms(&mut all[0]);
    match flags.at_most {
        Some(limit) if added > limit => {
            Err(format!("Knarr adds {added:.2} ms to the workload's median, more than {limit}").into())
        }
        _ => Ok(()),
    }
}

fn apps(flags: &Flags, work: &Path) -> Result<Vec<App>> {
    // In a directory that any user may read: the sandbox runs it as one.
    let workload = work.join("app/knarr-workload");
    fs::create_dir(work.join("app"))?;
    fs::copy(&flags.workload, &workload)?;
    let mut apps = vec![App {
        name: "workload",
        program: workload,
        args: Vec::new(),
        starts: flags.starts,
    }];
    let python = "import os, http.server as h\n\
        class H(h.BaseHTTPRequestHandler):\n\
        \x20   protocol_version = 'HTTP/1.1'\n\
        \x20   def do_GET(self):\n\
        \x20       self.send_response(200); self.send_header('content-length', '3'); self.end_headers(); self.wfile.write(b'hi\\n')\n\
        \x20   def log_message(self, *args): pass\n\
        h.ThreadingHTTPServer(('', int(os.environ['PORT'])), H).serve_forever()\n";
    let node = "require('http').createServer((q, s) => s.end('hi\\n')).listen(process.env.PORT)";
    for (name, program, flag, script) in [
        ("python", "/usr/bin/python3", "-c", python),
        ("node", "/usr/bin/node", "-e", node),
    ] {
        if flags.others > 0 && Path::new(program).exists() {
            let args = vec![flag.to_owned(), script.to_owned()];
            apps.push(App {
                name,
                program: program.into(),
                args,
                starts: flags.others,
            });
        }
    }
    Ok(apps)
}

/// Services at zero from their creation (Knative: `initial-scale` 0 needs the cluster's leave), one per start.
fn manifests(apps: &[App]) -> Result<String> {
    let mut yaml =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-autoscaler\n  namespace: knative-serving\n\
        data:\n  allow-zero-initial-scale: \"true\"\n"
            .to_owned();
    for app in apps {
        // JSON is YAML.
        let (program, args) = (app.program.display(), serde_json::to_string(&app.args)?);
        for index in 0..=app.starts {
            write!(
                yaml,
                "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {name}-{index}\nspec:\n  template:\n    \
                 metadata:\n      annotations:\n        autoscaling.knative.dev/initial-scale: \"0\"\n        \
                 knarr.dev/server-timing: enabled\n    spec:\n      containers:\n        - image: host:{program}\n          \
                 args: {args}\n",
                name = app.name
            )?;
        }
    }
    Ok(yaml)
}

/// `knarr serve`; ended on drop.
struct Knarr {
    process: Child,
    addr: SocketAddr,
}

impl Knarr {
    /// Returns when `services` services are ready, which starts none of them.
    fn start(program: &Path, manifest: &Path, work: &Path, services: usize) -> Result<Self> {
        let (addr, admin) = (free_addr()?, free_addr()?);
        let log = work.join("knarr.log");
        let process = Command::new(program)
            .args(["serve", "--listen", &addr.to_string(), "--admin", &admin.to_string()])
            .arg("--data-dir")
            .arg(work.join("data"))
            .arg(manifest)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()?;
        let mut knarr = Self { process, addr };
        let deadline = now() + Duration::from_secs(60);
        while ready_services(admin).unwrap_or(0) < services {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = knarr.process.try_wait()? {
                return Err(format!("knarr serve ended with {status}:\n{}", said()).into());
            }
            if now() > deadline {
                return Err(format!("knarr serve has not made all services ready in a minute:\n{}", said()).into());
            }
            sleep(Duration::from_millis(100));
        }
        Ok(knarr)
    }

    /// A request that must find its service at zero.
    fn cold(&self, app: &App, index: usize) -> Result<(Duration, Timing)> {
        let (time, timing) = self.request(app, index)?;
        match timing.temperature {
            Temperature::Cold => Ok((time, timing)),
            other => Err(format!("{}-{index} was not cold, but {}", app.name, other.name()).into()),
        }
    }

    /// The time to the first byte.
    fn request(&self, app: &App, index: usize) -> Result<(Duration, Timing)> {
        let answer = get(
            TcpStream::connect(self.addr)?,
            &format!("{}-{index}.default.localhost", app.name),
            "/",
        )?;
        let time = answer.first_byte - answer.sent;
        answer.ok().map(|answer| (time, answer.timing))
    }
}

fn ready_services(admin: SocketAddr) -> Result<usize> {
    let answer = get(TcpStream::connect(admin)?, "localhost", "/v1/status")?.ok()?;
    let status: serde_json::Value = serde_json::from_str(&answer.body)?;
    let services = status["services"].as_array().ok_or("no services in the status")?;
    Ok(services
        .iter()
        .filter(|service| service["ready"]["status"] == "True")
        .count())
}

impl Drop for Knarr {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        for _ in 0..200 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A plain start; std spawns by `posix_spawn`, which is vfork and exec.
fn plain(app: &App) -> Result<Duration> {
    let addr = free_addr()?;
    let mut command = Command::new(&app.program);
    command
        .args(&app.args)
        .env("PORT", addr.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start = now();
    let mut process = command.spawn()?;
    let answer = connect(addr, start + Duration::from_secs(30)).and_then(|stream| get(stream, "localhost", "/"));
    process.kill()?;
    process.wait()?;
    Ok(answer?.ok()?.first_byte - start)
}

/// As often as it can, until somebody listens.
fn connect(addr: SocketAddr, deadline: Instant) -> Result<TcpStream> {
    loop {
        match TcpStream::connect(addr) {
            Ok(stream) => return Ok(stream),
            Err(error) if now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
    }
}

struct Answer {
    sent: Instant,
    first_byte: Instant,
    status: u16,
    timing: Timing,
    body: String,
}

impl Answer {
    fn ok(self) -> Result<Self> {
        if self.status == 200 {
            Ok(self)
        } else {
            Err(format!("answered {}: {}", self.status, self.body).into())
        }
    }
}

/// One request on a connection that stands; the answer is read to its end, so that the server is done.
fn get(mut stream: TcpStream, host: &str, path: &str) -> Result<Answer> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let sent = now();
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    reader.fill_buf()?;
    let first_byte = now();
    let mut answer = String::new();
    reader.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("closed without a whole answer")?;
    let status = head.get(9..12).and_then(|code| code.parse().ok()).ok_or("not HTTP")?;
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value.trim())) {
            headers.append(name, value);
        }
    }
    Ok(Answer {
        sent,
        first_byte,
        status,
        timing: Timing::from_headers(&headers),
        body: body.to_owned(),
    })
}

fn print(apps: &[App], all: &mut [Times]) {
    println!("milliseconds to the first byte; plain = vfork, exec, busy connect of the same program in the same run");
    println!(
        "{:<9} {:>6} | {:>9} {:>9} | {:>9} {:>9} | {:>9} | {:>8} | of it, by Server-Timing, p50",
        "app", "starts", "plain p50", "p99", "Knarr p50", "p99", "added p50", "warm p50"
    );
    for (app, times) in apps.iter().zip(all) {
        let phases = Phase::ALL
            .iter()
            .zip(&mut times.phases)
            .filter(|(_, times)| !times.is_empty());
        let phases: Vec<_> = phases
            .map(|(phase, times)| format!("{} {:.2}", phase.name(), quantile(times, 0.5)))
            .collect();
        println!(
            "{:<9} {:>6} | {:>9.2} {:>9.2} | {:>9.2} {:>9.2} | {:>9.2} | {:>8.2} | {}",
            app.name,
            app.starts,
            quantile(&mut times.plain, 0.5),
            quantile(&mut times.plain, 0.99),
            quantile(&mut times.cold, 0.5),
            quantile(&mut times.cold, 0.99),
            added_ms(times),
            quantile(&mut times.warm, 0.5),
            phases.join(", ")
        );
    }
}

fn added_ms(times: &mut Times) -> f64 {
    quantile(&mut times.cold, 0.5) - quantile(&mut times.plain, 0.5)
}

/// In milliseconds: the smallest value that this share of all do not exceed; 0 of none.
fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "few values"
    )]
    let rank = (share * times.len() as f64).ceil() as usize;
    times
        .get(rank.saturating_sub(1))
        .map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[expect(clippy::disallowed_methods, reason = "a measuring program is a shell")]
fn now() -> Instant {
    Instant::now()
}
