use anyhow::anyhow;
use clap::Subcommand;

use super::advice::advise;
use super::connection::ConnectionArgs;
use super::identity::Identities;
use super::output;
use super::profiles::{Profile, Profiles};
use crate::domain::Username;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost profile add work --server chat.example.org:50051 --as alice
  peerpost --profile work chat bob
  peerpost profile use work                 from now on without --profile
  peerpost profile show                     which server and user are used, and why

What counts, first to last: --server and --as; --profile; PEERPOST_SERVER and PEERPOST_USER;
PEERPOST_PROFILE; the profile in use; http://127.0.0.1:50051 and the only user registered there. A
profile's user counts only at the profile's server. PEERPOST_TOKEN goes before every kept token.")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the profiles; the one in use has a star.
    List,
    /// Keep --server and --as under a name, or change what is kept under it.
    Add {
        /// The profile's name: 1 to 64 characters out of A-Z a-z 0-9 . _ -.
        #[arg(value_parser = Username::parse)]
        name: Username,
    },
    /// Use a profile from now on.
    Use {
        /// The profile's name.
        name: String,
    },
    /// Remove a profile. Tokens stay.
    Remove {
        /// The profile's name.
        name: String,
    },
    /// Show which server and user a command would use.
    Show,
}

/// Within the runtime, which a client needs that checks the server's address.
pub(super) fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    match &args.action {
        Action::List => list(),
        Action::Add { name } => add(connection, name.as_str()),
        Action::Use { name } => {
            let mut profiles = Profiles::load()?;
            profiles.get(name)?;
            profiles.profile = Some(name.clone());
            profiles.save()?;
            output::note(&format!("{name} is used from now on"));
            Ok(())
        }
        Action::Remove { name } => {
            let mut profiles = Profiles::load()?;
            profiles.get(name)?;
            profiles.profiles.remove(name);
            profiles.profile.take_if(|current| current == name);
            profiles.save()?;
            output::note(&format!("{name} is removed"));
            Ok(())
        }
        Action::Show => show(connection),
    }
}

fn list() -> anyhow::Result<()> {
    let profiles = Profiles::load()?;
    if profiles.profiles.is_empty() {
        output::note("no profiles; `peerpost profile add NAME --server SERVER --as USER` adds one");
    }
    for (name, Profile { server, user }) in &profiles.profiles {
        let star = if profiles.profile.as_ref() == Some(name) { '*' } else { ' ' };
        let user = user.as_deref().unwrap_or_default();
        output::line(format!("{star} {name:<16}  {server}  {user}").trim_end())?;
    }
    Ok(())
}

fn add(connection: &ConnectionArgs, name: &str) -> anyhow::Result<()> {
    let Some(server) = connection.own_server() else {
        return Err(advise(
            anyhow!("which server the profile is for is not said"),
            format!("`peerpost profile add {name} --server SERVER --as USER`"),
        ));
    };
    // In the form in which the client would use it, if it is an address at all.
    let server = ConnectionArgs::client_of(server)?.server().to_owned();
    let user = connection.own_user().map(|user| user.as_str().to_owned());
    let mut profiles = Profiles::load()?;
    profiles.profiles.insert(name.to_owned(), Profile { server, user });
    let path = profiles.save()?;
    output::note(&format!("{name} is kept in {}", path.display()));
    if profiles.profile.is_none() {
        output::note(&format!("hint: `peerpost profile use {name}` makes it the default"));
    }
    Ok(())
}

fn show(connection: &ConnectionArgs) -> anyhow::Result<()> {
    let chosen = connection.choose()?;
    let server = ConnectionArgs::client_of(&chosen.server)?.server().to_owned();
    let identities = Identities::of_server(&server)?;
    output::line(&format!("server   {server}"))?;
    match (&chosen.user, identities.names()?.as_slice()) {
        (Some(user), _) => {
            output::line(&format!("user     {user}"))?;
            output::line(&format!("token    {}", identities.path(user).display()))?;
        }
        (None, []) => output::line("user     nobody is registered there from this machine")?,
        (None, names) => output::line(&format!("user     one of: {}", names.join(", ")))?,
    }
    let profile = chosen.profile.as_deref().unwrap_or("none");
    output::line(&format!("profile  {profile}"))
}
