use std::fmt;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::{Error, Options};

/// Whom a client trusts and who it is, where the server speaks TLS.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// In PEM; `None` for the authorities that the system trusts.
    pub(super) ca: Option<Vec<u8>>,
    /// A certificate and its key, in PEM.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// The key is not shown, only whether there is one.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("has_ca", &self.ca.is_some())
            .field("has_identity", &self.identity.is_some())
            .finish()
    }
}

impl Tls {
    pub(super) fn config(&self, server: &str, options: &Options) -> Result<ClientTlsConfig, Error> {
        let config = ClientTlsConfig::new().timeout(options.connect_timeout);
        let config = match &self.ca {
            None => config.with_native_roots(),
            Some(ca) => {
                let certificates = CertificateDer::pem_slice_iter(ca);
                if certificates.collect::<Result<Vec<_>, _>>().is_ok_and(|found| found.is_empty()) {
                    return Err(Error::InvalidServer {
                        server: server.to_owned(),
                        problem: "what is to be trusted holds no certificate in PEM".to_owned(),
                    });
                }
                config.ca_certificate(Certificate::from_pem(ca))
            }
        };
        Ok(match &self.identity {
            None => config,
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
        })
    }
}
