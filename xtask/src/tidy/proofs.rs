//! What docs/security.md says is shown is shown: every test it names is there, and every row of its tables names one or
//! says that there is none. Called by the parent; knows how the page names a test (`path::name` in one code span) and how
//! a test looks in Rust; elsewhere the name has to stand in the file.

use super::Violation;
use super::tree::{File, Tree, has_extension};

const RULE: &str = "proofs";
const DOC: &str = "docs/security.md";
/// Head of the last column of a table whose rows need a test.
const COLUMN: &str = "Shown by";
/// How a row says that it has none.
const NONE: &str = "no test";

pub fn check(tree: &Tree) -> Vec<Violation> {
    let Some(doc) = tree.get(DOC) else { return Vec::new() };
    let mut found = Vec::new();
    let mut in_table = false;
    for (at, line) in doc.text.lines().enumerate() {
        let mut told = |words: String| found.push(Violation::new(DOC, at + 1, RULE, words));
        for (path, name) in tests_in(line) {
            match tree.get(path) {
                None => told(format!("the table names a file that is not there: {path}")),
                Some(file) if !has_test(file, name) => told(format!("{path} has no test {name}")),
                Some(_) => {}
            }
        }
        let last = line.trim_end().strip_suffix('|').and_then(|row| row.rsplit('|').next()).map(str::trim);
        match last {
            None => in_table = false,
            Some(COLUMN) => in_table = true,
            Some(cell) if cell.chars().all(|c| matches!(c, '-' | ':')) => {}
            Some(cell) if in_table && tests_in(cell).is_empty() && !cell.starts_with(NONE) => {
                told(format!("a row without a test has to say so: {NONE}, and why"));
            }
            Some(_) => {}
        }
    }
    found
}

/// The `path::name` in code spans, each in its parts.
fn tests_in(text: &str) -> Vec<(&str, &str)> {
    let spans = text.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.split_once("::")).filter(|(path, _)| path.contains('/')).collect()
}

fn has_test(file: &File, name: &str) -> bool {
    if !has_extension(&file.path, "rs") {
        return file.text.contains(name);
    }
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().any(|(at, line)| {
        let is_marked = || {
            let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
            above.into_iter().any(|line| line.starts_with("#[") && line.contains("test"))
        };
        // A macro makes tests of functions that it is given a list of.
        line.contains(&head) && (is_marked() || lines.contains(&format!("{name},").as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "//! It.\n#[tokio::test]\n// why\nasync fn held() {}\nfn helper() {}\nall!(\n    listed,\n);\nasync fn listed() {}\n";

    fn words(doc: &str) -> Vec<String> {
        let tree = Tree::of(&[(DOC, doc), ("a/b.rs", SOURCE), ("a/c.mjs", "check(\"names are text\")")]);
        check(&tree).into_iter().map(|found| format!("{}: {}", found.line, found.words)).collect()
    }

    #[test]
    fn tests_that_are_there_are_good() {
        let doc = "| What | Shown by |\n|---|:--|\n| x | `a/b.rs::held`, `a/b.rs::listed` |\n| y | `a/c.mjs::names are text` |\n\
                   | z | no test: nothing to see |\n\nProse with `Mod::name` | and a bar\n\n| Other | table |\n|---|---|\n| a | b |\n";
        assert_eq!(words(doc), [""; 0]);
    }

    #[test]
    fn tests_that_are_not_there_are_found() {
        for gone in ["a/b.rs::gone", "a/b.rs::helper", "a/b.rs::hel", "a/c.mjs::gone"] {
            let (path, name) = gone.split_once("::").expect("two parts");
            assert_eq!(words(&format!("see `{gone}`")), [format!("1: {path} has no test {name}")]);
        }
        assert_eq!(words("`a/x.rs::held`"), ["1: the table names a file that is not there: a/x.rs"]);
    }

    #[test]
    fn a_row_without_a_word_about_its_test_is_found() {
        let found = words("| What | Shown by |\n|---|---|\n| x | surely |\n");
        assert_eq!(found, ["3: a row without a test has to say so: no test, and why"]);
    }
}
