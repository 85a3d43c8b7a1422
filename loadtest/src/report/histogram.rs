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
    #[allow(clippy::expect_used, reason = "writing to memory, with counts far below the format's limit")]
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

    /// The sum of both.
    pub fn plus(&self, other: &Self) -> Result<Self, Damaged> {
        let mut sum = self.decode()?;
        sum.add(other.decode()?).map_err(|_| Damaged::OtherBounds)?;
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
