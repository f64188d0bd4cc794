//! What the table alone can judge: unknown keys, wrong places, and the values of `knarr.dev/*`.

use super::planning::Reader;
use super::*;
use crate::config::ClusterConfig;
use crate::domains::StringMap;
use crate::exchange::Rung;

/// Something to say about one annotation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The key as written.
    pub key: String,
    /// Whether the manifest is refused. Knative ignores annotations it does not know, and so do we, but not silently.
    pub refused: bool,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
}

/// Prefixes under which an unknown key is likely a mistake.
const KNOWN_PREFIXES: [&str; 5] = [
    "autoscaling.knative.dev/",
    "serving.knative.dev/",
    "networking.knative.dev/",
    "features.knative.dev/",
    "queue.sidecar.serving.knative.dev/",
];

/// Looks at all annotations that stand at `place`, which is [`Place::Template`] or [`Place::Object`].
pub fn check(annotations: &StringMap, place: Place, cluster: &ClusterConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in annotations.keys() {
        let ours = key.starts_with("knarr.dev/");
        match find(key) {
            None if ours || KNOWN_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) => {
                findings.push(unknown(key, ours));
            }
            Some(known) if known.place != place && known.place != Place::Anywhere => {
                findings.extend(misplaced(key, known, ours));
            }
            _ => {}
        }
    }
    if place == Place::Template {
        check_values(annotations, cluster, &mut findings);
    }
    findings
}

fn unknown(key: &str, ours: bool) -> Finding {
    // Only names under the same prefix, and without it: it would make all of them look alike.
    let prefix = &key[..key.find('/').map_or(0, |slash| slash + 1)];
    let names = ALL.iter().filter_map(|known| known.key.strip_prefix(prefix));
    let hint = match crate::nearest(&key[prefix.len()..], names) {
        Some(nearest) => format!("did you mean {prefix}{nearest}?"),
        None if ours => {
            let ours: Vec<_> = ALL
                .iter()
                .map(|known| known.key)
                .filter(|key| key.starts_with("knarr.dev/"))
                .collect();
            format!("there are {}", ours.join(", "))
        }
        None => String::new(),
    };
    let message = if ours {
        "unknown annotation"
    } else {
        "unknown annotation, has no effect"
    };
    Finding {
        key: key.to_owned(),
        refused: ours,
        message: message.to_owned(),
        hint,
    }
}

/// Knative itself refuses its autoscaling annotations outside the template, in its own words.
fn misplaced(key: &str, known: &Annotation, ours: bool) -> Option<Finding> {
    if key.starts_with("autoscaling.knative.dev/") {
        return None;
    }
    let right = match known.place {
        Place::Template => "spec.template.metadata.annotations",
        Place::Object | Place::Anywhere => "metadata.annotations of the Service or Route",
    };
    let message = if ours {
        "annotation in the wrong place"
    } else {
        "annotation in the wrong place, has no effect"
    };
    Some(Finding {
        key: key.to_owned(),
        refused: ours,
        message: message.to_owned(),
        hint: format!("it belongs under {right}"),
    })
}

fn check_values(annotations: &StringMap, cluster: &ClusterConfig, findings: &mut Vec<Finding>) {
    match knarr_settings(annotations, cluster) {
        Ok(settings) => findings.extend(settings.left_out.into_iter().map(|(key, message)| Finding {
            key: key.to_owned(),
            refused: false,
            message,
            hint: "it is left out".to_owned(),
        })),
        Err(errors) => findings.extend(errors.into_iter().map(|(key, message)| Finding {
            key: key.to_owned(),
            refused: true,
            message,
            hint: find(key).map_or_else(String::new, |known| format!("write {}", known.range)),
        })),
    }
    if EGRESS_ALLOW.value(annotations).is_some() && EGRESS.value(annotations) != Some("allow-list") {
        findings.push(Finding {
            key: EGRESS_ALLOW.key.to_owned(),
            refused: true,
            message: "has no effect without knarr.dev/egress: allow-list".to_owned(),
            hint: "write knarr.dev/egress: \"allow-list\", or remove it".to_owned(),
        });
    }
    let mut without = Vec::new();
    without_effect(annotations, cluster, &mut without);
    let refused = |key: &str| findings.iter().any(|known| known.refused && known.key == key);
    without.retain(|finding| !refused(&finding.key));
    findings.append(&mut without);
}

/// What is right and does nothing.
fn without_effect(annotations: &StringMap, cluster: &ClusterConfig, findings: &mut Vec<Finding>) {
    let said = Reader::new(annotations, cluster).read();
    let idle = IDLE.value(annotations);
    let written = |annotation: &Annotation| annotation.value(annotations).is_some();
    let mut warn = |annotation: &Annotation, needs: &str, hint: String| {
        findings.push(Finding {
            key: annotation.key.to_owned(),
            refused: false,
            message: format!("has no effect without {needs}"),
            hint,
        });
    };
    if written(&FREEZE_DELAY) && said.word != "frozen" {
        let hint = match idle {
            None => "add knarr.dev/idle: \"frozen\"",
            Some(_) => "remove it, or write knarr.dev/idle: \"frozen\"",
        };
        warn(&FREEZE_DELAY, "knarr.dev/idle: frozen", hint.to_owned());
    }
    let plans = matches!(said.word, "auto" | "reserve" | "throttled")
        || !said.planning.specs.is_empty()
        || said.planning.min_scale_as != Rung::Full;
    if written(&COLD_START_SLA) && !plans {
        let hint = "remove it, or write knarr.dev/idle: \"auto\"".to_owned();
        warn(&COLD_START_SLA, "knarr.dev/idle: auto", hint);
    }
    let least = MIN_SCALE.value(annotations);
    let keeps_none = least.map_or(cluster.settings.autoscaler.min_scale == 0, |least| {
        least.trim_start_matches('0').is_empty()
    });
    if written(&MIN_SCALE_AS) && keeps_none && said.planning.keep_warm.is_none() {
        let needs = format!("{} or {}", MIN_SCALE.key, KEEP_WARM.key);
        warn(
            &MIN_SCALE_AS,
            &needs,
            format!("add {}: \"1\", or remove it", MIN_SCALE.key),
        );
    }
    let relatives = [
        &RESERVE_TYPE,
        &RESERVE_SPECS,
        &RESERVE_REPLICAS,
        &RESERVE_CPU_LIMIT,
        &RESERVE_CPU_REQUEST,
    ];
    let relatives = relatives
        .into_iter()
        .chain([&RESERVE_MEMORY_LIMIT, &RESERVE_MEMORY_REQUEST]);
    for annotation in relatives.filter(|annotation| written(annotation) && said.planning.reserve.is_none()) {
        let needs = format!("{}: enable", RESERVE_INSTANCE.key);
        warn(
            annotation,
            &needs,
            format!("add {}: \"enable\", or remove it", RESERVE_INSTANCE.key),
        );
    }
}
