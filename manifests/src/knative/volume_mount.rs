//! Where containers mount volumes (Knative: validateVolumeMounts).

use std::collections::HashSet;

use super::check_disallowed;
use super::field_error::{FieldErrors, generic, invalid, missing};
use super::go::{clean_path, quote};
use super::volume::Volumes;
use crate::config::Features;
use crate::resources::{Volume, VolumeMount};

/// Paths that Knative keeps for the container's own.
const RESERVED: [&str; 3] = ["/", "/dev", "/dev/log"];

pub(super) fn validate(mounts: &[VolumeMount], volumes: &Volumes<'_>, features: &Features) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let mut seen = HashSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = clean_path(&mount.mount_path);
        let mut found = fields(mount, features);
        let volume = volumes.get(mount.name.as_str()).copied();
        if volume.is_none() {
            found.add(generic("volumeMount has no matching volume", ["name"]));
        }
        if mount.mount_path.is_empty() {
            found.add(missing("mountPath"));
        } else if RESERVED.contains(&path.as_str()) {
            found.add(generic(
                format!("mountPath {} is a reserved path", quote(&path)),
                ["mountPath"],
            ));
        } else if !mount.mount_path.starts_with('/') {
            found.add(invalid(&mount.mount_path, "mountPath"));
        } else if seen.contains(&path) {
            found.add(invalid(
                format!("{} must be unique", quote(&mount.mount_path)),
                "mountPath",
            ));
        }
        seen.insert(path);
        found.add(read_only(mount, volume));
        errors.add(found.via_index(index));
    }
    errors
}

fn fields(mount: &VolumeMount, features: &Features) -> FieldErrors {
    let flag = features.volumes_mount_propagation;
    let mut allowed = vec!["name", "readOnly", "mountPath", "subPath"];
    if flag.permits() {
        allowed.push("mountPropagation");
    }
    let mut errors = check_disallowed(&mount.set_fields(), &allowed);
    if let Some(propagation) = &mount.mount_propagation {
        if !flag.is_enabled() {
            let name = &mount.name;
            let found = format!("but found volume mount {name} with mount propagation");
            let message = format!("Volume Mount Propagation support is disabled, {found}");
            errors.add(generic(message, Vec::<&str>::new()));
        }
        if !matches!(propagation.as_str(), "None" | "HostToContainer") {
            let message = "mount propagation should be set to None or HostToContainer";
            errors.add(generic(message, ["mountPropagation"]));
        }
    }
    errors
}

fn read_only(mount: &VolumeMount, volume: Option<&Volume>) -> FieldErrors {
    if mount.read_only {
        return FieldErrors::none();
    }
    if !volume.is_some_and(may_write) {
        return generic("volume mount should be readOnly for this type of volume", ["readOnly"]);
    }
    let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
    if claim.is_some_and(|claim| claim.read_only) {
        return generic("volume is readOnly but volume mount is not", ["readOnly"]);
    }
    FieldErrors::none()
}

/// Whether a volume may be mounted for writing; all others are defaulted to read-only.
pub(super) fn may_write(volume: &Volume) -> bool {
    volume.empty_dir.is_some() || volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}
