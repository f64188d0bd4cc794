//! PURE  The scale-to-zero gate: when a revision that wants nothing may really lose its last replica.
//!
//! Knative: `handleScaleToZero` of the KPA reconciler. Three things in it have no twin here, and map like this:
//! - *The activator is in the path*: Knarr's gateway always is, so the probe that verifies it succeeds at once, and a change
//!   of mode takes no time. What stays is the **mode** itself: Knative counts the grace from the moment the revision went
//!   to Proxy mode, that is since its excess burst capacity became negative or nothing was wanted.
//! - *Re-queueing*: marking a revision inactive makes Knative reconcile it again at once; so does the scaler here.
//! - *Whole seconds* of Kubernetes' condition times: here instants are exact.
//!
//! With all defaults (target burst 211 over a capacity of 100 per replica) one or two replicas are always in Proxy mode,
//! so zero comes right when the stable window is over: 60 s after the last request, at a 2 s tick. With three or more
//! replicas left, or `target-burst-capacity: "0"`, the 30 s grace follows it. With -1 it never does.

use std::time::Duration;

use manifests::revision::{Reachability, Revision};
use manifests::units::Timestamp;
use serde::{Deserialize, Serialize};

/// The PodAutoscaler's `Active` condition, as far as the gate cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Unknown: replicas are on their way.
    Activating,
    /// True: enough replicas are ready.
    Active,
    /// False: nothing is wanted.
    Inactive,
}

/// What the gate looks at.
#[derive(Clone, Copy, Debug)]
pub struct GateInput {
    /// Now.
    pub now: Timestamp,
    /// Where the revision is.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// Since when it is in Proxy mode; `None` when it is not.
    pub proxy_since: Option<Timestamp>,
}

/// What the gate says to a revision that wants zero replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Keep one replica; look again at the instant, when there is one.
    KeepOne(Option<Timestamp>, Why),
    /// Nothing is decided while the first replicas are on their way; look again at the instant.
    Undecided(Timestamp),
    /// Mark the revision inactive and leave its replicas; look again at once.
    Deactivate,
    /// Inactive, but its replicas stay until the instant.
    Wait(Timestamp, Why),
    /// No replica any more.
    Zero(Why),
}

/// The rule behind a verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// `enable-scale-to-zero` is false.
    Disabled,
    /// Active for less than the stable window.
    StableWindow,
    /// Inside `scale-to-zero-grace-period`.
    Grace,
    /// Inside `scale-to-zero-pod-retention-period`.
    Retention,
    /// Inactive for the grace period and the retention period.
    Idle,
    /// In Proxy mode for the grace period already.
    FastPath,
    /// Not ready within `progress-deadline` and 30 s.
    ActivationTimeout,
}

impl Why {
    /// In words for the user.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Disabled => "enable-scale-to-zero is off, one replica stays",
            Self::StableWindow => "active for less than the stable window",
            Self::Grace => "inside the scale-to-zero grace period",
            Self::Retention => "inside the pod retention period",
            Self::Idle => "idle for the grace and retention periods",
            Self::FastPath => "idle, and the gateway could hold requests for the whole grace period already",
            Self::ActivationTimeout => "not ready within the progress deadline",
        }
    }
}

/// Judges a revision that wants zero replicas.
pub fn judge(revision: &Revision, input: GateInput) -> Verdict {
    let scaling = &revision.scaling;
    if !scaling.scale_to_zero {
        return Verdict::KeepOne(None, Why::Disabled);
    }
    let in_phase = input.now.since(input.since);
    match input.phase {
        Phase::Activating => {
            let timeout = scaling.progress_deadline + ACTIVATION_BUFFER;
            if in_phase > timeout {
                Verdict::Zero(Why::ActivationTimeout)
            } else {
                // Knative wants strictly more than the timeout.
                Verdict::Undecided(input.since.plus(timeout + Duration::from_nanos(1)))
            }
        }
        Phase::Active if in_phase >= scaling.stable_window => Verdict::Deactivate,
        Phase::Active => Verdict::KeepOne(Some(input.since.plus(scaling.stable_window)), Why::StableWindow),
        Phase::Inactive => {
            let unreachable = revision.reachability == Reachability::Unreachable;
            let retention = if unreachable { Duration::ZERO } else { scaling.retention };
            if in_phase >= scaling.scale_to_zero_grace.max(retention) {
                return Verdict::Zero(Why::Idle);
            }
            if in_phase < retention {
                return Verdict::Wait(input.since.plus(retention), Why::Retention);
            }
            let proxied_since = input.proxy_since.unwrap_or(input.now);
            if input.now.since(proxied_since) >= scaling.scale_to_zero_grace {
                Verdict::Zero(Why::FastPath)
            } else {
                Verdict::Wait(proxied_since.plus(scaling.scale_to_zero_grace), Why::Grace)
            }
        }
    }
}

/// Knative gives the Deployment's own deadline time to be reported first.
const ACTIVATION_BUFFER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::revision;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs_f64(1000.0 + seconds))
    }

    /// (retention s, now, phase, since, proxy since) to the verdict; stable window 60 s, grace 30 s, deadline 600 s.
    #[test]
    fn a_table_of_instants() {
        use Phase::{Activating, Active, Inactive};
        let nano = 1e-9;
        let table = [
            // Active: 60 s after it became so, not a nanosecond before.
            (
                0,
                0.0,
                Active,
                0.0,
                Some(0.0),
                Verdict::KeepOne(Some(at(60.0)), Why::StableWindow),
            ),
            (
                0,
                60.0 - 1e-6,
                Active,
                0.0,
                Some(0.0),
                Verdict::KeepOne(Some(at(60.0)), Why::StableWindow),
            ),
            (0, 60.0, Active, 0.0, Some(0.0), Verdict::Deactivate),
            // In Proxy mode all along: no grace is left.
            (0, 60.0, Inactive, 60.0, Some(0.0), Verdict::Zero(Why::FastPath)),
            // In Proxy mode for 20 s: 10 s are left.
            (0, 60.0, Inactive, 60.0, Some(40.0), Verdict::Wait(at(70.0), Why::Grace)),
            (0, 70.0, Inactive, 60.0, Some(40.0), Verdict::Zero(Why::FastPath)),
            // In Proxy mode only since it went inactive: the whole grace.
            (0, 60.0, Inactive, 60.0, Some(60.0), Verdict::Wait(at(90.0), Why::Grace)),
            (0, 90.0, Inactive, 60.0, Some(60.0), Verdict::Zero(Why::Idle)),
            // Not in Proxy mode yet: counted from now.
            (0, 61.0, Inactive, 60.0, None, Verdict::Wait(at(91.0), Why::Grace)),
            // Retention shorter than the grace, then longer: each is kept in full.
            (
                10,
                65.0,
                Inactive,
                60.0,
                Some(0.0),
                Verdict::Wait(at(70.0), Why::Retention),
            ),
            (10, 70.0, Inactive, 60.0, Some(0.0), Verdict::Zero(Why::FastPath)),
            (
                120,
                179.0,
                Inactive,
                60.0,
                Some(0.0),
                Verdict::Wait(at(180.0), Why::Retention),
            ),
            (120, 180.0, Inactive, 60.0, Some(0.0), Verdict::Zero(Why::Idle)),
            // Activating: strictly more than the progress deadline and 30 s.
            (0, 1.0, Activating, 0.0, None, Verdict::Undecided(at(630.0 + nano))),
            (0, 630.0, Activating, 0.0, None, Verdict::Undecided(at(630.0 + nano))),
            (
                0,
                630.0 + nano,
                Activating,
                0.0,
                None,
                Verdict::Zero(Why::ActivationTimeout),
            ),
        ];
        for (n, (retention, now, phase, since, proxy, want)) in table.into_iter().enumerate() {
            let mut revision = revision("default", "hello-00001");
            revision.scaling.retention = Duration::from_secs(retention);
            let input = GateInput {
                now: at(now),
                phase,
                since: at(since),
                proxy_since: proxy.map(at),
            };
            assert_eq!(judge(&revision, input), want, "row {n}");
        }
    }

    #[test]
    fn an_unreachable_revision_has_no_retention() {
        let mut revision = revision("default", "hello-00001");
        revision.scaling.retention = Duration::from_secs(120);
        revision.reachability = Reachability::Unreachable;
        let input = GateInput {
            now: at(60.0),
            phase: Phase::Inactive,
            since: at(60.0),
            proxy_since: Some(at(0.0)),
        };
        assert_eq!(judge(&revision, input), Verdict::Zero(Why::FastPath));
    }

    #[test]
    fn scale_to_zero_off_keeps_one_for_ever() {
        let mut revision = revision("default", "hello-00001");
        revision.scaling.scale_to_zero = false;
        let input = GateInput {
            now: at(9e6),
            phase: Phase::Inactive,
            since: at(0.0),
            proxy_since: Some(at(0.0)),
        };
        assert_eq!(judge(&revision, input), Verdict::KeepOne(None, Why::Disabled));
    }
}
