//! Runs that are compared with each other: measured in turns, round by round, so that whatever else
//! the machine does meanwhile falls on all of them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::child::ServerProcess;
use super::fleet::Fleet;
use super::meter::Figures;
use super::options::{Extent, Load, LoadArgs};
use super::sends;

const ROUND_DEFAULT: Duration = Duration::from_secs(2);
const WARM_UP_DEFAULT: Duration = Duration::from_millis(400);

/// How long each round takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) round: Duration,
    pub(super) warm_up: Duration,
}

/// A run that others are compared with, and what it came to in all rounds.
pub(super) struct Contender {
    pub(super) name: Cow<'static, str>,
    is_live: bool,
    load: Load,
    fleet: Arc<Fleet>,
    pub(super) figures: Option<Figures>,
}

impl Pace {
    pub(super) fn of(args: &LoadArgs) -> Self {
        Self {
            round: args.duration().unwrap_or(ROUND_DEFAULT),
            warm_up: args.warm_up().unwrap_or(WARM_UP_DEFAULT),
        }
    }

    /// The same with rounds that are no longer than this.
    pub(super) fn at_most(self, round: Duration) -> Self {
        Self { round: self.round.min(round), ..self }
    }

    /// One round of unary calls.
    pub(super) fn calls(self, connections: usize, in_flight: usize) -> Load {
        let extent = Extent::Duration(self.round);
        Load { connections, in_flight, extent, warm_up: self.warm_up, ..Load::default() }
    }

    /// One round of pipelined sends.
    pub(super) fn streams(self, connections: usize) -> Load {
        Load { pipelined: true, ..self.calls(connections, 1024) }
    }
}

impl Contender {
    /// One that sends as `load` says.
    pub(super) async fn sends(
        name: impl Into<Cow<'static, str>>,
        server: &ServerProcess,
        load: Load,
    ) -> anyhow::Result<Self> {
        let fleet = Fleet::raise(server.uri(), &load).await?;
        Ok(Self { name: name.into(), is_live: false, load, fleet, figures: None })
    }

    /// One whose messages count when they reach a subscriber.
    pub(super) async fn live(
        name: impl Into<Cow<'static, str>>,
        server: &ServerProcess,
        load: Load,
    ) -> anyhow::Result<Self> {
        Ok(Self { is_live: true, ..Self::sends(name, server, load).await? })
    }

    pub(super) async fn round(&mut self) -> anyhow::Result<()> {
        let figures = if self.is_live {
            sends::live(&self.name, &self.fleet, &self.load).await
        } else {
            sends::send(&self.name, &self.fleet, &self.load).await
        };
        let figures = figures.with_context(|| format!("cannot measure {}", self.name))?;
        add(&mut self.figures, figures);
        Ok(())
    }

    pub(super) fn rate(&self) -> Option<f64> {
        self.figures.as_ref().map(|figures| figures.per_second)
    }
}

/// Measures all in turns. Every second round goes backwards, so that none of two neighbours always
/// comes second.
pub(super) async fn rounds(all: &mut [Contender], rounds: u32) -> anyhow::Result<()> {
    for _ in 0..rounds {
        for contender in &mut *all {
            contender.round().await?;
        }
        all.reverse();
    }
    if rounds % 2 == 1 {
        all.reverse();
    }
    Ok(())
}

/// Adds a round to those before.
pub(super) fn add(sum: &mut Option<Figures>, round: Figures) {
    *sum = Some(match sum.take() {
        None => round,
        Some(before) => before.and(&round),
    });
}
