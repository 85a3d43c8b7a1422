//! Every Rust file is a part of some crate: a module that nobody declares is never compiled, and its tests never run.
//! Called by the parent; knows how cargo finds crates and how a module finds its file.

use std::collections::HashSet;

use syn::{Expr, ExprLit, Item, Lit, Meta};

use super::Violation;
use super::tree::Tree;

const RULE: &str = "modules";
/// Directories in which each file, and each `main.rs` of a directory, is a crate of its own.
const CRATES: &[&str] = &["tests", "benches", "examples", "bin", "fuzz_targets"];

pub fn check(tree: &Tree) -> Vec<Violation> {
    let declared: HashSet<String> = tree.rust().flat_map(|(file, syntax)| declared_in(&file.path, syntax)).collect();
    let lost = tree.rust().filter(|(file, _)| !is_crate(&file.path) && !declared.contains(&file.path));
    lost.map(|(file, _)| Violation::new(&file.path, 1, RULE, "no module declares this file: it is not compiled"))
        .collect()
}

/// Whether cargo begins a crate here.
fn is_crate(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (name, parent, above) = (parts.next(), parts.next(), parts.next());
    let is_root = |part: Option<&str>| part.is_some_and(|part| CRATES.contains(&part));
    match name {
        // A module called `tests` has a directory of that name, too.
        _ if is_root(parent) && above != Some("src") && !path.contains("/src/") => true,
        Some("main.rs") => parent == Some("src") || is_root(above),
        Some("lib.rs" | "build.rs") => true,
        _ => parent == Some("bin"),
    }
}

/// The files of the modules that a file declares.
fn declared_in(path: &str, syntax: &syn::File) -> Vec<String> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".rs");
    let below = if is_crate(path) { directory.to_owned() } else { format!("{directory}/{stem}") };
    let modules = syntax.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() => Some(module),
        _ => None,
    });
    let file = |module: &syn::ItemMod| match module.attrs.iter().find_map(|attribute| named_path(&attribute.meta)) {
        Some(named) => format!("{directory}/{named}"),
        None => format!("{below}/{}.rs", module.ident),
    };
    modules.map(file).collect()
}

/// The file of `#[path = "..."]`.
fn named_path(meta: &Meta) -> Option<String> {
    let Meta::NameValue(pair) = meta else { return None };
    match &pair.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if pair.path.is_ident("path") => Some(text.value()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files)).into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn what_is_declared_or_a_crate_is_good() {
        let good = [
            ("a/src/lib.rs", "mod hub;\nmod inline { fn x() {} }\n"),
            (
                "a/src/hub.rs",
                "mod room;\n#[cfg(test)]\n#[path = \"hub_tests.rs\"]\nmod more;\n#[cfg(test)]\nmod tests;\n",
            ),
            ("a/src/hub/room.rs", ""),
            ("a/src/hub_tests.rs", ""),
            ("a/src/hub/tests.rs", "mod joining;\n"),
            ("a/src/hub/tests/joining.rs", ""),
            ("a/src/main.rs", ""),
            ("a/tests/it/main.rs", "mod support;\n"),
            ("a/tests/it/support.rs", ""),
            ("a/benches/cost.rs", "#[path = \"cost/one.rs\"]\nmod one;\n"),
            ("a/benches/cost/one.rs", ""),
            ("fuzz/fuzz_targets/frame.rs", ""),
        ];
        assert_eq!(lost(&good), [""; 0]);
    }

    #[test]
    fn what_nobody_declares_is_found() {
        for gone in ["a/src/room.rs", "a/src/hub/tests/late.rs", "a/tests/it/late.rs", "a/src/hub/deep/er.rs"] {
            let files = [
                ("a/src/lib.rs", "mod hub;"),
                ("a/src/hub.rs", "mod tests;"),
                ("a/src/hub/tests.rs", ""),
                ("a/tests/it/main.rs", "mod late { }"),
                (gone, ""),
            ];
            assert_eq!(lost(&files), [gone]);
        }
    }
}
