//! A client that is told things, without a socket.

use super::*;
use crate::audit::Layout;

fn client(publishers: u32) -> Rc<Client> {
    let plan = Arc::new(Plan { rooms: 1, members: 1, publishers, ..Plan::sample() });
    let layout = Layout { rooms: 1, members: 1, publishers, mode: plan.mode, echo: plan.echo, share: plan.share };
    let clock = Clock::start();
    let audit = Arc::new(Audit::new(plan.run, layout, None, clock));
    let connector = Connector::new(None).expect("a connector");
    let floor = Rc::new(Floor::new(plan, audit, Arc::default(), clock, connector));
    Client::new(&floor, 0, 0, 0).expect("a client")
}

/// Gives how many frames it answers with.
fn tell(client: &Client, text: &str) -> usize {
    let mut output = Output::default();
    client.take_frame(&mut client.me.borrow_mut(), &crate::wire::Frame::Text(text.as_bytes()), &mut output);
    output.frames.len()
}

fn counted(client: &Client, what: Count) -> u64 {
    client.floor.recorder.drain().count(what)
}

const WELCOME: &str = r#"{"type":"welcome","nodeId":"n"}"#;
const NO_JOIN: &str = r#"{"type":"error","code":"unavailable","retryable":true,"ref":0}"#;

fn joined(client: &Client) -> String {
    let room = client.room_name.as_str();
    format!(r#"{{"type":"joined","room":"{room}","mode":"durable","recovery":"fresh","term":"a","seq":0}}"#)
}

#[test]
fn a_flood_of_welcomes_is_answered_once() {
    let client = client(1);
    assert_eq!((0..100).map(|_| tell(&client, WELCOME)).sum::<usize>(), 1);
    let interval = client.floor.recorder.drain();
    assert_eq!((interval.count(Count::Connected), interval.count(Count::OtherErrors)), (1, 99));
}

#[test]
fn a_flood_of_refusals_is_one_retry() {
    let client = client(1);
    tell(&client, WELCOME);
    for _ in 0..100 {
        tell(&client, NO_JOIN);
    }
    assert_eq!(client.floor.retries.borrow().len(), 1);
    tell(&client, &joined(&client));
    client.floor.retries.take();
    client.publish(1);
    // There is no socket: it waits to be sent, which is the only retry there is.
    assert_eq!(client.floor.retries.take().len(), 1);
    client.me.borrow_mut().publisher.as_deref_mut().and_then(|publisher| publisher.get(1)).expect("pending").sent = 1;
    for _ in 0..100 {
        tell(&client, r#"{"type":"error","code":"unavailable","retryable":true,"ref":1}"#);
    }
    assert_eq!(client.floor.retries.borrow().len(), 1);
}

#[test]
fn only_the_own_room_can_be_joined_and_only_once() {
    let client = client(0);
    tell(&client, &joined(&client));
    tell(&client, WELCOME);
    tell(&client, r#"{"type":"joined","room":"another","mode":"durable","recovery":"fresh","term":"a","seq":0}"#);
    assert_eq!(client.floor.gauges.joined.load(Relaxed), 0, "before welcome, and another room");
    tell(&client, &joined(&client));
    tell(&client, &joined(&client));
    assert_eq!(client.floor.gauges.joined.load(Relaxed), 1);
    assert_eq!(counted(&client, Count::OtherErrors), 3);
    assert!(client.leave());
    tell(&client, &joined(&client));
    assert_eq!(client.floor.gauges.joined.load(Relaxed), 0, "it is away");
}

#[test]
fn a_task_that_panics_ends_the_run() {
    let gauges = Gauges::default();
    drop(EndsRun(&gauges));
    assert_eq!(*gauges.fatal.lock().expect("no poison"), None);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = EndsRun(&gauges);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(gauges.fatal.lock().expect("no poison").is_some());
}

/// One message in it that is none must not keep the client out of its room.
#[test]
fn what_came_within_joined_is_read_one_by_one() {
    let client = client(0);
    tell(&client, WELCOME);
    tell(&client, &joined(&client).replace('}', r#","messages":[7,{"type":"message"}]}"#));
    assert_eq!(client.floor.gauges.joined.load(Relaxed), 1);
    assert_eq!(client.floor.audit.findings()[&crate::audit::Finding::Corrupted], 2);
}

#[test]
fn who_is_not_in_a_room_has_nothing_to_reset() {
    let client = client(0);
    let reset = |room| format!(r#"{{"type":"reset","room":"{room}","reason":"gap","term":"a","seq":5}}"#);
    tell(&client, WELCOME);
    tell(&client, &reset(client.room_name.as_str()));
    tell(&client, &joined(&client));
    tell(&client, &reset("another"));
    assert_eq!(counted(&client, Count::OtherErrors), 2);
    tell(&client, &reset(client.room_name.as_str()));
    assert_eq!(client.floor.audit.report().resets["gap"], 1);
}

#[test]
fn what_was_not_sent_cannot_be_acked() {
    let client = client(1);
    tell(&client, WELCOME);
    tell(&client, &joined(&client));
    client.publish(1);
    tell(&client, r#"{"type":"ack","ref":1,"term":"a","seq":1}"#);
    let interval = client.floor.recorder.drain();
    assert_eq!((interval.count(Count::Acked), interval.count(Count::OtherErrors)), (0, 1));
    assert!(!client.is_settled(), "the publish still waits for the socket");
}

#[test]
fn what_a_server_says_is_cut() {
    let client = client(0);
    tell(&client, WELCOME);
    let long = "x".repeat(1_000_000);
    tell(&client, &format!(r#"{{"type":"error","code":"forbidden","message":"{long}","ref":0}}"#));
    assert!(client.floor.gauges.fatal.lock().expect("no poison").as_ref().expect("a reason").len() < 2000);
    let id = format!("{:08x}-0-{long}", client.floor.plan.run);
    let room = client.room_name.as_str();
    tell(&client, &format!(r#"{{"type":"message","room":"{room}","id":"{id}","data":{{"lt":"x"}}}}"#));
    let report = client.floor.audit.report();
    assert!(report.examples.iter().all(|example| example.text.len() < 2000));
}
