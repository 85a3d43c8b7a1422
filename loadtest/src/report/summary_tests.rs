//! What the summary says of each kind of run.

use super::*;
use crate::report::Compressed;
use crate::report::sample::{Story, sample};

/// The summary, with plain spaces within numbers.
fn text(report: &Report) -> String {
    let mut out = Vec::new();
    summary(report, &mut out).unwrap();
    String::from_utf8(out).unwrap().replace('\u{202f}', " ")
}

#[test]
fn fits_a_terminal_and_ends_with_the_verdict() {
    for story in [Story::Passed, Story::Failed, Story::Invalid] {
        let text = text(&sample(story));
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.lines().all(|line| line.trim_end() == line), "no blanks at the end of lines:\n{text}");
    }
    assert!(text(&sample(Story::Passed)).ends_with("\n\npassed\n"));
    assert!(text(&sample(Story::Failed)).ends_with("\n\nfailed: lost==0 (measured 3)\n"));
    let last = text(&sample(Story::Invalid));
    let last = last.lines().last().unwrap();
    assert!(last.starts_with("invalid: the generator lagged: p99 ") && last.ends_with("allowed 20 ms"), "{last}");
}

#[test]
fn says_what_ran_and_what_came_of_it() {
    let text = text(&sample(Story::Failed));
    for line in [
        "chat, durable rooms, run 5eed0042",
        "  rooms         200 rooms of 20 members, all publish",
        "  time          1 min of load, after 12 s of connecting; 1 min 15 s in all",
        "  connections   4 000 at most, of 4 000 wanted; 41 failed attempts; 1 333 lost",
        "  sent          237 334 (3 956/s), 4 000/s wanted; 237 334 acked, 37 retries, 37 errors",
        "  received      4 475 564 (74.6k/s), 24 310 replayed on joining",
        "audit of 4 500 310 deliveries",
        "  found         3 lost, 0 duplicated, 0 reordered, 0 wrong room, 0 corrupted, 0 silent break",
        "  joins         4 000 fresh, 1 319 resumed, 14 gap",
        "  lost          room 41, client 17: number 593 of publisher 833 never came (seq 11846 to 11848)",
        "  disconnects   1 333 lost",
        "  memory        61 MiB at most, 4.61 KiB per idle connection",
        "  cpu           57.9 s under load, 0.96 of 4 cores, 12.9 s per million messages received",
        "  FAIL  lost==0               3",
        "  pass  received.rate>=70k/s  74.6k/s",
    ] {
        assert!(text.lines().any(|have| have == line), "no line {line:?} in:\n{text}");
    }
}

#[test]
fn one_process_of_several_does_not_claim_the_whole() {
    let mut report = sample(Story::Passed);
    report.run.processes = 3;
    let text = text(&report);
    assert!(text.contains("  processes     1 of 3\n"), "{text}");
    assert!(!text.contains("wanted"), "{text}");
}

#[test]
fn a_run_that_never_got_anywhere_is_short() {
    let mut report = sample(Story::Passed);
    report.counts.clear();
    report.latencies.clear();
    report.series.rows.clear();
    report.run.load_started_ms = 0;
    report.run.interrupted = true;
    report.conclude(&[]);
    let text = text(&report);
    assert!(text.contains("chat, durable rooms, run 5eed0042, interrupted\n"), "{text}");
    assert!(text.contains("  time          1 min 15 s, and the load never began\n"), "{text}");
    assert!(!text.contains("latency") && !text.contains("  sent"), "{text}");
    assert!(text.ends_with("invalid: not one connection was made (connection refused)\n"), "{text}");
}

#[test]
fn what_others_wrote_does_not_steer_the_terminal() {
    let mut report = sample(Story::Failed);
    report.run.targets = vec!["ws://\u{1b}[2J".to_owned()];
    report.closes.insert("\u{7}bell\n".repeat(1000), 1);
    report.audit.examples[0].text = "a\rb".to_owned();
    report.thresholds[0].text = "\u{1b}]0;x\u{7}".to_owned();
    report.latencies.insert(Latency::Ack, Compressed("damaged".to_owned()));
    assert!(text(&report).chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn long_lists_are_cut() {
    let mut report = sample(Story::Failed);
    for index in 0..40 {
        report.closes.insert(format!("reason {index}"), index);
        report.audit.examples.push(report.audit.examples[0].clone());
        report.because.push(format!("because {index}"));
    }
    let text = text(&report);
    assert!(text.contains("1 333 lost, 39 reason 39, 38 reason 38, 37 reason 37, 36 reason 36 and 36 more"), "{text}");
    assert!(text.contains("... 38 more examples in the report"), "{text}");
    assert!(text.ends_with("because 3; and 36 more\n"), "{text}");
}

#[test]
fn a_broken_pipe_is_an_error_and_no_panic() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert!(summary(&sample(Story::Passed), &mut Broken).is_err());
}
