//! What the table alone can judge: unknown keys, wrong places, and the values of `knarr.dev/*`.

use super::{ALL, Annotation, COLD_START_SLA, EGRESS, EGRESS_ALLOW, FREEZE_DELAY, IDLE, Place, find, knarr_settings};
use crate::domains::StringMap;

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
pub fn check(annotations: &StringMap, place: Place) -> Vec<Finding> {
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
        check_values(annotations, &mut findings);
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

fn check_values(annotations: &StringMap, findings: &mut Vec<Finding>) {
    if let Err(errors) = knarr_settings(annotations) {
        findings.extend(errors.into_iter().map(|(key, message)| Finding {
            key: key.to_owned(),
            refused: true,
            message,
            hint: find(key).map_or_else(String::new, |known| format!("write {}", known.range)),
        }));
    }
    if EGRESS_ALLOW.value(annotations).is_some() && EGRESS.value(annotations) != Some("allow-list") {
        findings.push(Finding {
            key: EGRESS_ALLOW.key.to_owned(),
            refused: true,
            message: "has no effect without knarr.dev/egress: allow-list".to_owned(),
            hint: "write knarr.dev/egress: \"allow-list\", or remove it".to_owned(),
        });
    }
    // (what has no effect, unless `idle` is this)
    for (annotation, needs) in [(&COLD_START_SLA, "auto"), (&FREEZE_DELAY, "frozen")] {
        let idle = IDLE.value(annotations);
        if annotation.value(annotations).is_some() && idle != Some(needs) {
            findings.push(Finding {
                key: annotation.key.to_owned(),
                refused: false,
                message: format!("has no effect without knarr.dev/idle: {needs}"),
                hint: match idle {
                    None => format!("add knarr.dev/idle: \"{needs}\""),
                    Some(_) => format!("remove it, or write knarr.dev/idle: \"{needs}\""),
                },
            });
        }
    }
}
