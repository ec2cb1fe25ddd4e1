//! A database of an earlier version: brought up to date with a backup first, and nothing lost. One of a
//! later version is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::proto::{ErrorReason, Message, message, send_message_request};
use peerpost::testing::{ServerProcess, TestUser, after, refused, text_to};
use serde_json::Value;

use crate::cli_support::Machine;
use crate::support::{assert_dense_from, binary, micros, subscribe_after, with_id, with_type};

/// The database that the first version's own server left, and the mailboxes as it served them.
const DATABASE: &str = include_str!("../upgrade/first_version.sql");
const MAILBOXES: &str = include_str!("../upgrade/first_version.jsonl");

const EPOCH: &str = "ece18e419a0f4bb6ab6cabe1623a8f7e";
const ALICE_ACKNOWLEDGED: i64 = 38;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The migrations in their order, by name.
fn migrations() -> Vec<String> {
    let folders = fs::read_dir(root().join("migrations")).expect("the migrations are there");
    let name = |it: std::io::Result<fs::DirEntry>| it.expect("an entry").file_name();
    let mut names: Vec<_> =
        folders.map(|it| name(it).into_string().expect("a name in UTF-8")).collect();
    names.sort();
    names
}

fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("peerpost.db")
}

fn execute(database: &Path, statements: &str) {
    SqliteConnection::establish(database.to_str().expect("UTF-8"))
        .expect("opens")
        .batch_execute(statements)
        .expect("executes");
}

/// A data folder of the first version, with the first `more` of the later migrations.
fn data_folder(more: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = database(folder.path());
    // A dump has the tables in the order of their names.
    execute(&file, &format!("PRAGMA foreign_keys = OFF;\n{DATABASE}"));
    for name in migrations().iter().skip(1).take(more) {
        let path = root().join("migrations").join(name).join("up.sql");
        execute(&file, &fs::read_to_string(path).expect("a migration can be read"));
        let (day, _) = name.split_once('_').expect("a version and a name");
        let version = day.replace('-', "");
        execute(
            &file,
            &format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')"),
        );
    }
    folder
}

/// The users whom the database holds, with their tokens.
async fn users(server: &ServerProcess) -> BTreeMap<String, TestUser> {
    // Only for its connection.
    let anybody = server.user("anybody").await;
    let tokens = DATABASE.lines().filter_map(|line| line.strip_prefix("-- token "));
    tokens
        .map(|line| {
            let (name, token) = line.split_once(' ').expect("a name and a token");
            let mut user = anybody.clone();
            name.clone_into(&mut user.name);
            token.clone_into(&mut user.token);
            (user.name.clone(), user)
        })
        .collect()
}

/// The mailboxes as the first version served them, by their owners' names in lower case.
fn mailboxes() -> BTreeMap<String, Vec<Value>> {
    let mut mailboxes = BTreeMap::<_, Vec<_>>::new();
    for line in MAILBOXES.lines() {
        let entry: Value = serde_json::from_str(line).expect("an object a line");
        let owner = entry["owner"].as_str().expect("a name").to_lowercase();
        mailboxes.entry(owner).or_default().push(entry);
    }
    mailboxes
}

#[track_caller]
fn assert_is(message: &Message, expected: &Value) {
    let text = |key: &str| expected[key].as_str().unwrap_or_default();
    assert_eq!(Some(message.sequence), expected["sequence"].as_i64());
    assert_eq!(message.message_id, text("message_id"));
    assert_eq!(message.from_user, text("from_user"));
    assert_eq!(message.to_user, text("to_user"));
    assert_eq!(message.request_id, text("request_id"));
    let time: jiff::Timestamp = text("send_time").parse().expect("a time");
    assert_eq!(micros(message.send_time.as_ref()), time.as_microsecond());
    if let Some(content_type) = expected["content_type"].as_str() {
        assert_eq!(message.content_type, content_type);
    }
    match message.body.as_ref().expect("a body") {
        message::Body::Text(body) => assert_eq!(body, text("text")),
        message::Body::Data(body) => {
            let data = STANDARD.decode(text("data_base64"));
            assert_eq!(*body, data.expect("base64"));
        }
    }
}

/// Sends a message of a mailbox again, as its sender did.
async fn send_again(sender: &TestUser, stored: &Message) -> Message {
    let body = match stored.body.clone().expect("a body") {
        message::Body::Text(text) => send_message_request::Body::Text(text),
        message::Body::Data(data) => send_message_request::Body::Data(data),
    };
    let mut request = text_to(&stored.to_user, "");
    request.body = Some(body);
    let request = with_type(with_id(request, &stored.request_id), &stored.content_type);
    sender.try_send(request).await.expect("the same again is no error")
}

async fn assert_nothing_is_lost(server: &ServerProcess) {
    let users = users(server).await;
    assert_eq!(users.len(), 3);
    let mut repeated = 0;
    for (name, expected) in mailboxes() {
        let user = &users[&name];
        let mailbox = user.mailbox().await;
        assert_eq!(mailbox.len(), expected.len(), "{name}'s mailbox is whole");
        assert_dense_from(1, &mailbox);
        for (message, expected) in mailbox.iter().zip(&expected) {
            assert_is(message, expected);
            if message.from_user.eq_ignore_ascii_case(&name) && !message.request_id.is_empty() {
                let again = send_again(user, message).await;
                assert_eq!(again.message_id, message.message_id, "the first one");
                repeated += 1;
            }
        }
        assert_eq!(user.mailbox().await, mailbox, "nothing new was stored");
        let page = user.get(after(0)).await.expect("a page");
        assert_eq!(page.epoch, EPOCH, "cursors stay good");
    }
    assert!(repeated > 35, "only {repeated} messages have a request id");

    // Acknowledging less says where it stands.
    let alice = &users["alice"];
    let stands = alice.acknowledge(1).await.expect("acknowledged");
    assert_eq!(stands, ALICE_ACKNOWLEDGED);
    let mut live = alice.follow(39).await;
    let sent = users["bob"].send("alice", "to the new version").await;
    assert_eq!(live.next_message().await.message_id, sent.message_id);
}

#[tokio::test]
async fn the_first_version_s_data_is_served_whole_after_the_upgrade() {
    let folder = data_folder(0);
    let server = ServerProcess::start(binary(), folder.path()).await;
    assert_nothing_is_lost(&server).await;
    // And again, from what the upgrade left behind.
    server.kill();
    let server = ServerProcess::start(binary(), folder.path()).await;
    let data = folder.path().to_str().expect("UTF-8");
    let machine = Machine::new("http://127.0.0.1:1");
    let checked = machine.ok(&["admin", "check", "--data-dir", data]).await;
    assert!(checked.contains("nothing is wrong"), "{checked}");
    server.kill();
}

/// As it was before each of the later migrations.
#[tokio::test]
async fn every_later_state_of_the_tables_is_brought_up_to_date() {
    for more in 1..migrations().len() {
        let folder = data_folder(more);
        let server = ServerProcess::start(binary(), folder.path()).await;
        assert_nothing_is_lost(&server).await;
        server.kill();
    }
}

#[tokio::test]
async fn a_backup_comes_before_the_first_migration_and_only_then() {
    let folder = data_folder(0);
    let kept = folder.path().join(format!("backups/before-{}.db", migrations()[1]));
    let server = ServerProcess::start(binary(), folder.path()).await;
    let told = server.stderr();
    assert!(told.contains("INFO") && told.contains(kept.to_str().expect("UTF-8")), "{told}");
    server.kill();
    let before = fs::read(&kept).expect("the backup is there");
    let server = ServerProcess::start(binary(), folder.path()).await;
    server.kill();
    let backups = folder.path().join("backups");
    let files = || fs::read_dir(&backups).expect("the folder is there").count();
    assert_eq!(files(), 1, "a start without migrations makes none");
    assert_eq!(fs::read(&kept).expect("it is there"), before);

    // It is what was there: the first version's tables, and from it all comes back.
    let machine = Machine::new("http://127.0.0.1:1");
    let restored = folder.path().join("restored");
    let words = [&kept, &restored].map(|path| path.to_str().expect("UTF-8"));
    let checked = machine.run(&["admin", "check", "--file", words[0]]).await;
    checked.fails(1, &["earlier version of peerpost", "hint: that version can check it"]);
    machine.ok(&["admin", "restore", words[0], "--data-dir", words[1]]).await;
    let none = folder.path().join("none.db");
    fs::write(&none, "no database, and long enough to be seen as none".repeat(20))
        .expect("written");
    let none = none.to_str().expect("UTF-8");
    let outcome = machine.run(&["admin", "restore", none, "--data-dir", "elsewhere"]).await;
    outcome.fails(1, &["nothing was restored", &format!("{none}: file is not a database")]);

    let server = ServerProcess::start(binary(), &restored).await;
    let alice = &users(&server).await["alice"];
    assert_eq!(alice.mailbox().await.len(), 39);
    let mut cursor = subscribe_after(1);
    cursor.epoch = EPOCH.to_owned();
    refused(alice.subscribe(cursor).await, ErrorReason::EpochMismatch);
    server.kill();
}

/// What cannot be backed up is not migrated, until it is told to.
#[tokio::test]
async fn without_a_place_for_the_backup_nothing_is_changed() {
    let folder = data_folder(0);
    fs::write(folder.path().join("backups"), "a file in the way").expect("written");
    let tables = || {
        let bytes = fs::read(database(folder.path())).expect("the database");
        String::from_utf8_lossy(&bytes).contains("CREATE TABLE mailbox_entries")
    };
    let exit = ServerProcess::fail_to_start(binary(), folder.path()).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("no backup could be made before the upgrade"), "{exit:?}");
    assert!(exit.stderr.contains("--upgrade-without-backup"), "{exit:?}");
    assert!(tables(), "the first version can go on with it");

    let flags = ["--upgrade-without-backup"];
    let server = ServerProcess::start_with(&[], binary(), folder.path(), &flags).await;
    assert_nothing_is_lost(&server).await;
    server.kill();
    assert!(folder.path().join("backups").is_file());
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start(binary(), folder.path()).await;
    server.user("alice").await.send("alice", "note").await;
    server.kill();
    let file = database(folder.path());
    execute(
        &file,
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231235959');
         PRAGMA wal_checkpoint(TRUNCATE)",
    );
    let bytes = fs::read(&file).expect("the database");
    let exit = ServerProcess::fail_to_start(binary(), folder.path()).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("written by a newer version"), "{exit:?}");
    assert!(exit.stderr.contains("99991231235959"), "{exit:?}");
    assert!(exit.stderr.contains("hint: `peerpost --version`"), "{exit:?}");
    assert!(fs::read(&file).expect("the database") == bytes, "nothing was changed");

    execute(&file, "DELETE FROM __diesel_schema_migrations WHERE version = '99991231235959'");
    let server = ServerProcess::start(binary(), folder.path()).await;
    server.kill();
}
