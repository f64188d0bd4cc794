//! Studies of many cases: the verdict, what it depends on, what each part is worth, the picture.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use loadtest::simulate::svg::{Panel, Series, frontier as draw};
use loadtest::simulate::{self, Case, Lacks, Market, Policy, Prices, Settings, Starts, Summary, report};
use loadtest::trace::Trace;

use super::{Format, Simulate, print_json};
use crate::out;

/// The verdict. With `--check` the exit code says whether everything holds.
pub(super) fn evaluate(args: &Simulate, trace: &Trace, settings: &Settings) -> anyhow::Result<ExitCode> {
    let seeds = args.seed..args.seed + args.seeds.unwrap_or(10);
    let (tuned, reported) = simulate::halves(trace);
    let markets = Market::all();
    let cases = simulate::cases((&tuned, &reported), settings, &markets, args.seed);
    let bar = args.bar(simulate::minutes(&reported, &cases, seeds.end - seeds.start));
    let evaluation = simulate::evaluate(trace, settings, &markets, seeds, &|minutes| {
        bar.inc(minutes);
        true
    });
    bar.finish_and_clear();
    let evaluation = evaluation.context("ended early")?;
    match args.output {
        Format::Table => out::print(report::evaluation(&evaluation).as_bytes())?,
        Format::Json => print_json(&evaluation)?,
        Format::Svg => out::print(draw(&title(trace), &panels(&evaluation.rows, false)).as_bytes())?,
    }
    Ok(if args.check && !evaluation.holds() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// One thing at a time is changed.
pub(super) fn sensitivity(args: &Simulate, trace: &Trace, settings: &Settings) -> anyhow::Result<ExitCode> {
    let (_, reported) = simulate::halves(trace);
    let secs = Duration::from_secs_f64;
    let mut worlds: Vec<(String, Settings, Market)> = Vec::new();
    let mut add = |name: String, settings: Settings, market: Market| worlds.push((name, settings, market));
    let reserve = |change: &dyn Fn(&mut simulate::Reserve)| {
        let mut prices = Prices::eci();
        prices.reserve.iter_mut().for_each(change);
        Market::new("equal", &prices)
    };
    for median in [0.3, 1.0, 2.0, 5.0, 15.0] {
        let starts = Starts {
            median: secs(median),
            ..settings.starts
        };
        let changed = Settings {
            starts,
            ..settings.clone()
        };
        add(format!("start {median} s"), changed, Market::equal());
    }
    for limit in [0.25, 0.5, 1.0, 2.0, 5.0] {
        let mut changed = settings.clone();
        changed.sla.limit = secs(limit);
        add(format!("limit {limit} s"), changed, Market::equal());
    }
    for slowdown in [1.0, 1.5, 2.0, 4.0, 8.0] {
        let market = reserve(&|it| it.slowdown = slowdown);
        add(format!("reserve {slowdown} times as slow"), settings.clone(), market);
    }
    for share in [0.05, 0.16, 0.3, 0.6, 0.9] {
        let market = reserve(&|it| it.price = share * simulate::ECI_FULL);
        add(
            format!("reserve at {:.0} % of full", share * 100.0),
            settings.clone(),
            market,
        );
    }
    let none = Prices {
        reserve: None,
        ..Prices::eci()
    };
    let frozen_only = Prices {
        frozen: Some(simulate::ECI_MEMORY),
        ..none
    };
    for (name, market) in [
        ("menu zero, full", Market::new("equal", &none)),
        ("menu zero, reserve, full", Market::equal()),
        ("menu zero, frozen, full", Market::new("frozen", &frozen_only)),
        ("menu zero, frozen, slow reserve, full", Market::frozen()),
    ] {
        add(name.into(), settings.clone(), market);
    }
    let policies = [Policy::Knative, Policy::KeepAlive(simulate::TEN_MINUTES), Policy::Auto];
    let cases = worlds.iter().flat_map(|(_, settings, market)| {
        policies.map(|policy| Case {
            market: market.clone(),
            policy,
            settings: settings.clone(),
        })
    });
    let rows = args.run(&reported, cases.collect(), args.seeds.unwrap_or(3))?;
    if args.output == Format::Json {
        let names = worlds.iter().map(|(name, ..)| name);
        let all: Vec<_> = names.zip(rows.chunks(policies.len())).collect();
        print_json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let percent = report::percent;
    let cells = worlds
        .iter()
        .zip(rows.chunks(policies.len()))
        .filter_map(|((name, ..), rows)| {
            let [knative, fixed, auto] = rows else { return None };
            Some(vec![
                name.clone(),
                percent(auto.idle_cost / knative.idle_cost, 1),
                percent(auto.idle_cost / fixed.idle_cost, 1),
                percent(auto.violations, 3),
                percent(knative.violations, 3),
                percent(fixed.violations, 3),
                percent(auto.mean_violations / knative.mean_violations, 1),
                format!("{}/{}", auto.broken.len(), auto.large),
            ])
        });
    let heads = [
        "WORLD",
        "OF KNATIVE",
        "OF FIXED",
        "LATE",
        "KNATIVE",
        "FIXED",
        "MEAN OF KNATIVE",
        "BROKEN",
    ];
    out::print(report::aligned(&heads, &cells.collect::<Vec<_>>()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// From the simplest rule to the planner, one part more in each row.
pub(super) fn attribution(args: &Simulate, trace: &Trace, settings: &Settings) -> anyhow::Result<ExitCode> {
    let (tuned, reported) = simulate::halves(trace);
    let mut cases = Vec::new();
    for (market, settings) in args.markets(settings)? {
        let policies = [
            Policy::Knative,
            Policy::Ask,
            simulate::tuned(&tuned, &settings, &market).always_up(),
            simulate::tuned(&tuned, &settings, &market),
            Policy::Without(Lacks::Prewarm),
            Policy::Without(Lacks::StayLow),
            Policy::Auto,
        ];
        cases.extend(policies.into_iter().map(|policy| Case {
            market: market.clone(),
            policy,
            settings: settings.clone(),
        }));
    }
    let rows = args.run(&reported, cases, args.seeds.unwrap_or(3))?;
    match args.output {
        Format::Table => out::print(report::rows(&rows).as_bytes())?,
        Format::Json => print_json(&rows)?,
        Format::Svg => out::print(draw(&title(trace), &panels(&rows, false)).as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Each policy at many settings.
pub(super) fn frontier(args: &Simulate, trace: &Trace, settings: &Settings) -> anyhow::Result<ExitCode> {
    let (_, reported) = simulate::halves(trace);
    let mut cases = Vec::new();
    for (market, settings) in args.markets(settings)? {
        let mut add = |policy, settings: &Settings| {
            cases.push(Case {
                market: market.clone(),
                policy,
                settings: settings.clone(),
            });
        };
        for policy in [Policy::Knative, Policy::Ask, Policy::HybridHistogram, Policy::Oracle] {
            add(policy, &settings);
        }
        for minutes in [2, 5, 10, 20, 60, 120] {
            add(Policy::KeepAlive(Duration::from_secs(60 * minutes)), &settings);
        }
        for minutes in [2, 5, 15, 30, 60, 120] {
            let reserve = Duration::from_secs(60 * minutes);
            add(Policy::stairs(Duration::ZERO, reserve), &settings);
        }
        for quantile in [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999] {
            let mut changed = settings.clone();
            changed.sla.quantile = quantile;
            add(Policy::Auto, &changed);
        }
    }
    let labels: Vec<String> = cases.iter().map(label).collect();
    let mut rows = args.run(&reported, cases, args.seeds.unwrap_or(1))?;
    for (row, label) in rows.iter_mut().zip(labels) {
        row.policy = label;
    }
    out::print(draw(&title(trace), &panels(&rows, true)).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn title(trace: &Trace) -> String {
    format!("{}: what idling costs, and how often it makes a call late", trace.name)
}

/// What stands beside a point: its kind, and where it stands on the line of its kind.
fn label(case: &Case) -> String {
    match case.policy {
        Policy::Auto => format!("auto p{}", (case.settings.sla.quantile * 1e4).round() / 1e2),
        Policy::KeepAlive(time) => format!("fixed {} min", time.as_secs() / 60),
        Policy::Stairs { reserve, .. } => format!("static {} min", reserve.as_secs() / 60),
        policy => policy.name(),
    }
}

/// A panel for each market; the first word of a policy is its kind.
fn panels(rows: &[Summary], lines: bool) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    for row in rows {
        let knative = rows.iter().find(|it| it.market == row.market && it.policy == "knative");
        let Some(knative) = knative.map(|it| it.idle_cost) else {
            continue;
        };
        let title = match row.market.as_str() {
            "equal" => "reserve at equal speed".into(),
            "slow" => "reserve twice as slow".into(),
            "frozen" => "reserve twice as slow, and frozen".into(),
            other => other.to_owned(),
        };
        if panels.last().is_none_or(|panel| panel.title != title) {
            panels.push(Panel {
                title,
                series: Vec::new(),
            });
        }
        let Some(panel) = panels.last_mut() else { continue };
        let (kind, at) = row.policy.split_once(' ').unwrap_or((&row.policy, ""));
        let point = (row.idle_cost / knative, row.violations, at.to_owned());
        match panel.series.iter_mut().find(|series| series.name == kind) {
            Some(series) => series.points.push(point),
            None => panel.series.push(Series {
                name: kind.into(),
                line: lines && !at.is_empty(),
                points: vec![point],
            }),
        }
    }
    panels
}
