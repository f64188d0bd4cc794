//! What the sandboxes of a service or revision wrote, as one stream; when it is followed, sandboxes that start later are in
//! it, too.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use manifests::ids::{ObjectId, SandboxId};
use manifests::resources::{Revision, Service};
use sandbox::driver::Driver;
use sandbox::logs::Follower;

use crate::answers::object_called;
use crate::desired::Desired;

/// The logs of a service, a revision or one sandbox.
pub(crate) struct Logs {
    id: ObjectId,
    desired: Arc<RwLock<Desired>>,
    driver: Arc<dyn Driver>,
    readers: BTreeMap<SandboxId, Follower>,
}

impl Logs {
    /// Of what `target` (`NAME` or `NAMESPACE/NAME`) names.
    pub(crate) fn of(target: &str, desired: Arc<RwLock<Desired>>, driver: Arc<dyn Driver>) -> Self {
        Self {
            id: object_called(target),
            desired,
            driver,
            readers: BTreeMap::new(),
        }
    }

    /// The last `tail` lines of each sandbox, or all that is kept; then what comes, when `follow` says so.
    ///
    /// # Errors
    /// In words for people, when a log cannot be read, or there is none and none can be expected.
    pub(crate) fn stream(mut self, tail: Option<usize>, follow: bool) -> Result<BoxStream<'static, Bytes>, String> {
        self.look(tail)
            .map_err(|error| format!("cannot read the logs of {}: {error}\n", self.id))?;
        if self.readers.is_empty() && !(follow && self.is_known()) {
            return Err(format!(
                "nothing named {} has written anything; `knarr get` lists what there is\n",
                self.id
            ));
        }
        Ok(stream::unfold(self, move |mut logs| async move {
            loop {
                let text = logs.read();
                if !text.is_empty() {
                    return Some((Bytes::from(text), logs));
                }
                if !follow {
                    return None;
                }
                tokio::time::sleep(FOLLOW).await;
                if let Err(error) = logs.look(None) {
                    tracing::warn!(id = %logs.id, %error, "cannot read a log that is being followed");
                }
            }
        })
        .boxed())
    }

    /// Opens what is there and not read yet; forgets what has been removed.
    fn look(&mut self, tail: Option<usize>) -> io::Result<()> {
        let names = self.names();
        self.readers.retain(|id, _| names.contains(id));
        for id in names {
            if self.readers.contains_key(&id) {
                continue;
            }
            if let Some(newest) = self.driver.logs(&id).into_iter().next() {
                self.readers.insert(id, Follower::open(newest, tail)?);
            }
        }
        Ok(())
    }

    /// What is new; with the sandbox's name before each line where there are several.
    fn read(&mut self) -> Vec<u8> {
        let several = self.readers.len() > 1;
        let mut text = Vec::new();
        for (id, reader) in &mut self.readers {
            for entry in reader.poll().unwrap_or_default() {
                if several {
                    text.extend_from_slice(format!("[{id}] ").as_bytes());
                }
                text.extend_from_slice(&entry.text);
                text.push(b'\n');
            }
        }
        text
    }

    /// The sandboxes of which there is output.
    fn names(&self) -> Vec<SandboxId> {
        let mut prefixes: Vec<String> = {
            let desired = self.desired.read().unwrap_or_else(PoisonError::into_inner);
            let of_service = desired.store().all::<Revision>().values().filter(|revision| {
                let meta = &revision.metadata;
                let service = meta.labels.get("serving.knative.dev/service");
                meta.namespace == self.id.namespace() && service.is_some_and(|it| it == self.id.name())
            });
            of_service.map(|revision| revision.metadata.name.clone()).collect()
        };
        prefixes.push(self.id.name().to_owned());
        let belongs = |sandbox: &SandboxId| {
            prefixes.iter().any(|prefix| {
                let rest = sandbox.as_str().strip_prefix(prefix.as_str());
                rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('-') && !rest[1..].contains('-')))
            })
        };
        self.driver.logged().into_iter().filter(belongs).collect()
    }

    /// Whether something of this name may come to write.
    fn is_known(&self) -> bool {
        let desired = self.desired.read().unwrap_or_else(PoisonError::into_inner);
        desired.store().get::<Service>(&self.id).is_some() || desired.store().get::<Revision>(&self.id).is_some()
    }
}

/// How often followed logs are looked at.
const FOLLOW: Duration = Duration::from_millis(100);
