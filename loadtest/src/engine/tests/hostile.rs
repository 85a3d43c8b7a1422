//! Whole runs against servers that break the rules, or only half work.

use super::*;
use crate::plan::{Backoff, Target};
use crate::wire::fake::{Fake, Peer};

/// Nobody publishes; who is thrown out comes back at once.
fn plan(server: &Fake, members: u32) -> Plan {
    Plan {
        targets: vec![Target::at(server.address)],
        mode: Mode::Ephemeral,
        rooms: 1,
        members,
        publishers: 0,
        rate: 0.0,
        connect_timeout: Duration::from_secs(1),
        backoff: Backoff { base: Duration::from_millis(1), most: Duration::from_millis(1) },
        duration: Duration::from_millis(200),
        ..Plan::sample()
    }
}

fn welcome(peer: &mut Peer, ping_ms: u64) {
    peer.tell(&format!(
        r#"{{"type":"welcome","clientId":"c","nodeId":"fake","pingIntervalMs":{ping_ms},"limits":{{"messageBytes":65536}}}}"#
    ));
}

/// Waits for a join, and gives the answer to it.
fn joined(peer: &mut Peer) -> Option<String> {
    let join: serde_json::Value = serde_json::from_str(&peer.hear()?).expect("JSON");
    assert_eq!(join["type"], "join");
    let room = join["room"].as_str().expect("a room");
    Some(format!(r#"{{"type":"joined","ref":0,"room":"{room}","mode":"ephemeral","recovery":"fresh","messages":[]}}"#))
}

fn let_in(peer: &mut Peer) {
    if let Some(joined) = joined(peer) {
        peer.tell(&joined);
    }
}

fn absent(report: &Report) -> u64 {
    report.audit.absent_members
}

#[tokio::test]
async fn who_is_not_welcomed_in_time_tries_again() {
    let server = Fake::start(|peer, number| {
        if number != 1 {
            welcome(peer, 60_000);
            let_in(peer);
        }
        peer.hear_out();
    });
    let report = carry_out_there(plan(&server, 2)).await;
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((count(&report, Count::Connected), count(&report, Count::ConnectFailed)), (2, 1));
    assert_eq!(report.connect_failures.keys().collect::<Vec<_>>(), ["no welcome in time"]);
    assert_eq!((count(&report, Count::Disconnected), absent(&report)), (0, 0));
}

#[tokio::test]
async fn a_join_without_an_answer_is_tried_again_elsewhere() {
    let server = Fake::start(|peer, number| {
        welcome(peer, 60_000);
        if number > 0 {
            let_in(peer);
        }
        peer.hear_out();
    });
    let report = carry_out_there(plan(&server, 1)).await;
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((count(&report, Count::Connected), count(&report, Count::Joined)), (2, 1));
    assert_eq!(report.closes.keys().collect::<Vec<_>>(), ["no joined in time"]);
    assert_eq!(absent(&report), 0);
}

/// It keeps the connection open and says nothing, as a machine does that lost its power.
#[tokio::test]
async fn a_server_that_fell_silent_is_left() {
    let server = Fake::start(|peer, number| {
        welcome(peer, 500);
        let_in(peer);
        if number == 0 {
            peer.hear_out();
        }
        while peer.ping() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let report = carry_out_there(Plan { duration: Duration::from_secs(5), ..plan(&server, 1) }).await;
    assert_eq!(report.problems, Vec::<String>::new());
    // The second connection, which is pinged and not told anything, is kept.
    assert_eq!((count(&report, Count::Disconnected), count(&report, Count::Joined)), (1, 2));
    assert_eq!(report.closes.keys().collect::<Vec<_>>(), ["nothing heard for two ping intervals"]);
    assert_eq!(absent(&report), 0);
}

#[tokio::test]
async fn a_server_that_asks_for_centuries_ends_no_thread() {
    let server = Fake::start(|peer, _| {
        welcome(peer, 60_000);
        let_in(peer);
        std::thread::sleep(Duration::from_millis(300));
        peer.tell(&format!(r#"{{"type":"reconnect","reason":"x","afterMs":{}}}"#, u64::MAX));
        peer.close(1012);
    });
    let settle = Duration::from_millis(100);
    let report = carry_out_there(Plan { settle, duration: Duration::from_secs(1), ..plan(&server, 1) }).await;
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((count(&report, Count::Disconnected), count(&report, Count::Connected), absent(&report)), (1, 1, 1));
}

#[tokio::test]
async fn who_is_told_twice_that_it_joined_counts_once() {
    let server = Fake::start(|peer, number| {
        if number == 0 {
            welcome(peer, 60_000);
            let joined = joined(peer).expect("a join");
            peer.tell(&joined);
            peer.tell(&joined);
        }
        peer.hear_out();
    });
    let report = carry_out_there(plan(&server, 2)).await;
    assert!(report.problems[0].starts_with("1 of 2 clients are not in their rooms"), "{:?}", report.problems);
    assert_eq!((count(&report, Count::Joined), count(&report, Count::OtherErrors)), (1, 1));
}
