//! Everything in one run: the targets that this project holds itself to, each beside its ceiling.
//!
//! What is compared is measured in turns, round by round, so that whatever else the machine does
//! meanwhile falls on both sides.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use super::child::{ServerProcess, TemporaryFolder, open_files_max, syncs_in};
use super::fleet::{self, Fleet};
use super::limits::{self, Sync};
use super::meter::{Figures, float};
use super::options::{Args, Extent, IDLE_SUBSCRIBERS_DEFAULT, Load};
use super::report::{Bound, Machine, Measurement, Suite, Target, number};
use super::{mailboxes, sends};
use crate::proto::GetUserRequest;

const ROUNDS: u32 = 3;
const ROUND: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);

/// How long the sync of the disk is measured in each round, in each of its ways.
const SYNC_ROUND: Duration = Duration::from_millis(700);

const CATCH_UP_MESSAGES: u64 = 100_000;
const PAIR_RATE: f64 = 200.0;
const RESTARTS: u32 = 5;

/// Sends for which syncs are counted.
const COUNTED_SENDS: u64 = 50_000;

/// Files that a process has open beside its connections.
const FILES_BESIDE: u64 = 256;

/// A run that others are compared with, and what it came to in all rounds.
struct Contender {
    name: &'static str,
    is_live: bool,
    load: Load,
    fleet: Arc<Fleet>,
    figures: Option<Figures>,
}

/// The servers of the run, and what was found out with them.
struct Bench {
    folder: TemporaryFolder,
    server: ServerProcess,
    noop: ServerProcess,
    targets: Vec<Target>,
    measurements: Vec<Measurement>,
    notes: Vec<String>,
}

/// Measures everything.
pub(super) async fn measure(args: &Args) -> anyhow::Result<Suite> {
    let begin = Instant::now();
    let folder = TemporaryFolder::make(args.folder.as_deref())?;
    let machine = Machine::this(folder.file_system());
    let server = ServerProcess::serve(&folder.join("data")).await?;
    let noop = ServerProcess::noop(CATCH_UP_MESSAGES, Load::default().body_bytes).await?;
    let (targets, measurements) = (Vec::new(), Vec::new());
    let notes = vec![
        "the ceiling of T1, T2 and T4 is the no-op unary call; of T5 and T6 the no-op stream"
            .to_owned(),
        "T8 and T10 take longer than this run and are not part of it".to_owned(),
    ];
    let mut bench = Bench { folder, server, noop, targets, measurements, notes };
    bench.rates().await?;
    bench.pair().await?;
    bench.catch_up().await?;
    let mut bench = bench.starts().await?;
    bench.idle().await?;
    bench.syncs().await?;
    let rows = limits::rows(&bench.folder.join("rows"), &Load::default(), ROUND).await?;
    bench.measurements.push(Measurement::new("rows into SQLite without gRPC", rows));
    bench.targets.sort_by_key(|target| target.id);
    let Bench { targets, measurements, notes, .. } = bench;
    Ok(Suite { machine, seconds: begin.elapsed().as_secs_f64(), targets, measurements, notes })
}

/// One round of a load that the targets name.
fn load(connections: usize, in_flight: usize) -> Load {
    let extent = Extent::Duration(ROUND);
    Load { connections, in_flight, extent, warm_up: WARM_UP, ..Load::default() }
}

fn streams(connections: usize) -> Load {
    Load { pipelined: true, ..load(connections, 1024) }
}

/// One receiver, and one connection for the sender.
fn one_pair(mut load: Load) -> Load {
    load.users = 1;
    load
}

impl Contender {
    async fn new(
        name: &'static str,
        server: &ServerProcess,
        load: Load,
        is_live: bool,
    ) -> anyhow::Result<Self> {
        let fleet = Fleet::raise(server.uri(), &load).await?;
        Ok(Self { name, is_live, load, fleet, figures: None })
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let figures = if self.is_live {
            sends::live(self.name, &self.fleet, &self.load).await
        } else {
            sends::send(self.name, &self.fleet, &self.load).await
        };
        let figures = figures.with_context(|| format!("cannot measure {}", self.name))?;
        self.figures = Some(match self.figures.take() {
            None => figures,
            Some(before) => before.and(&figures),
        });
        Ok(())
    }

    fn rate(&self) -> Option<f64> {
        self.figures.as_ref().map(|figures| figures.per_second)
    }
}

impl Bench {
    fn keep(&mut self, contenders: Vec<Contender>) {
        let measured = contenders.into_iter().filter_map(|contender| {
            contender.figures.map(|figures| Measurement::new(contender.name, figures))
        });
        self.measurements.extend(measured);
    }

    /// T1, T2 and T4: rates beside the rate of no-op calls.
    async fn rates(&mut self) -> anyhow::Result<()> {
        let (noop, server) = (&self.noop, &self.server);
        let mut all = vec![
            Contender::new("no-op unary, 256 in flight", noop, load(4, 256), false).await?,
            Contender::new("send, 256 in flight", server, load(4, 256), false).await?,
            Contender::new("no-op unary, 64 in flight", noop, load(4, 64), false).await?,
            Contender::new("send, 64 in flight", server, load(4, 64), false).await?,
            Contender::new("no-op stream, 1 stream", noop, streams(1), false).await?,
            Contender::new("stream, 1 stream", server, streams(1), false).await?,
            Contender::new("no-op stream, 4 streams", noop, streams(4), false).await?,
            Contender::new("stream, 4 streams", server, streams(4), false).await?,
            Contender::new("live, 256 in flight", server, one_pair(load(4, 256)), true).await?,
            Contender::new("live, pipelined", server, one_pair(streams(1)), true).await?,
        ];
        for _ in 0..ROUNDS {
            for contender in &mut all {
                contender.round().await?;
            }
        }
        let rate = |index: usize| all.get(index).and_then(Contender::rate);
        let against = |id, what, index, ceiling, least| {
            let rates = (rate(index), rate(ceiling));
            Target::ratio(id, what, rates, per_second, Bound::AtLeast(least))
        };
        self.targets.extend([
            against("T1", "unary durable sends, 256 in flight", 1, 0, 0.60),
            against("T1", "unary durable sends, 64 in flight", 3, 2, 0.50),
            against("T2", "pipelined durable sends, 1 stream", 5, 0, 2.5),
            against("T2", "pipelined durable sends, 4 streams", 7, 0, 2.5),
            against("T4", "live 1:1, unary, 256 in flight", 8, 0, 0.60),
            // 120,000 a second where no-op unary does 90,000.
            against("T4", "live 1:1, pipelined", 9, 0, 1.33),
        ]);
        self.keep(all);
        Ok(())
    }

    /// T3: one pair at a low rate, beside a sync and a call.
    async fn pair(&mut self) -> anyhow::Result<()> {
        let paced = one_pair(Load { rate: Some(PAIR_RATE), ..load(1, 16) });
        let (noop, server) = (&self.noop, &self.server);
        let mut all = vec![
            Contender::new("no-op unary, 1 in flight", noop, load(1, 1), false).await?,
            Contender::new("no-op unary, 200/s", noop, paced.clone(), false).await?,
            Contender::new("live, one pair at 200/s", server, paced, true).await?,
        ];
        let file = self.folder.join("sync");
        let (mut data_syncs, mut full_syncs) = (None::<Figures>, None::<Figures>);
        for _ in 0..ROUNDS {
            for (how, sum) in [(Sync::Fdatasync, &mut data_syncs), (Sync::Fsync, &mut full_syncs)] {
                let figures = limits::syncs(&file, how, SYNC_ROUND).await?;
                *sum = Some(sum.take().map_or(figures.clone(), |before| before.and(&figures)));
            }
            for contender in &mut all {
                contender.round().await?;
            }
        }
        let latency = |index: usize| all.get(index)?.figures.as_ref()?.latency;
        let (call, pair) = (latency(0), latency(2));
        let sync = data_syncs.as_ref().and_then(|figures| figures.latency);
        let bound = sync.zip(call).map(|(sync, call)| sync.p50_ms + call.p50_ms);
        let medians = (pair.map(|pair| pair.p50_ms), bound);
        let tail = (pair.map(|pair| pair.p99_ms), pair.map(|pair| pair.p50_ms));
        let what = "one pair at 200/s, p50 / (sync + call)";
        self.targets.extend([
            Target::ratio("T3", what, medians, milliseconds, Bound::AtMost(2.0)),
            Target::ratio("T3", "the same, p99 / its p50", tail, milliseconds, Bound::AtMost(4.0)),
        ]);
        self.keep(all);
        for (name, figures) in
            [("fdatasync of 4 KiB, appended", data_syncs), ("fsync of 4 KiB, appended", full_syncs)]
        {
            self.measurements.extend(figures.map(|figures| Measurement::new(name, figures)));
        }
        Ok(())
    }

    /// T5: a stored mailbox, beside a stream of as many messages that come from nowhere.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let filling = mailboxes::filling(&Load::default(), CATCH_UP_MESSAGES);
        let at_noop = Fleet::raise(self.noop.uri(), &filling).await?;
        let at_server = Fleet::raise(self.server.uri(), &filling).await?;
        mailboxes::fill(&at_server, &filling).await?;
        let (mut noop, mut server) = (None::<Figures>, None::<Figures>);
        for _ in 0..Load::default().replays {
            for (fleet, sum) in [(&at_noop, &mut noop), (&at_server, &mut server)] {
                let figures = mailboxes::replay(fleet, CATCH_UP_MESSAGES, 1).await?;
                *sum = Some(sum.take().map_or(figures.clone(), |before| before.and(&figures)));
            }
        }
        let rate = |figures: &Option<Figures>| figures.as_ref().map(|figures| figures.per_second);
        self.targets.push(Target::ratio(
            "T5",
            "catch-up of 100,000 messages",
            (rate(&server), rate(&noop)),
            per_second,
            // 0.25, and 900,000 a second where the no-op stream does 3.5 million.
            Bound::AtLeast(0.257),
        ));
        for (name, figures) in [("no-op catch-up", noop), ("catch-up", server)] {
            self.measurements.extend(figures.map(|figures| Measurement::new(name, figures)));
        }
        Ok(())
    }

    /// T7: from the start of the process to the first answer, on all that was stored until now,
    /// after a kill.
    async fn starts(mut self) -> anyhow::Result<Self> {
        let load = one_pair(load(1, 1));
        let fleet = Fleet::raise(self.server.uri(), &load).await?;
        let stored = stored_messages(&self.measurements);
        let mut starts = Vec::new();
        for _ in 0..RESTARTS {
            let restarted = restart(self.server, &self.folder.join("data"), &fleet).await?;
            starts.push(restarted.1);
            self.server = restarted.0;
        }
        let figures = Figures::of_durations(&starts, 1);
        let median = figures.latency.map(|latency| latency.p50_ms);
        self.notes.push(format!(
            "T7: median of {RESTARTS} starts after a kill, from the start of the process to the \
             first answer, with at least {} messages stored (the target is for 1,000,000)",
            number(float(stored))
        ));
        self.targets.push(Target::number(
            "T7",
            "start to ready after a kill",
            median,
            milliseconds,
            Bound::AtMost(50.0),
        ));
        self.measurements.push(Measurement::new("start to first answer", figures));
        Ok(self)
    }

    /// T6: idle subscribers at fresh servers, since memory that others have freed would hide theirs.
    async fn idle(&mut self) -> anyhow::Result<()> {
        let subscribers = open_files_max()
            .map_or(IDLE_SUBSCRIBERS_DEFAULT, |most| most.saturating_sub(FILES_BESIDE))
            .min(IDLE_SUBSCRIBERS_DEFAULT);
        self.notes.push(format!("T6: {} idle subscribers", number(float(subscribers))));
        for own_connections in [false, true] {
            let load = Load { own_connections, ..load(1, 1) };
            let noop = ServerProcess::noop(0, load.body_bytes).await?;
            let bare = self.idle_at(noop, &load, subscribers, true).await?;
            let server = ServerProcess::serve(&self.folder.join("idle")).await?;
            let real = self.idle_at(server, &load, subscribers, false).await?;
            let on = if own_connections { "own" } else { "shared" };
            self.targets.push(Target::ratio(
                "T6",
                format!("memory of an idle subscriber, {on} connections"),
                (real, bare),
                |bytes| format!("{:.1} KiB", bytes / 1024.0),
                Bound::AtMost(1.15),
            ));
            // The next server is to be fresh too.
            std::fs::remove_dir_all(self.folder.join("idle"))?;
        }
        Ok(())
    }

    async fn idle_at(
        &mut self,
        server: ServerProcess,
        load: &Load,
        subscribers: u64,
        is_noop: bool,
    ) -> anyhow::Result<Option<f64>> {
        let fleet = Fleet::raise(server.uri(), load).await?;
        let (figures, memory) = mailboxes::idle(&fleet, load, subscribers, Some(&server)).await?;
        let name = match (is_noop, load.own_connections) {
            (true, false) => "no-op subscribing, shared",
            (true, true) => "no-op subscribing, own connections",
            (false, false) => "subscribing, shared",
            (false, true) => "subscribing, own connections",
        };
        self.measurements.push(Measurement { memory, ..Measurement::new(name, figures) });
        Ok(memory.map(|memory| memory.bytes_each))
    }

    /// T9: syncs of the server's process, counted by strace where there is one.
    async fn syncs(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("strace");
        let traced = ServerProcess::serve_traced(&self.folder.join("traced"), &log).await?;
        let mut each_thousand = None;
        if let Some(server) = traced {
            let fleet = Fleet::raise(server.uri(), &load(4, 64)).await?;
            let before = syncs_in(&log)?;
            let extent = Extent::Count(COUNTED_SENDS);
            let counted = Load { extent, warm_up: Duration::ZERO, ..load(4, 64) };
            let figures = sends::send("send, counting syncs", &fleet, &counted).await?;
            ensure!(figures.count > 0, "no send was acknowledged while syncs were counted");
            each_thousand = Some(float(syncs_in(&log)? - before) * 1_000.0 / float(figures.count));
            self.measurements.push(Measurement::new("send, 64 in flight, under strace", figures));
            self.notes.push("T9: counted by strace, which makes each sync a little slower".into());
        } else {
            self.notes.push("T9: not measured, since there is no strace that may trace".into());
        }
        self.targets.push(Target::number(
            "T9",
            "syncs for 1,000 acknowledged sends, 64 in flight",
            each_thousand,
            number,
            Bound::SomeAtMost(50.0),
        ));
        Ok(())
    }
}

/// Kills the server and starts it again; how long it took to answer a call.
async fn restart(
    server: ServerProcess,
    data_dir: &Path,
    fleet: &Fleet,
) -> anyhow::Result<(ServerProcess, Duration)> {
    server.kill();
    // Lets the system finish what the kill left to it.
    sleep(Duration::from_millis(100)).await;
    let server = ServerProcess::serve(data_dir).await?;
    let mut client = fleet::connect(server.uri()).await?;
    let request = GetUserRequest { username: fleet.name(0) };
    client.get_user(fleet.as_sender(0, request)).await.context("the server does not answer")?;
    let took = server.started.elapsed();
    Ok((server, took))
}

/// How many messages the measurements have stored at the server, at least.
fn stored_messages(measurements: &[Measurement]) -> u64 {
    let stores = |name: &str| ["send", "stream", "live"].iter().any(|kind| name.starts_with(kind));
    let counts = measurements.iter().filter(|m| stores(&m.name)).map(|m| m.figures.count);
    counts.sum::<u64>() + CATCH_UP_MESSAGES
}

fn per_second(rate: f64) -> String {
    format!("{}/s", number(rate))
}

fn milliseconds(value: f64) -> String {
    format!("{value:.2} ms")
}
