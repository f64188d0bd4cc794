//! What the sandboxes of a service or revision wrote, as one stream; when it is followed, sandboxes that start later are in
//! it, too.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use manifests::ids::{ObjectId, SandboxId};
use manifests::resources::{Revision, Service};
use manifests::units::Timestamp;
use sandbox::driver::Driver;
use sandbox::logs::{Entry, Follower};

use crate::answers::object_called;
use crate::desired::Desired;

/// The logs of a service, a revision or one sandbox.
pub(crate) struct Logs {
    id: ObjectId,
    desired: Arc<RwLock<Desired>>,
    driver: Arc<dyn Driver>,
    wanted: LogQuery,
    readers: BTreeMap<SandboxId, Reader>,
}

/// Which lines are wanted, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogQuery {
    /// Only the last so many lines of each sandbox that is there already.
    pub tail: Option<usize>,
    /// Then what comes.
    pub follow: bool,
    /// No line older than this.
    pub since: Option<Timestamp>,
    /// With the time of each line before it.
    pub timestamps: bool,
}

/// The log of one sandbox, with lines that were read and not printed yet.
struct Reader {
    follower: Follower,
    ahead: VecDeque<Entry>,
    /// The last piece was not the end of its line.
    within_line: bool,
}

impl Logs {
    /// Of what `target` (`NAME` or `NAMESPACE/NAME`) names.
    pub(crate) fn of(target: &str, wanted: LogQuery, desired: Arc<RwLock<Desired>>, driver: Arc<dyn Driver>) -> Self {
        Self {
            id: object_called(target),
            wanted,
            desired,
            driver,
            readers: BTreeMap::new(),
        }
    }

    /// The lines that are wanted; of several sandboxes in the order in which they were written.
    ///
    /// # Errors
    /// In words for people, when a log cannot be read, or there is none and none can be expected.
    pub(crate) fn stream(mut self) -> Result<BoxStream<'static, Bytes>, String> {
        let follow = self.wanted.follow;
        self.look(self.wanted.tail)
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
        self.readers
            .retain(|id, reader| names.contains(id) || !reader.ahead.is_empty());
        for id in names {
            if self.readers.contains_key(&id) {
                continue;
            }
            if let Some(newest) = self.driver.logs(&id).into_iter().next() {
                let reader = Reader {
                    follower: Follower::open(newest, tail)?,
                    ahead: VecDeque::new(),
                    within_line: false,
                };
                self.readers.insert(id, reader);
            }
        }
        Ok(())
    }

    /// What is new, in pieces of about [`PIECE`]; with the sandbox's name before each line where there are several.
    fn read(&mut self) -> Vec<u8> {
        let several = self.readers.len() > 1;
        let mut text = Vec::new();
        while text.len() < PIECE {
            for reader in self.readers.values_mut().filter(|reader| reader.ahead.is_empty()) {
                let since = self.wanted.since;
                let new = reader.follower.poll().unwrap_or_default();
                reader.ahead.extend(
                    new.into_iter()
                        .filter(|entry| since.is_none_or(|since| entry.time >= since)),
                );
            }
            // A line that goes on is printed to its end; of the others the oldest is next.
            let heads = self.readers.iter_mut().filter(|(_, reader)| !reader.ahead.is_empty());
            let next = heads.min_by_key(|(_, reader)| (!reader.within_line, reader.ahead.front().map(|it| it.time)));
            let Some((id, reader)) = next else { break };
            let Some(entry) = reader.ahead.pop_front() else { break };
            if !reader.within_line {
                if several {
                    text.extend_from_slice(format!("[{id}] ").as_bytes());
                }
                if self.wanted.timestamps {
                    let time = UNIX_EPOCH + Duration::from_nanos(entry.time.as_nanos());
                    text.extend_from_slice(format!("{} ", humantime::format_rfc3339_micros(time)).as_bytes());
                }
            }
            text.extend_from_slice(&entry.text);
            reader.within_line = entry.partial;
            if !entry.partial {
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

/// Lines are sent when this much has come together, or there is no more.
const PIECE: usize = 64 * 1024;

/// How often followed logs are looked at.
const FOLLOW: Duration = Duration::from_millis(100);
