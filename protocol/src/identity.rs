//! Who a client is, as a token says and as others are shown: its user, and what its application told about it.
//!
//! Checked where it enters, and again by whoever reads it from elsewhere; knows neither tokens nor frames.

use serde_json::value::RawValue;

use crate::{InvalidName, is_shallow};

/// Longest user, in bytes.
pub const MAX_USER_BYTES: usize = 128;
/// Longest info, in bytes of its JSON.
pub const MAX_INFO_BYTES: usize = 1024;

/// Checks a user: 1 to 128 bytes of text without control characters.
///
/// # Errors
/// Says the rule.
pub fn check_user(user: &str) -> Result<(), InvalidName> {
    if (1..=MAX_USER_BYTES).contains(&user.len()) && !user.chars().any(char::is_control) {
        return Ok(());
    }
    Err(InvalidName { what: "user", expected: "1 to 128 bytes of text without control characters" })
}

/// Checks what members are shown about another besides its name: one JSON value of at most 1024 bytes, nested at most 128
/// levels deep as data may be. It goes into frames as it stands, so nothing but JSON may pass.
///
/// # Errors
/// Says the rule.
pub fn check_info(info: &str) -> Result<(), InvalidName> {
    if info.len() <= MAX_INFO_BYTES && serde_json::from_str::<&RawValue>(info).is_ok() && is_shallow(info) {
        return Ok(());
    }
    Err(InvalidName { what: "info", expected: "JSON of at most 1024 bytes, nested at most 128 levels deep" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_DATA_DEPTH;

    #[test]
    fn users_are_any_text_that_can_be_shown() {
        for good in ["a", "zoë@example.com", "a|b c\"\\", "☃", &"u".repeat(MAX_USER_BYTES)] {
            assert_eq!(check_user(good), Ok(()), "{good:?}");
        }
        for bad in ["", "a\nb", "a\u{1f}b", "\u{7f}", "\u{85}", "\0", &"u".repeat(MAX_USER_BYTES + 1)] {
            assert!(check_user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn info_is_json_within_bounds() {
        let longest = format!("\"{}\"", "i".repeat(MAX_INFO_BYTES - 2));
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let deepest = nested(MAX_DATA_DEPTH);
        for good in ["{}", "null", " [1, 2.50] ", r#"{"a":"}{\"\u001f"}"#, &longest, &deepest] {
            assert_eq!(check_info(good), Ok(()), "{good:?}");
        }
        let too_long = format!("\"{}\"", "i".repeat(MAX_INFO_BYTES - 1));
        let too_deep = nested(MAX_DATA_DEPTH + 1);
        for bad in ["", "{", "{}{}", "1,2", "x", "\"\u{1f}\"", "{}\u{1f}", "{},\"name\":1", &too_long, &too_deep] {
            assert!(check_info(bad).is_err(), "{bad:?}");
        }
    }
}
