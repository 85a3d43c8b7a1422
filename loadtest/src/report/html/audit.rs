//! What the audit found, and what each finding means. Called by the page.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::millis;
use crate::report::words;
use crate::report::{Finding, Report};

pub fn section(report: &Report) -> Markup {
    let audit = &report.audit;
    html! {
        section aria-labelledby="audit" {
            h2 #audit { "Audit" }
            p.lead {
                @if audit.checked == 0 { "No delivery was checked." } @else {
                    (words::grouped(audit.checked)) " deliveries of " (words::grouped(audit.acked))
                    " acknowledged messages were checked, each at each member."
                }
            }
            div.columns {
                (findings(report))
                div {
                    (fates(report))
                    (named("Joins", "Recovery", &audit.recoveries, recovery))
                    (named("Resets", "Reason", &audit.resets, reset))
                }
            }
            (examples(report))
        }
    }
}

fn findings(report: &Report) -> Markup {
    html! {
        div.scroll { table {
            caption { "Findings" }
            thead { tr { th scope="col" { "Finding" } th.n scope="col" { "Count" } } }
            tbody {
                @for finding in Finding::ALL {
                    @let found = report.audit.findings.get(&finding).copied().unwrap_or_default();
                    tr class=[(found > 0).then_some("bad")] {
                        th scope="row" { (finding.name().replace('_', " ")) small { (meaning(finding)) } }
                        td.n { (words::grouped(found)) }
                    }
                }
            }
        } }
    }
}

fn meaning(finding: Finding) -> &'static str {
    match finding {
        Finding::Lost => "never came, and the client was not told",
        Finding::Duplicated => "came, or was stored, more than once",
        Finding::Reordered => "out of its publisher's order, or not where others saw it",
        Finding::WrongRoom => "came in a room it was not published to",
        Finding::Corrupted => "its checksum or form is wrong",
        Finding::SilentBreak => "the room's order broke without a reset",
    }
}

/// What is no finding, but belongs to the whole.
fn fates(report: &Report) -> Markup {
    let audit = &report.audit;
    let rows = [
        ("told missing", audit.told_missing, "the client was told that it cannot have them"),
        ("acked and lost", audit.lost_acked, "acked, and then lost by Redis, as clients were told"),
        ("missed away", audit.missed_away, "passed in an ephemeral room while the client was away"),
        ("undecided", audit.undecided, "sent, never acknowledged nor refused, seen by nobody"),
        ("order unchecked", audit.unchecked_order, "too old to compare with what others saw"),
        ("absent members", audit.absent_members, "not in their room at the end; what they lack is not counted"),
    ];
    html! {
        div.scroll { table {
            caption { "Also counted" }
            thead { tr { th scope="col" { "What" } th.n scope="col" { "Count" } } }
            tbody { @for (name, count, words) in rows {
                tr { th scope="row" { (name) small { (words) } } td.n { (words::grouped(count)) } }
            } }
        } }
    }
}

fn named(title: &str, column: &str, counts: &BTreeMap<String, u64>, words: fn(&str) -> &'static str) -> Markup {
    html! {
        @if !counts.is_empty() {
            div.scroll { table {
                caption { (title) }
                thead { tr { th scope="col" { (column) } th.n scope="col" { "Count" } } }
                tbody { @for (name, count) in counts {
                    tr { th scope="row" { (name) small { (words(name)) } } td.n { (words::grouped(*count)) } }
                } }
            } }
        }
    }
}

fn recovery(name: &str) -> &'static str {
    match name {
        "fresh" => "came without a place to resume from",
        "resumed" => "got everything it had missed",
        "gap" => "some of what it missed is no longer kept",
        "diverged" => "had seen messages that the cluster lost",
        "unknown_term" => "the room's term is another one, or the room is ephemeral",
        _ => "",
    }
}

fn reset(name: &str) -> &'static str {
    match name {
        "gap" => "messages could not be had any more",
        "diverged" => "the cluster lost messages that clients had seen",
        _ => "",
    }
}

fn examples(report: &Report) -> Markup {
    html! {
        @if !report.audit.examples.is_empty() {
            div.scroll { table {
                caption { "The first findings" }
                thead { tr { th scope="col" { "When" } th scope="col" { "Finding" } th scope="col" { "In words" } } }
                tbody { @for example in &report.audit.examples {
                    tr.bad {
                        td.n { (millis(example.at_ms)) }
                        td { (example.finding.name().replace('_', " ")) }
                        td.words { (example.text) }
                    }
                } }
            } }
        }
    }
}
