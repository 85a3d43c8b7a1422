//! Fetches published keys: at start, and again and again. Never for a token: what a token says before it is checked
//! makes the node ask nobody.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Access;
use super::issuer::Published;
use super::key::Key;
use crate::outbound::{Call, Outbound};

/// Longest key set, in bytes.
const MAX_SET_BYTES: usize = 256 * 1024;
/// Time for one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after the first failure; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);

impl Access {
    /// Whether there are keys to be fetched.
    pub fn has_published_keys(&self) -> bool {
        self.issuers.iter().any(|issuer| issuer.published.is_some())
    }

    /// Fetches all published keys once: where each set is, and how many of its keys are usable or why there is none.
    pub async fn try_keys(&self, outbound: &Outbound) -> Vec<(String, Result<usize, String>)> {
        let mut found = Vec::new();
        for published in self.issuers.iter().filter_map(|issuer| issuer.published.as_ref()) {
            found.push((published.url.to_string(), fetch(published, outbound).await.map(|keys| keys.len())));
        }
        found
    }

    /// Fetches all published keys now, and then every `refresh`, for ever.
    pub async fn keep_keys(self: Arc<Self>, outbound: Outbound, refresh: Duration) {
        let mut tasks = JoinSet::new();
        for index in 0..self.issuers.len() {
            let (access, outbound) = (Arc::clone(&self), outbound.clone());
            tasks.spawn(async move { access.keep_keys_of(index, &outbound, refresh).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn keep_keys_of(&self, index: usize, outbound: &Outbound, refresh: Duration) {
        let Some(published) = &self.issuers[index].published else { return };
        let meter = self.metrics.as_ref().map(|metrics| metrics.access.keys_of(index + 1));
        let mut failures = 0;
        loop {
            match fetch(published, outbound).await {
                Ok(keys) => {
                    if failures > 0 {
                        tracing::info!(url = %published.url, keys = keys.len(), "published keys are back");
                    }
                    if let Some(meter) = &meter {
                        meter.fetched(keys.len());
                    }
                    published.set(keys);
                    failures = 0;
                }
                Err(problem) => {
                    failures += 1;
                    if let Some(meter) = &meter {
                        meter.failed();
                    }
                    tracing::warn!(
                        url = %published.url, %problem, failures,
                        "published keys cannot be fetched; those there are go on being used"
                    );
                }
            }
            tokio::time::sleep(pause(failures, refresh)).await;
        }
    }
}

/// Until the next fetch: a tenth more or less than `refresh`, or what a failure asks for, so that nodes that started
/// together do not ask together.
fn pause(failures: u32, refresh: Duration) -> Duration {
    if failures == 0 {
        return refresh.mul_f64(rand::random_range(0.9..1.1));
    }
    let longest = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(refresh.max(FIRST_RETRY));
    longest.mul_f64(rand::random_range(0.5..1.0))
}

async fn fetch(published: &Published, outbound: &Outbound) -> Result<Vec<Key>, String> {
    let call = Call {
        url: published.url.as_str(),
        headers: &[("accept", "application/jwk-set+json, application/json")],
        body: None,
        timeout: FETCH_TIMEOUT,
        longest_answer: MAX_SET_BYTES,
    };
    let answer = outbound.call(call).await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    Key::set(&answer.body).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_failures_up_to_the_usual_one() {
        let refresh = Duration::from_mins(5);
        for _ in 0..100 {
            assert!((270..=330).contains(&pause(0, refresh).as_secs()));
            assert!(pause(1, refresh) <= Duration::from_secs(1) && pause(1, refresh) >= Duration::from_millis(500));
            assert!(pause(4, refresh) <= Duration::from_secs(8) && pause(4, refresh) >= Duration::from_secs(4));
            assert!(pause(u32::MAX, refresh) <= refresh && pause(40, refresh) >= refresh / 2);
            assert!(pause(9, Duration::from_millis(10)) <= Duration::from_secs(1));
        }
    }
}
