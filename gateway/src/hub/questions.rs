//! Questions about a room that its broker answers: stored messages, and who is there.

use std::rc::Rc;

use roomcast_protocol::{RoomName, history_frame, member_list, members_frame, message_list};

use super::joining::message_json;
use super::mail::{Address, Mail, Question};
use super::posting::Refused;
use super::shard::{Shard, text_frame};
use crate::broker::{BrokerError, History, Member, Range};

/// Entries of a page when the client names no limit.
pub const PAGE: usize = 50;
/// Most entries of a page.
pub const LONGEST_PAGE: usize = 200;

impl Shard {
    pub(super) fn take_question(
        self: &Rc<Self>,
        room: RoomName,
        from: Address,
        reference: Option<Box<str>>,
        question: Question,
    ) {
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let frame = match shard.answer(&room, reference.as_deref(), question).await {
                Ok(json) => text_frame(&json),
                Err(Refused { code, words }) => shard.error(reference.as_deref(), code, words),
            };
            shard.send(from.worker, Mail::Answer { to: from, frame });
        });
    }

    async fn answer(&self, room: &RoomName, reference: Option<&str>, question: Question) -> Result<Vec<u8>, Refused> {
        match question {
            Question::Members { cursor, limit } => {
                let page = self.members_of(room, cursor.as_deref(), limit).await?;
                // Any member fits: settings allow no queue so short that half of it would be too little.
                let (list, fit) = member_list(page.members.iter().map(Member::fields), self.replay_bytes());
                let cut = page.members.get(fit).and(page.members[..fit].last()).map(|last| last.id.to_string());
                Ok(members_frame(reference, room, &list, page.online, cut.or(page.next).as_deref()))
            }
            Question::History { before, after, limit } => {
                let range = match (before, after) {
                    (_, Some(seq)) => Range::After { seq, limit },
                    (Some(seq), None) => Range::Before { seq, limit },
                    (None, None) => Range::Latest { limit },
                };
                let history = self.history_of(room, range).await?;
                let (list, next) = history_page(room, &history, after.is_some(), self.replay_bytes());
                Ok(history_frame(reference, room, &list, next))
            }
        }
    }

    /// A part of a room's stream. Reading on behind what is gone begins with the first that is left: who gets nothing
    /// would take it for the end.
    pub(super) async fn read_on(&self, room: &RoomName, range: Range) -> Result<History, BrokerError> {
        let history = self.read(room, range).await?;
        match range {
            Range::After { seq, limit } if history.messages.is_empty() && history.first > seq + 1 => {
                self.read(room, Range::After { seq: history.first - 1, limit }).await
            }
            _ => Ok(history),
        }
    }
}

/// A JSON list of messages that takes `most_bytes` at most, but for one message that is longer by itself, and where the
/// next page begins. What does not fit is left for that, so `next` follows what is really there.
pub fn history_page(room: &RoomName, history: &History, forward: bool, most_bytes: usize) -> (Vec<u8>, Option<u64>) {
    let all: Vec<(u64, Vec<u8>)> =
        history.messages.iter().map(|message| (message.seq, message_json(room, message))).collect();
    let mut bytes = 0;
    let mut fits = |(_, json): &&(u64, Vec<u8>)| {
        bytes += json.len() + 1;
        bytes <= most_bytes.max(json.len() + 1)
    };
    let kept = if forward {
        &all[..all.iter().take_while(&mut fits).count()]
    } else {
        &all[all.len() - all.iter().rev().take_while(&mut fits).count()..]
    };
    let next = match (kept.first(), kept.last()) {
        (_, Some((last, _))) if forward && *last < history.top => Some(*last),
        (Some((first, _)), _) if !forward && *first > history.first => Some(*first),
        _ => None,
    };
    (message_list(kept.iter().map(|(_, json)| json.as_slice())), next)
}
