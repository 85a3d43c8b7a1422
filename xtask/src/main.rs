//! `cargo xtask tidy`: checks the rules of the house on the sources themselves. Called by `make tidy` and `make lint`.
//! Knows the repository's layout, and nothing of what the gateway does at run time.

mod tidy;

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("tidy"), root) => tidy(&root.map_or_else(workspace, PathBuf::from)),
        _ => bail!("usage: cargo xtask tidy [ROOT]"),
    }
}

fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn tidy(root: &Path) -> anyhow::Result<ExitCode> {
    let tree = tidy::Tree::read(root).with_context(|| format!("cannot read {}", root.display()))?;
    let violations = tidy::check(&tree);
    let mut out = io::stdout().lock();
    for violation in &violations {
        writeln!(out, "{violation}")?;
    }
    writeln!(out, "tidy: {} files, {} violations", tree.files.len(), violations.len())?;
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
