//! What a message is remembered by, so that a retry is not stored twice. Used by both brokers, so that they agree; the
//! session says who is behind a message.
//!
//! Within its room, a message is known by its [`Subject`] and its `Key`: two users who choose the same id do not
//! meet.

use ring::digest;

/// Most results of a producer that are kept: as many publishes as one session may have without an answer.
pub(crate) const RESULTS: usize = 256;
/// Most ranges of a producer's numbers that are kept; of more, the lowest are given up.
pub(crate) const RANGES: usize = 32;
/// Longest name of a producer, in bytes.
const MAX_PRODUCER_BYTES: usize = 64;
/// First number that is too large: from here on, neither Lua nor JavaScript counts exactly.
const NUMBERS: u64 = 1 << 53;

/// Whose ids these are: an authenticated user, or nobody in particular while access is open.
///
/// Kept as a hash of 128 bits. What names a user may be long, may hold any byte, and is often an e-mail address: none of
/// which belongs into the names of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Subject(Option<[u8; 16]>);

impl Subject {
    /// Everyone without a name of their own. They share their ids.
    pub const NOBODY: Self = Self(None);

    /// The user that is called this, as the `sub` of a token. Any text, also an empty one, is somebody.
    pub fn of(user: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, user.as_bytes());
        Self(digest.as_ref().first_chunk().copied())
    }

    /// For the name of a key: empty for nobody, else 32 hexadecimal digits.
    pub(crate) fn tag(self) -> String {
        self.0.map(|bytes| format!("{:032x}", u128::from_be_bytes(bytes))).unwrap_or_default()
    }
}

/// What an id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// Nothing more than that it differs from others.
    Plain(&'a str),
    /// `<producer>#<number>`: the message with this number of a producer who counts.
    Numbered { producer: &'a str, number: u64 },
}

impl<'a> Key<'a> {
    /// Reads an id. What is not exactly of the numbered form is plain.
    pub(crate) fn of(id: &'a str) -> Self {
        match id.split_once('#') {
            Some((producer, digits)) if is_producer(producer) => match read_number(digits) {
                Some(number) => Self::Numbered { producer, number },
                None => Self::Plain(id),
            },
            _ => Self::Plain(id),
        }
    }
}

fn is_producer(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'~' | b'-');
    (1..=MAX_PRODUCER_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

/// One way to write each number: `7` and `07` would be two ids, and are.
fn read_number(digits: &str) -> Option<u64> {
    let canonical = digits == "0" || !digits.starts_with('0');
    if !canonical || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|&number| number < NUMBERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_numbered() {
        for (id, producer, number) in [
            ("p#0", "p", 0),
            ("A-z_0.9~#7", "A-z_0.9~", 7),
            ("p#9007199254740991", "p", (1 << 53) - 1),
            (&format!("{}#1", "x".repeat(64)), &"x".repeat(64), 1),
        ] {
            assert_eq!(Key::of(id), Key::Numbered { producer, number });
        }
        let long = format!("{}#1", "x".repeat(65));
        for id in [
            "p",
            "#",
            "p#",
            "#1",
            "##1",
            "p##1",
            "p#1#2",
            "p#-1",
            "p#+1",
            "p# 1",
            "p#1 ",
            "p#01",
            "p#00",
            "p#1.0",
            "p#1e3",
            "p#0x1",
            "p#9007199254740992",
            "p#18446744073709551616",
            "p#99999999999999999999999999999999999999",
            "p#\u{661}",
            "\u{e9}#1",
            "p q#1",
            "p:q#1",
            "{p}#1",
            "p\0#1",
            "p#1\0",
            &long,
        ] {
            assert_eq!(Key::of(id), Key::Plain(id), "{id:?}");
        }
    }

    #[test]
    fn subjects_are_told_apart_and_show_nothing_of_themselves() {
        let long = "x".repeat(100_000);
        let users = ["", "ann", "ann ", "Ann", "a:b", "{lobby}", "\0", "ann@example.org", &long];
        let mut tags: Vec<String> = users.iter().map(|user| Subject::of(user).tag()).collect();
        assert!(tags.iter().all(|tag| tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())));
        tags.push(Subject::NOBODY.tag());
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), users.len() + 1);
        // The same on every node: the first half of SHA-256.
        assert_eq!(Subject::of("").tag(), "e3b0c44298fc1c149afbf4c8996fb924");
    }
}
