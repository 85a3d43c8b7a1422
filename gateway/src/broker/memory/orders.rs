//! Orders within one process: everyone who listens is told, and the answers lie on a board for a while.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use roomcast_protocol::NodeId;

use super::{MemoryBroker, Peer, Store};
use crate::broker::orders::ANSWERS_STAY;
use crate::broker::stats::Command;
use crate::broker::{Answer, BrokerError, Event, Order, OrderId, Orders};

#[derive(Default)]
pub(super) struct Board {
    listeners: Vec<Arc<Peer>>,
    answers: HashMap<OrderId, Answers>,
}

struct Answers {
    given: Vec<(NodeId, Answer)>,
    expires: Instant,
}

impl Board {
    pub(super) fn leave(&mut self, peer: &Arc<Peer>) {
        self.listeners.retain(|listener| !Arc::ptr_eq(listener, peer));
    }
}

impl Store {
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait(?Send)]
impl Orders for MemoryBroker {
    async fn listen(&self) -> Result<(), BrokerError> {
        self.counted(Command::Listen, || {
            let mut board = self.store.board();
            board.leave(&self.peer);
            board.listeners.push(Arc::clone(&self.peer));
            Ok(())
        })
    }

    async fn order(&self, order: &Order) -> Result<(), BrokerError> {
        self.counted(Command::Order, || {
            // The same bounds as over Redis.
            order.encode()?;
            self.store.board().listeners.iter().for_each(|peer| peer.send(Event::Order(order.clone())));
            Ok(())
        })
    }

    async fn answer(&self, order: OrderId, answer: Answer) -> Result<(), BrokerError> {
        self.counted(Command::Answer, || {
            let (now, node) = (Instant::now(), &self.peer.node);
            let mut board = self.store.board();
            board.answers.retain(|_, answers| answers.expires > now);
            let answers = board.answers.entry(order).or_insert_with(|| Answers { given: Vec::new(), expires: now });
            answers.expires = now + ANSWERS_STAY;
            answers.given.retain(|(given, _)| given != node);
            answers.given.push((node.clone(), answer));
            Ok(())
        })
    }

    async fn answers(&self, order: OrderId) -> Result<Vec<(NodeId, Answer)>, BrokerError> {
        self.counted(Command::Answers, || {
            let now = Instant::now();
            let board = self.store.board();
            let answers = board.answers.get(&order).filter(|answers| answers.expires > now);
            Ok(answers.map(|answers| answers.given.clone()).unwrap_or_default())
        })
    }
}
