//! What a message carries: who published it where, as which number, when it was meant to be sent.
//!
//! Written by publishers, read by every receiver; knows nothing of rooms or sockets. `data` is one JSON string of
//! exactly the wanted size, quotes included, with a checksum over all of it:
//! `"rc1:`, the stamp (30 bytes as 40 characters of base64url), filler, CRC-32 (6 characters), `"`.

/// The identity of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The run, random: messages of another run are not ours.
    pub run: u32,
    /// Index of the room in the run.
    pub room: u32,
    /// Index of the publishing client in the run, over all processes.
    pub publisher: u32,
    /// The publisher's messages are numbered from 1.
    pub number: u32,
    /// 0 for the first attempt; a retry under the same id has 1 or more.
    pub attempt: u8,
    /// Hash of the node id that the publisher was connected to.
    pub node: u32,
    /// When it was meant to be sent, ns since the Unix epoch.
    pub intended_ns: u64,
}

/// Why `data` is no message of a load test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Somebody else's traffic.
    #[error("not written by a load test")]
    NotOurs,
    /// Written by a load test, and not what was written any more.
    #[error("damaged: the form or the checksum is wrong")]
    Corrupted,
}

/// Begins every payload, opening quote included.
const TAG: &[u8; 5] = b"\"rc1:";
/// Characters of the stamp: 30 bytes.
const STAMP: usize = 40;
/// Characters of the checksum: 36 bits hold its 32.
const SUM: usize = 6;
/// Bytes of the shortest payload: no filler.
pub const SMALLEST: usize = TAG.len() + STAMP + SUM + 1;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Value of each character; 255 for what is none.
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [255; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
}

/// Appends the payload of `stamp`: `size` bytes of JSON, or [`SMALLEST`] if that is more.
pub fn write(stamp: &Stamp, size: usize, out: &mut Vec<u8>) {
    let (start, size) = (out.len(), size.max(SMALLEST));
    out.reserve(size);
    out.extend_from_slice(TAG);
    for part in pack(stamp).chunks_exact(3) {
        let bits = u32::from_be_bytes([0, part[0], part[1], part[2]]);
        push(bits, 4, out);
    }
    fill(stamp, size - SMALLEST, out);
    let sum = crc32fast::hash(&out[start..]);
    push(sum & 0xFF_FFFF, 4, out);
    push(sum >> 24, 2, out);
    out.push(b'"');
}

/// Reads what [`write()`] wrote. `data` is the raw JSON.
pub fn read(data: &str) -> Result<Stamp, PayloadError> {
    let data = data.as_bytes();
    if !data.starts_with(TAG) {
        return Err(unlike(data));
    }
    if data.len() < SMALLEST || data.last() != Some(&b'"') {
        return Err(PayloadError::Corrupted);
    }
    let (body, tail) = data.split_at(data.len() - SUM - 1);
    let (low, wrong_low) = pull([tail[0], tail[1], tail[2], tail[3]]);
    let (high, wrong_high) = pull([ALPHABET[0], ALPHABET[0], tail[4], tail[5]]);
    let mut wrong = wrong_low | wrong_high;
    let mut packed = [0; 30];
    let (texts, _) = body[TAG.len()..].as_chunks::<4>();
    let (parts, _) = packed.as_chunks_mut::<3>();
    for (part, text) in parts.iter_mut().zip(texts) {
        let (bits, wrong_here) = pull(*text);
        wrong |= wrong_here;
        [_, part[0], part[1], part[2]] = bits.to_be_bytes();
    }
    if wrong != 0 || high > 0xFF || crc32fast::hash(body) != low | high << 24 {
        return Err(PayloadError::Corrupted);
    }
    Ok(unpack(&packed))
}

/// Without our beginning it is somebody else's, unless the beginning itself was damaged.
fn unlike(data: &[u8]) -> PayloadError {
    let alike = data.iter().zip(TAG).filter(|(a, b)| a == b).count();
    if alike + 2 >= TAG.len() && data.len() >= SMALLEST { PayloadError::Corrupted } else { PayloadError::NotOurs }
}

fn pack(stamp: &Stamp) -> [u8; 30] {
    let mut packed = [0; 30];
    packed[0..4].copy_from_slice(&stamp.run.to_be_bytes());
    packed[4..8].copy_from_slice(&stamp.room.to_be_bytes());
    packed[8..12].copy_from_slice(&stamp.publisher.to_be_bytes());
    packed[12..16].copy_from_slice(&stamp.number.to_be_bytes());
    packed[16..20].copy_from_slice(&stamp.node.to_be_bytes());
    packed[20..28].copy_from_slice(&stamp.intended_ns.to_be_bytes());
    packed[28] = stamp.attempt;
    packed
}

fn unpack(packed: &[u8; 30]) -> Stamp {
    let word = |at: usize| u32::from_be_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]]);
    Stamp {
        run: word(0),
        room: word(4),
        publisher: word(8),
        number: word(12),
        node: word(16),
        intended_ns: u64::from(word(20)) << 32 | u64::from(word(24)),
        attempt: packed[28],
    }
}

/// Appends `count` characters, the highest six of their bits first.
fn push(bits: u32, count: u32, out: &mut Vec<u8>) {
    for at in (0..count).rev() {
        out.push(ALPHABET[(bits >> (6 * at)) as usize & 63]);
    }
}

/// The bits of four characters, and in the highest two bits of the byte whether one of them is wrong.
fn pull(text: [u8; 4]) -> (u32, u8) {
    let [a, b, c, d] = text.map(|byte| VALUES[usize::from(byte)]);
    let bits = u32::from(a) << 18 | u32::from(b & 63) << 12 | u32::from(c & 63) << 6 | u32::from(d & 63);
    (bits & 0xFF_FFFF, (a | b | c | d) & 0xC0)
}

/// The same characters for the same publisher and number: xorshift64*.
fn fill(stamp: &Stamp, count: usize, out: &mut Vec<u8>) {
    let mut state = (u64::from(stamp.publisher) << 32 | u64::from(stamp.number)) ^ 0x9E37_79B9_7F4A_7C15;
    let end = out.len() + count;
    while out.len() < end {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bytes = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes();
        let left = (end - out.len()).min(bytes.len());
        out.extend(bytes[..left].iter().map(|byte| ALPHABET[usize::from(byte & 63)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp() -> Stamp {
        Stamp {
            run: 7,
            room: 3,
            publisher: 61,
            number: 12,
            attempt: 1,
            node: 99,
            intended_ns: 1_795_255_080_794_000_123,
        }
    }

    fn written(stamp: &Stamp, size: usize) -> String {
        let mut out = Vec::new();
        write(stamp, size, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn sizes_are_exact_and_the_text_is_plain_json() {
        for size in [SMALLEST, SMALLEST + 1, 64, 128, 1000, 65_000] {
            let text = written(&stamp(), size);
            assert_eq!(text.len(), size);
            assert_eq!(serde_json::from_str::<String>(&text).expect("a string").len(), size - 2, "nothing is escaped");
            assert_eq!(read(&text), Ok(stamp()));
        }
        assert_eq!(written(&stamp(), 0).len(), SMALLEST);
        assert_eq!(written(&stamp(), 200), written(&stamp(), 200), "deterministic");
    }

    #[test]
    fn other_traffic_is_told_from_damage() {
        for other in ["", "null", "\"hello\"", "{\"text\":\"hello\"}", "\"rc2\""] {
            assert_eq!(read(other), Err(PayloadError::NotOurs), "{other}");
        }
        let text = written(&stamp(), 128);
        assert_eq!(read(&text[..127]), Err(PayloadError::Corrupted));
        assert_eq!(read(&text[..40]), Err(PayloadError::Corrupted));
        assert_eq!(read("\"rc1:"), Err(PayloadError::Corrupted));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            ids in any::<(u32, u32, u32, u32, u8, u32, u64)>(),
            size in 0usize..400,
            at in any::<prop::sample::Index>(),
            damage in 1u8..128,
        ) {
            let (run, room, publisher, number, attempt, node, intended_ns) = ids;
            let stamp = Stamp { run, room, publisher, number, attempt, node, intended_ns };
            let mut bytes = written(&stamp, size).into_bytes();
            prop_assert_eq!(read(std::str::from_utf8(&bytes).expect("ASCII")), Ok(stamp));
            let at = at.index(bytes.len());
            bytes[at] ^= damage;
            prop_assert_eq!(read(std::str::from_utf8(&bytes).expect("ASCII")), Err(PayloadError::Corrupted));
        }

        #[test]
        fn nothing_makes_the_reader_panic(text in ".{0,120}", tail in "[ -~]{0,120}") {
            let _ = read(&text);
            let ours = format!("\"rc1:{tail}");
            prop_assert!(read(&ours).is_err());
        }
    }
}
