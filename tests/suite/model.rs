//! The service held against a small model of it under random operations: at the store, and through
//! gRPC. What is answered must be what the model says, to the last sequence and error.
//!
//! A difference is made as small as it goes and printed with its operations; its seed is kept in
//! `tests/proptest-regressions/`. `PROPTEST_CASES=10000 cargo test --test suite model` looks longer.

use proptest::test_runner::{Config, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tokio::runtime::Runtime;

use crate::model_grpc::Server;
use crate::model_operations::{Mailboxes, Operation, Restart};
use crate::model_reference::{
    Followed, Given, Model, Number, Outgoing, Page, PageOf, Person, Refused, Sight,
};
use crate::model_store::MergingStore;

/// Cases in an ordinary run of the suite: some seconds' worth.
const CASES_DEFAULT: u32 = 12;

const OPERATIONS_MAX: usize = 80;

/// What can be held against the model. It begins with those who are registered at the start.
pub(crate) trait Service: Sized + 'static {
    /// The size of bodies that ends a page.
    const PAGE_BYTES_MAX: usize;

    async fn start() -> Self;

    /// Registers, and returns whether the name is new.
    async fn register(
        &mut self,
        name: Person,
        caller: Option<Person>,
        address: u8,
    ) -> Result<bool, Refused>;

    /// The address of a user.
    async fn address(&mut self, caller: Person, name: Person) -> Result<u8, Refused>;

    /// Sends one after the other, without waiting for the answers in between.
    async fn send(&mut self, batch: &[Outgoing]) -> Vec<Result<Sight, Refused>>;

    async fn page(&mut self, owner: Person, page: PageOf) -> Result<Page<Sight>, Refused>;

    async fn follow(
        &mut self,
        owner: Person,
        after: Option<i64>,
        received_only: bool,
    ) -> Result<Followed<Sight>, Refused>;

    async fn acknowledge(&mut self, owner: Person, through: i64) -> Result<i64, Refused>;

    async fn restart(self, how: Restart) -> Self;

    async fn stop(self);
}

/// A service and the model, to both of which the same is done.
struct Both<S> {
    service: S,
    model: Model,
    /// What the service gave to each message when it was stored.
    given: Vec<Given>,
}

impl<S: Service> Both<S> {
    async fn start() -> Self {
        Self { service: S::start().await, model: Model::at_the_start(), given: Vec::new() }
    }

    async fn apply(mut self, operation: Operation) -> Self {
        match operation {
            Operation::Register { name, caller, address } => {
                let actual = self.service.register(name, caller, address).await;
                assert_eq!(actual, self.model.register(name, caller, address));
            }
            Operation::LookUp { caller, name } => {
                let actual = self.service.address(caller, name).await;
                assert_eq!(actual, self.model.address(name));
            }
            Operation::Send(batch) => self.send(&batch).await,
            Operation::Page { owner, page } => {
                let actual = self.service.page(owner, page).await;
                let expected = self.model.page(owner, page, S::PAGE_BYTES_MAX);
                let expected = expected.map(|Page { messages, has_more, first, last }| {
                    let messages = self.sights(owner, &messages);
                    Page { messages, has_more, first, last }
                });
                assert_eq!(actual, expected);
            }
            Operation::Follow { owner, after, received_only } => {
                self.follow(owner, after, received_only).await;
            }
            Operation::Acknowledge { owner, through } => {
                let actual = self.service.acknowledge(owner, through).await;
                assert_eq!(actual, self.model.acknowledge(owner, through));
            }
            Operation::Restart(how) => {
                self.service = self.service.restart(how).await;
                self.compare_all().await;
            }
        }
        self
    }

    async fn send(&mut self, batch: &[Outgoing]) {
        let actual = self.service.send(batch).await;
        assert_eq!(actual.len(), batch.len(), "an answer for each");
        for (outgoing, actual) in batch.iter().zip(actual) {
            let expected = self.model.send(outgoing);
            if let (Ok(number), Ok(sight)) = (&expected, &actual)
                && *number == self.given.len()
            {
                let ids = self.given.iter().map(|given| &given.id);
                assert!(!ids.into_iter().any(|id| *id == sight.given.id), "an id given twice");
                self.given.push(sight.given.clone());
            }
            let expected = expected.map(|number| self.sight(outgoing.from, number));
            assert_eq!(actual, expected, "{outgoing:?}");
        }
    }

    async fn follow(&mut self, owner: Person, after: Option<i64>, received_only: bool) {
        let actual = self.service.follow(owner, after, received_only).await;
        let expected = self.model.follow(owner, after, received_only);
        let expected = expected.map(|Followed { after, messages, last }| Followed {
            after,
            messages: self.sights(owner, &messages),
            last,
        });
        assert_eq!(actual, expected);
    }

    /// Everything that can be read, and every request id that was used.
    async fn compare_all(&mut self) {
        self.send(&self.model.with_request_ids()).await;
        for owner in self.model.registered() {
            self.follow(owner, Some(0), false).await;
            self.follow(owner, None, false).await;
            let actual = self.service.address(owner, owner).await;
            assert_eq!(actual, self.model.address(owner));
        }
    }

    fn sight(&self, owner: Person, number: Number) -> Sight {
        let given = self.given.get(number).expect("stored by the service too").clone();
        self.model.sight(owner, number, given)
    }

    fn sights(&self, owner: Person, numbers: &[Number]) -> Vec<Sight> {
        numbers.iter().map(|number| self.sight(owner, *number)).collect()
    }
}

/// The test of `S`, with the event loop that it lives on.
struct Machine<S>(std::marker::PhantomData<S>);

impl<S: Service> StateMachineTest for Machine<S> {
    type SystemUnderTest = (Runtime, Both<S>);
    type Reference = Mailboxes;

    fn init_test(_: &Model) -> Self::SystemUnderTest {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("an event loop");
        let both = runtime.block_on(Both::start());
        (runtime, both)
    }

    fn apply(
        (runtime, both): Self::SystemUnderTest,
        _: &Model,
        operation: Operation,
    ) -> Self::SystemUnderTest {
        let both = runtime.block_on(both.apply(operation));
        (runtime, both)
    }

    fn teardown((runtime, mut both): Self::SystemUnderTest, _: Model) {
        runtime.block_on(async {
            both.compare_all().await;
            both.service.stop().await;
        });
    }
}

/// Holds `S` against the model, in as many cases as `PROPTEST_CASES` says.
fn compare<S: Service>(test_name: &'static str) {
    let mut config =
        Config { source_file: Some(file!()), test_name: Some(test_name), ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES_DEFAULT;
    }
    let operations = Mailboxes::sequential_strategy(1..OPERATIONS_MAX);
    let mut runner = TestRunner::new(config.clone());
    let outcome = runner.run(&operations, |(initial, operations, seen)| {
        Machine::<S>::test_sequential(config.clone(), initial, operations, seen);
        Ok(())
    });
    if let Err(difference) = outcome {
        panic!("{difference}\n{runner}");
    }
}

#[test]
fn the_store_does_what_the_model_does() {
    compare::<MergingStore<7>>("model::the_store_does_what_the_model_does");
}

/// Each commit writes a slice of the merge under way that is enough for 32 messages.
#[test]
fn the_store_does_what_the_model_does_while_merges_take_several_commits() {
    compare::<MergingStore<100>>(
        "model::the_store_does_what_the_model_does_while_merges_take_several_commits",
    );
}

#[test]
fn the_server_does_what_the_model_does() {
    compare::<Server>("model::the_server_does_what_the_model_does");
}
