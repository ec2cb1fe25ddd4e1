//! What keeps a server from starting is said together with the command that helps, and nothing is deleted.

use std::fs;
use std::path::Path;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::testing::ServerProcess;

use crate::cli_support::Machine;
use crate::support::{binary, database_in};

fn execute(folder: &Path, statements: &str) {
    let database = database_in(folder);
    SqliteConnection::establish(database.to_str().expect("UTF-8"))
        .expect("opens")
        .batch_execute(statements)
        .expect("executes");
}

/// A folder with some messages, merged into the indexes, and a server that is gone.
async fn used_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags = ["--merge-messages", "8"];
    let server = ServerProcess::start_with(&[], binary(), folder.path(), &flags).await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note", 32).await;
    // Merging rides on the commits after it.
    for _ in 0..8 {
        alice.send("alice", "note").await;
    }
    server.kill();
    folder
}

/// Why no server starts on a folder, in which everything stays as it is.
async fn refusal(folder: &Path) -> String {
    let database = database_in(folder);
    let before = fs::read(&database).expect("the database");
    let exit = ServerProcess::fail_to_start(binary(), folder).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(fs::read(&database).expect("the database") == before, "nothing was changed");
    exit.stderr
}

#[tokio::test]
async fn a_folder_in_use_names_the_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start(binary(), folder.path()).await;
    let told = refusal(folder.path()).await;
    assert!(told.contains(&format!("hint: `ps -p {}`", server.id())), "{told}");
    let data = folder.path().to_str().expect("UTF-8");
    let rebuild = ["admin", "rebuild-index", "--data-dir", data];
    let outcome = Machine::new("http://127.0.0.1:1").run(&rebuild).await;
    outcome.fails(1, &["the indexes are as they were", "in use", "hint: `ps -p"]);
    server.kill();
}

#[tokio::test]
async fn a_damaged_index_names_the_command_that_makes_it_again() {
    let folder = used_folder().await;
    let data = folder.path().to_str().expect("UTF-8");
    execute(
        folder.path(),
        "DELETE FROM mailbox_runs WHERE first_sequence = 1; PRAGMA wal_checkpoint(TRUNCATE)",
    );
    let told = refusal(folder.path()).await;
    let command = format!("peerpost admin rebuild-index --data-dir {data}");
    assert!(told.contains("is damaged") && told.contains(&command), "{told}");
    assert!(told.contains(&format!("`peerpost admin check --data-dir {data}`")), "{told}");

    let machine = Machine::new("http://127.0.0.1:1");
    let outcome = machine.run(&["admin", "rebuild-index", "--data-dir", data]).await;
    assert!(outcome.stderr.contains("copied 40 of 40 messages"), "{outcome:?}");
    assert!(outcome.stderr.contains("indexed 40 of 40 messages"), "{outcome:?}");
    let done = outcome.ok();
    assert!(done.contains("the indexes of 40 messages are made again"), "{done}");
    assert!(folder.path().join("backups/before-rebuild-index.db").is_file());
    let checked = machine.ok(&["admin", "check", "--data-dir", data]).await;
    assert!(checked.contains("nothing is wrong"), "{checked}");
    let server = ServerProcess::start(binary(), folder.path()).await;
    let bob = server.user("bob").await;
    bob.send("alice", "the next").await;
    server.kill();
}

#[tokio::test]
async fn a_damaged_log_names_the_backup() {
    let folder = used_folder().await;
    execute(
        folder.path(),
        "DELETE FROM message_log WHERE position = 3; DELETE FROM pending_entries;
         UPDATE index_state SET merged_through = 0, merging_through = 0, checksum = NULL;
         PRAGMA wal_checkpoint(TRUNCATE)",
    );
    let told = ServerProcess::fail_to_start(binary(), folder.path()).await.stderr;
    assert!(told.contains("the row of the log at position 3"), "{told}");
    assert!(told.contains("`peerpost admin restore BACKUP --data-dir NEW`"), "{told}");
    assert!(!told.contains("rebuild-index"), "which would not help: {told}");
    let data = folder.path().to_str().expect("UTF-8");
    let rebuild = ["admin", "rebuild-index", "--data-dir", data];
    let outcome = Machine::new("http://127.0.0.1:1").run(&rebuild).await;
    assert!(outcome.code == Some(1) && outcome.stderr.contains("position 3"), "{outcome:?}");
    assert!(!folder.path().join("backups/before-rebuild-index.db").exists());
}

#[tokio::test]
async fn what_is_no_database_is_left_as_it_is_and_the_backup_named() {
    let folder = used_folder().await;
    let database = database_in(folder.path());
    for name in ["peerpost.db-wal", "peerpost.db-shm"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    let text = "this is not a database, and long enough to be seen as none".repeat(10);
    fs::write(&database, &text).expect("the file can be written");
    let exit = ServerProcess::fail_to_start(binary(), folder.path()).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("file is not a database"), "{exit:?}");
    assert!(exit.stderr.contains("`peerpost admin restore BACKUP"), "{exit:?}");
    assert_eq!(fs::read_to_string(&database).expect("the file"), text);
}

#[tokio::test]
async fn a_port_in_use_names_who_listens() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = held.local_addr().expect("an address").to_string();
    let machine = Machine::new("http://127.0.0.1:1");
    let outcome = machine.run(&["serve", "--data-dir", "data", "--listen", &place]).await;
    outcome.fails(1, &["cannot listen on", &place, "hint: ", "`ss -ltnp`"]);
    let absent = machine.run(&["admin", "rebuild-index", "--data-dir", "absent"]).await;
    absent.fails(1, &["absent", "hint: is that the data folder?"]);
}

/// A page of an index that is garbage keeps nothing from being rebuilt: it is not read for that.
#[tokio::test]
async fn an_index_whose_pages_are_garbage_is_made_again() {
    let folder = used_folder().await;
    execute(folder.path(), "PRAGMA wal_checkpoint(TRUNCATE)");
    let database = database_in(folder.path());
    let mut bytes = fs::read(&database).expect("the database");
    let page_bytes = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    let mut pages = 0;
    for table in ["mailbox_runs", "request_keys", "pending_entries"] {
        let page = root_page(folder.path(), table);
        bytes[(page - 1) * page_bytes..page * page_bytes].fill(0xa5);
        pages += 1;
    }
    assert_eq!(pages, 3);
    fs::write(&database, &bytes).expect("the database can be written");
    let told = refusal(folder.path()).await;
    assert!(told.contains("rebuild-index"), "{told}");

    let machine = Machine::new("http://127.0.0.1:1");
    let data = folder.path().to_str().expect("UTF-8");
    machine.ok(&["admin", "rebuild-index", "--data-dir", data]).await;
    let checked = machine.ok(&["admin", "check", "--data-dir", data]).await;
    assert!(checked.contains("40 messages") && checked.contains("nothing is wrong"), "{checked}");
    let kept = fs::read(folder.path().join("backups/before-rebuild-index.db")).expect("kept");
    assert!(kept == bytes, "the damaged file, as it was");
}

fn root_page(folder: &Path, table: &str) -> usize {
    use diesel::RunQueryDsl as _;
    use diesel::sql_types::BigInt;
    #[derive(diesel::QueryableByName)]
    struct Root {
        #[diesel(sql_type = BigInt)]
        rootpage: i64,
    }
    let database = database_in(folder);
    let mut connection =
        SqliteConnection::establish(database.to_str().expect("UTF-8")).expect("opens");
    let query = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'");
    let root: Root = diesel::sql_query(query).get_result(&mut connection).expect("the table");
    usize::try_from(root.rootpage).expect("a page")
}
