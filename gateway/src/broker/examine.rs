//! Whether a broker does what a node asks of it: every kind of call once but an order, in a room that nobody else knows
//! and that is gone a second later. Called by `gateway check`; says what it found in words for people.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{ClientId, NodeId, RoomName};
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{
    Answer, Beat, Broker, BrokerError, Bucket, Claim, Event, Farewell, Incarnation, Member, NodeNote, OrderId,
    PresenceCall, PresenceOp, Range, Record, RoomsQuestion, Subject,
};
use crate::config::{Rate, RoomPolicy};

/// How often it is looked whether the broker is there.
const LOOK: Duration = Duration::from_millis(20);
/// How long what was left behind is remembered: as short as can be had.
const TRACE: Duration = Duration::from_secs(1);

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// As it should be.
    Fine,
    /// Works, and somebody should know.
    Warning,
    /// A node would not work, or not keep what it promises.
    Problem,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub standing: Standing,
    /// What was looked at.
    pub subject: String,
    /// What was found. Holds no secrets.
    pub words: String,
    /// How to mend it; empty where nothing is to be.
    pub remedy: String,
}

impl Finding {
    /// As it should be.
    pub fn fine(subject: impl Into<String>, words: impl Into<String>) -> Self {
        Self { standing: Standing::Fine, subject: subject.into(), words: words.into(), remedy: String::new() }
    }

    /// Something that somebody should know.
    pub fn warning(subject: impl Into<String>, words: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { standing: Standing::Warning, remedy: remedy.into(), ..Self::fine(subject, words) }
    }

    /// Something to mend.
    pub fn problem(subject: impl Into<String>, words: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { standing: Standing::Problem, remedy: remedy.into(), ..Self::fine(subject, words) }
    }
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {why}")]
pub struct Failed {
    /// What was tried.
    pub step: &'static str,
    /// What came of it.
    pub why: String,
}

/// Goes through the life of a room with one member, as `node`. `events` are the broker's, and `patience` is how long it
/// may take to be there, and each event to come. For a moment the cluster has one node more.
///
/// # Errors
/// The first step that failed.
pub async fn exercise(
    broker: &dyn Broker,
    events: &mut Receiver<Event>,
    node: &NodeId,
    patience: Duration,
) -> Result<(), Failed> {
    let up = async {
        while !broker.is_up() {
            sleep(LOOK).await;
        }
    };
    if timeout(patience, up).await.is_err() {
        let why = broker.trouble().map_or("not there in time", |trouble| trouble.as_str());
        return Err(Failed { step: "connecting as a node does", why: why.to_owned() });
    }
    let (room, life) = (RoomName::random(), Incarnation::new(node));
    let outcome = live(broker, events, (&room, &life), patience).await;
    // Whatever came of it, nothing is to stay.
    broker.unsubscribe(&room);
    let evict = broker.evict(&room, &life, None).await.map(|_| ());
    let release = broker.release(&life, std::slice::from_ref(&room)).await;
    let bury = broker.bury(&life, Farewell::Clean).await;
    outcome?;
    for (step, result) in [("evict", evict), ("release", release), ("bury", bury)] {
        result.map_err(|error| failed(step, &error))?;
    }
    Ok(())
}

fn failed(step: &'static str, error: &BrokerError) -> Failed {
    Failed { step, why: error.to_string() }
}

async fn live(
    broker: &dyn Broker,
    events: &mut Receiver<Event>,
    (room, life): (&RoomName, &Incarnation),
    patience: Duration,
) -> Result<(), Failed> {
    let step = |step| move |error: BrokerError| failed(step, &error);
    let rooms = std::slice::from_ref(room);
    broker.subscribe(room).await.map_err(step("subscribe"))?;
    broker.hold(life, rooms).await.map_err(step("hold"))?;
    let (name, version) = (life.stem(), env!("CARGO_PKG_VERSION"));
    let beat = Beat {
        incarnation: life,
        expiry: Duration::from_secs(5),
        number: 1,
        answered: 0,
        note: NodeNote { node: &name, connections: 0, rooms: 0, max_connections: 0, load: 0.0, version },
        working_on: &[],
        most_claims: 0,
    };
    broker.beat(&beat).await.map_err(step("beat"))?;
    let user = stranger();
    broker.take(&Bucket::User(user), Rate { per_second: 1000, burst: 1 }, 1).await.map_err(step("take"))?;
    broker.claim(life, Claim { user, own: 0, wanted: 1, most: 1 }).await.map_err(step("claim"))?;
    broker.set_users(life, &[(user, 1), (stranger(), 0)]).await.map_err(step("set_users"))?;
    let client = ClientId::random();
    let member = Member { id: client, name: "check".into(), user: None, info: None };
    let enter = [PresenceOp::Enter(member.clone())];
    let leave = [PresenceOp::Leave(member)];
    let call = |ops| PresenceCall { incarnation: life, ops, unique_names: true, want_members: 1 };
    broker.presence(room, call(&enter)).await.map_err(step("presence"))?;
    let listed = broker.members(room, None, 1).await.map_err(step("members"))?;
    broker.held(life, 1).await.map_err(step("held"))?;
    broker.member(room, client).await.map_err(step("member"))?;
    let question = RoomsQuestion { after: None, prefix: Some(room), limit: 1 };
    broker.rooms(question).await.map_err(step("rooms"))?;
    broker.nodes().await.map_err(step("nodes"))?;
    broker.listen().await.map_err(step("listen"))?;
    let order = OrderId::random();
    broker.answer(order, Answer::Unknown).await.map_err(step("answer"))?;
    broker.answers(order).await.map_err(step("answers"))?;
    let policy = RoomPolicy { history_size: 1, history_ttl: TRACE, idempotency_window: TRACE, ..RoomPolicy::default() };
    for id in ["check", "check#1"] {
        broker.publish(room, &policy, &[record(client, id)]).await.map_err(step("publish"))?;
    }
    broker.broadcast(room, &[record(client, "passing")]).await.map_err(step("broadcast"))?;
    let kept = broker.history(room, Range::Latest { limit: 1 }).await.map_err(step("history"))?;
    broker.tops(rooms).await.map_err(step("tops"))?;
    broker.presence(room, call(&leave)).await.map_err(step("presence"))?;
    let wrong = |step, why: &str| Err(Failed { step, why: why.to_owned() });
    if listed.online != 1 || kept.messages.len() != 1 {
        return wrong("reading back", "what was written is not what is read: is something else using these keys?");
    }
    let heard = async {
        let is_message = |event: &Event| matches!(event, Event::Messages(envelope) if envelope.room == *room);
        while let Some(event) = events.recv().await {
            if is_message(&event) {
                return true;
            }
        }
        false
    };
    match timeout(patience, heard).await {
        Ok(true) => Ok(()),
        _ => wrong("hearing", "what was published did not come back over PubSub"),
    }
}

/// A user that nobody else is.
fn stranger() -> Subject {
    Subject::of(&Uuid::new_v4().to_string())
}

fn record(from: ClientId, id: &str) -> Record {
    Record {
        id: id.into(),
        idempotent: true,
        subject: stranger(),
        from,
        name: "check".into(),
        user: None,
        echo: true,
        accepted_at_us: 0,
        trace: None,
        data: Bytes::from_static(b"\"check\""),
    }
}
