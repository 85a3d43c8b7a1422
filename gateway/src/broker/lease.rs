//! The words of presence leases: which life of which node has members, and who tidies up behind one that died.
//!
//! Used by the hub and by every broker. Knows neither rooms' contents nor how a lease is kept.

use std::fmt;
use std::time::Duration;

use roomcast_protocol::{ClientId, NodeId};
use uuid::Uuid;

use super::{Member, NodeNote};

/// Characters of a node id that an incarnation keeps: with its mark it must still be a node id.
const LONGEST_STEM: usize = 55;

/// One life of a node, as far as members are concerned: `<node id>~<8 hex digits>`. A process begins a new one when it
/// starts and when its lease was lost, so nothing that an old life left can be taken for the new one's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Incarnation(NodeId);

impl Incarnation {
    /// A new one of `node`.
    pub fn new(node: &NodeId) -> Self {
        let stem = &node.as_str()[..node.as_str().len().min(LONGEST_STEM)];
        let mark = Uuid::new_v4().as_u64_pair().1 as u32;
        Self(NodeId::new(&format!("{stem}~{mark:08x}")).unwrap_or_else(|_| node.clone()))
    }

    /// One read from a broker; none if it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        NodeId::new(text).ok().map(Self)
    }

    /// The node's id, or the beginning of one that is too long.
    pub(super) fn stem(&self) -> NodeId {
        let stem = self.as_str().rsplit_once('~').map_or(self.as_str(), |(stem, _)| stem);
        NodeId::new(stem).unwrap_or_else(|_| self.0.clone())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// What events of its eviction name as their node: no living node has that id.
    pub fn as_node(&self) -> &NodeId {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A sign of life.
#[derive(Debug, Clone, Copy)]
pub struct Beat<'a> {
    /// Whose.
    pub incarnation: &'a Incarnation,
    /// How long the lease lasts from now on, by the broker's clock.
    pub expiry: Duration,
    /// From 1, one more with each beat of this incarnation, also if the last one failed.
    pub number: u64,
    /// The number of the last beat that was answered; 0 if none was.
    pub answered: u64,
    /// What this node says of itself, for all to know.
    pub note: NodeNote<'a>,
    /// Claims that this node is working on: they stay its own.
    pub working_on: &'a [Incarnation],
    /// Most claims it would take now.
    pub most_claims: usize,
}

/// What a beat found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulse {
    /// The lease runs on.
    Kept {
        /// Nodes alive, this one included.
        nodes: u64,
        /// Their connections.
        connections: u64,
        /// Until the next lease of any node runs out, unless it is renewed.
        next_expiry: Duration,
        /// Dead incarnations that are this node's to take over. Nobody else is given them while it beats and names them
        /// as being worked on; if it stops, they are given to another once the expiry has passed.
        claims: Vec<Incarnation>,
    },
    /// The lease ran out and was taken over, or the broker forgot it: this incarnation's members are gone or will go.
    /// They must enter anew under another incarnation.
    Lost,
}

/// What an eviction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// Where to go on; none when the room is done.
    pub next: Option<ClientId>,
    /// The version of the members, after.
    pub version: u64,
    /// Members over all nodes, after.
    pub online: u64,
    /// The same right before.
    pub before: u64,
    /// Whom it removed, in the order of their ids. Told to this caller alone.
    pub gone: Vec<Member>,
}

/// How a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing is left of it: all its members left, or all were evicted.
    Clean,
    /// Its members are still listed: whoever beats next takes over.
    InHaste,
}
