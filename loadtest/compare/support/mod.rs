//! What the comparisons have in common: the command line, apps to start, a Knarr to start them, plain starts beside it.

#![allow(dead_code, reason = "each comparison uses its part")]

mod knarr;
pub(crate) mod plain;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

pub(crate) use self::knarr::Knarr;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The programs that every comparison starts; given by its script.
#[derive(clap::Args)]
pub(crate) struct Programs {
    /// The knarr program
    #[arg(long, value_name = "PATH", value_parser = program)]
    pub(crate) knarr: PathBuf,
    /// The workload app
    #[arg(long, value_name = "PATH", value_parser = program)]
    pub(crate) workload: PathBuf,
}

/// The path of a program that is there.
pub(crate) fn program(path: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.is_file() {
        Ok(path)
    } else {
        Err("there is no such program".to_owned())
    }
}

/// Runs a comparison, and says what went wrong.
pub(crate) fn run<Flags: clap::Parser>(measure: impl FnOnce(&Flags) -> Result<()>) -> ExitCode {
    match measure(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A program that listens on `$PORT`.
pub(crate) struct App {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    /// An image with the program; without one it is served as the program of this machine that it is.
    pub(crate) image: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) starts: usize,
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

/// What makes Knarr start nothing before the first request (Knative: `initial-scale` 0 needs the cluster's leave), with
/// more settings of `config-autoscaler`.
pub(crate) fn at_zero(settings: &[(&str, &str)]) -> Value {
    let settings = settings.iter().chain(&[("allow-zero-initial-scale", "true")]);
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
        "data": strings(settings),
    })
}

/// A service of an app, at zero from its creation, with more annotations.
pub(crate) fn service(app: &App, name: &str, annotations: &[(&str, &str)]) -> Value {
    let own = [
        ("autoscaling.knative.dev/initial-scale", "0"),
        ("knarr.dev/server-timing", "enabled"),
    ];
    let program = || format!("host:{}", app.program.display());
    let container = json!({"image": app.image.clone().unwrap_or_else(program), "args": app.args});
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": {
            "metadata": {"annotations": strings(own.iter().chain(annotations))},
            "spec": {"containers": [container]},
        }},
    })
}

fn strings<'a>(pairs: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Map<String, Value> {
    let pairs = pairs.into_iter();
    pairs.map(|(key, value)| ((*key).to_owned(), json!(value))).collect()
}

/// All of them as one file: JSON is YAML.
pub(crate) fn manifest(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
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

#[expect(clippy::disallowed_methods, reason = "a measuring program is a shell")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
