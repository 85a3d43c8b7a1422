//! Who a client is besides its name. Given to its peer by the session, which knows where it comes from.

use std::sync::Arc;

/// What others are shown of a client, as its token says; nothing where access is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Whose session it is: 1 to 128 bytes, no control characters ([`roomcast_protocol::check_user`]). The broker refuses
    /// others, and with them the joins of the same turn: whoever makes one checks it.
    pub user: Option<Arc<str>>,
    /// What is told about it: raw JSON of at most 1024 bytes ([`roomcast_protocol::check_info`]). As with the user.
    pub info: Option<Arc<str>>,
}
