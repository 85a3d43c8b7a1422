//! Nodes on several servers: a master that sentinels replace, and a Redis Cluster that loses one of its own.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, Frame, Node, Redis, eventually, room, within};

/// Publishes until it is stored; every refusal must allow it.
async fn insist(client: &mut Client, room: &str, id: &str) -> u64 {
    let ask = json!({"type": "publish", "room": room, "id": id, "data": id, "ref": id});
    within("the message to be stored", async {
        loop {
            client.send(ask.clone()).await;
            let answer = client.answer(&json!(id)).await;
            if answer.kind() == "ack" {
                return answer.seq();
            }
            assert_eq!(answer["retryable"], true, "{}", answer.text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

async fn answers(redis: &Redis, line: &str, wanted: &str, count: usize) {
    eventually(line, || async {
        redis.command(line).await.filter(|answer| answer.matches(wanted).count() == count).map(|_| ())
    })
    .await;
}

/// Waits until the replica has what the master has: acknowledged is not replicated, and only what is there survives.
async fn replicated(master: &Redis) {
    let offset = |info: &str, key: &str| -> Option<u64> {
        let (_, rest) = info.split_once(key)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let stored = offset(&master.info("replication").await, "master_repl_offset:").expect("an offset");
    eventually("the replica to have it all", || async {
        (offset(&master.info("replication").await, ",offset=")? >= stored).then_some(())
    })
    .await;
}

/// Reads what a member gets until the message with `id`, and checks that each seq comes once and in order.
async fn reads_until(member: &mut Client, room: &str, id: &str, last: &mut u64) {
    loop {
        let frame = member.find("a message or a reset", |f| ["message", "reset"].contains(&f.kind())).await;
        if frame["room"] != room {
            continue;
        }
        assert_eq!(frame.kind(), "message", "{}", frame.text);
        assert_eq!(frame.seq(), *last + 1, "{}", frame.text);
        *last = frame.seq();
        if frame["id"] == id {
            return;
        }
    }
}

#[tokio::test]
async fn clients_stay_through_a_failover_by_sentinels() {
    let mut master = Redis::start_with(&["--repl-diskless-sync-delay", "0"]).await;
    let port = master.port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        sentinels.push(Redis::start_sentinel(master.port()).await);
    }
    for sentinel in &sentinels {
        answers(sentinel, "SENTINEL SENTINELS main", "runid", 2).await;
        answers(sentinel, "SENTINEL REPLICAS main", "runid", 1).await;
        // One that stood still while it started, for its disk or a core, does nothing for the next 30 s.
        answers(sentinel, "INFO sentinel", "sentinel_tilt:0", 1).await;
    }
    answers(&replica, "INFO replication", "master_link_status:up", 1).await;

    let hosts: Vec<String> = sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
    let url = format!("redis+sentinel://{}/main", hosts.join(","));
    let args = ["--abuse-limit", "1000", "--publish-rate", "0"];
    let nodes = [Node::join_at(&url, "n-1", &args).await, Node::join_at(&url, "n-2", &args).await];
    let name = room();
    let (mut writer, _) = Client::enter(&nodes[0], &name).await;
    let (mut reader, _) = Client::enter(&nodes[1], &name).await;
    for number in 0..10 {
        writer.publish(&name, json!(number)).await;
    }
    replicated(&master).await;
    let messages = reader.messages(&name, 10).await;
    assert_eq!(messages.last().map(Frame::seq), Some(10));

    master.stop().await;
    let after = insist(&mut writer, &name, "after").await;
    assert!(after > 10);
    insist(&mut writer, &name, "last").await;
    let last = reader.find("what was published after the failover", |f| f["id"] == "last").await;
    assert_eq!(last.kind(), "message");
    for node in &nodes {
        node.wait_ready(true).await;
    }
}

/// Rooms whose slots are in the first, second and third third: 3300, 7365 and 15495.
const ROOMS: [&str; 3] = ["b", "c", "a"];

async fn redis_cluster() -> Vec<Redis> {
    let mut servers = Vec::new();
    for _ in 0..6 {
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "3000", "--cluster-port", "BUS"];
        let more = ["--repl-diskless-sync-delay", "0", "--cluster-require-full-coverage", "no"];
        servers.push(Redis::start_with(&[&args[..], &more].concat()).await);
    }
    for (at, server) in servers.iter().enumerate() {
        server.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1)).await.expect("an answer");
        if let Some(slots) = ["0 5460", "5461 10922", "10923 16383"].get(at) {
            server.command(&format!("CLUSTER ADDSLOTSRANGE {slots}")).await.expect("an answer");
        }
        let (port, bus) = (servers[0].port(), servers[0].bus());
        server.command(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")).await.expect("an answer");
    }
    for server in &servers {
        answers(server, "CLUSTER NODES", "connected", 6).await;
        answers(server, "CLUSTER NODES", "handshake", 0).await;
    }
    for (replica, master) in servers[3..].iter().zip(&servers) {
        let id = master.command("CLUSTER MYID").await.expect("an answer");
        let id = id.lines().nth(1).expect("an id").trim();
        replica.command(&format!("CLUSTER REPLICATE {id}")).await.expect("an answer");
    }
    for server in &servers {
        answers(server, "CLUSTER INFO", "cluster_state:ok", 1).await;
        answers(server, "CLUSTER NODES", "slave", 3).await;
    }
    for replica in &servers[3..] {
        answers(replica, "INFO replication", "master_link_status:up", 1).await;
    }
    servers
}

/// What the bus loses without a trace is found by the sweep, also while another part of the cluster does not answer.
#[tokio::test]
async fn a_silent_part_of_a_redis_cluster_keeps_only_its_own_rooms_from_being_swept() {
    let servers = redis_cluster().await;
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", servers[1].port(), servers[2].port());
    let sound = Node::join_at(&url, "n-1", &[]).await;
    let deaf = Node::join_at(&url, "n-2", &["--sabotage", "lose-bus=1", "--sweep-interval", "500ms"]).await;
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for name in ROOMS {
        writers.push(Client::enter(&sound, name).await.0);
        readers.push(Client::enter(&deaf, name).await.0);
    }
    // With its replica, so that nobody takes over.
    for server in [&servers[3], &servers[0]] {
        server.signal(Signal::STOP);
    }
    for round in 0..3 {
        for at in [1, 2] {
            let acked = writers[at].publish(ROOMS[at], json!(round)).await;
            let found = readers[at].find("what the bus lost", |f| f.kind() == "message").await;
            assert_eq!((&found["id"], found.seq()), (&acked["id"], round + 1), "{}", found.text);
        }
    }
    for server in [&servers[0], &servers[3]] {
        server.signal(Signal::CONT);
    }
    insist(&mut writers[0], ROOMS[0], "back").await;
    let back = readers[0].find("what was published afterwards", |f| f["id"] == "back").await;
    assert_eq!(back.kind(), "message", "{}", back.text);
}

#[tokio::test]
async fn a_redis_cluster_loses_a_master_and_only_its_rooms_wait() {
    let mut servers = redis_cluster().await;
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", servers[1].port(), servers[2].port());
    let args = ["--abuse-limit", "100000", "--publish-rate", "0"];
    let nodes = [Node::join_at(&url, "n-1", &args).await, Node::join_at(&url, "n-2", &args).await];
    let (mut writers, mut readers, mut seqs) = (Vec::new(), Vec::new(), [0; 3]);
    for (name, last) in ROOMS.iter().zip(&mut seqs) {
        writers.push(Client::enter(&nodes[0], name).await.0);
        readers.push(Client::enter(&nodes[1], name).await.0);
        let reader = readers.last_mut().expect("pushed");
        writers.last_mut().expect("pushed").publish(name, json!("before")).await;
        insist(writers.last_mut().expect("pushed"), name, "first").await;
        reads_until(reader, name, "first", last).await;
    }
    replicated(&servers[0]).await;

    servers[0].stop().await;
    let mut number = 0;
    loop {
        // The rooms of the others: every message is stored at the first try and arrives.
        for at in [1, 2] {
            let acked = writers[at].publish(ROOMS[at], json!(number)).await;
            let id = acked["id"].as_str().expect("an id").to_owned();
            reads_until(&mut readers[at], ROOMS[at], &id, &mut seqs[at]).await;
        }
        number += 1;
        let info = servers[3].command("INFO replication").await.expect("an answer");
        if info.contains("role:master") {
            break;
        }
    }
    insist(&mut writers[0], ROOMS[0], "back").await;
    let back = readers[0].find("what was published after the failover", |f| f["id"] == "back").await;
    assert_eq!(back.kind(), "message", "{}", back.text);
    for node in &nodes {
        node.wait_ready(true).await;
    }
}
