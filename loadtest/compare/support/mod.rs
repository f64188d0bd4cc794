//! What the comparisons have in common: apps to start, a Knarr to start them, and a client that looks at the first byte.

#![allow(dead_code, reason = "each comparison uses its part")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use loadtest::Timing;
use rustix::process::{Pid, Signal, kill_process};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A program that listens on `$PORT`.
pub(crate) struct App {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    /// An image with the program; without one it is served as the program of this machine that it is.
    pub(crate) image: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) starts: usize,
}

impl App {
    /// As manifests name it.
    pub(crate) fn image(&self) -> String {
        let program = || format!("host:{}", self.program.display());
        self.image.clone().unwrap_or_else(program)
    }
}

/// The workload app, and Python and Node where they are installed: `starts` and `others` of each.
pub(crate) fn apps(workload: &Path, work: &Path, starts: usize, others: usize) -> Result<Vec<App>> {
    // In a directory that any user may read: the sandbox runs it as one.
    let copy = work.join("app/knarr-workload");
    fs::create_dir(work.join("app"))?;
    fs::copy(workload, &copy)?;
    let mut apps = vec![App {
        name: "workload",
        program: copy,
        image: None,
        args: Vec::new(),
        starts,
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
        if others > 0 && Path::new(program).exists() {
            let args = vec![flag.to_owned(), script.to_owned()];
            apps.push(App {
                name,
                program: program.into(),
                image: None,
                args,
                starts: others,
            });
        }
    }
    Ok(apps)
}

/// `knarr serve`; ended on drop.
pub(crate) struct Knarr {
    process: Child,
    addr: SocketAddr,
    admin: SocketAddr,
}

impl Knarr {
    /// Returns when `services` services are ready, which starts none of them.
    pub(crate) fn start(program: &Path, flags: &[&str], manifest: &Path, work: &Path, services: usize) -> Result<Self> {
        let (addr, admin) = (free_addr()?, free_addr()?);
        let log = work.join("knarr.log");
        let process = Command::new(program)
            .args(["serve", "--listen", &addr.to_string(), "--admin", &admin.to_string()])
            .args(flags)
            .arg("--data-dir")
            .arg(work.join("data"))
            .arg(manifest)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()?;
        let mut knarr = Self { process, addr, admin };
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

    /// The time to the first byte.
    pub(crate) fn request(&self, service: &str) -> Result<(Duration, Timing)> {
        let answer = get(
            TcpStream::connect(self.addr)?,
            &format!("{service}.default.localhost"),
            "/",
        )?;
        let time = answer.first_byte - answer.sent;
        answer.ok().map(|answer| (time, answer.timing))
    }

    /// The status document.
    pub(crate) fn status(&self) -> Result<serde_json::Value> {
        status(self.admin)
    }
}

fn status(admin: SocketAddr) -> Result<serde_json::Value> {
    let answer = get(TcpStream::connect(admin)?, "localhost", "/v1/status")?.ok()?;
    Ok(serde_json::from_str(&answer.body)?)
}

fn ready_services(admin: SocketAddr) -> Result<usize> {
    let status = status(admin)?;
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

pub(crate) struct Answer {
    pub(crate) sent: Instant,
    pub(crate) first_byte: Instant,
    status: u16,
    timing: Timing,
    body: String,
}

impl Answer {
    pub(crate) fn ok(self) -> Result<Self> {
        if self.status == 200 {
            Ok(self)
        } else {
            Err(format!("answered {}: {}", self.status, self.body).into())
        }
    }
}

/// One request on a connection that stands; the answer is read to its end, so that the server is done.
pub(crate) fn get(mut stream: TcpStream, host: &str, path: &str) -> Result<Answer> {
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

/// In milliseconds: the smallest value that this share of all do not exceed; 0 of none.
pub(crate) fn quantile(times: &mut [Duration], share: f64) -> f64 {
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

pub(crate) fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[expect(clippy::disallowed_methods, reason = "a measuring program is a shell")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
