//! One thing measured again and again while another grows: the points of the plots in
//! `docs/PERFORMANCE.md`.

use std::time::{Duration, Instant};

use super::child::{ServerProcess, TemporaryFolder};
use super::contender::{self, Contender, Pace, add};
use super::fleet::Fleet;
use super::growth::{self, Grown};
use super::meter::{Figures, float};
use super::options::{Args, Load, Sweep};
use super::report::{Machine, Measurement, Point, Swept};
use super::suite::CATCH_UP_MESSAGES;
use super::{mailboxes, merge, sends};

const ROUNDS: u32 = 2;

/// Shorter than elsewhere: the points of a line show by each other how much they are worth.
const ROUND_MAX: Duration = Duration::from_secs(1);

const IN_FLIGHT_MAX: usize = 512;
const TENTHS: u32 = 10;
const MESSAGES_MIN: u64 = 1_000;
const USERS_MIN: u32 = 100;
const REPLAYS: u32 = 3;

/// Measures all points.
pub(super) async fn measure(sweep: Sweep, args: &Args) -> anyhow::Result<Swept> {
    let begin = Instant::now();
    let folder = TemporaryFolder::make(args.folder.as_deref())?;
    let machine = Machine::this(folder.file_system());
    let pace = Pace::of(&args.load).at_most(ROUND_MAX);
    let most_users = args.growth.users.iter().copied().max().unwrap_or(USERS_MIN);
    // The mailbox that is read, in each of the stores.
    let read = CATCH_UP_MESSAGES.min(args.growth.messages);
    let mut slices = Vec::new();
    let points = match sweep {
        Sweep::InFlight => in_flight(&folder, pace).await?,
        Sweep::Rate => rate(&folder, pace).await?,
        Sweep::Messages => {
            let mut points = Vec::new();
            for messages in tenfold(MESSAGES_MIN, args.growth.messages) {
                let grown = growth::by_messages(&folder, messages).await?;
                at_grown(grown, float(messages), read, pace, &mut points).await?;
            }
            points
        }
        Sweep::Users => {
            let mut points = Vec::new();
            for users in tenfold(USERS_MIN.into(), most_users.into()) {
                let (data_dir, users) = (folder.join("users"), u32::try_from(users)?);
                let grown = growth::by_users(data_dir, users, args.growth.messages).await?;
                at_grown(grown, f64::from(users), read, pace, &mut points).await?;
            }
            points
        }
        Sweep::Merge => {
            let outcome = merge::measure(&folder).await?;
            slices = outcome.slices;
            let point = |name, figures| Point {
                x: outcome.rate,
                measurement: Measurement::new(name, figures),
            };
            vec![point("merging", outcome.merging), point("not merging", outcome.quiet)]
        }
    };
    Ok(Swept { machine, seconds: begin.elapsed().as_secs_f64(), sweep, points, slices })
}

/// Throughput by calls in flight, beside calls that do nothing.
async fn in_flight(folder: &TemporaryFolder, pace: Pace) -> anyhow::Result<Vec<Point>> {
    let server = ServerProcess::serve(&folder.join("data")).await?;
    let noop = ServerProcess::noop(0, Load::default().body_bytes).await?;
    let mut points = Vec::new();
    let mut in_flight = 1;
    while in_flight <= IN_FLIGHT_MAX {
        let load = pace.calls(in_flight.min(4), in_flight);
        let mut both = [
            Contender::sends("no-op", &noop, load.clone()).await?,
            Contender::sends("send", &server, load).await?,
        ];
        contender::rounds(&mut both, ROUNDS).await?;
        for contender in both {
            let x = float(in_flight as u64);
            points.extend(point(x, contender.name, contender.figures));
        }
        in_flight *= 2;
    }
    Ok(points)
}

/// Latency by the rate that is offered.
async fn rate(folder: &TemporaryFolder, pace: Pace) -> anyhow::Result<Vec<Point>> {
    let server = ServerProcess::serve(&folder.join("data")).await?;
    let closed = pace.calls(4, 256);
    let fleet = Fleet::raise(server.uri(), &closed).await?;
    let most = sends::send("the maximum rate", &fleet, &closed).await?;
    let mut points = Vec::new();
    for tenth in 1..TENTHS {
        let rate = most.per_second * f64::from(tenth) / f64::from(TENTHS);
        // Enough that a call which is due finds one who makes it.
        let load = Load { rate: Some(rate), ..pace.calls(4, IN_FLIGHT_MAX) };
        let fleet = Fleet::raise(server.uri(), &load).await?;
        let mut sum = None;
        for _ in 0..ROUNDS {
            add(&mut sum, sends::send("an open loop", &fleet, &load).await?);
        }
        points.extend(point(rate, "send", sum));
    }
    points.extend(point(most.per_second, "send, as fast as it goes", Some(most)));
    Ok(points)
}

/// Throughput of a server that has grown, which ends with it.
async fn at_grown(
    grown: Grown,
    x: f64,
    read: u64,
    pace: Pace,
    points: &mut Vec<Point>,
) -> anyhow::Result<()> {
    let Grown { what, server, data_dir, population, filled } = grown;
    points.extend(point(x, "stored without gRPC", Some(filled)));
    for (name, load) in
        [("send, 256 in flight", pace.calls(4, 256)), ("stream, 1 stream", pace.streams(1))]
    {
        let fleet = Fleet::raise_for(server.uri(), &load, &population).await?;
        let mut sum = None;
        for _ in 0..ROUNDS {
            add(&mut sum, sends::send(&format!("{name}: {what}"), &fleet, &load).await?);
        }
        points.extend(point(x, name, sum));
    }
    let filling = mailboxes::filling(&Load::default(), read);
    let fleet = Fleet::raise(server.uri(), &filling).await?;
    mailboxes::fill(&fleet, &filling).await?;
    let replayed = mailboxes::replay(&fleet, read, REPLAYS).await?;
    points.extend(point(x, "catch-up", Some(replayed)));
    server.kill();
    std::fs::remove_dir_all(data_dir)?;
    Ok(())
}

/// From the least to the most, each ten times the one before.
fn tenfold(least: u64, most: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(least), |x| Some(x * 10)).take_while(move |x| *x <= most)
}

fn point(x: f64, name: impl Into<String>, figures: Option<Figures>) -> Option<Point> {
    figures.map(|figures| Point { x, measurement: Measurement::new(name, figures) })
}
