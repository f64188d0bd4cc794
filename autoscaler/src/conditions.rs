//! PURE  The conditions that scaling knows: `Active`, `ResourcesAvailable`, `ContainerHealthy`.
//!
//! Knative: `computeActiveCondition` of the KPA reconciler, and the Revision reconciler's reading of Deployment and Pod.

use manifests::exchange::{Condition, ConditionStatus, shared};
use manifests::units::{Replicas, Timestamp};
use sandbox::driver::{Exit, StartError};
use serde::{Deserialize, Serialize};

use crate::gate::Phase;

/// What the `Active` condition follows from.
#[derive(Clone, Copy, Debug)]
pub struct ActiveInput {
    /// Replicas wanted after bounds and gate; `None` is Knative's -1.
    pub want: Option<Replicas>,
    /// Ready replicas.
    pub ready: Replicas,
    /// Ready replicas that make it active; 0 only before an initial scale of 0 was noticed.
    pub threshold: Replicas,
    /// Where it is now.
    pub phase: Phase,
}

/// The next phase with its reason and message; both empty when active.
pub fn active(input: ActiveInput) -> (Phase, &'static str, &'static str) {
    let wanted = input.want.is_some_and(|want| want.0 > 0);
    let inactive = input.phase == Phase::Inactive;
    if input.want == Some(Replicas(0)) || input.threshold.0 == 0 {
        if input.phase == Phase::Activating && input.threshold.0 > 0 {
            // Only a start that missed its deadline leads from activating to zero.
            return (Phase::Inactive, "TimedOut", "The target could not be activated.");
        }
        return NO_TRAFFIC;
    }
    match (input.ready < input.threshold, wanted || !inactive) {
        (true, true) => (Phase::Activating, "Queued", QUEUED),
        (false, true) => (Phase::Active, "", ""),
        (_, false) => NO_TRAFFIC,
    }
}

/// Why nothing runs, as conditions and as text for whoever waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// Which condition becomes False.
    pub about: About,
    /// Its CamelCase reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

/// Which condition a trouble shows in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum About {
    /// `ResourcesAvailable`.
    Resources,
    /// `ContainerHealthy`.
    Container,
}

impl Trouble {
    /// This machine cannot take another replica.
    pub fn unschedulable(message: String) -> Self {
        Self {
            about: About::Resources,
            reason: "Unschedulable".into(),
            message,
        }
    }

    /// Whether it is about room on this machine.
    pub fn is_unschedulable(&self) -> bool {
        self.reason == "Unschedulable"
    }

    /// A replica ended that should not have.
    pub fn exited(exit: &Exit) -> Self {
        let message = match (&exit.unhealthy, exit.last_output.trim()) {
            (Some(why), _) => format!("Container failed with: {why}"),
            (None, "") => "container exited with no error".into(),
            (None, output) => format!("Container failed with: {output}"),
        };
        Self {
            about: About::Container,
            reason: format!("ExitCode{}", exit.status.code()),
            message,
        }
    }

    /// A replica's liveness probe failed for good; how it ended is not known yet, but will be soon.
    pub fn unhealthy(why: &str) -> Self {
        Self {
            about: About::Container,
            reason: "Unhealthy".into(),
            message: format!("Container failed with: {why}"),
        }
    }

    /// A start that failed.
    pub fn start(error: &StartError) -> Self {
        let (about, reason) = match error {
            StartError::Exited(exit) => return Self::exited(exit),
            StartError::NotReady { .. } => (About::Resources, "ProgressDeadlineExceeded"),
            StartError::Exhausted(_) => (About::Resources, "Unschedulable"),
            StartError::Refused(_) => (About::Container, "CreateContainerConfigError"),
            StartError::Driver(_) => (About::Resources, "FailedCreate"),
        };
        Self {
            about,
            reason: reason.into(),
            message: error.to_string(),
        }
    }

    /// The initial scale was not reached before the gate gave up.
    pub fn never_ready() -> Self {
        Self {
            about: About::Resources,
            reason: "ProgressDeadlineExceeded".into(),
            message: "Initial scale was never achieved".into(),
        }
    }
}

/// `ResourcesAvailable` and `ContainerHealthy`, kept over time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Health {
    /// `ResourcesAvailable`.
    pub resources: Condition,
    /// `ContainerHealthy`.
    pub container: Condition,
}

impl Health {
    /// Both Unknown, `Deploying`.
    pub fn deploying(now: Timestamp) -> Self {
        Self {
            resources: deploying(now),
            container: deploying(now),
        }
    }

    /// Follows what runs. A trouble shows only while nothing is ready, and stays until something is.
    pub fn update(&mut self, ready: Replicas, initialized: bool, trouble: Option<&Trouble>, now: Timestamp) {
        if ready.0 > 0 {
            set(&mut self.container, Condition::yes(now));
            let resources = if initialized {
                Condition::yes(now)
            } else {
                deploying(now)
            };
            return set(&mut self.resources, resources);
        }
        if let Some(trouble) = trouble {
            let no = Condition::no(trouble.reason.as_str(), trouble.message.as_str(), now);
            return match trouble.about {
                About::Resources => set(&mut self.resources, no),
                About::Container => set(&mut self.container, no),
            };
        }
        let failed = |condition: &Condition| condition.status == ConditionStatus::False;
        if initialized && !failed(&self.resources) && !failed(&self.container) {
            set(&mut self.resources, Condition::yes(now));
            set(&mut self.container, Condition::yes(now));
        }
    }
}

/// Nothing has been ready yet.
pub fn deploying(now: Timestamp) -> Condition {
    Condition::unknown(shared("Deploying"), shared(""), now)
}

/// Replaces a condition when anything but its time differs.
pub fn set(condition: &mut Condition, new: Condition) {
    if (condition.status, &condition.reason, &condition.message) != (new.status, &new.reason, &new.message) {
        *condition = new;
    }
}

const QUEUED: &str = "Requests to the target are being buffered as resources are provisioned.";
const NO_TRAFFIC: (Phase, &str, &str) = (Phase::Inactive, "NoTraffic", "The target is not receiving traffic.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_is_a_table() {
        use Phase::{Activating, Active, Inactive};
        // (want, ready, threshold, phase) to (phase, reason)
        let table = [
            (None, 0, 1, Activating, Activating, "Queued"),
            (None, 1, 1, Activating, Active, ""),
            (None, 0, 1, Inactive, Inactive, "NoTraffic"),
            (None, 0, 0, Activating, Inactive, "NoTraffic"),
            (Some(0), 1, 1, Active, Inactive, "NoTraffic"),
            (Some(0), 0, 1, Activating, Inactive, "TimedOut"),
            (Some(0), 0, 1, Inactive, Inactive, "NoTraffic"),
            (Some(1), 0, 1, Inactive, Activating, "Queued"),
            (Some(1), 1, 1, Inactive, Active, ""),
            (Some(3), 2, 3, Active, Activating, "Queued"),
            (Some(3), 2, 1, Active, Active, ""),
        ];
        for (n, (want, ready, threshold, phase, next, reason)) in table.into_iter().enumerate() {
            let got = active(ActiveInput {
                want: want.map(Replicas),
                ready: Replicas(ready),
                threshold: Replicas(threshold),
                phase,
            });
            assert_eq!((got.0, got.1), (next, reason), "row {n}");
        }
    }

    #[test]
    fn health_follows_what_runs() {
        let at = Timestamp::from_millis;
        let mut health = Health::deploying(at(0));
        let exit = Exit {
            status: sandbox::driver::ExitStatus::Code(3),
            oom_killed: false,
            requested: false,
            unhealthy: None,
            last_output: " boom\n".into(),
            peak_memory: None,
        };
        health.update(Replicas(0), false, Some(&Trouble::exited(&exit)), at(1));
        assert_eq!(
            health.container,
            Condition::no("ExitCode3", "Container failed with: boom", at(1))
        );
        assert_eq!(health.resources, Condition::unknown("Deploying", "", at(0)));
        health.update(Replicas(1), false, None, at(2));
        assert_eq!(
            (health.container.clone(), health.resources.reason.as_ref()),
            (Condition::yes(at(2)), "Deploying")
        );
        health.update(Replicas(1), true, None, at(3));
        assert_eq!(health.resources, Condition::yes(at(3)));
        health.update(Replicas(0), true, None, at(4));
        assert_eq!(
            (health.container.since, health.resources.since),
            (at(2), at(3)),
            "idle changes nothing"
        );
        health.update(Replicas(0), true, Some(&Trouble::unschedulable("full".into())), at(5));
        health.update(Replicas(0), true, None, at(6));
        assert_eq!(
            health.resources,
            Condition::no("Unschedulable", "full", at(5)),
            "stays until something is ready"
        );
    }
}
