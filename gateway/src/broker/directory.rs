//! What is known of the cluster as a whole: which nodes live, which rooms have someone in them, who one member is.
//!
//! Used by the hub for those who ask from outside, and by every broker. Knows neither how notes are kept nor who may ask.

use std::sync::Arc;

use async_trait::async_trait;
use roomcast_protocol::{ClientId, NodeId, RoomName};

use super::{BrokerError, Incarnation, Member};

/// Longest version that a note holds, in bytes.
const MAX_VERSION_BYTES: usize = 32;

/// Questions about the cluster. Part of [`super::Broker`], under its rules.
#[async_trait(?Send)]
pub trait Directory {
    /// One member of a room, if it is there.
    async fn member(&self, room: &RoomName, client: ClientId) -> Result<Option<Member>, BrokerError>;

    /// A page of the rooms that someone is in, in the order of their names. A room that stays is listed exactly once over
    /// all pages, whatever else comes and goes.
    async fn rooms(&self, question: RoomsQuestion<'_>) -> Result<RoomsPage, BrokerError>;

    /// The nodes whose lease runs, in the order of their ids: what each said with its last beat. A node that died is among
    /// them until its lease has run out.
    async fn nodes(&self) -> Result<Vec<NodeReport>, BrokerError>;
}

/// Which rooms.
#[derive(Debug, Clone, Copy)]
pub struct RoomsQuestion<'a> {
    /// The `next` of the page before.
    pub after: Option<&'a RoomName>,
    /// What their names begin with.
    pub prefix: Option<&'a RoomName>,
    /// At most so many, and at most [`super::MAX_PAGE`].
    pub limit: usize,
}

/// Some of the rooms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomsPage {
    /// Each with its members over all nodes, never none.
    pub rooms: Vec<(RoomName, u64)>,
    /// Where to go on; none after the last. A page may be shorter than asked for and still have one.
    pub next: Option<RoomName>,
}

impl RoomsQuestion<'_> {
    /// Whether a name is one of those asked for.
    pub(super) fn is_about(&self, name: &RoomName) -> bool {
        self.after.is_none_or(|after| name > after)
            && self.prefix.is_none_or(|prefix| name.as_str().starts_with(prefix.as_str()))
    }
}

/// What a node says of itself with every beat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeNote<'a> {
    /// Which. An incarnation may hold only the beginning of its id.
    pub node: &'a NodeId,
    /// Clients' connections.
    pub connections: u64,
    /// Rooms with members there.
    pub rooms: u64,
    /// Clients' connections it takes at most.
    pub max_connections: u64,
    /// Share of the time since the last beat that its busiest worker was busy, 0 to 1.
    pub load: f64,
    /// Of the program.
    pub version: &'a str,
}

/// A node, as others know it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeReport {
    /// Which.
    pub node: NodeId,
    /// The life that its members have.
    pub incarnation: Incarnation,
    /// Clients' connections.
    pub connections: u64,
    /// Rooms with members there.
    pub rooms: u64,
    /// Clients' connections it takes at most; none if its version does not say.
    pub max_connections: Option<u64>,
    /// As in [`NodeNote::load`]; none if its version does not say.
    pub load: Option<f64>,
    /// Of the program; none if it does not say.
    pub version: Option<Arc<str>>,
}

impl NodeNote<'_> {
    /// What follows the number of the beat and the connections: `<rooms> <most connections> <load in thousandths> <node>
    /// <version>`. More words may follow one day.
    pub(super) fn tail(&self) -> String {
        let load = (self.load.clamp(0.0, 1.0) * 1000.0).round();
        let version = Some(self.version).filter(|version| is_version(version)).unwrap_or("-");
        format!("{} {} {load} {} {version}", self.rooms, self.max_connections, self.node)
    }

    /// As others read it from a store that is nobody else's.
    pub(super) fn report(&self, incarnation: &Incarnation) -> NodeReport {
        NodeReport {
            node: self.node.clone(),
            incarnation: incarnation.clone(),
            connections: self.connections,
            rooms: self.rooms,
            max_connections: Some(self.max_connections),
            load: Some((self.load.clamp(0.0, 1.0) * 1000.0).round() / 1000.0),
            version: Some(self.version).filter(|version| is_version(version)).map(Arc::from),
        }
    }
}

fn is_version(text: &str) -> bool {
    (1..=MAX_VERSION_BYTES).contains(&text.len()) && text != "-" && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl NodeReport {
    /// Reads a note, whoever wrote it. Older versions said less; none if it is no note at all.
    pub(super) fn parse(incarnation: Incarnation, text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut count = || words.next()?.parse::<u64>().ok();
        let (_beat, connections, rooms) = (count()?, count()?, count()?);
        let (max_connections, load) = (count(), count());
        let node = words.next().and_then(|word| NodeId::new(word).ok());
        Some(Self {
            node: node.unwrap_or_else(|| incarnation.stem()),
            incarnation,
            connections,
            rooms,
            max_connections,
            load: load.map(|load| load.min(1000) as f64 / 1000.0),
            version: words.next().filter(|word| is_version(word)).map(Arc::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(text: &str) -> Incarnation {
        Incarnation::parse(text).expect("an incarnation")
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let name = NodeId::new("n".repeat(64).as_str()).expect("valid");
        let load = 0.4567;
        let note =
            NodeNote { node: &name, connections: 7, rooms: 3, max_connections: 20_000, load, version: "1.2.3-rc.1" };
        let life = Incarnation::new(&name);
        let read = NodeReport::parse(life.clone(), &format!("12 7 {}", note.tail())).expect("a note");
        assert_eq!(read, note.report(&life));
        assert_eq!((read.node, read.load, read.version.as_deref()), (name, Some(0.457), Some("1.2.3-rc.1")));
    }

    #[test]
    fn older_newer_and_foreign_notes_stop_nobody() {
        let report = NodeReport::parse(life("one~0011aabb"), "5 7 2").expect("an older note");
        assert_eq!((report.node.as_str(), report.connections, report.rooms), ("one", 7, 2));
        assert_eq!((report.max_connections, report.load, report.version), (None, None, None));
        let report = NodeReport::parse(life("one~0011aabb"), "5 7 2 9 99999 two 1.0 and more").expect("a newer note");
        assert_eq!((report.node.as_str(), report.load, report.version.as_deref()), ("two", Some(1.0), Some("1.0")));
        let report = NodeReport::parse(life("x"), "5 7 2 - -1 \u{7f} \u{1b}[31m").expect("with strange words");
        assert_eq!((report.node.as_str(), report.load, report.version), ("x", None, None));
        for foreign in ["", "5", "5 7", "a b c", "5 7 -2", "99999999999999999999 1 1", "5  7 2", "5\n7\n2"] {
            assert_eq!(NodeReport::parse(life("x"), foreign), None, "{foreign:?}");
        }
    }
}
