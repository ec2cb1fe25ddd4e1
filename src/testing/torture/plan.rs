//! What a seed decides: who there is, and what goes wrong when.

use std::time::Duration;

use crate::random::Random;
use crate::testing::Loss;

/// What a seed decides before it begins. What everyone does then is drawn on the way, each from
/// numbers of their own.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) users: usize,
    /// Those who send on streams, call by call, and those who follow.
    pub(super) streamers: usize,
    pub(super) callers: usize,
    pub(super) followers: usize,
    pub(super) merge_messages: usize,
    pub(super) rounds: Vec<Round>,
    /// Where everything else is drawn from.
    pub(super) random: Random,
}

/// A stretch of load with faults, and how it ends.
#[derive(Debug)]
pub(super) struct Round {
    /// In the order in which they come.
    pub(super) faults: Vec<(usize, Fault)>,
    /// It ends when so many sends were answered in it, and this time later.
    pub(super) sends: usize,
    pub(super) pause_before_end: Duration,
    pub(super) end: End,
}

/// What goes wrong when so many sends were answered in the round.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The server is frozen for a while.
    Pause(Duration),
    /// The connections over the rough network break.
    Cut,
    /// Nothing passes over the rough network for a while.
    Stall(Duration),
    /// So many answers are lost on the rough network, with their connections.
    LoseAnswers(usize, Loss),
}

/// How a round ends for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// SIGKILL.
    Kill,
    /// The same, while it was frozen.
    KillFrozen,
    /// The power of its disk.
    PowerCut,
    /// SIGTERM.
    Stop,
    /// It goes on: the last round.
    None,
}

impl Plan {
    /// The plan of a seed for about so many messages. With `power_cuts` the power is cut where the server
    /// would be killed.
    pub(super) fn of(seed: u64, messages: usize, power_cuts: bool) -> Self {
        let mut random = Random::of(seed);
        let count = 2 + random.below(4);
        let mut rounds: Vec<Round> =
            (0..count).map(|_| Round::drawn(&mut random, messages / count)).collect();
        if let Some(last) = rounds.last_mut() {
            last.end = End::None;
        }
        for round in rounds.iter_mut().filter(|_| power_cuts) {
            if matches!(round.end, End::Kill | End::KillFrozen) {
                round.end = End::PowerCut;
            }
        }
        Self {
            users: 6 + random.below(12),
            streamers: 2 + random.below(3),
            callers: 4 + random.below(5),
            followers: 4 + random.below(5),
            // A merge is done when half as many more have come, so that one is nearly always under way.
            merge_messages: 64 << random.below(6),
            rounds,
            random,
        }
    }
}

impl Round {
    fn drawn(random: &mut Random, messages: usize) -> Self {
        // Some end at once, when what was done at the start is not over.
        let sends = if random.below(8) == 0 {
            random.below(16)
        } else {
            messages / 2 + random.below(messages + 1)
        };
        let mut faults: Vec<_> =
            (0..random.below(4)).map(|_| (random.below(sends + 1), Fault::drawn(random))).collect();
        faults.sort_by_key(|(after, _)| *after);
        let end = match random.below(10) {
            0 => End::Stop,
            1 => End::KillFrozen,
            _ => End::Kill,
        };
        let pause_before_end = Duration::from_micros(random.below(4_000) as u64);
        Self { faults, sends, pause_before_end, end }
    }
}

impl Fault {
    fn drawn(random: &mut Random) -> Self {
        let a_while = Duration::from_millis(1 + random.below(60) as u64);
        match random.below(4) {
            0 => Self::Pause(a_while),
            1 => Self::Cut,
            2 => Self::Stall(a_while),
            _ => {
                let loss = [Loss::Whole, Loss::AfterHeaders][random.below(2)];
                Self::LoseAnswers(1 + random.below(4), loss)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_plan() {
        let of = |seed| format!("{:?}", Plan::of(seed, 1_000, false));
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn everything_that_can_go_wrong_does_for_some_seed() {
        let plans: Vec<_> = (0..200).map(|seed| Plan::of(seed, 1_000, false)).collect();
        let plans = format!("{plans:?}");
        for what in [
            "Pause",
            "Cut",
            "Stall",
            "Whole",
            "AfterHeaders",
            "end: Kill }",
            "end: KillFrozen",
            "end: Stop",
        ] {
            assert!(plans.contains(what), "{what}");
        }
    }
}
