//! Does the jobs of [`super::Pulls`]: asks registries, pulls and unpacks, says how far it is. The shell around it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use images::{Digest, ImageError, Progress, Root, Stage as LayerStage, Store};
use manifests::config::DeploymentConfig;
use manifests::ids::ObjectId;
use manifests::reference::Reference;
use manifests::units::{Bytes, Clock};
use manifests::workload::{Image, PullPolicy, RegistryAuth};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pins::Pins;
use super::{ContainerImage, Job, Stage, Trouble, pinned};
use crate::tell::tell;

/// What becomes of a job.
#[derive(Debug)]
pub struct Word {
    /// Whose images.
    pub revision: ObjectId,
    /// Its uid.
    pub uid: String,
    /// What happened.
    pub what: What,
}

/// How far a job is.
#[derive(Debug)]
pub enum What {
    /// Its tags are known.
    Resolved(Pins),
    /// It is over: the images, or what went wrong.
    Ended(Result<Vec<Arc<Root>>, Trouble>),
}

/// Does jobs, many at once.
pub struct Worker {
    store: Store,
    words: UnboundedSender<Word>,
    clock: Clock,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// How many registries are asked at once.
    questions: Arc<Semaphore>,
    /// How many revisions pull at once; the store shares its unpackers among them.
    pulls: Arc<Semaphore>,
    jobs: HashMap<(ObjectId, String), Running>,
}

/// A job on its way, or the images that it brought: they stay in the store while this is here.
struct Running {
    cancel: CancellationToken,
    roots: Vec<Arc<Root>>,
}

impl Worker {
    /// Words about jobs go to `words`; everything ends with `stop`.
    pub fn new(
        store: Store,
        words: UnboundedSender<Word>,
        clock: Clock,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            words,
            clock,
            tasks,
            stop,
            questions: Arc::new(Semaphore::new(16)),
            pulls: Arc::new(Semaphore::new(4)),
            jobs: HashMap::new(),
        }
    }

    /// Begins a job.
    pub fn start(&mut self, job: Job, config: &DeploymentConfig) {
        let id = (job.wanted.revision.clone(), job.wanted.uid.clone());
        let cancel = self.stop.child_token();
        let task = Task {
            store: self.store.clone(),
            words: self.words.clone(),
            clock: Clock::clone(&self.clock),
            questions: Arc::clone(&self.questions),
            pulls: Arc::clone(&self.pulls),
            config: config.clone(),
            job,
        };
        self.tasks.spawn(cancel.clone().run_until_cancelled_owned(task.run()));
        let running = self.jobs.entry(id).or_insert_with(|| Running {
            cancel: cancel.clone(),
            roots: Vec::new(),
        });
        running.cancel = cancel;
    }

    /// Keeps a revision's images in the store until it is gone.
    pub fn hold(&mut self, revision: &ObjectId, uid: &str, roots: Vec<Arc<Root>>) {
        if let Some(running) = self.jobs.get_mut(&(revision.clone(), uid.to_owned())) {
            running.roots = roots;
        }
    }

    /// Gives up what nobody wants any more.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&ObjectId, &str) -> bool) {
        self.jobs.retain(|(revision, uid), running| {
            let wanted = is_wanted(revision, uid);
            if !wanted {
                running.cancel.cancel();
            }
            wanted
        });
    }
}

struct Task {
    store: Store,
    words: UnboundedSender<Word>,
    clock: Clock,
    questions: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
    config: DeploymentConfig,
    job: Job,
}

impl Task {
    async fn run(self) {
        let result = self.resolve_and_pull().boxed().await;
        if let Err(trouble) = &result {
            tracing::warn!(revision = %self.job.wanted.revision, reason = trouble.reason, "{}", trouble.message);
        }
        self.say(What::Ended(result));
    }

    fn say(&self, what: What) {
        // Nobody listens when Knarr ends.
        let _ = self.words.send(Word {
            revision: self.job.wanted.revision.clone(),
            uid: self.job.wanted.uid.clone(),
            what,
        });
    }

    async fn resolve_and_pull(&self) -> Result<Vec<Arc<Root>>, Trouble> {
        let mut pins = self.job.pins.clone();
        for container in &self.job.wanted.containers {
            if let Some(reference) = self.tag_of(container, &pins)
                && let Some(digest) = self.resolve(reference, container.policy).await?
            {
                pins.insert(reference.to_string(), digest);
            }
        }
        let known = pins.clone();
        self.say(What::Resolved(known.clone()));
        let mut roots: BTreeMap<String, Arc<Root>> = BTreeMap::new();
        for container in &self.job.wanted.containers {
            let image = pinned(&container.image, &pins);
            if let Entry::Vacant(place) = roots.entry(image.to_string()) {
                let root = self.pull(&image, container.policy).await?;
                if image.is_local()
                    && let Some(digest) = self.pin(&image, &root).await?
                {
                    pins.insert(image.to_string(), digest);
                }
                place.insert(root);
            }
        }
        if pins != known {
            self.say(What::Resolved(pins));
        }
        Ok(roots.into_values().collect())
    }

    /// What an image of this machine held, from its root.
    async fn pin(&self, image: &Image, root: &Arc<Root>) -> Result<Option<String>, Trouble> {
        match self.store.pin(image, root).await {
            Ok(Some(_)) => Ok(Some(root.digest.to_string())),
            Ok(None) if root.is_plain() => Ok(None),
            // Tried again.
            Ok(None) => Err(Trouble::pull(image, "it has changed while it was read")),
            Err(error) => Err(Trouble::pull(image, error)),
        }
    }

    /// The reference whose tag is to be resolved: not one with a digest, not one of a registry that Knative leaves alone,
    /// and none that must not be asked for.
    fn tag_of<'a>(&self, container: &'a ContainerImage, pins: &Pins) -> Option<&'a Reference> {
        let Image::Registry(reference) = &container.image else {
            return None;
        };
        let leave = reference.digest.is_some()
            || container.policy == PullPolicy::Never
            || self.config.skip_tag_resolving.contains(&reference.registry)
            || pins.contains_key(&reference.to_string());
        (!leave).then_some(reference)
    }

    /// What a tag stands for. `None` when its registry cannot be asked and the store has what it stood for last: with
    /// `IfNotPresent` that will do.
    async fn resolve(&self, reference: &Reference, policy: PullPolicy) -> Result<Option<String>, Trouble> {
        let turn = self.questions.acquire().await;
        let limit = self.config.digest_timeout;
        let asked = tokio::time::timeout(limit, self.store.tag(reference, self.auth())).await;
        drop(turn);
        let error = match asked {
            Ok(Ok(digest)) => return Ok(Some(digest)),
            Ok(Err(error)) => error,
            Err(_) => ImageError::Unreachable(format!("{} does not answer within {limit:?}", reference.registry)),
        };
        if policy == PullPolicy::IfNotPresent && matches!(error, ImageError::Unreachable(_)) {
            let image = Image::Registry(reference.clone());
            if self
                .store
                .ensure(&image, PullPolicy::Never, &[], &images::Silent)
                .await
                .is_ok()
            {
                tracing::warn!(image = %reference, %error, "using what is there");
                return Ok(None);
            }
        }
        Err(Trouble {
            stage: Stage::Resolve,
            reason: "ContainerMissing",
            message: format!("Unable to fetch image {:?}: {error}", reference.to_string()),
        })
    }

    async fn pull(&self, image: &Image, policy: PullPolicy) -> Result<Arc<Root>, Trouble> {
        let _turn = self.pulls.acquire().await;
        let layers = Layers::default();
        let began = (self.clock)();
        // What has a digest cannot change.
        let policy = match image {
            Image::Registry(reference) if reference.digest.is_some() && policy == PullPolicy::Always => {
                PullPolicy::IfNotPresent
            }
            _ => policy,
        };
        let ensure = self.store.ensure(image, policy, self.auth(), &layers);
        tokio::pin!(ensure);
        let mut told = tokio::time::interval(TELL_EVERY);
        told.tick().await;
        let result = loop {
            tokio::select! {
                result = &mut ensure => break result,
                _ = told.tick() => tell(format_args!("{}: pulling {image}: {layers}", self.job.wanted.revision)),
            }
        };
        match result {
            Ok(root) => {
                if layers.fetched().0 > 0 {
                    let took = (self.clock)().since(began).as_secs_f64();
                    tell(format_args!(
                        "{}: pulled {image}: {layers} in {took:.1} s",
                        self.job.wanted.revision
                    ));
                }
                Ok(root)
            }
            Err(error) => Err(Trouble {
                reason: match (policy, &error) {
                    (PullPolicy::Never, ImageError::NotFound(_)) => "ErrImageNeverPull",
                    _ => "ErrImagePull",
                },
                ..Trouble::pull(image, error)
            }),
        }
    }

    fn auth(&self) -> &[RegistryAuth] {
        &self.job.wanted.auth
    }
}

/// How far the layers of one image are.
#[derive(Default)]
struct Layers(Mutex<HashMap<Digest, (Bytes, Bytes)>>);

impl Layers {
    /// Bytes that came, and how many there will be.
    fn sums(&self) -> (Bytes, Bytes, usize) {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |of: fn(&(Bytes, Bytes)) -> u64| Bytes(layers.values().map(of).sum());
        (sum(|it| it.0.0), sum(|it| it.1.0), layers.len())
    }

    fn fetched(&self) -> Bytes {
        self.sums().0
    }
}

impl Progress for Layers {
    fn stage(&self, layer: &Digest, stage: LayerStage) {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match stage {
            LayerStage::Downloading { done, total } => drop(layers.insert(*layer, (done, total))),
            LayerStage::Waiting | LayerStage::Present => {}
            // All of it has come.
            LayerStage::Unpacking | LayerStage::Verifying | LayerStage::Done => {
                if let Some((done, total)) = layers.get_mut(layer) {
                    *done = *total;
                }
            }
        }
    }
}

/// `12.5 of 60.0 MB`, or `60.0 MB in 3 layers` when all came.
impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |bytes: Bytes| bytes.0 as f64 / 1e6;
        let (done, total, layers) = self.sums();
        if done < total {
            return write!(f, "{:.1} of {:.1} MB", mega(done), mega(total));
        }
        let s = if layers == 1 { "" } else { "s" };
        write!(f, "{:.1} MB in {layers} layer{s}", mega(total))
    }
}

const TELL_EVERY: Duration = Duration::from_secs(5);
