//! The files that the rules look at, read once. Called by the parent and by the rules' tests; knows no rule.

use std::fs;
use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use super::Violation;

/// Directories of results and caches.
const SKIPPED: &[&str] = &["target", "node_modules", "__pycache__", "corpus", "artifacts"];
/// Hidden directories that hold sources.
const HIDDEN: &[&str] = &[".ci", ".cargo"];
/// A file whose first lines say so was written by a program.
const GENERATED: &str = concat!("@", "generated");

/// The repository's text files, paths relative to its root with `/`.
#[derive(Default)]
pub struct Tree {
    /// Every text file.
    pub files: Vec<File>,
    /// Rust sources that do not parse.
    pub unreadable: Vec<Violation>,
}

/// One text file.
pub struct File {
    pub path: String,
    pub text: String,
    /// The syntax of a Rust source.
    pub rust: Option<syn::File>,
    /// Written by a program: its size and looks are not ours to judge.
    pub generated: bool,
}

impl Tree {
    /// Reads everything under `root` but results, caches and hidden directories. Files that are not UTF-8 are left out.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(wanted) {
            let entry = entry?;
            if !entry.file_type().is_file() {
                continue;
            }
            let path = entry.path().strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            if let Ok(text) = String::from_utf8(fs::read(entry.path())?) {
                tree.add(path, text);
            }
        }
        Ok(tree)
    }

    /// A tree of (path, text).
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add((*path).to_owned(), (*text).to_owned());
        }
        tree
    }

    fn add(&mut self, path: String, text: String) {
        let is_rust = has_extension(&path, "rs");
        let rust = is_rust.then(|| syn::parse_file(&text)).and_then(|parsed| match parsed {
            Ok(file) => Some(file),
            Err(error) => {
                let line = error.span().start().line;
                self.unreadable.push(Violation::new(path.clone(), line, "parse", error.to_string()));
                None
            }
        });
        let generated = text.lines().take(5).any(|line| line.contains(GENERATED));
        self.files.push(File { path, text, rust, generated });
    }

    /// The Rust sources that parse, with their syntax.
    pub fn rust(&self) -> impl Iterator<Item = (&File, &syn::File)> {
        self.files.iter().filter_map(|file| Some((file, file.rust.as_ref()?)))
    }

    /// The file of this path.
    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// Whether the path ends in `.extension`.
pub fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

fn wanted(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    if entry.depth() == 0 {
        return true;
    }
    if entry.file_type().is_dir() {
        return !SKIPPED.contains(&&*name) && (!name.starts_with('.') || HIDDEN.contains(&&*name));
    }
    // A developer's own settings are not the project's.
    name != ".env" && name != ".git"
}
