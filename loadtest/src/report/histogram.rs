//! Histograms as text and back: what makes reports add up without loss.
//!
//! Called by everything that writes or reads a report. A report is somebody's file, so nothing in it is believed: what
//! is damaged is an error, and what claims to be large is refused before anything is reserved for it.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use thiserror::Error;

use super::Compressed;
use crate::record::{MOST_US, histogram};

/// Longest text that is decoded, bytes. The fullest histogram that [`histogram`] makes needs less.
const MOST_TEXT: usize = 1 << 20;
/// Longest inflated form. One slot is 9 bytes at most, and there are some 23 000.
const MOST_INFLATED: u64 = 1 << 18;
/// Cookie, length, offset, digits, lowest, highest, ratio: what stands before the counts of a V2 histogram.
const HEADER: usize = 40;
const COOKIE: u32 = 0x1c84_9313;
const COOKIE_DEFLATED: u32 = 0x1c84_9314;

/// Why a histogram in a report could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Damaged {
    #[error("a histogram is too long: {0} bytes")]
    TooLong(usize),
    #[error("a histogram is not base64")]
    NotBase64,
    #[error("a histogram is not deflated HDR V2, or is cut short")]
    NotHdr,
    #[error("a histogram has other bounds than 1 us to 1 h with 3 digits")]
    OtherBounds,
    #[error("a histogram's counts make no sense")]
    BadCounts,
}

impl Compressed {
    /// As text; empty histograms too.
    ///
    /// # Panics
    /// Never: memory takes what it is given, and counts are far below the format's limit.
    #[allow(clippy::expect_used, reason = "writing to memory")]
    pub fn encode(histogram: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("memory takes what it is given");
        Self(STANDARD.encode(bytes))
    }

    /// Back to a histogram equal to the one that was encoded.
    pub fn decode(&self) -> Result<Histogram<u64>, Damaged> {
        if self.0.len() > MOST_TEXT {
            return Err(Damaged::TooLong(self.0.len()));
        }
        let bytes = STANDARD.decode(&self.0).map_err(|_| Damaged::NotBase64)?;
        let plain = inflate(&bytes)?;
        check(&plain)?;
        Deserializer::new().deserialize(&mut plain.as_slice()).map_err(|_| Damaged::BadCounts)
    }

    /// The sum of all.
    pub fn sum(parts: &[&Self]) -> Result<Self, Damaged> {
        let Some((first, more)) = parts.split_first() else { return Ok(Self::encode(&histogram())) };
        let mut sum = first.decode()?;
        if more.is_empty() {
            return Ok((*first).clone());
        }
        for part in more {
            sum.add(part.decode()?).map_err(|_| Damaged::OtherBounds)?;
        }
        Ok(Self::encode(&sum))
    }
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    let (head, body) = bytes.split_at_checked(8).ok_or(Damaged::NotHdr)?;
    if word(head, 0) != Some(COOKIE_DEFLATED) || word(head, 4).is_none_or(|length| length as usize != body.len()) {
        return Err(Damaged::NotHdr);
    }
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(body)
        .take(MOST_INFLATED + 1)
        .read_to_end(&mut plain)
        .map_err(|_| Damaged::NotHdr)?;
    if plain.len() as u64 > MOST_INFLATED { Err(Damaged::TooLong(plain.len())) } else { Ok(plain) }
}

/// Everything that the library would believe: it reserves what the header asks for, and negates counts unchecked.
fn check(plain: &[u8]) -> Result<(), Damaged> {
    let (head, counts) = plain.split_at_checked(HEADER).ok_or(Damaged::NotHdr)?;
    if word(head, 0) != Some(COOKIE) || word(head, 4).is_none_or(|length| length as usize != counts.len()) {
        return Err(Damaged::NotHdr);
    }
    let bounds = (word(head, 12), long(head, 16), long(head, 24));
    if bounds != (Some(3), Some(1), Some(MOST_US)) {
        return Err(Damaged::OtherBounds);
    }
    let (mut rest, mut slots, mut total) = (counts, 0_u64, 0_u64);
    while !rest.is_empty() {
        let (number, after) = varint(rest).ok_or(Damaged::BadCounts)?;
        rest = after;
        // Zigzag: odd numbers are runs of zeros, even ones are counts.
        let (skip, count) = if number & 1 == 1 { ((number >> 1).saturating_add(1), 0) } else { (1, number >> 1) };
        slots = slots.saturating_add(skip);
        total = total.saturating_add(count);
    }
    let most_slots = histogram().distinct_values() as u64;
    if slots > most_slots || total > i64::MAX as u64 { Err(Damaged::BadCounts) } else { Ok(()) }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

/// LEB128 of 64 bits in at most 9 bytes, the ninth taken whole.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        if index == 8 {
            return Some((value | u64::from(*byte) << 56, &bytes[9..]));
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// Deflated and in base64, with the right lengths, whatever it is.
    fn wrapped(plain: &[u8]) -> Compressed {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        let body = encoder.finish().unwrap();
        let mut bytes = COOKIE_DEFLATED.to_be_bytes().to_vec();
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        Compressed(STANDARD.encode(bytes))
    }

    fn v2(digits: u32, lowest: u64, highest: u64, counts: &[u8]) -> Vec<u8> {
        let mut plain = COOKIE.to_be_bytes().to_vec();
        plain.extend((counts.len() as u32).to_be_bytes());
        plain.extend(0_u32.to_be_bytes());
        plain.extend(digits.to_be_bytes());
        plain.extend(lowest.to_be_bytes());
        plain.extend(highest.to_be_bytes());
        plain.extend(1.0_f64.to_be_bytes());
        plain.extend(counts);
        plain
    }

    #[test]
    fn the_fullest_histogram_fits() {
        let mut full = histogram();
        let mut us = 0;
        while us <= MOST_US {
            // Counts so large and so different that nothing compresses.
            full.record_n(us, 1 + us.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (1 << 48)).unwrap();
            us = full.next_non_equivalent(us);
        }
        let text = Compressed::encode(&full);
        assert!(text.0.len() < MOST_TEXT / 2, "{}", text.0.len());
        assert_eq!(text.decode(), Ok(full));
    }

    #[test]
    fn an_empty_one_comes_back_empty() {
        assert!(Compressed::encode(&histogram()).decode().unwrap().is_empty());
    }

    #[test]
    fn damage_has_a_name() {
        let good = Compressed::encode(&histogram()).0;
        let error = |text: &str| Compressed(text.to_owned()).decode().unwrap_err();
        assert_eq!(error(""), Damaged::NotHdr);
        assert_eq!(error("?"), Damaged::NotBase64);
        assert_eq!(error(&good[..good.len() - 4]), Damaged::NotHdr);
        assert_eq!(error(&"A".repeat(MOST_TEXT + 4)), Damaged::TooLong(MOST_TEXT + 4));
        assert_eq!(wrapped(b"short").decode(), Err(Damaged::NotHdr));
    }

    #[test]
    fn what_asks_for_memory_is_refused() {
        let bomb = wrapped(&vec![0; 64 << 20]);
        assert!(matches!(bomb.decode(), Err(Damaged::TooLong(_))));
        for (digits, lowest, highest) in [(5, 1, u64::MAX), (3, 1, 1 << 40), (0, 1, MOST_US), (3, 0, MOST_US)] {
            assert_eq!(wrapped(&v2(digits, lowest, highest, &[])).decode(), Err(Damaged::OtherBounds));
        }
        let mut lying = v2(3, 1, MOST_US, &[]);
        lying[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(wrapped(&lying).decode(), Err(Damaged::NotHdr));
    }

    #[test]
    fn counts_that_make_no_sense_are_refused() {
        let decode = |counts: &[u8]| wrapped(&v2(3, 1, MOST_US, counts)).decode();
        assert_eq!(decode(&[2, 4]).map(|read| read.len()), Ok(3));
        assert_eq!(decode(&[0x80]), Err(Damaged::BadCounts), "cut short");
        // Runs of zeros as long as the lowest i64, and beyond the last slot.
        assert_eq!(decode(&[0xff; 9]), Err(Damaged::BadCounts));
        assert_eq!(decode(&[0xff, 0xff, 0x7f, 2]), Err(Damaged::BadCounts));
        // Twice the highest i64.
        let most = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decode(&[most, most].concat()), Err(Damaged::BadCounts));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sums_are_those_of_the_values(
            a in prop::collection::vec((0..2 * MOST_US, 1..1_000_000_u64), 0..50),
            b in prop::collection::vec((0..2 * MOST_US, 1..1_000_000_u64), 0..50),
        ) {
            let of = |values: &[(u64, u64)]| {
                let mut histogram = histogram();
                for (us, times) in values {
                    histogram.saturating_record_n(*us, *times);
                }
                Compressed::encode(&histogram)
            };
            prop_assert_eq!(Compressed::sum(&[&of(&a), &of(&b)]).unwrap(), of(&[a, b].concat()));
        }

        #[test]
        fn nothing_makes_it_panic(counts in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = wrapped(&v2(3, 1, MOST_US, &counts)).decode();
            let _ = wrapped(&counts).decode();
            let _ = Compressed(STANDARD.encode(&counts)).decode();
        }
    }
}
