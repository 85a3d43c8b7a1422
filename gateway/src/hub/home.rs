//! A room as its home worker keeps it: its order, its recent messages, what waits to be published, who comes and goes.
//!
//! One worker of the node is the home of a room, by the hash of its name. Only the home talks to the broker about it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use roomcast_protocol::{Mode, RoomName};
use tokio::sync::oneshot;

use super::allowance::Allowance;
use super::batch::{Batch, Builder};
use super::mail::{Address, JoinRequest, PublishRequest};
use super::naming::Claimed;
use super::news::Doubts;
use super::recent::Recent;
use super::room::Room;
use super::sabotage::Spoiled;
use super::sequencer::Sequencer;
use crate::broker::{BrokerError, Bucket, Envelope, PresenceOp, Record, Top};
use crate::config::RoomPolicy;
use crate::events::RoomEvents;

/// Bytes a room collects while its last batch is still being delivered before publishers must wait.
pub(super) const CONGESTED_BYTES: usize = 64 * 1024;
/// Envelopes kept while a room is being opened; beyond, the stream is read once more.
const MOST_EARLY: usize = 256;
/// The same in bytes of data.
const MOST_EARLY_BYTES: usize = 1024 * 1024;

/// How far the room is connected to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody needs it.
    Closed,
    /// Subscribing and reading its recent messages; joins wait.
    Opening,
    /// Live.
    Open,
}

/// Someone's coming, going or renaming, on its way to the broker.
pub(super) struct Movement {
    pub(super) op: PresenceOp,
    /// The request to answer, when it is a join.
    pub(super) join: Option<JoinRequest>,
    /// True if the broker may know of the client already.
    pub(super) known: bool,
    /// True if the members here were told already, while the broker was away.
    pub(super) told: bool,
    /// The member, if it is one already and only enters anew.
    pub(super) restored: Option<Address>,
    /// Who waits to hear whether a name can be had.
    pub(super) claim: Option<oneshot::Sender<Claimed>>,
    /// What a call that was not answered may have done with this client.
    pub(super) doubt: Doubt,
}

/// What may have happened already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nothing that is not known.
    None,
    /// The client may have entered.
    Entered,
    /// It may have left.
    Left,
}

impl Movement {
    /// One that the broker may know of and nobody waits for.
    pub(super) fn new(op: PresenceOp) -> Self {
        Self { op, join: None, known: true, told: false, restored: None, claim: None, doubt: Doubt::None }
    }
}

/// Who is there and who comes and goes.
#[derive(Default)]
pub(super) struct Roll {
    pub(super) movements: VecDeque<Movement>,
    /// True while the broker is being told.
    pub(super) calling: bool,
    /// True after a failed call, until the next tick.
    pub(super) resting: bool,
    pub(super) version: u64,
    pub(super) online: u64,
    /// True when members have a new `count` coming.
    pub(super) count_due: bool,
}

/// Everything about the room that changes.
#[expect(clippy::struct_excessive_bools, reason = "independent calls, each under way or not")]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) sequencer: Sequencer,
    pub(super) recent: Recent,
    pub(super) builder: Builder,
    /// Members on each worker of this node.
    pub(super) seats: Vec<u32>,
    pub(super) pending: VecDeque<PublishRequest>,
    pub(super) pending_bytes: usize,
    /// True while a publish call is under way.
    pub(super) publishing: bool,
    /// Ephemeral messages for other nodes, and whether a call is under way.
    pub(super) outgoing: Vec<Record>,
    pub(super) outgoing_bytes: usize,
    pub(super) broadcasting: bool,
    pub(super) roll: Roll,
    pub(super) early: Vec<Envelope>,
    /// True if `early` was full once.
    pub(super) missed_early: bool,
    pub(super) repairing: bool,
    /// True when the stream must be read again, whatever the read under way brings.
    pub(super) reread: bool,
    /// Joins that wait for the read under way, or the next one.
    pub(super) readers: Vec<oneshot::Sender<Result<(), BrokerError>>>,
    /// True while older messages are being read into `recent`, and those who wait for them.
    pub(super) deepening: bool,
    pub(super) deepened: Vec<oneshot::Sender<Result<(), BrokerError>>>,
    /// The first seq that the broker had at the last read.
    pub(super) oldest: u64,
    /// The tick at which the last messages came.
    pub(super) heard: Option<u32>,
    /// The tick at which somebody last came back.
    pub(super) resumed_at: Option<u32>,
    /// Where the room stood when the sweep last had it read.
    pub(super) swept: Option<Top>,
    /// Joins that wait for a read of the stream.
    pub(super) resuming: u32,
    /// The tick at which the last member went.
    pub(super) empty_since: Option<u32>,
    /// Of messages, whether they were stored.
    pub(super) doubts: Doubts,
    /// Only on a node with `--sabotage`.
    pub(super) spoiled: Option<Box<Spoiled>>,
}

/// One room at its home.
pub(super) struct Home {
    pub(super) name: RoomName,
    pub(super) policy: Arc<RoomPolicy>,
    /// The members on the home worker itself.
    pub(super) room: Rc<Room>,
    pub(super) state: RefCell<State>,
    /// True while on the turn's list.
    pub(super) due: Cell<bool>,
    /// True while another worker's load keeps it waiting.
    pub(super) waits: Cell<bool>,
    /// The life of the node under which the broker knows that there may be members here; 0 for none.
    pub(super) held: Cell<u32>,
    /// What webhooks want to know of it.
    pub(super) events: RoomEvents,
    /// What may be published here, if that is limited.
    pub(super) allowance: Option<Rc<Allowance>>,
}

impl Home {
    pub(super) fn new(
        name: RoomName,
        policy: Arc<RoomPolicy>,
        room: Rc<Room>,
        workers: usize,
        recent: usize,
        events: RoomEvents,
    ) -> Rc<Self> {
        let state = State {
            phase: Phase::Closed,
            sequencer: Sequencer::default(),
            recent: Recent::new(recent),
            builder: Builder::default(),
            seats: vec![0; workers],
            pending: VecDeque::new(),
            pending_bytes: 0,
            publishing: false,
            outgoing: Vec::new(),
            outgoing_bytes: 0,
            broadcasting: false,
            roll: Roll::default(),
            early: Vec::new(),
            missed_early: false,
            repairing: false,
            reread: false,
            readers: Vec::new(),
            deepening: false,
            deepened: Vec::new(),
            oldest: 0,
            heard: None,
            resumed_at: None,
            swept: None,
            resuming: 0,
            empty_since: None,
            doubts: Doubts::default(),
            spoiled: None,
        };
        let (due, waits, held) = (Cell::new(false), Cell::new(false), Cell::new(0));
        let allowance = policy.publish_rate.map(|rate| Allowance::new(Bucket::Room(name.clone()), rate));
        Rc::new(Self { name, policy, room, state: RefCell::new(state), due, waits, held, events, allowance })
    }

    pub(super) fn is_durable(&self) -> bool {
        self.policy.mode == Mode::Durable
    }
}

impl State {
    /// Members on all workers of this node.
    pub(super) fn seated(&self) -> u32 {
        self.seats.iter().sum()
    }

    /// Whether nothing keeps the room alive.
    pub(super) fn is_idle(&self) -> bool {
        self.seated() == 0
            && self.roll.movements.is_empty()
            && !self.roll.calling
            && self.pending.is_empty()
            && !self.publishing
            && self.outgoing.is_empty()
            && !self.broadcasting
            && self.resuming == 0
            && self.phase != Phase::Opening
    }

    /// Keeps what the bus brings while the room is being opened.
    pub(super) fn keep_early(&mut self, envelope: Envelope) {
        let bytes = |envelope: &Envelope| envelope.records.iter().map(|record| record.data.len()).sum::<usize>();
        let held: usize = self.early.iter().map(bytes).sum();
        if self.early.len() < MOST_EARLY && held + bytes(&envelope) <= MOST_EARLY_BYTES {
            self.early.push(envelope);
        } else {
            self.missed_early = true;
        }
    }

    /// Lets go those who wait for a read.
    pub(super) fn tell_readers(&mut self, outcome: &Result<(), BrokerError>) {
        for reader in self.readers.drain(..) {
            // Who is gone does not care.
            _ = reader.send(outcome.clone());
        }
    }

    /// Closes the batch being built and remembers its messages.
    pub(super) fn seal(&mut self) -> Option<Batch> {
        let recent = &mut self.recent;
        self.builder.seal(|seq, json| recent.push(seq, json))
    }
}
