//! What a token, or the answer of an `authorize` call, says about a client: read strictly, then made into a [`Grant`].
//!
//! A claim that is there twice, or is of another kind than it must be, makes the whole unreadable. Unknown claims are
//! none of our business.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use roomcast_protocol::{check_display_name, check_info, check_user};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Denied;
use super::grant::{Grant, Rooms};
use super::issuer::LAST_SECOND;
use crate::config::RoomPattern;

/// Most patterns of one list: each costs a match per request.
const MAX_PATTERNS: usize = 256;

/// Claims as they were written.
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// Who it is.
    #[serde(default)]
    pub sub: Option<String>,
    /// Until when it holds, seconds since the Unix epoch; the fraction counts.
    #[serde(default)]
    pub exp: Option<f64>,
    /// The display name.
    #[serde(default)]
    pub name: Option<String>,
    /// JSON about the client for other members.
    #[serde(default)]
    info: Option<Box<RawValue>>,
    /// What may be done where.
    #[serde(default)]
    rooms: Option<RoomClaims>,
}

#[derive(Debug)]
enum RoomClaims {
    /// All rights in these rooms.
    All(Vec<String>),
    /// A list for each right; no list is no room.
    Each(RightClaims),
}

impl<'de> Deserialize<'de> for RoomClaims {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RoomClaims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of patterns, or an object with such lists")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RoomClaims, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(RoomClaims::All)
            }

            fn visit_map<A: MapAccess<'de>>(self, lists: A) -> Result<RoomClaims, A::Error> {
                RightClaims::deserialize(MapAccessDeserializer::new(lists)).map(RoomClaims::Each)
            }
        }

        de.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RightClaims {
    #[serde(default)]
    join: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    history: Vec<String>,
    #[serde(default)]
    presence: Vec<String>,
}

impl Claims {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// When it is none, or one of our claims is of another kind than it must be.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        // An object and nothing else: serde would read a list as the fields in their order, too.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(de::Error::custom("expected a JSON object"));
        }
        serde_json::from_slice(json)
    }

    /// These claims, but until `end`.
    pub(super) fn until(self, end: SystemTime) -> Self {
        let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { exp: Some(since.as_secs_f64()), ..self }
    }

    /// What these claims give. `defaults` holds where they name no rooms; `prefix` is put in front of the user.
    ///
    /// # Errors
    /// [`Denied::Claim`] for one that is too long or breaks its rule.
    pub fn grant(self, defaults: &Arc<[RoomPattern]>, prefix: &str) -> Result<Grant, Denied> {
        let rooms = match self.rooms {
            None => Rooms::all_in(Arc::clone(defaults)),
            Some(RoomClaims::All(list)) => Rooms::all_in(patterns(&list)?),
            Some(RoomClaims::Each(lists)) => Rooms {
                join: patterns(&lists.join)?,
                publish: patterns(&lists.publish)?,
                history: patterns(&lists.history)?,
                presence: patterns(&lists.presence)?,
            },
        };
        let expires_at = self.exp.map(time).transpose()?;
        Ok(Grant::new(
            self.sub.map(|sub| user(&sub, prefix)).transpose()?,
            self.name.map(name).transpose()?,
            self.info.map(|info| shown(&info)).transpose()?,
            expires_at,
            rooms,
        ))
    }
}

fn user(sub: &str, prefix: &str) -> Result<Arc<str>, Denied> {
    let whole = format!("{prefix}{sub}");
    let fits = !sub.is_empty() && check_user(&whole).is_ok();
    if fits { Ok(whole.into()) } else { Err(Denied::Claim("sub")) }
}

fn name(name: String) -> Result<Arc<str>, Denied> {
    check_display_name(&name).map(|()| name.into()).map_err(|_| Denied::Claim("name"))
}

fn shown(info: &RawValue) -> Result<Arc<str>, Denied> {
    let text = info.get();
    check_info(text).map(|()| text.into()).map_err(|_| Denied::Claim("info"))
}

fn patterns(list: &[String]) -> Result<Arc<[RoomPattern]>, Denied> {
    let broken = Denied::Claim("rooms");
    if list.len() > MAX_PATTERNS {
        return Err(broken);
    }
    list.iter().map(|text| text.parse().map_err(|_| broken)).collect()
}

fn time(seconds: f64) -> Result<SystemTime, Denied> {
    // As for a token's: later than any that is meant, such as milliseconds, is a mistake.
    let since = (0.0..=LAST_SECOND).contains(&seconds).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten();
    since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)).ok_or(Denied::Claim("exp"))
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::RoomName;

    use super::*;
    use crate::access::Right;

    fn grant(json: &str) -> Result<Grant, Denied> {
        let defaults = Arc::from(["public-*".parse().expect("a pattern")]);
        Claims::read(json.as_bytes()).expect(json).grant(&defaults, "")
    }

    #[test]
    fn a_time_that_nobody_means_is_refused() {
        assert!(grant(r#"{"sub":"a","exp":1795291943}"#).is_ok());
        for exp in ["1795291943612", "1e30", "-1", "18446744073709551616000"] {
            assert_eq!(grant(&format!(r#"{{"sub":"a","exp":{exp}}}"#)).err(), Some(Denied::Claim("exp")), "{exp}");
        }
    }

    fn may(grant: &Grant, right: Right, room: &str) -> bool {
        grant.may(right, &RoomName::new(room).expect("a name"))
    }

    #[test]
    fn a_list_means_all_rights_and_lists_mean_one_each() {
        let all = grant(r#"{"sub":"ann","rooms":["lobby","team-*"]}"#).expect("good");
        assert!(may(&all, Right::Join, "lobby") && may(&all, Right::Presence, "team-1"));
        assert!(!may(&all, Right::Join, "public-1"), "the defaults are for those who name none");
        let each = grant(r#"{"rooms":{"join":["lobby"],"publish":[]}}"#).expect("good");
        assert!(may(&each, Right::Join, "lobby") && !may(&each, Right::Publish, "lobby"));
        let none = grant(r#"{"sub":"ann"}"#).expect("good");
        assert!(may(&none, Right::Join, "public-1") && !may(&none, Right::Join, "lobby"));
        assert!(!may(&grant(r#"{"rooms":[]}"#).expect("good"), Right::Join, "public-1"));
    }

    #[test]
    fn who_it_is_is_checked_and_kept() {
        let ann = grant(r#"{"sub":"ann","name":"Ann","info":{"a" : [1]},"exp":4000000000.5,"x":1}"#).expect("good");
        assert_eq!(ann.user().map(|user| &**user), Some("ann"));
        assert_eq!(ann.name().map(|name| &**name), Some("Ann"));
        assert_eq!(ann.info().map(|info| &**info), Some(r#"{"a" : [1]}"#));
        let exp = SystemTime::UNIX_EPOCH + Duration::from_millis(4_000_000_000_500);
        assert_eq!(ann.expires_at(), Some(exp));
        let long = "x".repeat(129);
        for (claim, json) in [
            ("sub", r#"{"sub":""}"#.to_owned()),
            ("sub", r#"{"sub":"a\nb"}"#.to_owned()),
            ("sub", format!(r#"{{"sub":"{long}"}}"#)),
            ("name", r#"{"name":""}"#.to_owned()),
            ("name", format!(r#"{{"name":"{long}"}}"#)),
            ("info", format!(r#"{{"info":"{}"}}"#, "i".repeat(1023))),
            ("info", format!(r#"{{"info":{}{}}}"#, "[".repeat(127), "]".repeat(127)).replace("[]", "[[[]]]")),
            ("rooms", r#"{"rooms":["a b"]}"#.to_owned()),
            ("rooms", format!(r#"{{"rooms":[{}"a"]}}"#, "\"a\",".repeat(256))),
            ("exp", r#"{"exp":-1}"#.to_owned()),
            ("exp", r#"{"exp":1e300}"#.to_owned()),
        ] {
            assert_eq!(grant(&json).err(), Some(Denied::Claim(claim)), "{json}");
        }
    }

    #[test]
    fn claims_of_the_wrong_kind_or_twice_are_unreadable() {
        for json in [
            r#"{"exp":"4000000000"}"#,
            r#"{"exp":true}"#,
            r#"{"exp":4000000000,"exp":1}"#,
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"sub":7}"#,
            r#"{"name":["x"]}"#,
            r#"{"rooms":"lobby"}"#,
            r#"{"rooms":{"publsh":["lobby"]}}"#,
            r#"{"rooms":{"join":["a"],"join":["*"]}}"#,
            r#"{"rooms":["a"],"rooms":["*"]}"#,
            r#"{"rooms":[["a"],["a"],["a"],["a"]]}"#,
            "[]",
            "7",
            "",
        ] {
            assert!(Claims::read(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn a_prefix_keeps_two_issuers_users_apart() {
        let claims = Claims::read(br#"{"sub":"ann"}"#).expect("good");
        let grant = claims.grant(&Arc::default(), "corp:").expect("good");
        assert_eq!(grant.user().map(|user| &**user), Some("corp:ann"));
    }
}
