//! What the node tells about itself: metrics, logs, traces. Used by every floor above; must not know their types.

pub mod logs;
pub mod metrics;
mod register;
mod worker_metrics;
