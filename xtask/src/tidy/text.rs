//! Docs and sources carry no tabs, no trailing blanks and no path of somebody's machine. Called by the parent.

use super::Violation;
use super::tree::{Tree, has_extension};

const RULE: &str = "text";
/// What is ours to write. Makefiles need tabs.
const EXTENSIONS: &[&str] =
    &["rs", "md", "toml", "sh", "py", "js", "mjs", "css", "html", "json", "yaml", "yml", "lua", "tpl", "conf", "txt"];
/// Directories that exist on one machine only, in two parts so that this file does not hold them.
const MACHINE: &[&str] = &[concat!("/", "home/"), concat!("/", "root/"), concat!("/", "Users/"), concat!("/", "work/")];

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| !file.generated && is_ours(&file.path)) {
        for (at, line) in file.text.lines().enumerate() {
            let mut report = |words: String| found.push(Violation::new(&file.path, at + 1, RULE, words));
            if line.contains('\t') {
                report("a tab".to_owned());
            }
            if line.ends_with(' ') || line.ends_with('\r') {
                report("blanks at the line's end".to_owned());
            }
            if let Some(path) = MACHINE.iter().find(|path| names_root(line, path)) {
                report(format!("{path}… exists on one machine only"));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            found.push(Violation::new(&file.path, file.text.lines().count(), RULE, "the last line does not end"));
        }
    }
    found
}

fn is_ours(path: &str) -> bool {
    path == ".ci/run" || EXTENSIONS.iter().any(|extension| has_extension(path, extension))
}

/// Whether `path` stands in `line` as an absolute path, and not within a longer one or a URL.
fn names_root(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"_-./}$)*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn bad_text_is_found() {
        assert_eq!(count("docs/a.md", "a\tb\n"), 1);
        assert_eq!(count("docs/a.md", "a \n"), 1);
        assert_eq!(count("docs/a.md", "a"), 1);
        assert_eq!(count("docs/a.md", concat!("see /", "home/me/x\n")), 1);
        assert_eq!(count("a.sh", concat!("cd /", "work/x\n")), 1);
    }

    #[test]
    fn good_text_is_not() {
        assert_eq!(count("Makefile", "a:\n\tb\n"), 0);
        assert_eq!(count("docs/a.md", "`/usr/bin/chromium`, ./home/x, https://example.org/work/x, /workers\n"), 0);
        assert_eq!(count("picture.svg", "a\tb"), 0);
    }
}
