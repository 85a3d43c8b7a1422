//! How a call is signed, so that its receiver knows that it came from a node and is new. Used for webhooks and for the
//! call that authorises a connection.

use std::fmt::Write;

use ring::hmac;

/// The header that bears the signature.
pub const HEADER: &str = "roomcast-signature";

/// `t=<unix seconds>,v1=<hex of HMAC-SHA256 over "<t>.<body>">`, with the UTF-8 bytes of `secret` as the key.
pub fn sign(secret: &str, unix_seconds: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{unix_seconds}.").as_bytes());
    context.update(body);
    let mut text = format!("t={unix_seconds},v1=");
    for byte in context.sign().as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::sign;

    /// Made with Python: `hmac.new(b"a secret of 16 bytes or more", '1700000000.{"a":"é"}'.encode(), "sha256")`.
    #[test]
    fn others_come_to_the_same_signature() {
        let expected = "t=1700000000,v1=c94b4078e1e69203e67bc3a7ac712e1417b93cae28b3a3b61e4ba14c4e8456a2";
        assert_eq!(sign("a secret of 16 bytes or more", 1_700_000_000, "{\"a\":\"é\"}".as_bytes()), expected);
    }
}
