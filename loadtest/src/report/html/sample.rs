//! Reports to draw, made up: a run in which a node is killed, one that never began, one of ten hours.
//! For tests only.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::record::{Count, Latency, histogram};
use crate::report::*;

const START_S: u64 = 1_790_000_000;

/// A small generator of numbers between 0 and 1, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }

    /// A latency around `middle` microseconds with a long tail.
    fn latency(&mut self, middle: f64) -> u64 {
        let tail = 1.0 / (1.0 - self.roll() * 0.9995);
        (middle * (0.55 + 0.5 * self.roll() + 0.3 * tail.powf(0.62))) as u64
    }
}

/// What a second of the run looks like.
struct Second {
    connections: u64,
    counts: Vec<(Count, u64)>,
    /// Kind, how many, and around how many microseconds.
    latencies: Vec<(Latency, u64, f64)>,
}

/// `chat` of 200 rooms of 20 members on 3 nodes; one is killed at 30 s, a storm follows at 46 s.
pub fn killed() -> Report {
    let seconds: Vec<Second> = (-6i64..62).map(killed_second).collect();
    let mut report = build("chat", (200, 20, 20.0), START_S, 6, 60, 1, &seconds);
    report.events = vec![
        event(-6, HappeningKind::Phase, "connecting 4 000 clients to 3 targets"),
        event(0, HappeningKind::Phase, "load began"),
        event(30, HappeningKind::NodeGone, "1 334 connections to 127.0.0.1:8082 ended within 0.2 s"),
        event(32, HappeningKind::Reconnected, "1 334 clients are back, after 1.4 s at most"),
        event(46, HappeningKind::Storm, "dropped 800 connections (20 %) at once"),
        event(47, HappeningKind::Reconnected, "800 clients are back, after 0.8 s at most"),
        event(60, HappeningKind::Phase, "load ended, settling"),
    ];
    report.servers = (0..3).map(server).collect();
    report.closes = BTreeMap::from([("lost".to_owned(), 1_334), ("1012 draining".to_owned(), 3)]);
    report.publish_errors = BTreeMap::from([("unavailable".to_owned(), 41), ("rate_limited".to_owned(), 2)]);
    report.connect_failures = BTreeMap::from([("connection refused".to_owned(), 212)]);
    report.audit.recoveries = BTreeMap::from([("fresh".to_owned(), 4_000), ("resumed".to_owned(), 2_134)]);
    report
}

/// A run with findings, and with markup wherever somebody else's words end up.
pub fn hostile() -> Report {
    let bad = "</script><img src=x onerror=alert(1)>\"'&<b>";
    let mut report = killed();
    report.run.scenario = bad.to_owned();
    report.run.commands = vec![bad.to_owned()];
    report.run.targets = vec![bad.to_owned()];
    report.run.id = bad.to_owned();
    report.run.mode = bad.to_owned();
    for generator in &mut report.generators {
        for text in [&mut generator.host, &mut generator.kernel, &mut generator.cpu, &mut generator.version] {
            bad.clone_into(text);
        }
    }
    for server in &mut report.servers {
        bad.clone_into(&mut server.name);
    }
    for event in &mut report.events {
        bad.clone_into(&mut event.text);
    }
    for map in [&mut report.closes, &mut report.publish_errors, &mut report.connect_failures] {
        map.insert(bad.to_owned(), 1);
    }
    report.audit.recoveries.insert(bad.to_owned(), 1);
    report.audit.resets.insert(bad.to_owned(), 1);
    report.audit.findings = BTreeMap::from([(Finding::Lost, 12), (Finding::SilentBreak, 1)]);
    report.audit.examples = vec![Example { finding: Finding::Lost, at_ms: START_S * 1000, text: bad.to_owned() }];
    report.thresholds.push(ThresholdResult { text: bad.to_owned(), measured: Some(bad.to_owned()), passed: false });
    report.because = vec![bad.to_owned()];
    report.verdict = Verdict::Failed;
    report
}

/// Nobody could connect.
pub fn empty() -> Report {
    let mut report = build("fanout", (1, 1000, 10.0), START_S, 0, 0, 1, &[]);
    report.run.load_started_ms = 0;
    report.run.load_ended_ms = 0;
    report.counts = BTreeMap::new();
    report.latencies = BTreeMap::new();
    report.connect_failures = BTreeMap::from([("connection refused".to_owned(), 1000)]);
    report.audit = AuditReport::default();
    report.thresholds = vec![ThresholdResult { text: "delivery.p99<50ms".to_owned(), measured: None, passed: false }];
    report.verdict = Verdict::Invalid;
    report.because = vec!["not one connection was made (connection refused)".to_owned()];
    report
}

/// `soak` of ten hours in rows of 32 s, with findings.
pub fn soak() -> Report {
    let mut dice = Dice(3);
    let seconds: Vec<Second> = (0..1125)
        .map(|row| {
            let wave = 1.0 + 0.5 * (f64::from(row) / 90.0).sin();
            let slow = if row % 400 == 150 { 60.0 } else { 1.0 };
            let received = (64_000.0 * wave * (0.97 + 0.06 * dice.roll())) as u64;
            Second {
                connections: 500,
                counts: vec![(Count::Sent, received / 20), (Count::Acked, received / 20), (Count::Received, received)],
                latencies: vec![(Latency::DeliverySame, 40, 700.0 * wave * slow), (Latency::Lag, 20, 60.0)],
            }
        })
        .collect();
    let mut report = build("soak", (25, 20, 4.0), START_S, 0, 36_000, 32, &seconds);
    report.events = (0..60).map(|index| event(index * 590, HappeningKind::Drain, "a node asks to go")).collect();
    report.events.push(event(20_000, HappeningKind::Finding, "first message lost"));
    report.audit.findings = BTreeMap::from([(Finding::Lost, 3)]);
    let text = "room 7, client 143: the message of publisher 140 with number 8812 never came (seq 52 113)";
    report.audit.examples =
        vec![Example { finding: Finding::Lost, at_ms: (START_S + 20_000) * 1000, text: text.to_owned() }];
    report.thresholds[0].measured = Some("5.02 ms".to_owned());
    report.thresholds[1] =
        ThresholdResult { text: "lost==0".to_owned(), measured: Some("3".to_owned()), passed: false };
    report.verdict = Verdict::Failed;
    report.because = vec!["lost==0 (measured 3)".to_owned()];
    report
}

fn killed_second(at: i64) -> Second {
    let mut dice = Dice(at.unsigned_abs() + 11);
    let mut second = Second { connections: 4000, counts: Vec::new(), latencies: Vec::new() };
    if at < 0 {
        second.connections = (4000 * (at + 7) / 6).unsigned_abs();
        second.counts = vec![(Count::Connected, 667), (Count::Joined, 667)];
        second.latencies = vec![(Latency::Connect, 667, 2_600.0), (Latency::Join, 667, 900.0)];
        return second;
    }
    if at >= 60 {
        second.latencies = vec![(Latency::DeliverySame, 3, 900.0)];
        return second;
    }
    let sent = (4000.0 * (0.99 + 0.02 * dice.roll())) as u64;
    let (away, slow) = match at {
        30 => (1334, 90.0),
        31 => (500, 240.0),
        32 => (40, 30.0),
        46 => (800, 22.0),
        47 => (60, 6.0),
        _ => (0, 1.0),
    };
    second.connections -= away;
    second.counts = vec![
        (Count::Due, sent),
        (Count::Sent, sent),
        (Count::Acked, sent - away),
        (Count::Received, sent * 19 - away * 17),
        (Count::BytesIn, sent * 19 * 214),
        (Count::BytesOut, sent * 230),
    ];
    second.latencies = vec![
        (Latency::Ack, 400, 640.0 * slow),
        (Latency::DeliverySame, 600, 720.0 * slow),
        (Latency::DeliveryCross, 1200, 1_150.0 * slow),
        (Latency::Lag, 300, 48.0 * (1.0 + slow / 40.0)),
    ];
    match at {
        30 => second.counts.extend([(Count::Disconnected, 1334), (Count::PublishErrors, 41)]),
        31 => second.counts.extend([(Count::ConnectFailed, 212), (Count::Replayed, 9_100)]),
        46 => second.counts.extend([(Count::Dropped, 800), (Count::Replayed, 3_000)]),
        _ => {}
    }
    if away > 0 {
        second.latencies.push((Latency::Resume, away, 420_000.0));
    }
    second
}

fn server(index: u64) -> Server {
    let sample = |at: u64| {
        let mut dice = Dice(at * 3 + index);
        let busy = (6..66).contains(&at);
        let gone = index == 1 && (36..50).contains(&at);
        (!gone).then(|| Sample {
            at_s: START_S + at,
            cpu: if busy { 0.62 + 0.09 * index as f64 + 0.1 * dice.roll() } else { 0.05 },
            resident_bytes: 48_000_000 + index * 3_000_000 + at.min(20) * 1_700_000 + at * 40_000,
            connections: 1333,
        })
    };
    Server { name: format!("127.0.0.1:909{}", index + 1), samples: (0..68).filter_map(sample).collect() }
}

/// Seconds count from the beginning of the load, which is 6 s after the start.
fn event(second: i64, kind: HappeningKind, text: &str) -> Happening {
    let at_ms = (START_S + 6).strict_add_signed(second) * 1000 + 180;
    Happening { at_ms, kind, text: text.to_owned() }
}

fn build(
    scenario: &str,
    (rooms, members, rate): (u32, u32, f64),
    start_s: u64,
    ramp_s: u64,
    load_s: u64,
    interval_s: u64,
    seconds: &[Second],
) -> Report {
    let mut dice = Dice(7);
    let mut totals: BTreeMap<Latency, Histogram<u64>> = BTreeMap::new();
    let mut counts: BTreeMap<Count, u64> = BTreeMap::new();
    let mut rows = Vec::new();
    for (index, second) in seconds.iter().enumerate() {
        let mut row = Row {
            at_s: start_s + index as u64 * interval_s,
            connections: second.connections,
            counts: second.counts.iter().copied().collect(),
            latencies: BTreeMap::new(),
        };
        for (what, count) in &second.counts {
            *counts.entry(*what).or_default() += count;
        }
        for (what, samples, middle) in &second.latencies {
            let mut one = histogram();
            (0..*samples).for_each(|_| one.saturating_record(dice.latency(*middle)));
            totals.entry(*what).or_insert_with(histogram).add(&one).unwrap();
            row.latencies.insert(*what, Compressed::encode(&one));
        }
        rows.push(row);
    }
    Report {
        version: VERSION,
        scope: Scope::Process,
        run: run(scenario, (rooms, members, rate), start_s, ramp_s, load_s),
        generators: vec![generator()],
        latencies: totals.iter().map(|(what, histogram)| (*what, Compressed::encode(histogram))).collect(),
        series: Series { interval_s, rows },
        events: Vec::new(),
        servers: Vec::new(),
        audit: AuditReport {
            checked: counts.get(&Count::Received).copied().unwrap_or_default(),
            acked: counts.get(&Count::Acked).copied().unwrap_or_default(),
            recoveries: BTreeMap::from([("fresh".to_owned(), u64::from(rooms * members))]),
            undecided: 2,
            ..AuditReport::default()
        },
        counts,
        publish_errors: BTreeMap::new(),
        closes: BTreeMap::new(),
        connect_failures: BTreeMap::new(),
        problems: Vec::new(),
        thresholds: [("delivery.p99<500ms", "314 ms"), ("lost==0", "0"), ("duplicated==0", "0"), ("reordered==0", "0")]
            .into_iter()
            .map(|(text, measured)| ThresholdResult {
                text: text.to_owned(),
                measured: Some(measured.to_owned()),
                passed: true,
            })
            .collect(),
        verdict: Verdict::Passed,
        because: Vec::new(),
    }
}

fn run(scenario: &str, (rooms, members, rate): (u32, u32, f64), start_s: u64, ramp_s: u64, load_s: u64) -> RunInfo {
    let load_started_ms = (start_s + ramp_s) * 1000;
    RunInfo {
        id: "6f1d2c9a".to_owned(),
        scenario: scenario.to_owned(),
        commands: vec![format!(
            "loadtest {scenario} --target ws://127.0.0.1:8081 --target ws://127.0.0.1:8082 --target \
             ws://127.0.0.1:8083 --rooms {rooms} --members {members} --rate {rate} --duration {load_s}s \
             --assert 'delivery.p99<500ms' --html report.html"
        )],
        targets: vec!["127.0.0.1:8081".to_owned(), "127.0.0.1:8082".to_owned(), "127.0.0.1:8083".to_owned()],
        started_ms: start_s * 1000,
        load_started_ms,
        load_ended_ms: load_started_ms + load_s * 1000,
        finished_ms: load_started_ms + load_s * 1000 + 1400,
        rooms,
        members,
        publishers: members,
        clients: rooms * members,
        rate,
        mode: "durable".to_owned(),
        processes: 1,
        interrupted: false,
        max_lag_ms: 10.0,
    }
}

fn generator() -> Generator {
    Generator {
        index: 0,
        host: "load-1".to_owned(),
        kernel: "Linux 6.12.48".to_owned(),
        cpu: "AMD EPYC 7763 64-Core Processor".to_owned(),
        cores: 8,
        memory_bytes: 33_500_000_000,
        version: "0.1.0".to_owned(),
        cpu_seconds: 71.4,
        load_cpu_seconds: 66.2,
        peak_resident_bytes: 141_000_000,
        resident_before_bytes: 12_000_000,
        resident_connected_bytes: 61_000_000,
        connections: 4000,
    }
}
