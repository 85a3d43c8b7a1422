//! A load tester for Roomcast clusters that audits every message it receives.
//!
//! main -> app -> {cli, engine} -> {client, embedded, live, scenario} -> wire -> plan -> report -> audit -> record ->
//! {clock, payload}
//!
//! A run is a [`plan::Plan`]. The engine carries it out with clients on a few threads; each tells the [`audit`] what it
//! saw and the [`record`]er how long it took; out of both comes one [`report::Report`], which is printed, written,
//! drawn, merged and held against thresholds.

pub mod app;
pub mod audit;
pub mod cli;
pub mod client;
pub mod clock;
pub mod embedded;
pub mod engine;
pub mod live;
pub mod payload;
pub mod plan;
pub mod record;
pub mod report;
pub mod scenario;
pub mod wire;

// The sample reports are compiled into the tests and into an example, and name the crate as a stranger does.
#[cfg(test)]
extern crate self as roomcast_loadtest;
