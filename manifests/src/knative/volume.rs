//! Volumes and their sources (Knative: ValidateVolumes, validateVolume and its projections).

use std::collections::{HashMap, HashSet};

use super::check_disallowed;
use super::field_error::{FieldErrors, disallowed, generic, invalid, missing, missing_one_of, multiple_one_of};
use super::go::quote;
use super::syntax::dns1123_label;
use crate::config::{Features, Flag};
use crate::resources::{DownwardApiVolumeFile, ImageVolumeSource, KeyToPath, Volume, VolumeProjection};

/// The volumes of a pod by name; of several with one name the last.
pub(super) type Volumes<'a> = HashMap<&'a str, &'a Volume>;

pub(super) fn validate_all<'a>(
    volumes: &'a [Volume],
    mounted: &HashSet<&str>,
    features: &Features,
) -> (Volumes<'a>, FieldErrors) {
    let mut named = Volumes::new();
    let mut errors = FieldErrors::none();
    for (index, volume) in volumes.iter().enumerate() {
        let name = quote(&volume.name);
        if named.contains_key(volume.name.as_str()) {
            errors.add(generic(format!("duplicate volume name {name}"), ["name"]).via_index(index));
        }
        if !mounted.contains(volume.name.as_str()) {
            errors.add(generic(format!("volume with name {name} not mounted"), ["name"]).via_index(index));
        }
        errors.add(validate(volume, features).via_index(index));
        named.insert(&volume.name, volume);
    }
    (named, errors)
}

fn validate(volume: &Volume, features: &Features) -> FieldErrors {
    let mut errors = by_flag(volume, features);
    if volume.name.is_empty() {
        // What was found before is forgotten: Knative's own slip, and part of its texts.
        errors = missing("name");
    } else if !dns1123_label(&volume.name).is_empty() {
        errors = invalid(&volume.name, "name");
    }
    errors.add(disallowed(
        volume
            .set_fields()
            .into_iter()
            .filter(|field| !is_allowed(field, features)),
    ));
    errors.add(contents(volume));
    errors.also(one_source(volume, features))
}

/// Sources that need a flag: JSON name, name in messages, flag.
fn flagged(features: &Features) -> [(&'static str, &'static str, Flag); 6] {
    [
        ("emptyDir", "EmptyDir", features.volumes_empty_dir),
        ("persistentVolumeClaim", "", features.persistent_volume_claim),
        ("hostPath", "HostPath", features.volumes_host_path),
        ("csi", "CSI", features.volumes_csi),
        ("ephemeral", "Ephemeral", features.volumes_ephemeral),
        ("image", "Image", features.volumes_image),
    ]
}

/// Sources must be exactly "enabled".
fn by_flag(volume: &Volume, features: &Features) -> FieldErrors {
    let nowhere = Vec::<&str>::new;
    let mut errors = FieldErrors::none();
    if let Some(claim) = &volume.persistent_volume_claim {
        let found = format!("but found persistent volume claim {}", claim.claim_name);
        if !features.persistent_volume_claim.is_enabled() {
            errors.add(generic(
                format!("Persistent volume claim support is disabled, {found}"),
                nowhere(),
            ));
        }
        if !claim.read_only && !features.persistent_volume_write.is_enabled() {
            let message = format!("Persistent volume write support is disabled, {found} that is not read-only");
            errors.add(generic(message, nowhere()));
        }
    }
    let set = volume.set_fields();
    for (field, name, flag) in flagged(features) {
        if !name.is_empty() && set.contains(&field) && !flag.is_enabled() {
            let message = format!(
                "{name} volume support is disabled, but found {name} volume {}",
                volume.name
            );
            errors.add(generic(message, nowhere()));
        }
    }
    errors
}

/// Knative: VolumeSourceMask. "allowed" is enough here.
fn is_allowed(field: &str, features: &Features) -> bool {
    matches!(field, "name" | "secret" | "configMap" | "projected")
        || flagged(features)
            .iter()
            .any(|(name, _, flag)| *name == field && flag.permits())
}

fn contents(volume: &Volume) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if let Some(secret) = &volume.secret {
        errors.add(items(&secret.items));
    }
    if let Some(config_map) = &volume.config_map {
        errors.add(items(&config_map.items));
    }
    if let Some(projected) = &volume.projected {
        for (index, source) in projected.sources.iter().flatten().enumerate() {
            errors.add(projection(source).via_field_index("projected", index));
        }
    }
    if let Some(dir) = &volume.empty_dir {
        let mut wrong = FieldErrors::none();
        if !matches!(dir.medium.as_str(), "" | "Memory") {
            wrong.add(invalid(&dir.medium, "medium"));
        }
        if let Some(limit) = dir.size_limit.filter(|limit| limit.value() < 0) {
            wrong.add(invalid(limit, "sizeLimit"));
        }
        errors.add(wrong.via_field("emptyDir"));
    }
    if let Some(image) = &volume.image {
        errors.add(image_source(image).via_field("image"));
    }
    errors
}

fn one_source(volume: &Volume, features: &Features) -> FieldErrors {
    const ALWAYS: [&str; 3] = ["secret", "configMap", "projected"];
    let set = volume.set_fields();
    let flagged = flagged(features);
    let known = ALWAYS.into_iter().chain(flagged.iter().map(|(field, ..)| *field));
    let given: Vec<&str> = known.filter(|field| set.contains(field)).collect();
    match given.len() {
        0 => {
            let enabled = flagged
                .iter()
                .filter(|(_, _, flag)| flag.is_enabled())
                .map(|(field, ..)| *field);
            missing_one_of(&ALWAYS.into_iter().chain(enabled).collect::<Vec<_>>())
        }
        1 => FieldErrors::none(),
        _ => multiple_one_of(&given),
    }
}

fn items(items: &[KeyToPath]) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for (index, item) in items.iter().enumerate() {
        for (value, field) in [(&item.key, "key"), (&item.path, "path")] {
            if value.is_empty() {
                errors.add(missing(field).via_field_index("items", index));
            }
        }
    }
    errors
}

fn projection(source: &VolumeProjection) -> FieldErrors {
    const KNOWN: [&str; 4] = ["secret", "configMap", "serviceAccountToken", "downwardAPI"];
    let set = source.set_fields();
    let mut errors = check_disallowed(&set, &KNOWN);
    for (object, field) in [(&source.secret, "secret"), (&source.config_map, "configMap")] {
        if let Some(object) = object {
            let named = if object.name.is_empty() {
                missing("name")
            } else {
                FieldErrors::none()
            };
            errors.add(named.also(items(&object.items)).via_field(field));
        }
    }
    if source
        .service_account_token
        .as_ref()
        .is_some_and(|token| token.path.is_empty())
    {
        errors.add(missing("path").via_field("serviceAccountToken"));
    }
    if let Some(downward) = &source.downward_api {
        for (index, file) in downward.items.iter().enumerate() {
            errors.add(
                downward_file(file)
                    .via_field_index("items", index)
                    .via_field("downwardAPI"),
            );
        }
    }
    let given: Vec<&str> = KNOWN.into_iter().filter(|field| set.contains(field)).collect();
    match given.len() {
        0 => errors.also(missing_one_of(&KNOWN)),
        1 => errors,
        _ => errors.also(multiple_one_of(&given)),
    }
}

fn downward_file(file: &DownwardApiVolumeFile) -> FieldErrors {
    let mut errors = check_disallowed(&file.set_fields(), &["path", "fieldRef", "resourceFieldRef", "mode"]);
    match (&file.field_ref, &file.resource_field_ref) {
        (None, None) => errors.add(missing_one_of(&["fieldRef", "resourceFieldRef"])),
        (Some(_), Some(_)) => {
            errors.add(generic(
                "Within a single item, cannot set both",
                ["resourceFieldRef", "fieldRef"],
            ));
        }
        _ => {}
    }
    if file.path.is_empty() {
        errors.add(missing("path"));
    }
    errors
}

fn image_source(image: &ImageVolumeSource) -> FieldErrors {
    let mut errors = if image.reference.is_empty() {
        missing("reference")
    } else {
        FieldErrors::none()
    };
    if !matches!(image.pull_policy.as_str(), "" | "Always" | "Never" | "IfNotPresent") {
        errors.add(invalid(&image.pull_policy, "pullPolicy"));
    }
    errors
}
