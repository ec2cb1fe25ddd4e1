//! Random numbers that cost next to nothing, for choosing receivers and making request ids.

use uuid::Builder;

/// `SplitMix64`. Not for secrets.
pub(super) struct Random(u64);

impl Random {
    /// Numbers that no other run has.
    pub(super) fn seeded() -> anyhow::Result<Self> {
        Ok(Self(getrandom::u64()?))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // The high half of the product: as even as 64 random bits are.
        let product = u128::from(self.next()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or_default()
    }

    /// A request id as callers make them: a random UUID, which falls anywhere in an index.
    pub(super) fn request_id(&mut self) -> String {
        let bits = u128::from(self.next()) << 64 | u128::from(self.next());
        Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_the_bound_comes_and_no_other() {
        let mut random = Random(1);
        let mut seen = [0_u32; 7];
        (0..7_000).for_each(|_| seen[random.below(7)] += 1);
        assert!(seen.iter().all(|times| (800..1_200).contains(times)), "{seen:?}");
    }

    #[test]
    fn request_ids_differ() {
        let mut random = Random::seeded().expect("random bits");
        assert_ne!(random.request_id(), random.request_id());
        assert_eq!(random.request_id().len(), 36);
    }
}
