//! Made-up reports that look like real ones: for tests, and for looking at the summary and the page.
//!
//! `cargo run -p roomcast-loadtest --example sample_report -- failed` writes one as JSON.

use std::collections::BTreeMap;

use roomcast_loadtest::record::{Count, Interval, Latency, Reason};
use roomcast_loadtest::report::{
    AuditReport, Collector, Example, Finding, Generator, Happening, HappeningKind, Report, RunInfo, Sample,
};

/// What happens in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A node is killed on the way, and nothing is lost.
    Passed,
    /// As above, and three messages are lost.
    Failed,
    /// The generator is too slow.
    Invalid,
}

impl Story {
    #[allow(dead_code, reason = "the example's")]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "passed" => Some(Self::Passed),
            "failed" => Some(Self::Failed),
            "invalid" => Some(Self::Invalid),
            _ => None,
        }
    }
}

const START_S: u64 = 1_790_000_000;
const RAMP_S: u64 = 12;
const LOAD_S: u64 = 60;
const SETTLE_S: u64 = 3;
const ROOMS: u64 = 200;
const MEMBERS: u64 = 20;
/// Per second, all rooms.
const RATE: u64 = 4000;
/// A node is gone this long after the load began.
const KILL_S: u64 = 30;
const NODES: [&str; 3] =
    ["http://10.0.0.11:9090/metrics", "http://10.0.0.12:9090/metrics", "http://10.0.0.13:9090/metrics"];

/// One process's report.
///
/// # Panics
/// Never: its thresholds are well written.
pub fn sample(story: Story) -> Report {
    let mut collector = Collector::new();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for second in 0..RAMP_S + LOAD_S + SETTLE_S {
        let loaded = second.checked_sub(RAMP_S).filter(|loaded| *loaded < LOAD_S);
        let away = loaded.filter(|loaded| (KILL_S..KILL_S + 2).contains(loaded)).map_or(0, |_| ROOMS * MEMBERS / 3);
        let joined = (ROOMS * MEMBERS * (second + 1) / (RAMP_S - 1)).min(ROOMS * MEMBERS);
        collector.connections(joined - away);
        collector.interval(START_S + second, &interval(&mut dice, story, second, loaded));
        for (index, node) in NODES.iter().enumerate() {
            if let Some(sample) = node_sample(&mut dice, index, second, loaded) {
                collector.sample(node, sample);
            }
        }
    }
    for event in events() {
        collector.event(event);
    }
    if story == Story::Failed {
        collector.findings((START_S + RAMP_S + KILL_S) * 1000 + 640, &BTreeMap::from([(Finding::Lost, 3)]));
    }
    let asserts = ["delivery.p99<250ms", "received.rate>=70k/s"].map(|text| text.parse().expect("a good threshold"));
    collector.finish(run(), generator(story), audit(story), &asserts)
}

fn interval(dice: &mut Dice, story: Story, second: u64, loaded: Option<u64>) -> Interval {
    let mut interval = Interval::new();
    let mut count = |what: Count, by: u64| interval.counts[what as usize] += by;
    if second < RAMP_S - 1 {
        let new = ROOMS * MEMBERS / (RAMP_S - 1);
        count(Count::Connected, new);
        count(Count::Joined, new);
        count(Count::OtherFrames, 3 * new);
    }
    if let Some(loaded) = loaded {
        let dip = if (KILL_S..KILL_S + 2).contains(&loaded) { 3 } else { 0 };
        let sent = RATE - RATE * dip / 9;
        for what in [Count::Due, Count::Sent, Count::Acked] {
            count(what, sent);
        }
        count(Count::Received, sent * (MEMBERS - 1) - sent * (MEMBERS - 1) * dip / 9);
        count(Count::BytesIn, sent * MEMBERS * 412);
        count(Count::BytesOut, sent * 340);
        if loaded == KILL_S {
            count(Count::Disconnected, ROOMS * MEMBERS / 3);
            count(Count::PublishErrors, 37);
            count(Count::Retried, 37);
            count(Count::ConnectFailed, 41);
        }
        if loaded == KILL_S + 2 {
            count(Count::Connected, ROOMS * MEMBERS / 3);
            count(Count::Joined, ROOMS * MEMBERS / 3);
            count(Count::Replayed, 24_310);
        }
    }
    latencies(dice, story, second, loaded, &mut interval);
    if loaded == Some(KILL_S) {
        interval.reasons[Reason::Close as usize].add("lost", ROOMS * MEMBERS / 3);
        interval.reasons[Reason::PublishError as usize].add("unavailable", 37);
        interval.reasons[Reason::ConnectFailure as usize].add("connection refused", 41);
    }
    interval
}

/// Log-normal around a median in microseconds.
fn latencies(dice: &mut Dice, story: Story, second: u64, loaded: Option<u64>, interval: &mut Interval) {
    let mut draw = |what: Latency, median_us: f64, spread: f64, times: u64, each: u64| {
        for _ in 0..times {
            let value = (median_us * (spread * dice.normal()).exp()) as u64;
            interval.latencies[what as usize].saturating_record_n(value.max(1), each);
        }
    };
    if second < RAMP_S - 1 {
        draw(Latency::Connect, 2400.0, 0.5, 363, 1);
        draw(Latency::Join, 900.0, 0.6, 363, 1);
    }
    let Some(loaded) = loaded else { return };
    let slow = if (KILL_S..KILL_S + 3).contains(&loaded) { 9.0 } else { 1.0 };
    draw(Latency::Ack, 1300.0 * slow, 0.45, 500, 8);
    draw(Latency::DeliverySame, 1450.0 * slow, 0.5, 500, 50);
    draw(Latency::DeliveryCross, 1900.0 * slow, 0.55, 1000, 50);
    let lag = if story == Story::Invalid { 60_000.0 } else { 90.0 };
    draw(Latency::Lag, lag, 0.8, 500, 8);
    if loaded == KILL_S + 2 {
        draw(Latency::Resume, 1_400_000.0, 0.3, 1333, 1);
    }
}

fn node_sample(dice: &mut Dice, index: usize, second: u64, loaded: Option<u64>) -> Option<Sample> {
    let gone = index == 1 && loaded.is_some_and(|loaded| (KILL_S..KILL_S + 8).contains(&loaded));
    let survivors = loaded.is_some_and(|loaded| loaded >= KILL_S + 2);
    let connections = match (index, survivors) {
        (1, true) => 0,
        (_, true) => ROOMS * MEMBERS / 2,
        _ => ROOMS * MEMBERS / 3,
    };
    let busy = if loaded.is_some() { 0.4 + connections as f64 / 8000.0 } else { 0.08 };
    let cpu = busy + 0.03 * dice.normal();
    let resident_bytes = (38 << 20) + connections * 9000 + second * 20_000;
    (!gone).then_some(Sample { at_s: START_S + second, cpu: cpu.max(0.0), resident_bytes, connections })
}

fn events() -> Vec<Happening> {
    let load_ms = (START_S + RAMP_S) * 1000;
    let kill_ms = load_ms + KILL_S * 1000;
    [
        (START_S * 1000, HappeningKind::Phase, "connecting"),
        (load_ms, HappeningKind::Phase, "load"),
        (kill_ms + 240, HappeningKind::NodeGone, "1333 connections to 10.0.0.12:8080 ended within a second"),
        (kill_ms + 900, HappeningKind::Scrape, "10.0.0.12:9090 no longer answers"),
        (kill_ms + 2300, HappeningKind::Reconnected, "1333 clients came back"),
        (kill_ms + 8100, HappeningKind::Scrape, "10.0.0.12:9090 answers again"),
        (load_ms + LOAD_S * 1000, HappeningKind::Phase, "settling"),
    ]
    .into_iter()
    .map(|(at_ms, kind, text)| Happening { at_ms, kind, text: text.to_owned() })
    .collect()
}

fn run() -> RunInfo {
    let load_started_ms = (START_S + RAMP_S) * 1000;
    RunInfo {
        id: "5eed0042".to_owned(),
        scenario: "chat".to_owned(),
        commands: vec![
            "loadtest chat --target ws://10.0.0.11:8080 --target ws://10.0.0.12:8080 --target ws://10.0.0.13:8080 \
             --rooms 200 --members 20 --rate 20 --duration 60s --assert delivery.p99<250ms \
             --assert received.rate>=70k/s"
                .to_owned(),
        ],
        targets: ["ws://10.0.0.11:8080", "ws://10.0.0.12:8080", "ws://10.0.0.13:8080"].map(str::to_owned).to_vec(),
        started_ms: START_S * 1000,
        load_started_ms,
        load_ended_ms: load_started_ms + LOAD_S * 1000,
        finished_ms: load_started_ms + (LOAD_S + SETTLE_S) * 1000,
        rooms: ROOMS as u32,
        members: MEMBERS as u32,
        publishers: MEMBERS as u32,
        clients: (ROOMS * MEMBERS) as u32,
        rate: RATE as f64 / ROOMS as f64,
        mode: "durable".to_owned(),
        processes: 1,
        interrupted: false,
        max_lag_ms: 20.0,
    }
}

fn generator(story: Story) -> Generator {
    Generator {
        index: 0,
        host: "loadgen-0".to_owned(),
        kernel: "Linux 6.8.0".to_owned(),
        cpu: "AMD EPYC 7763 64-Core Processor".to_owned(),
        cores: 4,
        memory_bytes: 16 << 30,
        version: "0.1.0".to_owned(),
        cpu_seconds: if story == Story::Invalid { 236.0 } else { 61.3 },
        load_cpu_seconds: if story == Story::Invalid { 229.0 } else { 57.9 },
        peak_resident_bytes: 61 << 20,
        resident_before_bytes: 9 << 20,
        resident_connected_bytes: 27 << 20,
        connections: ROOMS * MEMBERS,
    }
}

fn audit(story: Story) -> AuditReport {
    let mut findings = BTreeMap::new();
    let mut examples = Vec::new();
    if story == Story::Failed {
        findings.insert(Finding::Lost, 3);
        for client in [17, 18, 19] {
            examples.push(Example {
                finding: Finding::Lost,
                at_ms: (START_S + RAMP_S + KILL_S) * 1000 + 640,
                text: format!("room 41, client {client}: number 593 of publisher 833 never came (seq 11846 to 11848)"),
            });
        }
    }
    let map = |entries: &[(&str, u64)]| entries.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    AuditReport {
        findings,
        examples,
        recoveries: map(&[("fresh", 4000), ("resumed", 1319), ("gap", 14)]),
        resets: map(&[("gap", 2)]),
        told_missing: 212,
        checked: 4_500_310,
        acked: 237_300,
        undecided: 0,
        ..AuditReport::default()
    }
}

/// A generator of numbers that are the same each time (xorshift64*).
struct Dice(u64);

impl Dice {
    /// Between 0 and 1, without either.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Mean 0, variance 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
