//! What the tests stand on: gateways, Redis, runs of the load tester. Knows the report's form, nothing else of the code.

mod gateway;
mod redis;
mod run;

use std::{future::Future, time::Duration};

pub use gateway::{Gateway, cluster};
pub use redis::Redis;
pub use run::{Loadtest, Outcome, argument};

/// How long anything may take before a test gives up. Generous: a loaded two-core machine must not fail a test.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// Waits for `future`, and fails with `what` when the deadline passes.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, Box::pin(future)).await {
        Ok(value) => value,
        Err(tokio::time::error::Elapsed { .. }) => panic!("deadline of {DEADLINE:?} passed, waiting for {what}"),
    }
}

/// Asks again until `probe` yields a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    within(what, async {
        loop {
            pause.tick().await;
            if let Some(value) = probe().await {
                return value;
            }
        }
    })
    .await
}
