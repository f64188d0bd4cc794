//! What a workload may ask of this driver and does not get yet: refused by name, never ignored.

use manifests::workload::{TerminationMessage, Workload};

/// The first of it, in words for the user.
pub(super) fn unbuilt(workload: &Workload) -> Option<String> {
    let (no_message, termination) = (TerminationMessage::default(), &workload.serving.termination);
    let asked = [
        ("several containers", !workload.sidecars.is_empty()),
        ("initContainers", !workload.init.is_empty()),
        ("volumes", !workload.volumes.is_empty()),
        ("hostAliases", !workload.host_aliases.is_empty()),
        (
            "terminationMessagePath and terminationMessagePolicy",
            *termination != no_message,
        ),
    ];
    let found = asked.into_iter().find(|(_, asked)| *asked);
    found.map(|(what, _)| format!("not supported yet: {what}"))
}
