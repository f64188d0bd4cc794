//! `knarr load URL`: one stage against one target, from flags.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue, Method, header};
use loadtest::results::Ended;
use loadtest::{Arrivals, Data, Protocol, Scenario, Stage, Target, Tls};
use manifests::units::Rps;

use super::go::{go, knarr};
use super::output::Outputs;
use crate::args::parse_duration;

/// What to send, and how much of it.
#[derive(Debug, Args)]
pub(crate) struct Url {
    /// Where to send requests: http://HOST[:PORT]/PATH or https://...
    #[arg(value_name = "URL", required = true)]
    url: Option<String>,
    /// Requests per second, on a schedule that waits for no answer [default: 100]
    #[arg(short, long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// How requests come at that rate [default: poisson]
    #[arg(long)]
    arrivals: Option<Gaps>,
    /// A closed loop instead, or with --rate beside it: so many clients, each of whom asks again when it has its answer. A
    /// slow server is asked less, and their latencies do not show it (coordinated omission)
    #[arg(short, long, value_name = "CLIENTS")]
    concurrency: Option<usize>,
    /// For how long
    #[arg(short, long, alias = "z", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Method [default: GET, POST with a body]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,
    /// Header; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Body, or @FILE
    #[arg(short, long, value_name = "TEXT|@FILE")]
    body: Option<String>,
    /// Host header: which app behind the address
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// CSV file whose columns stand in path, headers and body as {{column}}, a row per request
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Speak HTTP/1.1 only
    #[arg(long, conflicts_with = "http2")]
    http1: bool,
    /// Speak HTTP/2 only; without TLS with prior knowledge (h2c)
    #[arg(long)]
    http2: bool,
    /// Accept every certificate
    #[arg(short = 'k', long)]
    insecure: bool,
    /// Certificate authorities (PEM) instead of this machine's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// At most so many connections [default: 512, or one per client]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// At most so many requests at once on an HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 100)]
    streams: usize,
    /// A connection of its own for every request
    #[arg(long)]
    no_keep_alive: bool,
    /// How long to wait for an answer, from when its request was due
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Threads that generate [default: one for each 25,000 requests per second]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The same number gives the same schedule
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Admin address of the Knarr behind, for replicas, rung and queue; none for no Knarr [default: 127.0.0.1:9090 when it
    /// serves the target]
    #[arg(long, value_name = "ADDRESS")]
    status: Option<String>,
    /// No live view
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    outputs: Outputs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Gaps {
    /// As independent users come
    Poisson,
    /// At equal distances
    Constant,
}

/// Runs it. Fails when there was no answer at all.
pub(crate) fn url(args: &Url) -> anyhow::Result<ExitCode> {
    args.outputs.check()?;
    let mut scenario = scenario(args)?;
    scenario.knarr = knarr(args.status.as_deref(), &scenario.targets)?;
    scenario.each = args.outputs.wants_each();
    let results = go(scenario, args.quiet)?;
    args.outputs.write(&results)?;
    let answers = results.count(|series| matches!(series.ended, Ended::Status(_)));
    Ok(if answers > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn scenario(args: &Url) -> anyhow::Result<Scenario> {
    let target = target(args)?;
    let open = || {
        let rate = Rps(args.rate.unwrap_or(100.0));
        let arrivals = match args.arrivals {
            Some(Gaps::Constant) => Arrivals::Constant(rate),
            Some(Gaps::Poisson) | None => Arrivals::Poisson(rate),
        };
        Stage::new("all", arrivals, args.duration)
    };
    let stages = match args.concurrency {
        Some(concurrency) if args.rate.is_some() => {
            let open = Stage {
                name: "by rate".to_owned(),
                ..open()
            };
            let clients = open.with_clients(concurrency);
            vec![open, clients]
        }
        Some(_) if args.arrivals.is_some() => bail!("--arrivals is how requests come at a --rate, and none is given"),
        Some(concurrency) => vec![Stage::closed("all", concurrency, args.duration)],
        None => vec![open()],
    };
    Ok(Scenario {
        threads: args.threads,
        timeout: args.timeout,
        seed: args.seed,
        ..Scenario::new(target.url(), vec![target], stages)
    })
}

fn target(args: &Url) -> anyhow::Result<Target> {
    let url = args.url.as_deref().unwrap_or_default();
    let mut target = Target::from_url(url).map_err(anyhow::Error::msg)?;
    if let Some(host) = &args.host {
        host.clone_into(&mut target.host);
        host.clone_into(&mut target.name);
    }
    for text in &args.header {
        let (name, value) = text
            .split_once(':')
            .with_context(|| format!("the header {text:?} must be as in 'Accept: text/html'"))?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| anyhow!("{name:?} is no name of a header"))?;
        let value = HeaderValue::try_from(value.trim()).map_err(|_| anyhow!("the value of {text:?} cannot be sent"))?;
        if name == header::HOST {
            value.to_str()?.clone_into(&mut target.host);
        } else {
            target.headers.append(name, value);
        }
    }
    if let Some(body) = &args.body {
        target.body = match body.strip_prefix('@') {
            Some(path) => std::fs::read(path)
                .with_context(|| format!("cannot read {path}"))?
                .into(),
            None => body.clone().into_bytes().into(),
        };
        target.method = Method::POST;
    }
    if let Some(method) = &args.method {
        target.method = Method::from_bytes(method.as_bytes()).map_err(|_| anyhow!("{method:?} is no HTTP method"))?;
    }
    if let Some(path) = &args.data {
        let read = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let data = Data::from_csv(&read).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        target.data = Some(data);
    }
    target.protocol = match (args.http1, args.http2) {
        (true, _) => Protocol::Http1,
        (_, true) => Protocol::Http2,
        _ => Protocol::Auto,
    };
    match &mut target.tls {
        Some(tls) => {
            *tls = Tls {
                insecure: args.insecure,
                authorities: args.cacert.clone(),
                // Of the app that is asked for, not of the address it is behind.
                server_name: match &args.host {
                    Some(host) => Some(without_port(host)),
                    None => tls.server_name.take(),
                },
            };
        }
        None if args.insecure || args.cacert.is_some() => {
            bail!("--insecure and --cacert are for https, but the URL is {url}");
        }
        None => {}
    }
    let clients = args.concurrency.filter(|_| args.rate.is_none());
    target.connections = args.connections.or(clients).unwrap_or(target.connections);
    target.streams = args.streams;
    target.keep_alive = !args.no_keep_alive;
    Ok(target)
}

fn without_port(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => host.to_owned(),
    }
}
