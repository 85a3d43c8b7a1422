//! Curves as SVG that takes its colours from the page and any width. Called by the page; knows no report.
//!
//! A drawing holds no text: labels are HTML beside it, so that they stay readable when the curves are squeezed into a
//! phone. The library knows fixed colours only, so each ink is drawn as a colour that nothing else uses, and becomes a
//! class afterwards.

mod scale;

pub use scale::{Scale, Unit};

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// Size of a drawing in its own units. Coordinates are whole numbers, so there are more of them than pixels.
const SIZE: (u32, u32) = (2400, 800);
/// Red and green of all inks; blue is the ink's number.
const INK: (u8, u8) = (1, 2);

/// What is drawn in which colour; the page's style sheet says which that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Grid,
    /// Something that happened.
    Event,
    /// Something bad that happened.
    Alarm,
    /// 1 to [`Ink::SERIES`].
    Series(u8),
}

impl Ink {
    pub const SERIES: u8 = 8;
    const ALL: u8 = 3 + Self::SERIES;

    /// The `index`th series; colours repeat when there are many.
    pub fn series(index: usize) -> Self {
        Self::Series((index % Self::SERIES as usize) as u8 + 1)
    }

    fn number(self) -> u8 {
        match self {
            Self::Grid => 0,
            Self::Event => 1,
            Self::Alarm => 2,
            Self::Series(number) => 2 + number.clamp(1, Self::SERIES),
        }
    }

    /// Class of what has this colour.
    pub fn class(self) -> String {
        format!("i{}", self.number())
    }

    fn colour(self) -> RGBColor {
        RGBColor(INK.0, INK.1, self.number())
    }
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: String,
    /// Said of the whole run: a mean, the worst.
    pub overall: String,
    pub ink: Ink,
    /// One for each place on the other axis; none where nothing was measured.
    pub values: Vec<Option<f64>>,
    /// Whether what is below is tinted.
    pub area: bool,
}

/// A mark across the whole height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Upright {
    /// Between 0 and 1.
    pub at: f64,
    pub ink: Ink,
}

type Canvas<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The curves, as elements for an `svg` of [`view_box`]; empty if there is nothing to draw.
///
/// `xs` are places between 0 and 1 and belong to the lines' values one by one.
pub fn draw(lines: &[Line], xs: &[f64], x: &Scale, y: &Scale, uprights: &[Upright]) -> String {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw_on(&area, lines, xs, x, y, uprights)
    };
    // Drawing into memory does not fail; if it did, the page is better without the curve than not there.
    if drawn.is_ok() { themed(inner(&svg)) } else { String::new() }
}

pub fn view_box() -> String {
    format!("0 0 {} {}", SIZE.0, SIZE.1)
}

fn draw_on(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    lines: &[Line],
    xs: &[f64],
    x: &Scale,
    y: &Scale,
    uprights: &[Upright],
) -> Drawn {
    let mut chart = ChartBuilder::on(area).build_cartesian_2d(0f64..1f64, 0f64..1f64)?;
    for mark in &y.marks {
        stroke(&mut chart, vec![(0.0, mark.at), (1.0, mark.at)], Ink::Grid)?;
    }
    for mark in &x.marks {
        stroke(&mut chart, vec![(mark.at, 0.0), (mark.at, 1.0)], Ink::Grid)?;
    }
    for upright in uprights {
        stroke(&mut chart, vec![(upright.at, 0.0), (upright.at, 1.0)], upright.ink)?;
    }
    for line in lines {
        for run in runs(line, xs, y) {
            if line.area {
                chart.draw_series(AreaSeries::new(run.iter().copied(), 0.0, line.ink.colour()))?;
            }
            stroke(&mut chart, run, line.ink)?;
        }
    }
    area.present()
}

fn stroke(chart: &mut Canvas<'_>, points: Vec<(f64, f64)>, ink: Ink) -> Drawn {
    chart.draw_series(LineSeries::new(points, ink.colour())).map(|_| ())
}

/// The line's unbroken parts. One value alone gets a dash as wide as its column.
fn runs(line: &Line, xs: &[f64], y: &Scale) -> Vec<Vec<(f64, f64)>> {
    let half = if xs.len() > 1 { (xs[1] - xs[0]).abs() / 2.0 } else { 0.5 };
    let mut runs = Vec::new();
    let mut run = Vec::new();
    for (at, value) in xs.iter().zip(&line.values) {
        if let Some(value) = value {
            run.push((*at, y.place(*value)));
        } else if !run.is_empty() {
            runs.push(std::mem::take(&mut run));
        }
    }
    if !run.is_empty() {
        runs.push(run);
    }
    for run in &mut runs {
        if let [(at, value)] = run[..] {
            *run = vec![((at - half).max(0.0), value), ((at + half).min(1.0), value)];
        }
    }
    runs
}

/// What stands between the `svg` tags: the page opens its own.
fn inner(svg: &str) -> &str {
    let start = svg.find('>').map_or(0, |at| at + 1);
    let end = svg.rfind("</svg").unwrap_or(svg.len());
    svg.get(start..end).unwrap_or_default().trim()
}

/// Inks become classes; what the style sheet says anyway is left out.
fn themed(svg: &str) -> String {
    let mut svg = svg.replace(" opacity=\"1\"", "").replace(" stroke-width=\"1\"", "").replace(" \"", "\"");
    for number in 0..Ink::ALL {
        let colour = format!("#{:02X}{:02X}{number:02X}", INK.0, INK.1);
        svg = svg.replace(&format!("stroke=\"{colour}\""), &format!("class=\"i{number}\""));
        svg = svg.replace(&format!("fill=\"{colour}\""), &format!("class=\"f{number}\""));
    }
    svg.replace(" fill=\"none\"", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[Option<f64>], area: bool) -> Line {
        let values = values.to_vec();
        Line { name: String::new(), overall: String::new(), ink: Ink::series(0), values, area }
    }

    #[test]
    fn no_colour_is_left() {
        let lines: Vec<Line> = (0..20)
            .map(|index| Line { ink: Ink::series(index), ..line(&[Some(1.0), Some(2.0)], index % 2 == 0) })
            .collect();
        let uprights = [Upright { at: 0.5, ink: Ink::Alarm }, Upright { at: 0.6, ink: Ink::Event }];
        let (x, y) = (Scale::time(0.0, 10.0), Scale::linear(2.0, Unit::Amount));
        let svg = draw(&lines, &[0.0, 1.0], &x, &y, &uprights);
        assert!(!svg.contains('#'), "{svg}");
        assert!(!svg.contains("<svg") && !svg.contains("http") && !svg.contains("<text"));
        for class in ["\"i0\"", "\"i1\"", "\"i2\"", "\"i3\"", "\"i10\"", "\"f3\""] {
            assert!(svg.contains(class), "{class}");
        }
    }

    #[test]
    fn a_line_breaks_where_nothing_was_measured() {
        let line = line(&[Some(1.0), Some(1.0), None, Some(0.0), None], false);
        let runs = runs(&line, &[0.0, 0.25, 0.5, 0.75, 1.0], &Scale::linear(1.0, Unit::Amount));
        assert_eq!(runs, [vec![(0.0, 1.0), (0.25, 1.0)], vec![(0.625, 0.0), (0.875, 0.0)]]);
    }

    #[test]
    fn nothing_to_draw_is_drawn() {
        let (x, y) = (Scale::time(0.0, 0.0), Scale::linear(0.0, Unit::Amount));
        assert!(!draw(&[], &[], &x, &y, &[]).is_empty(), "the grid remains");
    }
}
