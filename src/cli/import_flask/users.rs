//! Who the app's users are here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};

use super::names;
use super::report::Report;
use crate::cli::identity::Identities;
use crate::client;
use crate::domain::{PeerAddress, Token, User, Username};
use crate::store::flask::{Source, Value};
use crate::store::{ImportedUser, Store, StoreError, UserToImport};

/// Stands for an address that is none.
const NO_ADDRESS: PeerAddress = PeerAddress::Host(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

/// The users that are remembered: about 200 bytes each.
const USERS_REMEMBERED_MAX: usize = 65_536;

/// The app's users, as they are entered here.
pub(super) struct Users<'a> {
    store: &'a Store,
    identities: &'a Identities,
    into_existing: bool,
    remembered: HashMap<Vec<u8>, User>,
}

/// Takes over the table of users.
pub(super) async fn import(
    source: &mut Source,
    users: &mut Users<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut last = i64::MIN;
    loop {
        let rows = source.users_after(last)?;
        let Some(row) = rows.last() else { return Ok(()) };
        last = row.row;
        for row in rows {
            let name = match names::bytes(&row.username) {
                Ok(name) => name,
                Err(problem) => {
                    report.skipped_user(row.row, &format!("its username {problem}"))?;
                    continue;
                }
            };
            let address = address(&row.ip_address);
            let here = users.enter(name, address.unwrap_or(NO_ADDRESS), report).await?;
            if let ImportedUser::Known(_) | ImportedUser::Joined(_) = here {
                report.users_known += 1;
            } else if address.is_none() {
                let name = &here.user().name;
                report.line(&format!("no address    {name}: {NO_ADDRESS} stands for it"))?;
            }
        }
    }
}

fn address(value: &Value) -> Option<PeerAddress> {
    match value {
        Value::Text(text) => PeerAddress::parse(text.trim()).ok(),
        Value::Null | Value::Bytes(_) | Value::TooLong => None,
    }
}

impl<'a> Users<'a> {
    pub(super) fn new(store: &'a Store, identities: &'a Identities, into_existing: bool) -> Self {
        Self { store, identities, into_existing, remembered: HashMap::new() }
    }

    /// The user whom a message names. The app let anyone write as anyone to anyone: whoever is in none
    /// of its users gets a name as well.
    pub(super) async fn named(
        &mut self,
        source_name: &[u8],
        report: &mut Report,
    ) -> anyhow::Result<User> {
        if let Some(user) = self.remembered.get(source_name) {
            return Ok(user.clone());
        }
        let entered = self.enter(source_name, NO_ADDRESS, report).await?;
        if let ImportedUser::New(user) = &entered {
            report.line(&format!("added         {}, whom only messages name", user.name))?;
        }
        Ok(entered.user().clone())
    }

    /// The app's user of this name, entered if they are new here.
    async fn enter(
        &mut self,
        source_name: &[u8],
        address: PeerAddress,
        report: &mut Report,
    ) -> anyhow::Result<ImportedUser> {
        let entered = match self.store.imported_user(source_name.to_vec()).await? {
            Some(user) => ImportedUser::Known(user),
            None => self.enter_new(source_name, address, report).await?,
        };
        if let ImportedUser::New(_) = entered {
            report.users_new += 1;
        }
        if self.remembered.len() >= USERS_REMEMBERED_MAX {
            self.remembered.clear();
        }
        self.remembered.insert(source_name.to_vec(), entered.user().clone());
        Ok(entered)
    }

    async fn enter_new(
        &self,
        source_name: &[u8],
        address: PeerAddress,
        report: &mut Report,
    ) -> anyhow::Result<ImportedUser> {
        let problem = match names::same(source_name) {
            Err(problem) => problem,
            Ok(name) => match self.enter_as(source_name, &name, address).await? {
                Some(entered) => return Ok(entered),
                None => "is somebody else's name here".to_owned(),
            },
        };
        let name = names::stand_in(source_name);
        let shown = names::shown(source_name);
        let Some(entered) = self.enter_as(source_name, &name, address).await? else {
            bail!("{shown} {problem}, and {name}, which would stand for it, is taken too");
        };
        report.line(&format!("renamed       {shown} is {name} here: the name {problem}"))?;
        Ok(entered)
    }

    /// Enters the user under this name; `None` when it is somebody else's.
    ///
    /// The token's file comes first: cut off in between, the next run finds the token in it and enters
    /// the user with that one. So nobody is ever there whose token is not.
    async fn enter_as(
        &self,
        source_name: &[u8],
        name: &Username,
        address: PeerAddress,
    ) -> anyhow::Result<Option<ImportedUser>> {
        let kept = self.kept_token(name)?;
        let owner = match &kept {
            Some(token) => self.store.find_by_token(token.hash()).await?,
            None => None,
        };
        let holder = self.store.find_user(name).await?;
        let is_proven = match (&holder, &owner) {
            (Some(holder), Some(owner)) => holder.id == owner.user.id,
            (None, Some(owner)) => {
                let path = self.identities.path(name);
                bail!("{} holds the token of {}", path.display(), owner.user.name)
            }
            (_, None) => false,
        };
        let is_who_has_the_name = is_proven || self.into_existing;
        let token = match (&holder, kept) {
            (None, Some(token)) => token,
            (None, None) => self.keep_new_token(name)?,
            (Some(_), _) if is_who_has_the_name => Token::mint(),
            (Some(_), _) => return Ok(None),
        };
        let user = UserToImport {
            source_name: source_name.to_vec(),
            name: name.clone(),
            address,
            token: token.hash(),
            is_who_has_the_name,
        };
        match self.store.import_user(user).await {
            Ok(imported) => Ok(Some(imported)),
            Err(StoreError::UsernameTaken(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn kept_token(&self, name: &Username) -> anyhow::Result<Option<Token>> {
        let Some(kept) = self.identities.token(name)? else { return Ok(None) };
        let path = self.identities.path(name);
        let token = Token::parse(kept.reveal());
        token.map(Some).with_context(|| format!("what {} holds", path.display()))
    }

    fn keep_new_token(&self, name: &Username) -> anyhow::Result<Token> {
        let token = Token::mint();
        let kept = client::Token::parse(&token.reveal())?;
        let place = self.identities.prepare(name)?;
        place.keep(&kept).with_context(|| format!("cannot keep the token of {name}"))?;
        Ok(token)
    }
}
