//! The page as a whole.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use base64::Engine as _;

use super::*;

fn samples() -> &'static [(&'static str, Report); 5] {
    static SAMPLES: LazyLock<[(&str, Report); 5]> = LazyLock::new(|| {
        let collected = crate::report::sample::sample(crate::report::sample::Story::Failed);
        [
            ("killed", sample::killed()),
            ("hostile", sample::hostile()),
            ("empty", sample::empty()),
            ("soak", sample::soak()),
            ("collected", collected),
        ]
    });
    &SAMPLES
}

/// Also the way to look at them: `cargo test -p roomcast-loadtest --lib pages_are_small`, then open
/// `target/tmp/page-*.html`.
#[test]
fn pages_are_small_and_lie_in_target_tmp() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    fs::create_dir_all(&folder).unwrap();
    for (name, report) in samples() {
        let page = render(report);
        fs::write(folder.join(format!("page-{name}.html")), &page).unwrap();
        assert!(page.len() < 500_000, "{name}: {} bytes", page.len());
    }
}

#[test]
fn a_run_of_ten_minutes_is_below_500_kb() {
    let mut report = sample::killed();
    let rows = report.series.rows.clone();
    let row =
        |index: u64| crate::report::Row { at_s: rows[0].at_s + index, ..rows[10 + (index % 50) as usize].clone() };
    report.series.rows = (0..600).map(row).collect();
    let page = render(&report);
    assert!(page.len() < 500_000, "{} bytes", page.len());
}

#[test]
fn every_section_is_there() {
    let page = render(&sample::hostile());
    for id in ["thresholds", "over-time", "events", "latencies", "audit", "errors-by-reason", "commands", "machines"] {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for id in ["received", "published", "latency", "connections", "errors", "lag", "cpu", "memory", "percentiles"] {
        assert!(page.contains(&format!("<figure class=\"plot\" id=\"{id}\"")), "{id}");
    }
    let order = [
        "Key figures",
        "Thresholds",
        "Over time",
        "What happened",
        "id=\"latencies\"",
        "id=\"audit\"",
        ">Errors<",
        ">Command<",
    ];
    let places: Vec<usize> = order.iter().map(|text| page.find(text).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn markup_of_others_is_text() {
    let page = render(&sample::hostile());
    assert!(!page.contains("<img") && !page.contains("<b>\""));
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"));
}

#[test]
fn nothing_is_fetched() {
    for (name, report) in samples() {
        let page = render(report);
        for word in ["http://", "https://", "@import", "url(", " src=\"", "<link", "//cdn"] {
            assert!(!page.contains(word), "{name}: {word}");
        }
    }
}

#[test]
fn no_colour_of_the_drawing_is_left() {
    for (name, report) in samples() {
        assert!(!render(report).contains("#0102"), "{name}");
    }
}

#[test]
fn every_tag_is_closed() {
    for (name, report) in samples() {
        let mut open = Vec::new();
        let page = render(report);
        let body = &page[page.find("<body>").unwrap()..page.find("<script>").unwrap()];
        for tag in body.split('<').skip(1) {
            let (inside, _) = tag.split_once('>').unwrap_or_else(|| panic!("{name}: <{tag}"));
            let word = inside.split([' ', '\n']).next().unwrap();
            if let Some(closed) = word.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed), "{name}");
            } else if !inside.ends_with('/') {
                open.push(word);
            }
        }
        assert_eq!(open, ["body"], "{name}");
    }
}

#[test]
fn the_policy_names_the_script() {
    let hash = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .map(|suite| suite.common.hash_provider.hash(SCRIPT.as_bytes()))
        .unwrap();
    let expected = format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(hash.as_ref()));
    assert_eq!(SCRIPT_HASH, expected);
}

#[test]
fn a_run_that_never_began_says_so() {
    let page = render(&sample::empty());
    assert!(page.contains("Not one connection was made"));
    assert!(page.contains("No delivery was checked"));
    assert!(!page.contains("<figure"));
    assert!(!page.contains("NaN") && !page.contains(">inf"));
}

#[test]
fn figures_out_of_bounds_do_no_harm() {
    let mut report = sample::killed();
    report.run.load_started_ms = u64::MAX;
    report.run.rate = f64::NAN;
    report.run.started_ms = u64::MAX;
    for event in &mut report.events {
        event.at_ms = u64::MAX;
    }
    for sample in report.servers.iter_mut().flat_map(|server| &mut server.samples) {
        sample.cpu = f64::INFINITY;
        sample.resident_bytes = u64::MAX;
    }
    for row in &mut report.series.rows {
        row.connections = u64::MAX;
        row.counts.values_mut().for_each(|count| *count = u64::MAX);
        row.latencies.values_mut().for_each(|text| text.0 = "!".to_owned());
    }
    assert!(render(&report).ends_with("</html>"));
}
