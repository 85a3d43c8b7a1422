//! What a path and its query ask for.

use std::borrow::Cow;

use roomcast_protocol::{RoomName, Since, check_display_name};

use crate::server::outcome::{HandshakeOutcome as Outcome, Refusal};
use crate::session::accepted::Route;

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// `/ws`, or `/ws/` and a room, still percent-encoded.
    Rooms(Option<&'a str>),
    Connect,
    Echo,
}

impl<'a> Place<'a> {
    pub(super) fn of(path: &'a str, echo: bool) -> Option<Self> {
        match path {
            "/ws" => Some(Self::Rooms(None)),
            "/connect" => Some(Self::Connect),
            "/echo" if echo => Some(Self::Echo),
            _ => path.strip_prefix("/ws/").map(|room| Self::Rooms(Some(room))),
        }
    }
}

/// What the query says, beside the rooms.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) name: Option<String>,
    pub(super) token: Option<String>,
    rooms: Vec<RoomName>,
    since: Option<Since>,
}

impl Asked {
    /// Reads the known parameters; others are none of our business.
    pub(super) fn read(query: &str) -> Result<Self, Refusal> {
        let mut asked = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "room" => asked.rooms.push(room(&decode(value, true)?)?),
                "since" => once(&mut asked.since, key, decode(value, true)?.parse().map_err(|_| bad_since())?)?,
                "token" => once(&mut asked.token, key, decode(value, true)?.into_owned())?,
                "name" => {
                    let name = decode(value, true)?.into_owned();
                    check_display_name(&name).map_err(|error| Refusal::new(Outcome::BadName, error.message))?;
                    once(&mut asked.name, key, name)?;
                }
                _ => {}
            }
        }
        Ok(asked)
    }

    /// Puts path and query together: the room of the path first, then those of the query, none twice.
    pub(super) fn route(&mut self, place: Place<'_>, max_rooms: usize) -> Result<Route, Refusal> {
        let of_path = match place {
            Place::Echo => return Ok(Route::Echo),
            Place::Connect if self.rooms.is_empty() && self.since.is_none() => return Ok(Route::Bare),
            Place::Connect => {
                return Err(Refusal::new(Outcome::BadQuery, "/connect joins nothing: use /ws with room and since"));
            }
            Place::Rooms(of_path) => of_path.map(|text| room(&decode(text, false)?)).transpose()?,
        };
        let mut rooms: Vec<(RoomName, Option<Since>)> = Vec::new();
        for room in of_path.into_iter().chain(self.rooms.drain(..)) {
            if rooms.iter().all(|(known, _)| *known != room) {
                rooms.push((room, None));
            }
            if rooms.len() > max_rooms {
                let detail = format!("too many rooms: at most {max_rooms} on one connection");
                return Err(Refusal::new(Outcome::TooManyRooms, detail));
            }
        }
        if rooms.is_empty() {
            rooms.push((RoomName::random(), None));
        }
        if let Some((_, since)) = rooms.first_mut() {
            *since = self.since.take();
        }
        let path_room = rooms.first().map(|(room, _)| room.clone());
        Ok(Route::Rooms { rooms, path_room })
    }
}

fn bad_since() -> Refusal {
    Refusal::new(Outcome::BadQuery, "malformed since: expected <term>:<seq>")
}

fn room(text: &str) -> Result<RoomName, Refusal> {
    RoomName::new(text).map_err(|error| Refusal::new(Outcome::BadRoom, error.to_string()))
}

fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::new(Outcome::BadQuery, format!("{key} is given more than once"))),
    }
}

/// Undoes percent-encoding, and `+` for a space where `form` says that it means one.
pub(in crate::server) fn decode(text: &str, form: bool) -> Result<Cow<'_, str>, Refusal> {
    if !text.bytes().any(|byte| byte == b'%' || (form && byte == b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' if form => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else { return Err(bad_encoding()) };
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| bad_encoding())
}

fn bad_encoding() -> Refusal {
    Refusal::new(Outcome::BadQuery, "malformed percent-encoding: expected %XX of UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, query: &str) -> Result<Route, Outcome> {
        let place = Place::of(path, false).ok_or(Outcome::NotFound)?;
        let mut asked = Asked::read(query).map_err(|refusal| refusal.outcome)?;
        asked.route(place, 3).map_err(|refusal| refusal.outcome)
    }

    fn names(path: &str, query: &str) -> Vec<String> {
        match route(path, query).expect("granted") {
            Route::Rooms { rooms, path_room } => {
                assert_eq!(path_room.as_ref(), rooms.first().map(|(room, _)| room));
                rooms.iter().map(|(room, _)| room.to_string()).collect()
            }
            other => panic!("rooms expected, got {other:?}"),
        }
    }

    #[test]
    fn rooms_come_from_path_and_query() {
        assert_eq!(names("/ws/lobby", ""), ["lobby"]);
        assert_eq!(names("/ws/%6Cobby", "utm=1&&x"), ["lobby"]);
        assert_eq!(names("/ws", "room=a&room=b&room=a"), ["a", "b"]);
        assert_eq!(names("/ws/c", "room=a&room=c"), ["c", "a"]);
        assert_ne!(names("/ws", ""), names("/ws", ""), "generated");
        assert_eq!(route("/connect", "name=x"), Ok(Route::Bare));
        assert_eq!(route("/ws", "room=a&room=b&room=c&room=d"), Err(Outcome::TooManyRooms));
        for (path, query) in [("/ws/", ""), ("/ws/a%2Fb", ""), ("/ws/a/b", ""), ("/ws/a+b", ""), ("/ws", "room=")] {
            assert_eq!(route(path, query), Err(Outcome::BadRoom), "{path} {query}");
        }
        for path in ["/", "/wsx", "/echo", "/connect/a"] {
            assert_eq!(route(path, ""), Err(Outcome::NotFound), "{path}");
        }
    }

    #[test]
    fn since_belongs_to_the_first_room() {
        let Ok(Route::Rooms { rooms, .. }) = route("/ws/a", "room=b&since=t1%3A7") else { panic!("rooms") };
        let since: Vec<_> = rooms.iter().map(|(_, since)| since.as_ref().map(|since| since.seq)).collect();
        assert_eq!(since, [Some(7), None]);
        for query in
            ["since=7", "since=", "since=T:1", "since=t:1&since=t:1", "since=%zz", "token=%ff", "token=a&token=b"]
        {
            assert_eq!(route("/ws/a", query), Err(Outcome::BadQuery), "{query}");
        }
        assert_eq!(route("/connect", "since=t:1"), Err(Outcome::BadQuery));
        assert_eq!(route("/connect", "room=a"), Err(Outcome::BadQuery));
    }

    #[test]
    fn names_are_decoded_and_checked() {
        let name = |query| Asked::read(query).map(|asked| asked.name).map_err(|refusal| refusal.outcome);
        assert_eq!(name("name=Zo%C3%AB+K"), Ok(Some("Zoë K".into())));
        assert_eq!(name("name="), Err(Outcome::BadName));
        assert_eq!(name("name=a%0Ab"), Err(Outcome::BadName));
        assert_eq!(name(&format!("name={}", "n".repeat(65))), Err(Outcome::BadName));
    }
}
