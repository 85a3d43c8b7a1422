//! A room's order as hashes of whole blocks of seqs, to be compared between processes.
//!
//! A block's hash is the sum of its messages' hashes, each with its seq mixed in: it does not matter in which order
//! they are met, and the blocks of one stride add up to those of the double one. A second sum, of the seqs alone, says
//! whether two processes met the same part of a block; if not, its hashes cannot be compared.

use std::collections::BTreeMap;

use crate::audit::RoomTally;

const FIRST_STRIDE: u64 = 16;
/// JSON numbers are exact up to here.
const MASK: u64 = (1 << 53) - 1;

#[derive(Clone, Copy, Default)]
struct Block {
    seqs: u32,
    messages: u32,
}

impl Block {
    fn add(&mut self, other: Self) {
        self.seqs = self.seqs.wrapping_add(other.seqs);
        self.messages = self.messages.wrapping_add(other.messages);
    }
}

/// Blocks of one room's present term.
#[derive(Default)]
pub(super) struct Order {
    stride: u64,
    /// Index of the first block.
    start: u64,
    blocks: Vec<Block>,
}

/// Spreads every bit over all (splitmix64).
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A term's hash: the same in every process.
pub(super) fn term_hash(term: &str) -> u64 {
    let hash = term
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    (mix(hash) & MASK).max(1)
}

impl Order {
    /// Counts a message in. Once per seq.
    pub(super) fn add(&mut self, most: usize, seq: u64, publisher: u32, number: u32) {
        if self.blocks.is_empty() {
            (self.stride, self.start) = (FIRST_STRIDE, seq / FIRST_STRIDE);
        }
        if seq / self.stride < self.start {
            return;
        }
        while seq / self.stride - self.start >= most as u64 {
            self.widen();
        }
        let at = (seq / self.stride - self.start) as usize;
        if at >= self.blocks.len() {
            self.blocks.resize(at + 1, Block::default());
        }
        let message = mix(seq) ^ (u64::from(publisher) << 32 | u64::from(number));
        self.blocks[at].add(Block { seqs: mix(seq) as u32, messages: mix(message) as u32 });
    }

    fn widen(&mut self) {
        let (old, start) = (std::mem::take(&mut self.blocks), self.start);
        self.stride *= 2;
        self.start = start / 2;
        for (index, block) in (start..).zip(old) {
            let at = (index / 2 - self.start) as usize;
            if at >= self.blocks.len() {
                self.blocks.resize(at + 1, Block::default());
            }
            self.blocks[at].add(block);
        }
    }

    pub(super) fn tell(&self, tally: &mut RoomTally) {
        tally.stride = self.stride;
        tally.blocks =
            (self.start..).zip(&self.blocks).map(|(index, block)| (index, block.seqs, block.messages)).collect();
    }
}

/// Joins the blocks of `other` into `into` (of one term), and counts those that differ.
pub(super) fn join(into: &mut RoomTally, other: &RoomTally) -> u64 {
    let stride = into.stride.max(other.stride);
    let mut all = widened(into, stride);
    let mut differ = 0;
    for (index, block) in widened(other, stride) {
        let known = all.entry(index).or_insert(block);
        if known.seqs == block.seqs {
            differ += u64::from(known.messages != block.messages);
        }
    }
    into.stride = stride;
    into.blocks = all.into_iter().map(|(index, block)| (index, block.seqs, block.messages)).collect();
    differ
}

fn widened(tally: &RoomTally, stride: u64) -> BTreeMap<u64, Block> {
    let factor = stride.checked_div(tally.stride).unwrap_or(1).max(1);
    let mut wide: BTreeMap<u64, Block> = BTreeMap::new();
    for (index, seqs, messages) in &tally.blocks {
        wide.entry(index / factor).or_default().add(Block { seqs: *seqs, messages: *messages });
    }
    wide
}
