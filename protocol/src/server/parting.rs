//! What a client is told when it is taken out of a room without having asked.

use super::{frame, push_str};
use crate::RoomName;

/// A `left` frame of somebody who was removed, with words for the user if the operator gave some.
pub fn removed_frame(room: &RoomName, words: Option<&str>) -> Vec<u8> {
    let mut out = frame("left", Some(room), None);
    out.extend_from_slice(br#","reason":"removed""#);
    if let Some(words) = words {
        out.extend_from_slice(br#","message":"#);
        push_str(&mut out, words);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn words_are_written_as_json() {
        let room = RoomName::new("a").expect("valid");
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let bare = json!({"type": "left", "room": "a", "reason": "removed"});
        assert_eq!(read(&removed_frame(&room, None)), bare);
        let told = json!({"type": "left", "room": "a", "reason": "removed", "message": "no \"spam\"\u{7}"});
        assert_eq!(read(&removed_frame(&room, Some("no \"spam\"\u{7}"))), told);
    }
}
