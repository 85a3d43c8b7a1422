//! Error codes of frames and close codes of sockets.

/// Why a request was not carried out, as the `code` of an `error` frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not JSON, or a field of the wrong kind.
    BadFrame,
    /// A `type` this version does not know.
    UnknownType,
    /// A room name outside its rule.
    BadRoom,
    /// The request needs membership of a room the client is not in.
    NotJoined,
    /// The client is in that room already.
    AlreadyJoined,
    /// The client is in as many rooms as it may be.
    RoomLimit,
    /// Not allowed.
    Forbidden,
    /// The token is not good; the one before still holds.
    Unauthorized,
    /// The token cannot be checked at present.
    KeysUnavailable,
    /// Another member of the room has that name.
    NameTaken,
    /// Faster than the configured rate.
    RateLimited,
    /// A field is longer than it may be.
    TooLarge,
    /// The number in the `id` is so far behind its producer's that nobody knows whether it was stored.
    StaleId,
    /// The node or the room has too much in flight.
    Overloaded,
    /// The broker cannot be reached; nothing was sent.
    BrokerUnavailable,
    /// The broker's memory is full; nothing was stored.
    StorageFull,
    /// Sent to the broker, no answer: retry with the same `id`.
    Undecided,
    /// A fault of the server.
    Internal,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::UnknownType => "unknown_type",
            Self::BadRoom => "bad_room",
            Self::NotJoined => "not_joined",
            Self::AlreadyJoined => "already_joined",
            Self::RoomLimit => "room_limit",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::KeysUnavailable => "keys_unavailable",
            Self::NameTaken => "name_taken",
            Self::RateLimited => "rate_limited",
            Self::TooLarge => "too_large",
            Self::StaleId => "stale_id",
            Self::Overloaded => "overloaded",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::StorageFull => "storage_full",
            Self::Undecided => "undecided",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request may succeed later.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::KeysUnavailable
                | Self::Overloaded
                | Self::BrokerUnavailable
                | Self::StorageFull
                | Self::Undecided
                | Self::Internal
        )
    }
}

/// The numbers a socket is closed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// Answer to the client's own close.
    Normal = 1000,
    /// The server ends this socket; come back with jitter.
    GoingAway = 1001,
    /// The client broke RFC 6455.
    Protocol = 1002,
    /// Binary where only text is spoken.
    Unsupported = 1003,
    /// Text that is not UTF-8.
    BadUtf8 = 1007,
    /// Abuse.
    Policy = 1008,
    /// A message larger than the limit.
    TooBig = 1009,
    /// Draining; follows `reconnect`.
    Restart = 1012,
    /// Overloaded; back off.
    TryAgainLater = 1013,
    /// Token missing, bad or expired.
    Unauthorized = 4401,
    /// Not allowed.
    Forbidden = 4403,
    /// The outbound queue was full: reconnect and resume.
    SlowConsumer = 4408,
    /// Removed by an operator, or the name is taken where names are unique.
    Removed = 4409,
    /// The user has as many connections as there may be: come back when one of them has gone.
    TooManyConnections = 4429,
}
