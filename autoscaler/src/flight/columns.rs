//! A load report in columns: what is alike stands together, which compresses well, and what is as in the last report of the
//! segment is left out.

use std::collections::HashMap;
use std::time::Duration;

use manifests::exchange::{Draining, LoadKind, LoadReport, RevisionLoad, Work};
use manifests::ids::{GatewayId, Generation, RevisionId, SandboxId};
use manifests::units::{Concurrency, Rps};
use serde::{Deserialize, Serialize};

/// A load report. Every column has an entry for each revision, or is absent.
#[derive(Serialize, Deserialize, Default)]
pub(crate) struct Columns {
    #[serde(rename = "g")]
    gateway: String,
    #[serde(rename = "n")]
    generation: Generation,
    /// Names that are new in this segment; their numbers follow the last one.
    #[serde(rename = "+", default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<RevisionId>,
    /// Whose load, by number; absent when it is as in the report before.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    who: Option<Vec<u32>>,
    /// Only those that are not periodic, by place.
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    kinds: Vec<(u32, LoadKind)>,
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    concurrency: Vec<f64>,
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    rps: Vec<f64>,
    /// Arrivals, and the time of requests in nanoseconds; absent when there are none.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    arrivals: Vec<u32>,
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    time: Vec<u64>,
    /// Only where there is one, by place.
    #[serde(rename = "1", default, skip_serializing_if = "Vec::is_empty")]
    first: Vec<(u32, Duration)>,
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    in_flight: Vec<u32>,
    /// Absent when nobody waits.
    #[serde(rename = "q", default, skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<u32>,
    /// Only those that differ from what was acknowledged before, by place.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    acked: Vec<(u32, Generation)>,
    /// Only where there are any, by place.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    sandboxes: Vec<(u32, Vec<Draining>, Vec<SandboxId>)>,
}

/// What the reports of a segment have said so far: the same on both sides.
#[derive(Default)]
pub(super) struct Known {
    numbers: HashMap<RevisionId, u32>,
    names: Vec<RevisionId>,
    acked: HashMap<(GatewayId, u32), Generation>,
    last: Vec<u32>,
}

impl Known {
    fn number(&mut self, revision: &RevisionId, new: &mut Vec<RevisionId>) -> u32 {
        if let Some(number) = self.numbers.get(revision) {
            return *number;
        }
        new.push(revision.clone());
        self.learn(revision.clone())
    }

    fn learn(&mut self, revision: RevisionId) -> u32 {
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.numbers.insert(revision.clone(), number);
        self.names.push(revision);
        number
    }
}

impl Columns {
    pub(super) fn of(report: &LoadReport, known: &mut Known) -> Self {
        let mut columns = Self {
            gateway: report.gateway.0.to_string(),
            generation: report.generation,
            ..Self::default()
        };
        let mut who = Vec::with_capacity(report.revisions.len());
        for (place, load) in (0..).zip(&report.revisions) {
            let number = known.number(&load.revision, &mut columns.names);
            who.push(number);
            if load.kind != LoadKind::Periodic {
                columns.kinds.push((place, load.kind));
            }
            columns.concurrency.push(load.concurrency.0);
            columns.rps.push(load.rps.0);
            columns.arrivals.push(load.work.arrivals);
            let nanos = u64::try_from(load.work.time.as_nanos()).unwrap_or(u64::MAX);
            columns.time.push(nanos);
            columns.first.extend(load.work.first.map(|first| (place, first)));
            columns.in_flight.push(load.in_flight);
            columns.waiting.push(load.waiting);
            let acked = known.acked.entry((report.gateway.clone(), number)).or_default();
            if *acked != load.acked {
                *acked = load.acked;
                columns.acked.push((place, load.acked));
            }
            if !load.draining.is_empty() || !load.ejected.is_empty() {
                columns
                    .sandboxes
                    .push((place, load.draining.clone(), load.ejected.clone()));
            }
        }
        for column in [&mut columns.waiting, &mut columns.arrivals] {
            if column.iter().all(|value| *value == 0) {
                column.clear();
            }
        }
        if columns.time.iter().all(|nanos| *nanos == 0) {
            columns.time.clear();
        }
        if known.last != who {
            known.last.clone_from(&who);
            columns.who = Some(who);
        }
        columns
    }

    /// # Errors
    /// When columns differ in length, or name what was not named before.
    pub(super) fn report(self, known: &mut Known) -> Result<LoadReport, String> {
        for name in self.names {
            known.learn(name);
        }
        let gateway = GatewayId(self.gateway.into());
        let who = match self.who {
            Some(who) => {
                known.last.clone_from(&who);
                who
            }
            None => known.last.clone(),
        };
        let wrong = || "a load report whose columns do not fit together".to_owned();
        let whole = [self.concurrency.len(), self.rps.len(), self.in_flight.len()];
        let perhaps = [self.waiting.len(), self.arrivals.len(), self.time.len()];
        if whole.iter().any(|len| *len != who.len()) || perhaps.iter().any(|len| ![0, who.len()].contains(len)) {
            return Err(wrong());
        }
        let mut revisions = Vec::with_capacity(who.len());
        for (place, number) in who.iter().enumerate() {
            let revision = usize::try_from(*number).ok().and_then(|number| known.names.get(number));
            revisions.push(RevisionLoad {
                revision: revision.ok_or_else(wrong)?.clone(),
                kind: LoadKind::Periodic,
                concurrency: Concurrency(self.concurrency[place]),
                rps: Rps(self.rps[place]),
                work: Work {
                    arrivals: self.arrivals.get(place).copied().unwrap_or_default(),
                    time: Duration::from_nanos(self.time.get(place).copied().unwrap_or_default()),
                    first: None,
                },
                in_flight: self.in_flight[place],
                waiting: self.waiting.get(place).copied().unwrap_or_default(),
                acked: Generation::default(),
                draining: Vec::new(),
                ejected: Vec::new(),
            });
        }
        let at = |place: u32| usize::try_from(place).unwrap_or(usize::MAX);
        for (place, kind) in self.kinds {
            revisions.get_mut(at(place)).ok_or_else(wrong)?.kind = kind;
        }
        for (place, first) in self.first {
            revisions.get_mut(at(place)).ok_or_else(wrong)?.work.first = Some(first);
        }
        let mut changed = self.acked.into_iter().peekable();
        for ((place, number), load) in (0..).zip(&who).zip(&mut revisions) {
            let acked = known.acked.entry((gateway.clone(), *number)).or_default();
            if let Some((_, new)) = changed.next_if(|(at, _)| *at == place) {
                *acked = new;
            }
            load.acked = *acked;
        }
        if changed.next().is_some() {
            return Err(wrong());
        }
        for (place, draining, ejected) in self.sandboxes {
            let load = revisions.get_mut(at(place)).ok_or_else(wrong)?;
            (load.draining, load.ejected) = (draining, ejected);
        }
        Ok(LoadReport {
            gateway,
            generation: self.generation,
            revisions,
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng};

    use super::*;

    #[test]
    fn what_was_reported_comes_out_as_it_went_in() {
        let mut rng = StdRng::seed_from_u64(7);
        let (mut writes, mut reads) = (Known::default(), Known::default());
        for counter in 1..500 {
            let some: Vec<u32> = (0..8).filter(|_| rng.random_bool(0.9)).collect();
            let load = |n: u32, rng: &mut StdRng| RevisionLoad {
                revision: RevisionId::new("default", format!("r{n}")),
                kind: [LoadKind::Periodic, LoadKind::Wake, LoadKind::Sandboxes][rng.random_range(0..3)],
                concurrency: Concurrency(rng.random_range(0.0..9.0)),
                rps: Rps(rng.random_range(0.0..1e9)),
                work: Work {
                    arrivals: rng.random_range(0..2) * rng.random_range(0..2),
                    time: Duration::from_nanos(rng.random_range(0..2) * rng.random_range(0..u64::MAX)),
                    first: rng
                        .random_bool(0.3)
                        .then(|| Duration::from_nanos(rng.random_range(0..u64::MAX))),
                },
                in_flight: rng.random_range(0..5),
                waiting: rng.random_range(0..2) * rng.random_range(0..2),
                acked: Generation {
                    epoch: u64::from(rng.random_bool(0.5)),
                    counter: rng.random_range(0..2),
                },
                draining: if rng.random_bool(0.2) {
                    vec![Draining {
                        sandbox: SandboxId::new("s"),
                        in_flight: 1,
                        connections: 2,
                        answered: rng.random_bool(0.5),
                    }]
                } else {
                    Vec::new()
                },
                ejected: if rng.random_bool(0.1) {
                    vec![SandboxId::new("e")]
                } else {
                    Vec::new()
                },
            };
            let report = LoadReport {
                gateway: GatewayId(format!("g{}", rng.random_range(0..2)).into()),
                generation: Generation { epoch: 1, counter },
                revisions: some.into_iter().map(|n| load(n, &mut rng)).collect(),
            };
            let text = serde_json::to_string(&Columns::of(&report, &mut writes)).unwrap();
            let columns: Columns = serde_json::from_str(&text).unwrap();
            assert_eq!(columns.report(&mut reads).unwrap(), report);
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_an_error() {
        for text in [
            r#"{"g":"a","n":{"epoch":1,"counter":1},"w":[0],"c":[1.0],"r":[1.0],"f":[1]}"#,
            r#"{"g":"a","n":{"epoch":1,"counter":1},"+":[{"namespace":"a","name":"b"}],"w":[0],"c":[],"r":[1.0],"f":[1]}"#,
            r#"{"g":"a","n":{"epoch":1,"counter":1},"k":[[7,"Wake"]]}"#,
            r#"{"g":"a","n":{"epoch":1,"counter":1},"a":[[7,{"epoch":1,"counter":1}]]}"#,
        ] {
            let columns: Columns = serde_json::from_str(text).unwrap();
            assert!(columns.report(&mut Known::default()).is_err(), "{text}");
        }
    }
}
