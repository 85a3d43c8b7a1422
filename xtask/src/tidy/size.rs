//! No file and no function grows beyond what is read in one sitting. Called by the parent.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Violation;
use super::tree::{Tree, has_extension};

const RULE: &str = "size";
/// Lines of a Rust file, its tests included.
const FILE_LINES: usize = 400;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 80;

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| has_extension(&file.path, "rs") && !file.generated) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            let words = format!("{lines} lines; at most {FILE_LINES}");
            found.push(Violation::new(&file.path, FILE_LINES + 1, RULE, words));
        }
        if let Some(syntax) = &file.rust {
            let mut functions = Functions { path: &file.path, found: &mut found };
            functions.visit_file(syntax);
        }
    }
    found
}

struct Functions<'a> {
    path: &'a str,
    found: &'a mut Vec<Violation>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let lines = body.span().end().line + 1 - first;
        if lines > FUNCTION_LINES {
            let words = format!("fn {} has {lines} lines; at most {FUNCTION_LINES}", signature.ident);
            self.found.push(Violation::new(self.path, first, RULE, words));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.measure(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
    }

    fn found(text: &str) -> Vec<usize> {
        check(&Tree::of(&[("a.rs", text)])).into_iter().map(|found| found.line).collect()
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(found(&"// line\n".repeat(FILE_LINES + 1)), [FILE_LINES + 1]);
        assert!(found(&"// line\n".repeat(FILE_LINES)).is_empty());
        assert!(found(&format!("// {}\n{}", concat!("@", "generated"), "// x\n".repeat(999))).is_empty());
    }

    #[test]
    fn long_functions_are_found_wherever_they_stand() {
        let long = function(FUNCTION_LINES + 1);
        assert_eq!(found(&long), [1]);
        assert_eq!(found(&format!("impl T {{\n{long}}}")), [2]);
        assert_eq!(found(&format!("trait T {{\n{long}}}")), [2]);
        assert_eq!(found(&format!("mod tests {{\n\n{long}}}")), [3]);
        assert!(found(&function(FUNCTION_LINES)).is_empty());
    }
}
