//! Certificates made for a test, and connections that speak TLS below any client.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peerpost::client::{Client, Options, Token};
use peerpost::server::TlsFiles;
use peerpost::testing::within_patience;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client_support::patient;

/// The name that all servers of tests have.
const NAME: &str = "localhost";

/// What issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// One for a server and a client alike.
    pub(crate) fn issue(&self) -> Issued {
        self.issue_with(|_| {})
    }

    /// The same, which ends so many seconds after 1970.
    pub(crate) fn issue_until(&self, seconds: i64) -> Issued {
        let seconds = Duration::from_secs(seconds.try_into().expect("after 1970"));
        self.issue_with(|params| params.not_after = date_time_ymd(1970, 1, 1) + seconds)
    }

    fn issue_with(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names = vec![NAME.to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        adjust(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Issued {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")
    }
}

/// The files of a server's TLS, which end with the value.
pub(crate) struct Files {
    folder: TempDir,
}

impl Files {
    pub(crate) fn of(issued: &Issued) -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        files.put(issued);
        files
    }

    /// Replaces both.
    pub(crate) fn put(&self, issued: &Issued) {
        self.write("certificate.pem", &issued.certificate);
        self.write("key.pem", &issued.key);
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file can be written");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn options(&self) -> TlsFiles {
        let (certificate, key) = (self.path("certificate.pem"), self.path("key.pem"));
        TlsFiles { certificate, key, client_ca: None }
    }

    /// The same for a command line.
    pub(crate) fn flags(&self) -> Vec<String> {
        let (certificate, key) = (self.path("certificate.pem"), self.path("key.pem"));
        let text = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        vec!["--tls-cert".into(), text(certificate), "--tls-key".into(), text(key)]
    }
}

/// How a client is set up that trusts `authority` and speaks `protocols` within. Those that share it
/// resume their sessions.
pub(crate) fn client_config(
    authority: &Authority,
    protocols: &[&str],
    identity: Option<&Issued>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(issued) => {
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
            config.with_client_auth_cert(vec![issued.der()], key).expect("a pair")
        }
    };
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A TLS connection.
pub(crate) async fn connect_with(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from(NAME).expect("a name");
    within_patience("a handshake", TlsConnector::from(config).connect(name, stream)).await
}

/// A TLS connection of a client that comes for the first time.
pub(crate) async fn connect(
    addr: SocketAddr,
    authority: &Authority,
    protocols: &[&str],
    identity: Option<&Issued>,
) -> io::Result<TlsStream<TcpStream>> {
    connect_with(addr, client_config(authority, protocols, identity)).await
}

/// The certificate that a new connection gets.
pub(crate) async fn shown(addr: SocketAddr, authority: &Authority) -> CertificateDer<'static> {
    let stream = connect(addr, authority, &["h2"], None).await.expect("a connection");
    let shown = stream.get_ref().1.peer_certificates().expect("a certificate");
    shown[0].clone().into_owned()
}

/// The Rust client's options, trusting `authority`.
pub(crate) fn trusting(authority: &Authority) -> Options {
    patient().tls_ca(authority.pem())
}

/// A new user over the Rust client.
pub(crate) async fn register(server: &str, options: Options, name: &str) -> (Client, Token) {
    let client = Client::connect_with(server, options).expect("a server");
    let (_, token) = client.register(name, "192.0.2.1").await.expect("a new name");
    let token = token.expect("a new name");
    (client.with_token(&token), token)
}
