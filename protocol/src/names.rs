//! Names that cross the wire, checked once where they enter and cheap to clone afterwards.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// A name that does not fit its rule. `expected` says what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: expected {expected}")]
pub struct InvalidName {
    /// Which kind of name was meant.
    pub what: &'static str,
    /// The rule it broke.
    pub expected: &'static str,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'~' | b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` against the rule of this kind of name.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                let allowed: fn(u8) -> bool = $allowed;
                if (1..=$max).contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { what: $what, expected: $expected })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// A room. The rule keeps names safe as Redis keys, URL paths and log fields, and leaves `{}` to us.
    RoomName, "room name", "1 to 128 of the characters A-Z a-z 0-9 _ . ~ -", 128, is_word
);
name!(
    /// One gateway process, unique while it lives.
    NodeId, "node id", "1 to 64 of the characters A-Z a-z 0-9 _ . ~ -", 64, is_word
);
name!(
    /// One unbroken history of a room: seqs of different terms must not be compared.
    Term, "term", "1 to 32 of the characters 0-9 a-z", 32,
    |byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()
);

/// One session of one client, unique over all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Uuid);

impl ClientId {
    /// Whoever publishes without a session of its own: over HTTP. No session has this id.
    pub const NOBODY: Self = Self(Uuid::nil());

    /// A new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as its 16 bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The id with these 16 bytes; any are valid.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The id as 36 hyphenated characters, written into `buffer`.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl std::str::FromStr for ClientId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidName { what: "client id", expected: "a UUID" })
    }
}

impl RoomName {
    /// A generated room, for clients that name none.
    pub fn random() -> Self {
        Self(Uuid::new_v4().hyphenated().to_string().into())
    }
}

impl Term {
    /// A new term: 64 random bits as 16 hexadecimal digits.
    pub fn random() -> Self {
        Self(format!("{:016x}", Uuid::new_v4().as_u64_pair().1 ^ Uuid::new_v4().as_u64_pair().0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_follow_their_rule() {
        for good in ["a", "A_b.c~d-9", &"x".repeat(128)] {
            assert_eq!(RoomName::new(good).expect("valid").as_str(), good);
        }
        for bad in ["", "a b", "a/b", "a{b}", "a*", "é", "a\r\nb", "a\0", &"x".repeat(129)] {
            assert!(RoomName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_names_are_valid_and_differ() {
        assert_ne!(Term::random(), Term::random());
        assert!(Term::new(Term::random().as_str()).is_ok());
        assert!(RoomName::new(RoomName::random().as_str()).is_ok());
        let id = ClientId::random();
        assert_eq!(id.to_string().parse::<ClientId>(), Ok(id));
    }
}
