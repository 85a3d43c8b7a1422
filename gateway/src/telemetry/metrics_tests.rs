//! Metrics as a scrape sees them.

use std::time::Duration;

use roomcast_protocol::Mode;

use super::metrics::*;

/// The value of the one series that is written like `series`.
fn value(metrics: &Metrics, series: &str) -> f64 {
    let text = metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a number")
}

#[test]
fn a_worker_is_seen_when_it_flushes_and_when_it_ends() {
    let metrics = Metrics::new();
    let (one, two) = (metrics.local(0), metrics.local(1));
    one.delivered(3);
    one.wrote(16, 2112);
    one.queued(500);
    one.published(Mode::Ephemeral, PublishOutcome::Accepted, 2);
    one.publish_took(Mode::Durable, Duration::from_millis(3));
    one.remote_delivery_took(Duration::from_millis(3));
    one.received(ReceivedKind::Publish);
    one.deduplicated(DuplicateKind::Echo, 4);
    assert!(value(&metrics, "roomcast_deliveries_total").abs() < f64::EPSILON);
    one.flush();
    two.delivered(4);
    two.queued(-200);
    two.read(10);
    drop(two);
    for (series, expected) in [
        ("roomcast_deliveries_total", 7.0),
        ("roomcast_bytes_sent_total", 2112.0),
        ("roomcast_bytes_received_total", 10.0),
        ("roomcast_outbound_queue_bytes", 300.0),
        ("roomcast_frames_per_write_bucket{le=\"8\"}", 0.0),
        ("roomcast_frames_per_write_bucket{le=\"16\"}", 1.0),
        ("roomcast_publishes_total{mode=\"ephemeral\",outcome=\"accepted\"}", 2.0),
        ("roomcast_publish_seconds_count{mode=\"durable\"}", 1.0),
        ("roomcast_publish_seconds_count{mode=\"ephemeral\"}", 0.0),
        ("roomcast_delivery_seconds_bucket{origin=\"remote\",le=\"0.005\"}", 1.0),
        ("roomcast_messages_received_total{kind=\"publish\"}", 1.0),
        ("roomcast_deduplicated_total{kind=\"echo\"}", 4.0),
    ] {
        let found = value(&metrics, series);
        assert!((found - expected).abs() < f64::EPSILON, "{series} is {found}");
    }
}

#[test]
fn busy_time_counts_differences() {
    let metrics = Metrics::new();
    let local = metrics.local(3);
    local.busy(Duration::from_secs(2));
    local.busy(Duration::from_secs(5));
    let busy = value(&metrics, "roomcast_worker_busy_seconds_total{worker=\"3\"}");
    assert!((busy - 5.0).abs() < 1e-9, "{busy}");
}

#[test]
fn commands_count_their_outcomes() {
    let metrics = Metrics::new();
    let publish = metrics.broker.command("publish");
    publish.ok(Duration::from_micros(200));
    publish.failed("undecided", Duration::from_secs(2));
    let series = |outcome| format!("roomcast_broker_commands_total{{command=\"publish\",outcome=\"{outcome}\"}}");
    assert!((value(&metrics, &series("ok")) - 1.0).abs() < f64::EPSILON);
    assert!((value(&metrics, &series("undecided")) - 1.0).abs() < f64::EPSILON);
    let seconds = value(&metrics, "roomcast_broker_command_seconds_sum{command=\"publish\"}");
    assert!((seconds - 2.0002).abs() < 1e-9, "{seconds}");
}

#[test]
fn names_are_ours_in_base_units_and_labels_are_bounded() {
    let metrics = Metrics::new();
    let allowed = [
        "code", "command", "issuer", "kind", "limit", "mode", "origin", "outcome", "path", "reason", "recovery",
        "route", "status", "version", "webhook", "worker",
    ];
    for Row { name, kind, labels, help } in metrics.rows() {
        assert!(name.starts_with("roomcast_") || name.starts_with("process_"), "{name}");
        assert!(!["_ms", "_micros", "_kb"].iter().any(|unit| name.contains(unit)), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
        assert!(labels.iter().all(|label| allowed.contains(&label.as_str())), "{name} {labels:?}");
        assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
    }
}

#[test]
fn what_alerts_watch_stands_at_zero_from_the_start() {
    let metrics = Metrics::new();
    for series in [
        "roomcast_gap_repairs_total{outcome=\"lost\"}",
        "roomcast_resets_total{reason=\"diverged\"}",
        "roomcast_sweep_finds_total{reason=\"behind\"}",
        "roomcast_takeovers_total{outcome=\"done\"}",
    ] {
        assert!(value(&metrics, series).abs() < f64::EPSILON, "{series}");
    }
}
