//! Counts and latencies of a run while it goes on: one recorder per thread, drained once a second.
//!
//! Called by clients and pacers for every event, so recording is an array access and an increment. Knows neither
//! sockets nor reports.

use std::cell::RefCell;
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What is measured. Always from the moment that was *intended*: waiting in the generator or behind a stalled server
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// To `welcome`, from when the connection was due.
    Connect,
    /// From the `join` frame to `joined`.
    Join,
    /// From when the publish was due to its `ack`.
    Ack,
    /// From when the publish was due to a member on the publisher's node.
    DeliverySame,
    /// From when the publish was due to a member on another node.
    DeliveryCross,
    /// From the loss of a connection (or the `afterMs` that the server asked for) to `joined` after it.
    Resume,
    /// The generator's own: from when a publish or probe was due to when it was carried out.
    Lag,
}

impl Latency {
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Join, Self::Ack, Self::DeliverySame, Self::DeliveryCross, Self::Resume, Self::Lag];

    /// As in JSON, thresholds and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Join => "join",
            Self::Ack => "ack",
            Self::DeliverySame => "delivery_same",
            Self::DeliveryCross => "delivery_cross",
            Self::Resume => "resume",
            Self::Lag => "lag",
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Connections that reached `welcome`.
    Connected,
    /// Attempts that did not, for whatever reason.
    ConnectFailed,
    /// Connections that ended against our will.
    Disconnected,
    /// Connections we broke: storms.
    Dropped,
    /// Rooms joined.
    Joined,
    /// Rooms left: churn.
    Left,
    /// Publishes due.
    Due,
    /// Publishes written, retries not counted.
    Sent,
    Retried,
    Acked,
    /// Acked as `duplicate`.
    AckedDuplicate,
    /// `error` answers to publishes.
    PublishErrors,
    /// Publishes given up: refused for good, or no room for them while disconnected.
    Abandoned,
    /// Messages of this run received live.
    Received,
    /// Messages of this run received within `joined`.
    Replayed,
    /// Messages that are none of this run's.
    Foreign,
    /// Other frames.
    OtherFrames,
    /// `error` frames that answer no publish, and frames we could not read or that do not belong where they came.
    OtherErrors,
    BytesIn,
    BytesOut,
    /// Deliveries that seemed to arrive before they were due: clocks differ.
    ClockSkew,
}

impl Count {
    pub const ALL: [Self; 21] = [
        Self::Connected,
        Self::ConnectFailed,
        Self::Disconnected,
        Self::Dropped,
        Self::Joined,
        Self::Left,
        Self::Due,
        Self::Sent,
        Self::Retried,
        Self::Acked,
        Self::AckedDuplicate,
        Self::PublishErrors,
        Self::Abandoned,
        Self::Received,
        Self::Replayed,
        Self::Foreign,
        Self::OtherFrames,
        Self::OtherErrors,
        Self::BytesIn,
        Self::BytesOut,
        Self::ClockSkew,
    ];

    /// As in JSON and thresholds.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::ConnectFailed => "connect_failed",
            Self::Disconnected => "disconnected",
            Self::Dropped => "dropped",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Due => "due",
            Self::Sent => "sent",
            Self::Retried => "retried",
            Self::Acked => "acked",
            Self::AckedDuplicate => "acked_duplicate",
            Self::PublishErrors => "publish_errors",
            Self::Abandoned => "abandoned",
            Self::Received => "received",
            Self::Replayed => "replayed",
            Self::Foreign => "foreign",
            Self::OtherFrames => "other_frames",
            Self::OtherErrors => "other_errors",
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::ClockSkew => "clock_skew",
        }
    }
}

/// What is counted by its reason, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `code` of an `error` that answered a publish.
    PublishError,
    /// Why a connection ended against our will: close code and reason, or `lost`.
    Close,
    /// Why an attempt to connect failed, in a few words.
    ConnectFailure,
}

impl Reason {
    pub const COUNT: usize = 3;
}

/// How often each reason came up. Holds few: what a server says must not fill our memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// Distinct reasons; further ones count as `other`.
    pub const MOST: usize = 64;
    /// Bytes of a reason; longer ones are cut.
    pub const LONGEST: usize = 160;
    const OTHER: &str = "other";

    pub fn add(&mut self, reason: &str, by: u64) {
        let reason = &reason[..reason.floor_char_boundary(Self::LONGEST)];
        if let Some(count) = self.0.get_mut(reason) {
            *count = count.saturating_add(by);
        } else if self.0.len() < Self::MOST {
            self.0.insert(reason.to_owned(), by);
        } else {
            let other = self.0.entry(Self::OTHER.to_owned()).or_default();
            *other = other.saturating_add(by);
        }
    }

    pub fn absorb(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            self.add(reason, *count);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_map(self) -> BTreeMap<String, u64> {
        self.0
    }
}

/// Longest latency that is told apart, microseconds; longer ones count as this.
pub const MOST_US: u64 = 3_600_000_000;

/// An empty histogram of microseconds, 3 significant digits.
///
/// # Panics
/// Never: the bounds are constants that the library accepts.
#[allow(clippy::expect_used, reason = "the bounds are constants")]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MOST_US, 3).expect("1 < MOST_US, 3 digits")
}

/// What happened since the last drain.
pub struct Interval {
    pub counts: [u64; Count::ALL.len()],
    /// Values in microseconds.
    pub latencies: [Histogram<u64>; Latency::ALL.len()],
    pub reasons: [Tally; Reason::COUNT],
}

impl Interval {
    pub fn new() -> Self {
        Self {
            counts: [0; Count::ALL.len()],
            latencies: std::array::from_fn(|_| histogram()),
            reasons: std::array::from_fn(|_| Tally::default()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
            && self.latencies.iter().all(Histogram::is_empty)
            && self.reasons.iter().all(Tally::is_empty)
    }

    pub fn count(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    pub fn latency(&self, what: Latency) -> &Histogram<u64> {
        &self.latencies[what as usize]
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self::new()
    }
}

/// One thread's.
///
/// A drain hands over the histograms whole. They come zeroed from the system, so the pages nobody recorded into are
/// never touched.
#[derive(Default)]
pub struct Recorder(RefCell<Interval>);

impl Recorder {
    pub fn count(&self, what: Count, by: u64) {
        let count = &mut self.0.borrow_mut().counts[what as usize];
        *count = count.wrapping_add(by);
    }

    /// Nanoseconds, kept in microseconds, rounded up.
    pub fn took(&self, what: Latency, ns: u64) {
        self.0.borrow_mut().latencies[what as usize].saturating_record(ns.div_ceil(1000));
    }

    /// Counts a reason; the matching [`Count`] is counted by the caller.
    pub fn because(&self, of: Reason, reason: &str) {
        self.0.borrow_mut().reasons[of as usize].add(reason, 1);
    }

    /// Gives what was recorded since the last time.
    pub fn drain(&self) -> Interval {
        std::mem::take(&mut *self.0.borrow_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_variant_is_its_place_in_all() {
        assert!(Latency::ALL.iter().enumerate().all(|(index, what)| *what as usize == index));
        assert!(Count::ALL.iter().enumerate().all(|(index, what)| *what as usize == index));
    }

    #[test]
    fn names_are_those_of_json() {
        for what in Count::ALL {
            assert_eq!(serde_json::to_string(&what).unwrap(), format!("\"{}\"", what.name()));
        }
        for what in Latency::ALL {
            assert_eq!(serde_json::to_string(&what).unwrap(), format!("\"{}\"", what.name()));
        }
    }

    #[test]
    fn a_drain_gives_each_event_once() {
        let recorder = Recorder::default();
        recorder.count(Count::Sent, 2);
        recorder.took(Latency::Ack, 1_500_001);
        recorder.took(Latency::Ack, u64::MAX);
        recorder.because(Reason::Close, "1006");
        let interval = recorder.drain();
        assert_eq!(interval.count(Count::Sent), 2);
        assert_eq!(interval.latency(Latency::Ack).len(), 2);
        assert_eq!(interval.latency(Latency::Ack).min(), 1501, "rounded up, to three digits");
        assert!(interval.latency(Latency::Ack).max() >= MOST_US, "too long is kept as the longest");
        assert!(!interval.is_empty());
        assert!(recorder.drain().is_empty());
    }

    #[test]
    fn a_tally_holds_few_reasons_and_loses_no_count() {
        let mut tally = Tally::default();
        for index in 0..1000 {
            tally.add(&format!("reason {index}"), 1);
        }
        tally.add(&"ä".repeat(1000), 1);
        let map = tally.into_map();
        assert_eq!(map.len(), Tally::MOST + 1);
        assert_eq!(map.values().sum::<u64>(), 1001);
        assert!(map.keys().all(|reason| reason.len() <= Tally::LONGEST));
    }
}
