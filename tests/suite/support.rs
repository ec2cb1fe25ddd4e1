//! What the tests say often.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use peerpost::proto::{
    ListUsersRequest, Message, SendMessageRequest, SubscribeRequest, subscribe_request,
};
use peerpost::testing::{TestUser, body_text};
use prost_types::Timestamp;

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_peerpost"))
}

pub(crate) fn sequences(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| message.sequence).collect()
}

pub(crate) fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(body_text).collect()
}

/// Asserts that these are the entries `first`, `first` + 1, … without a hole or a duplicate.
#[track_caller]
pub(crate) fn assert_dense_from(first: i64, messages: &[Message]) {
    for (expected, message) in (first..).zip(messages) {
        assert_eq!(message.sequence, expected, "a hole or a duplicate");
    }
}

/// Asserts that two readers saw the same, and says where they first differ.
#[track_caller]
pub(crate) fn assert_same_view(left: &[Message], right: &[Message]) {
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right);
    }
    assert_eq!(left.len(), right.len());
}

pub(crate) fn with_id(request: SendMessageRequest, request_id: &str) -> SendMessageRequest {
    SendMessageRequest { request_id: request_id.to_owned(), ..request }
}

pub(crate) fn with_type(request: SendMessageRequest, content_type: &str) -> SendMessageRequest {
    SendMessageRequest { content_type: content_type.to_owned(), ..request }
}

pub(crate) fn subscribe_after(sequence: i64) -> SubscribeRequest {
    let start = Some(subscribe_request::Start::AfterSequence(sequence));
    SubscribeRequest { start, ..Default::default() }
}

pub(crate) fn subscribe_from_now() -> SubscribeRequest {
    let start = Some(subscribe_request::Start::FromNow(true));
    SubscribeRequest { start, ..Default::default() }
}

pub(crate) fn list(prefix: &str, page_size: i32, page_token: &str) -> ListUsersRequest {
    ListUsersRequest { prefix: prefix.into(), page_size, page_token: page_token.into() }
}

pub(crate) fn seconds(count: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: count, nanos: 0 }
}

/// A time as one comparable number of microseconds.
pub(crate) fn micros(time: Option<&Timestamp>) -> i64 {
    let time = time.expect("the time is set");
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

/// The present as the server's clock, this machine's, shows it.
pub(crate) fn now_micros() -> i64 {
    peerpost::domain::Timestamp::now().as_micros()
}

/// The last sequence of a user's mailbox.
pub(crate) async fn last_sequence(user: &TestUser) -> i64 {
    user.get(peerpost::testing::after(0)).await.expect("the mailbox can be read").last_sequence
}

/// The SQLite file in a data folder.
pub(crate) fn database_in(data_dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(data_dir).expect("the folder can be read");
    let mut paths = files.map(|file| file.expect("the folder can be read").path());
    let found = paths.find(|path| {
        std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"))
    });
    found.expect("a database in the folder")
}

/// Copies the files of a data folder that nobody has open; a folder that is not there is made.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder can be made");
    for file in std::fs::read_dir(from).expect("the folder can be read") {
        let file = file.expect("the folder can be read");
        // A server that was killed leaves its admin socket behind.
        if !file.file_type().expect("it has a type").is_file() {
            continue;
        }
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a file can be copied");
    }
}

/// Lets this process open as many files as it may; how many that is.
pub(crate) fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Some free port of this machine.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a program is started through that may then open as many files as it may.
pub(crate) const WITH_MANY_FILES: [&str; 4] =
    ["sh", "-c", "ulimit -n $(ulimit -H -n); exec \"$@\"", "sh"];
