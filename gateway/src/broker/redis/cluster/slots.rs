//! The arithmetic of Redis Cluster: which of the 16,384 slots a tag belongs to, and what `CLUSTER SLOTS` says of them.

use ::redis::{RedisError, Value};

/// Slots of a cluster.
pub(in super::super) const SLOTS: u16 = 16384;

/// Where a server listens.
pub(in super::super) type Address = (String, u16);

/// The slot of the keys and channels whose hash tag is `tag`.
pub(in super::super) fn slot(tag: &str) -> u16 {
    // CRC-16/XMODEM, as the cluster specification has it.
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    crc % SLOTS
}

/// Slots from the first to the second, and their master.
pub(in super::super) type Layout = Vec<(u16, u16, Address)>;

/// Reads the answer to `CLUSTER SLOTS`, given by the server at `asked`. Slots without a known master are left out.
pub(in super::super) fn layout(answer: &[Value], asked: &str) -> Layout {
    let range = |entry: &Value| {
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = items(entry)? else { return None };
        let [host, Value::Int(port), ..] = &master[..] else { return None };
        let host = match host {
            // It does not know its own name: it is the one that we reached.
            Value::Nil => asked,
            Value::BulkString(host) if host.is_empty() => asked,
            Value::BulkString(host) if host == b"?" => return None,
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            _ => return None,
        };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        (first <= last && last < SLOTS).then_some(())?;
        Some((first, last, (host.to_owned(), u16::try_from(*port).ok()?)))
    };
    answer.iter().filter_map(range).collect()
}

fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// What a server says when a key is not its own: nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Redirect {
    /// Another server has the slot for good, if it says which.
    Moved(Option<(u16, Address)>),
    /// Another server has this key already, while the slot is on its way to it.
    Ask(Address),
    /// Some keys of a call are here and some are not. For a moment.
    TryAgain,
}

impl Redirect {
    pub(in super::super) fn of(error: &RedisError) -> Option<Self> {
        match error.code()? {
            "MOVED" => Some(Self::Moved(target(error))),
            "ASK" => Some(target(error).map_or(Self::Moved(None), |(_, address)| Self::Ask(address))),
            "TRYAGAIN" => Some(Self::TryAgain),
            _ => None,
        }
    }
}

fn target(error: &RedisError) -> Option<(u16, Address)> {
    let (address, slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    // An empty host: the one that answered, which only a fresh map knows by name.
    (!host.is_empty() && slot < SLOTS).then_some(())?;
    Some((slot, (host.to_owned(), port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::redis::parse_redis_value;

    #[test]
    fn slots_are_those_of_redis() {
        // Of the specification, and of CLUSTER KEYSLOT.
        for (tag, expected) in [("123456789", 0x31C3), ("", 0), ("foo", 12182), ("bar", 5061), ("hello", 866)] {
            assert_eq!(slot(tag), expected % SLOTS, "{tag}");
        }
    }

    #[test]
    fn layouts_are_read_and_nonsense_is_left_out() {
        let text =
            b"*6\r\n*3\r\n:0\r\n:99\r\n*3\r\n$1\r\na\r\n:1\r\n$2\r\nid\r\n*3\r\n:100\r\n:100\r\n*2\r\n$0\r\n\r\n:2\r\n\
                     *3\r\n:101\r\n:102\r\n*2\r\n$-1\r\n:3\r\n*3\r\n:103\r\n:16384\r\n*2\r\n$1\r\nb\r\n:3\r\n\
                     *3\r\n:5\r\n:4\r\n*2\r\n$1\r\nb\r\n:3\r\n*3\r\n:5\r\n:6\r\n*2\r\n$1\r\n?\r\n:3\r\n";
        let Ok(Value::Array(answer)) = parse_redis_value(text) else { panic!("no array") };
        let address = |host: &str, port| (host.to_owned(), port);
        let expected = [(0, 99, address("a", 1)), (100, 100, address("me", 2)), (101, 102, address("me", 3))];
        assert_eq!(layout(&answer, "me"), expected);
    }

    #[test]
    fn redirects_are_read() {
        let read = |text: &str| {
            let value = parse_redis_value(format!("-{text}\r\n").as_bytes()).expect("an answer");
            Redirect::of(&value.extract_error().expect_err("an error"))
        };
        let there = ("::1".to_owned(), 7001);
        assert_eq!(read("MOVED 5 ::1:7001"), Some(Redirect::Moved(Some((5, there.clone())))));
        assert_eq!(read("MOVED 5 :7001"), Some(Redirect::Moved(None)));
        assert_eq!(read("MOVED x"), Some(Redirect::Moved(None)));
        assert_eq!(read("ASK 5 ::1:7001"), Some(Redirect::Ask(there)));
        assert_eq!(read("TRYAGAIN later"), Some(Redirect::TryAgain));
        assert_eq!(read("ERR no"), None);
    }
}
