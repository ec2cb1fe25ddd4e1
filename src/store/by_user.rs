//! Tables by the numbers of users, which every message is looked up in.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::domain::UserId;

/// What is known of users, by their numbers.
pub(super) type ByUser<T> = HashMap<UserId, T, BuildHasherDefault<SpreadHasher>>;

/// Hashes one number, which is a user's: given out one by one, and so not chosen by anyone who could
/// gain from collisions. Multiplies by 2^64 / φ, the rotation brings the spread bits to both ends.
#[derive(Default)]
pub(super) struct SpreadHasher(u64);

impl Hasher for SpreadHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_i64(i64::from(*byte));
        }
    }

    fn write_i64(&mut self, number: i64) {
        let mixed = (self.0 ^ number.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed.rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
