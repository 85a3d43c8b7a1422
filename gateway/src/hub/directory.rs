//! What those who have no session ask: about the cluster as a whole, and about rooms that need not be open here.
//!
//! The server calls it, on any worker, and members' questions end here, too. All of it goes to the broker and nothing is
//! kept. It must not know who may ask.

use roomcast_protocol::{ClientId, ErrorCode, RoomName};

use super::posting::Refused;
use super::shard::Shard;
use crate::broker::{BrokerError, History, Member, MembersPage, NodeReport, Range, RoomsPage, RoomsQuestion};

impl Shard {
    /// Stored messages of a room. Few reads at a time, as for sessions.
    ///
    /// # Errors
    /// [`Refused`] when the broker does not answer.
    pub async fn history_of(&self, room: &RoomName, range: Range) -> Result<History, Refused> {
        Ok(self.read_on(room, range).await?)
    }

    /// A page of the members of a room, ordered by id. `cursor` is the `next` of the page before.
    ///
    /// # Errors
    /// [`ErrorCode::BadFrame`] for a cursor that is none.
    pub async fn members_of(
        &self,
        room: &RoomName,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<MembersPage, Refused> {
        self.parts.broker.members(room, cursor, limit).await.map_err(|error| match error {
            BrokerError::Rejected(_) if cursor.is_some() => {
                Refused { code: ErrorCode::BadFrame, words: "`cursor` is not the `next` of a page" }
            }
            error => error.into(),
        })
    }

    /// One member of a room, if it is there. One small read.
    ///
    /// # Errors
    /// [`Refused`] when the broker does not answer.
    pub async fn member_of(&self, room: &RoomName, client: ClientId) -> Result<Option<Member>, Refused> {
        Ok(self.parts.broker.member(room, client).await?)
    }

    /// A page of the cluster's rooms that someone is in, in the order of their names, with the members over all nodes.
    ///
    /// # Errors
    /// [`Refused`] when the broker, or the server of one of the rooms, does not answer.
    pub async fn rooms_page(&self, question: RoomsQuestion<'_>) -> Result<RoomsPage, Refused> {
        Ok(self.parts.broker.rooms(question).await?)
    }

    /// The nodes that live, as of their last beats.
    ///
    /// # Errors
    /// [`Refused`] when the broker does not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeReport>, Refused> {
        Ok(self.parts.broker.nodes().await?)
    }
}
