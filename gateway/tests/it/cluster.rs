//! Several nodes on one Redis: rooms span them, order is one, nothing is lost and nothing comes twice.

mod absence;
mod churn;
mod identity;
mod leases;
mod links;
mod orders;
mod outage;
mod restored;
mod retries;
mod spread;
mod sweep;
mod topology;

use crate::support::{Node, Redis};

/// `count` nodes on `redis`, with `args`.
async fn nodes(redis: &Redis, count: usize, args: &[&str]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(Node::join(redis, &format!("n-{number}"), args).await);
    }
    nodes
}
