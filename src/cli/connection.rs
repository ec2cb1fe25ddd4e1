//! Which server, and as whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::advice::advise;
use super::identity::Identities;
use crate::client::{Client, Options, Token};
use crate::domain::Username;

/// How long a command goes on trying a server that does not answer: a restart is waited for, a
/// wrong address is reported soon.
const RETRY_DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionArgs {
    /// The server: HOST:PORT, http://HOST:PORT or https://HOST:PORT, or unix: and a path.
    #[arg(
        long,
        global = true,
        env = "PEERPOST_SERVER",
        value_name = "SERVER",
        default_value = "http://127.0.0.1:50051"
    )]
    server: String,

    /// The authorities, in PEM, that an https server may have its certificate from, instead of those that
    /// the system trusts.
    #[arg(long, global = true, env = "PEERPOST_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// The certificate, in PEM, to show to a server that asks for one.
    #[arg(
        long,
        global = true,
        env = "PEERPOST_TLS_CLIENT_CERT",
        value_name = "FILE",
        requires = "tls_client_key"
    )]
    tls_client_cert: Option<PathBuf>,

    /// That certificate's private key, in PEM.
    #[arg(
        long,
        global = true,
        env = "PEERPOST_TLS_CLIENT_KEY",
        value_name = "FILE",
        requires = "tls_client_cert"
    )]
    tls_client_key: Option<PathBuf>,

    /// The user to act as, out of those registered from this machine. Not needed when there is one.
    #[arg(
        long = "as",
        global = true,
        env = "PEERPOST_USER",
        value_name = "NAME",
        value_parser = Username::parse
    )]
    pub(super) user: Option<Username>,
}

impl ConnectionArgs {
    /// The server, as it was named.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// A client without an identity.
    pub(super) fn anonymous(&self) -> anyhow::Result<Client> {
        let mut options = Options::default().retry_deadline(RETRY_DEADLINE);
        if let Some(ca) = &self.tls_ca {
            options = options.tls_ca(read(ca)?);
        }
        if let Some((certificate, key)) =
            self.tls_client_cert.as_ref().zip(self.tls_client_key.as_ref())
        {
            options = options.tls_identity(read(certificate)?, read(key)?);
        }
        Ok(Client::connect_with(&self.server, options)?)
    }

    /// A client as the user who runs the command.
    pub(super) fn authenticated(&self) -> anyhow::Result<Client> {
        let client = self.anonymous()?;
        let token = match token_from_environment()? {
            Some(token) => token,
            None => choose(&Identities::of_server(client.server())?, self.user.as_ref())
                .with_context(|| format!("no identity at {}", client.server()))?,
        };
        Ok(client.with_token(&token))
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The token in the environment, which goes before those that are kept.
pub(super) fn token_from_environment() -> anyhow::Result<Option<Token>> {
    match std::env::var("PEERPOST_TOKEN") {
        Ok(text) if !text.is_empty() => {
            Token::parse(&text).map(Some).context("what PEERPOST_TOKEN holds")
        }
        _ => Ok(None),
    }
}

/// The token of the user asked for, or of the only one that there is.
fn choose(identities: &Identities, user: Option<&Username>) -> anyhow::Result<Token> {
    let names = identities.names()?;
    let only;
    let user = match (user, names.as_slice()) {
        (Some(user), _) => user,
        (None, [name]) => {
            only = Username::parse(name)?;
            &only
        }
        (None, []) => {
            return Err(advise(
                anyhow!("nobody is registered there from this machine"),
                "`peerpost register NAME` takes a name; PEERPOST_TOKEN uses a token of elsewhere",
            ));
        }
        (None, names) => {
            return Err(advise(
                anyhow!("several users are registered there: {}", names.join(", ")),
                "`--as NAME` says which one to act as",
            ));
        }
    };
    identities.token(user)?.ok_or_else(|| {
        advise(
            anyhow!("no token is kept for {user}"),
            match names.as_slice() {
                [] => format!("`peerpost register {user}` takes the name"),
                names => format!("there are tokens for: {}", names.join(", ")),
            },
        )
    })
}
