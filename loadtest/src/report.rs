//! What a run amounted to: data ([`Report`]), sums over processes, words, a page, thresholds.
//!
//! Called by the engine, which fills it through a [`Collector`], and by `loadtest merge`. Knows neither sockets nor
//! threads.

mod collect;
mod events;
mod figure;
mod file;
mod histogram;
mod html;
mod merge;
mod model;
pub mod plot;
mod recent;
#[cfg(test)]
pub mod sample;
mod samples;
mod series;
mod summary;
mod threshold;
mod verdict;
pub mod words;

pub use collect::Collector;
pub use file::{parse, read, write};
pub use histogram::Damaged;
pub use html::render;
pub use merge::{merge, merge_partial};
pub use model::*;
pub use recent::{Live, Percentiles};
pub use summary::{audit_summary, summary};
pub use threshold::{BadThreshold, Near, Threshold};
