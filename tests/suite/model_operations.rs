//! What is done to a service and to its model: drawn at random, and made fewer and smaller once it has
//! shown a difference.

use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;

use crate::model_reference::{Body, Model, NAMES, Outgoing, PageOf, Person, Start};

/// One thing that is done.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Register {
        name: Person,
        caller: Option<Person>,
        address: u8,
    },
    LookUp {
        caller: Person,
        name: Person,
    },
    /// One after the other, without waiting for the answers in between.
    Send(Vec<Outgoing>),
    Page {
        owner: Person,
        page: PageOf,
    },
    /// `after` unset: from what was acknowledged.
    Follow {
        owner: Person,
        after: Option<i64>,
        received_only: bool,
    },
    Acknowledge {
        owner: Person,
        through: i64,
    },
    Restart(Restart),
}

/// How a service ends before it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Clean,
    /// On a copy of the files as they are while it runs.
    Crash,
}

/// The model as what operations are drawn for.
pub(crate) struct Mailboxes;

impl ReferenceStateMachine for Mailboxes {
    type State = Model;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::at_the_start()).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Operation> {
        let registered = || select(model.registered());
        let follow = (registered(), proptest::option::of(cursor(model)), any::<bool>());
        prop_oneof![
            1 => (anybody(), proptest::option::of(registered()), any::<u8>())
                .prop_map(|(name, caller, address)| Operation::Register { name, caller, address }),
            1 => (registered(), anybody())
                .prop_map(|(caller, name)| Operation::LookUp { caller, name }),
            6 => outgoing(model).prop_map(|one| Operation::Send(vec![one])),
            6 => proptest::collection::vec(outgoing(model), 2..8).prop_map(Operation::Send),
            2 => proptest::collection::vec(outgoing(model), 20..40).prop_map(Operation::Send),
            8 => (registered(), page(model))
                .prop_map(|(owner, page)| Operation::Page { owner, page }),
            2 => follow.prop_map(|(owner, after, received_only)| Operation::Follow {
                owner,
                after,
                received_only,
            }),
            2 => (registered(), cursor(model))
                .prop_map(|(owner, through)| Operation::Acknowledge { owner, through }),
            2 => prop_oneof![Just(Restart::Clean), Just(Restart::Crash)]
                .prop_map(Operation::Restart),
        ]
        .boxed()
    }

    fn apply(mut model: Model, operation: &Operation) -> Model {
        // What the outcome must be is the concern of whoever holds a service against the model.
        match operation {
            Operation::Register { name, caller, address } => {
                let _ = model.register(*name, *caller, *address);
            }
            Operation::Send(batch) => {
                for outgoing in batch {
                    let _ = model.send(outgoing);
                }
            }
            Operation::Acknowledge { owner, through } => {
                let _ = model.acknowledge(*owner, *through);
            }
            Operation::LookUp { .. }
            | Operation::Page { .. }
            | Operation::Follow { .. }
            | Operation::Restart(_) => {}
        }
        model
    }

    /// Whoever acts is registered: the operation that did it may have been taken away.
    fn preconditions(model: &Model, operation: &Operation) -> bool {
        match operation {
            Operation::Register { caller, .. } => caller.is_none_or(|it| model.is_registered(it)),
            Operation::Send(batch) => batch.iter().all(|it| model.is_registered(it.from)),
            Operation::LookUp { caller: person, .. }
            | Operation::Page { owner: person, .. }
            | Operation::Follow { owner: person, .. }
            | Operation::Acknowledge { owner: person, .. } => model.is_registered(*person),
            Operation::Restart(_) => true,
        }
    }
}

fn anybody() -> BoxedStrategy<Person> {
    (0..NAMES.len()).boxed()
}

/// Few bodies, so that a repeated request id often has the same one and often another.
fn body() -> BoxedStrategy<Body> {
    let size = prop_oneof![4 => 1..4_usize, 1 => 1..100_usize];
    let text = (prop_oneof!["a", "ü"], size.clone())
        .prop_map(|(letter, size)| Body::Text(letter.repeat(size)));
    let data = (prop_oneof![Just(b'a'), Just(0xff)], size)
        .prop_map(|(byte, size)| Body::Data(vec![byte; size]));
    prop_oneof![2 => text, 1 => data].boxed()
}

fn content_type() -> BoxedStrategy<&'static str> {
    prop_oneof![4 => Just(""), 1 => Just("text/plain"), 1 => Just("a/b")].boxed()
}

/// A new message, or one whose request id was used: the same again, or with something else about it.
fn outgoing(model: &Model) -> BoxedStrategy<Outgoing> {
    let receiver = prop_oneof![9 => select(model.registered()), 1 => anybody()];
    let request_id = proptest::option::of(any::<u8>());
    let from = select(model.registered());
    let new = (from, receiver, body(), content_type(), request_id).prop_map(
        |(from, to, body, content_type, request_id)| Outgoing {
            from,
            to,
            body,
            content_type,
            request_id,
        },
    );
    let used = model.with_request_ids();
    if used.is_empty() {
        return new.boxed();
    }
    let other_body = (select(used.clone()), body()).prop_map(|(it, body)| Outgoing { body, ..it });
    let other_type = (select(used.clone()), content_type())
        .prop_map(|(it, content_type)| Outgoing { content_type, ..it });
    let other_receiver =
        (select(used.clone()), anybody()).prop_map(|(it, to)| Outgoing { to, ..it });
    let other_sender = (select(used.clone()), select(model.registered()))
        .prop_map(|(it, from)| Outgoing { from, ..it });
    prop_oneof![
        14 => new,
        5 => select(used),
        1 => other_body,
        1 => other_type,
        1 => other_receiver,
        1 => other_sender,
    ]
    .boxed()
}

/// Within some mailbox, at its ends, and beyond.
fn cursor(model: &Model) -> BoxedStrategy<i64> {
    prop_oneof![
        30 => 0..=model.longest(),
        2 => 0..model.longest() + 3,
        1 => Just(i64::MAX),
    ]
    .boxed()
}

fn page(model: &Model) -> BoxedStrategy<PageOf> {
    let start = (any::<bool>(), cursor(model))
        .prop_map(|(forward, at)| if forward { Start::After(at) } else { Start::Before(at) });
    let peer = proptest::option::of(prop_oneof![9 => select(model.registered()), 1 => anybody()]);
    let page_size = prop_oneof![1..8_usize, Just(1000_usize)];
    (start, peer, any::<bool>(), page_size)
        .prop_map(|(start, peer, received_only, page_size)| PageOf {
            start,
            peer,
            received_only,
            page_size,
        })
        .boxed()
}
