//! The server: the parts put together, on a socket, until it is told to stop.
//!
//! [`bind`] opens the data folder and the socket; [`Server::run`] serves until its shutdown token
//! is cancelled and then drains under a deadline that no client can hold.

mod admin;
mod connections;
mod error;
mod forwarded;
mod front;
mod gate;
mod held;
mod limits;
mod listen;
mod monitor;
mod reach;
mod socket;
mod stream;
mod tls;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};

use self::admin::AdminSocket;
use self::connections::{Connections, Services};
pub use self::error::{RunError, StartError};
pub use self::forwarded::{Proxies, ProxyHeader, TrustedProxy, TrustedProxyError};
use self::front::Front;
pub use self::gate::{AllowedOrigin, OriginError};
use self::gate::{Gate, Rules};
pub use self::limits::{
    Bounds, CONNECTIONS_MAX_DEFAULT, HELD_BYTES_DEFAULT, Limits, OutOfBounds,
    STREAMS_PER_CONNECTION_DEFAULT,
};
use self::listen::Listeners;
pub use self::listen::{Listen, ListenError};
use self::monitor::{Monitor, Sources};
use self::tls::Tls;
pub use self::tls::{Reload, TlsError, TlsFiles};
pub use self::workers::workers_default;
use crate::auth::{Access, Authenticator, RegistrationPolicy};
use crate::domain::Message;
use crate::domain::limits::{BODY_BYTES_CEILING, BODY_BYTES_DEFAULT};
use crate::grpc::admin::Administration;
use crate::grpc::{Availability, Dispatch, Edge, Health, Messaging, UntilDrain};
use crate::http::Gateway;
use crate::hub::Hub;
use crate::limiter::Limiter;
use crate::messenger::Messenger;
use crate::proto;
use crate::proto::messaging_service_server::MessagingServiceServer;
use crate::store::accounts::AccessEnded;
use crate::store::{self, CommitListener, OpenError, Store, StoreGuard};

/// How a server is set up.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "switches, each by itself")]
pub struct Options {
    /// Where it listens. Default 127.0.0.1:50051 alone.
    pub listen: Vec<Listen>,
    /// What it speaks over TCP: TLS with these, or plaintext. Unix sockets never have TLS. Default
    /// none.
    pub tls: Option<TlsFiles>,
    /// Without TLS it may listen on any address, for instance behind a proxy that speaks TLS. Default
    /// no.
    pub plaintext_beyond_loopback: bool,
    /// The data folder; created if it is not there.
    pub data_dir: PathBuf,
    /// Where the Unix socket for `peerpost admin` is made, with mode 0600. Default
    /// [`ADMIN_SOCKET_FILE`] in the data folder.
    pub admin_socket: Option<PathBuf>,
    /// The most bytes of a message's body. Default 64 KiB, at most 1 MiB.
    pub body_bytes_max: usize,
    /// How long open calls may go on after the shutdown began. Default
    /// [`DRAIN_DEADLINE_DEFAULT`].
    pub drain_deadline: Duration,
    /// What it may use, and what each of its callers may.
    pub limits: Limits,
    /// The proxies that are believed when they say from whom a call is. Default none.
    pub proxies: Proxies,
    /// The threads that serve connections. Default [`workers_default`].
    pub workers: NonZero<usize>,
    /// The messages after which the store merges its indexes. Default
    /// [`MERGE_MESSAGES_DEFAULT`](store::MERGE_MESSAGES_DEFAULT).
    pub merge_messages: usize,
    /// Whether a database of an earlier version is brought up to date without a backup of it first.
    /// Default no.
    pub upgrade_without_backup: bool,
    /// What is kept of each mailbox, and how the rest is removed. Default everything.
    pub retention: store::RetentionOptions,
    /// What a mailbox may hold; a full one refuses whoever sends. Default anything.
    pub mailbox_limits: store::MailboxLimits,
    /// Where an operator's tools find `/metrics`, `/healthz` and `/readyz`; port 0 takes any free one.
    /// Whoever reaches it is answered. Default nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The origins whose web pages may call it, beside its own. Default none.
    pub allow_origins: Vec<AllowedOrigin>,
    /// Who may register a new name. Default everybody.
    pub registration: RegistrationPolicy,
    /// Nobody needs a token: who calls is who they say they are, by the metadata `peerpost-user`. For a
    /// machine whose users trust each other; it has to listen on a loopback address. Default no.
    pub open: bool,
    /// An open server may listen on any address, and be called by any name. Default no.
    pub open_beyond_loopback: bool,
}

impl Options {
    /// The defaults, on this data folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 50051)).into()],
            tls: None,
            plaintext_beyond_loopback: false,
            data_dir: data_dir.into(),
            admin_socket: None,
            body_bytes_max: BODY_BYTES_DEFAULT,
            drain_deadline: DRAIN_DEADLINE_DEFAULT,
            limits: Limits::default(),
            proxies: Proxies::default(),
            workers: workers_default(),
            merge_messages: store::MERGE_MESSAGES_DEFAULT,
            upgrade_without_backup: false,
            retention: store::RetentionOptions::default(),
            mailbox_limits: store::MailboxLimits::default(),
            metrics_listen: None,
            allow_origins: Vec::new(),
            registration: RegistrationPolicy::Open,
            open: false,
            open_beyond_loopback: false,
        }
    }
}

/// With the time that the store takes it stays below the 10 seconds after which supervisors kill.
pub const DRAIN_DEADLINE_DEFAULT: Duration = Duration::from_secs(8);

/// Where the socket for `peerpost admin` stands in the data folder, unless it is told otherwise.
pub const ADMIN_SOCKET_FILE: &str = "admin.sock";

/// How long the store may take for its last commits, after the connections are gone.
const STORE_CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// A server with its socket and its store open: callers can connect, and are served once it runs.
pub struct Server {
    listeners: Listeners,
    addresses: Vec<Listen>,
    tls: Option<Tls>,
    connections: Connections<Served>,
    monitor: Option<Monitor>,
    admin: Option<AdminSocket>,
    availability: watch::Sender<Availability>,
    store: Store,
    store_guard: StoreGuard,
    /// Cancelled when the streams shall end.
    drain: CancellationToken,
    drain_deadline: Duration,
}

type Edged = Edge<MessagingServiceServer<Messaging>>;

type Served = Front<Edged, Gateway<Edged>>;

/// What happens on commit: the hub is told, and whoever decides who is let in.
struct Announcer {
    hub: Hub,
    access: Access,
}

impl CommitListener for Announcer {
    fn committed(&self, messages: &[Arc<Message>]) {
        self.hub.publish(messages);
    }

    fn access_ended(&self, ended: &[AccessEnded]) {
        self.access.ended(ended);
    }

    fn reset(&self) {
        self.access.reset();
        self.hub.reread();
    }
}

/// Opens the data folder and the socket.
///
/// # Errors
/// [`StartError`] says what is in the way.
pub async fn bind(options: Options) -> Result<Server, StartError> {
    let tls = check_and_open_tls(&options)?;
    let (hub, limiter) = (Hub::default(), Limiter::new(options.limits.callers.clone()));
    let drain = CancellationToken::new();
    let access = Access::new(drain.clone());
    let announcer = Announcer { hub: hub.clone(), access: access.clone() };
    let (store, store_guard) = open_store(&options, announcer).await?;
    let (availability, reported) = watch::channel(Availability::Serving);
    let bound = async {
        let authenticator = Authenticator::new(store.clone(), access)
            .limited_by(limiter.clone())
            .open(options.open)
            .registering(options.registration);
        let messenger = Messenger::new(store.clone(), hub.clone()).limited_by(limiter.clone());
        messenger.load_user_limits().await.map_err(StartError::UserLimits)?;
        let edge = edge(&options, messenger.clone(), &authenticator);
        let calls = edge.metrics();
        let services = services(&options, edge, reported.clone(), &drain)?;
        let (listeners, addresses) = Listeners::bind(&options.listen)
            .await
            .map_err(|(address, source)| StartError::Listen { address, source })?;
        // Once more, for sockets that were opened by others.
        reach::check(&options, &addresses)?;
        reach::warn(&options, &addresses);
        let current = tls.as_ref().map(Tls::current);
        let (limits, proxies) = (&options.limits, options.proxies.clone());
        let connections = Connections::new(services, limits, proxies, options.workers, current)
            .map_err(StartError::Workers)?;
        let holdings = connections.holdings();
        let open_connections = Arc::clone(&holdings);
        let connections_open = move || open_connections.connections_open();
        let administration = Administration::new(
            store.clone(),
            hub.clone(),
            authenticator.clone(),
            messenger,
            connections_open,
        );
        let admin = AdminSocket::bind(&options, administration).await?;
        let sources = Sources {
            calls,
            authenticator,
            hub,
            store: store.clone(),
            holdings,
            limiter,
            connections_max: limits.connections_max,
            availability: reported,
            certificate_end: tls.as_ref().map(Tls::not_after),
        };
        let monitor = match options.metrics_listen {
            Some(address) => Some(Monitor::bind(address, sources).await?),
            None => None,
        };
        Ok((listeners, addresses, connections, monitor, admin))
    };
    let (listeners, addresses, connections, monitor, admin) = match bound.await {
        Ok(bound) => bound,
        Err(error) => {
            store_guard.close().await;
            return Err(error);
        }
    };
    let drain_deadline = options.drain_deadline;
    Ok(Server {
        listeners,
        addresses,
        tls,
        connections,
        monitor,
        admin,
        availability,
        store,
        store_guard,
        drain,
        drain_deadline,
    })
}

/// Whether a server could start with these, as far as that can be known without its data folder and its
/// sockets.
///
/// # Errors
/// [`StartError`] says what would be in the way.
pub fn check(options: &Options) -> Result<(), StartError> {
    check_and_open_tls(options).map(drop)
}

fn check_and_open_tls(options: &Options) -> Result<Option<Tls>, StartError> {
    if !(1..=BODY_BYTES_CEILING).contains(&options.body_bytes_max) {
        return Err(StartError::BodyLimit(options.body_bytes_max));
    }
    options.limits.check()?;
    reach::check(options, &options.listen)?;
    Ok(options.tls.clone().map(Tls::open).transpose()?)
}

/// Serves `service` on `listener`, over connections set up exactly as a [`Server`]'s, until `shutdown`
/// is cancelled; what is open then is cut at the drain deadline. For measuring what the transport
/// costs without the service behind it.
///
/// # Errors
/// When the threads that serve connections cannot be started.
pub async fn serve_alone<S>(
    listener: TcpListener,
    service: S,
    workers: NonZero<usize>,
    shutdown: CancellationToken,
    drain_deadline: Duration,
) -> io::Result<()>
where
    Dispatch<S>: Services,
{
    let services = Dispatch::new(service, Routes::default());
    let (limits, proxies) = (Limits::default(), Proxies::default());
    let connections = Connections::new(services, &limits, proxies, workers, None)?;
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = connections.accept(listener.into()) => {}
    }
    connections.drain(Instant::now() + drain_deadline).await;
    Ok(())
}

async fn open_store(
    options: &Options,
    announcer: Announcer,
) -> Result<(Store, StoreGuard), OpenError> {
    let mut store_options = store::Options::new(&options.data_dir);
    store_options.merge_messages = options.merge_messages;
    store_options.write_queue_bytes = options.limits.write_queue_bytes;
    store_options.upgrade_without_backup = options.upgrade_without_backup;
    store_options.retention = options.retention;
    store_options.mailbox_limits = options.mailbox_limits;
    let opening =
        tokio::task::spawn_blocking(move || store::open(&store_options, Box::new(announcer)));
    opening.await.unwrap_or_else(|error| Err(OpenError::Thread(io::Error::other(error))))
}

/// Messaging behind its [`Edge`].
fn edge(options: &Options, messenger: Messenger, authenticator: &Authenticator) -> Edged {
    let messaging = Messaging::new(authenticator.clone(), messenger, options.body_bytes_max);
    Edge::new(messaging, authenticator.clone(), options.body_bytes_max)
}

/// Everything that is served: messaging, health and reflection, and what speaks plain HTTP.
fn services(
    options: &Options,
    messaging: Edged,
    availability: watch::Receiver<Availability>,
    drain: &CancellationToken,
) -> Result<Served, StartError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let others = Routes::new(Health::service(availability))
        .add_service(UntilDrain::new(reflection().build_v1()?, drain.clone()))
        .add_service(UntilDrain::new(reflection().build_v1alpha()?, drain.clone()));
    let plain = Gateway::new(messaging.clone(), options.body_bytes_max, options.open);
    let gate = Gate::new(Rules {
        allowed: options.allow_origins.clone(),
        is_open: options.open,
        is_loopback_only: options.open && !options.open_beyond_loopback,
    });
    Ok(Front::new(Dispatch::new(messaging, others), plain, gate))
}

impl Server {
    /// Where it listens, in the order of [`Options::listen`], with the ports that it got.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// The first of them that is an IP address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses.iter().find_map(|address| match address {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) | Listen::Systemd => None,
        })
    }

    /// How clients name each of [`Server::addresses`]: `http://…`, `https://…` or `unix:…`.
    pub fn uris(&self) -> Vec<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = |address: &Listen| match address {
            Listen::Tcp(address) => format!("{scheme}://{address}"),
            Listen::Unix(_) | Listen::Systemd => address.to_string(),
        };
        self.addresses.iter().map(uri).collect()
    }

    /// With which its certificates are read again; `None` without TLS.
    pub fn reload(&self) -> Option<Reload> {
        self.tls.as_ref().map(Tls::reload)
    }

    /// Where an operator's tools find it, if they do.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(|monitor| monitor.local_addr)
    }

    /// Serves until `shutdown` is cancelled; then stops accepting, finishes the calls that it has,
    /// ends the streams, and closes what is left at the drain deadline.
    ///
    /// # Errors
    /// [`RunError`] when the store could not finish in time; what was acknowledged is on disk.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), RunError> {
        let (monitor, admin) = (self.monitor.take(), self.admin.take());
        let (drain, over) = (self.drain.clone(), CancellationToken::new());
        let serving = async {
            let _over = over.clone().drop_guard();
            self.serve(shutdown).await
        };
        // They tell of the drain as well, to its end.
        let monitor = async {
            if let Some(monitor) = monitor {
                monitor.run(over.clone()).await;
            }
        };
        let admin = async {
            if let Some(admin) = admin {
                admin.run(drain, over.clone()).await;
            }
        };
        tokio::join!(serving, monitor, admin).0
    }

    async fn serve(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let connections = self.connections;
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = connections.accept(self.listeners) => Ok(()),
            () = tls::follow(self.tls) => Ok(()),
            () = follow_store(self.store.health(), &self.availability) => {
                Err(RunError::StoreEnded)
            }
        };

        info!(deadline_ms = self.drain_deadline.as_millis(), "draining");
        let deadline = Instant::now() + self.drain_deadline;
        self.availability.send_replace(Availability::Draining);
        self.drain.cancel();
        let cut = connections.drain(deadline).await;
        if cut > 0 {
            warn!(tasks = cut, "cut the calls and connections left at the drain deadline");
        }
        timeout(STORE_CLOSE_DEADLINE, self.store_guard.close())
            .await
            .map_err(|_| RunError::StoreNotClosed)?;
        info!("stopped");
        ended
    }
}

/// Reports the store's state as it changes. Returns when the store has ended by itself.
async fn follow_store(
    mut healthy: watch::Receiver<bool>,
    availability: &watch::Sender<Availability>,
) {
    loop {
        let now = if *healthy.borrow_and_update() {
            Availability::Serving
        } else {
            Availability::Failing
        };
        availability.send_replace(now);
        if healthy.changed().await.is_err() {
            return;
        }
    }
}
