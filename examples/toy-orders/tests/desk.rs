//! The desk against a real server: one that crashes, over a network that is cut, and closed and opened
//! again itself.

use peerpost::client::{Client, PageRequest};
use peerpost::testing::{
    CrashServer, Loss, Proxy, RecordedUser, Recorder, TestServer, TestUser, eventually, text_to,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use toy_orders::{CursorFile, Desk, DeskError, Prices, reply};

// Lets this test binary be the server that crashes.
peerpost::server_process!();

fn prices() -> Prices {
    Prices::from([("teapot".to_owned(), 1995), ("cup".to_owned(), 450)])
}

/// A desk that is open until it is closed, in a task of its own. Its cursor outlives it.
struct Open {
    task: JoinSet<Result<(), DeskError>>,
}

impl Open {
    fn desk(client: &Client, folder: &TempDir) -> Self {
        let cursor = CursorFile::at(folder.path().join("cursor"));
        let desk = Desk::new(client.clone(), prices(), cursor);
        let mut task = JoinSet::new();
        task.spawn(async move { desk.run().await });
        Self { task }
    }

    /// Ends it as a crash does, wherever it is.
    async fn crash(mut self) {
        self.task.abort_all();
        let ended = self.task.join_next().await.expect("one task");
        assert!(ended.is_err(), "the desk had closed by itself: {ended:?}");
    }
}

/// The answers that a customer has received, once there are so many.
async fn answers(customer: &Client, count: usize) -> Vec<String> {
    let received = PageRequest::default().received_only(true).page_size(1000);
    eventually("the answers", async || {
        let page = customer.messages(received.clone()).await.expect("can be read");
        let text = |message: &peerpost::client::Message| {
            message.body.as_text().unwrap_or_default().to_owned()
        };
        (page.messages.len() >= count).then(|| page.messages.iter().map(text).collect())
    })
    .await
}

/// Asserts that nothing is answered any more: an order after all others gets the next answer.
async fn assert_no_more_than(customer: &Client, count: usize) {
    customer.send("desk", "1 cup").await.expect("sent");
    assert_eq!(answers(customer, count + 1).await.len(), count + 1);
}

#[tokio::test]
async fn an_order_is_answered() {
    let server = TestServer::start().await;
    let (desk, customer) = (server.client("desk").await, server.client("customer").await);
    let folder = TempDir::new().expect("a folder");
    customer.send("desk", "3 teapot").await.expect("sent");
    let _open = Open::desk(&desk, &folder);
    customer.send("desk", "a unicorn").await.expect("sent");
    let answers = answers(&customer, 2).await;
    assert_eq!(answers[0], "3 teapot: 59.85, on its way");
    assert!(answers[1].starts_with("cannot sell"), "{answers:?}");
}

/// The server stores the answer, and the desk is never told.
#[tokio::test]
async fn an_answer_whose_confirmation_is_lost_is_given_once() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let desk = server.user("desk").await.rust_client(&proxy.uri());
    let customer = server.client("customer").await;
    let folder = TempDir::new().expect("a folder");
    let _open = Open::desk(&desk, &folder);
    customer.send("desk", "1 cup").await.expect("sent");
    answers(&customer, 1).await;
    for (round, loss) in [Loss::Whole, Loss::AfterHeaders].into_iter().enumerate() {
        // One for following, one for sending, in whichever order they come.
        proxy.lose_answers(2, loss);
        proxy.cut();
        customer.send("desk", format!("{} teapot", round + 1)).await.expect("sent");
        answers(&customer, round + 2).await;
    }
    assert_no_more_than(&customer, 3).await;
}

#[tokio::test]
async fn orders_are_answered_over_crashes_of_the_server() {
    let mut server = CrashServer::start().await;
    let (desk, customer) = (server.client("desk").await, server.client("customer").await);
    let folder = TempDir::new().expect("a folder");
    let _open = Open::desk(&desk, &folder);
    for round in 0..5 {
        for count in 1..=10 {
            customer.send("desk", format!("{count} cup")).await.expect("sent in the end");
        }
        // Some of the ten are answered by now, and some are not.
        server.crash_and_start_again().await;
        answers(&customer, (round + 1) * 10).await;
    }
    assert_no_more_than(&customer, 50).await;
}

#[tokio::test]
async fn a_desk_that_is_opened_again_goes_on_where_it_was() {
    let server = TestServer::start().await;
    let (desk, customer) = (server.client("desk").await, server.client("customer").await);
    let folder = TempDir::new().expect("a folder");
    for round in 1..=5 {
        let open = Open::desk(&desk, &folder);
        customer.send("desk", format!("{round} cup")).await.expect("sent");
        answers(&customer, round).await;
        // Perhaps between the answer and the cursor.
        open.crash().await;
    }
    let _open = Open::desk(&desk, &folder);
    assert_no_more_than(&customer, 5).await;
}

#[tokio::test]
async fn a_desk_that_lost_its_cursor_answers_nothing_twice() {
    let server = TestServer::start().await;
    let (desk, customer) = (server.client("desk").await, server.client("customer").await);
    for count in 1..=5 {
        customer.send("desk", format!("{count} cup")).await.expect("sent");
    }
    for _ in 0..3 {
        let folder = TempDir::new().expect("a folder");
        let open = Open::desk(&desk, &folder);
        assert_eq!(answers(&customer, 5).await.len(), 5);
        // It has been through all of them again when its new cursor says so.
        let cursor = CursorFile::at(folder.path().join("cursor"));
        eventually("the cursor", async || {
            cursor.load().ok().filter(|cursor| cursor.sequence >= 5).map(drop)
        })
        .await;
        open.crash().await;
    }
    let folder = TempDir::new().expect("a folder");
    let _open = Open::desk(&desk, &folder);
    assert_no_more_than(&customer, 5).await;
}

/// Everything at once, and everything that the customers were told held against peerpost's promises.
#[tokio::test]
async fn under_crashes_and_cuts_every_order_has_one_answer_and_every_promise_is_kept() {
    const CUSTOMERS: usize = 4;
    const ROUNDS: usize = 6;
    let mut server = CrashServer::start().await;
    let recorder = Recorder::default();
    let at_the_desk = server.user("desk").await;
    let client = at_the_desk.rust_client(&server.uri());
    let at_the_desk = RecordedUser::new(&recorder, at_the_desk);
    let mut customers = Vec::new();
    for number in 0..CUSTOMERS {
        let user: TestUser = server.user(&format!("customer{number}")).await;
        customers.push(RecordedUser::new(&recorder, user));
    }
    let folder = TempDir::new().expect("a folder");
    let mut open = Open::desk(&client, &folder);
    for round in 0..ROUNDS {
        for (number, customer) in customers.iter().enumerate() {
            order(&at_the_desk, customer, round * CUSTOMERS + number).await;
        }
        match round % 3 {
            0 => server.crash_and_start_again().await,
            1 => server.proxy().cut(),
            _ => {
                open.crash().await;
                open = Open::desk(&client, &folder);
            }
        }
    }
    for customer in &customers {
        let stored = eventually("the answers", async || {
            customer.read_to_the_end().await.ok().filter(|stored| *stored >= 2 * ROUNDS)
        })
        .await;
        assert_eq!(stored, 2 * ROUNDS, "an answer for each order");
    }
    open.crash().await;
    // The desk's own mailbox is not part of the history: it would show the ids of sends that the desk made
    // and nobody recorded.
    for verdict in recorder.take().check() {
        assert!(verdict.is_kept(), "{verdict}");
        println!("{verdict}");
    }
}

/// Orders something that nobody else does, as often as it takes.
async fn order(desk: &RecordedUser, customer: &RecordedUser, number: usize) {
    let text = format!("{} cup", number + 1);
    // What the desk will say is known, and that it says it once: when, and whether it is told that it
    // did, is not.
    let answer = text_to(customer.name(), reply(&text, &prices()));
    let _ = desk.recorder().send_called(desk.no(), &answer, None);
    let mut request = text_to("desk", text);
    request.request_id = format!("order-{number}");
    eventually("the order", async || customer.send(request.clone()).await.ok()).await;
}
