//! `knarr load coldstart`: how long a request at zero takes, on anything that scales to zero.

use std::io::IsTerminal as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use http::{HeaderName, HeaderValue};
use indicatif::{ProgressBar, ProgressStyle};
use loadtest::coldstart::{ColdStarts, Try};
use loadtest::{Knarr, Plan, Results, Target, Watch};
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::sleep;

use super::output::Outputs;
use crate::args::parse_duration;
use crate::out;

#[derive(Debug, Args)]
pub(crate) struct Coldstart {
    /// What to ask: http or https
    #[arg(value_name = "URL")]
    url: String,
    /// How many cold starts
    #[arg(short = 'n', long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tries: u32,
    /// Zero as this Knarr's status says: the address of its admin port [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS", group = "zero")]
    status: Option<String>,
    /// Zero as `kubectl get pods` says: no pod of this Knative service, as NAME or NAMESPACE/NAME
    #[arg(long, value_name = "SERVICE", group = "zero")]
    knative: Option<String>,
    /// Zero as stated: after so much time without a request, as in 5m
    #[arg(long, value_name = "DURATION", group = "zero", value_parser = parse_duration)]
    idle: Option<Duration>,
    /// A header to send; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The Host header, instead of the URL's host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
    /// How long to wait for zero before each
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    patience: Duration,
    #[command(flatten)]
    outputs: Outputs,
}

/// Measures; exit code 1 when nothing was cold.
pub(crate) fn coldstart(args: &Coldstart) -> anyhow::Result<ExitCode> {
    args.outputs.check()?;
    if args.outputs.wants_each() {
        bail!("-o FILE.csv is for runs; the single starts are in --json");
    }
    let target = target(args)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let (starts, results) = runtime.block_on(measure(args, &target))?;
    let text = if args.outputs.is_json() {
        serde_json::to_string_pretty(&starts)? + "\n"
    } else {
        starts.to_string()
    };
    if let Some(results) = results {
        args.outputs.write_files(&results)?;
    }
    out::print(text.as_bytes())?;
    Ok(if starts.cold > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn target(args: &Coldstart) -> anyhow::Result<Target> {
    let mut target = Target::from_url(&args.url).map_err(anyhow::Error::msg)?;
    if let Some(host) = &args.host {
        target.host.clone_from(host);
    }
    // Knarr is asked for its phases; for others it is one unknown header more.
    target.headers.insert("x-knarr-timing", HeaderValue::from_static("1"));
    for header in &args.header {
        let wrong = || format!("{header:?} is no header, as in 'Accept: text/html'");
        let (name, value) = header.split_once(':').with_context(wrong)?;
        let name = HeaderName::try_from(name.trim()).with_context(wrong)?;
        target
            .headers
            .append(name, HeaderValue::try_from(value.trim()).with_context(wrong)?);
    }
    // Each start is met by a new client.
    target.keep_alive = false;
    Ok(target)
}

/// Ctrl-C ends it with what there is.
async fn measure(args: &Coldstart, target: &Target) -> anyhow::Result<(ColdStarts, Option<Results>)> {
    let mut zero = Zero::new(args, target);
    let bar = progress(args.tries);
    let mut tries = Vec::new();
    let mut all: Option<Results> = None;
    #[expect(clippy::disallowed_methods, reason = "a shell: it measures a running server")]
    let began = Instant::now();
    for nth in 1..=args.tries {
        let one = async {
            bar.set_message("waiting for zero");
            zero.wait(args.patience).await?;
            bar.set_message("waiting for the answer");
            let after = began.elapsed();
            let plan = Plan {
                timeout: args.timeout,
                ..Plan::burst(target.clone(), 1)
            };
            anyhow::Ok((after, loadtest::run(plan, |_| {}).await?))
        };
        let (after, results) = tokio::select! {
            one = one => one?,
            _ = tokio::signal::ctrl_c() => {
                if let Some(all) = &mut all {
                    all.interrupted = true;
                }
                break;
            }
        };
        tries.extend(Try::of(&results));
        match &mut all {
            Some(all) => all.append(results, after),
            None => all = Some(results),
        }
        bar.set_position(nth.into());
    }
    bar.finish_and_clear();
    if let Some(all) = &mut all {
        all.asked = format!("{} requests, each at zero: {}", tries.len(), zero.words());
    }
    Ok((ColdStarts::new(zero.words(), tries), all))
}

fn progress(tries: u32) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len}  {msg}  {elapsed}, {eta} left");
    let bar = ProgressBar::new(tries.into()).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// How it is known that nothing runs.
enum Zero {
    Knarr { watch: Box<Watch>, admin: String },
    Knative { namespace: String, name: String },
    Idle(Duration),
}

/// How long it must have been at zero.
const SETTLED: Duration = Duration::from_millis(500);

const DEFAULT_ADMIN: &str = "127.0.0.1:9090";

impl Zero {
    fn new(args: &Coldstart, target: &Target) -> Self {
        if let Some(idle) = args.idle {
            return Self::Idle(idle);
        }
        if let Some(service) = &args.knative {
            let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
            return Self::Knative {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
        }
        let admin = args.status.clone().unwrap_or_else(|| DEFAULT_ADMIN.to_owned());
        let knarr = Knarr {
            admin: admin.clone(),
            services: Vec::new(),
        };
        let watch = Box::new(Watch::new(&knarr, std::slice::from_ref(target)));
        Self::Knarr { watch, admin }
    }

    fn words(&self) -> String {
        match self {
            Self::Knarr { admin, .. } => format!("no replica, as Knarr's status at {admin} says"),
            Self::Knative { namespace, name } => format!("no pod of {namespace}/{name}, as kubectl says"),
            Self::Idle(time) => format!(
                "{} without a request, taken on trust",
                humantime::format_duration(*time)
            ),
        }
    }

    /// Until nothing runs, and nothing has run for a moment: what is being stopped is no longer counted, and may still answer.
    async fn wait(&mut self, patience: Duration) -> anyhow::Result<()> {
        let pause = match self {
            Self::Knarr { .. } => Duration::from_millis(50),
            Self::Knative { .. } => Duration::from_secs(1),
            Self::Idle(time) => {
                sleep(*time).await;
                return Ok(());
            }
        };
        #[expect(clippy::disallowed_methods, reason = "a shell: it watches a running server")]
        let now = Instant::now;
        let began = now();
        let mut since = None;
        loop {
            since = match since {
                _ if !self.is_there().await? => None,
                Some(since) if now().duration_since(since) >= SETTLED => return Ok(()),
                Some(since) => Some(since),
                None => Some(now()),
            };
            if since.is_none() && began.elapsed() > patience {
                bail!(
                    "not at zero after {}: {}",
                    humantime::format_duration(patience),
                    self.words()
                );
            }
            sleep(pause).await;
        }
    }

    async fn is_there(&mut self) -> anyhow::Result<bool> {
        match self {
            Self::Knarr { watch, .. } => {
                let state = watch.look().await.map_err(anyhow::Error::msg);
                let hint = "cannot see when it is at zero; give --status, --knative or --idle";
                let state = state.context(hint)?.all;
                Ok(state.replicas == 0 && state.starting == 0)
            }
            Self::Knative { namespace, name } => {
                let label = format!("serving.knative.dev/service={name}");
                let said = Command::new("kubectl")
                    .args([
                        "get",
                        "pods",
                        "--namespace",
                        namespace,
                        "--selector",
                        &label,
                        "--output",
                        "name",
                    ])
                    .output()
                    .context("cannot run kubectl")?;
                if !said.status.success() {
                    bail!("kubectl: {}", String::from_utf8_lossy(&said.stderr).trim());
                }
                Ok(said.stdout.trim_ascii().is_empty())
            }
            Self::Idle(_) => Ok(true),
        }
    }
}
