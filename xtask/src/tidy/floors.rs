//! Imports run downward only, and siblings never meet. Called by the parent; knows the table of floors and the ways in
//! which a path can name one: `crate::x`, `super::x`, groups, and `crate::x` within a macro's arguments.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::tree::Tree;
use super::{Violation, tree::File};

const RULE: &str = "floors";

/// A crate with floors.
struct Crate {
    /// Its sources; `lib.rs` in it only names the modules.
    sources: &'static str,
    /// From top to bottom. Those of one line are siblings.
    floors: &'static [&'static [&'static str]],
}

const CRATES: &[Crate] = &[
    // `docs` is the test that compares docs with the code.
    Crate {
        sources: "gateway/src/",
        floors: &[
            &["main", "docs"],
            &["check"],
            &["app"],
            &["worker"],
            &["server"],
            &["session"],
            &["hub"],
            &["socket", "broker", "access", "events"],
            &["outbound"],
            &["config", "telemetry", "lifecycle"],
        ],
    },
    Crate {
        sources: "loadtest/src/",
        floors: &[
            &["main"],
            &["app"],
            &["cli", "engine"],
            &["client", "embedded", "live", "scenario"],
            &["wire"],
            &["plan"],
            &["report"],
            &["audit"],
            &["record"],
            &["clock", "payload"],
        ],
    },
];

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (file, syntax) in tree.rust() {
        let within = CRATES.iter().find_map(|of| Some((of, file.path.strip_prefix(of.sources)?)));
        if let Some((of, inner)) = within
            && inner != "lib.rs"
        {
            found.extend(check_file(of, file, inner, syntax));
        }
    }
    found
}

fn check_file(of: &'static Crate, file: &File, inner: &str, syntax: &syn::File) -> Vec<Violation> {
    let modules: Vec<String> = inner.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let Some(level) = of.level_of(&modules[0]) else {
        let words = format!("{} stands in no line of the table of floors (xtask/src/tidy/floors.rs)", modules[0]);
        return vec![Violation::new(&file.path, 1, RULE, words)];
    };
    let mut visitor = Imports { path: &file.path, of, level, modules, found: Vec::new() };
    visitor.visit_file(syntax);
    visitor.found
}

impl Crate {
    fn level_of(&self, module: &str) -> Option<usize> {
        self.floors.iter().position(|line| line.contains(&module))
    }
}

struct Imports<'a> {
    path: &'a str,
    of: &'static Crate,
    level: usize,
    /// Where in the crate the visited code stands, inline modules included.
    modules: Vec<String>,
    found: Vec<Violation>,
}

impl Imports<'_> {
    /// Looks at the segments of a path as written; `line` is where it stands.
    fn segments(&mut self, segments: &[String], line: usize) {
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let target = match segments.first().map(String::as_str) {
            Some("crate") => segments.get(1),
            Some("super") if supers >= self.modules.len() => segments.get(supers),
            Some("self") if segments.get(1).is_some_and(|next| next == "super") => {
                return self.segments(&segments[1..], line);
            }
            _ => None,
        };
        if let Some(target) = target {
            self.meet(&target.clone(), line);
        }
    }

    fn meet(&mut self, target: &str, line: usize) {
        let own = self.modules[0].as_str();
        let words = match self.of.level_of(target) {
            _ if target == own => return,
            Some(level) if level > self.level => return,
            Some(level) if level == self.level => format!("{own} imports its sibling {target}"),
            Some(_) => format!("{own} imports {target}, a floor above it"),
            None if target == "*" => format!("{own} imports the whole crate"),
            None => return,
        };
        self.found.push(Violation::new(self.path, line, RULE, words));
    }

    fn use_tree(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.use_tree(item, prefix)),
            syn::UseTree::Name(name) => self.use_end(name.ident.to_string(), prefix, name.span()),
            syn::UseTree::Rename(rename) => self.use_end(rename.ident.to_string(), prefix, rename.span()),
            syn::UseTree::Glob(glob) => self.use_end("*".to_owned(), prefix, glob.span()),
        }
    }

    fn use_end(&mut self, last: String, prefix: &mut Vec<String>, span: proc_macro2::Span) {
        prefix.push(last);
        self.segments(prefix, span.start().line);
        prefix.pop();
    }

    /// Macro arguments are not syntax yet: `crate :: name` is looked for among their tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) if ident == "crate" => {
                    if let Some(TokenTree::Ident(target)) = tokens.get(at + 3) {
                        self.meet(&target.to_string(), ident.span().start().line);
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.modules.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.modules.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.segments(&segments, path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|found| format!("{}: {}", found.line, found.words)).collect()
    }

    #[test]
    fn upward_imports_are_found() {
        let above = ["1: hub imports server, a floor above it"];
        assert_eq!(words("gateway/src/hub/room.rs", "use crate::server::Thing;"), above);
        assert_eq!(words("gateway/src/hub/room.rs", "use crate::{broker::B, server::{self, Thing}};"), [above[0]; 2]);
        assert_eq!(words("gateway/src/hub/room.rs", "use super::super::server::Thing;"), above);
        assert_eq!(words("gateway/src/hub.rs", "use super::server::Thing;"), above);
        assert_eq!(words("gateway/src/hub.rs", "fn f() { crate::server::go() }"), above);
        assert_eq!(words("gateway/src/hub.rs", "fn f(x: &dyn crate::server::T) {}"), above);
        assert_eq!(words("gateway/src/hub.rs", "fn f() { info!(x = crate::server::go()) }"), above);
        assert_eq!(words("gateway/src/hub.rs", "mod tests { use super::super::server::T; }"), above);
        assert_eq!(words("gateway/src/hub.rs", "use crate::*;"), ["1: hub imports the whole crate"]);
    }

    #[test]
    fn siblings_never_meet() {
        assert_eq!(
            words("gateway/src/socket/reader.rs", "\nuse crate::broker::B;"),
            ["2: socket imports its sibling broker"]
        );
        assert_eq!(
            words("gateway/src/config.rs", "use crate::telemetry::T;"),
            ["1: config imports its sibling telemetry"]
        );
    }

    #[test]
    fn downward_and_own_imports_are_good() {
        for good in [
            "use crate::broker::B;",
            "use crate::hub::shard::S;",
            "use super::shard::S;",
            "use super::super::socket::S;",
            "use roomcast_protocol::RoomName;",
            "fn f() { crate::telemetry::note(super::server::x()) }",
            "mod tests { use super::super::server; }",
        ] {
            assert_eq!(words("gateway/src/hub/room.rs", good), [""; 0], "{good}");
        }
        assert_eq!(words("protocol/src/hub.rs", "use crate::server::T;"), [""; 0]);
    }

    #[test]
    fn each_crate_has_its_own_floors() {
        assert_eq!(
            words("loadtest/src/audit/tally.rs", "use crate::report;"),
            ["1: audit imports report, a floor above it"]
        );
        assert_eq!(words("loadtest/src/cli/build.rs", "use crate::engine::E;"), ["1: cli imports its sibling engine"]);
        assert_eq!(words("loadtest/src/plan.rs", "use crate::report::T;"), [""; 0]);
        assert_eq!(words("loadtest/src/plan.rs", "use crate::hub::T;"), [""; 0], "no module of this crate");
        assert_eq!(words("loadtest/src/hub.rs", "fn f() {}").len(), 1);
    }

    #[test]
    fn a_module_outside_the_table_is_found() {
        assert_eq!(words("gateway/src/misc.rs", "fn f() {}").len(), 1);
    }
}
