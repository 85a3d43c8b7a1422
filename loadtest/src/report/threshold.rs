//! Conditions a run must meet: `figure[.stat] op value`.
//!
//! Made by the command line (`--assert`) and by the defaults, evaluated over a report. Figures are named as in the JSON.
//! [`super::figure`] knows what can be measured; here are comparison, limits and their text.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::figure::{Figure, Unit};
use super::{Report, ThresholdResult};
use crate::record::Count;

/// One condition the run must meet, such as `delivery.p99<50ms`.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// As written.
    pub text: String,
    figure: Figure,
    op: Op,
    /// Microseconds for times.
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Differs,
}

/// What is wrong with a threshold; says how to write it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadThreshold {
    #[error("no comparison: write a figure, one of < <= > >= == != and a value, such as delivery.p99<50ms or lost==0")]
    NoComparison,
    #[error("unknown comparison {0:?}: one of < <= > >= == !=")]
    UnknownComparison(String),
    #[error("unknown figure {name:?}{near}")]
    UnknownFigure { name: String, near: Near },
    #[error("{0} is a latency and needs a statistic: {0}.p99, or p50, p99.9, min, max, mean, count")]
    NeedsStatistic(String),
    #[error("unknown statistic {stat:?} of {figure}: {known}")]
    UnknownStatistic { figure: String, stat: String, known: &'static str },
    #[error("no value after the comparison")]
    NoValue,
    #[error("{0:?} is not a time: it needs a unit, such as 800us, 50ms, 1.5s or 2m")]
    NotATime(String),
    #[error("{0:?} is not a number: such as 0, 1200, 1.5k or 2M")]
    NotANumber(String),
    #[error("{0:?} is not a rate per second: such as 500, 70k or 1.5M, with or without /s")]
    NotARate(String),
}

/// Figures that may have been meant.
#[derive(Debug, PartialEq, Eq)]
pub struct Near(pub Vec<String>);

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("; there are delivery.p99, received.rate, lost and more, named as in --json"),
            [one] => write!(f, "; did you mean {one}?"),
            [first @ .., last] => write!(f, "; did you mean {} or {last}?", first.join(", ")),
        }
    }
}

impl FromStr for Threshold {
    type Err = BadThreshold;

    /// Spaces may stand anywhere between the parts.
    fn from_str(text: &str) -> Result<Self, BadThreshold> {
        let is_op = |c: char| matches!(c, '<' | '>' | '=' | '!');
        let start = text.find(is_op).ok_or(BadThreshold::NoComparison)?;
        let (figure, rest) = text.split_at(start);
        let end = rest.find(|c| !is_op(c)).unwrap_or(rest.len());
        let (op, value) = rest.split_at(end);
        if figure.trim().is_empty() {
            return Err(BadThreshold::NoComparison);
        }
        let figure: Figure = figure.trim().parse()?;
        let op = Op::named(op).ok_or_else(|| BadThreshold::UnknownComparison(op.to_owned()))?;
        let limit = limit(value.trim(), figure.unit())?;
        Ok(Self { text: text.trim().to_owned(), figure, op, limit })
    }
}

impl Threshold {
    /// What every run must meet unless the user says otherwise about the same figure: the audit found nothing, and no
    /// member was missing at the end, for what an absent member lacks is not counted as lost. An `idle` run is about
    /// connections that stay.
    pub fn defaults(scenario: &str) -> Vec<Self> {
        let stays = (scenario == "idle").then_some(Figure::Count(Count::Disconnected));
        Figure::defaults()
            .into_iter()
            .chain(stays)
            .map(|figure| Self { text: format!("{figure}==0"), figure, op: Op::Equal, limit: 0.0 })
            .collect()
    }

    /// The user's, and before them the defaults on figures that the user did not mention.
    pub fn with_defaults(scenario: &str, users: &[Self]) -> Vec<Self> {
        let mentioned = |default: &Self| users.iter().any(|user| user.figure == default.figure);
        Self::defaults(scenario)
            .into_iter()
            .filter(|default| !mentioned(default))
            .chain(users.iter().cloned())
            .collect()
    }

    /// A figure that was not measured fails.
    pub fn evaluate(&self, report: &Report) -> ThresholdResult {
        let measured = self.figure.measure(report);
        ThresholdResult {
            text: self.text.clone(),
            measured: measured.map(|value| self.figure.unit().words(value)),
            passed: measured.is_some_and(|value| self.op.holds(value, self.limit)),
        }
    }
}

impl Op {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "<" => Self::Less,
            "<=" => Self::AtMost,
            ">" => Self::More,
            ">=" => Self::AtLeast,
            "==" => Self::Equal,
            "!=" => Self::Differs,
            _ => return None,
        })
    }

    #[allow(clippy::float_cmp, reason = "whole numbers that were counted; who compares times for equality means it")]
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Less => value < limit,
            Self::AtMost => value <= limit,
            Self::More => value > limit,
            Self::AtLeast => value >= limit,
            Self::Equal => value == limit,
            Self::Differs => value != limit,
        }
    }
}

fn limit(text: &str, unit: Unit) -> Result<f64, BadThreshold> {
    if text.is_empty() {
        return Err(BadThreshold::NoValue);
    }
    match unit {
        Unit::Micros => scaled(text, &[("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7), ("h", 3.6e9)])
            .ok_or_else(|| BadThreshold::NotATime(text.to_owned())),
        Unit::Count => scaled(text, PLAIN).ok_or_else(|| BadThreshold::NotANumber(text.to_owned())),
        Unit::PerSecond => scaled(text.strip_suffix("/s").unwrap_or(text), PLAIN)
            .ok_or_else(|| BadThreshold::NotARate(text.to_owned())),
    }
}

const PLAIN: &[(&str, f64)] = &[("", 1.0), ("k", 1e3), ("M", 1e6)];

/// A plain decimal number and one of the units.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
#[path = "threshold_tests.rs"]
mod tests;
