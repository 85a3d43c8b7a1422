//! A library that belongs to one folder has no second user. Called by the parent; knows the table of owners.

use std::collections::HashSet;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Violation;
use super::tree::{File, Tree};

const RULE: &str = "libraries";
const GATEWAY: &str = "gateway/src/";
const LOADTEST: &str = "loadtest/src/";

/// A library, and where in a crate its paths may stand.
struct Owner {
    sources: &'static str,
    library: &'static str,
    /// Beginnings of paths below `sources`.
    places: &'static [&'static str],
}

const OWNERS: &[Owner] = &[
    Owner { sources: GATEWAY, library: "fastwebsockets", places: &["socket.rs", "socket/"] },
    Owner { sources: GATEWAY, library: "redis", places: &["broker/redis"] },
    Owner { sources: GATEWAY, library: "prometheus", places: &["telemetry.rs", "telemetry/"] },
    Owner { sources: GATEWAY, library: "opentelemetry", places: &["telemetry.rs", "telemetry/"] },
    Owner { sources: GATEWAY, library: "opentelemetry_sdk", places: &["telemetry.rs", "telemetry/"] },
    Owner { sources: GATEWAY, library: "opentelemetry_otlp", places: &["telemetry.rs", "telemetry/"] },
    Owner { sources: GATEWAY, library: "tracing_subscriber", places: &["telemetry.rs", "telemetry/"] },
    Owner { sources: GATEWAY, library: "clap", places: &["config.rs", "config/"] },
    Owner { sources: GATEWAY, library: "dotenvy", places: &["config.rs", "config/"] },
    Owner { sources: GATEWAY, library: "toml", places: &["config.rs", "config/"] },
    Owner { sources: GATEWAY, library: "reqwest", places: &["outbound.rs", "outbound/"] },
    Owner { sources: GATEWAY, library: "jsonwebtoken", places: &["access.rs", "access/", "server/api/video"] },
    Owner { sources: LOADTEST, library: "tungstenite", places: &["wire.rs", "wire/"] },
    Owner { sources: LOADTEST, library: "hdrhistogram", places: &["record.rs", "record/", "report.rs", "report/"] },
    Owner { sources: LOADTEST, library: "plotters", places: &["report/plot"] },
    Owner { sources: LOADTEST, library: "maud", places: &["report/html"] },
    Owner { sources: LOADTEST, library: "indicatif", places: &["live"] },
    Owner { sources: LOADTEST, library: "jsonwebtoken", places: &["plan/token"] },
    Owner { sources: LOADTEST, library: "clap", places: &["cli.rs", "cli/"] },
    Owner { sources: LOADTEST, library: "roomcast_gateway", places: &["embedded"] },
];
/// The one call that the server makes to the socket's library: the handshake hands the connection over.
const UPGRADE: (&str, &str, &str) = ("server/", "fastwebsockets", "upgrade");

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (file, syntax) in tree.rust() {
        let Some(sources) = [GATEWAY, LOADTEST].into_iter().find(|sources| file.path.starts_with(sources)) else {
            continue;
        };
        let mut users = Users { file, sources, own: HashSet::new(), found: &mut found };
        // A child module may bear a library's name: `redis::X` is then its own.
        for item in &syntax.items {
            if let syn::Item::Mod(module) = item {
                users.own.insert(module.ident.to_string());
            }
        }
        users.visit_file(syntax);
    }
    found
}

struct Users<'a> {
    file: &'a File,
    sources: &'static str,
    own: HashSet<String>,
    found: &'a mut Vec<Violation>,
}

impl Users<'_> {
    fn meet(&mut self, first: &str, second: Option<&str>, line: usize) {
        let owner = OWNERS.iter().find(|owner| owner.sources == self.sources && owner.library == first);
        let Some(owner) = owner else { return };
        let place = self.file.path.trim_start_matches(self.sources);
        let is_upgrade =
            self.sources == GATEWAY && place.starts_with(UPGRADE.0) && first == UPGRADE.1 && second == Some(UPGRADE.2);
        if is_upgrade || self.own.contains(first) || owner.places.iter().any(|allowed| place.starts_with(allowed)) {
            return;
        }
        let words = format!("{first} belongs to {}{}", self.sources, owner.places[owner.places.len() - 1]);
        self.found.push(Violation::new(&self.file.path, line, RULE, words));
    }

    fn use_root(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.use_root(item)),
            syn::UseTree::Path(path) => {
                for second in second_names(&path.tree) {
                    self.meet(&path.ident.to_string(), Some(&second), path.span().start().line);
                }
            }
            syn::UseTree::Name(name) => self.meet(&name.ident.to_string(), None, name.span().start().line),
            syn::UseTree::Rename(name) => self.meet(&name.ident.to_string(), None, name.span().start().line),
            syn::UseTree::Glob(_) => {}
        }
    }
}

fn second_names(tree: &syn::UseTree) -> Vec<String> {
    match tree {
        syn::UseTree::Path(path) => vec![path.ident.to_string()],
        syn::UseTree::Name(name) => vec![name.ident.to_string()],
        syn::UseTree::Rename(name) => vec![name.ident.to_string()],
        syn::UseTree::Group(group) => group.items.iter().flat_map(second_names).collect(),
        syn::UseTree::Glob(_) => vec!["*".to_owned()],
    }
}

impl<'ast> Visit<'ast> for Users<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_root(&item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // One segment alone is a name of the file's own.
        if let (Some(first), Some(second)) = (path.segments.first(), path.segments.get(1)) {
            self.meet(&first.ident.to_string(), Some(&second.ident.to_string()), path.span().start().line);
        }
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|found| found.line).collect()
    }

    #[test]
    fn a_second_user_is_found() {
        assert_eq!(lines("gateway/src/hub.rs", "\nuse redis::Client;"), [2]);
        assert_eq!(lines("gateway/src/hub.rs", "use {bytes::Bytes, redis::Client};"), [1]);
        assert_eq!(lines("gateway/src/broker/memory.rs", "fn f() -> redis::RedisResult<()> { g() }"), [1]);
        assert_eq!(lines("gateway/src/server/admin.rs", "use prometheus::Encoder;"), [1]);
        assert_eq!(lines("gateway/src/hub.rs", "#[derive(clap::Parser)] struct S;"), [0; 0], "derives are not paths");
        assert_eq!(lines("gateway/src/server/handshake.rs", "use fastwebsockets::{upgrade, Frame};"), [1]);
        assert_eq!(lines("gateway/src/session.rs", "use fastwebsockets::upgrade;"), [1]);
        assert_eq!(lines("loadtest/src/client.rs", "use tungstenite::Message;"), [1]);
        assert_eq!(lines("loadtest/src/plan/target.rs", "use jsonwebtoken::Header;"), [1]);
    }

    #[test]
    fn the_owner_is_not() {
        assert_eq!(lines("gateway/src/broker/redis.rs", "use redis::Client;"), [0; 0]);
        assert_eq!(lines("gateway/src/broker/redis/script.rs", "use redis::Client;"), [0; 0]);
        assert_eq!(lines("gateway/src/socket/reader.rs", "use fastwebsockets::OpCode;"), [0; 0]);
        assert_eq!(lines("gateway/src/server/handshake.rs", "use fastwebsockets::upgrade::upgrade;"), [0; 0]);
        assert_eq!(lines("gateway/src/broker.rs", "mod redis;\npub use redis::RedisBroker;"), [0; 0]);
        assert_eq!(lines("loadtest/src/wire/frames.rs", "use tungstenite::protocol::frame;"), [0; 0]);
        assert_eq!(lines("loadtest/src/report/histogram.rs", "use hdrhistogram::Histogram;"), [0; 0]);
        assert_eq!(lines("gateway/src/broker/redis.rs", "use maud::html;"), [0; 0], "each crate has its own");
        assert_eq!(lines("gateway/benches/publish.rs", "use redis::Client;"), [0; 0]);
    }
}
