//! The command line: what may be typed, with the help that `--help` prints.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A serverless platform in one binary: runs Knative manifests on this machine, from zero and back.
#[derive(Debug, Parser)]
#[command(name = "knarr", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  knarr demo                                   show everything on this machine, on loopback
  knarr serve manifests/examples/hello.yaml    serve a manifest until Ctrl-C
  knarr run host:/usr/bin/python3 -- -m http.server 8080
  knarr check my-service.yaml                  every mistake at once
  knarr get services                           what a running Knarr serves
  knarr explain hello-00001 --since 10m        why it runs as many replicas as it does";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve manifests until Ctrl-C or SIGTERM; changed files are applied without losing a request
    #[command(after_help = "\
Examples:
  knarr serve manifests/                       a directory: its *.yaml, *.yml and *.json
  cat app.yaml | knarr serve -                 standard input
  knarr serve app.yaml --listen 0.0.0.0:80 --listen '[::]:80'")]
    Serve(Serve),
    /// Serve one program or image, no YAML needed
    #[command(after_help = "\
Examples:
  knarr run host:/usr/bin/python3 --port 8080 -- -m http.server 8080
  knarr run host:./target/release/app --name shop --env GREETING=hello --min-scale 1")]
    Run(Box<Run>),
    /// Check manifests: every error with file, line, field path, what is wrong and what would be right
    #[command(after_help = "Exit code 0 when all is well, 1 when something is wrong.")]
    Check(Check),
    /// Show services, revisions and routes of a running Knarr
    Get(Get),
    /// Print what the sandboxes of a service or revision wrote
    #[command(after_help = "\
Examples:
  knarr logs hello                             the service's running and recent sandboxes
  knarr logs -f --tail 20 hello-00001          follow one revision")]
    Logs(Logs),
    /// Run a command inside a running sandbox, as locked down as its app
    #[command(after_help = "\
Examples:
  knarr exec -it hello -- sh                   a shell in any ready sandbox of the service
  knarr exec hello-00001-x7k2p -- ls -l /tmp   in this sandbox
  tar c . | knarr exec -i hello -- tar x -C /tmp

The exit code is the command's own: 128 + n when signal n killed it, 127 when there is no such program, 126 when it
cannot be executed, 125 when nothing was started. The command is killed when this ends, and with its sandbox.")]
    Exec(Exec),
    /// Show what sandboxes use now: CPU, memory, requests; live in a terminal
    #[command(after_help = "\
Examples:
  knarr top                                    live, until Ctrl-C
  knarr top --once --sort memory               one table
  knarr top --json                             the same for programs")]
    Top(Top),
    /// Show everything known of a service, revision or sandbox; values of Secrets never
    Inspect(Inspect),
    /// Say why a revision runs as it does: inputs, clamps, choice, alternatives and their price
    Explain(Explain),
    /// Show where a service stands while nobody asks: rungs by age, prices, latency bounds, and what else was looked at
    #[command(after_help = "\
Examples:
  knarr plan hello                             the plan of the service's newest revision, and what is asked of it now
  knarr plan hello-00001 -o json               the same for programs")]
    Plan(Plan),
    /// Show what every revision costs, now and today, beside Knative's defaults and an instance that never goes
    #[command(after_help = "\
Without being asked it says what min-scale costs, and what a cheaper rung would save. Prices are those of the catalogue.")]
    Cost(Cost),
    /// Say what this host can do, by trying; what is missing, what that costs and how to mend it
    #[command(after_help = "Exit code 1 when sandboxes cannot be isolated here at all, 0 otherwise.")]
    Doctor(Doctor),
    /// Show, pull and remove images of the store; with a Knarr running or without
    #[command(after_help = "\
Examples:
  knarr images                                 what is there, and which revisions use it
  knarr images pull nginx:1.27 oci:./build:app get images before they are deployed
  knarr images rm 127.0.0.1:5000/app:v1
  knarr images prune --all                     remove what no revision uses")]
    Images(Images),
    /// Decide again what the flight recorder has written, bit for bit; show what another policy would have done
    #[command(after_help = "\
Examples:
  knarr replay                                 what this machine's Knarr recorded, also while it runs
  knarr replay flight/                         a directory that was copied from elsewhere
  knarr replay --policy auto --policy fixed-10m --catalogue eci

Exit code 0 when every decision came out as it was recorded, 1 when one did not.")]
    Replay(Replay),
    /// Load on anything that speaks HTTP, and what is made of its results
    Load(Box<crate::load::Load>),
    /// What policies would cost over a trace of real calls: the shipped decider and planner in virtual time
    #[command(after_help = "\
Examples:
  knarr simulate loadtest/traces/azure2019-236            every policy, once
  knarr simulate loadtest/traces/azure2019-236 --evaluate the verdict: 10 seeds, half of the functions, what is demanded
  knarr simulate calls.csv --policy auto --policy knative --output json
  knarr simulate loadtest/traces/azure2019-236 --output svg > frontier.svg")]
    Simulate(Box<crate::simulate::Simulate>),
    /// Show on this machine what Knarr does: cold start, burst, split, crashes, the cold-start promise
    Demo(Demo),
    /// The small HTTP app behind the examples (`knarr workload --help`)
    #[command(disable_help_flag = true)]
    Workload {
        /// Passed on as they are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  knarr completions bash > /etc/bash_completion.d/knarr")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What `serve` and `run` share.
#[derive(Debug, Args)]
pub(crate) struct ServerFlags {
    /// Address to listen on, IPv4 or IPv6; may be repeated [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Vec<String>,
    /// Loopback address of the read-only admin port: /metrics, /v1/status [default: 127.0.0.1:9090]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Settings file (TOML): the same as these flags, queue bounds and more
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What instances cost: local, eci, ecs-burstable, fargate, or a file with a ConfigMap config-instances
    /// [default: what the manifests say, else local]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) instances: Option<String>,
    /// Gateway threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Memory of all sandboxes together: bytes as in 2Gi, or a share of the machine's [default: 75%]
    #[arg(long, value_name = "BYTES|N%")]
    pub(crate) memory_budget: Option<String>,
    /// What the flight recorder, which `knarr replay` reads, may take on disk: bytes as in 200Mi, or off [default: 64Mi]
    #[arg(long, value_name = "BYTES|off")]
    pub(crate) flight_recorder: Option<String>,
    /// Registry (HOST[:PORT]) to speak to without TLS, on loopback too; may be repeated
    #[arg(long, value_name = "REGISTRY")]
    pub(crate) insecure_registry: Vec<String>,
    /// Where apps may connect to whose manifest does not say: none, full, or a list of destinations, such as
    /// 'api.example.com:443, 10.0.0.0/8' [default: none]
    #[arg(long, value_name = "POLICY")]
    pub(crate) egress: Option<String>,
    /// Run programs as plain processes, for hosts that allow no isolation; only for programs you trust
    #[arg(long)]
    pub(crate) unsafe_no_isolation: bool,
}

/// Which Knarr is meant.
#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// State, logs and control socket [default: /var/lib/knarr as root, ~/.local/state/knarr otherwise]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Manifest files, directories, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// What to run: an image (nginx, ghcr.io/ann/app:v1, oci:DIR, docker-archive:FILE, docker-daemon:NAME, dir:PATH), or
    /// a program of this machine (host:/path/to/program, or host:NAME to look it up)
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Arguments of the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
    /// The service's name [default: the image's or program's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The namespace
    #[arg(long, default_value = "default")]
    pub(crate) namespace: String,
    /// The port the program listens on; also its $PORT
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Environment of the program; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Replaces the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) command: Option<String>,
    /// Empty at each start (/path), kept under the data directory (NAME:/path), or of this machine (/dir:/path); with :ro
    /// not writable; may be repeated
    #[arg(short, long, value_name = "[FROM:]PATH[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Fewest replicas
    #[arg(long, value_name = "N")]
    pub(crate) min_scale: Option<u32>,
    /// Most replicas
    #[arg(long, value_name = "N")]
    pub(crate) max_scale: Option<u32>,
    /// Requests in flight per replica; 0 is no limit
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<u32>,
    /// Limit on the latency added by a cold start, as in p99<500ms; picks the cheapest way to idle that keeps it
    #[arg(long, value_name = "SLA")]
    pub(crate) cold_start_sla: Option<String>,
    /// CPU limit, as in 500m or 2
    #[arg(long)]
    pub(crate) cpu: Option<String>,
    /// Memory limit, as in 256Mi
    #[arg(long)]
    pub(crate) memory: Option<String>,
    /// Print the manifest and end
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Manifest files, directories, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// The settings of the Knarr that is to serve them (TOML): runtimeClassName must name a runtime of it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print only errors, no warnings
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What to show
    #[arg(default_value = "all")]
    pub(crate) what: What,
    /// Only this namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// How to show it
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum What {
    All,
    #[value(alias = "service", alias = "ksvc")]
    Services,
    #[value(alias = "revision", alias = "rev")]
    Revisions,
    #[value(alias = "route", alias = "rt")]
    Routes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// A service, revision or sandbox, as NAME or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    pub(crate) target: String,
    /// Go on printing what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N lines of each sandbox
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// Only lines that are not older, as in 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) since: Option<Duration>,
    /// Print the time of each line
    #[arg(long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// A sandbox, or a revision or service for any ready one, as NAME or NAMESPACE/NAME
    #[arg(value_name = "SANDBOX")]
    pub(crate) target: String,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(crate) command: Vec<String>,
    /// Pass standard input on to it
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// In this container [default: the one that serves]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// As this user of the image, by name or number [default: who the app runs as]
    #[arg(short, long, value_name = "USER[:GROUP]", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) user: Option<String>,
    /// A variable for it; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Only this namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Highest first
    #[arg(short, long, default_value = "cpu")]
    pub(crate) sort: SortBy,
    /// Time between two looks, and what CPU and requests per second are measured over
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// Print one table and end; also when standard output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
    /// Print one look as JSON and end
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SortBy {
    Cpu,
    Memory,
    /// Requests in flight, then requests per second
    Requests,
    /// Oldest first
    Age,
    Name,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A service, revision or sandbox, as NAME or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    pub(crate) target: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A revision, or a service for its latest one, as NAME or NAMESPACE/NAME
    #[arg(value_name = "REVISION")]
    pub(crate) revision: String,
    /// How far to look back, as in 10m
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub(crate) since: Duration,
    /// How to show it
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// A service or revision, as NAME or NAMESPACE/NAME
    #[arg(value_name = "SERVICE")]
    pub(crate) revision: String,
    /// How to show it
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Cost {
    /// Only this namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// How to show it
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A recording: one file, a directory of them, or a data directory [default: the data directory]
    #[arg(value_name = "FILE|DIR")]
    pub(crate) path: Option<PathBuf>,
    /// Show what the same requests would have come to with this policy for every revision: knative, auto, zero, frozen,
    /// throttled, reserve, keep, always-on, fixed-TIME (as fixed-10m); may be repeated
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Vec<control::whatif::Policy>,
    /// With these prices: local, eci, ecs-burstable, fargate, or a file with a ConfigMap config-instances [default: the
    /// recording's]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) catalogue: Option<String>,
    /// How to show it
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Address that a server would listen on; may be repeated [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Vec<String>,
    /// Address of its admin port [default: 127.0.0.1:9090]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    #[command(subcommand)]
    pub(crate) command: Option<ImagesCommand>,
    #[command(flatten)]
    pub(crate) place: ImagesPlace,
}

/// Which store, and how registries are reached.
#[derive(Debug, Args)]
pub(crate) struct ImagesPlace {
    /// State, logs and control socket [default: /var/lib/knarr as root, ~/.local/state/knarr otherwise]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Settings file (TOML): its data-dir, insecure-registries and registry-certs
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Registry (HOST[:PORT]) to speak to without TLS, on loopback too; may be repeated
    #[arg(long, value_name = "REGISTRY", global = true)]
    pub(crate) insecure_registry: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// Show what is there (also without a word)
    List {
        /// How to show it
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Fetch and unpack images; a tag is asked for again
    Pull {
        /// As in `image:` of a manifest; paths may be relative
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove images by name, also a tag's pinned ones, or by digest
    Rm {
        /// A name or digest of `knarr images`
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// Also what a revision uses: it is fetched again for its next start
        #[arg(long)]
        force: bool,
    },
    /// Remove layers that no image has
    Prune {
        /// Also images that no revision uses
        #[arg(short, long)]
        all: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Only these scenes; may be repeated [default: all]
    #[arg(long, value_name = "SCENE")]
    pub(crate) only: Vec<crate::demo::Scene>,
    /// Instead of scenes: so many real apps, woken at random within a memory budget
    #[arg(long, value_name = "N", conflicts_with = "only", value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub(crate) apps: Option<u16>,
    /// With --apps: what all sandboxes together may hold
    #[arg(long, value_name = "SIZE", default_value = "1Gi", requires = "apps")]
    pub(crate) memory_budget: String,
    /// With --apps: wake-ups a second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0, requires = "apps")]
    pub(crate) rate: f64,
    /// With --apps: for how long
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = parse_duration, requires = "apps")]
    pub(crate) time: Duration,
    /// With --apps: which apps are woken when is the same for the same number
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "apps")]
    pub(crate) seed: u64,
    /// Plain lines, no live redrawing (also when standard output is no terminal)
    #[arg(long)]
    pub(crate) plain: bool,
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    control::config::duration("duration", text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
