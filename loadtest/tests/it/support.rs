//! What the tests stand on: gateways, Redis, runs of the load tester. Knows the report's form, nothing else of the code.

mod gateway;
mod network;
#[path = "../../../gateway/tests/it/support/ports.rs"]
mod ports;
#[path = "../../../gateway/tests/it/support/proxy.rs"]
#[allow(dead_code, reason = "the gateway's tests, whose it is, need more of it")]
mod proxy;
mod redis;
mod run;
mod watched;

use std::{future::Future, time::Duration};

pub use gateway::{Gateway, cluster};
pub use network::{in_a_lossy_network, sent_again};
pub use proxy::{Network, Proxy};
pub use redis::Redis;
pub use run::{Loadtest, Outcome, Running, argument};
pub use watched::Watched;

/// How long anything may take before a test gives up. Generous: a loaded two-core machine must not fail a test.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// A number that a longer run sets in the environment; `make test-faults` does.
pub fn setting(name: &str, short: u64) -> u64 {
    std::env::var(name).map_or(short, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

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
