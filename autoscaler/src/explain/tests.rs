//! What the log keeps, and how it reads.

use manifests::units::PricePerHour;

use super::*;
use crate::planner::{Candidate, PlannedStep, Verdict};

fn id(name: &str) -> RevisionId {
    RevisionId::new("default", name)
}

fn record(seconds: u64, cause: Cause, from: u32, to: u32) -> Record {
    let at = Timestamp::from_millis(1_790_000_000_000 + seconds * 1000);
    Record {
        at,
        until: at,
        times: 1,
        cause,
        inputs: Inputs {
            metric: "concurrency",
            stable: 12.5,
            panic: 70.25,
            target: 70.0,
            ready: Replicas(from),
            starting: Replicas(0),
            in_flight: 90,
            waiting: 20,
        },
        decided: Some(Replicas(2)),
        panicking: false,
        clamps: Vec::new(),
        from: Replicas(from),
        to: Replicas(to),
        rung: if to == 0 { Rung::Zero } else { Rung::Full },
        reason: "measured load".into(),
        plan: None,
        busy: None,
    }
}

#[test]
fn a_scale_up_reads_like_this() {
    let mut record = record(0, Cause::Wake, 1, 8);
    record.panicking = true;
    record.clamps = vec!["286 wanted by the queue, limited by max-scale to 8".into()];
    record.reason = "20 requests wait".into();
    record.times = 3;
    record.until = record.at.plus(Duration::from_millis(1_250));
    let want = "\
2026-09-21T14:13:20.000Z  woken by a request: 1 -> 8 (full)
    repeated  3 times until 2026-09-21T14:13:21.250Z
    inputs    concurrency stable 12.50, panic 70.25, target 70.00; 1 ready, 0 starting; 90 in flight, 20 waiting
    decider   2 replicas, panicking
    clamp     286 wanted by the queue, limited by max-scale to 8
    because   20 requests wait
";
    assert_eq!(record.to_string(), want);
}

#[test]
fn an_idle_plan_reads_like_this() {
    let candidate = |rung, price, verdict| Candidate {
        rung,
        spec: (rung == Rung::Reserve).then(|| "small".into()),
        cpu: None,
        price: PricePerHour(price),
        bound: Some(Duration::ZERO),
        samples: 0,
        late: 0.0,
        slow: 1.0,
        verdict,
    };
    let step = |seconds, rung| PlannedStep {
        age: Duration::from_secs(seconds),
        rung,
        spec: None,
    };
    let plan = Plan {
        rung: Rung::Frozen,
        spec: None,
        price: PricePerHour(0.025),
        sla: "p99<500ms".into(),
        steps: vec![step(0, Rung::Frozen), step(4000, Rung::Zero)],
        cost: 0.1,
        late: 0.0,
        candidates: vec![
            Candidate {
                bound: Some(Duration::from_millis(12_778)),
                samples: 1,
                ..candidate(Rung::Zero, 0.0, Verdict::Later(Duration::from_secs(4000)))
            },
            Candidate {
                bound: Some(Duration::from_micros(31_900)),
                ..candidate(Rung::Frozen, 0.025, Verdict::Chosen)
            },
            Candidate {
                slow: 4.0,
                ..candidate(Rung::Reserve, 0.3, Verdict::Dearer)
            },
            candidate(Rung::Full, 1.0, Verdict::Dearer),
        ],
    };
    let mut record = record(61, Cause::Tick, 1, 1);
    record.decided = Some(Replicas(0));
    record.inputs = Inputs {
        metric: "concurrency",
        target: 70.0,
        ready: Replicas(1),
        ..Inputs::default()
    };
    record.rung = plan.rung;
    record.reason = plan.reason();
    record.plan = Some(plan);
    let want = "\
2026-09-21T14:14:21.000Z  tick: stays at 1 (frozen)
    inputs    concurrency stable 0.00, panic 0.00, target 70.00; 1 ready, 0 starting; 0 in flight, 0 waiting
    decider   0 replicas
    because   frozen at 0.0250/h, by the plan for p99<500ms: frozen, zero from 66m; 0.00% of next requests late
    rung      zero         0.0000/h  adds at most 12.8s, 1 measured          chosen from 66m on
    rung      frozen       0.0250/h  adds at most 31.9ms, not measured yet   chosen
    rung      reserve (small)   0.3000/h  takes 4 times as long                   keeps the SLA, costs more
    rung      full         1.0000/h  adds nothing                            keeps the SLA, costs more
";
    assert_eq!(record.to_string(), want);
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(json["plan"]["candidates"][1]["verdict"], "Chosen");
    assert_eq!((&json["cause"], &json["rung"]), (&"tick".into(), &"frozen".into()));
}

#[test]
fn the_same_decision_again_extends_the_record() {
    let explain = Explain::default();
    explain.add(&id("a"), record(0, Cause::Started(Duration::from_millis(3)), 0, 1));
    for tick in 1..=5 {
        explain.add(&id("a"), record(2 * tick, Cause::Tick, 1, 1));
    }
    explain.add(&id("a"), record(12, Cause::Exited("signal 9".into()), 1, 1));
    explain.add(&id("a"), record(14, Cause::Tick, 1, 2));
    let records = explain.for_revision(&id("a"), Timestamp::EPOCH);
    let brief: Vec<_> = records.iter().map(|r| (r.times, r.from.0, r.to.0)).collect();
    assert_eq!(brief, [(6, 0, 1), (1, 1, 1), (1, 1, 2)]);
    assert_eq!(explain.for_revision(&id("a"), records[0].until).len(), 3);
    assert_eq!(explain.for_revision(&id("a"), records[1].at).len(), 2);
    assert!(explain.for_revision(&id("b"), Timestamp::EPOCH).is_empty());
}

#[test]
fn it_is_bounded_per_revision_and_in_all() {
    let explain = Explain::default();
    for n in 0..IN_ALL as u64 + 50 {
        let revision = if n % 2 == 0 { id("busy") } else { id(&format!("r{n}")) };
        explain.add(&revision, record(n, Cause::Ejected, 1, 1));
    }
    assert_eq!(explain.for_revision(&id("busy"), Timestamp::EPOCH).len(), PER_REVISION);
    let log = explain.0.lock().unwrap();
    assert_eq!(log.order.len(), IN_ALL);
    let kept: usize = log.revisions.values().map(VecDeque::len).sum();
    assert_eq!(kept, IN_ALL / 2 + PER_REVISION);
    assert_eq!(
        log.revisions.len(),
        IN_ALL / 2 + 1,
        "a revision without records is forgotten"
    );
}
