//! What thresholds read, and how they judge.

#![allow(clippy::float_cmp, reason = "limits as they were written")]

use super::*;
use crate::report::sample::{Story, sample};

fn parsed(text: &str) -> Threshold {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn wrong(text: &str) -> String {
    text.parse::<Threshold>().expect_err(text).to_string()
}

fn measured(text: &str) -> (Option<String>, bool) {
    let result = parsed(text).evaluate(&sample(Story::Failed));
    (result.measured, result.passed)
}

#[test]
fn every_kind_of_figure_is_understood() {
    for text in [
        "delivery.p99<50ms",
        "delivery_same.p99.9 <= 1.5s",
        " ack . p50 > 800us ",
        "lag.max<20ms",
        "resume.mean<2m",
        "join.count==4000",
        "connect.p100<1h",
        "lost==0",
        "silent_break!=1",
        "told_missing<=1k",
        "missed_away<2M",
        "absent_members==0",
        "undecided<10",
        "sent.rate>=1000/s",
        "received.rate >= 1.5k/s",
        "acked.rate>70k",
        "connections>=10000",
        "publish_errors<5",
        "connect_failed==0",
    ] {
        parsed(text);
    }
}

#[test]
fn limits_have_units() {
    assert_eq!(parsed("ack.p99<1.5s").limit, 1_500_000.0);
    assert_eq!(parsed("ack.p99<800µs").limit, 800.0);
    assert_eq!(parsed("sent.rate>=1.5k/s").limit, 1500.0);
    assert_eq!(parsed("received>=2M").limit, 2_000_000.0);
    assert_eq!(parsed("ack.count>=2k").limit, 2000.0, "a count of latencies is a count");
}

#[test]
fn mistakes_are_explained() {
    assert!(wrong("delivery.p99").starts_with("no comparison"));
    assert!(wrong("").starts_with("no comparison"));
    assert!(wrong("<5").starts_with("no comparison"));
    assert_eq!(wrong("lost=0"), "unknown comparison \"=\": one of < <= > >= == !=");
    assert_eq!(wrong("lost=<0"), "unknown comparison \"=<\": one of < <= > >= == !=");
    assert!(wrong("ack<5ms").starts_with("ack is a latency and needs a statistic: ack.p99"));
    assert!(wrong("ack.q99<5ms").starts_with("unknown statistic \"q99\" of ack: p50"));
    assert!(wrong("ack.p101<5ms").starts_with("unknown statistic"));
    assert!(wrong("ack.p-1<5ms").starts_with("unknown statistic"));
    assert!(wrong("ack.pinf<5ms").starts_with("unknown statistic"));
    assert!(wrong("sent.p99<5").starts_with("unknown statistic \"p99\" of sent: rate"));
    assert!(wrong("lost.rate<5").starts_with("unknown statistic \"rate\" of lost: it has none"));
    assert_eq!(wrong("lost=="), "no value after the comparison");
    assert!(wrong("ack.p99<50").contains("needs a unit"));
    assert!(wrong("ack.p99<50 parsecs").contains("needs a unit"));
    assert!(wrong("lost<5ms").contains("is not a number"));
    assert!(wrong("lost<1e9").contains("is not a number"));
    assert!(wrong("lost<-1").contains("is not a number"));
    assert!(wrong("lost<1.2.3").contains("is not a number"));
    assert!(wrong("sent.rate<5/m").contains("is not a rate"));
}

#[test]
fn near_names_are_suggested() {
    assert!(wrong("delivry.p99<5ms").contains("did you mean delivery?"));
    assert!(wrong("losst==0").contains("did you mean lost?"));
    assert!(wrong("wrong-room==0").contains("did you mean wrong_room?"));
    assert!(wrong("deliv.p99<5ms").contains("did you mean delivery, delivery_cross or delivery_same?"));
    assert!(wrong("qwertyuiop==0").contains("there are delivery.p99"));
    assert!(wrong(&format!("{}==0", "x".repeat(100_000))).contains("unknown figure"));
}

#[test]
fn figures_are_measured_where_they_stand() {
    assert_eq!(measured("lost==0"), (Some("3".into()), false));
    assert_eq!(measured("lost<=10"), (Some("3".into()), true));
    assert_eq!(measured("told_missing==212"), (Some("212".into()), true));
    assert_eq!(measured("connections==4000"), (Some("4000".into()), true));
    assert_eq!(measured("sent.rate>=3k/s"), (Some("3\u{202f}956/s".into()), true));
    assert_eq!(measured("ack.count==240000"), (Some("240000".into()), true));
    let (p99, passed) = measured("delivery.p99>1ms");
    assert!(p99.unwrap().ends_with("ms") && passed);
}

#[test]
fn percentiles_are_those_of_the_table() {
    let mut report = sample(Story::Passed);
    let mut histogram = crate::record::histogram();
    (1..=1000).for_each(|us| histogram.saturating_record(us));
    report.latencies.insert(crate::record::Latency::Ack, crate::report::Compressed::encode(&histogram));
    for (text, us) in [("p0", 1.0), ("p50", 500.0), ("p99", 990.0), ("p99.9", 999.0), ("p100", 1000.0)] {
        assert_eq!(parsed(&format!("ack.{text}<1s")).figure.measure(&report), Some(us), "{text}");
    }
}

#[test]
fn delivery_is_both_kinds() {
    let report = sample(Story::Passed);
    let count = |text: &str| parsed(text).figure.measure(&report).unwrap();
    let both = count("delivery_same.count>0") + count("delivery_cross.count>0");
    assert_eq!(count("delivery.count>0"), both);
}

#[test]
fn what_was_not_measured_fails() {
    let mut report = sample(Story::Passed);
    report.latencies.clear();
    report.run.load_started_ms = 0;
    for text in ["ack.p99<1h", "sent.rate>=0"] {
        let result = parsed(text).evaluate(&report);
        assert_eq!((result.measured, result.passed), (None, false), "{text}");
    }
    assert!(parsed("ack.count==0").evaluate(&report).passed);
}

#[test]
fn the_users_word_on_a_figure_replaces_the_default() {
    let users = [parsed("lost<=10"), parsed("ack.p99<1s")];
    let texts: Vec<_> = Threshold::with_defaults("chat", &users).into_iter().map(|threshold| threshold.text).collect();
    let expected = [
        "duplicated==0",
        "reordered==0",
        "wrong_room==0",
        "corrupted==0",
        "silent_break==0",
        "absent_members==0",
        "lost<=10",
        "ack.p99<1s",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn defaults_read_back_as_themselves() {
    for default in Threshold::defaults("idle") {
        assert_eq!(parsed(&default.text), default);
    }
}
