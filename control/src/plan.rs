//! What `knarr plan` shows: where a revision stands while nobody asks, by the time since, and what else was looked at; what
//! is asked of it now, and what runs for that.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use autoscaler::cost::Spent;
use autoscaler::explain::{Inputs, Record};
use autoscaler::planner::Plan;
use autoscaler::planner::busy::{BusyPlan, mix_text};
use manifests::revision::{IdlePolicy, Revision};
use manifests::units::Timestamp;
use serde::Serialize;

use crate::answers::Live;
use crate::cost::in_words;

/// The plan of one revision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlanReport {
    namespace: String,
    revision: String,
    /// `knarr.dev/idle`, as in force.
    idle: &'static str,
    /// The SLA that the plan keeps, as the annotation writes it.
    sla: String,
    /// Where it stands now.
    rung: &'static str,
    price_per_hour: f64,
    /// Instances that serve.
    mix: Vec<Mix>,
    /// What the load is served on, and what else was looked at; `null` while it stands idle, and where there is no choice.
    busy: Option<BusyPlan>,
    /// What was seen last.
    demand: Option<Inputs>,
    /// Why as many run as do.
    reason: String,
    /// The last plan for an idle time, and when it was made; `null` before the first, and for policies that plan nothing.
    plan: Option<Plan>,
    planned_ms: Option<u64>,
    /// What it cost since 00:00 UTC.
    today: Option<Spent>,
}

/// So many instances on one rung.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mix {
    replicas: u32,
    rung: &'static str,
}

impl Live {
    /// The plan of what `target` names, as text or JSON.
    ///
    /// # Errors
    /// In words for people, when it names nothing.
    pub(crate) fn planned(&self, target: &str, json: bool) -> Result<String, String> {
        let id = self.revision_called(target)?;
        let now = (self.clock)();
        let records = self.explain.for_revision(&id, Timestamp::EPOCH);
        let planned = records.iter().rev().find(|record| record.plan.is_some());
        let pool = self.pools.get(&id);
        let status = self.desired().status(&id).cloned();
        let rung = status.as_ref().map(|it| it.rung).unwrap_or_default().as_str();
        let replicas = status.as_ref().map_or(0, |it| it.actual.0);
        let report = PlanReport {
            namespace: id.namespace().to_owned(),
            revision: id.name().to_owned(),
            idle: pool.as_ref().map_or("knative", |pool| policy(&pool.revision())),
            sla: planned
                .and_then(|it| it.plan.as_ref())
                .map(|it| it.sla.clone())
                .unwrap_or_default(),
            rung,
            price_per_hour: status.as_ref().map_or(0.0, |it| it.price.0),
            mix: (replicas > 0).then_some(Mix { replicas, rung }).into_iter().collect(),
            busy: records.last().and_then(|record| record.busy.clone()),
            demand: records.last().map(|record| record.inputs.clone()),
            reason: records.last().map(|record| record.reason.clone()).unwrap_or_default(),
            plan: planned.and_then(|record| record.plan.clone()),
            planned_ms: planned.map(|record| record.until.as_millis()),
            today: self.costs.of(&id, now).map(|account| account.today),
        };
        if json {
            let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
            return Ok(text + "\n");
        }
        Ok(report.text(planned, now))
    }
}

impl PlanReport {
    fn text(&self, planned: Option<&Record>, now: Timestamp) -> String {
        let mut text = format!("{}/{}, knarr.dev/idle: {}", self.namespace, self.revision, self.idle);
        if !self.sla.is_empty() {
            text += &format!(", {}", self.sla);
        }
        text += &format!(
            "\n\nnow         {} at {:.4}/h: {}\n",
            self.rung, self.price_per_hour, self.reason
        );
        let mix: Vec<String> = self
            .mix
            .iter()
            .map(|it| format!("{} x {}", it.replicas, it.rung))
            .collect();
        let mix = if mix.is_empty() {
            "nothing".to_owned()
        } else {
            mix.join(", ")
        };
        if let Some(seen) = &self.demand {
            let _ = writeln!(
                text,
                "demand      {} stable {:.2}, panic {:.2}, target {:.2} per replica; {} in flight, {} waiting\nserves      \
                 {mix}; {} starting",
                seen.metric, seen.stable, seen.panic, seen.target, seen.in_flight, seen.waiting, seen.starting
            );
        }
        if let Some(today) = &self.today {
            let _ = writeln!(text, "today       {}", in_words(today));
        }
        if let Some(busy) = &self.busy {
            text += &served(busy);
        }
        match planned.and_then(|record| Some((record, record.plan.as_ref()?))) {
            Some((record, plan)) => text += &ladder(plan, record.until, now),
            None if self.idle == "auto" => {
                text += "\nNo idle time was planned yet: the first plan is made when nobody asks any more.\n"
            }
            None => text += "\nNothing is planned with this policy; knarr.dev/idle: auto does.\n",
        }
        text
    }
}

/// The busy plan as a table.
fn served(busy: &BusyPlan) -> String {
    let mut text = format!(
        "\nserving {:.2} in flight, with room for {:.2} at once; by Knative's count {} full\n",
        busy.average, busy.need, busy.count
    );
    let heads = ["MIX", "TAKES", "PRICE/H", "VERDICT"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(busy.considered.iter().map(|it| {
        vec![
            mix_text(&it.mix),
            format!("{:.1}", it.capacity),
            format!("{:.4}", it.price.0),
            it.verdict.text().to_owned(),
        ]
    }));
    text += &columns(&rows);
    text
}

/// The plan as tables.
fn ladder(plan: &Plan, made: Timestamp, now: Timestamp) -> String {
    let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(made.as_nanos()));
    let ago = Duration::from_secs(now.since(made).as_secs());
    let mut text = format!("\nplan of {at}, {} ago\n", humantime::format_duration(ago));
    let _ = writeln!(
        text,
        "  until the next request it costs {:.6}; the next request is late with probability {:.2}%",
        plan.cost,
        100.0 * plan.late
    );
    let mut rows = vec![["IDLE FOR", "RUNG", "SPEC"].map(str::to_owned).to_vec()];
    rows.extend(plan.steps.iter().map(|step| {
        let age = Duration::from_secs(step.age.as_secs());
        vec![
            humantime::format_duration(age).to_string(),
            step.rung.as_str().to_owned(),
            step.spec.as_deref().unwrap_or_default().to_owned(),
        ]
    }));
    text += &columns(&rows);
    text.push('\n');
    let heads = ["RUNG", "SPEC", "CPU", "PRICE/H", "A REQUEST THERE", "LATE", "VERDICT"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(plan.candidates.iter().map(|it| {
        vec![
            it.rung.as_str().to_owned(),
            it.spec.as_deref().unwrap_or_default().to_owned(),
            it.cpu.map_or_else(|| "no limit".to_owned(), |cpu| cpu.to_string()),
            format!("{:.4}", it.price.0),
            it.bound_text(),
            format!("{:.2}%", 100.0 * it.late),
            it.verdict_text(),
        ]
    }));
    text += &columns(&rows);
    text
}

/// Aligned, three blanks between, indented.
fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// The word of the annotation.
const fn policy(revision: &Revision) -> &'static str {
    match revision.idle {
        IdlePolicy::Knative => "knative",
        IdlePolicy::Frozen { .. } => "frozen",
        IdlePolicy::Zero => "zero",
        IdlePolicy::Throttled => "throttled",
        IdlePolicy::Reserve => "reserve",
        IdlePolicy::Keep => "keep",
        IdlePolicy::Auto => "auto",
    }
}
