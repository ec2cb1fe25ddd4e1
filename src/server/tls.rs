//! TLS: certificates out of files, which may change while the server runs.
//!
//! A change makes a whole new configuration, which connections get from then on; those that there
//! are keep theirs. Only the certificate could be exchanged as well, but with the old configuration's
//! sessions clients would resume under the old certificate, and those whose authority is trusted no
//! more without any.

use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tracing::{error, info, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How often the files are looked at.
const FILES_CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// How long before a certificate ends the log warns of it, when it is read.
const EXPIRY_WARNING: Duration = Duration::from_hours(14 * 24);

/// The largest file of certificates or keys that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is spoken within TLS, the first if the client speaks both.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files, in PEM, from which a server has its TLS. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, then those that lead from it to its authority.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// The authorities of which a client has to have a certificate. `None`: it needs no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Why the files are of no use.
#[derive(Debug, Error)]
pub enum TlsError {
    /// One cannot be read, or holds too much.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// One is not as it has to be.
    #[error("{path} holds no {expected} in PEM: {problem}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate and the key are no pair, or of a kind that is not supported.
    #[error("cannot use the certificate in {certificate} with the key in {key}: {source}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No client's certificate can be checked with these.
    #[error("cannot use the authorities in {path}: {problem}")]
    ClientCa {
        /// Their file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

/// Has a running server read its certificates again, without waiting until it notices a change.
#[derive(Debug, Clone)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Asks for it. The log says what came of it.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// A server's TLS.
pub(super) struct Tls {
    files: TlsFiles,
    /// Of what was read last, whether it could be used or not.
    read: Result<Digest, String>,
    current: watch::Sender<Arc<ServerConfig>>,
    not_after: watch::Sender<NotAfter>,
    asked: Arc<Notify>,
}

/// The configuration for the next connection.
pub(super) type Current = watch::Receiver<Arc<ServerConfig>>;

/// When the certificate that new connections get ends, in seconds since 1970. `None`: it does not say so
/// in a way that can be read.
pub(super) type NotAfter = Option<i64>;

type Digest = [u8; 32];

impl Tls {
    /// Reads the files.
    pub(super) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let (config, not_after) = contents.config(&files)?;
        Ok(Self {
            files,
            read: Ok(contents.digest()),
            current: watch::Sender::new(config),
            not_after: watch::Sender::new(not_after),
            asked: Arc::default(),
        })
    }

    pub(super) fn not_after(&self) -> watch::Receiver<NotAfter> {
        self.not_after.subscribe()
    }

    pub(super) fn current(&self) -> Current {
        self.current.subscribe()
    }

    pub(super) fn reload(&self) -> Reload {
        Reload(Arc::clone(&self.asked))
    }

    /// Follows the files, for ever.
    pub(super) async fn follow(mut self) {
        loop {
            let is_asked = tokio::select! {
                () = self.asked.notified() => true,
                () = sleep(FILES_CHECK_INTERVAL) => false,
            };
            let files = self.files.clone();
            // A disk that hangs holds up no connection.
            let reading = tokio::task::spawn_blocking(move || Contents::read(&files));
            let contents = match reading.await {
                Ok(contents) => contents,
                Err(error) => {
                    error!(%error, "cannot look for new certificates");
                    continue;
                }
            };
            let read = contents.as_ref().map(Contents::digest).map_err(ToString::to_string);
            if is_asked || read != self.read {
                self.read = read;
                self.change(contents);
            }
        }
    }

    fn change(&self, contents: Result<Contents, TlsError>) {
        match contents.and_then(|contents| contents.config(&self.files)) {
            Ok((config, not_after)) => {
                self.current.send_replace(config);
                self.not_after.send_replace(not_after);
            }
            Err(error) => error!(%error, "kept the certificate that there was"),
        }
    }
}

/// [`Tls::follow`], where there is TLS.
pub(super) async fn follow(tls: Option<Tls>) {
    match tls {
        Some(tls) => tls.follow().await,
        None => std::future::pending().await,
    }
}

/// What is in the files.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        for part in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()] {
            let part = part.map_or(&[][..], Vec::as_slice);
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// What they come to, and when the first of the chain to end does.
    fn config(&self, files: &TlsFiles) -> Result<(Arc<ServerConfig>, NotAfter), TlsError> {
        let chain = certificates(&self.certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| TlsError::Pem {
            path: files.key.clone(),
            expected: "private key",
            problem: pem_problem(&error),
        })?;
        let pair = |source| TlsError::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match self.client_ca.as_ref().zip(files.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((pem, path)) => {
                let invalid = |error: &dyn Display| TlsError::ClientCa {
                    path: path.clone(),
                    problem: error.to_string(),
                };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem, path)? {
                    roots.add(certificate).map_err(|error| invalid(&error))?;
                }
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder
                    .with_client_cert_verifier(verifier.build().map_err(|error| invalid(&error))?)
            }
        };
        let sha256 = chain.first().map(|it| hexadecimal(&Sha256::digest(it))).unwrap_or_default();
        let not_after = chain.iter().filter_map(|it| not_after(it)).min();
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        info!(certificate = %files.certificate.display(), %sha256, "TLS for new connections");
        warn_of_end(not_after, &files.certificate);
        Ok((Arc::new(config), not_after))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found
        .and_then(|found| if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) });
    found.map_err(|error| TlsError::Pem {
        path: path.to_owned(),
        expected: "certificate",
        problem: pem_problem(&error),
    })
}

/// Never what was read: it may be of a key.
fn pem_problem(error: &pem::Error) -> String {
    let problem = match error {
        pem::Error::NoItemsFound => "nothing of the kind was found",
        pem::Error::MissingSectionEnd { .. } => "its END line is missing",
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is broken",
        pem::Error::Base64Decode(_) => "its base64 is broken",
        _ => "it cannot be read",
    };
    problem.to_owned()
}

/// When a certificate ends, in seconds since 1970.
fn not_after(certificate: &CertificateDer<'_>) -> NotAfter {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Says so when clients will soon refuse the certificate, or do already. The server goes on with it: clients
/// decide, by their own clocks.
fn warn_of_end(not_after: NotAfter, certificate: &Path) {
    let now = Timestamp::now();
    let end = not_after.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let certificate = certificate.display();
    match end {
        None => warn!(%certificate, "cannot tell when the certificate ends"),
        Some(end) if end <= now => error!(%certificate, %end, "the certificate has ended"),
        Some(end) if end.duration_since(now).as_secs() < EXPIRY_WARNING.as_secs().cast_signed() => {
            warn!(%certificate, %end, "the certificate ends soon");
        }
        Some(_) => {}
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
