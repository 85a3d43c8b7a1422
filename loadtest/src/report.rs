//! What a run amounted to: data ([`Report`]), sums over processes, words, a page, thresholds.
//!
//! Called by the engine, which fills it, and by `loadtest merge`. Knows neither sockets nor threads.

mod model;

pub use model::*;

/// One condition the run must meet, such as `delivery.p99<50ms`.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// As written.
    pub text: String,
}
