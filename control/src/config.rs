//! Knarr's own settings: what `--config FILE` (TOML) and the flags fill alike, checked once.
//!
//! Cluster settings that Knative keeps in ConfigMaps (`config-autoscaler` and its siblings) are manifests, not this.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::bundle::Input;
use manifests::instances::{Instances, SHIPPED};
use manifests::resources::Quantity;
use manifests::units::Bytes;
use manifests::workload::Egress;
use sandbox::Runtime;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The settings as written, by file or by flag; what is absent gets its default in [`Config::from_raw`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawConfig {
    /// Addresses the gateway listens on. Default `127.0.0.1:8080`.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Address of the read-only admin port (`/metrics`, `/v1/status`); must be loopback. Default `127.0.0.1:9090`.
    pub admin: Option<String>,
    /// Where sandboxes, logs and the control socket live. Default: see [`default_data_dir`].
    pub data_dir: Option<PathBuf>,
    /// Gateway threads, 1 to 1024. Default: one per core. Each costs about 1 MiB and its own upstream connections.
    pub threads: Option<usize>,
    /// How long shutdown waits for requests in flight. Default `30s`.
    pub drain_timeout: Option<String>,
    /// Bounds of the queues.
    #[serde(default)]
    pub queue: RawQueue,
    /// The catalogue of instance specs with their prices: one that comes with Knarr (`local`, `eci`, `ecs-burstable`,
    /// `fargate`), or a file with a ConfigMap `config-instances`. Default: what the manifests say, else `local`.
    pub instances: Option<String>,
    /// Where the catalogue stood before it was a ConfigMap; refused with a word on that.
    #[serde(default, rename = "spec")]
    pub former_specs: Option<IgnoredAny>,
    /// As `former_specs`.
    #[serde(default, rename = "frozen")]
    pub former_frozen: Option<IgnoredAny>,
    /// Memory of all sandboxes together: bytes as Kubernetes writes them (`2Gi`), or a share of the machine's (`50%`). At
    /// least 64 MiB. Default `75%`, of the limit of Knarr's own cgroup where there is one.
    pub memory_budget: Option<String>,
    /// What the flight recorder may take on disk: bytes as Kubernetes writes them (`64Mi`), at least 1 MiB, or `off`.
    /// Default `64Mi`.
    pub flight_recorder: Option<String>,
    /// Whether memory of frozen sandboxes is moved to swap, where there is any. Default true.
    pub reclaim_frozen: Option<bool>,
    /// OCI runtimes that manifests may name in `runtimeClassName`.
    #[serde(default, rename = "runtime")]
    pub runtimes: Vec<RawRuntime>,
    /// Where the profiles are that manifests name in `localhostProfile`. Default `seccomp` in the data directory.
    pub seccomp_profiles: Option<PathBuf>,
    /// Registries (`HOST[:PORT]`) that are spoken to without TLS, those on loopback too. Default none.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
    /// What all images together may take on disk: bytes as Kubernetes writes them (`20Gi`), at least 1 MiB. The images used
    /// longest ago go to make room; those of revisions and running sandboxes stay. Default: until the disk is full.
    pub image_quota: Option<String>,
    /// A directory with certificate authorities of registries: `HOST[:PORT]/*.crt`. Default `/etc/docker/certs.d` and
    /// `/etc/containers/certs.d`.
    pub registry_certs: Option<PathBuf>,
    /// Where apps may connect to whose manifest does not say: `none`, `full`, or rules as in `knarr.dev/egress-allow`.
    /// Default `none`.
    pub egress: Option<String>,
    /// Run programs as plain processes, without isolation.
    #[serde(default)]
    pub unsafe_no_isolation: bool,
}

/// An OCI runtime of this machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawRuntime {
    /// What manifests call it; not `native`.
    pub name: String,
    /// Its program; an absolute path.
    pub path: PathBuf,
    /// Its own flags, before `run`; it must not make cgroups. Default: what runc and crun need for that.
    pub args: Option<Vec<String>>,
}

/// Bounds of the queues in front of revisions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawQueue {
    /// Requests that may wait per revision, 1 to 1,000,000. Default 10,000, Knative's depth.
    pub requests: Option<usize>,
    /// How long a request may wait. Default: the revision's `timeoutSeconds`.
    pub timeout: Option<String>,
}

/// The settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses the gateway listens on; at least one.
    pub listen: Vec<SocketAddr>,
    /// Address of the admin port; always loopback.
    pub admin: SocketAddr,
    /// Where sandboxes, logs and the control socket live.
    pub data_dir: PathBuf,
    /// Gateway threads.
    pub threads: usize,
    /// How long shutdown waits for requests in flight.
    pub drain_timeout: Duration,
    /// Requests that may wait per revision.
    pub queue_requests: usize,
    /// How long a request may wait for a slot; `None` is the revision's own timeout.
    pub queue_timeout: Option<Duration>,
    /// The catalogue of instance specs; `None` is what the manifests say.
    pub instances: Option<Catalogue>,
    /// Memory of all sandboxes together.
    pub memory_budget: Bytes,
    /// What the flight recorder may take on disk; `None` turns it off.
    pub flight_recorder: Option<Bytes>,
    /// Whether memory of frozen sandboxes is moved to swap.
    pub reclaim_frozen: bool,
    /// OCI runtimes by the names that manifests may use.
    pub runtimes: BTreeMap<String, Runtime>,
    /// Where the profiles are that manifests name in `localhostProfile`; `None` is `seccomp` in the data directory.
    pub seccomp_profiles: Option<PathBuf>,
    /// What all images together may take on disk; `None` is no limit.
    pub image_quota: Option<Bytes>,
    /// How image registries are reached.
    pub registry: images::registry::Settings,
    /// Where apps may connect to whose manifest does not say.
    pub egress: Egress,
    /// Run programs as plain processes, without isolation.
    pub unsafe_no_isolation: bool,
    /// Whether images of this machine are taken as they are now, whatever an earlier Knarr has pinned. Default false: not a
    /// setting, but what `knarr run` is for.
    pub images_as_now: bool,
}

/// A catalogue of instance specs that the settings name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Catalogue {
    /// Comes with Knarr.
    Shipped(Input),
    /// A file with a ConfigMap `config-instances`; looked at as other manifests are, and watched as they are.
    File(PathBuf),
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a field of the wrong name or type.
    #[error("{path}: {message}", path = path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and what, with the line quoted.
        message: String,
    },
    /// A value is out of its range.
    #[error("{field}: {message}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl RawConfig {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or has an unknown field.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string().trim().to_owned(),
        })
    }

    /// `self` where it says something, `under` where it does not: flags over file.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            listen: if self.listen.is_empty() {
                under.listen
            } else {
                self.listen
            },
            admin: self.admin.or(under.admin),
            data_dir: self.data_dir.or(under.data_dir),
            threads: self.threads.or(under.threads),
            drain_timeout: self.drain_timeout.or(under.drain_timeout),
            queue: RawQueue {
                requests: self.queue.requests.or(under.queue.requests),
                timeout: self.queue.timeout.or(under.queue.timeout),
            },
            instances: self.instances.or(under.instances),
            former_specs: self.former_specs.or(under.former_specs),
            former_frozen: self.former_frozen.or(under.former_frozen),
            memory_budget: self.memory_budget.or(under.memory_budget),
            flight_recorder: self.flight_recorder.or(under.flight_recorder),
            reclaim_frozen: self.reclaim_frozen.or(under.reclaim_frozen),
            runtimes: if self.runtimes.is_empty() {
                under.runtimes
            } else {
                self.runtimes
            },
            seccomp_profiles: self.seccomp_profiles.or(under.seccomp_profiles),
            insecure_registries: if self.insecure_registries.is_empty() {
                under.insecure_registries
            } else {
                self.insecure_registries
            },
            image_quota: self.image_quota.or(under.image_quota),
            registry_certs: self.registry_certs.or(under.registry_certs),
            egress: self.egress.or(under.egress),
            unsafe_no_isolation: self.unsafe_no_isolation || under.unsafe_no_isolation,
        }
    }
}

impl Config {
    /// Checks every value and fills the defaults.
    ///
    /// # Errors
    /// The first value that cannot be used, with what would be right.
    pub fn from_raw(raw: RawConfig) -> Result<Self, ConfigError> {
        for (field, former) in [("spec", raw.former_specs), ("frozen", raw.former_frozen)] {
            if former.is_some() {
                let message = "is a manifest now, which may change while Knarr runs: write a ConfigMap config-instances \
                               (docs/planner.md), or name a catalogue: instances = \"local\"";
                return Err(value(field, message.to_owned()));
            }
        }
        let listen = if raw.listen.is_empty() {
            vec!["127.0.0.1:8080".to_owned()]
        } else {
            raw.listen
        };
        let listen = listen
            .iter()
            .map(|text| address("listen", text))
            .collect::<Result<Vec<_>, _>>()?;
        let admin = address("admin", raw.admin.as_deref().unwrap_or("127.0.0.1:9090"))?;
        if !admin.ip().is_loopback() {
            return Err(value(
                "admin",
                format!("{admin} is not a loopback address; the admin port has no access control, use 127.0.0.1:PORT"),
            ));
        }
        let threads = match raw.threads {
            None => std::thread::available_parallelism().map_or(1, usize::from),
            Some(threads @ 1..=1024) => threads,
            Some(other) => return Err(value("threads", format!("{other} is out of range; 1 to 1024"))),
        };
        let queue_requests = match raw.queue.requests {
            None => 10_000,
            Some(requests @ 1..=1_000_000) => requests,
            Some(other) => {
                return Err(value(
                    "queue.requests",
                    format!("{other} is out of range; 1 to 1000000"),
                ));
            }
        };
        Ok(Self {
            listen,
            admin,
            data_dir: raw.data_dir.map_or_else(default_data_dir, Ok)?,
            threads,
            drain_timeout: raw
                .drain_timeout
                .map_or(Ok(Duration::from_secs(30)), |text| duration("drain-timeout", &text))?,
            queue_requests,
            queue_timeout: raw
                .queue
                .timeout
                .map(|text| duration("queue.timeout", &text))
                .transpose()?,
            instances: raw.instances.as_deref().map(catalogue).transpose()?,
            memory_budget: memory_budget(raw.memory_budget.as_deref().unwrap_or("75%"))?,
            flight_recorder: flight_recorder(raw.flight_recorder.as_deref().unwrap_or("64Mi"))?,
            reclaim_frozen: raw.reclaim_frozen.unwrap_or(true),
            runtimes: runtimes(raw.runtimes)?,
            seccomp_profiles: raw.seccomp_profiles,
            image_quota: raw.image_quota.as_deref().map(image_quota).transpose()?,
            registry: registry(raw.insecure_registries, raw.registry_certs)?,
            egress: egress(raw.egress.as_deref())?,
            unsafe_no_isolation: raw.unsafe_no_isolation,
            images_as_now: false,
        })
    }
}

fn runtimes(raw: Vec<RawRuntime>) -> Result<BTreeMap<String, Runtime>, ConfigError> {
    let mut runtimes = BTreeMap::new();
    for RawRuntime { name, path, args } in raw {
        let wrong = |text: String| Err(value("runtime", text));
        if !path.is_absolute() {
            return wrong(format!("{name}: {} is not an absolute path", path.display()));
        }
        if matches!(name.as_str(), "" | "native") || runtimes.contains_key(&name) {
            return wrong(format!("{name:?} is taken; give each runtime a name of its own"));
        }
        let mut runtime = Runtime::new(path);
        if let Some(args) = args {
            runtime.args = args;
        }
        runtimes.insert(name, runtime);
    }
    Ok(runtimes)
}

fn catalogue(text: &str) -> Result<Catalogue, ConfigError> {
    if let Some(shipped) = Instances::shipped_text(text) {
        return Ok(Catalogue::Shipped(Input {
            name: format!("catalogue {text}"),
            text: shipped.to_owned(),
        }));
    }
    let path = PathBuf::from(text);
    let read = std::fs::read_to_string(&path).map_err(|error| {
        let message = format!("{text}: {error}; write a file, or one of {}", SHIPPED.join(", "));
        value("instances", message)
    })?;
    Instances::from_text(text, &read).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        value("instances", problems.join("\n"))
    })?;
    Ok(Catalogue::File(path))
}

/// How image registries are reached: also for commands that start no server.
///
/// # Errors
/// Names the registry that cannot be one.
pub fn registry(insecure: Vec<String>, certs: Option<PathBuf>) -> Result<images::registry::Settings, ConfigError> {
    let default = images::registry::Settings::default();
    let wrong = |name: &&String| {
        let image = format!("{name}/app").parse::<manifests::reference::Reference>();
        !image.is_ok_and(|image| image.registry == **name)
    };
    if let Some(wrong) = insecure.iter().find(wrong) {
        return Err(value(
            "insecure-registries",
            format!("\"{wrong}\" is not a registry; write HOST or HOST:PORT, as in 127.0.0.1:5000"),
        ));
    }
    Ok(images::registry::Settings {
        insecure,
        certs: certs.map_or(default.certs, |certs| vec![certs]),
    })
}

/// Where state lives when nobody says: `/var/lib/knarr` for root, `$XDG_STATE_HOME/knarr` or `~/.local/state/knarr`
/// for others.
///
/// # Errors
/// When an ordinary user has neither variable set.
pub fn default_data_dir() -> Result<PathBuf, ConfigError> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/knarr"));
    }
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("knarr"))
        .ok_or_else(|| {
            value(
                "data-dir",
                "neither XDG_STATE_HOME nor HOME is set; give --data-dir DIR".to_owned(),
            )
        })
}

/// Parses `500ms`, `30s`, `10m`, `2h`: one whole number with its unit.
///
/// # Errors
/// Names `field` and the form wanted.
pub fn duration(field: &'static str, text: &str) -> Result<Duration, ConfigError> {
    let wrong = || {
        value(
            field,
            format!("\"{text}\" is not a duration; write a whole number with ms, s, m or h, as in 30s"),
        )
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let millis = match &text[digits..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(wrong)
}

/// Bytes as Kubernetes writes them.
fn image_quota(text: &str) -> Result<Bytes, ConfigError> {
    let wrong = |what: &str| {
        let message = format!("\"{text}\" {what}; write bytes as in 20Gi or 1500M, at least 1Mi");
        value("image-quota", message)
    };
    let quantity: Quantity = text.parse().map_err(|_| wrong("is not an amount of bytes"))?;
    let quota = Bytes(u64::try_from(quantity.value()).map_err(|_| wrong("is out of range"))?);
    if quota < LEAST_QUOTA {
        return Err(wrong("is too little for any image"));
    }
    Ok(quota)
}

/// Bytes as Kubernetes writes them, or nothing.
fn flight_recorder(text: &str) -> Result<Option<Bytes>, ConfigError> {
    if text == "off" {
        return Ok(None);
    }
    let wrong = |what: &str| {
        let message = format!("\"{text}\" {what}; write bytes as in 64Mi or 200M, at least 1Mi, or off");
        value("flight-recorder", message)
    };
    let quantity: Quantity = text.parse().map_err(|_| wrong("is not an amount of bytes"))?;
    let limit = Bytes(u64::try_from(quantity.value()).map_err(|_| wrong("is out of range"))?);
    if limit < LEAST_RECORDING {
        return Err(wrong("is too little to record anything"));
    }
    Ok(Some(limit))
}

/// `50%` of the machine's memory, or bytes as Kubernetes writes them.
fn memory_budget(text: &str) -> Result<Bytes, ConfigError> {
    let wrong = |what: &str| {
        let message = format!("\"{text}\" {what}; write bytes as in 2Gi or 1500M, at least 64Mi, or a share as in 50%");
        value("memory-budget", message)
    };
    let budget = match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent @ 1..=100) => sandbox::share_of_memory(percent),
            _ => return Err(wrong("is not 1% to 100%")),
        },
        None => {
            let quantity: Quantity = text.parse().map_err(|_| wrong("is not an amount of memory"))?;
            Bytes(u64::try_from(quantity.value()).map_err(|_| wrong("is out of range"))?)
        }
    };
    if budget < LEAST_BUDGET {
        return Err(wrong("is too little for any sandbox"));
    }
    Ok(budget)
}

/// Below this hardly a single image can be had.
const LEAST_QUOTA: Bytes = Bytes(1 << 20);

/// Below this a recording would not reach back a minute under load.
const LEAST_RECORDING: Bytes = Bytes(1 << 20);

/// Below this not even the prepared shells leave room for an app.
const LEAST_BUDGET: Bytes = Bytes(64 << 20);

fn address(field: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        value(
            field,
            format!("\"{text}\" is not an address; write IP:PORT, as in 127.0.0.1:8080 or [::1]:8080"),
        )
    })
}

fn egress(text: Option<&str>) -> Result<Egress, ConfigError> {
    let read = manifests::config::egress(text.unwrap_or("none"));
    read.map_err(|wrong| value("egress", wrong))
}

fn value(field: &'static str, message: String) -> ConfigError {
    ConfigError::Value { field, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(toml: &str) -> Result<Config, String> {
        let raw: RawConfig = toml::from_str(toml).map_err(|error| error.to_string())?;
        Config::from_raw(RawConfig {
            data_dir: Some("/d".into()),
            ..raw
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_loopback() {
        let config = checked("").unwrap();
        assert_eq!(config.listen, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(config.admin, "127.0.0.1:9090".parse().unwrap());
        assert_eq!((config.queue_requests, config.queue_timeout), (10_000, None));
        assert_eq!((config.image_quota, config.egress), (None, Egress::None));
        assert_eq!(
            checked("image-quota = '20Gi'").unwrap().image_quota,
            Some(Bytes(20 << 30))
        );
        let recorder = |toml| checked(toml).unwrap().flight_recorder.map(|limit| limit.0 >> 20);
        assert_eq!(recorder(""), Some(64));
        assert_eq!(recorder("flight-recorder = '1Gi'"), Some(1024));
        assert_eq!(recorder("flight-recorder = 'off'"), None);
        assert_eq!(checked("egress = 'full'").unwrap().egress, Egress::Full);
        let listed = checked("egress = 'api.example.com:443, 10.0.0.0/8'").unwrap().egress;
        assert!(matches!(listed, Egress::AllowList(rules) if rules.len() == 2));
    }

    #[test]
    fn each_wrong_value_names_its_field_and_what_would_be_right() {
        for (toml, wanted) in [
            ("listen = ['8080']", "listen: \"8080\" is not an address; write IP:PORT"),
            (
                "admin = '0.0.0.0:9090'",
                "admin: 0.0.0.0:9090 is not a loopback address",
            ),
            ("threads = 0", "threads: 0 is out of range; 1 to 1024"),
            (
                "image-quota = '1Ki'",
                "image-quota: \"1Ki\" is too little for any image; write bytes",
            ),
            ("image-quota = 'all'", "image-quota: \"all\" is not an amount of bytes"),
            ("image-quota = '-1Gi'", "image-quota: \"-1Gi\" is out of range"),
            ("[queue]\nrequests = 0", "queue.requests: 0 is out of range"),
            (
                "flight-recorder = 'on'",
                "flight-recorder: \"on\" is not an amount of bytes; write bytes as in 64Mi or 200M, at least 1Mi, or off",
            ),
            ("flight-recorder = '1Ki'", "is too little to record anything"),
            (
                "drain-timeout = '30'",
                "drain-timeout: \"30\" is not a duration; write a whole number with ms, s, m or h",
            ),
            ("drain-timeout = '99999999999999999h'", "is not a duration"),
            (
                "memory-budget = '0%'",
                "memory-budget: \"0%\" is not 1% to 100%; write bytes as in 2Gi",
            ),
            ("memory-budget = '101%'", "is not 1% to 100%"),
            ("memory-budget = '50 %'", "is not 1% to 100%"),
            ("memory-budget = 'lots'", "is not an amount of memory"),
            ("memory-budget = '-1Gi'", "is out of range"),
            ("memory-budget = '1Mi'", "is too little for any sandbox"),
            (
                "[frozen]\nmemory-price-per-gib-hour = 0.4",
                "frozen: is a manifest now, which may change while Knarr runs: write a ConfigMap config-instances",
            ),
            ("[[spec]]\nname = 'full'", "spec: is a manifest now"),
            (
                "instances = '/none.yaml'",
                "instances: /none.yaml: No such file or directory (os error 2); write a file, or one of local, eci",
            ),
            (
                "insecure-registries = ['http://a:1']",
                "insecure-registries: \"http://a:1\" is not a registry; write HOST or HOST:PORT",
            ),
            ("insecure-registries = ['app']", "\"app\" is not a registry"),
            ("lisen = []", "unknown field `lisen`"),
            (
                "egress = ''",
                "egress: invalid value: names no destination; write none, full, or rules",
            ),
            ("egress = 'a.example:0'", "egress: invalid value: a.example:0: "),
        ] {
            let error = checked(toml).unwrap_err();
            assert!(error.contains(wanted), "{toml}: {error}");
        }
    }

    #[test]
    fn a_memory_budget_is_bytes_or_a_share() {
        let budget = |text: &str| checked(&format!("memory-budget = '{text}'")).unwrap().memory_budget.0;
        assert_eq!((budget("2Gi"), budget("1500M")), (2 << 30, 1_500_000_000));
        assert_eq!(checked("").unwrap().memory_budget.0, budget("75%"));
        assert!(budget("50%") * 2 <= budget("100%") && budget("50%") > 0);
    }

    #[test]
    fn flags_win_over_the_file() {
        let file: RawConfig = toml::from_str("listen = ['127.0.0.1:1']\nthreads = 3").unwrap();
        let flags = RawConfig {
            listen: vec!["[::1]:2".into()],
            ..RawConfig::default()
        };
        let config = Config::from_raw(RawConfig {
            data_dir: Some("/d".into()),
            ..flags.over(file)
        })
        .unwrap();
        assert_eq!((config.listen, config.threads), (vec!["[::1]:2".parse().unwrap()], 3));
    }
}
