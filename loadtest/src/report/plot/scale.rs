//! From values to places between 0 and 1, and where the marks of an axis go. Called by the plots; knows no drawing.

use crate::report::words;

/// What an axis counts, which decides its marks and how they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    PerSecond,
    Microseconds,
    Amount,
    Cores,
    Bytes,
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => words::rate(value),
            Self::Microseconds => words::latency(value),
            Self::Amount => words::amount(value),
            Self::Cores => words::short(value),
            Self::Bytes => words::bytes(value),
        }
    }

    /// For the script that shows the values under the pointer.
    pub fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "rate",
            Self::Microseconds => "us",
            Self::Amount => "amount",
            Self::Cores => "cores",
            Self::Bytes => "bytes",
        }
    }
}

/// One axis: its ends, and where its marks are.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    from: f64,
    to: f64,
    log: bool,
    pub marks: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Between 0 (the beginning) and 1.
    pub at: f64,
    pub text: String,
}

impl Scale {
    /// From 0 to a round number that is not below `most`.
    pub fn linear(most: f64, unit: Unit) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let whole = matches!(unit, Unit::Amount);
        let step = if unit == Unit::Bytes { binary_step(most / 4.0) } else { step(most / 4.0) };
        let step = if whole { step.max(1.0).ceil() } else { step };
        let count = (most / step - 1e-9).ceil().max(1.0);
        let to = count * step;
        let marks = (0..=count as u32)
            .map(|index| Mark {
                at: f64::from(index) / count,
                text: if index == 0 { "0".to_owned() } else { unit.show(f64::from(index) * step) },
            })
            .collect();
        Self { from: 0.0, to, log: false, marks }
    }

    /// Whole decades around what lies between `least` and `most`, both above 0.
    pub fn log(least: f64, most: f64, unit: Unit) -> Self {
        let from = floor_to_third(least.max(1.0));
        let mut to = most.max(from).log10().ceil();
        // Half a decade of nothing above the highest value is wasted.
        if most > 0.0 && most <= 10f64.powf(to) / 2.0 {
            to += 0.5f64.log10();
        }
        let to = to.max(from + 1.0);
        // Few decades have room for marks within them.
        let digits: &[f64] = if to - from < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let marks = (from.floor() as i32..=to.floor() as i32)
            .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)))
            .filter(|value| (from - 1e-9..=to + 1e-9).contains(&value.log10()))
            .map(|value| Mark { at: ((value.log10() - from) / (to - from)).clamp(0.0, 1.0), text: unit.show(value) })
            .collect();
        Self { from, to, log: true, marks }
    }

    /// Logarithmic if the values differ so much that a linear axis would hide the small ones.
    pub fn fit(values: impl Iterator<Item = f64> + Clone, unit: Unit) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        let least = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        if unit == Unit::Microseconds && least.is_finite() && most / least > 15.0 {
            Self::log(least, most, unit)
        } else {
            Self::linear(most, unit)
        }
    }

    /// Seconds from `from` to `to`, marked at round durations.
    pub fn time(from: f64, to: f64) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        let step = time_step((to - from) / 8.0);
        // Up to a few minutes everybody counts in seconds.
        let text = |second: f64| if to - from <= 180.0 { seconds(second) } else { words::duration(second) };
        let first = (from / step - 1e-9).ceil() as i64;
        let last = (to / step + 1e-9).floor() as i64;
        let marks = (first..=last)
            .map(|index| index as f64 * step)
            .map(|second| Mark { at: (second - from) / (to - from), text: text(second) })
            .collect();
        Self { from, to, log: false, marks }
    }

    /// Percentiles by their nines: 0, 90, 99, 99.9 and so on are equally far apart.
    pub fn nines(count: u32) -> Self {
        let marks = (0..=count)
            .map(|nines| {
                let decimals = nines.saturating_sub(2) as usize;
                let percentile = 100.0 - 10f64.powf(2.0 - f64::from(nines));
                Mark { at: f64::from(nines) / f64::from(count.max(1)), text: format!("{percentile:.decimals$} %") }
            })
            .collect();
        Self { from: 0.0, to: f64::from(count.max(1)), log: false, marks }
    }

    /// Where `value` is: 0 at the beginning, 1 at the end, never beyond.
    pub fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.max(1e-9).log10() } else { value };
        let at = (value - self.from) / (self.to - self.from);
        if at.is_finite() { at.clamp(0.0, 1.0) } else { 0.0 }
    }

    pub fn contains(&self, value: f64) -> bool {
        (self.from..=self.to).contains(&value)
    }

    pub fn is_log(&self) -> bool {
        self.log
    }
}

/// `90 s`.
fn seconds(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "\u{2212}" } else { "" };
    format!("{sign}{} s", seconds.abs())
}

/// The logarithm of the 1, 2 or 5 below `value`.
fn floor_to_third(value: f64) -> f64 {
    let decade = value.log10().floor();
    let digit = value / 10f64.powf(decade);
    let digit = if digit >= 5.0 {
        5f64
    } else if digit >= 2.0 {
        2.0
    } else {
        1.0
    };
    decade + digit.log10()
}

/// The smallest 1, 2, 2.5 or 5 times a power of ten that is not below `least`.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let digits = [1.0, 2.0, 2.5, 5.0, 10.0];
    digits.into_iter().map(|digit| digit * power).find(|step| *step >= least * 0.999_999).unwrap_or(10.0 * power)
}

/// The smallest power of two that is not below `least`.
fn binary_step(least: f64) -> f64 {
    least.max(1.0).log2().ceil().exp2()
}

fn time_step(least: f64) -> f64 {
    const STEPS: [f64; 22] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 10800.0, 14400.0,
        21600.0, 43200.0, 86400.0, 172_800.0, 432_000.0, 864_000.0,
    ];
    // Beyond the table: whole multiples of its last.
    STEPS.into_iter().find(|step| *step >= least).unwrap_or_else(|| (least / 864_000.0).ceil() * 864_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: &Scale) -> Vec<&str> {
        scale.marks.iter().map(|mark| mark.text.as_str()).collect()
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(texts(&Scale::linear(76_000.0, Unit::PerSecond)), ["0", "20k/s", "40k/s", "60k/s", "80k/s"]);
        assert_eq!(texts(&Scale::linear(3.0, Unit::Amount)), ["0", "1", "2", "3"]);
        assert_eq!(texts(&Scale::linear(0.0, Unit::Amount)), ["0", "1"]);
        assert_eq!(texts(&Scale::log(400.0, 90_000.0, Unit::Microseconds)), ["1 ms", "10 ms", "100 ms"]);
        assert_eq!(texts(&Scale::time(-5.0, 60.0)), ["0 s", "10 s", "20 s", "30 s", "40 s", "50 s", "60 s"]);
        assert_eq!(texts(&Scale::time(0.0, 36_000.0))[1], "2 h");
        assert_eq!(texts(&Scale::nines(4)), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn every_value_has_a_place() {
        for scale in [Scale::linear(f64::NAN, Unit::Cores), Scale::log(0.0, 0.0, Unit::Bytes), Scale::time(0.0, 0.0)] {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300] {
                assert!((0.0..=1.0).contains(&scale.place(value)));
            }
        }
    }

    #[test]
    fn a_wide_range_is_logarithmic() {
        assert!(Scale::fit([500.0, 100_000.0].into_iter(), Unit::Microseconds).is_log());
        assert!(!Scale::fit([500.0, 1_000.0].into_iter(), Unit::Microseconds).is_log());
        assert!(!Scale::fit([1.0, 100_000.0].into_iter(), Unit::PerSecond).is_log());
    }
}
