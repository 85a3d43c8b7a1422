//! Which file a path means: one in the settings file is beside it, others are in the working directory. Called by those
//! who read and print settings; opens nothing.

use std::any::TypeId;
use std::path::{Path, PathBuf};

use super::source::Setting;

impl Setting<'_> {
    /// Whether it names a file.
    pub(super) fn is_path(&self) -> bool {
        self.0.get_value_parser().type_id() == TypeId::of::<PathBuf>()
    }
}

/// What `name` means in `file`: absolute, so that it is the same wherever it is read again.
pub(super) fn beside(file: &Path, name: &Path) -> PathBuf {
    absolute(&file.parent().unwrap_or(Path::new("")).join(name))
}

/// What `name` means in the working directory.
pub(super) fn absolute(name: &Path) -> PathBuf {
    // This fails where nothing can be said: without a name, or without a working directory.
    std::path::absolute(name).unwrap_or_else(|_| name.to_owned())
}
