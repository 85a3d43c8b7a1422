//! The node's settings: one struct, read once at start from flags, environment, `.env` and a file. Called by main; known
//! to every floor above. It must not know what a setting does.

mod api_keys;
mod error;
mod file;
mod http_api;
mod issuers;
mod key_verb;
mod links;
mod outward;
mod parse;
mod password;
mod paths;
mod print;
mod redis_url;
mod rooms;
mod sabotage;
mod settings;
mod source;
mod token_args;
mod web_url;
mod webhooks;

pub use api_keys::{ApiKey, Scope, hash};
pub use error::{ConfigError, Origin, WrongValue};
pub use http_api::HttpApi;
pub use issuers::{IssuerSettings, IssuerTable};
pub use links::{PageModule, SocketUrl};
pub use outward::Outward;
pub use password::Password;
pub use print::reference_table;
pub use redis_url::{RedisTopology, RedisUrl};
pub use rooms::{Rate, RoomPattern, RoomPolicies, RoomPolicy};
pub use sabotage::Fault;
pub use settings::{LogFormat, Settings};
pub use source::Action;
pub use token_args::TokenArgs;
pub use web_url::WebUrl;
pub use webhooks::{EventKind, MAX_WEBHOOKS, Webhook};

#[cfg(test)]
mod tests;
