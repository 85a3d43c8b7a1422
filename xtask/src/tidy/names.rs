//! Names say what a thing is for, modules open with their job, and `unsafe` appears nowhere. Called by the parent.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::Violation;
use super::tree::{File, Tree, has_extension};

/// Words that say nothing about what a module is for.
const EMPTY_WORDS: &[&str] =
    &["manager", "managers", "handler", "handlers", "common", "util", "utils", "helper", "helpers"];

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in &tree.files {
        check_path(file, &mut found);
        if has_extension(&file.path, "rs") && !file.generated {
            check_opening(file, &mut found);
        }
        if file.path.ends_with("Cargo.toml") {
            check_manifest(file, &mut found);
        }
    }
    for (file, syntax) in tree.rust() {
        Modules { path: &file.path, found: &mut found }.visit_file(syntax);
        // The source was parsed once already, so it is made of tokens.
        if let Ok(tokens) = file.text.parse() {
            find_unsafe(&file.path, tokens, &mut found);
        }
    }
    found
}

fn is_empty_word(name: &str) -> bool {
    name.split(['_', '-']).any(|word| EMPTY_WORDS.contains(&word))
}

fn check_path(file: &File, found: &mut Vec<Violation>) {
    if file.path.ends_with("/mod.rs") {
        found.push(Violation::new(&file.path, 1, "names", "no mod.rs: name the file after its module"));
    }
    for part in file.path.split('/') {
        let stem = part.split('.').next().unwrap_or(part);
        if is_empty_word(stem) {
            found.push(Violation::new(&file.path, 1, "names", format!("{stem} does not say what it is for")));
        }
    }
}

fn check_opening(file: &File, found: &mut Vec<Violation>) {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    match first.strip_prefix("//!").map(str::trim) {
        None => found.push(Violation::new(&file.path, 1, "opening", "a module opens with `//!` and its job")),
        Some("" | "To come." | "TODO" | "Todo.") => {
            found.push(Violation::new(&file.path, 1, "opening", "the opening does not say what the module is for"));
        }
        Some(_) => {}
    }
}

/// A package takes the workspace's lints; a manifest without a package, or of a workspace of its own, need not.
fn check_manifest(file: &File, found: &mut Vec<Violation>) {
    let has = |section: &str| file.text.lines().any(|line| line.trim() == section);
    if has("[package]") && !has("[workspace]") && !file.text.contains("[lints]\nworkspace = true") {
        found.push(Violation::new(&file.path, 1, "lints", "the package lacks `[lints] workspace = true`"));
    }
}

fn find_unsafe(path: &str, tokens: TokenStream, found: &mut Vec<Violation>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => find_unsafe(path, group.stream(), found),
            TokenTree::Ident(ident) if ident == "unsafe" => {
                found.push(Violation::new(path, ident.span().start().line, "unsafe", "unsafe is forbidden"));
            }
            _ => {}
        }
    }
}

struct Modules<'a> {
    path: &'a str,
    found: &'a mut Vec<Violation>,
}

impl<'ast> Visit<'ast> for Modules<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        if is_empty_word(&name) {
            let line = item.ident.span().start().line;
            self.found.push(Violation::new(
                self.path,
                line,
                "names",
                format!("mod {name} does not say what it is for"),
            ));
        }
        visit::visit_item_mod(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(&'static str, usize)> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|found| (found.rule, found.line)).collect()
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for path in ["a/mod.rs", "a/utils.rs", "a/common/x.rs", "a/session_manager.rs", "scripts/helpers.sh"] {
            assert_eq!(rules(path, "//! Job.\n"), [("names", 1)], "{path}");
        }
        assert_eq!(rules("a.rs", "//! Job.\nmod helper {}\n"), [("names", 2)]);
        for path in ["a/room.rs", "a/handling.rs", "a/commons.rs", "a/model.rs"] {
            assert_eq!(rules(path, "//! Job.\n"), [], "{path}");
        }
    }

    #[test]
    fn a_module_without_its_job_is_found() {
        assert_eq!(rules("a.rs", "fn f() {}\n"), [("opening", 1)]);
        assert_eq!(rules("a.rs", "//! To come.\n"), [("opening", 1)]);
        assert_eq!(rules("a.rs", "//! Reads frames. Called by session.\nfn f() {}\n"), []);
    }

    #[test]
    fn unsafe_is_found_in_code_only() {
        let text = ["//! Job.\nfn f() { ", "unsafe", " { g() } }\n"].concat();
        assert_eq!(rules("a.rs", &text), [("unsafe", 2)]);
        assert_eq!(rules("a.rs", "//! Nothing unsafe.\nfn f() { g(\"unsafe\") }\n"), []);
    }

    #[test]
    fn a_package_without_the_lints_is_found() {
        assert_eq!(rules("a/Cargo.toml", "[package]\nname = \"a\"\n"), [("lints", 1)]);
        assert_eq!(rules("a/Cargo.toml", "[package]\nname = \"a\"\n[lints]\nworkspace = true\n"), []);
        assert_eq!(rules("Cargo.toml", "[workspace]\nmembers = []\n"), []);
    }
}
