//! The memory broker's answers about the cluster, which is one node.

use std::time::Instant;

use async_trait::async_trait;
use roomcast_protocol::{ClientId, RoomName};

use super::MemoryBroker;
use crate::broker::stats::Command;
use crate::broker::{BrokerError, Directory, MAX_PAGE, Member, NodeReport, RoomsPage, RoomsQuestion};

#[async_trait(?Send)]
impl Directory for MemoryBroker {
    async fn member(&self, room: &RoomName, client: ClientId) -> Result<Option<Member>, BrokerError> {
        self.counted(Command::Member, || Ok(self.store.with(room, |state| state.member(client))))
    }

    async fn rooms(&self, question: RoomsQuestion<'_>) -> Result<RoomsPage, BrokerError> {
        self.counted(Command::Rooms, || Ok(self.page_of_rooms(question)))
    }

    async fn nodes(&self) -> Result<Vec<NodeReport>, BrokerError> {
        self.counted(Command::Nodes, || {
            let mut nodes = self.store.leases().nodes(Instant::now());
            nodes.sort_by(|one, other| one.node.cmp(&other.node));
            Ok(nodes)
        })
    }
}

impl MemoryBroker {
    fn page_of_rooms(&self, question: RoomsQuestion<'_>) -> RoomsPage {
        let limit = question.limit.clamp(1, MAX_PAGE);
        let mut page = RoomsPage::default();
        loop {
            let left = limit - page.rooms.len();
            let (names, more) = self.store.leases().rooms(question, page.next.as_ref(), left);
            page.next = names.last().cloned().filter(|_| more);
            for name in names {
                let online = self.store.with(&name, |room| room.members.len() as u64);
                if online > 0 {
                    page.rooms.push((name, online));
                }
            }
            if page.next.is_none() || page.rooms.len() >= limit {
                return page;
            }
        }
    }
}
