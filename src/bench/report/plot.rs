//! Plots as SVG: axes with round numbers, series as lines, steps and points, and their names beside them. It knows
//! numbers and colours, not benchmarks.

use std::fmt::Write as _;

use super::figures::short;

/// How an axis counts.
#[derive(Clone, Copy, PartialEq)]
pub enum Scale {
    Linear,
    Log,
}

pub struct Axis {
    pub label: &'static str,
    pub scale: Scale,
}

#[derive(Default)]
pub struct Series {
    pub name: String,
    /// Classes of the page's style.
    pub colour: String,
    pub line: Vec<(f64, f64)>,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 340.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [62.0, 16.0, 14.0, 44.0];

/// A plot of series in one frame. Empty without anything to draw.
pub fn chart(x: &Axis, y: &Axis, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|series| series.line.iter().chain(&series.points));
    let Some(across) = Frame::around(x.scale, all().map(|point| point.0), MARGIN[0], WIDTH - MARGIN[1])
    else {
        return String::new();
    };
    let Some(up) = Frame::around(y.scale, all().map(|point| point.1), HEIGHT - MARGIN[3], MARGIN[2]) else {
        return String::new();
    };
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    grid(&mut svg, &across, &up, x, y);
    for one in series {
        let at = |point: &(f64, f64)| format!("{:.1},{:.1}", across.at(point.0), up.at(point.1));
        if one.line.len() > 1 {
            let path: Vec<String> = one.line.iter().map(at).collect();
            let _ = write!(svg, "<polyline class=\"line {}\" points=\"{}\"/>", one.colour, path.join(" "));
        }
        for (px, py) in &one.points {
            let (cx, cy) = (across.at(*px), up.at(*py));
            let _ = write!(
                svg,
                "<circle class=\"dot {}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.2\"><title>{}: {} at {}</title>\
                 </circle>",
                one.colour,
                text(&one.name),
                short(*py),
                short(*px)
            );
        }
    }
    svg + "</svg>" + &legend(series)
}

/// The names of the series with their colours.
fn legend(series: &[Series]) -> String {
    let mut html = String::from("<p class=\"legend\">");
    for one in series {
        let _ = write!(html, "<span><i class=\"{}\"></i>{}</span> ", one.colour, text(&one.name));
    }
    html + "</p>"
}

fn grid(svg: &mut String, across: &Frame, up: &Frame, x: &Axis, y: &Axis) {
    let [left, right, top, bottom] = MARGIN;
    let (right, bottom) = (WIDTH - right, HEIGHT - bottom);
    for tick in across.ticks() {
        let at = across.at(tick);
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>");
        let _ = write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" class=\"tick mid\">{}</text>",
            bottom + 16.0,
            number(tick)
        );
    }
    for tick in up.ticks() {
        let at = up.at(tick);
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"tick end\">{}</text>",
            left - 7.0,
            at + 4.0,
            number(tick)
        );
    }
    let middle = (left + right) / 2.0;
    let _ = write!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" class=\"label mid\">{}</text>",
        HEIGHT - 8.0,
        text(x.label)
    );
    let middle = (top + bottom) / 2.0;
    let _ = write!(
        svg,
        "<text x=\"14\" y=\"{middle}\" class=\"label mid\" transform=\"rotate(-90 14 {middle})\">{}</text>",
        text(y.label)
    );
}

/// Values of an axis, and where they lie on it.
struct Frame {
    scale: Scale,
    low: f64,
    high: f64,
    /// Between ticks of a linear one.
    step: f64,
    from: f64,
    to: f64,
}

impl Frame {
    fn around(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let usable = values.filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0));
        let (low, high) = usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        let (low, high, step) = match scale {
            // Zero belongs to every figure that is an amount.
            Scale::Linear => {
                let (low, high) = (low.min(0.0), high.max(low.min(0.0) + 1e-9));
                let step = step_of(low, high);
                ((low / step).floor() * step, (high / step).ceil() * step, step)
            }
            Scale::Log => (low / 1.15, high * 1.15, 0.0),
        };
        Some(Self { scale, low, high, step, from, to })
    }

    fn at(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + part * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let count = ((self.high - self.low) / self.step).round() as i64;
                let first = (self.low / self.step).round() as i64;
                (first..=first + count).map(|at| self.step * at as f64).collect()
            }
            Scale::Log => {
                let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
                let marks: &[f64] = if self.high / self.low > 300.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let all = decades.flat_map(|decade| marks.iter().map(move |mark| mark * 10f64.powi(decade)));
                all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
            }
        }
    }
}

/// A round step that cuts the way into about five.
fn step_of(low: f64, high: f64) -> f64 {
    let raw = (high - low) / 5.0;
    let decade = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|mark| mark * decade)
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(raw)
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 || value == value.round() {
        short(value.round()).replace(".00", "").replace(".0", "")
    } else {
        format!("{value}").chars().take(6).collect()
    }
}

/// One bar of a row of bars, which are drawn on a logarithmic axis: from one instance to a million.
pub struct Bar {
    pub name: String,
    pub note: String,
    pub value: f64,
    pub colour: String,
}

/// Bars below each other, each with its figure.
pub fn bars(bars: &[Bar]) -> String {
    const ROW: f64 = 34.0;
    const LEFT: f64 = 170.0;
    let most = bars.iter().map(|bar| bar.value).fold(10.0, f64::max);
    let height = ROW * bars.len() as f64 + 6.0;
    let mut svg = format!("<svg viewBox=\"0 0 960 {height}\" role=\"img\">");
    for (at, bar) in bars.iter().enumerate() {
        let y = ROW * at as f64 + 4.0;
        let width = (bar.value.max(1.0).log10() / most.log10() * 430.0).max(2.0);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" class=\"name end\">{}</text><rect class=\"bar {}\" x=\"{LEFT}\" y=\"{y:.1}\" \
             width=\"{width:.1}\" height=\"24\" rx=\"3\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"figure\">{}\
             <tspan class=\"note\" dx=\"9\">{}</tspan></text>",
            LEFT - 10.0,
            y + 17.0,
            text(&bar.name),
            bar.colour,
            LEFT + width + 9.0,
            y + 17.0,
            short(bar.value),
            text(&bar.note)
        );
    }
    svg + "</svg>"
}

/// Text between tags.
pub fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        let frame = Frame::around(Scale::Linear, [0.0, 87.0].into_iter(), 0.0, 100.0).expect("a frame");
        assert_eq!(frame.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert!((frame.at(50.0) - 50.0).abs() < 1e-9);
        // A little below zero does not move the ticks from it.
        let frame = Frame::around(Scale::Linear, [-3.0, 460.0].into_iter(), 0.0, 100.0).expect("a frame");
        assert_eq!(frame.ticks(), [-100.0, 0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        let frame = Frame::around(Scale::Log, [1.0, 100.0].into_iter(), 0.0, 100.0).expect("a frame");
        assert_eq!(frame.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert!((frame.at(10.0) - 50.0).abs() < 1e-9);
        assert!(Frame::around(Scale::Log, [0.0].into_iter(), 0.0, 1.0).is_none());
    }

    #[test]
    fn names_are_text() {
        let series =
            [Series { name: "<b>&".into(), points: vec![(1.0, 1.0), (2.0, 2.0)], ..Series::default() }];
        let axis = || Axis { label: "x", scale: Scale::Linear };
        let svg = chart(&axis(), &axis(), &series);
        assert!(svg.contains("&lt;b&gt;&amp;") && !svg.contains("<b>"));
    }
}
