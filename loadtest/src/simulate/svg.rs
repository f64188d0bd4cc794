//! Cost against violations as a picture: one panel for each market, light or dark as the viewer likes. PURE.

use std::fmt::Write as _;

/// One panel.
pub struct Panel {
    /// What it is of.
    pub title: String,
    /// What is drawn in it.
    pub series: Vec<Series>,
}

/// Points of one kind.
pub struct Series {
    /// Its name.
    pub name: String,
    /// Points of one policy at several settings are joined by a line; others stand for themselves.
    pub line: bool,
    /// Idle cost (1 is Knative's), share of violations, what is written beside it.
    pub points: Vec<(f64, f64, String)>,
}

/// The picture, an SVG document.
pub fn frontier(title: &str, panels: &[Panel]) -> String {
    let count = panels.len().max(1);
    let width = GAP + count_f64(count) * (PANEL + GAP);
    let names: Vec<&str> = names(panels);
    let height = TOP + PANEL + BELOW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\n<text class=\"ink head\" x=\"{GAP}\" y=\"30\">{title}</text>\n",
        title = escaped(title),
    );
    let mut x = GAP;
    for name in &names {
        let index = names.iter().position(|other| other == name).unwrap_or_default();
        let _ = writeln!(
            svg,
            "<circle class=\"c{index}\" cx=\"{}\" cy=\"48\" r=\"5\"/><text class=\"ink\" x=\"{}\" y=\"52\">{}</text>",
            x + 5.0,
            x + 15.0,
            escaped(name)
        );
        x += 32.0 + 7.4 * count_f64(name.chars().count());
    }
    for (index, panel) in panels.iter().enumerate() {
        let left = GAP + count_f64(index) * (PANEL + GAP);
        let _ = write!(svg, "<g transform=\"translate({left} {TOP})\">");
        draw(&mut svg, panel, &names);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, panel: &Panel, names: &[&str]) {
    let _ = write!(
        svg,
        "<text class=\"ink\" x=\"0\" y=\"-10\">{}</text><rect class=\"frame\" width=\"{PANEL}\" height=\"{PANEL}\"/>",
        escaped(&panel.title)
    );
    for tick in [0.01, 0.1, 1.0, 10.0] {
        let at = x(tick);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} 0V{PANEL}\"/><text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{}%</text>",
            PANEL + 18.0,
            tick * 100.0
        );
    }
    for tick in [0.0, 0.0001, 0.001, 0.01, 0.1] {
        let at = y(tick);
        let class = if tick == 0.01 { "sla" } else { "grid" };
        let _ = write!(
            svg,
            "<path class=\"{class}\" d=\"M0 {at:.1}H{PANEL}\"/><text class=\"tick\" text-anchor=\"end\" x=\"-6\" y=\"{:.1}\">{}%</text>",
            at + 4.0,
            tick * 100.0
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" text-anchor=\"middle\" x=\"{}\" y=\"{}\">idle cost, Knative = 100 %</text>\
         <text class=\"tick\" transform=\"translate(-50 {}) rotate(-90)\" text-anchor=\"middle\">late idle arrivals</text>",
        PANEL / 2.0,
        PANEL + 38.0,
        PANEL / 2.0
    );
    for series in &panel.series {
        let color = names.iter().position(|name| *name == series.name).unwrap_or_default();
        if series.line {
            let mut points = series.points.clone();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let path: Vec<String> = points
                .iter()
                .map(|(cost, share, _)| format!("{:.1} {:.1}", x(*cost), y(*share)))
                .collect();
            let _ = write!(svg, "<path class=\"line s{color}\" d=\"M{}\"/>", path.join("L"));
        }
        for (cost, share, label) in &series.points {
            let (x, y) = (x(*cost), y(*share));
            let (side, anchor) = if x > PANEL * 0.7 { (-8.0, "end") } else { (8.0, "start") };
            let _ = write!(
                svg,
                "<circle class=\"c{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{}\"><title>{}: {:.1} % of Knative's cost, {:.3} % late</title></circle>\
                 <text class=\"label\" text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                if series.line { 3.0 } else { 5.0 },
                escaped(&format!("{} {label}", series.name)),
                cost * 100.0,
                share * 100.0,
                x + side,
                y - 5.0,
                escaped(label)
            );
        }
    }
}

/// Every name once, in order.
fn names(panels: &[Panel]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for series in panels.iter().flat_map(|panel| &panel.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    names
}

/// From 0.3 % to 3,000 % of Knative's cost.
fn x(cost: f64) -> f64 {
    let share = (cost.max(1e-9).log10() + 2.5) / 4.0;
    share.clamp(0.0, 1.0) * PANEL
}

/// From 0.003 % to 30 %; what is less stands at the foot.
fn y(share: f64) -> f64 {
    let up = (share.max(1e-9).log10() + 4.5) / 4.0;
    (1.0 - up.clamp(0.0, 1.0)) * PANEL
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn count_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

const PANEL: f64 = 420.0;
const GAP: f64 = 80.0;
const TOP: f64 = 100.0;
const BELOW: f64 = 60.0;

/// Okabe and Ito's colours, which most eyes can tell apart.
const STYLE: &str = ".back{fill:#fff}.ink{fill:#1b1f24}.tick,.label{fill:#57606a}.label{font-size:11px}.head{font-size:17px;font-weight:600}\
.frame{fill:none;stroke:#8c959f}.grid{stroke:#d0d7de;fill:none}.sla{stroke:#cf222e;stroke-dasharray:5 4;fill:none}.line{fill:none;stroke-width:1.6}\
.c0{fill:#0072b2}.s0{stroke:#0072b2}.c1{fill:#d55e00}.s1{stroke:#d55e00}.c2{fill:#009e73}.s2{stroke:#009e73}.c3{fill:#cc79a7}.s3{stroke:#cc79a7}\
.c4{fill:#e69f00}.s4{stroke:#e69f00}.c5{fill:#56b4e9}.s5{stroke:#56b4e9}.c6{fill:#8c6d1f}.s6{stroke:#8c6d1f}.c7{fill:#6e7781}.s7{stroke:#6e7781}\
@media(prefers-color-scheme:dark){.back{fill:#0d1117}.ink{fill:#e6edf3}.tick,.label{fill:#9198a1}.frame{stroke:#6e7681}.grid{stroke:#2a313a}\
.sla{stroke:#ff7b72}.c0{fill:#b392f0}.s0{stroke:#b392f0}.c6{fill:#d2b45c}.s6{stroke:#d2b45c}}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_a_document_with_every_point() {
        let panel = |title: &str| Panel {
            title: title.into(),
            series: vec![
                Series {
                    name: "a < b".into(),
                    line: true,
                    points: vec![(1.0, 0.0, "one".into()), (0.1, 0.01, "two".into())],
                },
                Series {
                    name: "c".into(),
                    line: false,
                    points: vec![(1e9, 0.5, "far".into())],
                },
            ],
        };
        let svg = frontier("t & u", &[panel("left"), panel("right")]);
        assert_eq!(svg.matches("<circle").count(), 2 * 3 + 2);
        assert!(svg.contains("t &amp; u") && svg.contains("a &lt; b") && !svg.contains("NaN"));
        // Sorted by cost, 0.1 before 1.
        let line = svg
            .split("class=\"line s0\" d=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        assert_eq!(line, Some("M157.5 157.5L262.5 420.0"));
        let place = |cost| x(cost);
        assert!(place(0.0) == 0.0 && place(1e9) == PANEL && y(0.0) == PANEL && y(1.0) == 0.0);
    }
}
