//! What a threshold can be about, and how it is measured in a report.
//!
//! Called by thresholds only.

use std::fmt;
use std::str::FromStr;

use super::threshold::{BadThreshold, Near};
use super::words;
use super::{Finding, Report};
use crate::record::{Count, Latency};

/// Something measurable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Figure {
    Latency(Timing, Stat),
    Count(Count),
    /// Per second of the load.
    Rate(Count),
    Finding(Finding),
    ToldMissing,
    LostAcked,
    MissedAway,
    AbsentMembers,
    Undecided,
    /// Most open connections in the series.
    Connections,
}

/// Which latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timing {
    One(Latency),
    /// To the same node and across nodes together.
    Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stat {
    /// 0 to 1.
    Quantile(f64),
    Min,
    Max,
    Mean,
    Count,
}

/// What a figure's value is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Micros,
    Count,
    PerSecond,
}

impl Unit {
    pub(super) fn words(self, value: f64) -> String {
        match self {
            Self::Micros => words::latency(value),
            Self::Count => format!("{value:.0}"),
            Self::PerSecond => words::rate(value),
        }
    }
}

const DELIVERY: &str = "delivery";
const OF_LATENCIES: &str = "p50, p99, p99.9 and the like, min, max, mean or count";
const OF_COUNTS: &str = "rate, or none at all for the total";
const OTHERS: [(&str, Figure); 6] = [
    ("told_missing", Figure::ToldMissing),
    ("lost_acked", Figure::LostAcked),
    ("missed_away", Figure::MissedAway),
    ("absent_members", Figure::AbsentMembers),
    ("undecided", Figure::Undecided),
    ("connections", Figure::Connections),
];

impl Figure {
    /// Those that every run has thresholds on.
    pub(super) fn defaults() -> Vec<Self> {
        Finding::ALL.into_iter().map(Self::Finding).chain([Self::AbsentMembers]).collect()
    }

    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Rate(_) => Unit::PerSecond,
            Self::Latency(_, stat) if stat != Stat::Count => Unit::Micros,
            _ => Unit::Count,
        }
    }

    /// None when the run did not measure it.
    pub(super) fn measure(self, report: &Report) -> Option<f64> {
        let count = match self {
            Self::Latency(timing, stat) => return timing.measure(report, stat),
            Self::Rate(what) => {
                let seconds = report.load_seconds();
                return (seconds > 0.0).then(|| report.count(what) as f64 / seconds);
            }
            Self::Count(what) => report.count(what),
            Self::Finding(finding) => report.audit.findings.get(&finding).copied().unwrap_or_default(),
            Self::ToldMissing => report.audit.told_missing,
            Self::LostAcked => report.audit.lost_acked,
            Self::MissedAway => report.audit.missed_away,
            Self::AbsentMembers => report.audit.absent_members,
            Self::Undecided => report.audit.undecided,
            Self::Connections => report.series.rows.iter().map(|row| row.connections).max().unwrap_or_default(),
        };
        Some(count as f64)
    }
}

impl Timing {
    fn measure(self, report: &Report, stat: Stat) -> Option<f64> {
        let of: &[Latency] = match &self {
            Self::One(what) => std::slice::from_ref(what),
            Self::Delivery => &[Latency::DeliverySame, Latency::DeliveryCross],
        };
        let histogram = report.histogram(of);
        if stat == Stat::Count {
            return Some(histogram.len() as f64);
        }
        (!histogram.is_empty()).then(|| match stat {
            Stat::Quantile(quantile) => histogram.value_at_quantile(quantile) as f64,
            Stat::Min => histogram.min() as f64,
            Stat::Max => histogram.max() as f64,
            Stat::Mean => histogram.mean(),
            Stat::Count => histogram.len() as f64,
        })
    }

    fn named(name: &str) -> Option<Self> {
        if name == DELIVERY {
            return Some(Self::Delivery);
        }
        Latency::ALL.into_iter().find(|what| what.name() == name).map(Self::One)
    }
}

impl FromStr for Figure {
    type Err = BadThreshold;

    fn from_str(text: &str) -> Result<Self, BadThreshold> {
        let (name, stat) = text.split_once('.').map_or((text, None), |(name, stat)| (name.trim(), Some(stat.trim())));
        let unknown = |known| BadThreshold::UnknownStatistic {
            figure: name.to_owned(),
            stat: stat.unwrap_or_default().to_owned(),
            known,
        };
        if let Some(timing) = Timing::named(name) {
            let stat = stat.ok_or_else(|| BadThreshold::NeedsStatistic(name.to_owned()))?;
            return Ok(Self::Latency(timing, Stat::named(stat).ok_or_else(|| unknown(OF_LATENCIES))?));
        }
        if let Some(what) = Count::ALL.into_iter().find(|what| what.name() == name) {
            return match stat {
                None => Ok(Self::Count(what)),
                Some("rate") => Ok(Self::Rate(what)),
                Some(_) => Err(unknown(OF_COUNTS)),
            };
        }
        let finding = Finding::ALL.into_iter().find(|finding| finding.name() == name).map(Self::Finding);
        let other = || OTHERS.iter().find(|(other, _)| *other == name).map(|(_, figure)| *figure);
        match finding.or_else(other) {
            Some(figure) if stat.is_none() => Ok(figure),
            Some(_) => Err(unknown("it has none")),
            None => Err(BadThreshold::UnknownFigure { name: name.to_owned(), near: near(name) }),
        }
    }
}

impl Stat {
    fn named(name: &str) -> Option<Self> {
        match name {
            "min" => return Some(Self::Min),
            "max" => return Some(Self::Max),
            "mean" => return Some(Self::Mean),
            "count" => return Some(Self::Count),
            _ => {}
        }
        let digits = name.strip_prefix('p').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))?;
        let percentile = digits.parse::<f64>().ok()?;
        // 99.9 / 100 is a little more than 0.999, which of 1000 values is not the 999th but the last.
        (percentile <= 100.0).then(|| Self::Quantile((percentile * 1e10).round() / 1e12))
    }
}

impl fmt::Display for Figure {
    /// Its name; without the statistic of a latency, whose text nobody needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(Timing::One(what), _) => f.write_str(what.name()),
            Self::Latency(Timing::Delivery, _) => f.write_str(DELIVERY),
            Self::Count(what) => f.write_str(what.name()),
            Self::Rate(what) => write!(f, "{}.rate", what.name()),
            Self::Finding(finding) => f.write_str(finding.name()),
            other => f.write_str(OTHERS.iter().find(|(_, figure)| figure == other).map_or("", |(name, _)| name)),
        }
    }
}

/// Names of figures that a typing error may have come from, nearest first.
fn near(name: &str) -> Near {
    let names = Latency::ALL
        .iter()
        .map(|what| what.name())
        .chain([DELIVERY])
        .chain(Count::ALL.iter().map(|what| what.name()))
        .chain(Finding::ALL.iter().map(|finding| finding.name()))
        .chain(OTHERS.iter().map(|(other, _)| *other));
    let asked = name.to_lowercase().replace('-', "_");
    let within = 1 + asked.len().min(24) / 4;
    let mut close: Vec<(usize, &str)> = names
        .map(|known| (if known.starts_with(&asked) { 0 } else { distance(&asked, known) }, known))
        .filter(|(distance, _)| !asked.is_empty() && *distance <= within)
        .collect();
    close.sort_unstable();
    Near(close.into_iter().take(3).map(|(_, known)| known.to_owned()).collect())
}

/// Levenshtein's. Long names are cut: no figure's is longer.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(32).collect();
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (index, other) in b.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (at, own) in a.iter().enumerate() {
            let replaced = diagonal + usize::from(*own != other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
