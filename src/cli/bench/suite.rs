//! Everything in one run: the targets that this project holds itself to, each beside its ceiling.
//!
//! What is compared is measured in turns, round by round, so that whatever else the machine does
//! meanwhile falls on both sides.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use super::child::{ServerProcess, TemporaryFolder, open_files_max, syncs_in};
use super::contender::{self, Contender, Pace, add};
use super::fleet::{self, Fleet};
use super::growth::{self, Grown};
use super::limits::{self, Sync};
use super::meter::{Figures, float};
use super::options::{Args, Extent, GrowthArgs, IDLE_SUBSCRIBERS_DEFAULT, Load, TargetId};
use super::report::{
    Bound, Findings, Machine, Measurement, Suite, Target, count, milliseconds, number, per_second,
};
use super::{mailboxes, merge, retention, sends};
use crate::proto::GetUserRequest;

const ROUNDS: u32 = 3;

/// How long the sync of the disk is measured in each round, in each of its ways.
const SYNC_ROUND: Duration = Duration::from_millis(700);

/// The mailbox that is read.
pub(super) const CATCH_UP_MESSAGES: u64 = 100_000;

/// A round of what shows its median soon.
const SHORT_ROUND: Duration = Duration::from_secs(1);

const PAIR_RATE: f64 = 200.0;
const RESTARTS: u32 = 5;

/// Sends between two starts, so that they do not all find the same unmerged tail.
const SENDS_BETWEEN_STARTS: u64 = 30_000;

/// Sends for which syncs are counted.
const COUNTED_SENDS: u64 = 50_000;

/// Files that a process has open beside its connections.
const FILES_BESIDE: u64 = 256;

/// The servers of the run, and what was found out with them.
struct Bench {
    folder: TemporaryFolder,
    server: ServerProcess,
    noop: ServerProcess,
    pace: Pace,
    findings: Findings,
}

/// Measures everything, or what it was asked for.
pub(super) async fn measure(args: &Args) -> anyhow::Result<Suite> {
    let begin = Instant::now();
    let folder = TemporaryFolder::make(args.folder.as_deref())?;
    let machine = Machine::this(folder.file_system());
    let server = ServerProcess::serve(&folder.join("data")).await?;
    let noop = ServerProcess::noop(CATCH_UP_MESSAGES, Load::default().body_bytes).await?;
    let pace = Pace::of(&args.load);
    let mut bench = Bench { folder, server, noop, pace, findings: Findings::default() };
    bench.targets(args).await?;
    let mut findings = bench.findings;
    findings.targets.sort_by_key(|target| target.id);
    Ok(Suite { machine, seconds: begin.elapsed().as_secs_f64(), findings })
}

/// One receiver, and one connection for the sender.
fn one_pair(mut load: Load) -> Load {
    load.users = 1;
    load
}

impl Bench {
    async fn targets(&mut self, args: &Args) -> anyhow::Result<()> {
        use TargetId::{T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11};
        let wants =
            |ids: &[TargetId]| args.only.is_empty() || ids.iter().any(|id| args.only.contains(id));
        if wants(&[T1, T2, T4]) {
            self.rates().await?;
        }
        if wants(&[T3]) {
            self.pair().await?;
        }
        if wants(&[T5]) {
            self.catch_up().await?;
        }
        if wants(&[T7, T8]) {
            let grown = growth::by_messages(&self.folder, args.growth.messages).await?;
            if wants(&[T8]) {
                self.growth(&grown, &args.growth).await?;
            }
            if wants(&[T7]) {
                self.starts(grown, args.growth.messages).await?;
            }
        }
        if wants(&[T10]) {
            self.merges().await?;
        }
        if args.only.contains(&T11) {
            self.retention(args.growth.to_be_removed).await?;
        }
        if wants(&[T6]) {
            self.idle().await?;
        }
        if wants(&[T9]) {
            self.syncs().await?;
        }
        if args.only.is_empty() {
            let folder = self.folder.join("rows");
            let rows = limits::rows(&folder, &Load::default(), self.pace.round).await?;
            self.keep("rows into SQLite without gRPC", Some(rows));
        }
        Ok(())
    }

    fn keep(&mut self, name: impl Into<String>, figures: Option<Figures>) {
        let measured = figures.map(|figures| Measurement::new(name, figures));
        self.findings.measurements.extend(measured);
    }

    fn keep_all(&mut self, contenders: Vec<Contender>) {
        for contender in contenders {
            self.keep(contender.name, contender.figures);
        }
    }

    fn note(&mut self, note: impl Into<String>) {
        self.findings.notes.push(note.into());
    }

    /// T1, T2 and T4: rates beside the rate of no-op calls.
    async fn rates(&mut self) -> anyhow::Result<()> {
        let (noop, server, pace) = (&self.noop, &self.server, self.pace);
        let mut all = vec![
            Contender::sends("no-op unary, 256 in flight", noop, pace.calls(4, 256)).await?,
            Contender::sends("send, 256 in flight", server, pace.calls(4, 256)).await?,
            Contender::sends("no-op unary, 64 in flight", noop, pace.calls(4, 64)).await?,
            Contender::sends("send, 64 in flight", server, pace.calls(4, 64)).await?,
            Contender::sends("no-op stream, 1 stream", noop, pace.streams(1)).await?,
            Contender::sends("stream, 1 stream", server, pace.streams(1)).await?,
            Contender::sends("no-op stream, 4 streams", noop, pace.streams(4)).await?,
            Contender::sends("stream, 4 streams", server, pace.streams(4)).await?,
            Contender::live("live, 256 in flight", server, one_pair(pace.calls(4, 256))).await?,
            Contender::live("live, pipelined", server, one_pair(pace.streams(1))).await?,
        ];
        contender::rounds(&mut all, ROUNDS).await?;
        let rate = |index: usize| all.get(index).and_then(Contender::rate);
        let against = |id, what, index, ceiling, least| {
            let rates = (rate(index), rate(ceiling));
            Target::ratio(id, what, rates, per_second, Bound::AtLeast(least))
        };
        self.findings.targets.extend([
            against(TargetId::T1, "unary durable sends, 256 in flight", 1, 0, 0.60),
            against(TargetId::T1, "unary durable sends, 64 in flight", 3, 2, 0.50),
            against(TargetId::T2, "pipelined durable sends, 1 stream", 5, 0, 2.5),
            against(TargetId::T2, "pipelined durable sends, 4 streams", 7, 0, 2.5),
            against(TargetId::T4, "live 1:1, unary, 256 in flight", 8, 0, 0.60),
            // 120,000 a second where no-op unary does 90,000.
            against(TargetId::T4, "live 1:1, pipelined", 9, 0, 1.33),
        ]);
        self.keep_all(all);
        Ok(())
    }

    /// T3: one pair at a low rate, beside a sync and a call.
    async fn pair(&mut self) -> anyhow::Result<()> {
        let (noop, server, pace) = (&self.noop, &self.server, self.pace);
        let sync_round = SYNC_ROUND.min(pace.round);
        let brief = pace.at_most(SHORT_ROUND);
        let paced = |pace: Pace| one_pair(Load { rate: Some(PAIR_RATE), ..pace.calls(1, 16) });
        // At so low a rate a tail takes long to show.
        let long = Pace { round: 2 * pace.round, ..pace };
        let mut all = vec![
            Contender::sends("no-op unary, 1 in flight", noop, brief.calls(1, 1)).await?,
            Contender::sends("no-op unary, 200/s", noop, paced(brief)).await?,
            Contender::live("live, one pair at 200/s", server, paced(long)).await?,
        ];
        let file = self.folder.join("sync");
        let (mut data_syncs, mut full_syncs) = (None::<Figures>, None::<Figures>);
        for _ in 0..ROUNDS {
            for (how, sum) in [(Sync::Fdatasync, &mut data_syncs), (Sync::Fsync, &mut full_syncs)] {
                add(sum, limits::syncs(&file, how, sync_round).await?);
            }
            contender::rounds(&mut all, 1).await?;
        }
        let latency = |index: usize| all.get(index)?.figures.as_ref()?.latency;
        let (call, pair) = (latency(0), latency(2));
        let sync = data_syncs.as_ref().and_then(|figures| figures.latency);
        let bound = sync.zip(call).map(|(sync, call)| sync.p50_ms + call.p50_ms);
        let medians = (pair.map(|pair| pair.p50_ms), bound);
        let tail = (pair.map(|pair| pair.p99_ms), pair.map(|pair| pair.p50_ms));
        let what = "one pair at 200/s, p50 / (sync + call)";
        self.findings.targets.extend([
            Target::ratio(TargetId::T3, what, medians, milliseconds, Bound::AtMost(2.0)),
            Target::ratio(
                TargetId::T3,
                "the same, p99 / its p50",
                tail,
                milliseconds,
                Bound::AtMost(4.0),
            ),
        ]);
        self.keep_all(all);
        for (name, figures) in
            [("fdatasync of 4 KiB, appended", data_syncs), ("fsync of 4 KiB, appended", full_syncs)]
        {
            self.keep(name, figures);
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
                add(sum, mailboxes::replay(fleet, CATCH_UP_MESSAGES, 1).await?);
            }
        }
        let rate = |figures: &Option<Figures>| figures.as_ref().map(|figures| figures.per_second);
        self.findings.targets.push(Target::ratio(
            TargetId::T5,
            "catch-up of 100,000 messages",
            (rate(&server), rate(&noop)),
            per_second,
            // 0.25, and 900,000 a second where the no-op stream does 3.5 million.
            Bound::AtLeast(0.257),
        ));
        for (name, figures) in [("no-op catch-up", noop), ("catch-up", server)] {
            self.keep(name, figures);
        }
        Ok(())
    }

    /// T8: the same at servers that have grown, and at one that has not.
    async fn growth(&mut self, grown: &Grown, args: &GrowthArgs) -> anyhow::Result<()> {
        growth::measure(&self.folder, self.pace, grown, args, &mut self.findings).await?;
        let users: Vec<String> = args.users.iter().map(|n| count((*n).into())).collect();
        self.note(format!(
            "T8: {} messages stored, and {} users, beside nearly empty with 100 users; the target \
             is for 10,000,000 and 1,000,000 (--growth-messages, --growth-users)",
            count(args.messages),
            users.join(" and "),
        ));
        Ok(())
    }

    /// T7: from the start of the process to the first answer, after a kill.
    async fn starts(&mut self, grown: Grown, stored: u64) -> anyhow::Result<()> {
        let load = Load { extent: Extent::Count(SENDS_BETWEEN_STARTS), ..self.pace.streams(1) };
        let load = Load { warm_up: Duration::ZERO, ..load };
        let Grown { mut server, data_dir, population, .. } = grown;
        let mut starts = Vec::new();
        for _ in 0..RESTARTS {
            let fleet = Fleet::raise_for(server.uri(), &load, &population).await?;
            sends::send("sends before a kill", &fleet, &load).await?;
            let restarted = restart(server, &data_dir, &fleet).await?;
            starts.push(restarted.1);
            server = restarted.0;
        }
        let figures = Figures::of_durations(&starts, 1);
        let median = figures.latency.map(|latency| latency.p50_ms);
        self.note(format!(
            "T7: median of {RESTARTS} starts, each after {} more sends and a kill, from the start \
             of the process to the first answer, with {} messages stored (the target is for \
             1,000,000)",
            count(SENDS_BETWEEN_STARTS),
            count(stored),
        ));
        self.findings.targets.push(Target::number(
            TargetId::T7,
            "start to ready after a kill",
            median,
            milliseconds,
            Bound::AtMost(50.0),
        ));
        self.keep("start to first answer", Some(figures));
        Ok(())
    }

    /// T10: half of the maximum rate while indexes are merged, beside the same while they are not.
    async fn merges(&mut self) -> anyhow::Result<()> {
        let merge::Outcome { rate, merges, merging, quiet, .. } =
            merge::measure(&self.folder).await?;
        let tail = |figures: &Figures| figures.latency.map(|latency| latency.p99_ms);
        self.findings.targets.push(Target::ratio(
            TargetId::T10,
            "p99 of unary sends at half rate, merging",
            (tail(&merging), tail(&quiet)),
            milliseconds,
            Bound::AtMost(2.0),
        ));
        self.keep("send at half rate, merging", Some(merging));
        self.keep("send at half rate, not merging", Some(quiet));
        self.note(format!("T10: an open loop of {}, around {merges} merges", per_second(rate)));
        Ok(())
    }

    /// T11: half of the maximum rate while old messages are removed, beside the same while none are.
    async fn retention(&mut self, messages: u64) -> anyhow::Result<()> {
        let outcome = retention::measure(&self.folder, messages).await?;
        let retention::Outcome { rate, removing, quiet, removed, took, database_bytes } = outcome;
        let tail = |figures: &Figures| figures.latency.map(|latency| latency.p99_ms);
        self.findings.targets.push(Target::ratio(
            TargetId::T11,
            "p99 of unary sends at half rate, removing",
            (tail(&removing), tail(&quiet)),
            milliseconds,
            Bound::AtMost(2.0),
        ));
        self.keep("send at half rate, removing", Some(removing));
        self.keep("send at half rate, keeping", Some(quiet));
        self.note(format!(
            "T11: an open loop of {}; {} messages were removed in {:.0} s, and the database went from \
             {} to {} bytes (the target is for 10,000,000: --retention-messages)",
            per_second(rate),
            count(removed),
            took.as_secs_f64(),
            count(database_bytes.0.unsigned_abs()),
            count(database_bytes.1.unsigned_abs()),
        ));
        Ok(())
    }

    /// T6: idle subscribers at fresh servers, since memory that others have freed would hide theirs.
    async fn idle(&mut self) -> anyhow::Result<()> {
        let subscribers = open_files_max()
            .map_or(IDLE_SUBSCRIBERS_DEFAULT, |most| most.saturating_sub(FILES_BESIDE))
            .min(IDLE_SUBSCRIBERS_DEFAULT);
        self.note(format!("T6: {} idle subscribers", count(subscribers)));
        for own_connections in [false, true] {
            let load = Load { own_connections, ..self.pace.calls(1, 1) };
            let noop = ServerProcess::noop(0, load.body_bytes).await?;
            let bare = self.idle_at(noop, &load, subscribers, true).await?;
            let server = ServerProcess::serve(&self.folder.join("idle")).await?;
            let real = self.idle_at(server, &load, subscribers, false).await?;
            let on = if own_connections { "own" } else { "shared" };
            self.findings.targets.push(Target::ratio(
                TargetId::T6,
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
        self.findings.measurements.push(Measurement { memory, ..Measurement::new(name, figures) });
        Ok(memory.map(|memory| memory.bytes_each))
    }

    /// T9: syncs of the server's process, counted by strace where there is one.
    async fn syncs(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("strace");
        let traced = ServerProcess::serve_traced(&self.folder.join("traced"), &log).await?;
        let mut each_thousand = None;
        if let Some(server) = traced {
            let fleet = Fleet::raise(server.uri(), &self.pace.calls(4, 64)).await?;
            let before = syncs_in(&log)?;
            let extent = Extent::Count(COUNTED_SENDS);
            let counted = Load { extent, warm_up: Duration::ZERO, ..self.pace.calls(4, 64) };
            let figures = sends::send("send, counting syncs", &fleet, &counted).await?;
            ensure!(figures.count > 0, "no send was acknowledged while syncs were counted");
            each_thousand = Some(float(syncs_in(&log)? - before) * 1_000.0 / float(figures.count));
            self.findings
                .measurements
                .push(Measurement::new("send, 64 in flight, under strace", figures));
            self.note("T9: counted by strace, which makes each sync a little slower");
        } else {
            self.note("T9: not measured, since there is no strace that may trace");
        }
        self.findings.targets.push(Target::number(
            TargetId::T9,
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
