//! A gateway of our own for a first look (`--self`): one node on its embedded broker, in this process. Called by app.

use std::time::Duration;

use anyhow::{Context as _, Result};
use roomcast_gateway::app::Node;
use roomcast_gateway::config::{Action, RoomPolicies, RoomPolicy, Settings};
use roomcast_gateway::lifecycle::Stage;

use crate::plan::{Plan, Target};

/// Of a publish, beside its data, with a margin.
const ENVELOPE_BYTES: usize = 4096;
/// Of the largest messages, how many may wait for one client.
const MESSAGES_IN_QUEUE: usize = 4;
/// What may wait for one client is never more than this.
const MOST_QUEUE_BYTES: usize = 1 << 30;

/// The running node.
pub struct Embedded(Node);

impl Embedded {
    /// Starts it, with limits that are out of the plan's way, and points the plan at it. Must be called on a runtime.
    pub fn start(plan: &mut Plan) -> Result<Self> {
        let mut settings = settings()?;
        suit(&mut settings, plan);
        let node = roomcast_gateway::app::start(settings)?;
        plan.targets = vec![Target::at(node.address)];
        // Its CPU and memory are this process's own, so there is nothing to scrape.
        Ok(Self(node))
    }

    /// Ends it.
    pub async fn stop(self) -> Result<()> {
        self.0.lifecycle().advance(Stage::Draining);
        self.0.finished().await
    }
}

/// Lets everything through that the plan may do.
fn suit(settings: &mut Settings, plan: &Plan) {
    let policy = RoomPolicy { mode: plan.mode, ..RoomPolicy::default() };
    settings.rooms = RoomPolicies::new([("*".to_owned(), policy)]);
    settings.max_connections = plan.clients() as usize + 16;
    settings.publish_rate = 0;
    settings.connect_rate = 0;
    // At the end there is nobody left to be spared.
    settings.drain_window = Duration::ZERO;
    let largest = plan.sizes.0.iter().map(|(size, _)| *size).max().unwrap_or(0);
    settings.max_message_bytes = settings.max_message_bytes.max(largest + ENVELOPE_BYTES);
    let queue = settings.max_message_bytes.saturating_mul(MESSAGES_IN_QUEUE);
    // The queue is a promise about slow clients; where messages are small it stays the one that a real gateway makes.
    settings.outbound_queue_bytes = settings.outbound_queue_bytes.max(queue.min(MOST_QUEUE_BYTES));
}

fn settings() -> Result<Settings> {
    let flags = ["gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--node-id", "self"];
    // No environment and no .env: what is set for a real gateway is not meant for this one.
    let nowhere = std::path::Path::new("/nonexistent");
    match Settings::load(flags.map(Into::into), [], nowhere).context("the embedded gateway's settings")? {
        Action::Run(settings) => Ok(*settings),
        _ => anyhow::bail!("the embedded gateway did not start"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Sizes;

    #[test]
    fn no_limit_of_a_gateway_is_in_the_way_of_the_plan() {
        let real = settings().expect("settings");
        for largest in [128, 60_000, 16 << 20] {
            let plan = Plan { rooms: 1000, members: 100, sizes: Sizes(vec![(128, 9), (largest, 1)]), ..Plan::sample() };
            let mut ours = settings().expect("settings");
            suit(&mut ours, &plan);
            assert_eq!((ours.connect_rate, ours.publish_rate, ours.drain_window), (0, 0, Duration::ZERO));
            assert!(ours.max_connections > 100_000 && ours.max_connections_per_address == 0);
            assert!(ours.max_message_bytes > largest + 256 && ours.max_message_bytes >= real.max_message_bytes);
            assert!(ours.outbound_queue_bytes >= 3 * largest + real.max_message_bytes);
        }
    }
}
