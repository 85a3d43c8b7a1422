//! Clients that come and go in many rooms while Redis is cut off, killed, emptied and taken back in time: every request is answered, and
//! when it is quiet again everyone is where it was told to be.
//!
//! Seeded. `CHURN_SEEDS=100-119` runs those one after the other; a seed repeats the requests and the faults, not the
//! moments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Client, Links, Network, Node, Proxy, Redis};

const CLIENTS: usize = 24;
const ROOMS: usize = 40;
/// Faults of one run.
const FAULTS: usize = 8;

/// `SplitMix64`: the same numbers for the same seed, whatever the version of a library.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// A client, the rooms it was told it is in, and where it stood in those it left.
struct Guest {
    client: Client,
    dice: Dice,
    rooms: BTreeSet<String>,
    left: BTreeMap<String, Value>,
    asked: u64,
}

fn room(number: usize) -> String {
    // Each fourth is ephemeral.
    format!("{}-{number}", if number.is_multiple_of(4) { "live" } else { "room" })
}

impl Guest {
    /// Asks, and waits for the answer: `wanted`, or an error that may be asked again.
    async fn ask(&mut self, mut frame: Value, wanted: &str) -> Option<Value> {
        self.asked += 1;
        let reference = json!(self.asked);
        frame["ref"] = reference.clone();
        self.client.send(frame.clone()).await;
        // What came in between is of no interest, and must not pile up.
        let answer = self.client.answer(&reference).await;
        if answer.kind() == wanted {
            return Some(serde_json::from_str(&answer.text).expect("JSON"));
        }
        assert_eq!((answer.kind(), &answer["retryable"]), ("error", &json!(true)), "{frame}: {}", answer.text);
        None
    }

    async fn join(&mut self, room: &str) -> bool {
        let mut frame = json!({"type": "join", "room": room});
        if let Some(since) = self.left.get(room).filter(|since| !since["term"].is_null()) {
            frame["since"] = since.clone();
        }
        let Some(joined) = self.ask(frame, "joined").await else { return false };
        self.left.insert(room.to_owned(), json!({"term": joined["term"], "seq": joined["seq"]}));
        self.rooms.insert(room.to_owned())
    }

    async fn act(&mut self) {
        let room = room(self.dice.below(ROOMS));
        if !self.rooms.contains(&room) {
            self.join(&room).await;
        } else if self.dice.below(3) == 0 {
            self.ask(json!({"type": "leave", "room": room}), "left").await.expect("a member may leave");
            self.rooms.remove(&room);
        } else {
            let ack = self.ask(json!({"type": "publish", "room": room, "data": self.asked}), "ack").await;
            // Where it comes back to: after a restore, that is beyond what Redis has.
            if let Some(ack) = ack.filter(|ack| ack["seq"].is_u64()) {
                self.left.insert(room, json!({"term": ack["term"], "seq": ack["seq"]}));
            }
        }
        if self.asked.is_multiple_of(16) {
            self.client.settle().await;
        }
    }

    async fn act_until(mut self, end: Arc<AtomicBool>) -> Self {
        while !end.load(Ordering::Relaxed) {
            self.act().await;
        }
        self
    }
}

async fn harm(redis: &mut Redis, network: &Proxy, dice: &mut Dice) {
    let pause = Duration::from_millis(50 + dice.below(400) as u64);
    match dice.below(8) {
        0 => drop(redis.command("CLIENT KILL TYPE pubsub").await),
        1 => drop(redis.command("CLIENT KILL TYPE normal").await),
        2 => {
            redis.command("CLIENT KILL TYPE pubsub").await;
            redis.command("CLIENT KILL TYPE normal").await;
        }
        3 => {
            redis.stop().await;
            tokio::time::sleep(pause).await;
            // On the same port, and as it was when it was last saved, or with nothing: leases, members, terms, streams.
            redis.resume().await;
        }
        4 => {
            network.make(Network::Silent(Links::All));
            tokio::time::sleep(pause * 6).await;
            network.make(Network::Good);
        }
        5 => drop(redis.command("SAVE").await),
        6 => {
            redis.command("SAVE").await;
            tokio::time::sleep(pause).await;
            redis.stop().await;
            redis.resume().await;
        }
        _ => {
            network.make(Network::Slow(Duration::from_millis(30)));
            tokio::time::sleep(pause).await;
            network.make(Network::Good);
        }
    }
    tokio::time::sleep(pause).await;
}

/// Whoever was told that it is in a room hears it, and is known to be there.
async fn all_are_there(guests: &mut [Guest], nodes: &[Node], seed: u64) {
    for node in nodes {
        node.wait_ready(true).await;
    }
    let names: BTreeSet<String> = guests.iter().flat_map(|guest| guest.rooms.clone()).collect();
    for name in names {
        let (here, _): (Vec<_>, Vec<_>) = (0..guests.len()).partition(|at| guests[*at].rooms.contains(&name));
        let word = format!("{seed} {name}");
        for publisher in [here[0], here[here.len() - 1]] {
            let frame = json!({"type": "publish", "room": name, "data": word});
            while guests[publisher].ask(frame.clone(), "ack").await.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            for at in &here {
                let what = format!("seed {seed}: client {at} to hear {publisher} in {name}");
                let heard = |f: &crate::support::Frame| f.kind() == "message" && f["data"] == json!(word);
                guests[*at].client.find(&what, heard).await;
            }
        }
        let ids: BTreeSet<String> = here.iter().map(|at| guests[*at].client.id().to_owned()).collect();
        are_known(&mut guests[here[0]], &name, &ids, seed).await;
    }
}

/// Who is in the room is who was told so, as soon as leases that were lost have run out.
async fn are_known(guest: &mut Guest, room: &str, ids: &BTreeSet<String>, seed: u64) {
    let mut known = BTreeSet::new();
    for _ in 0..200 {
        let answer = guest.ask(json!({"type": "members", "room": room, "limit": 100}), "members").await;
        let members = answer.as_ref().and_then(|answer| answer["members"].as_array());
        known = members.into_iter().flatten().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect();
        if known == *ids {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let [ghosts, missing] = [known.difference(ids), ids.difference(&known)].map(Iterator::collect::<Vec<_>>);
    panic!("seed {seed}: {room} has the ghosts {ghosts:?}, and {missing:?} are missing");
}

async fn run(seed: u64) {
    let mut redis = Redis::start().await;
    let network = Proxy::to(&redis).await;
    let toml = "[[rooms]]\npattern = \"live-*\"\nmode = \"ephemeral\"\n";
    let args = ["--workers", "2", "--unsubscribe-delay", "0s", "--sweep-interval", "1h", "--publish-rate", "0"];
    let more = [
        "--abuse-limit",
        "1000000",
        "--redis",
        &network.url(),
        "--redis-timeout",
        "1s",
        "--lease-beat",
        "500ms",
        "--lease-expiry",
        "2s",
    ];
    let mut nodes = Vec::new();
    for id in ["n-1", "n-2"] {
        nodes.push(Node::start_with(&[&args[..], &more, &["--node-id", id]].concat(), toml).await);
    }
    let end = Arc::new(AtomicBool::new(false));
    let mut acting = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client::connect(&nodes[number % 2], "/connect").await;
        let dice = Dice(seed.wrapping_mul(1000).wrapping_add(number as u64));
        let guest = Guest { client, dice, rooms: BTreeSet::new(), left: BTreeMap::new(), asked: 0 };
        acting.spawn(guest.act_until(Arc::clone(&end)));
    }
    let mut dice = Dice(seed);
    for _ in 0..FAULTS {
        harm(&mut redis, &network, &mut dice).await;
    }
    end.store(true, Ordering::Relaxed);
    let mut guests = acting.join_all().await;
    all_are_there(&mut guests, &nodes, seed).await;
}

#[tokio::test]
async fn every_join_is_answered_whatever_happens_to_redis() {
    let seeds = std::env::var("CHURN_SEEDS").unwrap_or_else(|_| "1-2".to_owned());
    let (first, last) = seeds.split_once('-').expect("CHURN_SEEDS=first-last");
    for seed in first.parse::<u64>().expect("a number")..=last.parse().expect("a number") {
        run(seed).await;
        eprintln!("seed {seed} passed");
    }
}
