use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use super::LogFormat;
use super::output;
use super::signals::StopSignals;
use crate::domain::limits::BODY_BYTES_CEILING;
use crate::server::{self, AllowedOrigin, Options};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost serve
  peerpost serve --listen 0.0.0.0:50051 --data-dir /var/lib/peerpost
  peerpost serve --allow-origin https://chat.example.org
  peerpost serve --open --listen 127.0.0.1:5000

One port takes gRPC, gRPC-Web and plain HTTP, over HTTP/2 (without TLS) and HTTP/1.1.

Ctrl-C or SIGTERM stops it cleanly: what was accepted is finished, and streams are told to connect
again; a second one stops it at once. Once it accepts calls, it prints its address on stdout; it logs to stderr (PEERPOST_LOG).")]
pub(super) struct Args {
    /// The address to listen on; port 0 takes a free one.
    #[arg(
        long,
        env = "PEERPOST_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:50051"
    )]
    listen: SocketAddr,

    /// The folder that holds everything: created when it is not there.
    #[arg(long, env = "PEERPOST_DATA_DIR", value_name = "FOLDER", default_value = "peerpost-data")]
    data_dir: PathBuf,

    /// The most bytes of a message's body, up to 1048576 [default: 65536].
    #[arg(
        long,
        env = "PEERPOST_BODY_BYTES_MAX",
        value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(1..=i64::try_from(BODY_BYTES_CEILING).unwrap_or(i64::MAX))
    )]
    body_bytes_max: Option<u32>,

    /// How long open calls may go on after a stop was asked for, in milliseconds [default: 8000].
    #[arg(long, env = "PEERPOST_DRAIN_DEADLINE_MS", value_name = "MILLISECONDS")]
    drain_deadline_ms: Option<u64>,

    /// The threads that serve connections [default: one for each core but one].
    #[arg(long, env = "PEERPOST_WORKERS", value_name = "N", value_parser = workers)]
    workers: Option<NonZero<usize>>,

    /// Where Prometheus finds /metrics, and supervisors /healthz and /readyz, over plain HTTP. Whoever
    /// reaches it may ask [default: nowhere].
    #[arg(long, env = "PEERPOST_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,

    /// An origin whose web pages may call the server, beside its own; * for all. Can be repeated.
    #[arg(
        long = "allow-origin",
        env = "PEERPOST_ALLOW_ORIGINS",
        value_name = "SCHEME://HOST[:PORT]",
        value_delimiter = ','
    )]
    allow_origins: Vec<AllowedOrigin>,

    /// Ask nobody for a token: callers are who they say they are. For a machine whose users trust each
    /// other: whoever reaches the server can read every mailbox and send as anybody.
    ///
    /// A call says whose it is by the metadata (or header) `peerpost-user: NAME`. Refused unless it
    /// listens on a loopback address.
    #[arg(long)]
    open: bool,

    /// Let --open listen on any address: everybody on that network can read every mailbox, and web pages
    /// can be made to.
    #[arg(long, requires = "open")]
    open_beyond_loopback: bool,

    /// How the log on stderr is written.
    #[arg(long, env = "PEERPOST_LOG_FORMAT", value_enum, default_value = "text")]
    pub(super) log_format: LogFormat,

    /// The messages after which the indexes are merged [default: 131072]. For tests, which would wait
    /// long for a merge otherwise.
    #[arg(long, value_name = "MESSAGES", hide = true)]
    merge_messages: Option<NonZero<usize>>,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    // Before anything can be asked to stop, so that no signal kills it halfway.
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    let server = server::bind(options(args)?).await?;
    let address = server.local_addr();
    tracing::info!(%address, data_dir = %args.data_dir.display(), "listening");
    if let Some(address) = server.metrics_addr() {
        tracing::info!(%address, "metrics");
    }
    // With nobody to read it, the server serves all the same.
    let _ = output::line(&format!("peerpost listens on http://{address}"));

    let shutdown = CancellationToken::new();
    let mut run = pin!(server.run(shutdown.clone()));
    tokio::select! {
        ended = &mut run => return Ok(ended?),
        () = signals.next() => {}
    }
    tracing::info!("asked to stop; asked again, it stops at once");
    shutdown.cancel();
    tokio::select! {
        ended = &mut run => Ok(ended?),
        () = signals.next() => bail!("stopped before the open calls had ended"),
    }
}

/// A number of threads: more than a few for each core only take turns.
pub(super) fn workers(text: &str) -> Result<NonZero<usize>, String> {
    const MAX: usize = 1024;
    let count = text.parse::<NonZero<usize>>().ok().filter(|count| count.get() <= MAX);
    count.ok_or_else(|| format!("must be 1 to {MAX}"))
}

fn options(args: &Args) -> anyhow::Result<Options> {
    let mut options = Options::new(&args.data_dir);
    options.listen = args.listen;
    options.allow_origins.clone_from(&args.allow_origins);
    options.metrics_listen = args.metrics_listen;
    options.open = args.open;
    options.open_beyond_loopback = args.open_beyond_loopback;
    if let Some(bytes) = args.body_bytes_max {
        options.body_bytes_max = usize::try_from(bytes)?;
    }
    if let Some(milliseconds) = args.drain_deadline_ms {
        options.drain_deadline = Duration::from_millis(milliseconds);
    }
    if let Some(workers) = args.workers {
        options.workers = workers;
    }
    if let Some(messages) = args.merge_messages {
        options.merge_messages = messages.get();
    }
    Ok(options)
}
