//! The one table of reasons for ending a session: close code, metric label, whether the client may come back as it is.

use roomcast_protocol::CloseCode;

use crate::hub::Stop;
use crate::socket::Violation;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client closed, with this code if it gave one.
    Client(Option<u16>),
    /// The connection broke off without a close.
    Gone,
    /// Nothing was heard for `ping_timeout`.
    Silent,
    /// A message was begun and not finished within `message_deadline`.
    Unfinished,
    /// The client broke RFC 6455, or sent more than a message may hold.
    Violation(Violation),
    /// Binary data, which this version does not speak.
    Binary,
    /// Bad frames, refused publishes or control frames without end.
    Abuse,
    /// The outbound queue was full.
    SlowConsumer,
    /// Its user has as many connections as there may be.
    ConnectionLimit,
    /// The node shuts down.
    Draining,
    /// The node has more clients than its share.
    Rebalanced,
    /// Its name was taken by another, where names are unique.
    NameTaken,
    /// An operator ended it, and asks for its return.
    Requested,
    /// An operator ended it.
    Removed,
    /// Its token has expired, and no other came.
    Expired,
}

impl End {
    /// Why the client is asked to come back, if it is: then it is answered first, and told when.
    pub const fn asks_back(self) -> Option<&'static str> {
        match self {
            Self::Draining => Some("draining"),
            Self::Rebalanced => Some("rebalanced"),
            Self::Requested => Some("requested"),
            _ => None,
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The code sent, if a close frame is sent at all.
    pub code: Option<u16>,
    /// The `reason` label of `roomcast_closes_total`.
    pub label: &'static str,
    /// Words in the close frame.
    pub words: &'static str,
    /// Whether the client may come back unchanged.
    pub may_retry: bool,
}

const fn row(code: CloseCode, label: &'static str, words: &'static str, may_retry: bool) -> Row {
    Row { code: Some(code as u16), label, words, may_retry }
}

impl End {
    /// What the table says.
    pub const fn row(self) -> Row {
        match self {
            Self::Client(code) => Row { code, label: "client", words: "", may_retry: true },
            Self::Gone => Row { code: None, label: "gone", words: "", may_retry: true },
            Self::Silent => row(CloseCode::GoingAway, "silent", "no pong in time", true),
            Self::Unfinished => row(CloseCode::Policy, "unfinished", "message not finished in time", false),
            Self::Violation(Violation { code, reason }) => Row {
                code: Some(code),
                label: match code {
                    1007 => "bad_utf8",
                    1009 => "too_big",
                    _ => "protocol",
                },
                words: reason,
                may_retry: false,
            },
            Self::Binary => row(CloseCode::Unsupported, "binary", "binary frames are not spoken here", false),
            Self::Abuse => row(CloseCode::Policy, "abuse", "too many bad or refused frames", false),
            Self::SlowConsumer => row(CloseCode::SlowConsumer, "slow_consumer", "outbound queue full", true),
            Self::Rebalanced => row(CloseCode::Restart, "rebalanced", "another node has more room", true),
            Self::Draining => row(CloseCode::Restart, "draining", "node is shutting down", true),
            Self::ConnectionLimit => {
                row(CloseCode::TooManyConnections, "connection_limit", "too many connections of this user", true)
            }
            Self::Expired => row(CloseCode::Unauthorized, "expired", "the token has expired", false),
            Self::NameTaken => row(CloseCode::Removed, "name_taken", "the name was taken by another", false),
            Self::Requested => row(CloseCode::Restart, "requested", "an operator asks for a new connection", true),
            Self::Removed => row(CloseCode::Removed, "removed", "removed by an operator", false),
        }
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::SlowConsumer => Self::SlowConsumer,
            Stop::Broken => Self::Gone,
            Stop::Silent => Self::Silent,
            Stop::Unfinished => Self::Unfinished,
            Stop::Draining => Self::Draining,
            Stop::Rebalanced => Self::Rebalanced,
            Stop::NameTaken => Self::NameTaken,
            Stop::Requested => Self::Requested,
            Stop::Removed => Self::Removed,
            Stop::Expired => Self::Expired,
        }
    }
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_protocol() {
        let code = |end: End| end.row().code;
        assert_eq!(code(End::Client(None)), None);
        assert_eq!(code(End::Client(Some(1000))), Some(1000));
        assert_eq!(code(End::Binary), Some(1003));
        assert_eq!(code(End::Abuse), Some(1008));
        assert_eq!(code(End::SlowConsumer), Some(4408));
        assert_eq!((code(End::Draining), code(End::Rebalanced)), (Some(1012), Some(1012)));
        assert_eq!((code(End::Requested), code(End::Removed)), (Some(1012), Some(4409)));
        assert_eq!((code(End::Expired), code(End::ConnectionLimit)), (Some(4401), Some(4429)));
        assert_eq!(code(Violation { code: 1009, reason: "" }.into()), Some(1009));
        assert!(End::SlowConsumer.row().may_retry && !End::Abuse.row().may_retry);
    }
}
