//! A report as one page that needs nothing else: no network, no fonts, and no script to be complete.
//!
//! Called by the command line. Whatever stands in a report (names of nodes, reasons, command lines) is somebody else's
//! text: it goes through the templates, which escape it, and the page's policy would run nothing in it anyway.

mod audit;
mod columns;
mod facts;
mod figure;
mod header;
mod latencies;
#[cfg(test)]
mod sample;
mod servers;
#[cfg(test)]
mod tests;
mod timeline;

use std::time::{Duration, UNIX_EPOCH};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Report, Verdict};

const STYLE: &str = include_str!("html/page.css");
/// Shows the values under the pointer; all of them are in the page without it, as curves.
const SCRIPT: &str = include_str!("html/hover.js");
/// SHA-256 of [`SCRIPT`], base64: the only script that a browser runs here. A test says what it must be.
const SCRIPT_HASH: &str = "sha256-1uZODm0ndc6IKfS5BmGUt7+W0nshcitsrjx1Xb7CFWo=";

/// The whole page.
pub fn render(report: &Report) -> String {
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src '{SCRIPT_HASH}'; base-uri 'none'; form-action 'none'"
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (report.run.scenario) " " (verdict(report.verdict)) " · Roomcast loadtest" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header::section(report))
                main { (main(report)) }
                footer { p { "Roomcast loadtest, run " (report.run.id) ", " (millis(report.run.started_ms)) } }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn main(report: &Report) -> Markup {
    html! {
        (header::figures(report))
        (header::thresholds(report))
        (timeline::section(report))
        (latencies::section(report))
        (audit::section(report))
        (facts::reasons(report))
        (facts::commands(report))
        (facts::machines(report))
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Invalid => "invalid",
    }
}

/// How long the load lasted, seconds; none if there was none.
fn load_seconds(report: &Report) -> Option<f64> {
    Some(report.load_seconds()).filter(|seconds| *seconds > 0.0)
}

/// Milliseconds since the Unix epoch as a date, UTC.
fn millis(ms: u64) -> String {
    // The year 9999 is the last one that can be written.
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000));
    humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").replace('Z', " UTC")
}
