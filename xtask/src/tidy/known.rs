//! What the code names and what the docs explain are the same: metrics, settings, and the metrics that dashboards and
//! alerts ask for. Called by the parent; knows how the code names a metric (a call such as `r.counter("x", ..)` in
//! telemetry) and a setting (a field of `Settings`, or of a part of it, with `#[arg(long)]`).

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::Violation;
use super::tree::{File, Tree, has_extension};

const TELEMETRY: &str = "gateway/src/telemetry";
const CONFIG: &str = "gateway/src/config";
const METRICS_DOC: &str = "docs/metrics.md";
const SETTINGS_DOC: &str = "docs/configuration.md";
const PREFIX: &str = "roomcast_";
/// What has settings as its fields.
const SETTINGS_STRUCTS: &[&str] = &["Settings", "Outward", "HttpApi"];
/// What a Prometheus histogram makes of its name.
const SERIES: &[&str] = &["_bucket", "_sum", "_count"];
/// Calls whose first argument is a metric's name without the prefix.
const MAKERS: &[&str] =
    &["ages", "counter", "counters", "counters_of", "gauge", "gauges", "histogram", "histograms", "seconds_by"];
/// Folders and files with queries.
const QUERIES: &[&str] = &["grafana/", "k8s/", "helm/", "docs/runbook.md"];
/// Crates and hosts, not metrics.
const NOT_METRICS: &[&str] = &["roomcast_protocol", "roomcast_gateway", "roomcast_loadtest"];
/// Flags that are no settings: of clap, of `gateway probe`, and the last is how a variable that Kubernetes adds for a service reads.
const NOT_SETTINGS: &[&str] = &["--help", "--version", "--live", "--service-host"];

/// Name and where it stands first.
type Names = BTreeMap<String, (String, usize)>;

pub fn check(tree: &Tree) -> Vec<Violation> {
    let metrics = metrics_of(tree);
    let mut found = compare("metric", METRICS_DOC, tree, &metrics, |text| tokens(text, PREFIX));
    let settings = settings_of(tree);
    found.extend(compare("setting", SETTINGS_DOC, tree, &settings, settings_in));
    for file in tree.files.iter().filter(|file| QUERIES.iter().any(|folder| file.path.starts_with(folder))) {
        for (name, line) in tokens(&file.text, PREFIX) {
            if !has_metric(&metrics, &name) {
                found.push(Violation::new(&file.path, line, "metric", format!("{name} is no metric of the code")));
            }
        }
    }
    found
}

/// Both directions between the code's names and the doc's.
fn compare(
    rule: &'static str,
    doc: &str,
    tree: &Tree,
    code: &Names,
    read: impl Fn(&str) -> Vec<(String, usize)>,
) -> Vec<Violation> {
    let mentioned = tree.get(doc).map(|file| read(&file.text)).unwrap_or_default();
    let named: BTreeSet<&str> = mentioned.iter().map(|(name, _)| name.as_str()).collect();
    let undocumented = code
        .iter()
        .filter(|(name, _)| !named.contains(name.as_str()))
        .map(|(name, (path, line))| Violation::new(path, *line, rule, format!("{name} is not explained in {doc}")));
    let unknown = mentioned
        .iter()
        .filter(|(name, _)| !has_metric(code, name))
        .map(|(name, line)| Violation::new(doc, *line, rule, format!("{name} is not in the code")));
    undocumented.chain(unknown).collect()
}

fn has_metric(metrics: &Names, name: &str) -> bool {
    metrics.contains_key(name)
        || SERIES.iter().any(|series| name.strip_suffix(series).is_some_and(|base| metrics.contains_key(base)))
}

/// Words of `text` that begin with `prefix`, each with its line.
fn tokens(text: &str, prefix: &str) -> Vec<(String, usize)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for word in line.split(|c| !is_word(c)) {
            if word.len() > prefix.len() && word.starts_with(prefix) && !NOT_METRICS.contains(&word) {
                found.push((word.to_owned(), at + 1));
            }
        }
    }
    found
}

/// Flags and environment variables in a doc, both as `--flag`.
fn settings_in(text: &str) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = tokens(text, "ROOMCAST_")
        .into_iter()
        .map(|(name, line)| (flag(&name["ROOMCAST_".len()..].to_ascii_lowercase()), line))
        .filter(|(name, _)| !NOT_SETTINGS.contains(&name.as_str()))
        .collect();
    for (at, line) in text.lines().enumerate() {
        for word in line.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')) {
            let word = word.trim_end_matches('-');
            let is_flag =
                word.strip_prefix("--").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            if is_flag && !NOT_SETTINGS.contains(&word) {
                found.push((word.to_owned(), at + 1));
            }
        }
    }
    found
}

fn flag(field: &str) -> String {
    format!("--{}", field.replace('_', "-"))
}

fn metrics_of(tree: &Tree) -> Names {
    let mut calls = MetricCalls { path: "", names: Names::new() };
    for (file, syntax) in below(tree, TELEMETRY) {
        calls.path = &file.path;
        calls.visit_file(syntax);
    }
    calls.names
}

fn settings_of(tree: &Tree) -> Names {
    let mut names = Names::new();
    for (file, syntax) in below(tree, CONFIG) {
        for item in &syntax.items {
            if let syn::Item::Struct(item) = item
                && SETTINGS_STRUCTS.iter().any(|name| item.ident == name)
            {
                for field in item.fields.iter().filter(|field| is_flag_field(field)) {
                    let Some(name) = &field.ident else { continue };
                    names.insert(flag(&name.to_string()), (file.path.clone(), name.span().start().line));
                }
            }
        }
    }
    names
}

fn below<'a>(tree: &'a Tree, folder: &'a str) -> impl Iterator<Item = (&'a File, &'a syn::File)> {
    tree.rust().filter(move |(file, _)| {
        let rest = file.path.strip_prefix(folder);
        rest.is_some_and(|rest| rest.starts_with('/') || rest == ".rs") && has_extension(&file.path, "rs")
    })
}

/// Whether clap makes a flag of it: `#[arg(long ..)]`.
fn is_flag_field(field: &syn::Field) -> bool {
    field.attrs.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("arg")
            && list
                .tokens
                .clone()
                .into_iter()
                .any(|token| matches!(token, proc_macro2::TokenTree::Ident(i) if i == "long"))
    })
}

struct MetricCalls<'a> {
    path: &'a str,
    names: Names,
}

impl<'ast> Visit<'ast> for MetricCalls<'_> {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if MAKERS.iter().any(|maker| call.method == maker)
            && let Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. })) = call.args.first()
        {
            let place = (self.path.to_owned(), name.span().start().line);
            self.names.entry(format!("{PREFIX}{}", name.value())).or_insert(place);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        // A test may make metrics of its own.
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: (&str, &str) = (
        "gateway/src/telemetry/metrics.rs",
        "fn f(r: R) { r.counter(\"sent_total\", \"x\");\nr.histogram(\"wait_seconds\", \"x\", S); }\nmod tests { fn g(r: R) { r.counter(\"x\"); } }",
    );
    const SETTINGS: (&str, &str) = (
        "gateway/src/config/settings.rs",
        "struct Settings {\n#[arg(long)]\npub admin_listen: A,\n#[arg(skip)]\npub rooms: R }",
    );

    fn words(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files)).into_iter().map(|found| found.to_string()).collect()
    }

    #[test]
    fn metrics_and_their_doc_must_agree() {
        let doc = |text: &'static str| ("docs/metrics.md", text);
        assert_eq!(
            words(&[METRICS, doc("`roomcast_sent_total`\n`roomcast_wait_seconds`, a roomcast_gateway\n")]),
            [""; 0]
        );
        assert_eq!(
            words(&[METRICS, doc("`roomcast_sent_total`\n\n`roomcast_gone_total`")]),
            [
                "gateway/src/telemetry/metrics.rs:2: metric: roomcast_wait_seconds is not explained in docs/metrics.md",
                "docs/metrics.md:3: metric: roomcast_gone_total is not in the code",
            ]
        );
        assert_eq!(words(&[METRICS]).len(), 2, "a missing doc explains nothing");
    }

    #[test]
    fn settings_and_their_doc_must_agree() {
        let doc = |text: &'static str| ("docs/configuration.md", text);
        assert_eq!(words(&[SETTINGS, doc("| `--admin-listen` | --help\n|---|---|\n")]), [""; 0]);
        assert_eq!(words(&[SETTINGS, doc("`ROOMCAST_ADMIN_LISTEN` is it")]), [""; 0]);
        assert_eq!(words(&[SETTINGS, doc("`--admin-listen`, `--rooms`\n`ROOMCAST_NOPE`")]).len(), 2);
        assert_eq!(words(&[SETTINGS]).len(), 1);
    }

    #[test]
    fn dashboards_ask_for_what_exists() {
        let doc = ("docs/metrics.md", "roomcast_sent_total roomcast_wait_seconds");
        let panel = |text: &'static str| ("grafana/roomcast.json", text);
        assert_eq!(words(&[METRICS, doc, panel("rate(roomcast_wait_seconds_bucket[1m])")]), [""; 0]);
        assert_eq!(
            words(&[METRICS, doc, panel("{\n\"roomcast_lost_total\"}")]),
            ["grafana/roomcast.json:2: metric: roomcast_lost_total is no metric of the code"]
        );
        let more = "fn g(r: R) { r.counters_of(\"repairs_total\", \"x\", (\"outcome\", &[])); }";
        let more = ("gateway/src/telemetry/more.rs", more);
        let runbook = ("docs/runbook.md", "`rate(roomcast_repairs_total[5m])`, `roomcast_limit`");
        assert_eq!(
            words(&[
                METRICS,
                more,
                ("docs/metrics.md", "roomcast_sent_total roomcast_wait_seconds roomcast_repairs_total"),
                runbook
            ]),
            ["docs/runbook.md:1: metric: roomcast_limit is no metric of the code"]
        );
    }
}
