//! One plot with its words: title, legend, axis labels, numbers of events. Called by the sections that have plots.

use maud::{Markup, PreEscaped, html};

use crate::report::plot::{self, Line, Scale, Unit, Upright};

/// Least distance of two labels beside a plot, and heights of plots, pixels.
const LABEL_PX: f64 = 17.0;

/// What the plots of one section share: the axis along which one reads, and what is marked on it.
pub struct Shared {
    pub x: Scale,
    /// Places between 0 and 1, one for each value of a line.
    pub xs: Vec<f64>,
    pub uprights: Vec<Upright>,
    /// What stands above the uprights, where.
    pub numbers: Vec<Number>,
}

/// The number of an event, or of several that are close together.
pub struct Number {
    /// Between 0 and 1.
    pub at: f64,
    pub text: String,
    pub bad: bool,
    /// Too close to the one before it for a narrow page.
    pub near: bool,
}

/// One plot.
pub struct Figure {
    /// For links and the class of its `figure`.
    pub id: &'static str,
    pub title: &'static str,
    /// What the values are, in a few words.
    pub words: String,
    pub unit: Unit,
    pub y: Scale,
    pub lines: Vec<Line>,
    pub height_px: u32,
    /// Whether the lines end where they are highest, as percentiles do.
    pub rising: bool,
}

impl Figure {
    pub fn render(&self, shared: &Shared) -> Markup {
        let height = f64::from(self.height_px);
        let tops = spread(&self.label_tops(height), LABEL_PX, height);
        html! {
            figure.plot id=(self.id) style=(format!("--h:{}px", self.height_px)) {
                figcaption { h3 { (self.title) } span { (self.words) } }
                div.frame {
                    div.y aria-hidden="true" {
                        @for mark in &self.y.marks { span style=(format!("top:{}", percent(1.0 - mark.at))) { (mark.text) } }
                    }
                    div.canvas {
                        svg viewBox=(plot::view_box()) preserveAspectRatio="none" role="img" aria-label=(self.spoken()) {
                            title { (self.spoken()) }
                            (PreEscaped(plot::draw(&self.lines, &shared.xs, &shared.x, &self.y, &shared.uprights)))
                        }
                        @for number in &shared.numbers {
                            span.number.bad[number.bad].near[number.near] aria-hidden="true"
                                style=(format!("left:{}", percent(number.at))) { (number.text) }
                        }
                    }
                    div.x aria-hidden="true" {
                        @for mark in &shared.x.marks {
                            span style=(format!("left:{}", percent(mark.at))) { (mark.text) }
                        }
                    }
                    ul.keys {
                        @for (line, top) in self.lines.iter().zip(tops) {
                            li class=(line.ink.class()) style=(format!("--y:{top:.0}px")) data-v=(self.readings(line)) {
                                span { (line.name) } " " b { (line.overall) }
                            }
                        }
                    }
                }
            }
        }
    }

    /// What a screen reader says for the picture.
    fn spoken(&self) -> String {
        let lines: Vec<String> = self.lines.iter().map(|line| format!("{} {}", line.name, line.overall)).collect();
        format!("{}, {}: {}", self.title, self.words, lines.join("; "))
    }

    /// Where the labels would like to be: at the height where the line is for most of its way, or where it ends.
    fn label_tops(&self, height: f64) -> Vec<f64> {
        let typical = |line: &Line| {
            let mut values: Vec<f64> = line.values.iter().flatten().copied().collect();
            if !self.rising {
                values.sort_by(f64::total_cmp);
                values.truncate(values.len() / 2 + 1);
            }
            values.last().copied().unwrap_or_default()
        };
        self.lines.iter().map(|line| (1.0 - self.y.place(typical(line))) * height).collect()
    }

    /// The values in words, for the script that shows those under the pointer.
    fn readings(&self, line: &Line) -> String {
        let words: Vec<String> =
            line.values.iter().map(|value| value.map_or(String::new(), |v| self.unit.show(v))).collect();
        words.join("|")
    }
}

pub fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

/// Moves labels apart that would cover each other, and keeps their order.
fn spread(tops: &[f64], gap: f64, height: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..tops.len()).collect();
    order.sort_by(|a, b| tops[*a].total_cmp(&tops[*b]));
    let mut placed = tops.to_vec();
    let mut least = f64::NEG_INFINITY;
    for index in &order {
        placed[*index] = placed[*index].max(least);
        least = placed[*index] + gap;
    }
    // Those that were pushed below the plot come back up and push the others.
    let mut most = height;
    for index in order.iter().rev() {
        placed[*index] = placed[*index].min(most);
        most = placed[*index] - gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_cover_each_other() {
        assert_eq!(spread(&[50.0, 50.0, 10.0], 17.0, 150.0), [50.0, 67.0, 10.0]);
        assert_eq!(spread(&[150.0, 149.0, 148.0], 10.0, 150.0), [150.0, 140.0, 130.0]);
        assert!(spread(&[], 1.0, 1.0).is_empty());
    }
}
