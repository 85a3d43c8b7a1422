//! The wire contract of Roomcast, version 1: names, frames, codes, limits.
//!
//! Everything both ends of the wire must agree on stands here and nowhere else. The gateway, the load tester and the
//! tests use it; it knows neither sockets nor tokio. The prose is in `docs/protocol.md`.

mod client;
mod codes;
mod identity;
mod names;
mod server;

pub use client::{ClientFrame, FrameError, Rejected, Since, brief, check_display_name, checked_id, is_shallow};
pub use codes::{CloseCode, ErrorCode};
pub use identity::{MAX_INFO_BYTES, MAX_USER_BYTES, check_info, check_user};
pub use names::{ClientId, InvalidName, NodeId, RoomName, Term};
pub use server::{
    Ack, JoinedHead, Limits, MemberFields, MessageHead, Mode, PresenceKind, Recovery, Welcome, error_frame,
    history_frame, joined_frame, left_frame, member_list, members_frame, message_frame, message_list, pong_frame,
    presence_frame, reconnect_frame, refreshed_frame, removed_frame, reset_frame,
};

/// The subprotocol a client may ask for; optional.
pub const SUBPROTOCOL: &str = "roomcast.v1.json";
/// Longest display name, in bytes; longer ones are refused.
pub const MAX_NAME_BYTES: usize = 64;
/// Deepest nesting of `data`: what the strictest of the usual parsers still read.
pub const MAX_DATA_DEPTH: usize = 128;
/// Longest `ref` and message `id`, in bytes.
pub const MAX_REF_BYTES: usize = 128;
