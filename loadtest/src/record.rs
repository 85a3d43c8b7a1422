//! Counts and latencies of a run while it goes on: one recorder per thread, drained once a second.
//!
//! Called by clients and pacers for every event, so recording is an array access and an increment. Knows neither
//! sockets nor reports.

use std::cell::RefCell;

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
    /// Attempts that did not.
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
    /// `error` frames that answer no publish, and frames we could not read.
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
}

impl Interval {
    pub fn new() -> Self {
        Self { counts: [0; Count::ALL.len()], latencies: std::array::from_fn(|_| histogram()) }
    }

    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0) && self.latencies.iter().all(Histogram::is_empty)
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self::new()
    }
}

/// One thread's.
#[derive(Default)]
pub struct Recorder(RefCell<Interval>);

impl Recorder {
    pub fn count(&self, what: Count, by: u64) {
        self.0.borrow_mut().counts[what as usize] += by;
    }

    /// Nanoseconds, kept in microseconds, rounded up.
    pub fn took(&self, what: Latency, ns: u64) {
        self.0.borrow_mut().latencies[what as usize].saturating_record(ns.div_ceil(1000));
    }

    /// Gives what was recorded since the last time.
    pub fn drain(&self) -> Interval {
        std::mem::take(&mut *self.0.borrow_mut())
    }
}
