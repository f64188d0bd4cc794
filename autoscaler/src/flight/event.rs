//! An event in a recording: what the fleet makes of it, and no more. Load reports stand in columns, see [`super::columns`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::{Generation, RevisionId, SandboxId};
use manifests::instances::Instances;
use manifests::units::Bytes;
use sandbox::driver::{DriverError, Exit, Phases, Reclaimed, StartError, Started};
use serde::{Deserialize, Serialize};

use super::columns::Columns;
use crate::fleet::{Change, Event};

/// What a recording says of an event.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Recorded {
    Snapshot(Generation, Option<Arc<Instances>>, Vec<Change>),
    Report(Box<Columns>),
    Started(RevisionId, SandboxId, Result<(), StartFailure>),
    Exited(RevisionId, SandboxId, Exit),
    Readiness(RevisionId, SandboxId, Option<Arc<str>>),
    Unhealthy(RevisionId, SandboxId, Arc<str>),
    Stopped(RevisionId, SandboxId, Result<(), Failure>),
    LimitsSet(RevisionId, SandboxId, Result<(), Failure>),
    Frozen(RevisionId, SandboxId, Result<Bytes, Failure>),
    Thawed(RevisionId, SandboxId, Result<(), Failure>),
    Reclaimed(RevisionId, SandboxId, Reclaimed),
    Running(Vec<SandboxId>, Vec<(SandboxId, Arc<str>)>),
}

/// A [`StartError`] that can be written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StartFailure {
    Exited(Exit),
    NotReady(Duration, String),
    Refused(String),
    Exhausted(String),
    Driver(Failure),
}

/// A [`DriverError`] that can be written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failure {
    NotFound(SandboxId),
    Exists(SandboxId),
    CannotFreeze(String),
    ShuttingDown,
    Io(String, String),
}

impl Recorded {
    /// `None` for a whole snapshot and for a load report, which are recorded in other ways.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let ended = |result: &Result<(), DriverError>| match result {
            Ok(()) => Ok(()),
            Err(error) => Err(Failure::of(error)),
        };
        Some(match event {
            Event::Snapshot(_) | Event::Report(_) => return None,
            Event::Changes {
                generation,
                instances,
                changes,
            } => Self::Snapshot(*generation, instances.clone(), changes.clone()),
            Event::Started { revision, id, result } => {
                let result = match result {
                    Ok(_) => Ok(()),
                    Err(error) => Err(StartFailure::of(error)),
                };
                Self::Started(revision.clone(), id.clone(), result)
            }
            Event::Exited { revision, id, exit } => Self::Exited(revision.clone(), id.clone(), exit.clone()),
            Event::Readiness { revision, id, unready } => {
                Self::Readiness(revision.clone(), id.clone(), unready.clone())
            }
            Event::Unhealthy { revision, id, why } => Self::Unhealthy(revision.clone(), id.clone(), why.clone()),
            Event::Stopped { revision, id, result } => Self::Stopped(revision.clone(), id.clone(), ended(result)),
            Event::LimitsSet { revision, id, result } => Self::LimitsSet(revision.clone(), id.clone(), ended(result)),
            Event::Frozen { revision, id, result } => {
                let result = match result {
                    Ok(memory) => Ok(*memory),
                    Err(error) => Err(Failure::of(error)),
                };
                Self::Frozen(revision.clone(), id.clone(), result)
            }
            Event::Thawed { revision, id, result } => Self::Thawed(revision.clone(), id.clone(), ended(result)),
            Event::Reclaimed {
                revision,
                id,
                reclaimed,
            } => Self::Reclaimed(revision.clone(), id.clone(), *reclaimed),
            Event::Running { running, unready } => Self::Running(running.clone(), unready.clone()),
        })
    }

    /// Which of the columns' revisions are meant is looked up in `known`.
    ///
    /// # Errors
    /// When the columns do not fit together.
    pub(super) fn event(self, known: &mut super::columns::Known) -> Result<Event, String> {
        Ok(match self {
            Self::Snapshot(generation, instances, changes) => Event::Changes {
                generation,
                instances,
                changes,
            },
            Self::Report(columns) => Event::Report(columns.report(known)?),
            Self::Started(revision, id, result) => Event::Started {
                revision,
                id,
                result: match result {
                    Ok(()) => Ok(Started {
                        phases: Phases::default(),
                        warnings: Vec::new(),
                    }),
                    Err(failure) => Err(failure.error()),
                },
            },
            Self::Exited(revision, id, exit) => Event::Exited { revision, id, exit },
            Self::Readiness(revision, id, unready) => Event::Readiness { revision, id, unready },
            Self::Unhealthy(revision, id, why) => Event::Unhealthy { revision, id, why },
            Self::Stopped(revision, id, result) => Event::Stopped {
                revision,
                id,
                result: result.map_err(Failure::error),
            },
            Self::LimitsSet(revision, id, result) => Event::LimitsSet {
                revision,
                id,
                result: result.map_err(Failure::error),
            },
            Self::Frozen(revision, id, result) => Event::Frozen {
                revision,
                id,
                result: result.map_err(Failure::error),
            },
            Self::Thawed(revision, id, result) => Event::Thawed {
                revision,
                id,
                result: result.map_err(Failure::error),
            },
            Self::Reclaimed(revision, id, reclaimed) => Event::Reclaimed {
                revision,
                id,
                reclaimed,
            },
            Self::Running(running, unready) => Event::Running { running, unready },
        })
    }
}

impl StartFailure {
    fn of(error: &StartError) -> Self {
        match error {
            StartError::Exited(exit) => Self::Exited(exit.clone()),
            StartError::NotReady { after, last } => Self::NotReady(*after, last.clone()),
            StartError::Refused(why) => Self::Refused(why.clone()),
            StartError::Exhausted(why) => Self::Exhausted(why.clone()),
            StartError::Driver(error) => Self::Driver(Failure::of(error)),
        }
    }

    fn error(self) -> StartError {
        match self {
            Self::Exited(exit) => StartError::Exited(exit),
            Self::NotReady(after, last) => StartError::NotReady { after, last },
            Self::Refused(why) => StartError::Refused(why),
            Self::Exhausted(why) => StartError::Exhausted(why),
            Self::Driver(failure) => StartError::Driver(failure.error()),
        }
    }
}

impl Failure {
    fn of(error: &DriverError) -> Self {
        match error {
            DriverError::NotFound(id) => Self::NotFound(id.clone()),
            DriverError::Exists(id) => Self::Exists(id.clone()),
            DriverError::CannotFreeze(why) => Self::CannotFreeze(why.clone()),
            DriverError::ShuttingDown => Self::ShuttingDown,
            DriverError::Io { context, source } => Self::Io(context.clone(), source.to_string()),
        }
    }

    fn error(self) -> DriverError {
        match self {
            Self::NotFound(id) => DriverError::NotFound(id),
            Self::Exists(id) => DriverError::Exists(id),
            Self::CannotFreeze(why) => DriverError::CannotFreeze(why),
            Self::ShuttingDown => DriverError::ShuttingDown,
            Self::Io(context, said) => DriverError::Io {
                context,
                source: io::Error::other(said),
            },
        }
    }
}

/// What happened, in words.
pub(super) fn words(event: &Event) -> String {
    match event {
        Event::Snapshot(_) => "a snapshot".into(),
        Event::Changes { changes, .. } => format!("a snapshot that changes {} revisions", changes.len()),
        Event::Report(report) => format!(
            "report {} of gateway {} about {} revisions",
            report.generation,
            report.gateway.0,
            report.revisions.len()
        ),
        Event::Started { id, result: Ok(_), .. } => format!("sandbox {id} is ready"),
        Event::Started {
            id, result: Err(error), ..
        } => format!("the start of sandbox {id} failed ({error})"),
        Event::Exited { id, exit, .. } => format!("sandbox {id} ended ({})", exit.status),
        Event::Readiness { id, unready, .. } => match unready {
            Some(why) => format!("sandbox {id} is not ready ({why})"),
            None => format!("sandbox {id} is ready again"),
        },
        Event::Unhealthy { id, why, .. } => format!("sandbox {id} is unhealthy ({why})"),
        Event::Stopped { id, .. } => format!("sandbox {id} is stopped"),
        Event::LimitsSet { id, .. } => format!("the limits of sandbox {id} are set"),
        Event::Frozen { id, .. } => format!("sandbox {id} is frozen"),
        Event::Thawed { id, .. } => format!("sandbox {id} is thawed"),
        Event::Reclaimed { id, .. } => format!("memory of sandbox {id} is in swap"),
        Event::Running { running, .. } => format!("events were missed, {} sandboxes run", running.len()),
    }
}
