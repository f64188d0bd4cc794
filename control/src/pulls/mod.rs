//! Images of revisions: found out once, pinned, and on disk before a revision may start. PURE but for `worker.rs`.
//!
//! ```text
//!              ┌──────────── failed: waits, longer each time ───────────┐
//! want ─▶ due ─▶ Job: resolve tags ─ resolved ─▶ pull ─ ended ─▶ ready ─┘
//!                     ResolvingDigests            ContainerCreating     in the snapshot, pinned
//! ```
//!
//! Pins are Knative's rule: what a tag stood for when its revision was made is what the revision runs, whatever the tag
//! stands for later; likewise what an image of this machine (`oci:`, `docker-daemon:`, ...) held. They outlive Knarr in a file,
//! by what a revision's template says: see [`pins`].

pub mod pins;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::ObjectId;
use manifests::reference::Reference;
use manifests::units::Timestamp;
use manifests::workload::{Image, PullPolicy, RegistryAuth, Workload};

use self::pins::{Pins, Saved, TemplateId};

/// One revision's images, as its template has them.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted {
    /// The Revision object.
    pub revision: ObjectId,
    /// Its uid: another one of the same name is another revision.
    pub uid: String,
    /// What its template says.
    pub template: TemplateId,
    /// Its containers, in the order of [`Workload::containers`].
    pub containers: Vec<ContainerImage>,
    /// Of its pull secrets.
    pub auth: Vec<RegistryAuth>,
}

/// The image of one container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainerImage {
    /// The container.
    pub container: Arc<str>,
    /// Its image.
    pub image: Image,
    /// When its registry is asked.
    pub policy: PullPolicy,
    /// Runs before the others.
    pub init: bool,
}

/// Work for [`worker`]: resolve what has no pin, then pull everything.
#[derive(Clone, PartialEq, Debug)]
pub struct Job {
    /// What is wanted.
    pub wanted: Wanted,
    /// What is known of it.
    pub pins: Pins,
}

/// What is wrong with a revision's images.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// Where it went wrong.
    pub stage: Stage,
    /// For people.
    pub message: String,
    /// A word of Kubernetes' kubelet, for [`Stage::Pull`]; `ContainerMissing` for [`Stage::Resolve`].
    pub reason: &'static str,
}

/// The two parts of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Finding out what tags stand for.
    Resolve,
    /// Fetching and unpacking.
    Pull,
}

/// Where the images of one revision stand.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Standing<'a> {
    /// Its tags are being found out.
    Resolving,
    /// They are known, and being pulled.
    Pulling(&'a Wanted, &'a Pins),
    /// It went wrong, and is tried again.
    Failed(&'a Wanted, &'a Pins, &'a Trouble),
    /// All of it is there.
    Ready(&'a Wanted, &'a Pins),
}

/// The images of all revisions.
#[derive(Debug, Default)]
pub struct Pulls {
    revisions: BTreeMap<ObjectId, Entry>,
    /// Pins of an earlier Knarr that no revision has asked for yet.
    restored: BTreeMap<TemplateId, Pins>,
    /// Grows with every change of pins.
    version: u64,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    pins: Pins,
    /// Nothing is left to be resolved.
    resolved: bool,
    phase: Phase,
    trouble: Option<Trouble>,
    failures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Until then.
    Waiting(Timestamp),
    /// A job is on its way.
    Working,
    Ready,
}

impl Pulls {
    /// Starts with the pins of an earlier Knarr.
    pub fn restore(&mut self, saved: Vec<Saved>) {
        self.restored = saved.into_iter().map(|it| (it.template, it.images)).collect();
    }

    /// Wants the images of a revision. True when they are not ready, and were not wanted before.
    pub fn want(&mut self, wanted: Wanted, now: Timestamp) -> bool {
        if let Some(entry) = self.revisions.get_mut(&wanted.revision)
            && entry.wanted.uid == wanted.uid
        {
            // Its pull secrets may be other ones now: that is worth a try at once.
            if entry.wanted != wanted && entry.trouble.is_some() && matches!(entry.phase, Phase::Waiting(_)) {
                entry.phase = Phase::Waiting(now);
            }
            entry.wanted = wanted;
            return false;
        }
        let pins = self.restored.remove(&wanted.template).unwrap_or_default();
        let entry = Entry {
            wanted,
            pins,
            resolved: false,
            phase: Phase::Waiting(now),
            trouble: None,
            failures: 0,
        };
        self.revisions.insert(entry.wanted.revision.clone(), entry);
        self.version += 1;
        true
    }

    /// Forgets revisions that are no more, with their pins.
    pub fn retain(&mut self, mut is_there: impl FnMut(&ObjectId) -> bool) {
        let before = self.revisions.len();
        self.revisions.retain(|id, _| is_there(id));
        self.version += u64::from(self.revisions.len() != before);
    }

    /// What is to be done now; each job is given out once, until [`Self::ended`] says how it went.
    pub fn due(&mut self, now: Timestamp) -> Vec<Job> {
        let due = self
            .revisions
            .values_mut()
            .filter(|it| matches!(it.phase, Phase::Waiting(until) if until <= now));
        due.map(|entry| {
            entry.phase = Phase::Working;
            Job {
                wanted: entry.wanted.clone(),
                pins: entry.pins.clone(),
            }
        })
        .collect()
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.revisions.values().filter_map(|it| match it.phase {
            Phase::Waiting(until) => Some(until),
            Phase::Working | Phase::Ready => None,
        });
        waiting.min()
    }

    /// The tags of a revision are known. False when it is no more.
    pub fn resolved(&mut self, revision: &ObjectId, uid: &str, pins: Pins) -> bool {
        let Some(entry) = self.entry(revision, uid) else {
            return false;
        };
        entry.resolved = true;
        if entry.trouble.as_ref().is_some_and(|it| it.stage == Stage::Resolve) {
            (entry.trouble, entry.failures) = (None, 0);
        }
        if entry.pins != pins {
            entry.pins = pins;
            self.version += 1;
        }
        true
    }

    /// A job has come to its end. False when its revision is no more.
    pub fn ended(&mut self, revision: &ObjectId, uid: &str, result: Result<(), Trouble>, now: Timestamp) -> bool {
        let Some(entry) = self.entry(revision, uid) else {
            return false;
        };
        match result {
            Ok(()) => (entry.phase, entry.trouble, entry.failures) = (Phase::Ready, None, 0),
            Err(trouble) => {
                entry.phase = Phase::Waiting(now.plus(wait_after(entry.failures)));
                entry.failures = entry.failures.saturating_add(1);
                entry.trouble = Some(if entry.failures > 1 { trouble.again() } else { trouble });
            }
        }
        true
    }

    /// Where a revision stands; `None` when it has no images to wait for.
    pub fn standing(&self, revision: &ObjectId) -> Option<Standing<'_>> {
        let entry = self.revisions.get(revision)?;
        Some(match (&entry.trouble, entry.phase) {
            (_, Phase::Ready) => Standing::Ready(&entry.wanted, &entry.pins),
            (Some(trouble), _) => Standing::Failed(&entry.wanted, &entry.pins, trouble),
            (None, _) if entry.resolved => Standing::Pulling(&entry.wanted, &entry.pins),
            (None, _) => Standing::Resolving,
        })
    }

    /// Whether a revision is wanted under this uid.
    pub fn wants(&self, revision: &ObjectId, uid: &str) -> bool {
        self.revisions.get(revision).is_some_and(|it| it.wanted.uid == uid)
    }

    /// Grows with every change of [`Self::saved`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The pins to keep for the next Knarr. Of two revisions with one template the later one's count.
    pub fn saved(&self) -> Vec<Saved> {
        let current = self.revisions.values().map(|it| (&it.wanted.template, &it.pins));
        let all: BTreeMap<&TemplateId, &Pins> = self
            .restored
            .iter()
            .chain(current)
            .filter(|(_, pins)| !pins.is_empty())
            .collect();
        all.into_iter()
            .map(|(template, images)| Saved {
                template: template.clone(),
                images: images.clone(),
            })
            .collect()
    }

    fn entry(&mut self, revision: &ObjectId, uid: &str) -> Option<&mut Entry> {
        self.revisions.get_mut(revision).filter(|it| it.wanted.uid == uid)
    }
}

impl Trouble {
    fn pull(image: &Image, why: impl std::fmt::Display) -> Self {
        Self {
            stage: Stage::Pull,
            reason: "ErrImagePull",
            message: format!("Unable to pull image {:?}: {why}", image.to_string()),
        }
    }

    /// As the kubelet says it when it has tried before.
    fn again(self) -> Self {
        match self.reason {
            "ErrImagePull" => Self {
                reason: "ImagePullBackOff",
                message: format!("Back-off pulling image: {}", self.message),
                ..self
            },
            _ => self,
        }
    }
}

/// Grows from a second to five minutes, as the kubelet's.
fn wait_after(failures: u32) -> Duration {
    LONGEST_WAIT.min(Duration::from_secs(1 << failures.min(16)))
}

/// What the containers of a workload want, without programs of this machine; `None` when there is nothing.
pub fn wanted(revision: ObjectId, uid: &str, template: TemplateId, workload: &Workload) -> Option<Wanted> {
    let is_init = |name: &str| workload.init.iter().any(|it| &*it.name == name);
    let containers: Vec<ContainerImage> = workload
        .containers()
        .filter(|container| !matches!(container.image, Image::Host(_)))
        .map(|container| ContainerImage {
            container: Arc::clone(&container.name),
            image: container.image.clone(),
            policy: container.pull,
            init: is_init(&container.name),
        })
        .collect();
    (!containers.is_empty()).then(|| Wanted {
        revision,
        uid: uid.to_owned(),
        template,
        containers,
        auth: workload.registry_auth.clone(),
    })
}

/// The image that a container runs: its own, with what its tag stood for.
pub fn pinned(image: &Image, pins: &Pins) -> Image {
    match image {
        Image::Registry(reference) if reference.digest.is_none() => match pins.get(&reference.to_string()) {
            Some(digest) => Image::Registry(reference.pinned(digest.clone())),
            None => image.clone(),
        },
        local if local.is_local() => match pins.get(&local.to_string()) {
            Some(digest) => local.pinned(digest.clone()),
            None => image.clone(),
        },
        other => other.clone(),
    }
}

/// A workload with every image pinned.
pub fn pin(workload: &Workload, pins: &Pins) -> Workload {
    let mut workload = workload.clone();
    let containers = workload
        .init
        .iter_mut()
        .chain(std::iter::once(&mut workload.serving))
        .chain(&mut workload.sidecars);
    for container in containers {
        container.image = pinned(&container.image, pins);
    }
    workload
}

/// `imageDigest` of a container's status (Knative): repository and digest, and for an image of this machine where it was and
/// its digest; empty where tags are not resolved.
pub fn image_digest(image: &Image, pins: &Pins) -> String {
    match pinned(image, pins) {
        Image::Registry(Reference {
            registry,
            repository,
            digest: Some(digest),
            ..
        }) => {
            // As go-containerregistry writes Docker's registry.
            let registry = if registry == "docker.io" {
                "index.docker.io"
            } else {
                &registry
            };
            format!("{registry}/{repository}@{digest}")
        }
        local @ Image::Pinned { .. } => local.to_string(),
        _ => String::new(),
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
