//! How large the messages of a run are. Read from the command line, asked by publishers; knows nothing of what is in
//! them.

use std::fmt;
use std::str::FromStr;

use crate::payload::SMALLEST;

/// Larger than any gateway is set to take.
const LARGEST: usize = 16 << 20;
/// Of different sizes in one run.
const MOST_SIZES: usize = 64;
/// Of one size.
const MOST_WEIGHT: u32 = 1_000_000;

/// Sizes of `data` in bytes, and how many of a hundred messages have each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes(pub Vec<(usize, u32)>);

impl Sizes {
    /// The size of a publisher's `number`th message: the same each time it is asked, so that retries are equal.
    pub fn of(&self, publisher: u32, number: u32) -> usize {
        let total: u32 = self.0.iter().map(|(_, weight)| weight).sum();
        // Spreads neighbours over the whole range (Knuth's multiplicative hash).
        let mixed = publisher.wrapping_mul(0x9E37_79B1).wrapping_add(number).wrapping_mul(0x85EB_CA6B) >> 8;
        let mut at = mixed % total.max(1);
        for (size, weight) in &self.0 {
            if at < *weight {
                return *size;
            }
            at -= weight;
        }
        self.0.last().map_or(0, |(size, _)| *size)
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// `128`, or sizes with their weights: `64:70,1k:25,16k:5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').collect();
        if parts.len() > MOST_SIZES {
            return Err(format!("expected at most {MOST_SIZES} sizes"));
        }
        let mix = parts.into_iter().map(part).collect::<Result<Vec<_>, _>>()?;
        if mix.iter().all(|(_, weight)| *weight == 0) {
            return Err("expected at least one weight above 0".to_owned());
        }
        Ok(Self(mix))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(size, _)] = self.0.as_slice() {
            return write!(f, "{size} bytes");
        }
        let total: u32 = self.0.iter().map(|(_, weight)| weight).sum();
        for (at, (size, weight)) in self.0.iter().enumerate() {
            let percent = f64::from(*weight) * 100.0 / f64::from(total.max(1));
            write!(f, "{}{size} bytes ({percent:.0} %)", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn part(text: &str) -> Result<(usize, u32), String> {
    let wrong = || "expected bytes such as 128 or 4k, or sizes with weights such as 128:70,1k:25,16k:5".to_owned();
    let (size, weight) = text.trim().split_once(':').unwrap_or((text.trim(), "1"));
    let (digits, unit) = match size.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => (size, 1),
    };
    let size = digits.parse::<usize>().map_err(|_| wrong())?.saturating_mul(unit);
    let weight = weight.parse::<u32>().map_err(|_| wrong())?;
    if !(SMALLEST..=LARGEST).contains(&size) {
        return Err(format!("expected {SMALLEST} to {LARGEST} bytes: a message carries its identity and a checksum"));
    }
    if weight > MOST_WEIGHT {
        return Err(format!("expected weights up to {MOST_WEIGHT}"));
    }
    Ok((size, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_mixes_are_read() {
        assert_eq!("128".parse(), Ok(Sizes(vec![(128, 1)])));
        assert_eq!("4k".parse(), Ok(Sizes(vec![(4096, 1)])));
        assert_eq!("128:70, 1024:25,16K:5".parse(), Ok(Sizes(vec![(128, 70), (1024, 25), (16384, 5)])));
    }

    #[test]
    fn others_are_refused() {
        for bad in ["", "x", "128:", "128:x", ":1", "128,,128", "1", "1e9", "99999999k", "128:0", "128:2000000", "-5"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad:?}");
        }
        assert!(vec!["128"; 65].join(",").parse::<Sizes>().is_err());
    }

    #[test]
    fn a_mix_has_its_shares_and_a_retry_its_size() {
        let sizes: Sizes = "128:70,1k:25,16k:5".parse().expect("valid");
        let counted = |size| (1..=10_000).filter(|number| sizes.of(7, *number) == size).count();
        assert!((6_700..=7_300).contains(&counted(128)), "{}", counted(128));
        assert!((2_200..=2_800).contains(&counted(1024)), "{}", counted(1024));
        assert_eq!(sizes.of(3, 9), sizes.of(3, 9));
        assert_eq!(sizes.to_string(), "128 bytes (70 %), 1024 bytes (25 %), 16384 bytes (5 %)");
    }
}
