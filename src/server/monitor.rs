//! What an operator's tools ask: metrics, and whether the server lives and serves. It has a listener of
//! its own, served beside the accepting and not by the workers: no load keeps it from answering.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::StartError;
use super::held::Holdings;
use super::tls::NotAfter;
use crate::auth::Authenticator;
use crate::grpc::{Availability, CallMetrics};
use crate::hub::Hub;
use crate::limiter::Limiter;
use crate::metrics::{Kind, Page};
use crate::store::Store;
use crate::version::{COMMIT, VERSION};

/// The most connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may take, from its first byte to the last of its one answer.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How long to wait when the operating system refuses to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The parts of a server that count.
pub(super) struct Sources {
    pub(super) calls: Arc<CallMetrics>,
    pub(super) authenticator: Authenticator,
    pub(super) hub: Hub,
    pub(super) store: Store,
    pub(super) holdings: Arc<Holdings>,
    pub(super) limiter: Limiter,
    pub(super) connections_max: usize,
    pub(super) availability: watch::Receiver<Availability>,
    /// Of the certificate that new connections get; `None` without TLS.
    pub(super) certificate_end: Option<watch::Receiver<NotAfter>>,
}

/// The listener for an operator's tools, open.
pub(super) struct Monitor {
    listener: TcpListener,
    pub(super) local_addr: SocketAddr,
    sources: Sources,
    started: SystemTime,
}

impl Monitor {
    pub(super) async fn bind(address: SocketAddr, sources: Sources) -> Result<Self, StartError> {
        let failed = |source| StartError::MetricsListen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_addr, sources, started: SystemTime::now() })
    }

    /// Answers until `over`, then cuts what is left: the server is gone.
    pub(super) async fn run(self, over: CancellationToken) {
        let answers = Arc::new(Answers { sources: self.sources, started: self.started });
        let mut connections = JoinSet::new();
        loop {
            let has_room = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                () = over.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if has_room => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&answers)))),
                    Err(error) => {
                        warn!(%error, "cannot accept connections for metrics");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        connections.shutdown().await;
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(|request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.to(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection for metrics failed"),
        Err(_) => debug!("a connection for metrics took too long"),
    }
}

struct Answers {
    sources: Sources,
    started: SystemTime,
}

impl Answers {
    async fn to(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => typed(StatusCode::OK, Page::CONTENT_TYPE, self.metrics().await),
            "/healthz" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.readiness(),
            _ => text(StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz\n"),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        match *self.sources.availability.borrow() {
            Availability::Serving => text(StatusCode::OK, "ready\n"),
            Availability::Failing => text(StatusCode::SERVICE_UNAVAILABLE, "storage failing\n"),
            Availability::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }

    async fn metrics(&self) -> String {
        let mut page = Page::default();
        self.write_process(&mut page);
        self.sources.calls.write(&mut page);
        self.sources.authenticator.write_metrics(&mut page);
        self.sources.hub.write_metrics(&mut page);
        self.sources.holdings.write_metrics(&mut page);
        let help = "The most connections at a time.";
        page.gauge("peerpost_connections_max", help, self.sources.connections_max);
        self.write_refusals(&mut page);
        let certificate_end = self.sources.certificate_end.as_ref();
        if let Some(seconds) = certificate_end.and_then(|end| *end.borrow()) {
            let help = "When the certificate of new connections ends, in seconds since 1970.";
            page.gauge("peerpost_tls_certificate_not_after_seconds", help, seconds);
        }
        self.sources.store.write_metrics(&mut page).await;
        page.into_text()
    }

    /// Those that are told by status. Cut connections are counted with what is held.
    fn write_refusals(&self, page: &mut Page) {
        let help = "What was refused with RESOURCE_EXHAUSTED, by the name of the limit.";
        let mut family = page.family("peerpost_refusals_total", Kind::Counter, help);
        let Sources { limiter, hub, store, holdings, .. } = &self.sources;
        let others = [("subscriptions_per_user", hub.refusals()), holdings.refusals()];
        let all = limiter.refusals().into_iter().chain(others).chain(store.refusals());
        for (limit, count) in all {
            family.sample(&[("limit", limit)], count);
        }
    }

    fn write_process(&self, page: &mut Page) {
        page.family("peerpost_build_info", Kind::Gauge, "1; what is running, by its labels.")
            .sample(&[("version", VERSION), ("commit", COMMIT)], 1);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let help = "When the server started, in seconds since 1970.";
        page.gauge("process_start_time_seconds", help, started.as_secs());
        if let Some(bytes) = resident_bytes() {
            page.gauge("process_resident_memory_bytes", "Memory in use.", bytes);
        }
    }
}

/// The process's memory, where Linux tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
