//! Holds docs/configuration.md and docs/metrics.md to the code. Tests only; nothing calls it.
//!
//! `UPDATE_DOCS=1 cargo test -p roomcast-gateway docs::` rewrites the generated parts.

use std::path::Path;

use crate::config;
use crate::telemetry::metrics::Metrics;

const BEGIN: &str = "<!-- generated: UPDATE_DOCS=1 cargo test -p roomcast-gateway docs:: -->\n\n";
const END: &str = "\n<!-- end of the generated part -->";

fn check(file: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    let present = std::fs::read_to_string(&path).expect("the file is there");
    let (head, rest) = present.split_once(BEGIN).expect("the beginning of the generated part");
    let (old, tail) = rest.split_once(END).expect("the end of the generated part");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{generated}{END}{tail}")).expect("written");
    } else {
        assert_eq!(old, generated, "docs/{file} is old: UPDATE_DOCS=1 cargo test -p roomcast-gateway docs::");
    }
}

#[test]
fn configuration_is_documented() {
    check("configuration.md", &config::reference_table());
}

#[test]
fn metrics_are_documented() {
    check("metrics.md", &Metrics::new().reference_table());
}
