//! Who is let in at the moment: callers who are remembered, and the streams that end when they are let in
//! no more.
//!
//! The store tells what was committed, on its writing thread and before anyone is answered
//! ([`Access::ended`]): what is remembered of a token goes there and then, and so does every stream that it
//! opened. A look-up that began before that must not bring the token back: it only remembers what it read
//! if nothing ended meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use quick_cache::sync::Cache;
use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;

use crate::domain::{Timestamp, TokenHash, User, UserId, Username};
use crate::store::accounts::{AccessEnded, EndCause};

/// The callers who are remembered, by token or, on an open server, by name: about 120 bytes each. The rest
/// are looked up in the store. Unknown tokens are not remembered.
const CALLERS_REMEMBERED_MAX: usize = 65_536;

/// By what a caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A token.
    Token(TokenHash),
    /// The name that they say is theirs, on an open server.
    Name,
}

/// Who is remembered, and who has streams open. Cloning gives another handle.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    callers: Cache<Key, Remembered>,
    /// How often somebody was let in no more: who looks up notes it before, and remembers what they found
    /// only if it is still the same.
    endings: AtomicU64,
    /// Held to remember somebody and to forget somebody, so that one comes before the other. Nobody who is
    /// remembered waits for it.
    changing: Mutex<()>,
    /// The users with open streams, by what opened them.
    sessions: Mutex<HashMap<UserId, SmallVec<[Weak<Live>; 1]>>>,
    /// Cancelled when all streams shall end.
    drain: CancellationToken,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Token(TokenHash),
    /// In lower case.
    Name(String),
}

/// A caller, and until when they may be taken for known.
#[derive(Clone)]
struct Remembered {
    user: User,
    expire_time: Option<Timestamp>,
}

/// The open streams of one credential, as far as their end is concerned.
struct Live {
    access: Access,
    user: UserId,
    credential: Credential,
    /// A child of the drain, so that whoever waits for one waits for both.
    end: CancellationToken,
    cause: OnceLock<EndCause>,
}

/// A stream's hold on what ends it from outside: the server's drain, or that its caller is let in no
/// more.
#[derive(Clone)]
pub struct Session(Arc<Live>);

impl Access {
    /// Nobody is known yet. Streams end when `drain` is cancelled.
    pub fn new(drain: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            callers: Cache::new(CALLERS_REMEMBERED_MAX),
            endings: AtomicU64::new(0),
            changing: Mutex::new(()),
            sessions: Mutex::default(),
            drain,
        }))
    }

    /// The owner of a token, if that is known and it has not expired.
    pub(super) fn by_token(&self, token: TokenHash) -> Option<User> {
        self.remembered(&Key::Token(token)).map(|it| it.user)
    }

    /// Whether a token is known to be good, and when it expires, if at all.
    pub(super) fn expiry(&self, token: TokenHash) -> (bool, Option<Timestamp>) {
        let known = self.remembered(&Key::Token(token));
        (known.is_some(), known.and_then(|it| it.expire_time))
    }

    /// The user of this name, if they are known to be let in.
    pub(super) fn by_name(&self, name: &Username) -> Option<User> {
        self.remembered(&Key::Name(name.key())).map(|it| it.user)
    }

    fn remembered(&self, key: &Key) -> Option<Remembered> {
        let known = self.0.callers.get(key)?;
        match known.expire_time {
            Some(time) if time <= Timestamp::now() => None,
            _ => Some(known),
        }
    }

    /// To be noted before somebody is looked up who may be remembered then.
    pub(super) fn endings(&self) -> u64 {
        self.0.endings.load(Ordering::Acquire)
    }

    /// Remembers whose token it is, if nobody's access ended since `endings`. Whether it did.
    pub(super) fn remember_token(
        &self,
        (token, expire_time): (TokenHash, Option<Timestamp>),
        user: &User,
        endings: u64,
    ) -> bool {
        self.remember(Key::Token(token), Remembered { user: user.clone(), expire_time }, endings)
    }

    /// The same by name.
    pub(super) fn remember_name(&self, user: &User, endings: u64) -> bool {
        let known = Remembered { user: user.clone(), expire_time: None };
        self.remember(Key::Name(user.name.key()), known, endings)
    }

    fn remember(&self, key: Key, known: Remembered, endings: u64) -> bool {
        let _changing = lock(&self.0.changing);
        let is_so = self.endings() == endings;
        if is_so {
            self.0.callers.insert(key, known);
        }
        is_so
    }

    /// These are let in no more: they are forgotten, and their streams end.
    pub fn ended(&self, ended: &[AccessEnded]) {
        {
            let _changing = lock(&self.0.changing);
            self.0.endings.fetch_add(1, Ordering::AcqRel);
            for AccessEnded { user, tokens, .. } in ended {
                for token in tokens {
                    self.0.callers.remove(&Key::Token(*token));
                }
                self.0.callers.remove(&Key::Name(user.name.key()));
            }
        }
        for AccessEnded { user, tokens, cause } in ended {
            self.end_streams(user.id, tokens, *cause);
        }
    }

    /// It is not known who is let in: the store has to be asked again.
    pub fn reset(&self) {
        let _changing = lock(&self.0.changing);
        self.0.endings.fetch_add(1, Ordering::AcqRel);
        self.0.callers.clear();
    }

    fn end_streams(&self, user: UserId, tokens: &[TokenHash], cause: EndCause) {
        let of_user: Vec<_> = {
            let sessions = lock(&self.0.sessions);
            let of_user = sessions.get(&user);
            of_user.into_iter().flatten().filter_map(Weak::upgrade).collect()
        };
        // Dropped outside of the lock, which the last one to go takes.
        for live in of_user {
            let is_ended = match (cause, live.credential) {
                (EndCause::Revoked, Credential::Token(token)) => tokens.contains(&token),
                (EndCause::Revoked, Credential::Name) => false,
                (EndCause::Banned | EndCause::Deleted | EndCause::InDoubt, _) => true,
            };
            if is_ended && live.cause.set(cause).is_ok() {
                live.end.cancel();
            }
        }
    }

    /// A stream of this user begins. Whether they are let in has to be found out after this, and not
    /// before: from now on they hear of it when they are not.
    pub(super) fn open(&self, user: UserId, credential: Credential) -> Session {
        let mut sessions = lock(&self.0.sessions);
        let of_user = sessions.entry(user).or_default();
        let there = of_user.iter().filter_map(Weak::upgrade);
        let (mut same, mut others) = (None, SmallVec::<[Arc<Live>; 4]>::new());
        for live in there {
            // One that has ended is not for those who come after it.
            if live.credential == credential && live.cause.get().is_none() {
                same = Some(live);
            } else {
                others.push(live);
            }
        }
        let live = same.unwrap_or_else(|| {
            let live = Arc::new(Live {
                access: self.clone(),
                user,
                credential,
                end: self.0.drain.child_token(),
                cause: OnceLock::new(),
            });
            of_user.push(Arc::downgrade(&live));
            live
        });
        drop(sessions);
        // Whoever is the last to hold one takes the lock.
        drop(others);
        Session(live)
    }

    /// How many credentials have streams open.
    #[cfg(test)]
    fn sessions(&self) -> usize {
        lock(&self.0.sessions).values().map(SmallVec::len).sum()
    }
}

impl Session {
    /// Resolves when the stream is to end: `None` at the drain, else why its caller is let in no more.
    pub async fn ended(&self) -> Option<EndCause> {
        self.0.end.cancelled().await;
        self.0.cause.get().copied()
    }

    /// Whether its caller is let in no more.
    pub fn has_ended(&self) -> bool {
        self.0.cause.get().is_some()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut sessions = lock(&self.access.0.sessions);
        if let Some(of_user) = sessions.get_mut(&self.user) {
            of_user.retain(|live| live.strong_count() > 0);
            if of_user.is_empty() {
                sessions.remove(&self.user);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in the guarded sections panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Token;

    fn alice() -> User {
        User { id: UserId(1), name: Username::parse("Alice").expect("a name") }
    }

    fn revoked(token: TokenHash) -> AccessEnded {
        AccessEnded { user: alice(), tokens: vec![token], cause: EndCause::Revoked }
    }

    #[test]
    fn what_was_looked_up_before_an_end_is_not_remembered_after_it() {
        let access = Access::new(CancellationToken::new());
        let token = Token::mint().hash();
        let before = access.endings();
        // The look-up reads the store here; then the token is revoked.
        access.ended(&[revoked(token)]);
        assert!(!access.remember_token((token, None), &alice(), before));
        assert!(access.by_token(token).is_none());
        let now = access.endings();
        assert!(access.remember_token((token, None), &alice(), now));
        assert!(access.by_token(token).is_some());
        access.ended(&[revoked(token)]);
        assert!(access.by_token(token).is_none());
    }

    #[test]
    fn a_token_is_known_until_it_expires() {
        let access = Access::new(CancellationToken::new());
        let now = Timestamp::now().as_micros();
        for (expire_time, is_known) in [(now + 60_000_000, true), (now, false)] {
            let token = Token::mint().hash();
            let expire_time = Some(Timestamp::from_micros(expire_time));
            assert!(access.remember_token((token, expire_time), &alice(), 0));
            assert_eq!(access.by_token(token).is_some(), is_known);
        }
    }

    #[tokio::test]
    async fn the_streams_of_a_revoked_token_end_and_no_others() {
        let drain = CancellationToken::new();
        let access = Access::new(drain.clone());
        let tokens = [Token::mint().hash(), Token::mint().hash()];
        let [first, second] = tokens.map(|it| access.open(UserId(1), Credential::Token(it)));
        let again = access.open(UserId(1), Credential::Token(tokens[0]));
        let other = access.open(UserId(2), Credential::Name);
        assert_eq!(access.sessions(), 3);
        access.ended(&[revoked(tokens[0])]);
        assert_eq!(
            (first.ended().await, again.ended().await),
            (Some(EndCause::Revoked), first.ended().await)
        );
        assert!(first.has_ended() && !second.has_ended() && !other.has_ended());
        // It is found to be no good after this; until then it is not the one that has ended.
        assert!(!access.open(UserId(1), Credential::Token(tokens[0])).has_ended());
        let banned = AccessEnded { user: alice(), tokens: Vec::new(), cause: EndCause::Banned };
        access.ended(&[banned]);
        assert_eq!(second.ended().await, Some(EndCause::Banned));
        drain.cancel();
        assert_eq!(other.ended().await, None);
        drop((first, again, second, other));
        assert_eq!(access.sessions(), 0);
    }
}
