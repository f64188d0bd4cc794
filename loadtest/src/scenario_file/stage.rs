//! A `[[stage]]` of a scenario.

use std::time::Duration;

use manifests::units::Rps;

use super::toml_tree::{Field, Table};
use super::{Placed, one_of, read_thresholds};
use crate::arrivals::{Arrivals, Gaps, Rate};
use crate::scenario::{Length, Load, Stage};
use crate::target::Target;

const FIELDS: &[&str] = &[
    "name",
    "shape",
    "duration",
    "until",
    "at_most",
    "rate",
    "from",
    "to",
    "rates",
    "count",
    "every",
    "swing",
    "period",
    "concurrency",
    "arrivals",
    "alpha",
    "sigma",
    "weights",
    "thresholds",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Constant,
    Ramp,
    Step,
    Burst,
    Sine,
    Idle,
    Closed,
}

const SHAPES: [(&str, Shape); 7] = [
    ("constant", Shape::Constant),
    ("ramp", Shape::Ramp),
    ("step", Shape::Step),
    ("burst", Shape::Burst),
    ("sine", Shape::Sine),
    ("idle", Shape::Idle),
    ("closed", Shape::Closed),
];

/// Fields that only some shapes have.
const OF_SHAPES: [(&str, &[Shape]); 11] = [
    ("rate", &[Shape::Constant, Shape::Sine]),
    ("from", &[Shape::Ramp]),
    ("to", &[Shape::Ramp]),
    ("rates", &[Shape::Step]),
    ("count", &[Shape::Burst]),
    ("every", &[Shape::Burst]),
    ("swing", &[Shape::Sine]),
    ("period", &[Shape::Sine]),
    ("arrivals", &[Shape::Constant, Shape::Ramp, Shape::Step, Shape::Sine]),
    ("alpha", &[Shape::Constant, Shape::Ramp, Shape::Step, Shape::Sine]),
    ("sigma", &[Shape::Constant, Shape::Ramp, Shape::Step, Shape::Sine]),
];

/// How long an `until` waits unless it is said.
const PATIENCE: Duration = Duration::from_secs(300);

/// The `nth` stage, and beside one with a schedule perhaps a closed loop. Its index in the run is what its thresholds name:
/// they are of what comes by the schedule.
pub(super) fn read<'a>(
    field: Field<'a>,
    nth: usize,
    index: usize,
    targets: &[Target],
) -> Result<(Vec<Stage>, Vec<Placed<'a>>), String> {
    let mut table = field.table(FIELDS, "a table: [[stage]]")?;
    let shape = match table.take("shape") {
        Some(field) => one_of(field, &SHAPES)?,
        None => Shape::Constant,
    };
    let name = |wanted: Shape| {
        SHAPES
            .iter()
            .find(|(_, shape)| *shape == wanted)
            .map_or("", |(name, _)| name)
    };
    for (key, shapes) in OF_SHAPES {
        if !shapes.contains(&shape)
            && let Some(field) = table.take(key)
        {
            let names: Vec<String> = shapes.iter().map(|shape| format!("{:?}", name(*shape))).collect();
            return Err(field.place.wrong(&format!(
                "belongs to the shape {}, but this stage's is {:?}",
                names.join(" or "),
                name(shape)
            )));
        }
    }
    let place = table.place.clone();
    let load = read_load(&mut table, shape)?;
    if let Load::Open(arrivals) = &load {
        arrivals.check().map_err(|error| place.wrong(&error))?;
    }
    let stage = Stage {
        name: table.text("name")?.unwrap_or_else(|| format!("stage {nth}")),
        load,
        length: read_length(&mut table, shape)?,
        weights: read_weights(&mut table, targets)?,
        beside: false,
    };
    let mut stages = vec![stage];
    if shape != Shape::Closed && table.has("concurrency") {
        if stages[0].longest().is_zero() {
            return Err(place.wrong("a closed loop beside a burst needs a `duration`, as in \"10s\""));
        }
        stages.push(stages[0].with_clients(read_clients(&mut table)?));
    }
    let thresholds = read_thresholds(&mut table, Some(index), None)?;
    Ok((stages, thresholds))
}

fn read_clients(table: &mut Table<'_>) -> Result<usize, String> {
    let clients = table.need("concurrency", "clients at once, as in 50")?;
    clients.count(1, "a whole number, at least 1")
}

fn read_load(table: &mut Table<'_>, shape: Shape) -> Result<Load, String> {
    const RATE: &str = "requests per second, as in 100";
    if shape == Shape::Constant && !table.has("rate") && table.has("concurrency") {
        return Err(table.place.wrong(&format!(
            "`rate` is missing: {RATE}; or for a closed loop alone: shape = \"closed\""
        )));
    }
    let mut rate = |key: &str| table.need(key, RATE)?.number(0.0, RATE).map(Rps);
    let rate = match shape {
        Shape::Constant => Rate::Constant(rate("rate")?),
        Shape::Ramp => Rate::Ramp {
            from: rate("from")?,
            to: rate("to")?,
        },
        Shape::Sine => Rate::Sine {
            mean: rate("rate")?,
            swing: rate("swing")?,
            period: table.need("period", "from peak to peak, as in \"30s\"")?.duration()?,
        },
        Shape::Step => {
            let what = "rates one after the other, as in [10, 100, 1000]";
            let rates = table.list("rates", what)?.into_iter();
            let rates: Result<_, String> = rates.map(|field| field.number(0.0, RATE).map(Rps)).collect();
            Rate::Steps(rates?)
        }
        Shape::Burst => {
            let count = table
                .need("count", "requests at once, as in 100")?
                .whole(1, "a whole number, at least 1")?;
            let every = table.take("every").map(Field::duration).transpose()?;
            return Ok(Load::Open(match every {
                Some(every) => Arrivals::Bursts { count, every },
                None => Arrivals::Burst(count),
            }));
        }
        Shape::Idle => return Ok(Load::Open(Arrivals::Silence)),
        Shape::Closed => {
            let concurrency = read_clients(table)?;
            return Ok(Load::Closed { concurrency });
        }
    };
    let gaps = read_gaps(table)?;
    Ok(Load::Open(Arrivals::Shaped { rate, gaps }))
}

fn read_gaps(table: &mut Table<'_>) -> Result<Gaps, String> {
    let words = [
        ("poisson", Gaps::Exponential),
        ("even", Gaps::Even),
        ("pareto", Gaps::Pareto { shape: 1.5 }),
        ("lognormal", Gaps::Lognormal { sigma: 1.0 }),
    ];
    let gaps = match table.take("arrivals") {
        Some(field) => one_of(field, &words)?,
        None => Gaps::Exponential,
    };
    let (alpha, sigma) = (table.take("alpha"), table.take("sigma"));
    match (gaps, alpha, sigma) {
        (Gaps::Pareto { .. }, Some(field), None) => Ok(Gaps::Pareto {
            shape: field.number(1.0, "a number, more than 1")?,
        }),
        (Gaps::Lognormal { .. }, None, Some(field)) => Ok(Gaps::Lognormal {
            sigma: field.number(0.0, "a number, more than 0 and at most 5")?,
        }),
        (gaps, None, None) => Ok(gaps),
        (Gaps::Pareto { .. }, _, Some(field)) | (_, _, Some(field)) => {
            Err(field.place.wrong("belongs to arrivals = \"lognormal\""))
        }
        (_, Some(field), None) => Err(field.place.wrong("belongs to arrivals = \"pareto\"")),
    }
}

fn read_length(table: &mut Table<'_>, shape: Shape) -> Result<Length, String> {
    let at_most = table.take("at_most");
    match (table.take("duration"), table.take("until"), at_most) {
        (Some(_), Some(until), _) => Err(until
            .place
            .wrong("there is a `duration` already: a stage ends by one of the two (`at_most` bounds `until`)")),
        (Some(field), None, None) => Ok(Length::For(field.duration()?)),
        (_, None, Some(field)) => Err(field.place.wrong("belongs to `until`")),
        (None, Some(field), at_most) => {
            let place = field.place.clone();
            let text = field.text("a condition, as in \"replicas == 0\"")?;
            Ok(Length::Until {
                condition: text.parse().map_err(|error: String| place.wrong(&error))?,
                at_most: at_most.map(Field::duration).transpose()?.unwrap_or(PATIENCE),
            })
        }
        (None, None, None) if shape == Shape::Burst => Ok(Length::For(Duration::ZERO)),
        (None, None, None) => Err(table
            .place
            .wrong("it has no end: give a `duration`, as in \"10s\", or `until`, as in \"replicas == 0\"")),
    }
}

fn read_weights(table: &mut Table<'_>, targets: &[Target]) -> Result<Vec<f64>, String> {
    let Some(field) = table.take("weights") else {
        return Ok(Vec::new());
    };
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let given = field.table(&names, "a table of targets and weights, as in { hello = 9, slow = 1 }")?;
    let mut weights = vec![0.0; targets.len()];
    for (name, field) in given.rest() {
        let weight = field.number(0.0, "a number, at least 0")?;
        if let Some(index) = names.iter().position(|known| *known == name) {
            weights[index] = weight;
        }
    }
    Ok(weights)
}
