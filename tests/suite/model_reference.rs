//! What a mailbox service must do, said in vectors and maps. Nothing in here knows how it is done, and
//! all of it is short enough to be seen to be right.

use std::collections::BTreeMap;

/// A name, by its place in [`NAMES`].
pub(crate) type Person = usize;

/// Everybody who may ever register.
pub(crate) const NAMES: [&str; 5] = ["ann", "bob", "cyd", "dee", "eve"];

/// These are registered when a case begins, so that it need not begin with that.
pub(crate) const REGISTERED_AT_THE_START: [Person; 3] = [0, 1, 2];

/// Where they are registered.
pub(crate) const ADDRESS_AT_THE_START: u8 = 1;

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Text(String),
    Data(Vec<u8>),
}

impl Body {
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Data(data) => data.len(),
        }
    }
}

/// A message as it is handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) from: Person,
    pub(crate) to: Person,
    pub(crate) body: Body,
    pub(crate) content_type: &'static str,
    pub(crate) request_id: Option<u8>,
}

impl Outgoing {
    /// The request id as it is sent; empty for none.
    pub(crate) fn request_id(&self) -> String {
        self.request_id.map(|id| format!("id-{id}")).unwrap_or_default()
    }
}

/// Which page of a mailbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageOf {
    pub(crate) start: Start,
    pub(crate) peer: Option<Person>,
    pub(crate) received_only: bool,
    pub(crate) page_size: usize,
}

/// Where a page starts. Before 0 is before the end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    After(i64),
    Before(i64),
}

/// A part of a mailbox, and the ends of the whole. `M` is how a message is told of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<M> {
    pub(crate) messages: Vec<M>,
    pub(crate) has_more: bool,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// What is delivered to a follower up to the present, and after which sequence that began.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Followed<M> {
    pub(crate) after: i64,
    pub(crate) messages: Vec<M>,
    pub(crate) last: i64,
}

/// A message as one of the two sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) sequence: i64,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) body: Body,
    pub(crate) content_type: String,
    /// Empty for all but the sender.
    pub(crate) request_id: String,
    pub(crate) given: Given,
}

/// What the service chooses for a message, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) id: String,
    pub(crate) send_time_us: i64,
}

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    UsernameTaken(Person),
    NoSuchUser(Person),
    RequestIdReused(String),
    OutOfRange { asked: i64, min: i64, max: i64 },
}

/// A message, by its place among all that were ever stored.
pub(crate) type Number = usize;

/// Everything that a service has to remember.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    accounts: BTreeMap<Person, Account>,
    messages: Vec<Outgoing>,
}

#[derive(Debug, Clone, Default)]
struct Account {
    address: u8,
    acknowledged: i64,
    /// The entry with the sequence n stands at n - 1.
    mailbox: Vec<Number>,
    requests: BTreeMap<u8, Number>,
}

impl Account {
    fn last(&self) -> i64 {
        self.mailbox.len().cast_signed() as i64
    }
}

/// A cursor is 0 or more, and at most `max`.
pub(crate) fn check(asked: i64, max: i64) -> Result<(), Refused> {
    if (0..=max).contains(&asked) {
        Ok(())
    } else {
        Err(Refused::OutOfRange { asked, min: 0, max })
    }
}

impl Model {
    pub(crate) fn at_the_start() -> Self {
        let mut model = Self::default();
        for person in REGISTERED_AT_THE_START {
            model.register(person, None, ADDRESS_AT_THE_START).expect("each registers once");
        }
        model
    }

    pub(crate) fn registered(&self) -> Vec<Person> {
        self.accounts.keys().copied().collect()
    }

    pub(crate) fn is_registered(&self, person: Person) -> bool {
        self.accounts.contains_key(&person)
    }

    /// The end of the longest mailbox.
    pub(crate) fn longest(&self) -> i64 {
        self.accounts.values().map(Account::last).max().unwrap_or(0)
    }

    /// The messages that have a request id.
    pub(crate) fn with_request_ids(&self) -> Vec<Outgoing> {
        self.messages.iter().filter(|it| it.request_id.is_some()).cloned().collect()
    }

    /// A new name is anybody's; a registered one is its owner's. Returns whether it is new.
    pub(crate) fn register(
        &mut self,
        name: Person,
        caller: Option<Person>,
        address: u8,
    ) -> Result<bool, Refused> {
        let is_new = !self.is_registered(name);
        if !is_new && caller != Some(name) {
            return Err(Refused::UsernameTaken(name));
        }
        self.accounts.entry(name).or_default().address = address;
        Ok(is_new)
    }

    pub(crate) fn address(&self, name: Person) -> Result<u8, Refused> {
        self.accounts.get(&name).map(|it| it.address).ok_or(Refused::NoSuchUser(name))
    }

    /// Stores a message, unless its request id was used: then the first is the answer, if it is the
    /// same.
    pub(crate) fn send(&mut self, outgoing: &Outgoing) -> Result<Number, Refused> {
        if !self.is_registered(outgoing.to) {
            return Err(Refused::NoSuchUser(outgoing.to));
        }
        let number = self.messages.len();
        if let Some(id) = outgoing.request_id {
            let requests = &mut self.of_mut(outgoing.from).requests;
            let first = *requests.entry(id).or_insert(number);
            if first != number {
                let is_same = self.messages[first] == *outgoing;
                let reused = Refused::RequestIdReused(outgoing.request_id());
                return if is_same { Ok(first) } else { Err(reused) };
            }
        }
        self.messages.push(outgoing.clone());
        self.of_mut(outgoing.to).mailbox.push(number);
        if outgoing.from != outgoing.to {
            self.of_mut(outgoing.from).mailbox.push(number);
        }
        Ok(number)
    }

    /// A page, which ends before the body that would make it larger than `bytes_max`, unless that is
    /// its only one.
    pub(crate) fn page(
        &self,
        owner: Person,
        page: PageOf,
        bytes_max: usize,
    ) -> Result<Page<Number>, Refused> {
        if let Some(peer) = page.peer.filter(|peer| !self.is_registered(*peer)) {
            return Err(Refused::NoSuchUser(peer));
        }
        let account = self.of(owner);
        let wanted = |(_, number): &(i64, Number)| self.is_wanted(owner, page, *number);
        let numbered = (1..).zip(account.mailbox.iter().copied()).filter(wanted);
        let (ahead, is_backward): (Vec<_>, _) = match page.start {
            Start::After(after) => {
                check(after, account.last())?;
                (numbered.filter(|(sequence, _)| *sequence > after).collect(), false)
            }
            Start::Before(before) => {
                check(before, account.last() + 1)?;
                let is_ahead = |sequence| before == 0 || sequence < before;
                let ahead = numbered.filter(|(sequence, _)| is_ahead(*sequence));
                (ahead.collect::<Vec<_>>().into_iter().rev().collect(), true)
            }
        };
        let mut messages = Vec::new();
        let mut bytes = 0;
        for (_, number) in &ahead {
            bytes += self.messages[*number].body.size();
            if messages.len() == page.page_size || (bytes > bytes_max && !messages.is_empty()) {
                break;
            }
            messages.push(*number);
        }
        let has_more = messages.len() < ahead.len();
        if is_backward {
            messages.reverse();
        }
        Ok(Page { messages, has_more, first: 1, last: account.last() })
    }

    /// What a follower gets who begins after `after`, or after what was acknowledged.
    pub(crate) fn follow(
        &self,
        owner: Person,
        after: Option<i64>,
        received_only: bool,
    ) -> Result<Followed<Number>, Refused> {
        let after = after.unwrap_or(self.of(owner).acknowledged);
        let start = Start::After(after);
        let all = PageOf { start, peer: None, received_only, page_size: usize::MAX };
        let Page { messages, last, .. } = self.page(owner, all, usize::MAX)?;
        Ok(Followed { after, messages, last })
    }

    /// Moves only forward; returns where it stands.
    pub(crate) fn acknowledge(&mut self, owner: Person, through: i64) -> Result<i64, Refused> {
        let account = self.of_mut(owner);
        check(through, account.last())?;
        account.acknowledged = account.acknowledged.max(through);
        Ok(account.acknowledged)
    }

    /// How `owner` sees a message.
    pub(crate) fn sight(&self, owner: Person, number: Number, given: Given) -> Sight {
        let message = &self.messages[number];
        let place = self.of(owner).mailbox.iter().position(|it| *it == number);
        let is_sender = owner == message.from;
        Sight {
            sequence: place.expect("only participants see it").cast_signed() as i64 + 1,
            from: NAMES[message.from].to_owned(),
            to: NAMES[message.to].to_owned(),
            body: message.body.clone(),
            content_type: message.content_type.to_owned(),
            request_id: if is_sender { message.request_id() } else { String::new() },
            given,
        }
    }

    fn is_wanted(&self, owner: Person, page: PageOf, number: Number) -> bool {
        let Outgoing { from, to, .. } = self.messages[number];
        let is_with = |peer| (from, to) == (owner, peer) || (from, to) == (peer, owner);
        page.peer.is_none_or(is_with) && (!page.received_only || to == owner)
    }

    fn of(&self, owner: Person) -> &Account {
        self.accounts.get(&owner).expect("only the registered act")
    }

    fn of_mut(&mut self, owner: Person) -> &mut Account {
        self.accounts.get_mut(&owner).expect("only the registered act")
    }
}
