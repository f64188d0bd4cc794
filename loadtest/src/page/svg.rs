//! Shapes as text. Plots are 1000 by 1000 units and stretched to their place; words stand beside them in HTML, so that they
//! keep their size on a phone and on paper. Pure.

use std::fmt::Write as _;

use super::columns::Columns;
use super::scale::{self, Scale};
use crate::results::Results;

/// Of places between 0 and 1: one decimal of a thousandth.
pub(super) fn unit(share: f64) -> String {
    let text = format!("{:.1}", share * 1e3);
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A rectangle, as a part of a path; edges from 0 (left, bottom) to 1.
pub(super) fn block(path: &mut String, (left, right): (f64, f64), (bottom, top): (f64, f64)) {
    let _ = write!(
        path,
        "M{} {}H{}V{}H{}z",
        unit(left),
        unit(1.0 - top),
        unit(right),
        unit(1.0 - bottom),
        unit(left)
    );
}

/// A level stretch of a line, as a part of a path; joined to the last one where `joined`.
pub(super) fn step(path: &mut String, (left, right): (f64, f64), y: f64, joined: bool) {
    let (left, right, y) = (unit(left), unit(right), unit(1.0 - y));
    let _ = if joined {
        write!(path, "V{y}H{right}")
    } else {
        write!(path, "M{left} {y}H{right}")
    };
}

/// A path with a class; nothing for an empty one.
pub(super) fn path(class: &str, path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("<path class=\"{class}\" d=\"{path}\"/>")
    }
}

/// Steps through all columns that have a value.
pub(super) fn steps<T>(columns: &Columns, values: impl Iterator<Item = T>, y: impl Fn(T) -> Option<f64>) -> String {
    let mut line = String::new();
    let mut joined = false;
    for ((_, left, right), value) in columns.placed().zip(values) {
        match y(value) {
            Some(y) => step(&mut line, (left, right), y, joined),
            None => {
                joined = false;
                continue;
            }
        }
        joined = true;
    }
    line
}

/// Everything that one plot over time needs besides its shapes.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// Class and name of what is drawn.
    pub(super) legend: &'a [(&'a str, &'a str)],
    /// What is to be seen, in words, for who does not see it.
    pub(super) words: &'a str,
    /// Of the place, as a class: `tall`, `low`, `flat`.
    pub(super) height: &'a str,
    pub(super) scale: Scale,
    pub(super) label: fn(f64) -> String,
    /// Whether only whole numbers make sense.
    pub(super) whole: bool,
}

impl Plot<'_> {
    /// The figure: title, legend, axes, stages in the background, shapes, and a place for each column to say its figures.
    pub(super) fn over_time(&self, results: &Results, columns: &Columns, shapes: &str, named: bool) -> String {
        let mut back = String::new();
        let mut names = String::new();
        if results.stages.len() > 1 {
            let one_by_one = results.stages.iter().filter(|stage| !stage.beside);
            for (nth, stage) in one_by_one.enumerate() {
                let edges = (columns.x(stage.start.as_secs_f64()), columns.x(stage.end.as_secs_f64()));
                if nth % 2 == 1 {
                    let mut shade = String::new();
                    block(&mut shade, edges, (0.0, 1.0));
                    back += &path("stage", &shade);
                }
                if named {
                    let _ = write!(
                        names,
                        "<span title=\"{name}\" style=\"left:{left:.2}%;width:{width:.2}%\">{name}</span>",
                        name = escaped(&stage.name),
                        left = edges.0 * 100.0,
                        width = (edges.1 - edges.0) * 100.0
                    );
                }
            }
            names = if named {
                format!("<div class=\"stages\">{names}</div>")
            } else {
                names
            };
        }
        let ticks = scale::time_ticks(columns.total);
        let below: Vec<_> = ticks.into_iter().map(|at| (columns.x(at), scale::time(at))).collect();
        let hover = columns.placed().map(|(column, left, right)| {
            let mut place = String::new();
            block(&mut place, (left, right), (0.0, 1.0));
            format!(
                "<path class=\"hover\" d=\"{place}\"><title>{}</title></path>",
                super::panels::said_of(column, columns)
            )
        });
        self.figure(&(names + &self.axes(&below, &(back + shapes + &hover.collect::<String>()))))
    }

    /// The plot with its axes; `below` are the labels under it.
    pub(super) fn axes(&self, below: &[(f64, String)], shapes: &str) -> String {
        let (mut lines, mut beside, mut under) = (String::new(), String::new(), String::new());
        for tick in self
            .scale
            .ticks()
            .into_iter()
            .filter(|tick| !self.whole || tick.fract() == 0.0)
        {
            let y = self.scale.at(tick);
            step(&mut lines, (0.0, 1.0), y, false);
            let _ = write!(
                beside,
                "<span style=\"bottom:{:.2}%\">{}</span>",
                y * 100.0,
                (self.label)(tick)
            );
        }
        for (x, text) in below {
            let end = if *x > 0.97 { " class=\"end\"" } else { "" };
            let _ = write!(under, "<span{end} style=\"left:{:.2}%\">{text}</span>", x * 100.0);
        }
        format!(
            "<div class=\"plot {height}\"><div class=\"y\" aria-hidden=\"true\">{beside}</div><svg role=\"img\" \
             aria-label=\"{words}\" viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\">{lines}{shapes}</svg><div \
             class=\"x\" aria-hidden=\"true\">{under}</div></div>",
            height = self.height,
            words = escaped(self.words),
            lines = path("grid", &lines),
        )
    }

    /// Title and legend around a plot.
    pub(super) fn figure(&self, inside: &str) -> String {
        let mut legend = String::new();
        for (class, name) in self.legend {
            let _ = write!(legend, "<span><i class=\"key {class}\"></i>{}</span>", escaped(name));
        }
        format!(
            "<figure><figcaption><b>{}</b><span class=\"legend\">{legend}</span></figcaption>{inside}</figure>\n",
            escaped(self.title)
        )
    }
}

/// Text as it may stand in HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}
