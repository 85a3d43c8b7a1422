//! Questions about the cluster as a whole: its rooms, its nodes, one member. Used by the broker.

use std::collections::{BTreeSet, HashMap};

use ::redis::{Cmd, Value, cmd, pipe};
use async_trait::async_trait;
use roomcast_protocol::{ClientId, RoomName};

use super::presence::read_members;
use super::script::foreign;
use super::topology::WHOLE;
use super::{RedisBroker, many};
use crate::broker::stats::Command;
use crate::broker::{
    BrokerError, Directory, Incarnation, MAX_PAGE, MAX_TOPS, Member, NodeReport, RoomsPage, RoomsQuestion,
};

/// Names that one call of the script looks at, over all nodes: about a millisecond of a Redis that others wait for (1,024
/// took 2 ms on a busy machine of two cores).
const NAMES_AT_ONCE: usize = 512;
/// Names of one node that it looks at, at least.
const NAMES_OF_ONE: usize = 8;
/// Calls of the script for one page, at most: rooms that were left a moment ago are still named, and not counted.
const MOST_LOOKS: usize = 16;

#[async_trait(?Send)]
impl Directory for RedisBroker {
    async fn member(&self, room: &RoomName, client: ClientId) -> Result<Option<Member>, BrokerError> {
        self.counted(Command::Member, member(self, room, client)).await
    }

    async fn rooms(&self, question: RoomsQuestion<'_>) -> Result<RoomsPage, BrokerError> {
        self.counted(Command::Rooms, rooms(self, question)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeReport>, BrokerError> {
        self.counted(Command::Nodes, nodes(self)).await
    }
}

async fn member(broker: &RedisBroker, room: &RoomName, client: ClientId) -> Result<Option<Member>, BrokerError> {
    let mut command = cmd("ZRANGEBYLEX");
    // Between the id with the ' ' that ends it, and the next character.
    command.arg(broker.keys.key(room, ":p")).arg(format!("[{client} ")).arg(format!("({client}!"));
    command.arg("LIMIT").arg(0).arg(1);
    let entries: Vec<Value> = broker.topology.query(room.as_str(), command, 128).await?;
    Ok(read_members(&entries).pop())
}

async fn rooms(broker: &RedisBroker, question: RoomsQuestion<'_>) -> Result<RoomsPage, BrokerError> {
    let limit = question.limit.clamp(1, MAX_PAGE);
    // '~' is the last character of names.
    let to = question.prefix.map_or_else(|| b"+".to_vec(), |prefix| format!("({prefix}\x7f").into_bytes());
    let mut from = match (question.after, question.prefix) {
        (Some(after), prefix) if prefix.is_none_or(|prefix| after >= prefix) => format!("({after}").into_bytes(),
        (_, Some(prefix)) => format!("[{prefix}").into_bytes(),
        _ => b"-".to_vec(),
    };
    let mut page = RoomsPage::default();
    for _ in 0..MOST_LOOKS {
        let look = look(broker, &from, &to).await?;
        let is_last = look.end.is_none();
        if page.add(broker, look.names, limit, is_last).await? {
            return Ok(page);
        }
        let Some(end) = look.end else {
            page.next = None;
            return Ok(page);
        };
        from = [b"(", &*end].concat();
    }
    if page.next.is_none() {
        return Err(BrokerError::Rejected("what stands among the rooms is not ours".into()));
    }
    Ok(page)
}

/// A stretch of the rooms' names, whole over all nodes.
struct Look {
    /// Those that are ours.
    names: BTreeSet<RoomName>,
    /// Up to where; none if there is nothing behind it.
    end: Option<Vec<u8>>,
}

async fn look(broker: &RedisBroker, from: &[u8], to: &[u8]) -> Result<Look, BrokerError> {
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(broker.keys.shared("leases")).arg(broker.keys.shared("rooms:"));
        command.arg(from).arg(to).arg(NAMES_AT_ONCE).arg(NAMES_OF_ONE);
    };
    let reply: Vec<Value> = broker.topology.script(WHOLE, &broker.scripts.rooms, 512, fill).await?;
    read_look(reply).ok_or_else(|| foreign("rooms"))
}

/// What a node named is whole up to its last name if it named as many as it might; so all are up to the first of these.
fn read_look(reply: Vec<Value>) -> Option<Look> {
    let mut values = reply.into_iter();
    let Some(Value::Int(most)) = values.next() else { return None };
    let most = usize::try_from(most).ok()?;
    let (mut all, mut end) = (Vec::new(), None::<Vec<u8>>);
    while let Some(count) = values.next() {
        let Value::Int(count) = count else { return None };
        let count = usize::try_from(count).ok().filter(|count| (1..=values.len()).contains(count))?;
        for at in 1..=count {
            let Some(Value::BulkString(name)) = values.next() else { return None };
            if at == most && end.as_ref().is_none_or(|end| name < *end) {
                end = Some(name.clone());
            }
            all.push(name);
        }
    }
    let known = |name: &Vec<u8>| end.as_ref().is_none_or(|end| name <= end);
    let room = |name: Vec<u8>| RoomName::new(std::str::from_utf8(&name).ok()?).ok();
    Some(Look { names: all.into_iter().filter(known).filter_map(room).collect(), end })
}

impl RoomsPage {
    /// Adds those that someone is in. True when the page is full; `next` is then set as it must be.
    async fn add(
        &mut self,
        broker: &RedisBroker,
        names: BTreeSet<RoomName>,
        limit: usize,
        are_last: bool,
    ) -> Result<bool, BrokerError> {
        let names: Vec<RoomName> = names.into_iter().collect();
        let mut rest = &names[..];
        while !rest.is_empty() {
            let (some, behind) = rest.split_at(rest.len().min(limit - self.rooms.len()).min(MAX_TOPS));
            let counts = many::ask::<u64>(broker, some, |room| question(broker, room)).await;
            for (room, count) in some.iter().zip(counts) {
                match count {
                    Ok(0) | Err(BrokerError::Rejected(_)) => {}
                    Ok(online) => self.rooms.push((room.clone(), online)),
                    Err(error) => return Err(error),
                }
            }
            self.next = some.last().cloned();
            rest = behind;
            if self.rooms.len() >= limit {
                if are_last && rest.is_empty() {
                    self.next = None;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn question(broker: &RedisBroker, room: &RoomName) -> Cmd {
    cmd("ZCARD").arg(broker.keys.key(room, ":p")).clone()
}

/// Seconds and µs; lives with when they run out; lives with their notes.
type NodesAnswer = ((u64, u64), Vec<(Vec<u8>, f64)>, Vec<(Vec<u8>, Vec<u8>)>);

async fn nodes(broker: &RedisBroker) -> Result<Vec<NodeReport>, BrokerError> {
    let mut all = pipe();
    all.add_command(cmd("TIME"));
    all.add_command(cmd("ZRANGE").arg(broker.keys.shared("leases")).arg(0).arg(-1).arg("WITHSCORES").clone());
    all.add_command(cmd("HGETALL").arg(broker.keys.shared("nodes")).clone());
    let ((seconds, micros), leases, told): NodesAnswer = broker.topology.query_all(WHOLE, all).await?;
    let now = (seconds * 1000 + micros / 1000) as f64;
    let leases: HashMap<_, _> = leases.into_iter().collect();
    let report = |(life, note): (Vec<u8>, Vec<u8>)| {
        leases.get(&life).filter(|until| **until > now)?;
        let (life, note) = (std::str::from_utf8(&life).ok()?, std::str::from_utf8(&note).ok()?);
        NodeReport::parse(Incarnation::parse(life)?, note)
    };
    let mut nodes: Vec<NodeReport> = told.into_iter().filter_map(report).collect();
    nodes.sort_by(|one, other| (&one.node, one.incarnation.as_str()).cmp(&(&other.node, other.incarnation.as_str())));
    Ok(nodes)
}
