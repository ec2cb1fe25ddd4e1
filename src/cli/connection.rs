//! Which server, and as whom.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use super::advice::advise;
use super::identity::Identities;
use super::profiles::Profiles;
use crate::client::{Client, Options, Token};
use crate::domain::Username;

/// How long a command goes on trying a server that does not answer: a restart is waited for, a
/// wrong address is reported soon.
const RETRY_DEADLINE: Duration = Duration::from_secs(3);

/// The server when nothing names another.
const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionArgs {
    /// The server: http://HOST:PORT or HOST:PORT [default: the profile's, or 127.0.0.1:50051].
    #[arg(long, global = true, env = "PEERPOST_SERVER", value_name = "SERVER")]
    server: Option<String>,

    /// The user to act as, out of those registered from this machine. Not needed when there is one.
    #[arg(
        long = "as",
        global = true,
        env = "PEERPOST_USER",
        value_name = "NAME",
        value_parser = Username::parse
    )]
    pub(super) user: Option<Username>,

    /// The profile to take server and user from, where they are not named: see `peerpost profile`.
    #[arg(long, global = true, env = "PEERPOST_PROFILE", value_name = "PROFILE")]
    profile: Option<String>,

    #[arg(skip)]
    on_command_line: OnCommandLine,
}

/// What the command line itself names; the rest is of the environment.
#[derive(Debug, Clone, Copy, Default)]
struct OnCommandLine {
    server: bool,
    user: bool,
    profile: bool,
}

/// What a command uses.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) server: String,
    /// `None`: the only user that is registered there.
    pub(super) user: Option<Username>,
    /// The profile's name, if one is used.
    pub(super) profile: Option<String>,
}

impl ConnectionArgs {
    /// Notes what the command line names, which goes before all else.
    pub(super) fn note_sources(&mut self, matches: &ArgMatches) {
        let is_named = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        self.on_command_line = OnCommandLine {
            server: is_named("server"),
            user: is_named("user"),
            profile: is_named("profile"),
        };
    }

    /// The server that the command line names, if it does.
    pub(super) fn server_on_command_line(&self) -> Option<&str> {
        self.server.as_deref().filter(|_| self.on_command_line.server)
    }

    /// The server that the command line or the environment names.
    pub(super) fn own_server(&self) -> Option<&str> {
        self.server.as_deref().filter(|server| !server.is_empty())
    }

    /// The user that the command line or the environment names.
    pub(super) fn own_user(&self) -> Option<&Username> {
        self.user.as_ref()
    }

    /// What to use, out of the command line, the environment, a profile, and what holds without any.
    pub(super) fn choose(&self) -> anyhow::Result<Chosen> {
        self.choose_from(&Profiles::load()?)
    }

    fn choose_from(&self, profiles: &Profiles) -> anyhow::Result<Chosen> {
        let named = self.profile.as_deref().filter(|name| !name.is_empty());
        let name = named.or(profiles.profile.as_deref());
        let profile = name.map(|name| profiles.get(name)).transpose()?;
        // A profile on the command line goes before the environment, as the rest of the command line.
        let counts = |on_command_line| on_command_line || !self.on_command_line.profile;
        let server = self.own_server().filter(|_| counts(self.on_command_line.server));
        let user = self.own_user().filter(|_| counts(self.on_command_line.user));
        // At another server the profile's user is somebody else.
        let profile = profile.filter(|it| server.is_none_or(|server| server == it.server));
        let profiles_user = || profile.and_then(|it| it.user.as_deref()).map(Username::parse);
        Ok(Chosen {
            server: match (server, profile) {
                (Some(server), _) => server.to_owned(),
                (None, Some(profile)) => profile.server.clone(),
                (None, None) => DEFAULT_SERVER.to_owned(),
            },
            user: match user {
                Some(user) => Some(user.clone()),
                None => profiles_user().transpose().context("the profile's user")?,
            },
            profile: profile.and(name).map(str::to_owned),
        })
    }

    /// A client of this server.
    pub(super) fn client_of(server: &str) -> anyhow::Result<Client> {
        let options = Options::default().retry_deadline(RETRY_DEADLINE);
        Ok(Client::connect_with(server, options)?)
    }

    /// A client without an identity.
    pub(super) fn anonymous(&self) -> anyhow::Result<Client> {
        Self::client_of(&self.choose()?.server)
    }

    /// A client as the user who runs the command.
    pub(super) fn authenticated(&self) -> anyhow::Result<Client> {
        self.identified().map(|(client, _)| client)
    }

    /// A client as the user who runs the command, and their name, unless only their token is known.
    pub(super) fn identified(&self) -> anyhow::Result<(Client, Option<String>)> {
        let chosen = self.choose()?;
        let client = Self::client_of(&chosen.server)?;
        let (token, name) = match token_from_environment()? {
            Some(token) => (token, None),
            None => choose(&Identities::of_server(client.server())?, chosen.user.as_ref())
                .map(|(token, name)| (token, Some(name)))
                .with_context(|| format!("no identity at {}", client.server()))?,
        };
        Ok((client.with_token(&token), name))
    }
}

/// The token in the environment, which goes before those that are kept.
pub(super) fn token_from_environment() -> anyhow::Result<Option<Token>> {
    match std::env::var("PEERPOST_TOKEN") {
        Ok(text) if !text.is_empty() => Token::parse(&text).map(Some).map_err(|error| {
            advise(
                anyhow::Error::new(error).context("what PEERPOST_TOKEN holds"),
                "it takes a token as the server gave it out; unset, a kept one is used",
            )
        }),
        _ => Ok(None),
    }
}

/// The token of the user asked for, or of the only one that there is, and the name.
fn choose(identities: &Identities, user: Option<&Username>) -> anyhow::Result<(Token, String)> {
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
    let token = identities.token(user)?.ok_or_else(|| {
        advise(
            anyhow!("no token is kept for {user}"),
            match names.as_slice() {
                [] => format!("`peerpost register {user}` takes the name"),
                names => format!("there are tokens for: {}", names.join(", ")),
            },
        )
    })?;
    Ok((token, user.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::profiles::Profile;

    const WORK: &str = "http://work:1";

    fn args(words: &[&str], sources: OnCommandLine) -> ConnectionArgs {
        let value = |name: &str| {
            words
                .iter()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
        };
        ConnectionArgs {
            server: value("server"),
            user: value("user").map(|name| Username::parse(&name).expect("a name")),
            profile: value("profile"),
            on_command_line: sources,
        }
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_profiles() {
        let profile = |server: &str, user: &str| Profile {
            server: server.to_owned(),
            user: Some(user.to_owned()),
        };
        let profiles = |current: Option<&str>| Profiles {
            profile: current.map(str::to_owned),
            profiles: BTreeMap::from([
                ("work".to_owned(), profile(WORK, "alice")),
                ("home".to_owned(), profile("http://home:1", "al")),
            ]),
        };
        let all = OnCommandLine { server: true, user: true, profile: true };
        let only_profile = OnCommandLine { profile: true, ..OnCommandLine::default() };
        let none = OnCommandLine::default();
        for (words, sources, current, server, user) in [
            (&[][..], none, None, DEFAULT_SERVER, None),
            (&[], none, Some("work"), WORK, Some("alice")),
            (&["profile=home"], none, Some("work"), "http://home:1", Some("al")),
            (&["server=x:1"], none, Some("work"), "x:1", None),
            (&["server=x:1", "profile=work"], none, None, "x:1", None),
            (&["server=x:1", "profile=work"], only_profile, None, WORK, Some("alice")),
            (&["user=eve", "profile=work"], only_profile, None, WORK, Some("alice")),
            (&["user=eve", "profile=work"], none, None, WORK, Some("eve")),
            (&["server=x:1", "profile=work"], all, None, "x:1", None),
            (&["server=http://work:1"], all, Some("work"), WORK, Some("alice")),
            (&["profile="], none, Some("work"), WORK, Some("alice")),
        ] {
            let chosen = args(words, sources).choose_from(&profiles(current)).expect("chosen");
            assert_eq!(chosen.server, server, "{words:?}");
            assert_eq!(chosen.user.as_ref().map(Username::as_str), user, "{words:?}");
        }
        assert!(args(&["profile=none"], none).choose_from(&profiles(None)).is_err());
        assert!(args(&[], none).choose_from(&profiles(Some("gone"))).is_err());
    }
}
