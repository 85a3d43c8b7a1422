//! Ends a node that nobody has needed for a while, as a signal would. Started by the parent if `idle-exit` is set; all it
//! knows are the node's counts: nothing on the way of a message is touched for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::lifecycle::{Lifecycle, Stage};
use crate::server::Admission;
use crate::telemetry::metrics::Metrics;

/// Looks at the counts in the time that a node may be idle.
const LOOKS: u32 = 20;
/// Between two looks.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
/// Workers add what they counted to the node's counts four times a second: a message may be seen that much later.
const UNSEEN: Duration = Duration::from_millis(500);

/// Returns once the node is on its way out, by whatever reason.
///
/// Busy is a node with a connection, or one that had a connection or a message since the last look. Requests over HTTP
/// and workers that start only put the end off until they are done: a probe that comes every second must not keep
/// a node for ever.
pub(super) async fn watch(limit: Duration, metrics: Arc<Metrics>, lifecycle: Lifecycle, admission: Arc<Admission>) {
    let look = (limit / LOOKS).clamp(SHORTEST_LOOK, LONGEST_LOOK);
    let mut served = false;
    let (mut counts, mut since) = (0, Instant::now());
    loop {
        sleep(look).await;
        if lifecycle.stage() >= Stage::Leaving {
            return;
        }
        let now = metrics.activity();
        // The first time that nobody starts any more is when the node begins to serve.
        let begins = !served && admission.visits() == 0;
        if begins || admission.connections() > 0 || now != counts {
            served |= begins;
            (counts, since) = (now, Instant::now());
            continue;
        }
        let is_over = served && since.elapsed() >= limit + UNSEEN && admission.visits() == 0;
        // From here on nobody gets in, so there is nobody for whom `drain-delay` would be.
        if is_over && admission.close_if_empty() {
            let limit = humantime::format_duration(limit).to_string();
            tracing::info!(%limit, "idle: no connection and no message for that long, so this node ends");
            lifecycle.advance(Stage::Leaving);
            lifecycle.advance(Stage::Draining);
            return;
        }
    }
}
