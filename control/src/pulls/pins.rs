//! Pins that outlive Knarr: a small file, by what the templates of revisions say.
//!
//! Revisions are made anew when Knarr starts, under new uids; what makes one the same as before is its name and its
//! template. A changed template is another revision, whose tags are found out anew.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use images::Digest;
use manifests::knative::IMAGE_SCHEMES;
use manifests::resources::Revision;
use serde::{Deserialize, Serialize};

/// By reference as in the workload (`docker.io/library/nginx:latest`, `oci:/images/app`): its digest.
pub type Pins = BTreeMap<String, String>;

/// What identifies the template of a revision across starts of Knarr.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct TemplateId {
    /// Of the Configuration.
    pub namespace: String,
    /// The Configuration.
    pub configuration: String,
    /// SHA-256 over spec, labels and annotations of the template.
    pub template: String,
}

/// One line of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// Whose.
    #[serde(flatten)]
    pub template: TemplateId,
    /// Its pins.
    pub images: Pins,
}

/// The identity of a revision's template. What Knative itself writes on a revision is no part of it.
pub fn template_of(revision: &Revision) -> TemplateId {
    let meta = &revision.metadata;
    let own = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let foreign = |key: &&String| !key.starts_with("serving.knative.dev/");
        map.iter()
            .filter(|(key, _)| foreign(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let text = serde_json::to_string(&(&revision.spec, own(&meta.labels), own(&meta.annotations)));
    let configuration = meta.labels.get("serving.knative.dev/configuration");
    TemplateId {
        namespace: meta.namespace.clone(),
        configuration: configuration.unwrap_or(&meta.name).clone(),
        template: Digest::of(text.unwrap_or_default().as_bytes()).to_string(),
    }
}

/// Reads the file; one that is not there has no pins.
///
/// # Errors
/// When it cannot be read or is broken.
pub fn read(file: &Path) -> io::Result<Vec<Saved>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Leaves only what tags of registries stood for.
pub fn forget_local(pins: &mut Vec<Saved>) {
    let is_local = |name: &str| IMAGE_SCHEMES.iter().any(|scheme| name.starts_with(scheme));
    for saved in &mut *pins {
        saved.images.retain(|name, _| !is_local(name));
    }
    pins.retain(|saved| !saved.images.is_empty());
}

/// Writes the file in place of the old one, which stays whole if this fails.
///
/// # Errors
/// When the directory cannot be written.
pub fn write(file: &Path, pins: &[Saved]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut out = std::fs::File::create(&fresh)?;
    out.write_all(&serde_json::to_vec_pretty(pins)?)?;
    out.sync_all()?;
    std::fs::rename(fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_the_same_whatever_knative_writes_on_its_revision() {
        let mut revision = Revision::default();
        revision.metadata.namespace = "default".into();
        revision.metadata.name = "hello-00001".into();
        revision
            .metadata
            .labels
            .insert("serving.knative.dev/configuration".into(), "hello".into());
        revision.metadata.annotations.insert("a".into(), "1".into());
        let first = template_of(&revision);
        assert_eq!(first.configuration, "hello");
        revision.metadata.uid = "other".into();
        revision
            .metadata
            .labels
            .insert("serving.knative.dev/routingState".into(), "active".into());
        revision
            .metadata
            .annotations
            .insert("serving.knative.dev/routes".into(), "hello".into());
        assert_eq!(template_of(&revision), first);
        revision.metadata.annotations.insert("a".into(), "2".into());
        assert_ne!(
            template_of(&revision),
            first,
            "an annotation is how one asks for a new revision"
        );
    }

    #[test]
    fn images_of_this_machine_are_forgotten_and_those_of_registries_are_not() {
        let saved = |names: &[&str]| Saved {
            template: template_of(&Revision::default()),
            images: names.iter().map(|name| ((*name).into(), "sha256:00".into())).collect(),
        };
        let mut pins = vec![
            saved(&["oci:/a:v1", "docker.io/library/a:1"]),
            saved(&["docker-daemon:a", "dir:/a"]),
        ];
        forget_local(&mut pins);
        assert_eq!(pins, [saved(&["docker.io/library/a:1"])]);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pins.json");
        assert_eq!(read(&file).unwrap(), []);
        let saved = [Saved {
            template: template_of(&Revision::default()),
            images: Pins::from([("docker.io/library/a:1".into(), "sha256:00".into())]),
        }];
        write(&file, &saved).unwrap();
        assert_eq!(read(&file).unwrap(), saved);
        std::fs::write(&file, "[").unwrap();
        assert!(read(&file).is_err());
    }
}
