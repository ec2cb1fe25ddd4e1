//! `peerpost top`: live figures of a running server, from its page of metrics.
//!
//! [`page`] reads a page, [`figures`] is what two of them say of the time between, [`lines`] and [`screen`]
//! show it. This file asks, in one loop: pages, keys, time, signals.

mod figures;
mod lines;
mod page;
mod screen;
mod source;

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_stream::StreamExt as _;

use super::advice::advise;
use super::signals::StopSignals;
use super::terminal::{self, Screen};
use super::{output, style};
use figures::Figures;
use page::Page;
use screen::Top;
use source::Source;

/// The shortest and the longest time between two looks, in seconds.
const INTERVAL_SECONDS: (f64, f64) = (0.2, 3600.0);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost serve --metrics-listen 127.0.0.1:9464        a server that tells its figures
  peerpost top
  peerpost top --metrics chat.lan:9464 --interval 5
  peerpost top --once | grep commits

Keys: q or Ctrl-C leaves, Ctrl-L draws anew, Ctrl-Z suspends.

Rates, latencies and shares are of the time since the look before. Latencies are as exact as the buckets of
the server's histograms: <0.5 is below the first of them. Streams have none, since they last as long as their
client wants. CANCELLED is no error: the client went away.")]
pub(super) struct Args {
    /// The page of metrics, as the server's --metrics-listen names it: http://HOST:PORT[/PATH].
    #[arg(
        long,
        env = "PEERPOST_METRICS",
        value_name = "URL",
        default_value = "http://127.0.0.1:9464/metrics"
    )]
    metrics: Source,

    /// How often to look, in seconds: 0.2 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    interval: Duration,

    /// Print the figures of one interval as text, and end. So it does where stdout is no terminal.
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (least, most) = INTERVAL_SECONDS;
    let seconds = text.parse::<f64>().ok().filter(|it| (least..=most).contains(it));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("must be {least} to {most}"))
}

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    if args.once || !std::io::stdout().is_terminal() || !terminal::is_there() {
        return once(args).await;
    }
    crossterm::style::force_color_output(style::on_stdout());
    let mut screen = Screen::take().context("cannot use the terminal")?;
    watch(args, &mut screen).await
}

/// A page, and when it came.
struct Look {
    page: Page,
    at: Instant,
}

impl Look {
    async fn at(source: &Source) -> anyhow::Result<Self> {
        let text = source.page().await?;
        Ok(Self { page: Page::parse(&text), at: Instant::now() })
    }

    /// The figures of the time since another.
    fn since(&self, before: &Self) -> Figures {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let elapsed = self.at.saturating_duration_since(before.at);
        Figures::between(&before.page, &self.page, elapsed, now.as_secs_f64())
    }
}

async fn once(args: &Args) -> anyhow::Result<()> {
    let explained = |error: anyhow::Error| {
        let error = error.context(format!("no metrics from {}", args.metrics.name()));
        advise(error, "a server has them with `peerpost serve --metrics-listen ADDRESS:PORT`")
    };
    let before = Look::at(&args.metrics).await.map_err(explained)?;
    sleep(args.interval).await;
    let figures = Look::at(&args.metrics).await.map_err(explained)?.since(&before);
    output::line(&Top::text(args.metrics.name(), &figures))
}

/// What a key is for.
enum Wish {
    Leave,
    Redraw,
    Suspend,
}

fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('q') | KeyCode::Esc, false) | (KeyCode::Char('c' | 'd'), true) => {
            Some(Wish::Leave)
        }
        (KeyCode::Char('l'), true) => Some(Wish::Redraw),
        (KeyCode::Char('z'), true) => Some(Wish::Suspend),
        _ => None,
    }
}

async fn watch(args: &Args, screen: &mut Screen) -> anyhow::Result<()> {
    let mut stop = StopSignals::listen().context("cannot listen for signals")?;
    let mut keyboard = EventStream::new();
    let mut tick = interval(args.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut top = Top::new(args.metrics.name(), args.interval);
    let mut before: Option<Look> = None;
    // At most one look at a time.
    let mut looking = JoinSet::new();
    loop {
        screen.draw(|frame| top.draw(frame)).context("cannot draw")?;
        tokio::select! {
            () = stop.next() => return Ok(()),
            event = keyboard.next() => match event {
                Some(Ok(Event::Key(key))) => match wish(key) {
                    Some(Wish::Leave) => return Ok(()),
                    Some(Wish::Redraw) => screen.redraw().context("cannot draw")?,
                    Some(Wish::Suspend) => screen.suspend().context("cannot suspend")?,
                    None => {}
                },
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("cannot read the keyboard"),
                None => return Ok(()),
            },
            _ = tick.tick(), if looking.is_empty() => {
                let source = args.metrics.clone();
                looking.spawn(async move { Look::at(&source).await });
            }
            Some(look) = looking.join_next() => match look.context("a look failed")? {
                Ok(look) => {
                    // The first has nothing to be compared with: only what is so at the moment.
                    top.show(look.since(before.as_ref().unwrap_or(&look)));
                    before = Some(look);
                }
                Err(error) => top.fail(&format!("{error:#}")),
            },
        }
    }
}
