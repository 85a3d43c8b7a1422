//! What the node tells about itself: metrics, logs, traces. Used by every floor above; must not know their types.

mod access_metrics;
mod activity;
mod ages;
mod api_metrics;
mod cluster_metrics;
mod export;
mod limit_metrics;
pub mod logs;
pub mod metrics;
mod process;
mod register;
pub mod trace;
mod webhook_metrics;
mod worker_metrics;

#[cfg(test)]
mod metrics_tests;
#[cfg(test)]
mod trace_tests;
