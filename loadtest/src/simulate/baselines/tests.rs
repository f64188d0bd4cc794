use autoscaler::planner::{Menu, Offer, Population};
use manifests::revision::ColdStartSla;
use manifests::units::Timestamp;

use super::*;

/// Zero, reserve, full; or without the reserve.
fn menu(reserve: bool) -> Menu {
    let offer = |rung, price| Offer {
        lead: 2.0,
        ..Offer::new(rung, price)
    };
    let mut offers = vec![offer(Rung::Zero, 0.0), offer(Rung::Full, 1.0)];
    if reserve {
        offers.insert(1, offer(Rung::Reserve, 0.2));
    }
    Menu {
        moves: vec![vec![0.0; offers.len()]; offers.len()],
        offers,
    }
}

fn plan(planner: &mut dyn IdlePlanner, menu: &Menu, at: usize, age: u64) -> (Vec<(u64, Rung)>, bool) {
    let sla = ColdStartSla {
        quantile: 0.99,
        limit: Duration::from_secs(1),
    };
    let since = Timestamp::from_millis(1_000_000);
    let view = View {
        now: since.plus(Duration::from_secs(age)),
        since,
        at,
        sla: &sla,
        menu,
        population: &Population::default(),
    };
    let schedule = planner.plan(&view);
    let steps = schedule.ladder.steps.iter();
    let steps = steps.map(|step| (step.age.as_secs(), menu.offers[step.offer].rung));
    (steps.collect(), schedule.stay_low)
}

#[test]
fn stairs_are_climbed_down_once() {
    let (zero, reserve, full) = (Rung::Zero, Rung::Reserve, Rung::Full);
    let of = |stay_low| Stairs {
        steps: vec![
            (Duration::ZERO, full),
            (Duration::from_secs(90), reserve),
            (Duration::from_secs(900), zero),
        ],
        stay_low,
    };
    let (with, without) = (menu(true), menu(false));
    let all = vec![(0, full), (90, reserve), (900, zero)];
    assert_eq!(plan(&mut of(false), &with, 2, 0), (all.clone(), false));
    assert_eq!(plan(&mut of(true), &with, 2, 0), (all, true));
    assert_eq!(
        plan(&mut of(true), &with, 1, 0),
        (vec![(0, reserve), (900, zero)], true),
        "served low"
    );
    assert_eq!(
        plan(&mut of(false), &with, 2, 100).0,
        [(100, reserve), (900, zero)],
        "asked late"
    );
    assert_eq!(plan(&mut of(false), &with, 0, 5000).0, [(5000, zero)]);
    assert_eq!(
        plan(&mut of(false), &without, 1, 0).0,
        [(0, full), (900, zero)],
        "no reserve"
    );
}

#[test]
fn a_lamed_planner_never_climbs() {
    let menu = menu(true);
    for gap in [60_u64, 600, 3600] {
        let mut lame = Lame::new(Lacks::Prewarm);
        let sla = ColdStartSla {
            quantile: 0.99,
            limit: Duration::from_secs(1),
        };
        let mut now = Timestamp::from_millis(1_000_000);
        for _ in 0..50 {
            now = now.plus(Duration::from_secs(gap));
            let view = View {
                now,
                since: now,
                at: 2,
                sla: &sla,
                menu: &menu,
                population: &Population::default(),
            };
            let arrival = Arrival {
                gap: Some(Duration::from_secs(gap)),
                at: 0,
                service: None,
                late: true,
            };
            lame.arrived(&arrival, &view);
            let offers: Vec<usize> = lame.plan(&view).ladder.steps.iter().map(|step| step.offer).collect();
            assert!(offers.windows(2).all(|pair| pair[0] > pair[1]), "{offers:?}");
        }
    }
}
