//! Orders over Redis: one channel on the cluster's own slot that a worker of each node subscribes to, and a hash for the
//! answers to each order, which expires. Used by the broker.

use ::redis::{Cmd, cmd};
use async_trait::async_trait;
use roomcast_protocol::NodeId;

use super::RedisBroker;
use super::subscription::Topic;
use super::topology::WHOLE;
use crate::broker::orders::ANSWERS_STAY;
use crate::broker::stats::Command;
use crate::broker::{Answer, BrokerError, Order, OrderId, Orders};

#[async_trait(?Send)]
impl Orders for RedisBroker {
    async fn listen(&self) -> Result<(), BrokerError> {
        self.counted(Command::Listen, self.topology.subscribe(&Topic::Orders)).await
    }

    async fn order(&self, order: &Order) -> Result<(), BrokerError> {
        let send = async {
            let text = order.encode()?;
            let mut command = cmd(self.publish);
            command.arg(self.keys.orders()).arg(&text);
            self.topology.query::<i64>(WHOLE, command, text.len()).await.map(|_| ())
        };
        self.counted(Command::Order, send).await
    }

    async fn answer(&self, order: OrderId, answer: Answer) -> Result<(), BrokerError> {
        let fill = |command: &mut Cmd| {
            command.arg(1).arg(answers_key(self, order)).arg(self.node.as_str()).arg(answer.encode());
            command.arg(ANSWERS_STAY.as_millis() as u64);
        };
        let keep = self.topology.script::<i64>(WHOLE, &self.scripts.answer, 256, fill);
        self.counted(Command::Answer, keep).await.map(|_| ())
    }

    async fn answers(&self, order: OrderId) -> Result<Vec<(NodeId, Answer)>, BrokerError> {
        let mut command = cmd("HGETALL");
        command.arg(answers_key(self, order));
        let read = self.topology.query::<Vec<(Vec<u8>, Vec<u8>)>>(WHOLE, command, 64);
        let answers = self.counted(Command::Answers, read).await?;
        // What is not ours is left out.
        let answer = |(node, answer): (Vec<u8>, Vec<u8>)| {
            let node = NodeId::new(std::str::from_utf8(&node).ok()?).ok()?;
            Some((node, Answer::decode(std::str::from_utf8(&answer).ok()?)?))
        };
        Ok(answers.into_iter().filter_map(answer).collect())
    }
}

fn answers_key(broker: &RedisBroker, order: OrderId) -> String {
    broker.keys.shared(&format!("answers:{order}"))
}
