use std::time::Duration;

use super::backoff::Backoff;
use super::tls::Tls;
use crate::domain::limits::STREAM_SENDS_IN_WORK_MAX;

/// The most messages of [`Client::send_all`](super::Client::send_all) that wait for their answers at a
/// time, whatever is asked for: as many as the server takes on one stream.
const SENDS_IN_FLIGHT_CEILING: usize = STREAM_SENDS_IN_WORK_MAX;

/// The waits and the queues of a [`Client`](super::Client), each with a bound, and whom it trusts over TLS.
///
/// ```
/// use std::time::Duration;
/// use peerpost::client::Options;
///
/// let options = Options::default()
///     .call_deadline(Duration::from_secs(2))
///     .retry_deadline(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) connect_timeout: Duration,
    pub(super) call_deadline: Duration,
    pub(super) retry_deadline: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    pub(super) jitter_seed: Option<u64>,
    pub(super) keepalive_interval: Duration,
    pub(super) keepalive_timeout: Duration,
    pub(super) sends_in_flight_max: usize,
    pub(super) tls: Tls,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_deadline: Duration::from_secs(10),
            retry_deadline: Duration::from_secs(30),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            jitter_seed: None,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            sends_in_flight_max: 256,
            tls: Tls::default(),
        }
    }
}

impl Options {
    /// How long opening a connection may take. Default: 5 seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one attempt of a call may take; the server is told (`grpc-timeout`).
    /// Default: 10 seconds.
    #[must_use]
    pub fn call_deadline(mut self, deadline: Duration) -> Self {
        self.call_deadline = deadline;
        self
    }

    /// How long after a call began another attempt may still begin. Zero: one attempt only. A call
    /// is over after this and one `call_deadline` more. Default: 30 seconds.
    #[must_use]
    pub fn retry_deadline(mut self, deadline: Duration) -> Self {
        self.retry_deadline = deadline;
        self
    }

    /// The waits between attempts: from about `min`, doubling with each failure, to `max` at most,
    /// less up to a half of random jitter. A server that asks for longer gets it.
    /// Default: 100 milliseconds to 5 seconds.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff_min = min;
        self.backoff_max = max;
        self
    }

    /// Draws the jitter from this seed instead of the operating system's randomness, so that a run in
    /// simulated time can be repeated. Clients that share a seed wait equally long. Default: none.
    #[must_use]
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.jitter_seed = Some(seed);
        self
    }

    /// How a dead connection is noticed: a ping after `interval` of silence, and the connection is
    /// given up when no answer comes within `timeout`. Default: 20 and 10 seconds.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive_interval = interval;
        self.keepalive_timeout = timeout;
        self
    }

    /// How many messages of one [`Client::send_all`](super::Client::send_all) may wait for their answers
    /// at a time: 1 to 1,024, and what lies outside is brought inside. They are held in memory until
    /// then. With 1, each is sent when the one before is stored. Default: 256.
    #[must_use]
    pub fn sends_in_flight_max(mut self, messages: usize) -> Self {
        self.sends_in_flight_max = messages.clamp(1, SENDS_IN_FLIGHT_CEILING);
        self
    }

    /// The authorities that a server at `https://…` may have its certificate from, in PEM, instead of
    /// those that the system trusts.
    #[must_use]
    pub fn tls_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.ca = Some(pem.into());
        self
    }

    /// The certificate and the private key to show to a server that asks for one, in PEM. Default:
    /// none.
    #[must_use]
    pub fn tls_identity(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.identity = Some((certificate_pem.into(), key_pem.into()));
        self
    }

    pub(super) fn new_backoff(&self) -> Backoff {
        Backoff::new(self.backoff_min, self.backoff_max, self.jitter_seed)
    }
}
