//! Leases: who lives, who takes over, and what a dead node's members leave behind.

use std::collections::BTreeSet;

use super::*;
use crate::broker::{Beat, BrokerError, Farewell, Moved, NodeNote, PresenceEvent, Pulse};

everywhere!(
    a_lease_that_is_beaten_stays,
    exactly_one_takes_over,
    whoever_takes_over_and_dies_is_taken_over_from,
    who_was_cut_off_is_told,
    nobody_takes_over_behind_an_outage,
    rooms_are_held_until_released,
    only_what_a_life_left_is_evicted,
    large_rooms_are_evicted_in_steps,
    another_life_takes_members_over_in_silence,
    names_are_unique_where_wanted,
    evicted_names_are_free,
    a_farewell_in_haste_is_taken_over_at_once,
);

/// So short that a test does not wait long, so long that a busy machine keeps a lease that it beats.
const EXPIRY: Duration = Duration::from_secs(3);

/// A node's beats.
struct Life {
    node: NodeId,
    incarnation: Incarnation,
    number: u64,
    answered: u64,
    working_on: Vec<Incarnation>,
}

impl Life {
    fn new(name: &str) -> Self {
        Self {
            node: node(name),
            incarnation: Incarnation::new(&node(name)),
            number: 0,
            answered: 0,
            working_on: Vec::new(),
        }
    }

    async fn beat(&mut self, broker: &dyn Broker) -> Pulse {
        self.number += 1;
        let beat = Beat {
            incarnation: &self.incarnation,
            expiry: EXPIRY,
            number: self.number,
            answered: self.answered,
            note: NodeNote { connections: 7, rooms: 1, ..note(&self.node) },
            working_on: &self.working_on,
            most_claims: 4,
        };
        let pulse = broker.beat(&beat).await.expect("a beat");
        self.answered = self.number;
        pulse
    }

    /// The claims of a beat that kept the lease.
    async fn claims(&mut self, broker: &dyn Broker) -> Vec<Incarnation> {
        match self.beat(broker).await {
            Pulse::Kept { claims, .. } => claims,
            Pulse::Lost => panic!("the lease was lost"),
        }
    }

    /// Beats until the lease of another is given to it.
    async fn wait_for_claim(&mut self, broker: &dyn Broker) -> Vec<Incarnation> {
        let wait = async {
            loop {
                let claims = self.claims(broker).await;
                if !claims.is_empty() {
                    return claims;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, wait).await.expect("a claim in time")
    }
}

fn through<'a>(life: &'a Life, ops: &'a [PresenceOp], unique_names: bool) -> PresenceCall<'a> {
    PresenceCall { incarnation: &life.incarnation, ops, unique_names, want_members: 100 }
}

async fn presence_event(events: &mut Events) -> PresenceEvent {
    match events.next().await {
        Event::Presence(event) => event,
        other => panic!("expected presence, got {other:?}"),
    }
}

async fn a_lease_that_is_beaten_stays(pair: Pair) {
    let (mut one, mut two) = (Life::new("node-a"), Life::new("node-b"));
    one.beat(&*pair.a).await;
    for _ in 0..5 {
        let pulse = two.beat(&*pair.b).await;
        let Pulse::Kept { nodes, connections, next_expiry, claims } = pulse else { panic!("lost") };
        assert_eq!((nodes, connections, claims), (2, 14, vec![]));
        assert!(next_expiry <= EXPIRY);
        assert_eq!(one.claims(&*pair.a).await, []);
    }
    // An answer that got lost is no reason to be buried.
    one.answered -= 2;
    assert_eq!(one.claims(&*pair.a).await, []);
}

async fn exactly_one_takes_over(pair: Pair) {
    let (mut one, mut two, mut dead) = (Life::new("node-a"), Life::new("node-b"), Life::new("node-c"));
    dead.beat(&*pair.a).await;
    let mut claims = 0;
    let wait = async {
        while claims == 0 {
            claims += one.claims(&*pair.a).await.len() + two.claims(&*pair.b).await.len();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("a claim in time");
    for _ in 0..5 {
        claims += one.claims(&*pair.a).await.len() + two.claims(&*pair.b).await.len();
    }
    assert_eq!(claims, 1);
    let Pulse::Kept { nodes, .. } = two.beat(&*pair.b).await else { panic!("lost") };
    assert_eq!(nodes, 2, "the dead one is not counted");
}

async fn whoever_takes_over_and_dies_is_taken_over_from(pair: Pair) {
    let (mut one, mut two, mut dead) = (Life::new("node-a"), Life::new("node-b"), Life::new("node-c"));
    dead.beat(&*pair.a).await;
    one.beat(&*pair.a).await;
    assert_eq!(one.wait_for_claim(&*pair.a).await, [dead.incarnation.clone()]);
    // As long as it says so it stays its own.
    one.working_on = vec![dead.incarnation.clone()];
    let start = std::time::Instant::now();
    while start.elapsed() < EXPIRY + EXPIRY / 4 {
        assert_eq!(one.claims(&*pair.a).await, []);
        assert_eq!(two.claims(&*pair.b).await, []);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It dies, too.
    let expected = BTreeSet::from([one.incarnation.as_str().to_owned(), dead.incarnation.as_str().to_owned()]);
    let mut found = BTreeSet::new();
    while found != expected {
        found.extend(two.wait_for_claim(&*pair.b).await.iter().map(|claim| claim.as_str().to_owned()));
    }
    for claim in [&one, &dead] {
        pair.b.bury(&claim.incarnation, Farewell::Clean).await.expect("buried");
    }
    tokio::time::sleep(EXPIRY / 2).await;
    assert_eq!(two.claims(&*pair.b).await, []);
}

async fn who_was_cut_off_is_told(pair: Pair) {
    let (mut one, mut paused) = (Life::new("node-a"), Life::new("node-b"));
    paused.beat(&*pair.b).await;
    one.wait_for_claim(&*pair.a).await;
    // While it is being taken over, and after.
    assert_eq!(paused.beat(&*pair.b).await, Pulse::Lost);
    one.working_on = vec![paused.incarnation.clone()];
    pair.a.bury(&paused.incarnation, Farewell::Clean).await.expect("buried");
    assert_eq!(paused.beat(&*pair.b).await, Pulse::Lost);
    // Whatever it did meanwhile under its old life is cleared as a dead one's would be.
    one.working_on.clear();
    assert_eq!(one.wait_for_claim(&*pair.a).await, [paused.incarnation]);
}

async fn nobody_takes_over_behind_an_outage(pair: Pair) {
    let (mut one, mut two) = (Life::new("node-a"), Life::new("node-b"));
    one.beat(&*pair.a).await;
    two.beat(&*pair.b).await;
    tokio::time::sleep(EXPIRY + Duration::from_millis(100)).await;
    // Both had run out: whoever is first must not bury the other.
    assert_eq!(one.claims(&*pair.a).await, []);
    assert_eq!(two.claims(&*pair.b).await, []);
    assert_eq!(one.claims(&*pair.a).await, []);
}

async fn rooms_are_held_until_released(pair: Pair) {
    let life = Life::new("node-a").incarnation;
    let rooms: Vec<RoomName> = (0..700).map(|number| room(&format!("room-{number}"))).collect();
    let error = pair.a.hold(&life, &rooms).await;
    assert!(error.is_err() || pair.b.held(&life, 10).await.expect("held").len() == 10);
    for page in rooms.chunks(512) {
        pair.a.hold(&life, page).await.expect("hold");
        pair.a.hold(&life, page).await.expect("hold");
    }
    pair.a.hold(&life, &[]).await.expect("nothing to do");
    let mut found = BTreeSet::new();
    loop {
        let page = pair.b.held(&life, 300).await.expect("held");
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 300);
        pair.b.release(&life, &page).await.expect("release");
        found.extend(page.iter().map(|room| room.as_str().to_owned()));
    }
    assert_eq!(found.len(), 700);
}

async fn only_what_a_life_left_is_evicted(mut pair: Pair) {
    let room = room("lobby");
    let (dead, alive) = (Life::new("node-c"), Life::new("node-c"));
    let [ann, bob, cleo] = [(); 3].map(|()| ClientId::random());
    pair.a.presence(&room, through(&dead, &[enter(ann, "Ann"), enter(bob, "Bob B")], false)).await.expect("presence");
    pair.a.presence(&room, through(&alive, &[enter(cleo, "Cleo")], false)).await.expect("presence");
    pair.a.subscribe(&room).await.expect("subscribed");
    pair.b.subscribe(&room).await.expect("subscribed");

    let evicted = pair.b.evict(&room, &dead.incarnation, None).await.expect("evicted");
    let mut gone = vec![member(ann, "Ann"), member(bob, "Bob B")];
    gone.sort_by_key(|member| member.id);
    assert_eq!((evicted.next, evicted.before, evicted.online, evicted.gone), (None, 3, 1, gone));
    // All nodes hear of it, the one that did it, too.
    for events in [&mut pair.from_a, &mut pair.from_b] {
        let event = presence_event(events).await;
        assert_eq!((&event.node, event.online, event.ops.len()), (dead.incarnation.as_node(), 1, 2));
        for (client, name) in [(ann, "Ann"), (bob, "Bob B")] {
            assert!(event.ops.contains(&leave(client, name)), "{event:?}");
        }
    }
    // The second time there is nothing to do, and nothing to tell.
    let evicted = pair.a.evict(&room, &dead.incarnation, None).await.expect("evicted");
    assert_eq!((evicted.next, evicted.before, evicted.online, evicted.gone), (None, 1, 1, vec![]));
    pair.a.evict(&room, &alive.incarnation, None).await.expect("evicted");
    let event = presence_event(&mut pair.from_b).await;
    assert_eq!((event.online, event.ops.len()), (0, 1));
    assert_eq!(pair.b.members(&room, None, 9).await.expect("members").online, 0);
}

async fn large_rooms_are_evicted_in_steps(mut pair: Pair) {
    let room = room("hall");
    let (dead, alive) = (Life::new("node-c"), Life::new("node-d"));
    for number in 0..20 {
        let ops: Vec<PresenceOp> = (0..100).map(|_| enter(ClientId::random(), "x")).collect();
        let life = if number % 2 == 0 { &dead } else { &alive };
        pair.a.presence(&room, through(life, &ops, false)).await.expect("presence");
    }
    pair.b.subscribe(&room).await.expect("subscribed");
    let (mut behind, mut calls, mut removed) = (None, 0, BTreeSet::new());
    loop {
        let evicted = pair.a.evict(&room, &dead.incarnation, behind).await.expect("evicted");
        calls += 1;
        assert_eq!(evicted.before - evicted.online, evicted.gone.len() as u64);
        removed.extend(evicted.gone.iter().map(|member| member.id));
        behind = evicted.next;
        if behind.is_none() {
            assert_eq!(evicted.online, 1000);
            break;
        }
    }
    assert!((15..=17).contains(&calls), "{calls} calls");
    assert_eq!(removed.len(), 1000, "each is named once, to who removed it");
    let mut gone = BTreeSet::new();
    while gone.len() < 1000 {
        let event = presence_event(&mut pair.from_b).await;
        for op in event.ops {
            let PresenceOp::Leave(member) = op else { panic!("{op:?}") };
            assert!(gone.insert(member.id), "told twice");
        }
    }
}

async fn another_life_takes_members_over_in_silence(mut pair: Pair) {
    let room = room("lobby");
    let (old, new) = (Life::new("node-a"), Life::new("node-a"));
    let [ann, bob] = [(); 2].map(|()| ClientId::random());
    pair.a.presence(&room, through(&old, &[enter(ann, "Ann")], true)).await.expect("presence");
    pair.b.subscribe(&room).await.expect("subscribed");
    let reply = pair.a.presence(&room, through(&new, &[enter(ann, "Ann")], true)).await.expect("presence");
    assert_eq!((reply.online, &*reply.outcomes), (1, &[Moved::Same][..]));
    // What is left of the old life is nothing.
    pair.b.evict(&room, &old.incarnation, None).await.expect("evicted");
    let reply = pair.a.presence(&room, through(&new, &[enter(bob, "Bob")], true)).await.expect("presence");
    assert_eq!((reply.online, &*reply.outcomes), (2, &[Moved::Changed][..]));
    assert_eq!(presence_event(&mut pair.from_b).await.ops, [enter(bob, "Bob")]);
}

async fn names_are_unique_where_wanted(mut pair: Pair) {
    let room = room("lobby");
    let (one, two) = (Life::new("node-a"), Life::new("node-b"));
    let [ann, bob] = [(); 2].map(|()| ClientId::random());
    pair.b.subscribe(&room).await.expect("subscribed");
    pair.a.presence(&room, through(&one, &[enter(ann, "Ann")], true)).await.expect("presence");
    presence_event(&mut pair.from_b).await;

    let ops = [enter(bob, "Ann"), enter(bob, "Bob"), rename(bob, "Ann"), rename(ann, "Ann"), enter(bob, "Ann")];
    let reply = pair.b.presence(&room, through(&two, &ops, true)).await.expect("presence");
    let outcomes = [Moved::NameTaken, Moved::Changed, Moved::NameTaken, Moved::Same, Moved::NameTaken];
    assert_eq!((reply.online, &*reply.outcomes), (2, &outcomes[..]));
    assert_eq!(reply.members.iter().filter(|member| &*member.name == "Ann").count(), 1);

    // A name given up is free, by a rename and by a leave.
    let ops = [rename(ann, "Zoë"), enter(bob, "Ann"), rename(ann, "Bob")];
    let reply = pair.b.presence(&room, through(&two, &ops, true)).await.expect("presence");
    assert_eq!(reply.outcomes, [Moved::Changed, Moved::Renamed, Moved::Changed]);
    let ops = [leave(bob, "Ann"), rename(ann, "Ann")];
    let reply = pair.a.presence(&room, through(&one, &ops, true)).await.expect("presence");
    assert_eq!(reply.outcomes, [Moved::Changed; 2]);
    let ops = [leave(ann, "Ann"), enter(bob, "Ann"), enter(ann, "Ann")];
    let reply = pair.a.presence(&room, through(&one, &ops, true)).await.expect("presence");
    assert_eq!(reply.outcomes, [Moved::Changed, Moved::Changed, Moved::NameTaken]);
    // Elsewhere names do not matter.
    let reply = pair.a.presence(&super::room("other"), call(&[enter(ann, "x"), enter(bob, "x")], 0)).await;
    assert_eq!(reply.expect("presence").outcomes, [Moved::Changed; 2]);
}

async fn evicted_names_are_free(pair: Pair) {
    let room = room("lobby");
    let (dead, alive) = (Life::new("node-a"), Life::new("node-b"));
    let [ghost, ann, other] = [(); 3].map(|()| ClientId::random());
    pair.a.presence(&room, through(&dead, &[enter(ghost, "Ann")], true)).await.expect("presence");
    let reply = pair.b.presence(&room, through(&alive, &[enter(ann, "Ann"), enter(other, "o")], true)).await;
    assert_eq!(reply.expect("presence").outcomes, [Moved::NameTaken, Moved::Changed]);
    pair.b.evict(&room, &dead.incarnation, None).await.expect("evicted");
    let reply = pair.b.presence(&room, through(&alive, &[enter(ann, "Ann")], true)).await;
    assert_eq!(reply.expect("presence").outcomes, [Moved::Changed]);
}

async fn a_farewell_in_haste_is_taken_over_at_once(pair: Pair) {
    let (mut one, mut leaving) = (Life::new("node-a"), Life::new("node-b"));
    one.beat(&*pair.a).await;
    leaving.beat(&*pair.b).await;
    pair.b.bury(&leaving.incarnation, Farewell::InHaste).await.expect("buried");
    assert_eq!(one.claims(&*pair.a).await, [leaving.incarnation]);
}

/// Emptied, or restored to a state before the last beat: members there are unknown to it, or long gone.
#[tokio::test(flavor = "local")]
async fn a_dataset_that_forgot_is_noticed() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 64).await;
    let mut life = Life::new("node-a");
    assert_eq!(life.claims(&a).await, []);
    let _: String = server.command(&["FLUSHALL"]);
    assert_eq!(life.beat(&a).await, Pulse::Lost);

    let mut life = Life::new("node-a");
    assert_eq!(life.claims(&a).await, []);
    assert_eq!(life.claims(&a).await, []);
    // What the dataset knew one beat ago.
    let _: i64 = server.command(&["HSET", "rc:{!}:nodes", life.incarnation.as_str(), "1 7 1"]);
    assert_eq!(life.beat(&a).await, Pulse::Lost);
}

#[tokio::test(flavor = "local")]
async fn what_strangers_left_stops_nobody() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 64).await;
    let life = Life::new("node-a").incarnation;
    let key = format!("rc:{{!}}:rooms:{life}");
    let _: i64 = server.command(&["ZADD", &key, "0", "bad room!", "0", "good"]);
    assert_eq!(a.held(&life, 9).await.expect("held"), [room("good")]);
    a.release(&life, &[room("good")]).await.expect("release");
    assert_eq!(a.held(&life, 9).await.expect("held"), []);
    let _: i64 = server.command(&["ZADD", "rc:{good}:p", "0", "nonsense", "0", &format!("x {life} y")]);
    let evicted = a.evict(&room("good"), &life, None).await.expect("evicted");
    assert_eq!((evicted.next, evicted.online), (None, 2));
    let _: String = server.command(&["SET", "rc:{bad}:p", "x"]);
    let error = a.evict(&room("bad"), &life, None).await.expect_err("a string is no set");
    assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
}
