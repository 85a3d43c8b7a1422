//! When rooms are spread over the servers of a cluster: one of them dies, slots move, users have few rights.

use super::failover::publish_at_last;
use super::*;
use crate::broker::redis::{ACL_CLUSTER_COMMANDS, ACL_COMMANDS};
use crate::broker::{BrokerError, Range, Trouble};

/// Room names by the third of the slots that they are in: the slots of "a", "b" and "c" are 15495, 3300 and 7365.
const ROOMS: [&str; 3] = ["b", "c", "a"];

/// Channels that are none of a canary.
const ROOM_CHANNELS: &str = "rc:{*";

struct Nodes {
    a: RedisBroker,
    b: RedisBroker,
    _from_a: Events,
    from_b: Events,
    rooms: [RoomName; 3],
}

/// Two nodes, the second with a room in each third of the slots.
async fn start(group: &Sharded) -> Nodes {
    let hasty = |name: &str| RedisOptions { timeout: Duration::from_millis(1500), ..group.options(name) };
    let (a, from_a) = connect(&hasty("node-a"), 64).await;
    let (b, from_b) = connect(&hasty("node-b"), 64).await;
    let rooms = ROOMS.map(room);
    let mut nodes = Nodes { a, b, _from_a: from_a, from_b, rooms };
    for at in 0..3 {
        nodes.b.subscribe(&nodes.rooms[at]).await.expect("subscribed");
        nodes.reaches(at).await;
    }
    nodes
}

impl Nodes {
    /// Waits until what `a` publishes in a room reaches `b`.
    async fn reaches(&mut self, at: usize) {
        let room = self.rooms[at].clone();
        let seq = stored(&publish_at_last(&self.a, &room).await.outcomes)[0];
        self.hears(&room, seq).await;
    }

    /// Waits until `b` hears of a message, or is told to catch up behind it: what a hub needs to miss nothing.
    async fn hears(&mut self, room: &RoomName, seq: u64) {
        loop {
            match self.from_b.next().await {
                Event::Messages(envelope) if envelope.room == *room && first_seq(&envelope) == seq => return,
                Event::Resubscribed if self.top(room).await >= seq => return,
                _ => {}
            }
        }
    }

    /// The last seq that `b` reads, as soon as it can.
    async fn top(&self, room: &RoomName) -> u64 {
        let read = async {
            loop {
                match self.b.history(room, Range::Latest { limit: 1 }).await {
                    Ok(history) => return history.top,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(DEADLINE, read).await.expect("a server has the room")
    }
}

#[tokio::test(flavor = "local")]
async fn rooms_are_spread_and_their_keys_stay_together() {
    let group = Sharded::start_ready();
    let nodes = start(&group).await;
    let rooms = ["a", "b", "c", "b", "a", "a"].map(room);
    let mut groups = nodes.a.together(&rooms);
    groups.sort();
    assert_eq!(groups, [vec![0, 4, 5], vec![1, 3], vec![2]]);
    for (server, room) in group.servers.iter().zip(ROOMS) {
        let keys: Vec<String> = server.command(&["KEYS", "*"]);
        assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with(&format!("rc:{{{room}}}"))), "{keys:?}");
        let channels: Vec<String> = server.command(&["PUBSUB", "SHARDCHANNELS", ROOM_CHANNELS]);
        assert_eq!(channels, [format!("rc:{{{room}}}")]);
        let canaries: Vec<String> = server.command(&["PUBSUB", "SHARDCHANNELS", "rc:canary:*"]);
        assert_eq!(canaries.len(), 2, "one of each node: {canaries:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_dead_master_stops_its_own_rooms_only() {
    let mut group = Sharded::start_ready();
    // Otherwise all servers refuse to work until the replica has taken over.
    for server in &group.servers {
        let _: String = server.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let mut nodes = start(&group).await;
    group.servers[0].kill();
    // Nothing fails in the others, while the room of the first has no server.
    let mut lost = false;
    while !lost || !group.servers[3].is_master() {
        lost |= nodes.a.publish(&nodes.rooms[0], &policy(), &plains(0..1)).await.is_err();
        for at in [1, 2] {
            let room = nodes.rooms[at].clone();
            let published = nodes.a.publish(&room, &policy(), &plains(0..1)).await.expect("another server's room");
            nodes.hears(&room, stored(&published.outcomes)[0]).await;
        }
    }
    nodes.reaches(0).await;
    until("all is well", || nodes.a.is_up() && nodes.b.is_up()).await;
    // What the old master had not passed on is lost, and members may be among it.
    // More than once if a layout from before was heard of meanwhile.
    assert!([&nodes.a, &nodes.b].iter().all(|node| node.signs().upheavals() > 0));

    // The old master comes back as the replica of its replica.
    group.servers[0].restart();
    for at in [0, 1, 2, 0, 1, 2] {
        nodes.reaches(at).await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_planned_failover_of_a_shard_is_followed() {
    let group = Sharded::start_ready();
    let mut nodes = start(&group).await;
    let _: String = group.servers[3].command(&["CLUSTER", "FAILOVER"]);
    until("the replica is a master", || group.servers[3].is_master()).await;
    for at in [1, 2] {
        nodes.reaches(at).await;
    }
    // What is published before it has moved may be lost on the bus; it is told to catch up.
    until("the subscription has moved, too", || {
        group.servers[3].command::<Vec<String>>(&["PUBSUB", "SHARDCHANNELS", ROOM_CHANNELS]) == ["rc:{b}"]
    })
    .await;
    nodes.reaches(0).await;
    until("all is well", || nodes.a.is_up() && nodes.b.is_up()).await;
}

/// Who waits for it in vain is one caller, as with a single server.
#[tokio::test(flavor = "local")]
async fn a_server_that_hangs_is_asked_by_nobody_else() {
    let group = Sharded::start_ready();
    let nodes = start(&group).await;
    group.servers[0].signal("STOP");
    let publish = async || nodes.a.publish(&nodes.rooms[0], &policy(), &plains(0..1)).await.expect_err("it hangs");
    assert!(matches!(publish().await, BrokerError::Undecided(_)));
    let error = publish().await;
    assert!(matches!(&error, BrokerError::Unavailable(why) if why == "does not answer"), "{error}");
    nodes.a.publish(&nodes.rooms[1], &policy(), &plains(0..1)).await.expect("another server's room");
    group.servers[0].signal("CONT");
}

/// What only one server's canary can show is trouble, and the rooms of the others go on.
#[tokio::test(flavor = "local")]
async fn one_server_whose_canary_is_not_heard_is_trouble() {
    let group = Sharded::start_ready();
    let mut nodes = start(&group).await;
    // Subscribers of what is not allowed any more are disconnected, and not let in again.
    let _: String = group.servers[1].command(&["ACL", "SETUSER", "default", "resetchannels", "&rc:{*"]);
    until("it is noticed", || nodes.b.trouble().is_some()).await;
    for at in [0, 2] {
        nodes.reaches(at).await;
    }
    assert!(matches!(nodes.b.trouble(), Some(Trouble::Subscription | Trouble::Canary)), "{:?}", nodes.b.trouble());
    let _: String = group.servers[1].command(&["ACL", "SETUSER", "default", "allchannels"]);
    until("all is well", || nodes.a.is_up() && nodes.b.is_up()).await;
    nodes.reaches(1).await;
}

#[tokio::test(flavor = "local")]
async fn a_canary_follows_when_its_slot_moves() {
    let group = Sharded::start_ready();
    let mut nodes = start(&group).await;
    let canaries = || group.servers[0].command::<Vec<String>>(&["PUBSUB", "SHARDCHANNELS", "rc:canary:*"]);
    let before = canaries();
    let slot = group.servers[0].command::<u16>(&["CLUSTER", "KEYSLOT", &before[0]]).to_string();
    let to = group.servers[1].command::<String>(&["CLUSTER", "MYID"]);
    for server in [1, 0, 2] {
        let _: String = group.servers[server].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
    }
    until("both have another", || {
        let now = canaries();
        now.len() == 2 && now.iter().all(|channel| !before.contains(channel))
    })
    .await;
    until("all is well", || nodes.a.is_up() && nodes.b.is_up()).await;
    for at in 0..3 {
        nodes.reaches(at).await;
    }
}

#[tokio::test(flavor = "local")]
async fn one_server_that_drops_rooms_is_trouble() {
    let group = Sharded::start_ready();
    let _: String = group.servers[2].command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let (sender, _events) = Events::channel("node-a", 64);
    let a = RedisBroker::connect(&group.options("node-a"), sender, stats()).expect("good options");
    until("it is noticed", || a.trouble() == Some(Trouble::Eviction)).await;
}

/// Moves the slot of a room while messages are published, as `redis-cli --cluster reshard` does it.
#[tokio::test(flavor = "local")]
async fn a_slot_moves_under_load() {
    let group = Sharded::start_ready();
    let mut nodes = start(&group).await;
    let (from, to, slot) = (&group.servers[0], &group.servers[1], "3300");
    let ids = [from, to].map(|server| server.command::<String>(&["CLUSTER", "MYID"]));
    let room = nodes.rooms[0].clone();
    let before = nodes.a.history(&room, Range::Latest { limit: 0 }).await.expect("history").top;

    let _: String = to.command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &ids[0]]);
    let _: String = from.command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &ids[1]]);
    // A new id is not there yet, the room is: for a moment Redis can only say "try again".
    let error = nodes.a.publish(&room, &policy(), &[idempotent("new", "x")]).await.expect_err("not now");
    assert!(matches!(error, BrokerError::Unavailable(_) | BrokerError::Undecided(_)), "{error}");
    let keys: Vec<String> = from.command(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
    for key in &keys {
        let _: String = from.command(&["MIGRATE", "127.0.0.1", &to.port.to_string(), key, "0", "5000"]);
    }
    // All that a call needs is there, and the slot is not: it is sent on with ASKING.
    let asked = nodes.a.publish(&room, &policy(), &plains(0..1)).await.expect("published");
    assert_eq!(stored(&asked.outcomes), [before + 1]);
    // So are those of the pipelined calls that it does not have any more.
    let tops = nodes.a.tops(&nodes.rooms).await.expect("tops");
    let seqs: Vec<u64> = tops.into_iter().flatten().map(|top| top.seq).collect();
    assert!(seqs.len() == 3 && seqs[0] == before + 1 && seqs[1] > 0 && seqs[2] > 0, "{seqs:?}");
    for server in [to, from, &group.servers[2]] {
        let _: String = server.command(&["CLUSTER", "SETSLOT", slot, "NODE", &ids[1]]);
    }
    let moved = nodes.a.publish(&room, &policy(), &plains(0..1)).await.expect("follows the slot");
    assert_eq!(stored(&moved.outcomes), [before + 2]);
    nodes.from_b.resubscribed().await;
    for at in [0, 1, 2, 0] {
        nodes.reaches(at).await;
    }
    let channels: Vec<String> = to.command(&["PUBSUB", "SHARDCHANNELS", ROOM_CHANNELS]);
    assert_eq!(channels.len(), 2, "{channels:?}");
    assert_eq!(nodes.a.signs().upheavals(), 0, "nothing is lost with a slot that moves");
}

#[tokio::test(flavor = "local")]
async fn a_silent_server_hides_only_where_its_own_rooms_stand() {
    let group = Sharded::start_lone();
    for server in &group.servers {
        let _: String = server.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let nodes = start(&group).await;
    let asked = |server: &Server| {
        let stats: String = server.command(&["INFO", "commandstats"]);
        let line = stats.lines().find(|line| line.starts_with("cmdstat_hmget:calls=")).unwrap_or_default();
        line.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect::<String>()
    };
    let (patient, usual) = (RedisOptions { timeout: DEADLINE, ..group.options("node-c") }, group.options("node-d"));
    let ((patient, _events), (usual, _others)) = (connect(&patient, 64).await, connect(&usual, 64).await);
    group.servers[0].signal("STOP");

    // One call, none waits for another: the sound servers are asked while the silent one has all the time.
    let before = [1, 2].map(|at| asked(&group.servers[at]));
    let all = patient.tops(&nodes.rooms);
    let others = until("the others are asked", || [1, 2].iter().all(|&at| asked(&group.servers[at]) != before[at - 1]));
    tokio::select! {
        biased;
        () = others => {}
        tops = all => panic!("without the silent one: {tops:?}"),
    }
    let known: Vec<bool> = usual.tops(&nodes.rooms).await.expect("two say it").iter().map(Option::is_some).collect();
    assert_eq!(known, [false, true, true]);
    let lost = usual.tops(&nodes.rooms[..1]).await.expect_err("nobody says it");
    assert!(matches!(lost, BrokerError::Undecided(_) | BrokerError::Unavailable(_)), "{lost}");
    group.servers[0].signal("CONT");
    nodes.top(&nodes.rooms[0]).await;
}

/// One server answers at once, and knows only who does not.
#[tokio::test(flavor = "local")]
async fn where_no_room_stands_is_an_error() {
    let group = Sharded::start_lone();
    let nodes = start(&group).await;
    let (from, to, slot) = (&group.servers[0], &group.servers[1], "3300");
    let ids = [from, to].map(|server| server.command::<String>(&["CLUSTER", "MYID"]));
    let _: String = to.command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &ids[0]]);
    let _: String = from.command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &ids[1]]);
    for key in from.command::<Vec<String>>(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]) {
        let _: String = from.command(&["MIGRATE", "127.0.0.1", &to.port.to_string(), &key, "0", "5000"]);
    }
    to.signal("STOP");
    let lost = nodes.a.tops(&nodes.rooms[..1]).await.expect_err("nobody says it");
    assert!(matches!(lost, BrokerError::Undecided(_) | BrokerError::Unavailable(_)), "{lost}");
    to.signal("CONT");
    nodes.top(&nodes.rooms[0]).await;
}

#[tokio::test(flavor = "local")]
async fn one_server_that_answers_is_enough_to_find_the_others() {
    let group = Sharded::shared();
    let port = group.servers[2].port;
    let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{port}");
    let (a, _events) = connect(&RedisOptions { url, ..apart(group.options("node-a")) }, 64).await;
    for name in ROOMS {
        a.publish(&room(name), &policy(), &plains(0..1)).await.expect("published");
    }
}

#[tokio::test(flavor = "local")]
async fn a_cluster_user_with_few_rights_is_enough() {
    let group = Sharded::start_ready();
    let mut rule = vec!["ACL", "SETUSER", "roomcast", "on", ">s3cret", "~rc:*", "resetchannels", "&rc:*", "-@all"];
    rule.extend(ACL_COMMANDS.split_whitespace().chain(ACL_CLUSTER_COMMANDS.split_whitespace()));
    for server in &group.servers {
        let _: String = server.command(&rule);
        let _: String = server.command(&["ACL", "SETUSER", "default", "resetpass", ">other", "-@all"]);
    }
    let url = group.options("a").url.replace("://", "://roomcast:s3cret@");
    let options = RedisOptions { url, ..group.options("node-a") };
    let (a, _from_a) = connect(&options, 64).await;
    let (b, mut from_b) = connect(&RedisOptions { node: node("node-b"), ..options }, 64).await;
    for room in ROOMS.map(room) {
        b.subscribe(&room).await.expect("subscribed");
        a.publish(&room, &policy(), &[idempotent("i", "x")]).await.expect("published");
        assert_eq!(first_seq(&from_b.messages().await), 1);
        a.broadcast(&room, &plains(0..1)).await.expect("sent");
        from_b.messages().await;
        a.members(&room, None, 5).await.expect("members");
        b.unsubscribe(&room);
    }
    b.subscribe(&room("other")).await.expect("subscribed");
}

/// A name cannot bring a hash tag of its own, nor be taken for the cluster's.
#[test]
fn no_room_name_can_choose_its_slot() {
    for name in ["{a}", "a{b}", "}", "{", "!", ""] {
        assert!(RoomName::new(name).is_err(), "{name}");
    }
}
