//! Shows the settings: as a file for `--config`, and as the table of docs/configuration.md. Must not know single settings.

use super::source::Loaded;

pub(super) fn effective(_loaded: &Loaded) -> String {
    String::new()
}
