//! What the tests stand on: processes, a client, raw HTTP. Knows nothing of the gateway's code.

mod api;
mod client;
mod http;
mod node;
mod ports;
mod proxy;
mod receiver;
mod redis;

use std::{future::Future, time::Duration};

pub use api::{ADMIN, ALL, Answer, Backend, READER, WRITER, api_node, keys};
pub use client::{Client, Frame, assert_error, seqs};
pub use http::{Raw, Response, get, request, upgrade};
pub use node::{Node, binary};
pub use proxy::{Links, Network, Proxy};
pub use receiver::{Receiver, Reply, SECRET, until_logged};
pub use redis::Redis;

/// How long anything may take before a test gives up. Generous: a loaded two-core machine must not fail a test.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Waits for `future`, and fails with `what` when the deadline passes.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    // Boxed: futures in futures would outgrow a test thread's stack.
    match tokio::time::timeout(DEADLINE, Box::pin(future)).await {
        Ok(value) => value,
        Err(tokio::time::error::Elapsed { .. }) => panic!("deadline of {DEADLINE:?} passed, waiting for {what}"),
    }
}

/// Asks again until `probe` yields a value. The probe does I/O, so the loop never spins hot for long.
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

/// A room name nobody else uses, so that tests can share a node or a Redis.
pub fn room() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
