//! Which request keys the index may hold, in memory.
//!
//! Nearly every request id is new, and to learn that from the table costs a page of it, a fifth of
//! the time of storing a message. A Bloom filter learns it from one cache line. What it takes for
//! present is looked up, in memory and in the table.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::entry::RequestKey;

/// 16 MiB: at ten million keys one new key in two hundred is looked up in vain. With many more keys
/// nearly all are, as if there were no filter.
const BLOCKS: usize = 1 << 18;

/// A block is a cache line.
const WORDS_PER_BLOCK: usize = 8;

/// The bits that a key sets in its block.
const BITS_PER_KEY: u32 = 4;

pub(in crate::store) struct RequestFilter {
    words: Box<[AtomicU64]>,
    /// Whether all keys of the index are in it.
    is_complete: AtomicBool,
}

impl RequestFilter {
    pub(super) fn new() -> Self {
        // Allocated as zeros and kept in place, so that a start does not touch every page of it.
        let zeros = vec![0; BLOCKS * WORDS_PER_BLOCK];
        let words = zeros.into_iter().map(AtomicU64::new).collect();
        Self { words, is_complete: AtomicBool::new(false) }
    }

    pub(super) fn insert(&self, key: RequestKey) {
        for (word, bit) in places(key) {
            self.words[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Every key that is in the index by now was inserted, and those that come will be.
    pub(super) fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    /// `false`: the index does not have this key, nor does the transaction that is being written.
    pub(super) fn may_have(&self, key: RequestKey) -> bool {
        !self.is_complete.load(Ordering::Acquire)
            || places(key).all(|(word, bit)| self.words[word].load(Ordering::Relaxed) & bit != 0)
    }
}

/// The words and bits of a key, which is a hash: its upper bits choose the block, its lower ones the
/// bits in there, 9 for each.
fn places(key: RequestKey) -> impl Iterator<Item = (usize, u64)> {
    let hash = key.0.cast_unsigned();
    let block = usize::try_from(hash >> (u64::BITS - BLOCKS.ilog2())).unwrap_or(0);
    (0..BITS_PER_KEY).map(move |number| {
        let bits = hash >> (9 * number);
        let word = usize::try_from(bits >> 6 & 7).unwrap_or(0);
        (block * WORDS_PER_BLOCK + word, 1 << (bits & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_was_inserted_is_found_and_few_others_are() {
        let filter = RequestFilter::new();
        let key = |number: i64| RequestKey(number.wrapping_mul(-7_046_029_254_386_353_131));
        for number in 0..100_000 {
            filter.insert(key(number));
        }
        assert!(filter.may_have(key(-1)), "nothing is known before it is complete");
        filter.complete();
        assert!((0..100_000).all(|number| filter.may_have(key(number))));
        let mistaken = (-100_000..0).filter(|number| filter.may_have(key(*number))).count();
        assert!(mistaken < 100, "{mistaken} of 100,000");
    }
}
