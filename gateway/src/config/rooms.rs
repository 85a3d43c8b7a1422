//! Which policy holds for which room. Built by the loader, asked by the hub and the broker for each room they open.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use roomcast_protocol::{Mode, RoomName};

/// How fast something may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many a second that can be kept up. At least 1.
    pub per_second: u32,
    /// How many at once before that holds. At least 1.
    pub burst: u32,
}

/// What holds for a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPolicy {
    /// Durable or ephemeral.
    pub mode: Mode,
    /// Messages kept, at least; older ones go. 1 to 1,000,000. Means nothing for ephemeral rooms.
    pub history_size: u64,
    /// How long the history outlives the room's last message. 1 s to 365 d.
    pub history_ttl: Duration,
    /// How long a message id is remembered, so that a retry is not stored twice. 1 s to 24 h.
    pub idempotency_window: Duration,
    /// Whether no two members may have the same name, compared byte by byte.
    pub unique_names: bool,
    /// How fast all members and all nodes together may publish; none for no limit.
    pub publish_rate: Option<Rate>,
}

impl Default for RoomPolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Durable,
            history_size: 1000,
            history_ttl: Duration::from_hours(24),
            idempotency_window: Duration::from_mins(5),
            unique_names: false,
            publish_rate: None,
        }
    }
}

/// Which room names are meant: `*` stands for any run of characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPattern(Box<str>);

impl RoomPattern {
    /// Whether `room` is meant. Costs at most the product of both lengths.
    pub fn matches(&self, room: &RoomName) -> bool {
        matches(self.0.as_bytes(), room.as_str().as_bytes())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoomPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = |c: char| c.is_ascii_alphanumeric() || "_.~-*?".contains(c);
        if (1..=128).contains(&text.len()) && text.chars().all(word) {
            Ok(Self(text.into()))
        } else {
            Err("expected 1 to 128 of the characters of a room name, * and ?".to_owned())
        }
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rules in the order of the file; the first that matches holds. An implicit last one makes all other rooms durable
/// with the defaults. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RoomPolicies {
    rules: Arc<[(Box<str>, Arc<RoomPolicy>)]>,
    fallback: Arc<RoomPolicy>,
}

impl RoomPolicies {
    /// Rules as (pattern, policy); `*` stands for any run of characters, `?` for one. Patterns are not checked here.
    pub fn new(rules: impl IntoIterator<Item = (String, RoomPolicy)>) -> Self {
        let rules = rules.into_iter().map(|(pattern, policy)| (pattern.into(), Arc::new(policy))).collect();
        Self { rules, fallback: Arc::default() }
    }

    /// The policy of `room`. Costs one match per rule: ask once per room and keep the answer.
    pub fn policy(&self, room: &RoomName) -> Arc<RoomPolicy> {
        let matching = self.rules.iter().find(|(pattern, _)| matches(pattern.as_bytes(), room.as_str().as_bytes()));
        Arc::clone(matching.map_or(&self.fallback, |(_, policy)| policy))
    }

    /// The rules in order, without the implicit last one.
    pub fn rules(&self) -> impl Iterator<Item = (&str, &RoomPolicy)> {
        self.rules.iter().map(|(pattern, policy)| (&**pattern, &**policy))
    }
}

/// Whether `text` fits `pattern`. Goes back only to the last `*`, so the time is at most the product of the lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                // The star takes one character more, and the rest is tried again.
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("cursor-*", "cursor-", true),
            ("cursor-*", "cursor-9", true),
            ("cursor-*", "xcursor-9", false),
            ("*.tmp", "a.tmp", true),
            ("*.tmp", "a.tmpx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("", "a", false),
            ("lobby", "lobby", true),
            ("lobby", "Lobby", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_patterns_stay_cheap() {
        let pattern = "*a".repeat(64);
        assert!(!matches(pattern.as_bytes(), "a".repeat(63).as_bytes()));
    }

    #[test]
    fn the_first_rule_wins_and_the_rest_is_durable() {
        let ephemeral = RoomPolicy { mode: Mode::Ephemeral, ..RoomPolicy::default() };
        let long = RoomPolicy { history_size: 5, ..RoomPolicy::default() };
        let rooms = RoomPolicies::new([("game-*".to_owned(), ephemeral), ("game-1".to_owned(), long)]);
        let policy = |name| rooms.policy(&RoomName::new(name).expect("valid"));
        assert_eq!(policy("game-1").mode, Mode::Ephemeral);
        assert_eq!(*policy("chat"), RoomPolicy::default());
        assert_eq!(policy("chat").history_ttl, Duration::from_hours(24));
    }
}
