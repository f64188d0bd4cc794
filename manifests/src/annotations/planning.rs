//! What annotations say to the planner: ours, Alibaba's that mean the same, and the cluster's defaults under both.

use std::str::FromStr;
use std::sync::Arc;

use super::*;
use crate::config::ClusterConfig;
use crate::domains::StringMap;
use crate::exchange::Rung;
use crate::golang;
use crate::idle_ignore::IdleIgnore;
use crate::instances::{Instances, lookup, read::hint_at};
use crate::keep_warm::KeepWarm;
use crate::revision::{ColdStartSla, IdlePolicy, Planning, Reserve};
use crate::units::{Bytes, Millicores, Replicas};

/// What a template and the cluster say together.
pub(super) struct Said<'a> {
    pub(super) idle: IdlePolicy,
    pub(super) planning: Planning,
    pub(super) idle_ignore: Option<IdleIgnore>,
    /// The word that `idle` comes from.
    pub(super) word: &'a str,
}

/// Reads them; what is wrong goes to `errors` and what is left out to `warnings`, each with its annotation.
pub(super) struct Reader<'a> {
    pub(super) template: &'a StringMap,
    pub(super) cluster: &'a ClusterConfig,
    pub(super) errors: Vec<(&'static str, String)>,
    pub(super) warnings: Vec<(&'static str, String)>,
}

/// The words of `knarr.dev/idle`.
const IDLE_WORDS: [&str; 7] = ["knative", "auto", "zero", "frozen", "throttled", "reserve", "keep"];
const RUNGS: [(&str, Rung); 4] = [
    ("full", Rung::Full),
    ("throttled", Rung::Throttled),
    ("reserve", Rung::Reserve),
    ("frozen", Rung::Frozen),
];
/// What `knarr.dev/instance-specs` is by default.
const ALL_SPECS: &str = "all";
/// Most specs in a list.
const MOST_SPECS: usize = 64;
const MOST_REPLICAS: i64 = 1000;

impl<'a> Reader<'a> {
    pub(super) fn new(template: &'a StringMap, cluster: &'a ClusterConfig) -> Self {
        Self {
            template,
            cluster,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn read(&mut self) -> Said<'a> {
        let reserve = self.reserve();
        let word = self.idle_word(reserve.is_some());
        let delay = self.of(&FREEZE_DELAY, super::knarr::parse_delay);
        let idle = match word {
            "auto" => IdlePolicy::Auto,
            "zero" => IdlePolicy::Zero,
            "frozen" => IdlePolicy::Frozen { delay },
            "throttled" => IdlePolicy::Throttled,
            "reserve" => IdlePolicy::Reserve,
            "keep" => IdlePolicy::Keep,
            _ => IdlePolicy::Knative,
        };
        let planning = Planning {
            sla: self.parsed::<ColdStartSla>(&COLD_START_SLA).unwrap_or_default(),
            specs: self.specs(),
            reserve,
            min_scale_as: self.min_scale_as(),
            keep_warm: self.unless_none::<KeepWarm>(&KEEP_WARM),
        };
        Said {
            idle,
            planning,
            idle_ignore: self.unless_none::<IdleIgnore>(&IDLE_IGNORE),
            word,
        }
    }

    /// The template's own word, else the cluster's.
    fn value(&self, annotation: &Annotation) -> Option<&'a str> {
        annotation.value(self.template).or_else(|| self.default(annotation))
    }

    fn default(&self, annotation: &Annotation) -> Option<&'a str> {
        annotation.value(&self.cluster.planner.defaults)
    }

    fn of<T>(&mut self, annotation: &'static Annotation, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.value(annotation)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.push((annotation.key, error));
                None
            }
        }
    }

    fn parsed<T: FromStr>(&mut self, annotation: &'static Annotation) -> Option<T>
    where
        T::Err: ToString,
    {
        self.of(annotation, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    /// `none` is how a manifest says that the cluster's default is not for it.
    fn unless_none<T: FromStr>(&mut self, annotation: &'static Annotation) -> Option<T>
    where
        T::Err: ToString,
    {
        if self.value(annotation) == Some("none") {
            return None;
        }
        self.parsed(annotation)
    }

    /// An annotation wins over Alibaba's, that over the cluster's default; a limit alone asks for a plan that keeps it.
    fn idle_word(&mut self, reserves: bool) -> &'a str {
        let own = IDLE.value(self.template);
        let limited = COLD_START_SLA.value(self.template).is_some();
        let word = own
            .or(reserves.then_some("reserve"))
            .or_else(|| self.default(&IDLE))
            .or(limited.then_some("auto"))
            .unwrap_or("knative");
        if !IDLE_WORDS.contains(&word) {
            self.errors.push((IDLE.key, format!("invalid value: {word}")));
        }
        word
    }

    fn min_scale_as(&mut self) -> Rung {
        let rung = self.of(&MIN_SCALE_AS, |text| {
            let found = RUNGS.iter().find(|(word, _)| *word == text);
            found
                .map(|(_, rung)| *rung)
                .ok_or_else(|| format!("invalid value: {text}"))
        });
        rung.unwrap_or(Rung::Full)
    }

    fn specs(&mut self) -> Arc<[Arc<str>]> {
        if let Some(text) = INSTANCE_SPECS.value(self.template) {
            if text == ALL_SPECS {
                return Arc::default();
            }
            let (specs, unknown) = self.listed(&INSTANCE_SPECS, text);
            self.errors
                .extend(unknown.into_iter().map(|error| (INSTANCE_SPECS.key, error)));
            return specs;
        }
        if let Some(text) = ECI_USE_SPECS.value(self.template) {
            let (specs, unknown) = self.listed(&ECI_USE_SPECS, text);
            self.left_out(&ECI_USE_SPECS, unknown);
            return specs;
        }
        // Told of once, where the default stands.
        self.default(&INSTANCE_SPECS)
            .filter(|text| *text != ALL_SPECS)
            .map(|text| self.listed(&INSTANCE_SPECS, text).0)
            .unwrap_or_default()
    }

    /// The catalogue's names for a list, in its order; and what is in no catalogue, in words.
    fn listed(&mut self, annotation: &'static Annotation, text: &str) -> (Arc<[Arc<str>]>, Vec<String>) {
        let instances = &self.cluster.instances;
        let words: Vec<&str> = spec_words(text).collect();
        if words.is_empty() || words.len() > MOST_SPECS {
            let fault = if words.is_empty() {
                "names no spec"
            } else {
                "names more than 64 specs"
            };
            self.errors
                .push((annotation.key, format!("invalid value: {text}: {fault}")));
            return Default::default();
        }
        let mut specs: Vec<Arc<str>> = Vec::new();
        let mut unknown = Vec::new();
        for word in words {
            let named = instances.named(word);
            if named.is_empty() {
                unknown.push(not_there(instances, word));
            }
            for spec in named {
                if !specs.contains(&spec.name) {
                    specs.push(Arc::clone(&spec.name));
                }
            }
        }
        (specs.into(), unknown)
    }

    /// Manifests that were written for Alibaba's catalogue are not wrong because this one is smaller.
    fn left_out(&mut self, annotation: &'static Annotation, unknown: Vec<String>) {
        let lines = unknown.into_iter().map(|error| (annotation.key, error));
        self.warnings.extend(lines);
    }

    /// `knative.aliyun.com/reserve-instance` and its relatives; `None` unless it is enabled.
    fn reserve(&mut self) -> Option<Reserve> {
        let enabled = self.word(&RESERVE_INSTANCE, &["enable", "disable"]) == Some("enable");
        self.word(&RESERVE_TYPE, &["eci", "ecs", "acs"]);
        let replicas = self.of(&RESERVE_REPLICAS, |text| match golang::parse_int(text) {
            Ok(replicas @ 1..=MOST_REPLICAS) => Ok(u32::try_from(replicas).map(Replicas).unwrap_or_default()),
            _ => Err(format!("invalid value: {text}")),
        });
        let specs = match RESERVE_SPECS.value(self.template) {
            Some(text) => {
                let (specs, unknown) = self.listed(&RESERVE_SPECS, text);
                self.left_out(&RESERVE_SPECS, unknown);
                specs
            }
            None => self.reserve_by_size(),
        };
        enabled.then(|| Reserve {
            specs,
            replicas: replicas.unwrap_or(Replicas(1)),
        })
    }

    /// The cheapest spec with what the keys for CPU and memory ask for.
    fn reserve_by_size(&mut self) -> Arc<[Arc<str>]> {
        let cpu = |text: &str| lookup::millicores(text).ok_or_else(|| format!("invalid value: {text}"));
        let memory = |text: &str| lookup::bytes(text).ok_or_else(|| format!("invalid value: {text}"));
        let (cpu_limit, cpu_request) = (self.of(&RESERVE_CPU_LIMIT, cpu), self.of(&RESERVE_CPU_REQUEST, cpu));
        let memory_limit = self.of(&RESERVE_MEMORY_LIMIT, memory);
        let memory_request = self.of(&RESERVE_MEMORY_REQUEST, memory);
        let (cpu, memory) = (cpu_limit.or(cpu_request), memory_limit.or(memory_request));
        if cpu.is_none() && memory.is_none() {
            return Default::default();
        }
        let (cpu, memory) = (cpu.unwrap_or_default(), memory.unwrap_or_default());
        match self.cluster.instances.least(cpu, memory) {
            Some(spec) => [Arc::clone(&spec.name)].into(),
            None => {
                let (Millicores(cpu), Bytes(memory)) = (cpu, memory);
                let name = &self.cluster.instances.name;
                let message = format!(
                    "the catalogue {name} has no instance spec with {cpu}m of CPU and {memory} bytes of memory"
                );
                self.warnings.push((RESERVE_INSTANCE.key, message));
                Default::default()
            }
        }
    }

    /// One of a few words in the template.
    fn word(&mut self, annotation: &'static Annotation, words: &[&'static str]) -> Option<&'static str> {
        let value = annotation.value(self.template)?;
        let word = words.iter().copied().find(|word| *word == value);
        if word.is_none() {
            self.errors.push((annotation.key, format!("invalid value: {value}")));
        }
        word
    }
}

/// Which of the specs that `config-planner` names by default are in no catalogue, in words.
pub fn unknown_default_specs(cluster: &ClusterConfig) -> Vec<String> {
    let text = INSTANCE_SPECS.value(&cluster.planner.defaults).unwrap_or_default();
    let unknown = spec_words(text).filter(|word| *word != ALL_SPECS && cluster.instances.named(word).is_empty());
    unknown.map(|word| not_there(&cluster.instances, word)).collect()
}

/// What is wrong with values of annotations by themselves, whatever catalogue there is.
pub fn wrong_values(annotations: &StringMap) -> Vec<(&'static str, String)> {
    let cluster = ClusterConfig::default();
    let mut template = annotations.clone();
    let specs = template.remove(INSTANCE_SPECS.key);
    let mut reader = Reader::new(&template, &cluster);
    reader.read();
    let mut errors = reader.errors;
    if let Some(text) = specs.filter(|text| !(1..=MOST_SPECS).contains(&spec_words(text).count())) {
        errors.push((
            INSTANCE_SPECS.key,
            format!("invalid value: {text}: names no spec, or more than {MOST_SPECS}"),
        ));
    }
    errors.sort();
    errors
}

/// The words of a list of specs.
pub fn spec_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn not_there(instances: &Instances, word: &str) -> String {
    let name = &instances.name;
    format!(
        "the catalogue {name} has no instance spec {word}: {}",
        hint_at(word, instances.names())
    )
}

#[cfg(test)]
mod tests;
