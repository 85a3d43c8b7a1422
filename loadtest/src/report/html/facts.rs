//! Reasons of errors, command lines and machines. Called by the page.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::load_seconds;
use crate::report::words;
use crate::report::{Generator, Report};

/// Why publishes, connections and attempts to connect failed.
pub fn reasons(report: &Report) -> Markup {
    let tables = [
        ("Publishes refused", "Code", &report.publish_errors),
        ("Connections ended", "Close code and reason", &report.closes),
        ("Attempts to connect that failed", "Reason", &report.connect_failures),
    ];
    html! {
        section aria-labelledby="errors-by-reason" {
            h2 #errors-by-reason { "Errors" }
            @if tables.iter().all(|(_, _, counts)| counts.is_empty()) {
                p.lead { "None." }
            } @else {
                div.columns { @for (title, column, counts) in tables {
                    @if !counts.is_empty() { (table(title, column, counts)) }
                } }
            }
        }
    }
}

fn table(title: &str, column: &str, counts: &BTreeMap<String, u64>) -> Markup {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    html! {
        div.scroll { table {
            caption { (title) }
            thead { tr { th scope="col" { (column) } th.n scope="col" { "Count" } } }
            tbody { @for (reason, count) in rows {
                tr { th.words scope="row" { (reason) } td.n { (words::grouped(*count)) } }
            } }
        } }
    }
}

pub fn commands(report: &Report) -> Markup {
    let commands = &report.run.commands;
    html! {
        @if !commands.is_empty() {
            section aria-labelledby="commands" {
                h2 #commands { "Command" @if commands.len() > 1 { "s" } }
                @for command in commands { pre { code { (command) } } }
            }
        }
    }
}

pub fn machines(report: &Report) -> Markup {
    html! {
        @if !report.generators.is_empty() {
            section aria-labelledby="machines" {
                h2 #machines { "Load tester" }
                div.columns { @for generator in &report.generators { (machine(report, generator)) } }
            }
        }
    }
}

fn machine(report: &Report, generator: &Generator) -> Markup {
    html! {
        div.scroll { table.facts {
            caption.plain { (generator.host) @if report.generators.len() > 1 { ", process " (generator.index) } }
            tbody { @for (name, value) in facts(report, generator) {
                tr { th scope="row" { (name) } td { (value) } }
            } }
        } }
    }
}

fn facts(report: &Report, generator: &Generator) -> Vec<(&'static str, String)> {
    let of_load = load_seconds(report)
        .map(|seconds| format!(", {} cores under load", words::short(generator.load_cpu_seconds / seconds)))
        .unwrap_or_default();
    let mut facts = vec![
        ("version", generator.version.clone()),
        ("kernel", generator.kernel.clone()),
        ("CPU", generator.cpu.clone()),
        ("cores", generator.cores.to_string()),
        ("memory", words::bytes(generator.memory_bytes as f64)),
        ("CPU used", format!("{} s{of_load}", words::short(generator.cpu_seconds))),
        ("peak memory", words::bytes(generator.peak_resident_bytes as f64)),
    ];
    let idle = generator.resident_connected_bytes.saturating_sub(generator.resident_before_bytes);
    if generator.connections > 0 && idle > 0 {
        let each = words::bytes(idle as f64 / generator.connections as f64);
        facts.push(("idle connection", format!("{each} each, with {}", words::grouped(generator.connections))));
    }
    facts
}
