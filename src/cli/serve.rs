use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::{output, signals};
use crate::domain::limits::BODY_BYTES_CEILING;
use crate::server::{self, Options};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost serve
  peerpost serve --listen 0.0.0.0:50051 --data-dir /var/lib/peerpost

Ctrl-C or SIGTERM stops it cleanly: what was accepted is finished, and streams are told to connect
again. Once it accepts calls, it prints its address on stdout; it logs to stderr (PEERPOST_LOG).")]
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

    /// How long a clean stop may take, in milliseconds.
    #[arg(long, env = "PEERPOST_DRAIN_DEADLINE_MS", value_name = "MILLISECONDS")]
    drain_deadline_ms: Option<u64>,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    // Before anything can be asked to stop, so that no signal kills it halfway.
    let stop = signals::stop_requested().context("cannot listen for signals")?;
    let server = server::bind(options(args)?).await?;
    let address = server.local_addr();
    tracing::info!(%address, data_dir = %args.data_dir.display(), "listening");
    // With nobody to read it, the server serves all the same.
    let _ = output::line(&format!("peerpost listens on http://{address}"));

    let shutdown = CancellationToken::new();
    let mut run = pin!(server.run(shutdown.clone()));
    tokio::select! {
        ended = &mut run => ended?,
        () = stop => {
            tracing::info!("asked to stop");
            shutdown.cancel();
            run.await?;
        }
    }
    Ok(())
}

fn options(args: &Args) -> anyhow::Result<Options> {
    let mut options = Options::new(&args.data_dir);
    options.listen = args.listen;
    if let Some(bytes) = args.body_bytes_max {
        options.body_bytes_max = usize::try_from(bytes)?;
    }
    if let Some(milliseconds) = args.drain_deadline_ms {
        options.drain_deadline = Duration::from_millis(milliseconds);
    }
    Ok(options)
}
