use manifests::exchange::Rung;
use manifests::revision::ColdStartSla;
use manifests::units::Timestamp;

use super::super::gaps::{BINS, bin};
use super::super::menu::Menu;
use super::super::{Population, offer_at};
use super::*;

const SLA: ColdStartSla = ColdStartSla {
    quantile: 0.99,
    limit: Duration::from_secs(1),
};

/// Zero, a reserve at a sixth of the price, full; a start takes two seconds.
fn menu(slow: f64) -> Menu {
    let offers = [
        Offer::new(Rung::Zero, 0.0).woken(2.0, 0.9),
        Offer {
            slow,
            ..Offer::new(Rung::Reserve, 0.16)
        },
        Offer::new(Rung::Full, 1.0),
    ];
    Menu {
        offers: offers.map(|offer| Offer { lead: 3.0, ..offer }).into(),
        moves: vec![vec![0.0, 0.32, 2.0], vec![0.0, 0.0, 2.0], vec![0.0, 0.32, 0.0]],
    }
}

struct World {
    pilot: Pilot,
    menu: Menu,
    now: Timestamp,
    population: Population,
}

impl World {
    fn new(slow: f64) -> Self {
        Self {
            pilot: Pilot::default(),
            menu: menu(slow),
            now: Timestamp::EPOCH,
            population: Population::default(),
        }
    }

    fn view<'a>(menu: &'a Menu, population: &'a Population, now: Timestamp, at: usize) -> View<'a> {
        View {
            now,
            since: now,
            at,
            sla: &SLA,
            menu,
            population,
        }
    }

    fn plan(&mut self, at: usize) -> Schedule {
        self.pilot.plan(&Self::view(&self.menu, &self.population, self.now, at))
    }

    /// Idle for `gap`, then a request that runs for `service` and meets what was planned.
    fn call(&mut self, gap: u64, service: u64) {
        let (gap, service) = (Duration::from_secs(gap), Duration::from_millis(service));
        let schedule = self.plan(2);
        let at = offer_at(&schedule.ladder, gap).unwrap();
        self.now = self.now.plus(gap);
        let late = at == 0;
        let arrival = Arrival {
            gap: Some(gap),
            at,
            service: Some(service),
            late,
        };
        self.pilot
            .arrived(&arrival, &Self::view(&self.menu, &self.population, self.now, at));
    }

    fn rungs(&self, schedule: &Schedule) -> Vec<Rung> {
        schedule
            .ladder
            .steps
            .iter()
            .map(|step| self.menu.offers[step.offer].rung)
            .collect()
    }
}

#[test]
fn a_timer_is_learned_after_a_few_calls() {
    let mut world = World::new(1.0);
    for _ in 0..20 {
        world.call(3600, 50);
    }
    let schedule = world.plan(2);
    let at = |minutes: u64| {
        let offer = offer_at(&schedule.ladder, Duration::from_secs(minutes * 60)).unwrap();
        world.menu.offers[offer].rung
    };
    assert_eq!((at(45), at(60)), (Rung::Zero, Rung::Reserve), "{schedule:?}");
    assert!(schedule.ladder.late < 0.05, "{schedule:?}");
}

#[test]
fn a_slow_reserve_serves_short_requests_only() {
    let (mut short, mut long) = (World::new(2.0), World::new(2.0));
    for _ in 0..30 {
        short.call(120, 20);
        long.call(120, 5_000);
    }
    let schedule = short.plan(2);
    assert!(short.rungs(&schedule).contains(&Rung::Reserve), "{schedule:?}");
    let schedule = long.plan(2);
    let met = offer_at(&schedule.ladder, Duration::from_secs(120)).unwrap();
    assert_eq!(long.menu.offers[met].rung, Rung::Full, "{schedule:?}");
}

const OFTEN: f64 = 1e4;

#[test]
fn a_late_request_weighs_more_where_there_are_few() {
    let price = |per_day| Budget::default().price_of_late(1.0, per_day);
    assert_eq!(price(240.0), price(1e9));
    assert_eq!(price(24.0), 10.0 * price(240.0));
    assert_eq!((price(0.0), price(f64::NAN)), (price(1.0), price(1.0)), "bounded");
}

#[test]
fn being_late_makes_the_plan_careful_and_then_forgives() {
    let mut budget = Budget::default();
    let even = Budget::default().price_of_late(1.0, OFTEN);
    budget.arrived(true, 0.99);
    assert!(budget.price_of_late(1.0, OFTEN) > 3.8 * even);
    for _ in 0..1000 {
        budget.arrived(false, 0.99);
    }
    assert_eq!(budget.overspent(), -1.0);
    for _ in 0..100 {
        budget.arrived(true, 0.99);
    }
    assert_eq!(budget.overspent(), 6.0, "bounded both ways");
}

#[test]
fn what_was_saved_goes_on_as_it_was() {
    let mut world = World::new(2.0);
    for call in 0..50 {
        world.call(60 + call * 7, 30 * call);
    }
    let saved = serde_json::to_string(&world.pilot.save().unwrap()).unwrap();
    let mut again = Pilot::restore(&serde_json::from_str(&saved).unwrap()).unwrap();
    let view = World::view(&world.menu, &world.population, world.now, 2);
    assert_eq!(again.plan(&view), world.pilot.plan(&view));
    assert!(Pilot::restore(&serde_json::json!({"gaps": 3})).is_err());
}

#[test]
fn what_others_here_do_is_believed_of_the_new_until_they_go() {
    let shipped = Population::default();
    let mut population = shipped.clone();
    let five_minutes = bin(Duration::from_secs(300));
    let all = |population: &Population| population.shares().iter().sum::<f64>();
    let mut here = vec![Gaps::default(); 200];
    for n in 1..=20_u64 {
        for gaps in &mut here {
            let before = gaps.clone();
            gaps.add(Duration::from_secs(300), Timestamp::from_millis(n * 301_000));
            population.shown(Some(&before), Some(gaps));
        }
        assert!((all(&population) - 1.0).abs() < 1e-5, "{}", all(&population));
    }
    // 200 revisions with some 19 gaps of 23 each, beside 50 that came with Knarr.
    let share = population.shares()[five_minutes];
    assert!(
        (0.75..0.8).contains(&share) && shipped.shares()[five_minutes] < 0.1,
        "{share}"
    );
    for gaps in &here {
        population.shown(Some(gaps), None);
    }
    for bin in 0..BINS {
        assert!((population.shares()[bin] - shipped.shares()[bin]).abs() < 1e-9, "{bin}");
    }
}

#[test]
fn nothing_known_is_the_population() {
    let mut world = World::new(1.0);
    let schedule = world.plan(2);
    assert!(schedule.ladder.steps.len() > 1, "{schedule:?}");
    assert!((0.0..0.5).contains(&schedule.ladder.late), "{schedule:?}");
}
