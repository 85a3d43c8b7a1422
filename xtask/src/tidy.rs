//! The rules, one module each, over one tree of files read into memory. Called by `main`; a rule knows the tree only,
//! so that its tests are a few lines of text.

mod floors;
mod known;
mod libraries;
mod modules;
mod names;
mod proofs;
mod size;
mod text;
mod tree;

use std::fmt;

pub use tree::Tree;

/// One place that breaks one rule. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    words: String,
}

impl Violation {
    fn new(path: impl Into<String>, line: usize, rule: &'static str, words: impl Into<String>) -> Self {
        Self { path: path.into(), line, rule, words: words.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}: {}", self.path, self.line, self.rule, self.words)
    }
}

/// Every violation in the tree, by path and line.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let rules = [
        floors::check,
        known::check,
        libraries::check,
        modules::check,
        names::check,
        proofs::check,
        size::check,
        text::check,
    ];
    let mut found: Vec<Violation> = tree.unreadable.clone();
    found.extend(rules.iter().flat_map(|rule| rule(tree)));
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_path_line_and_rule() {
        let violation = Violation::new("a/b.rs", 3, "size", "too long");
        assert_eq!(violation.to_string(), "a/b.rs:3: size: too long");
    }

    #[test]
    fn a_source_that_cannot_be_parsed_is_a_violation() {
        let tree = Tree::of(&[("gateway/src/hub.rs", "//! Hub.\nfn (\n")]);
        assert_eq!(check(&tree)[0].rule, "parse");
    }
}
