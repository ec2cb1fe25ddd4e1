//! Random numbers that cost next to nothing, for made-up load: not for secrets.

use uuid::Builder;

/// `SplitMix64` (Steele, Lea and Flood, 2014): the same seed gives the same numbers, everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Numbers that no other run has.
    #[cfg(feature = "cli")]
    pub(crate) fn seeded() -> Result<Self, getrandom::Error> {
        getrandom::u64().map(Self)
    }

    /// The numbers of a seed.
    #[cfg(feature = "testing")]
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of their own for a part of what this one decides: what the part draws changes nothing
    /// elsewhere.
    #[cfg(feature = "testing")]
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The high half of the product: as even as 64 random bits are.
        let product = u128::from(self.next()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or_default()
    }

    /// A request id as callers make them: a random UUID, which falls anywhere in an index.
    pub(crate) fn request_id(&mut self) -> String {
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
