use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::LogFormat;
use super::duration;
use super::output;
use super::serve_limits::LimitArgs;
use super::signals::StopSignals;
use crate::auth::RegistrationPolicy;
use crate::domain::limits::BODY_BYTES_CEILING;
use crate::server::{self, AllowedOrigin, Listen, Options, Reload, TlsFiles};
use crate::store::{MailboxLimits, Retention, RetentionOptions};
use crate::version::VERSION_AND_COMMIT;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost serve
  peerpost serve --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem
  peerpost serve --listen 127.0.0.1:50051 --listen unix:/run/peerpost/socket
  peerpost serve --allow-origin https://chat.example.org
  peerpost serve --open --listen 127.0.0.1:5000
  peerpost serve --config /etc/peerpost.toml

Every flag is a key of that file, and has a variable in the environment: see `peerpost config --help`.

Each address takes gRPC, gRPC-Web and plain HTTP, over HTTP/2 and HTTP/1.1. With a certificate, TCP
takes TLS only; changed files are noticed within seconds or at SIGHUP, and no connection is dropped.

Ctrl-C or SIGTERM stops it cleanly: what was accepted is finished, and streams are told to connect
again; a second one stops it at once. Once it accepts calls, it prints its addresses on
stdout, a line each; it logs to stderr (PEERPOST_LOG).")]
#[expect(clippy::struct_excessive_bools, reason = "switches, each by itself")]
pub(super) struct Args {
    #[command(flatten)]
    _file: super::config::FileArgs,

    /// Where to listen: an IP address and a port, of which 0 takes a free one; the path of a Unix socket;
    /// or `systemd`, for the sockets that it passes. Can be repeated.
    #[arg(
        long,
        env = "PEERPOST_LISTEN",
        value_name = "ADDRESS:PORT|unix:PATH|systemd",
        value_delimiter = ',',
        default_value = "127.0.0.1:50051"
    )]
    listen: Vec<Listen>,

    /// The server's certificate and those that lead to its authority, in PEM: TCP takes TLS only.
    #[arg(long, env = "PEERPOST_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM.
    #[arg(long, env = "PEERPOST_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The authorities, in PEM, of which a client has to have a certificate to connect.
    #[arg(long, env = "PEERPOST_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,

    /// Listen on any address without TLS: for a server behind something that speaks TLS. Who is between
    /// the two can read every token and message.
    #[arg(long)]
    plaintext_beyond_loopback: bool,

    /// The folder that holds everything: created when it is not there.
    #[arg(long, env = "PEERPOST_DATA_DIR", value_name = "FOLDER", default_value = "peerpost-data")]
    data_dir: PathBuf,

    /// Where the Unix socket for `peerpost admin` is made, for the server's own user and root alone
    /// [default: admin.sock in the data folder].
    #[arg(long, env = "PEERPOST_ADMIN_SOCKET", value_name = "PATH")]
    admin_socket: Option<PathBuf>,

    /// The most bytes of a message's body, 1 to 1048576 [default: 65536].
    #[arg(
        long,
        env = "PEERPOST_BODY_BYTES_MAX",
        value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(1..=i64::try_from(BODY_BYTES_CEILING).unwrap_or(i64::MAX))
    )]
    body_bytes_max: Option<u32>,

    /// How long open calls may go on after a stop was asked for, in milliseconds, up to 3600000 [default:
    /// 8000].
    #[arg(
        long,
        env = "PEERPOST_DRAIN_DEADLINE_MS",
        value_name = "MILLISECONDS",
        value_parser = clap::value_parser!(u64).range(..=DRAIN_DEADLINE_MS_MAX)
    )]
    drain_deadline_ms: Option<u64>,

    /// The threads that serve connections, up to 1024 [default: one for each core but one].
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

    /// Who may register a new name: everybody, whoever has an invite (see `peerpost admin invites`), or
    /// nobody. Updating the address of one's own name is not touched by it.
    #[arg(
        long,
        env = "PEERPOST_REGISTRATION",
        value_name = "WHO",
        value_enum,
        default_value = "open"
    )]
    registration: WhoRegisters,

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

    /// Bring the data of an earlier version up to date without the backup of it that is made first, in the
    /// folder `backups` of the data folder: where the disk has no room for it, or another one was made.
    #[arg(long)]
    upgrade_without_backup: bool,

    /// What is logged to stderr: a level (error, warn, info, debug, trace), or levels for its parts, such as
    /// `info,peerpost=debug`.
    #[arg(
        long,
        env = "PEERPOST_LOG",
        value_name = "FILTER",
        default_value = "info",
        value_parser = super::log_filter
    )]
    pub(super) log: String,
    #[command(flatten)]
    retention: RetentionArgs,

    /// How the log on stderr is written.
    #[arg(long, env = "PEERPOST_LOG_FORMAT", value_enum, default_value = "text")]
    pub(super) log_format: LogFormat,

    #[command(flatten)]
    traces: super::traces::TraceArgs,

    /// The messages after which the indexes are merged [default: 131072]. For tests, which would wait
    /// long for a merge otherwise.
    #[arg(long, value_name = "MESSAGES", hide = true)]
    merge_messages: Option<NonZero<usize>>,

    /// Last, since its heading is that of all flags after it.
    #[command(flatten)]
    limits: LimitArgs,
}

/// An hour: a server that is told to stop is to stop.
const DRAIN_DEADLINE_MS_MAX: u64 = 60 * 60 * 1000;

/// Says what would keep a server from starting with these, as far as that can be known without its data
/// folder and its sockets.
pub(super) fn check(args: &Args) -> anyhow::Result<()> {
    Ok(server::check(&options(args)?)?)
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum WhoRegisters {
    /// Everybody.
    Open,
    /// Whoever has an invite.
    Invite,
    /// Nobody.
    Closed,
}

/// What is kept of mailboxes, which lose entries at their beginnings, as many as any of these lets go; and how
/// large they may get.
#[derive(Debug, clap::Args)]
struct RetentionArgs {
    /// Remove messages this long after they were sent, such as 30d or 12h; more than nothing [default:
    /// never].
    #[arg(
        long,
        env = "PEERPOST_RETENTION_AGE",
        value_name = "DURATION",
        value_parser = duration::parse_some
    )]
    retention_age: Option<Duration>,

    /// Keep the newest so many messages of each mailbox, 1 or more [default: all].
    #[arg(long, env = "PEERPOST_RETENTION_COUNT", value_name = "MESSAGES")]
    retention_count: Option<NonZero<u64>>,

    /// Remove what its mailbox's owner acknowledged, this long after it was sent; 0s: at once [default:
    /// never].
    #[arg(
        long,
        env = "PEERPOST_RETENTION_AFTER_ACKNOWLEDGEMENT",
        value_name = "DURATION",
        value_parser = duration::parse
    )]
    retention_after_acknowledgement: Option<Duration>,

    /// How often it is looked for what may go [default: 1m].
    #[arg(
        long,
        env = "PEERPOST_RETENTION_INTERVAL",
        value_name = "DURATION",
        value_parser = duration::parse_some
    )]
    retention_interval: Option<Duration>,

    /// The most messages in a mailbox, 1 or more; a full one refuses whoever sends [default: no limit].
    #[arg(long, env = "PEERPOST_MAILBOX_MESSAGES_MAX", value_name = "MESSAGES")]
    mailbox_messages_max: Option<NonZero<u64>>,

    /// The most bytes of bodies in a mailbox, 1 or more; a full one refuses whoever sends [default: no
    /// limit].
    #[arg(long, env = "PEERPOST_MAILBOX_BYTES_MAX", value_name = "BYTES")]
    mailbox_bytes_max: Option<NonZero<u64>>,
}

impl RetentionArgs {
    fn options(&self) -> RetentionOptions {
        let keep = Retention {
            age: self.retention_age,
            count: self.retention_count,
            after_acknowledgement: self.retention_after_acknowledgement,
        };
        let mut options = RetentionOptions { keep, ..RetentionOptions::default() };
        if let Some(interval) = self.retention_interval {
            options.interval = interval;
        }
        options
    }
}

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    tracing::info!("peerpost {VERSION_AND_COMMIT} starts");
    let traces = args.traces.start()?;
    let outcome = serve(args).await;
    traces.stop().await;
    outcome
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    // Before anything can be asked to stop, so that no signal kills it halfway.
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    // Without TLS it ends the server, as when a terminal is closed; under a service manager it asks for
    // nothing then.
    let is_managed = std::env::var_os("NOTIFY_SOCKET").is_some();
    let takes_hangups = args.tls_cert.is_some() || is_managed;
    let hangups = takes_hangups.then(|| signal(SignalKind::hangup())).transpose();
    let hangups = hangups.context("cannot listen for signals")?;
    let server = server::bind(options(args)?).await?;
    let reload = server.reload();
    for uri in server.uris() {
        tracing::info!(%uri, data_dir = %args.data_dir.display(), "listening");
        // With nobody to read it, the server serves all the same.
        let _ = output::line(&format!("peerpost listens on {uri}"));
    }
    if let Some(address) = server.metrics_addr() {
        tracing::info!(%address, "metrics");
    }

    tell_manager(NotifyState::Ready);

    let shutdown = CancellationToken::new();
    let mut run = pin!(server.run(shutdown.clone()));
    tokio::select! {
        ended = &mut run => return Ok(ended?),
        () = signals.next() => {}
        () = reload_on(hangups, reload) => {}
    }
    tracing::info!("asked to stop; asked again, it stops at once");
    tell_manager(NotifyState::Stopping);
    shutdown.cancel();
    tokio::select! {
        ended = &mut run => Ok(ended?),
        () = signals.next() => bail!("stopped before the open calls had ended"),
    }
}

/// Tells the service manager, if there is one that wants to know (`NOTIFY_SOCKET`).
fn tell_manager(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Has the certificates read again at each signal, for ever.
async fn reload_on(signals: Option<Signal>, reload: Option<Reload>) {
    let Some(mut signals) = signals else { return std::future::pending().await };
    while signals.recv().await.is_some() {
        let Some(reload) = &reload else {
            tracing::info!("asked to reload: there is no certificate to read again");
            continue;
        };
        tracing::info!("asked to read the certificates again");
        reload.now();
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
    options.listen.clone_from(&args.listen);
    options.admin_socket.clone_from(&args.admin_socket);
    let pair = args.tls_cert.clone().zip(args.tls_key.clone());
    options.tls = pair.map(|(certificate, key)| TlsFiles {
        certificate,
        key,
        client_ca: args.tls_client_ca.clone(),
    });
    options.plaintext_beyond_loopback = args.plaintext_beyond_loopback;
    options.allow_origins.clone_from(&args.allow_origins);
    options.metrics_listen = args.metrics_listen;
    options.registration = match args.registration {
        WhoRegisters::Open => RegistrationPolicy::Open,
        WhoRegisters::Invite => RegistrationPolicy::Invite,
        WhoRegisters::Closed => RegistrationPolicy::Closed,
    };
    options.upgrade_without_backup = args.upgrade_without_backup;
    options.open = args.open;
    options.open_beyond_loopback = args.open_beyond_loopback;
    if let Some(bytes) = args.body_bytes_max {
        options.body_bytes_max = usize::try_from(bytes)?;
    }
    if let Some(milliseconds) = args.drain_deadline_ms {
        options.drain_deadline = Duration::from_millis(milliseconds);
    }
    args.limits.apply(&mut options)?;
    if let Some(workers) = args.workers {
        options.workers = workers;
    }
    if let Some(messages) = args.merge_messages {
        options.merge_messages = messages.get();
    }
    options.retention = args.retention.options();
    options.mailbox_limits = MailboxLimits {
        messages_max: args.retention.mailbox_messages_max,
        bytes_max: args.retention.mailbox_bytes_max,
    };
    Ok(options)
}
