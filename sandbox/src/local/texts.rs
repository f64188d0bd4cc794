//! Texts of containers, filled: arguments and environment, from the facts about one sandbox and this machine.

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;
use std::thread;

use manifests::names;
use manifests::text::{Facts, Text};
use manifests::units::{Bytes, Millicores};
use manifests::workload::Container;

use crate::driver::SandboxSpec;

/// Where programs are looked for when nobody says otherwise.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is the same for every sandbox of this machine; nothing of it changes while Knarr runs.
struct Node {
    name: String,
    cpu: Millicores,
    memory: Bytes,
}

static NODE: LazyLock<Node> = LazyLock::new(|| {
    let cores = thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Node {
        name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        cpu: Millicores(cores.saturating_mul(1000)),
        memory: Bytes(total.unwrap_or_default().saturating_mul(1024)),
    }
});

/// The facts about the sandbox that `spec` starts and whose app is to listen on `port`.
pub(super) fn facts(spec: &SandboxSpec, port: u16) -> Facts {
    let node = &*NODE;
    Facts {
        pod_name: spec.id.as_str().to_owned(),
        pod_uid: names::uuid(&[&node.name, spec.revision.namespace(), spec.id.as_str()]),
        node_name: node.name.clone(),
        port,
        node_cpu: node.cpu,
        node_memory: node.memory,
    }
}

/// Filled, one after the other.
pub(super) fn filled(texts: &[Text], facts: &Facts) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.fill(facts).into_bytes()).collect()
}

/// The user's variables over the image's (`NAME=VALUE`), those over the defaults, and Knative's own over all (Knative:
/// container runtime contract). `PORT` is for the serving container.
pub(super) fn environment(
    spec: &SandboxSpec,
    container: &Container,
    facts: &Facts,
    serving: bool,
    (home, image): (&str, &[String]),
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), home.to_owned()),
    ]);
    let pairs = image.iter().filter_map(|pair| pair.split_once('='));
    env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.extend(
        container
            .env
            .iter()
            .map(|(name, text)| (name.clone(), text.fill(facts))),
    );
    let mut own = |key: &str, value: &str| env.insert(key.to_owned(), value.to_owned());
    if serving {
        own("PORT", &facts.port.to_string());
    }
    own("K_SERVICE", spec.service.as_ref().map_or("", |s| s.name()));
    own("K_CONFIGURATION", spec.configuration.name());
    own("K_REVISION", spec.revision.name());
    own("HOSTNAME", spec.id.as_str());
    env
}
