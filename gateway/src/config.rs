//! The node's settings: one struct, read once at start from flags, environment, `.env` and a file. Called by main; known
//! to every floor above. It must not know what a setting does.

mod file;
mod parse;
mod print;
mod rooms;
mod settings;
mod source;

pub use parse::RedisUrl;
pub use rooms::{RoomPolicies, RoomPolicy};
pub use settings::{LogFormat, Settings};
pub use source::{Action, ConfigError, Origin};

#[cfg(test)]
mod tests;
