//! The wire protocol, sentence by sentence, on one node: each scenario once in memory and once on Redis.

mod closing;
mod errors;
mod history;
mod ids;
mod joining;
mod naming;
mod presence;
mod publishing;
mod recovery;

use crate::support::{Node, Redis};

/// Where a scenario's node keeps its rooms.
pub enum Site {
    Memory,
    Redis(Box<Redis>),
}

impl Site {
    pub async fn node(&self, args: &[&str]) -> Node {
        self.node_with(args, "").await
    }

    pub async fn node_with(&self, args: &[&str], toml: &str) -> Node {
        match self {
            Self::Memory => Node::start_with(args, toml).await,
            Self::Redis(redis) => {
                let url = redis.url();
                let mut all = vec!["--redis", url.as_str()];
                all.extend(args);
                Node::start_with(&all, toml).await
            }
        }
    }
}

/// Makes two tests of every scenario: PROTOCOL knows no difference between the brokers.
macro_rules! on_both_brokers {
    ($($scenario:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $scenario() { super::$scenario($crate::protocol::Site::Memory).await; })+
        }
        mod redis {
            $(#[tokio::test] async fn $scenario() {
                super::$scenario($crate::protocol::Site::Redis(Box::new($crate::support::Redis::start().await))).await;
            })+
        }
    };
}
pub(crate) use on_both_brokers;
