//! Volumes and where containers see them.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::downward::Pod;
use super::sources::{Keys, Kind};
use super::{Fault, Faults};
use crate::ids::ObjectId;
use crate::resources::{
    Container, DownwardApiProjection, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath,
    PersistentVolumeClaimVolumeSource, ProjectedVolumeSource, Volume,
};
use crate::units::Bytes;
use crate::workload::{self, FileContent, HostPathKind, Mount, VolumeFile, VolumeSource};

/// Kubernetes' default.
const MODE: u32 = 0o644;

pub(super) fn volumes(pod: &Pod<'_>, faults: &mut Faults) -> Vec<workload::Volume> {
    let mut volumes = Vec::new();
    for (nth, volume) in pod.spec.volumes.iter().enumerate() {
        let path = format!("spec.volumes[{nth}]");
        if let Some(source) = source(volume, pod, &path, faults) {
            let name = volume.name.as_str().into();
            volumes.push(workload::Volume { name, source });
        }
    }
    volumes
}

/// `None` after a fault, or for a source that [`crate::support`] refuses.
fn source(volume: &Volume, pod: &Pod<'_>, path: &str, faults: &mut Faults) -> Option<VolumeSource> {
    if let Some(empty) = &volume.empty_dir {
        return Some(empty_dir(empty, path, faults));
    }
    if let Some(host) = &volume.host_path {
        return host_path(host, &format!("{path}.hostPath"), faults);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return self::claim(claim, pod, &format!("{path}.persistentVolumeClaim"), faults);
    }
    let mut files = Files::new(pod, faults);
    if let Some(map) = &volume.config_map {
        let path = format!("{path}.configMap");
        let object = Object {
            kind: Kind::ConfigMap,
            name: &map.name,
            items: &map.items,
            optional: map.optional,
        };
        let mode = files.mode(map.default_mode, MODE, &format!("{path}.defaultMode"));
        files.object(&object, mode, &path);
    } else if let Some(secret) = &volume.secret {
        let path = format!("{path}.secret");
        let object = Object {
            kind: Kind::Secret,
            name: &secret.secret_name,
            items: &secret.items,
            optional: secret.optional,
        };
        let mode = files.mode(secret.default_mode, MODE, &format!("{path}.defaultMode"));
        files.object(&object, mode, &path);
    } else if let Some(projected) = &volume.projected {
        files.projected(projected, &format!("{path}.projected"));
    } else {
        return None;
    }
    files.finish(path)
}

fn empty_dir(empty: &EmptyDirVolumeSource, path: &str, faults: &mut Faults) -> VolumeSource {
    let size = empty.size_limit.filter(|size| !size.is_zero());
    let bytes = size.and_then(|size| u64::try_from(size.value()).ok());
    if let Some(size) = size
        && bytes.is_none()
    {
        let path = format!("{path}.emptyDir.sizeLimit");
        faults.push(Fault::new(
            path,
            format!("invalid value: {size}"),
            "write a size such as 64Mi",
        ));
    }
    VolumeSource::Empty {
        memory: empty.medium == "Memory",
        size: bytes.map(Bytes),
    }
}

fn host_path(host: &HostPathVolumeSource, path: &str, faults: &mut Faults) -> Option<VolumeSource> {
    if !Path::new(&host.path).is_absolute() || host.path.contains('\0') || has_dots(&host.path) {
        let message = format!("invalid value: {:?}", host.path);
        faults.push(Fault::new(
            format!("{path}.path"),
            message,
            "write an absolute path without ..",
        ));
        return None;
    }
    let kind = match host.kind.as_deref().unwrap_or_default() {
        "" => HostPathKind::Any,
        "Directory" => HostPathKind::Directory,
        "DirectoryOrCreate" => HostPathKind::DirectoryOrCreate,
        "File" => HostPathKind::File,
        "FileOrCreate" => HostPathKind::FileOrCreate,
        "Socket" => HostPathKind::Socket,
        other => {
            let message = format!("not supported: {other}");
            let hint = "Directory, DirectoryOrCreate, File, FileOrCreate and Socket are";
            faults.push(Fault::new(format!("{path}.type"), message, hint));
            return None;
        }
    };
    let path = PathBuf::from(&host.path);
    Some(VolumeSource::HostPath { path, kind })
}

fn claim(
    claim: &PersistentVolumeClaimVolumeSource,
    pod: &Pod<'_>,
    path: &str,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let id = ObjectId::new(pod.namespace(), claim.claim_name.as_str());
    let Some(known) = pod.sources.claim(&id) else {
        let message = format!("there is no PersistentVolumeClaim {id}");
        faults.push(Fault::new(format!("{path}.claimName"), message, "add it"));
        return None;
    };
    Some(VolumeSource::Claim {
        claim: id,
        read_only: claim.read_only || known.read_only,
        shared: known.shared,
    })
}

/// A ConfigMap or Secret in a volume.
struct Object<'a> {
    kind: Kind,
    name: &'a str,
    items: &'a [KeyToPath],
    optional: Option<bool>,
}

/// The files of one volume, as they are found.
struct Files<'a> {
    pod: &'a Pod<'a>,
    faults: &'a mut Faults,
    files: Vec<VolumeFile>,
    before: usize,
}

impl<'a> Files<'a> {
    fn new(pod: &'a Pod<'a>, faults: &'a mut Faults) -> Self {
        Self {
            pod,
            before: faults.0.len(),
            faults,
            files: Vec::new(),
        }
    }

    fn mode(&mut self, mode: Option<i32>, default: u32, path: &str) -> u32 {
        let Some(mode) = mode else { return default };
        match u32::try_from(mode) {
            Ok(mode) if mode <= 0o777 => mode,
            _ => {
                let hint = "must be 0 to 0777 (511 in JSON)";
                self.faults
                    .push(Fault::new(path, format!("invalid value: {mode}"), hint));
                default
            }
        }
    }

    fn projected(&mut self, projected: &ProjectedVolumeSource, path: &str) {
        let mode = self.mode(projected.default_mode, MODE, &format!("{path}.defaultMode"));
        for (nth, source) in projected.sources.iter().flatten().enumerate() {
            let path = format!("{path}.sources[{nth}]");
            let objects = [
                (Kind::Secret, "secret", &source.secret),
                (Kind::ConfigMap, "configMap", &source.config_map),
            ];
            for (kind, field, object) in objects {
                if let Some(object) = object {
                    let object = Object {
                        kind,
                        name: &object.name,
                        items: &object.items,
                        optional: object.optional,
                    };
                    self.object(&object, mode, &format!("{path}.{field}"));
                }
            }
            if let Some(downward) = &source.downward_api {
                self.downward(downward, mode, &format!("{path}.downwardAPI"));
            }
        }
    }

    fn object(&mut self, object: &Object<'_>, mode: u32, path: &str) {
        let optional = object.optional == Some(true);
        let keys = match self.pod.sources.find(object.kind, self.pod.namespace(), object.name) {
            Ok(keys) => keys,
            Err(_) if optional => return,
            Err(message) => {
                let hint = "add it, or set optional: true";
                return self.faults.push(Fault::new(path, message, hint));
            }
        };
        let Keys { data, binary, .. } = keys;
        if object.items.is_empty() {
            for (key, value) in data.iter().chain(binary) {
                self.add(key, FileContent::Bytes(Arc::clone(value)), mode, path);
            }
            return;
        }
        for (nth, item) in object.items.iter().enumerate() {
            let path = format!("{path}.items[{nth}]");
            let mode = self.mode(item.mode, mode, &format!("{path}.mode"));
            match data.get(&item.key).or_else(|| binary.get(&item.key)) {
                Some(value) => self.add(&item.path, FileContent::Bytes(Arc::clone(value)), mode, &path),
                None if optional => {}
                None => {
                    let (kind, namespace, name) = (object.kind, self.pod.namespace(), object.name);
                    let message = format!("there is no key {:?} in {kind:?} {namespace}/{name}", item.key);
                    self.faults.push(Fault::new(
                        format!("{path}.key"),
                        message,
                        "add it, or set optional: true",
                    ));
                }
            }
        }
    }

    fn downward(&mut self, downward: &DownwardApiProjection, mode: u32, path: &str) {
        for (nth, item) in downward.items.iter().enumerate() {
            let path = format!("{path}.items[{nth}]");
            let mode = self.mode(item.mode, mode, &format!("{path}.mode"));
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => self.pod.file(field, &format!("{path}.fieldRef")),
                (None, Some(resource)) => {
                    let path = format!("{path}.resourceFieldRef");
                    self.pod.resource(resource, None, &path)
                }
                // Knative's validation has said so.
                (None, None) => continue,
            };
            match text {
                Ok(text) => self.add(&item.path, FileContent::Text(text), mode, &path),
                Err(fault) => self.faults.push(fault),
            }
        }
    }

    fn add(&mut self, to: &str, content: FileContent, mode: u32, path: &str) {
        match relative(to) {
            Some(to) => self.files.push(VolumeFile {
                path: to,
                content,
                mode,
            }),
            None => {
                let message = format!("{to:?} cannot be a file");
                self.faults
                    .push(Fault::new(path, message, "write a relative path without .. as path"));
            }
        }
    }

    /// Two sources of one volume may not want one place for two things.
    fn finish(self, path: &str) -> Option<VolumeSource> {
        let mut seen: BTreeSet<&Path> = BTreeSet::new();
        for file in &self.files {
            let inside = |other: &&&Path| file.path.starts_with(other) || other.starts_with(&file.path);
            if let Some(other) = seen.iter().find(inside) {
                let message = format!("{:?} and {:?} cannot both be there", other, file.path);
                self.faults.push(Fault::new(path, message, "give them other paths"));
                return None;
            }
            seen.insert(&file.path);
        }
        (self.faults.0.len() == self.before).then_some(VolumeSource::Files(self.files))
    }
}

/// A path below a volume's root, written in one way only.
fn relative(text: &str) -> Option<PathBuf> {
    if text.is_empty() || text.contains('\0') || text.starts_with('/') || has_dots(text) {
        return None;
    }
    let normal = |part: Component<'_>| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        _ => None,
    };
    let path: PathBuf = Path::new(text).components().filter_map(normal).collect();
    (!path.as_os_str().is_empty()).then_some(path)
}

fn has_dots(text: &str) -> bool {
    text.split('/').any(|part| part == "..")
}

/// Knative's validation has seen to names and reserved paths.
pub(super) fn mounts(container: &Container, path: &str, faults: &mut Faults) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for (nth, mount) in container.volume_mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{nth}]");
        let sub_path = match mount.sub_path.as_str() {
            "" => None,
            text => {
                let found = relative(text);
                if found.is_none() {
                    let message = format!("invalid value: {text:?}");
                    let hint = "write a relative path without ..";
                    faults.push(Fault::new(format!("{path}.subPath"), message, hint));
                }
                found
            }
        };
        let at = &mount.mount_path;
        if !Path::new(at).is_absolute() || at.contains('\0') || has_dots(at) {
            let message = format!("invalid value: {at:?}");
            let hint = "write an absolute path without ..";
            faults.push(Fault::new(format!("{path}.mountPath"), message, hint));
        }
        mounts.push(Mount {
            volume: mount.name.as_str().into(),
            path: Path::new(at).components().collect(),
            sub_path,
            read_only: mount.read_only,
        });
    }
    mounts
}

#[cfg(test)]
mod tests;
