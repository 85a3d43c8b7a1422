//! A gateway of our own for a first look (`--self`): one node on its embedded broker, in this process. Called by app.

use anyhow::{Context as _, Result};
use roomcast_gateway::app::Node;
use roomcast_gateway::config::{Action, RoomPolicies, RoomPolicy, Settings};
use roomcast_gateway::lifecycle::Stage;

use crate::plan::{Plan, Target};

/// The running node.
pub struct Embedded(Node);

impl Embedded {
    /// Starts it, with limits that are out of the plan's way, and points the plan at it. Must be called on a runtime.
    pub fn start(plan: &mut Plan) -> Result<Self> {
        let mut settings = settings()?;
        let policy = RoomPolicy { mode: plan.mode, ..RoomPolicy::default() };
        settings.rooms = RoomPolicies::new([("*".to_owned(), policy)]);
        settings.max_connections = plan.clients() as usize + 16;
        settings.publish_rate = 0;
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

fn settings() -> Result<Settings> {
    let flags = ["gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--node-id", "self"];
    // No environment and no .env: what is set for a real gateway is not meant for this one.
    let nowhere = std::path::Path::new("/nonexistent");
    match Settings::load(flags.map(Into::into), [], nowhere).context("the embedded gateway's settings")? {
        Action::Run(settings) => Ok(*settings),
        _ => anyhow::bail!("the embedded gateway did not start"),
    }
}
