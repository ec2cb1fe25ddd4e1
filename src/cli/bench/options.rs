//! What a run is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;
use serde::Serialize;

use crate::domain::limits::{BODY_BYTES_CEILING, STREAM_SENDS_IN_WORK_MAX};

const IN_FLIGHT_DEFAULT: usize = 256;
const CATCH_UP_MESSAGES_DEFAULT: u64 = 100_000;
const REPLAYS: u32 = 5;
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
const WARM_UP_DEFAULT: Duration = Duration::from_secs(2);
pub(super) const IDLE_SUBSCRIBERS_DEFAULT: u64 = 10_000;

/// A live message carries the moment of its sending in its body.
pub(super) const LIVE_BODY_BYTES_MIN: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost bench --limits                   everything, beside what this machine can do at most
  peerpost bench --limits --only T8 --growth-messages 10000000 --growth-users 100000,1000000
  peerpost bench --sweep in-flight --json   one line of a plot after the other
  peerpost bench send                       durable sends, 256 in flight over 4 connections
  peerpost bench send --rate 20000          the latency at 20,000 sends a second
  peerpost bench stream --connections 1     pipelined sends on one stream
  peerpost bench live --users 1 --connections 1 --rate 200
  peerpost bench catch-up --count 1000000 --json
  peerpost bench idle --own-connections --limits
  peerpost --server peer.example:50051 bench send --duration 30

Without --server on the command line it starts a server of its own, in a process of its own and on a
temporary folder, and ends it afterwards. On another's server it registers users with random names,
and leaves them and their messages there. Latencies of a --rate count from when a call was due, not
from when it could at last be made (no coordinated omission).")]
pub(in crate::cli) struct Args {
    /// What to measure. Not needed with --limits, which then measures everything.
    #[arg(value_enum, required_unless_present_any = ["limits", "sweep"])]
    pub(super) workload: Option<Workload>,

    /// Measure the limits of this machine in the same run, and print results as ratios of them.
    #[arg(long)]
    pub(super) limits: bool,

    /// Of everything, only these targets, such as `T1,T3`; those that are measured together come
    /// together.
    #[arg(
        long,
        value_enum,
        value_name = "TARGETS",
        value_delimiter = ',',
        ignore_case = true,
        requires = "limits",
        conflicts_with = "workload"
    )]
    pub(super) only: Vec<TargetId>,

    /// Measure again and again while one thing grows: the points of a plot.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with_all = ["workload", "limits"])]
    pub(super) sweep: Option<Sweep>,

    #[command(flatten)]
    pub(super) load: LoadArgs,

    #[command(flatten)]
    pub(super) growth: GrowthArgs,

    /// Where the temporary folder is made: on the disk that is to be measured [default: the
    /// system's folder for temporary files].
    #[arg(long, value_name = "FOLDER")]
    pub(super) folder: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
    /// Connections that carry the calls; for `stream` one stream on each.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,

    /// Calls in flight, over all connections together [default: 256]; when pipelined, messages in
    /// flight on each stream [default: 1024].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: Option<u16>,

    /// The size of a message's body.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=i64::try_from(BODY_BYTES_CEILING).unwrap_or(i64::MAX))
    )]
    body_bytes: u32,

    /// Users who receive: each message is for one of them, chosen at random. Those who send, one for
    /// each call in flight or stream, are registered beside them.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,

    /// How long to measure, in seconds; without a workload, how long each round of each thing takes
    /// [default: 10; without a workload 2 or less].
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    duration: Option<f64>,

    /// How many calls to measure, instead of a duration; for `catch-up` the messages stored
    /// [default: 100000], for `idle` the subscribers [default: 10000].
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Calls a second, whether or not answers come (an open loop) [default: as fast as answers come].
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,

    /// How long to run before measuring, in seconds [default: 2; without a workload 0.4].
    #[arg(long, value_name = "SECONDS", value_parser = not_negative)]
    warm_up: Option<f64>,

    /// `live`: send on streams instead of by a call for each message.
    #[arg(long)]
    pipelined: bool,

    /// `idle`: a connection for each subscriber.
    #[arg(long)]
    own_connections: bool,
}

/// How far a store is grown before it is measured again.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Growth (T7, T8, T11 and the sweeps `messages` and `users`)")]
pub(super) struct GrowthArgs {
    /// Messages that are stored first. With many users a fifth of them is.
    #[arg(
        id = "growth-messages",
        long = "growth-messages",
        value_name = "N",
        default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1_000..=100_000_000)
    )]
    pub(super) messages: u64,

    /// Users who are registered first and receive at random; one measurement for each number given.
    #[arg(
        id = "growth-users",
        long = "growth-users",
        value_name = "N",
        value_delimiter = ',',
        default_value = "100000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(super) users: Vec<u32>,

    /// Messages that are stored first, to be removed while others are sent (T11).
    #[arg(
        id = "retention-messages",
        long = "retention-messages",
        value_name = "N",
        default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1_000..=100_000_000)
    )]
    pub(super) to_be_removed: u64,
}

/// The targets that this project holds itself to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[value(rename_all = "UPPER")]
pub(super) enum TargetId {
    T1,
    T2,
    T3,
    T4,
    T5,
    T6,
    T7,
    T8,
    T9,
    T10,
    /// Measured when it is named: with many messages it takes minutes.
    T11,
}

/// What grows in a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Sweep {
    /// Calls in flight, 1 to 512: the throughput of durable sends and of calls that do nothing.
    InFlight,
    /// The rate that is offered, 10 % to 90 % of the most: the latency of durable sends.
    Rate,
    /// Messages stored before: the throughput of durable sends, and of reading.
    Messages,
    /// Users who receive: the same.
    Users,
    /// Messages stored in the run, at half of the maximum rate: the latency while indexes are merged.
    Merge,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Workload {
    /// Durable sends, one call each (`SendMessage`).
    Send,
    /// Durable sends, pipelined (`SendMessages`).
    Stream,
    /// From the send to the subscriber who receives it.
    Live,
    /// A subscriber who reads a stored mailbox from its beginning.
    CatchUp,
    /// Memory and time that subscribers take while nothing happens.
    Idle,
}

/// How long a run goes on.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Extent {
    /// For a time.
    Duration(Duration),
    /// For a number of calls.
    Count(u64),
}

/// One run's load.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Load {
    pub(super) connections: usize,
    /// Of all connections together, or of each stream.
    pub(super) in_flight: usize,
    pub(super) body_bytes: usize,
    pub(super) users: usize,
    pub(super) extent: Extent,
    /// Calls a second, in an open loop.
    pub(super) rate: Option<f64>,
    pub(super) warm_up: Duration,
    pub(super) pipelined: bool,
    pub(super) own_connections: bool,
    /// How often a stored mailbox is read.
    pub(super) replays: u32,
}

impl Default for Load {
    /// What the targets are measured with, where they do not say otherwise.
    fn default() -> Self {
        Self {
            connections: 4,
            in_flight: IN_FLIGHT_DEFAULT,
            body_bytes: 100,
            users: 100,
            extent: Extent::Duration(DURATION_DEFAULT),
            rate: None,
            warm_up: WARM_UP_DEFAULT,
            pipelined: false,
            own_connections: false,
            replays: REPLAYS,
        }
    }
}

impl Load {
    /// How many send at the same time, each as a user of their own.
    pub(super) fn workers(&self) -> usize {
        if self.pipelined { self.connections } else { self.in_flight }
    }
}

impl LoadArgs {
    /// How long to measure, where that was said.
    pub(super) fn duration(&self) -> Option<Duration> {
        self.duration.map(Duration::from_secs_f64)
    }

    /// How long to run before, where that was said.
    pub(super) fn warm_up(&self) -> Option<Duration> {
        self.warm_up.map(Duration::from_secs_f64)
    }

    /// The load that these options mean for a workload.
    ///
    /// # Errors
    /// For options that do not go together.
    pub(super) fn load(&self, workload: Workload) -> anyhow::Result<Load> {
        let pipelined = workload == Workload::Stream || self.pipelined;
        let in_flight = if pipelined { STREAM_SENDS_IN_WORK_MAX } else { IN_FLIGHT_DEFAULT };
        let extent = match (self.count, workload) {
            (Some(count), _) => Extent::Count(count),
            (None, Workload::CatchUp) => Extent::Count(CATCH_UP_MESSAGES_DEFAULT),
            (None, Workload::Idle) => Extent::Count(IDLE_SUBSCRIBERS_DEFAULT),
            (None, _) => Extent::Duration(self.duration().unwrap_or(DURATION_DEFAULT)),
        };
        let load = Load {
            connections: self.connections.into(),
            in_flight: self.in_flight.map_or(in_flight, usize::from),
            body_bytes: usize::try_from(self.body_bytes)?,
            users: usize::try_from(self.users)?,
            extent,
            rate: self.rate,
            warm_up: self.warm_up().unwrap_or(WARM_UP_DEFAULT),
            pipelined,
            own_connections: self.own_connections,
            replays: REPLAYS,
        };
        ensure!(
            workload != Workload::Live || load.body_bytes >= LIVE_BODY_BYTES_MIN,
            "a live message carries the moment of its sending: --body-bytes must be \
             {LIVE_BODY_BYTES_MIN} or more"
        );
        ensure!(
            workload == Workload::Live || !self.pipelined,
            "--pipelined is for `live`; `stream` is pipelined as it is"
        );
        ensure!(
            workload == Workload::Idle || !self.own_connections,
            "--own-connections is for `idle`"
        );
        Ok(load)
    }
}

impl Workload {
    /// The name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Stream => "stream",
            Self::Live => "live",
            Self::CatchUp => "catch-up",
            Self::Idle => "idle",
        }
    }
}

/// A number of seconds or calls a second: more than 0, and no more than a year has seconds.
fn positive(text: &str) -> Result<f64, String> {
    match not_negative(text)? {
        0.0 => Err("must be more than 0".into()),
        number => Ok(number),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    const MAX: f64 = 31_536_000.0;
    let number: f64 = text.parse().map_err(|_| "is not a number")?;
    if (0.0..=MAX).contains(&number) { Ok(number) } else { Err(format!("must be 0 to {MAX}")) }
}
