//! How much each of many has used of a rate, in a bounded amount of memory.
//!
//! One number each: the moment at which all that was taken is made up for (the theoretical arrival time
//! of GCRA, ITU-T I.371). Who has nothing to make up for is as one who never came, and can be forgotten.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::Rate;

/// Parts with a lock each, so that threads seldom wait for one another and forgetting is done in small
/// steps.
const SHARDS: usize = 16;

/// The longest time that can be owed, in nanoseconds: a century, so that nothing overflows.
const OWED_NANOS_MAX: u64 = 3_000_000_000_000_000_000;

/// A rate, and how many can be taken at once by one who has taken none for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    interval_nanos: u64,
    owed_nanos_max: u64,
}

impl Quota {
    pub(super) fn new(rate: Rate, burst: NonZero<u32>) -> Self {
        let interval_nanos = rate.interval_nanos();
        let owed_nanos_max = interval_nanos.saturating_mul(burst.get().into());
        Self { interval_nanos, owed_nanos_max: owed_nanos_max.min(OWED_NANOS_MAX) }
    }
}

/// Until when each has made up for what they took, in nanoseconds of the caller's clock. Of more than a
/// bounded number those are forgotten who have the least to make up for.
pub(super) struct Buckets<K> {
    shards: [Mutex<HashMap<K, u64>>; SHARDS],
    shard_max: usize,
    hasher: RandomState,
}

impl<K: Hash + Eq + Copy> Buckets<K> {
    /// At most about `max` are remembered.
    pub(super) fn new(max: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, shard_max: (max / SHARDS).max(1), hasher: RandomState::new() }
    }

    /// Takes one, or says in how many nanoseconds there is one to take.
    pub(super) fn take(&self, key: K, quota: Quota, now: u64) -> Result<(), NonZero<u64>> {
        let mut shard = self.shard(&key);
        let made_up = shard.get(&key).copied().unwrap_or(0).max(now) + quota.interval_nanos;
        if let Some(wait) = NonZero::new((made_up - now).saturating_sub(quota.owed_nanos_max)) {
            return Err(wait);
        }
        if let Some(known) = shard.get_mut(&key) {
            *known = made_up;
            return Ok(());
        }
        if shard.len() >= self.shard_max {
            forget_some(&mut shard, self.shard_max, now);
        }
        shard.insert(key, made_up);
        Ok(())
    }

    /// Gives one back that was taken.
    pub(super) fn give_back(&self, key: K, quota: Quota) {
        if let Some(made_up) = self.shard(&key).get_mut(&key) {
            *made_up = made_up.saturating_sub(quota.interval_nanos);
        }
    }

    /// Makes it as one who never came.
    pub(super) fn forget(&self, key: K) {
        self.shard(&key).remove(&key);
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, HashMap<K, u64>> {
        let shard = self.hasher.hash_one(key) % SHARDS as u64;
        let shard = usize::try_from(shard).unwrap_or_default();
        // No guarded section leaves a map half-changed, so a panic in one spoils nothing.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("no panic").len()).sum()
    }
}

/// Makes room for an eighth of `max` at least, so that it is seldom needed: forgets who has nothing to
/// make up for, and then those who have the least.
fn forget_some<K: Hash + Eq>(shard: &mut HashMap<K, u64>, max: usize, now: u64) {
    shard.retain(|_, made_up| *made_up > now);
    let to_stay = max - max.div_ceil(8);
    if shard.len() > to_stay {
        let mut all: Vec<u64> = shard.values().copied().collect();
        let last_to_go = all.len() - to_stay - 1;
        let (_, last_to_go, _) = all.select_nth_unstable(last_to_go);
        shard.retain(|_, made_up| *made_up >= *last_to_go);
        // Of those who owe the same, no more than have to.
        let mut too_many = shard.len() - to_stay;
        shard.retain(|_, made_up| {
            let goes = too_many > 0 && *made_up == *last_to_go;
            too_many -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn quota(rate: &str, burst: u32) -> Quota {
        Quota::new(Rate::parse(rate).expect("a rate"), NonZero::new(burst).expect("some"))
    }

    fn taken_at(buckets: &Buckets<i64>, quota: Quota, now: u64) -> u32 {
        let mut taken = 0;
        while buckets.take(1, quota, now).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let (buckets, quota) = (Buckets::new(100), quota("10/s", 5));
        assert_eq!(taken_at(&buckets, quota, 7 * SECOND), 5);
        assert_eq!(taken_at(&buckets, quota, 7 * SECOND + SECOND / 10 - 1), 0);
        assert_eq!(taken_at(&buckets, quota, 7 * SECOND + SECOND / 10), 1);
        assert_eq!(taken_at(&buckets, quota, 8 * SECOND), 5, "no more than the burst");
        let over_a_minute: u32 =
            (1..=600).map(|step| taken_at(&buckets, quota, 8 * SECOND + step * SECOND / 10)).sum();
        assert_eq!(over_a_minute, 600);
    }

    #[test]
    fn there_is_one_when_it_was_said_and_not_before() {
        let (buckets, quota) = (Buckets::new(100), quota("3/m", 2));
        let mut now = 5;
        assert_eq!(taken_at(&buckets, quota, now), 2);
        for _ in 0..10 {
            let wait = buckets.take(1, quota, now).expect_err("none is there").get();
            assert_eq!(buckets.take(1, quota, now + wait - 1), Err(NonZero::<u64>::MIN));
            now += wait;
            assert_eq!(taken_at(&buckets, quota, now), 1);
        }
    }

    #[test]
    fn each_has_their_own() {
        let (buckets, quota) = (Buckets::new(100), quota("1/d", 1));
        assert_eq!(taken_at(&buckets, quota, 0), 1);
        assert_eq!(buckets.take(2, quota, 0), Ok(()));
        buckets.forget(1);
        assert_eq!(taken_at(&buckets, quota, 0), 1);
        buckets.give_back(1, quota);
        assert_eq!(taken_at(&buckets, quota, 0), 1);
        assert!(buckets.take(2, quota, 0).is_err());
    }

    #[test]
    fn those_who_owe_nothing_are_forgotten_first_and_then_those_who_owe_least() {
        const MAX: usize = 16 * SHARDS;
        let (buckets, quota) = (Buckets::new(MAX), quota("1/s", 1_000));
        // Who owes much is remembered, however many come after.
        assert_eq!(taken_at(&buckets, quota, 0), 1_000);
        for stranger in 2..10_000 {
            assert_eq!(buckets.take(stranger, quota, 0), Ok(()));
            assert!(buckets.len() <= MAX);
        }
        assert!(buckets.len() > MAX / 2);
        assert!(buckets.take(1, quota, 0).is_err(), "it was forgotten who owes most");
        // All have made up for theirs; they go as others come.
        let later = 2_000 * SECOND;
        for stranger in 20_000..20_100 {
            assert_eq!(buckets.take(stranger, quota, later), Ok(()));
        }
        assert_eq!(taken_at(&buckets, quota, later), 1_000);
    }

    #[test]
    fn the_slowest_rate_and_the_largest_burst_do_not_overflow() {
        let (buckets, quota) = (Buckets::new(1), quota("1/d", 1_000_000));
        for _ in 0..100_000 {
            if buckets.take(1, quota, OWED_NANOS_MAX).is_err() {
                break;
            }
        }
        assert!(buckets.take(1, quota, OWED_NANOS_MAX).is_err());
    }
}
