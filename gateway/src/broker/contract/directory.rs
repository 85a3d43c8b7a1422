//! The cluster as a whole: its rooms page by page, its nodes, one member.

use std::collections::BTreeMap;

use super::*;
use crate::broker::{Beat, BrokerError, Farewell, RoomsPage, RoomsQuestion};

everywhere!(
    rooms_are_listed_in_order_with_their_members,
    a_room_that_stays_is_listed_exactly_once,
    rooms_of_the_dead_are_listed_until_they_are_evicted,
    many_empty_rooms_hide_nothing,
    one_member_is_found,
    nodes_say_how_they_are,
);

const EXPIRY: Duration = Duration::from_secs(15);

/// A node with members.
struct Host<'a> {
    broker: &'a dyn Broker,
    name: NodeId,
    life: Incarnation,
}

impl<'a> Host<'a> {
    async fn start(broker: &'a dyn Broker, name: &str) -> Self {
        let name = node(name);
        let life = Incarnation::new(&name);
        let host = Self { broker, name, life };
        host.beat(EXPIRY).await;
        host
    }

    async fn beat(&self, expiry: Duration) {
        let beat = Beat {
            incarnation: &self.life,
            expiry,
            number: 1,
            answered: 0,
            note: note(&self.name),
            working_on: &[],
            most_claims: 0,
        };
        self.broker.beat(&beat).await.expect("a beat");
    }

    async fn hold(&self, names: &[String]) {
        let rooms: Vec<RoomName> = names.iter().map(|name| room(name)).collect();
        for page in rooms.chunks(super::super::MAX_PAGE) {
            self.broker.hold(&self.life, page).await.expect("held");
        }
    }

    async fn enter(&self, name: &str, count: usize) -> Vec<ClientId> {
        self.hold(&[name.to_owned()]).await;
        let clients: Vec<ClientId> = (0..count).map(|_| ClientId::random()).collect();
        let ops: Vec<_> = clients.iter().map(|&client| enter(client, "n")).collect();
        self.apply(name, &ops).await;
        clients
    }

    async fn leave(&self, name: &str, clients: &[ClientId]) {
        let ops: Vec<_> = clients.iter().map(|&client| leave(client, "n")).collect();
        self.apply(name, &ops).await;
        self.broker.release(&self.life, &[room(name)]).await.expect("released");
    }

    async fn apply(&self, name: &str, ops: &[PresenceOp]) {
        let call = PresenceCall { incarnation: &self.life, ops, unique_names: false, want_members: 0 };
        self.broker.presence(&room(name), call).await.expect("presence");
    }
}

async fn page(broker: &dyn Broker, after: Option<&RoomName>, prefix: Option<&str>, limit: usize) -> RoomsPage {
    let prefix = prefix.map(room);
    broker.rooms(RoomsQuestion { after, prefix: prefix.as_ref(), limit }).await.expect("rooms")
}

/// All pages, one after the other, with something done between them.
async fn all(
    broker: &dyn Broker,
    prefix: Option<&str>,
    limit: usize,
    mut between: impl AsyncFnMut(usize),
) -> Vec<(String, u64)> {
    let (mut found, mut after) = (Vec::new(), None);
    for turn in 0.. {
        let page = page(broker, after.as_ref(), prefix, limit).await;
        assert!(page.rooms.len() <= limit);
        found.extend(page.rooms.into_iter().map(|(room, online)| (room.as_str().to_owned(), online)));
        if page.next.is_none() {
            break;
        }
        assert!(page.next > after, "it goes on");
        after = page.next;
        between(turn).await;
    }
    found
}

fn named(found: &[(&str, u64)]) -> Vec<(String, u64)> {
    found.iter().map(|(name, online)| ((*name).to_owned(), *online)).collect()
}

async fn rooms_are_listed_in_order_with_their_members(pair: Pair) {
    let (one, two) = (Host::start(&*pair.a, "node-a").await, Host::start(&*pair.b, "node-b").await);
    assert_eq!(page(&*pair.a, None, None, 10).await, RoomsPage::default());
    // By their bytes, whatever the server's language.
    let expected =
        named(&[("-", 1), (".x", 1), ("B", 2), ("_", 1), ("a", 3), ("a-b", 1), ("a.b", 1), ("ab", 1), ("~", 1)]);
    for (at, (name, online)) in expected.iter().enumerate() {
        for number in 0..*online as usize {
            let host = if (at + number) % 2 == 0 { &one } else { &two };
            host.enter(name, 1).await;
        }
    }
    for limit in [1, 2, 3, 8, 9, 10, 5000] {
        assert_eq!(all(&*pair.a, None, limit, async |_| ()).await, expected, "pages of {limit}");
    }
    assert_eq!(all(&*pair.b, Some("a"), 2, async |_| ()).await, expected[4..8]);
    assert_eq!(all(&*pair.b, Some("ab"), 2, async |_| ()).await, expected[7..8]);
    assert_eq!(all(&*pair.b, Some("~"), 1, async |_| ()).await, expected[8..]);
    assert_eq!(all(&*pair.b, Some("b"), 2, async |_| ()).await, []);
    let after = |name: &'static str| room(name);
    assert_eq!(page(&*pair.a, Some(&after("zz")), Some("a"), 9).await, RoomsPage::default(), "behind the prefix");
    assert_eq!(page(&*pair.a, Some(&after("A")), Some("a"), 9).await.rooms.len(), 4, "before it");
    let exact = page(&*pair.a, None, None, 9).await;
    assert_eq!((exact.rooms.len(), exact.next), (9, None), "no more, and it says so");
}

/// Rooms move from node to node, come and go, while someone turns the pages.
async fn a_room_that_stays_is_listed_exactly_once(pair: Pair) {
    let (one, two) = (Host::start(&*pair.a, "node-a").await, Host::start(&*pair.b, "node-b").await);
    let stays: Vec<String> = (0..60).map(|number| format!("room-{number:03}")).collect();
    let mut members = BTreeMap::new();
    for (at, name) in stays.iter().enumerate() {
        let host = if at % 3 == 0 { &one } else { &two };
        members.insert(name.clone(), (at % 3 == 0, host.enter(name, 1).await));
        one.enter(&format!("{name}-goes"), 1).await;
    }
    let found = all(&*pair.a, None, 7, async |turn| {
        // Whoever moves enters there before it leaves here, as rooms do whose members come back on another node.
        for name in stays.iter().skip(turn % 4).step_by(4) {
            let (on_one, clients) = members.get_mut(name).expect("known");
            let (from, to) = if *on_one { (&one, &two) } else { (&two, &one) };
            let new = to.enter(name, 1).await;
            from.leave(name, clients).await;
            (*on_one, *clients) = (!*on_one, new);
        }
        for name in stays.iter().skip(turn % 5).step_by(5) {
            two.enter(&format!("{name}.new{turn}"), 1).await;
        }
    })
    .await;
    let listed: Vec<&String> = found.iter().map(|(name, _)| name).filter(|name| stays.contains(name)).collect();
    assert_eq!(listed, stays.iter().collect::<Vec<_>>());
    assert!(found.is_sorted_by(|(one, _), (other, _)| one < other), "each once, in order");
}

async fn rooms_of_the_dead_are_listed_until_they_are_evicted(pair: Pair) {
    let (dead, other) = (Host::start(&*pair.a, "node-a").await, Host::start(&*pair.b, "node-b").await);
    dead.enter("a", 2).await;
    other.enter("b", 1).await;
    pair.a.bury(&dead.life, Farewell::InHaste).await.expect("buried");
    assert_eq!(all(&*pair.b, None, 9, async |_| ()).await, named(&[("a", 2), ("b", 1)]));
    pair.b.evict(&room("a"), &dead.life, None).await.expect("evicted");
    assert_eq!(all(&*pair.b, None, 9, async |_| ()).await, named(&[("b", 1)]), "nobody is left");
    pair.b.bury(&dead.life, Farewell::Clean).await.expect("buried");
    assert_eq!(all(&*pair.b, None, 9, async |_| ()).await, named(&[("b", 1)]));
}

/// More than one look of the script, and more names than one of its answers holds.
async fn many_empty_rooms_hide_nothing(pair: Pair) {
    let (one, two) = (Host::start(&*pair.a, "node-a").await, Host::start(&*pair.b, "node-b").await);
    let names: Vec<String> = (0..2500).map(|number| format!("empty-{number:04}")).collect();
    one.hold(&names).await;
    two.hold(&names[1000..]).await;
    one.enter("empty-0700x", 1).await;
    two.enter("empty-2499x", 1).await;
    one.enter("first", 1).await;
    two.enter("~last", 1).await;
    let expected = named(&[("empty-0700x", 1), ("empty-2499x", 1), ("first", 1), ("~last", 1)]);
    for limit in [1, 3, 100] {
        assert_eq!(all(&*pair.b, None, limit, async |_| ()).await, expected, "pages of {limit}");
    }
}

async fn one_member_is_found(pair: Pair) {
    let one = Host::start(&*pair.a, "node-a").await;
    let clients = one.enter("lobby", 5).await;
    for client in &clients {
        let member = pair.b.member(&room("lobby"), *client).await.expect("member").expect("there");
        assert_eq!((member.id, &*member.name), (*client, "n"));
    }
    assert_eq!(pair.b.member(&room("lobby"), ClientId::random()).await.expect("member"), None);
    assert_eq!(pair.b.member(&room("other"), clients[0]).await.expect("member"), None);
    one.leave("lobby", &clients[..1]).await;
    assert_eq!(pair.b.member(&room("lobby"), clients[0]).await.expect("member"), None);
    assert!(pair.b.member(&room("lobby"), clients[1]).await.expect("member").is_some());
}

async fn nodes_say_how_they_are(pair: Pair) {
    assert_eq!(pair.a.nodes().await.expect("nodes"), []);
    let (two, one) = (Host::start(&*pair.b, "node-b").await, Host::start(&*pair.a, "node-a").await);
    let long = Host::start(&*pair.a, &"n".repeat(64)).await;
    let nodes = pair.a.nodes().await.expect("nodes");
    let expected: Vec<_> = [&long, &one, &two].map(|host| note(&host.name).report(&host.life)).into();
    assert_eq!(nodes, expected);
    pair.b.bury(&two.life, Farewell::Clean).await.expect("buried");
    pair.a.bury(&long.life, Farewell::InHaste).await.expect("buried");
    one.beat(Duration::from_millis(30)).await;
    // Nobody took over yet: it is dead all the same.
    let wait = async {
        while !pair.b.nodes().await.expect("nodes").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("the lease to run out");
}

#[tokio::test(flavor = "local")]
async fn what_strangers_left_among_rooms_and_nodes_stops_nobody() {
    let server = Server::start(&[]);
    let (a, _events) = connect(&server.options("node-a"), 64).await;
    let one = Host::start(&a, "node-a").await;
    one.enter("good", 1).await;
    let key = format!("rc:{{!}}:rooms:{}", one.life);
    let long = "x".repeat(129);
    let _: i64 = server.command(&["ZADD", &key, "0", "", "0", "bad room!", "0", "\u{e9}", "0", &long, "0", "odd"]);
    let _: i64 = server.call(&[b"ZADD", key.as_bytes(), b"0", b"\xff\xfe"]);
    let _: String = server.command(&["SET", "rc:{odd}:p", "no set"]);
    assert_eq!(all(&a, None, 1, async |_| ()).await, named(&[("good", 1)]));
    let _: i64 = server.command(&["HSET", "rc:{!}:nodes", "bad life", "1 2 3", "other~00000001", "nonsense"]);
    let _: i64 =
        server.command(&["ZADD", "rc:{!}:leases", "9e15", "bad life", "9e15", "other~00000001", "9e15", "old~2"]);
    let _: i64 = server.command(&["HSET", "rc:{!}:nodes", "old~2", "4 5 6"]);
    let nodes = a.nodes().await.expect("nodes");
    assert_eq!(nodes.iter().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["node-a", "old"]);
    assert_eq!((nodes[1].connections, nodes[1].rooms, nodes[1].max_connections), (5, 6, None));
    let _: String = server.command(&["SET", "rc:{!}:rooms:old~2", "no set"]);
    let error = a.rooms(RoomsQuestion { after: None, prefix: None, limit: 9 }).await.expect_err("a string is no set");
    assert!(matches!(error, BrokerError::Rejected(_)), "{error}");
}
