//! `peerpost import-flask`: everything of the app's database is here afterwards, once, or is told.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::client::{Client, Message, PageRequest, Token};
use peerpost::testing::{ServerProcess, TestServer};
use tempfile::TempDir;

use crate::cli_support::{Machine, Outcome};
use crate::client_support::{assert_dense_from, texts};
use crate::support::binary;

/// The tables as the app makes them.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY,
        from_user TEXT,
        to_user TEXT,
        message TEXT,
        timestamp DATETIME DEFAULT CURRENT_TIMESTAMP
    );
    CREATE TABLE IF NOT EXISTS users (
        username TEXT PRIMARY KEY,
        ip_address TEXT
    );";

const TWO_USERS: &str = "
    INSERT INTO users VALUES ('Alice', '192.0.2.7'), ('bob', '192.0.2.8:9000');
    INSERT INTO messages (from_user, to_user, message, timestamp) VALUES
        ('Alice', 'bob', 'one', '2024-04-06 12:00:05'),
        ('bob', 'Alice', 'two', '2024-04-06 12:00:01'),
        ('Alice', 'Alice', 'three', '2024-04-06 12:00:03');
    INSERT INTO messages (from_user, to_user, message) VALUES ('bob', 'Alice', 'four');";

/// The app's database, a machine on which it is imported, and the data folder that it goes to.
struct Scene {
    folder: TempDir,
    machine: Machine,
}

impl Scene {
    fn new(statements: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scene = Self { folder, machine: Machine::new("http://127.0.0.1:50051") };
        scene.app(SCHEMA);
        scene.app(statements);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// What the app does in its database.
    fn app(&self, statements: &str) {
        let database = self.text("p2p_messaging.db");
        let mut connection = SqliteConnection::establish(&database).expect("opens");
        connection.batch_execute(statements).expect("executes");
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let (database, data, tokens) =
            (self.text("p2p_messaging.db"), self.text("data"), self.text("tokens"));
        let all = ["import-flask", &database, "--data-dir", &data, "--tokens", &tokens];
        all.iter().chain(more).map(|it| (*it).to_owned()).collect()
    }

    async fn import(&self, more: &[&str]) -> Outcome {
        let arguments = self.arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.machine.run(&arguments).await
    }

    /// A server on the data folder.
    async fn serve(&self) -> TestServer {
        let data = self.path("data");
        TestServer::start_with(|options| options.data_dir = data).await
    }

    fn token(&self, name: &str) -> Token {
        let text = fs::read_to_string(self.path("tokens").join(format!("{name}.token")));
        Token::parse(&text.expect("the file is there")).expect("a token")
    }

    async fn mailbox(&self, server: &TestServer, name: &str) -> Vec<Message> {
        mailbox(&client(server, &self.token(name))).await
    }

    fn token_files(&self) -> Vec<String> {
        let files = fs::read_dir(self.path("tokens")).expect("the folder is there");
        let name = |file: std::io::Result<fs::DirEntry>| file.expect("a file").file_name();
        let mut names: Vec<_> =
            files.map(|file| name(file).into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

fn client(server: &TestServer, token: &Token) -> Client {
    Client::connect(&server.uri()).expect("a server").with_token(token)
}

async fn mailbox(client: &Client) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let after = messages.last().map_or(0, |last| last.sequence);
        let page = client.messages(PageRequest::after(after).page_size(1000)).await;
        let page = page.expect("the mailbox can be read");
        messages.extend(page.messages);
        if !page.has_more {
            assert_dense_from(1, &messages);
            return messages;
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

/// The lines that begin with this word.
fn lines<'a>(stdout: &'a str, word: &str) -> Vec<&'a str> {
    stdout.lines().filter(|line| line.starts_with(word)).collect()
}

#[tokio::test]
async fn users_and_messages_are_taken_over_in_order_with_their_times() {
    let scene = Scene::new(TWO_USERS);
    let before = fs::read(scene.path("p2p_messaging.db")).expect("is there");
    let stdout = scene.import(&[]).await.ok();
    assert!(stdout.contains("users     2 new, 0 already there, 0 not imported"), "{stdout}");
    assert!(stdout.contains("messages  4 imported, 0 already there, 0 not imported"), "{stdout}");
    assert_eq!(fs::read(scene.path("p2p_messaging.db")).expect("is there"), before);

    let server = scene.serve().await;
    let alice = scene.mailbox(&server, "alice").await;
    assert_eq!(texts(&alice), ["one", "two", "three", "four"]);
    let senders: Vec<_> = alice.iter().map(|message| message.from_user.as_str()).collect();
    assert_eq!(senders, ["Alice", "bob", "Alice", "bob"]);
    let noon = UNIX_EPOCH + Duration::from_hours(475_668);
    for (message, seconds) in alice.iter().zip([5, 1, 3]) {
        assert_eq!(message.send_time, noon + Duration::from_secs(seconds));
    }
    assert_eq!(texts(&scene.mailbox(&server, "bob").await), ["one", "two", "four"]);
    let bob = client(&server, &scene.token("alice")).user("bob").await.expect("is there");
    assert_eq!(bob.ip_address, "192.0.2.8:9000");

    let sent = client(&server, &scene.token("bob")).send("alice", "five").await.expect("sent");
    assert_eq!(sent.sequence, 4, "the mailbox goes on where the import ended");
}

#[tokio::test]
async fn tokens_are_kept_for_their_owner_where_the_other_commands_look() {
    let scene = Scene::new(TWO_USERS);
    let (database, data) = (scene.text("p2p_messaging.db"), scene.text("data"));
    scene.machine.ok(&["import-flask", &database, "--data-dir", &data]).await;
    let kept = scene.machine.config_dir().join("127.0.0.1_50051");
    assert_eq!((mode(&kept), mode(&kept.join("alice.token"))), (0o700, 0o600));

    let server = scene.serve().await;
    // As if the server had the port that the command took for its own.
    let folder = format!("127.0.0.1_{}", server.addr().port());
    fs::rename(&kept, scene.machine.config_dir().join(folder)).expect("can be renamed");
    let inbox = scene.machine.ok(&["--server", &server.uri(), "--as", "alice", "inbox"]).await;
    assert!(inbox.contains("four"), "{inbox}");
}

#[tokio::test]
async fn a_second_import_adds_only_what_is_new() {
    let scene = Scene::new(TWO_USERS);
    scene.import(&[]).await.ok();
    let token = scene.token("alice");
    let again = scene.import(&[]).await.ok();
    assert!(again.contains("users     0 new, 2 already there, 0 not imported"), "{again}");
    assert!(again.contains("messages  0 imported, 4 already there, 0 not imported"), "{again}");
    assert_eq!(again.lines().count(), 2, "{again}");

    // Registering again gives the app's row another number; an id can come again for another message.
    scene.app(
        "INSERT OR REPLACE INTO users VALUES ('Alice', '192.0.2.9'), ('carol', '192.0.2.10');
         DELETE FROM messages WHERE id = 4;
         INSERT INTO messages (from_user, to_user, message) VALUES ('carol', 'Alice', 'other');",
    );
    // The tokens may be with their owners by now.
    fs::remove_dir_all(scene.path("tokens")).expect("can be removed");
    let more = scene.import(&[]).await.ok();
    assert!(more.contains("users     1 new, 2 already there, 0 not imported"), "{more}");
    assert!(more.contains("messages  1 imported, 3 already there, 0 not imported"), "{more}");
    assert_eq!(scene.token_files(), ["carol.token"]);

    let server = scene.serve().await;
    let alice = mailbox(&client(&server, &token)).await;
    assert_eq!(texts(&alice), ["one", "two", "three", "four", "other"]);
}

/// Cut off where nobody reads on what it says: the pipe is full in the middle of the messages.
#[tokio::test]
async fn what_is_cut_off_goes_on_without_a_gap_or_a_duplicate() {
    let scene = Scene::new(
        "INSERT INTO users VALUES ('alice', '::1'), ('bob', '::1');
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO messages (from_user, to_user, message)
         SELECT 'alice', 'bob', CASE WHEN i BETWEEN 5001 AND 15000 THEN '' ELSE i END FROM n;",
    );
    let arguments = scene.arguments(&[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = scene.machine.command(&arguments).spawn().expect("can be started");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("can be read");
    assert!(line.contains("message 5001: its text is empty"), "{line}");
    // Ten thousand such lines are more than a pipe holds.
    assert!(child.try_wait().expect("can be asked").is_none(), "it waits for its reader");
    child.kill().expect("can be killed");
    child.wait().expect("can be waited for");

    let outcome = scene.import(&[]).await;
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("10000 rows were not imported"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("users     0 new, 2 already there"), "{}", outcome.stderr);
    let server = scene.serve().await;
    let mailbox = scene.mailbox(&server, "bob").await;
    let expected: Vec<_> = (1..=5000).chain(15_001..=20_000).map(|i: u32| i.to_string()).collect();
    assert_eq!(texts(&mailbox), expected);
}

/// As a kill leaves it between the file and the registration.
#[tokio::test]
async fn a_token_whose_user_was_not_entered_yet_becomes_theirs() {
    let scene = Scene::new(TWO_USERS);
    let token = peerpost::domain::Token::mint().reveal();
    fs::create_dir(scene.path("tokens")).expect("can be made");
    fs::write(scene.path("tokens/alice.token"), format!("{token}\n")).expect("can be written");
    scene.import(&[]).await.ok();
    assert_eq!(scene.token("alice").reveal(), token);
    let server = scene.serve().await;
    assert_eq!(scene.mailbox(&server, "alice").await.len(), 4);
}

#[tokio::test]
async fn what_is_not_as_it_should_be_is_taken_over_as_far_as_it_can_be_and_told() {
    let scene = Scene::new(
        "INSERT INTO users VALUES
            ('Bob', 'localhost'), ('bob', NULL), ('bob smith', '192.0.2.7'), ('', '192.0.2.7'),
            (NULL, '192.0.2.7'), ('\u{202e}李', '::1'), (x'ff', '::1');
         INSERT INTO messages (from_user, to_user, message, timestamp) VALUES
            ('Bob', 'bob', 'to the other bob', '2024-04-06 12:00:05'),
            ('bob', 'Bob', 'back', 'yesterday'),
            ('bob smith', 'nobody', 'to one who never registered', NULL),
            (NULL, 'bob', 'x', NULL), ('bob', '', 'x', NULL),
            ('Bob', 'bob smith', '', NULL), ('Bob', 'bob smith', NULL, NULL),
            ('Bob', 'bob smith', zeroblob(1048577), NULL),
            ('Bob', 'bob smith', x'00ff', NULL), ('Bob', 'bob smith', CAST(x'61ff' AS TEXT), NULL),
            ('Bob', 'bob smith', 5, 1700000000);",
    );
    let outcome = scene.import(&[]).await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("7 rows were not imported"), "{outcome:?}");
    let said = &outcome.stdout;
    assert_eq!(lines(said, "not imported  row").len(), 2, "{said}");
    for (id, problem) in [
        (4, "its from_user is NULL"),
        (5, "its to_user is empty"),
        (6, "its text is empty"),
        (7, "its text is NULL"),
        (8, "its text is over 1048576 bytes"),
    ] {
        assert!(said.contains(&format!("not imported  message {id}: {problem}")), "{said}");
    }
    assert_eq!(lines(said, "renamed").len(), 4, "{said}");
    assert_eq!(lines(said, "no address").len(), 2, "{said}");
    assert_eq!(lines(said, "added"), ["added         nobody, whom only messages name"], "{said}");
    assert!(said.contains("times     5 messages"), "{said}");
    assert!(!said.contains('\u{202e}'), "nothing turns the text around it");

    let files = scene.token_files();
    let other_bob = files
        .iter()
        .find_map(|file| Some(file.strip_suffix(".token")?).filter(|it| it.starts_with("bob-")));
    let smith = files.iter().find_map(|file| {
        Some(file.strip_suffix(".token")?).filter(|it| it.starts_with("bob_smith-"))
    });
    let (other_bob, smith) = (other_bob.expect("renamed"), smith.expect("renamed"));
    assert_eq!(files.len(), 6, "{files:?}");

    let again = scene.import(&[]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(lines(&again.stdout, "not imported").len(), 7, "they are told again");
    assert!(again.stdout.contains("messages  0 imported, 6 already there"), "{again:?}");
    assert_eq!(scene.token_files(), files);

    let server = scene.serve().await;
    let bob = scene.mailbox(&server, "bob").await;
    assert_eq!((bob[0].from_user.as_str(), bob[0].to_user.as_str()), ("Bob", other_bob));
    assert_eq!(bob[1].from_user, other_bob);
    let smith = scene.mailbox(&server, smith).await;
    let bodies: Vec<_> = smith.iter().map(|message| message.body.as_bytes()).collect();
    assert_eq!(bodies[0], b"to one who never registered");
    assert_eq!(bodies[1..], [&[0, 0xff][..], &[b'a', 0xff], b"5"]);
    assert!(smith[1].body.as_text().is_none(), "bytes stay bytes");
}

#[tokio::test]
async fn a_name_that_somebody_has_here_is_left_to_them() {
    let scene = Scene::new(TWO_USERS);
    // alice registered from this machine, which has her token; bob from elsewhere.
    let mut server = scene.serve().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    server.stop().await;
    fs::create_dir(scene.path("tokens")).expect("can be made");
    fs::write(scene.path("tokens/alice.token"), &alice.token).expect("can be written");

    let stdout = scene.import(&[]).await.ok();
    let renamed = lines(&stdout, "renamed");
    assert!(renamed.len() == 1 && renamed[0].contains("\"bob\" is bob-"), "{stdout}");
    assert!(stdout.contains("users     1 new, 1 already there"), "{stdout}");
    server.start_again().await;
    assert_eq!(alice.at(server.addr()).mailbox().await.len(), 4);
    assert_eq!(bob.at(server.addr()).mailbox().await.len(), 0);
}

#[tokio::test]
async fn a_name_that_somebody_has_here_is_theirs_there_if_one_says_so() {
    let scene = Scene::new(TWO_USERS);
    scene.app("INSERT INTO users VALUES ('BOB', '::1')");
    let mut server = scene.serve().await;
    let bob = server.user("bob").await;
    server.stop().await;
    let stdout = scene.import(&["--into-existing"]).await.ok();
    // One of the two that differ in case alone; the other is somebody else.
    assert_eq!(lines(&stdout, "renamed").len(), 1, "{stdout}");
    assert!(stdout.contains("users     2 new, 1 already there"), "{stdout}");
    server.start_again().await;
    assert_eq!(bob.at(server.addr()).mailbox().await.len(), 3);
}

#[tokio::test]
async fn a_folder_in_use_is_left_alone_and_it_says_what_to_do() {
    let scene = Scene::new(TWO_USERS);
    let server = ServerProcess::start(binary(), &scene.path("data")).await;
    let stop = format!("kill -TERM {}", server.id());
    scene.import(&[]).await.fails(1, &["in use", &stop]);
    assert!(!scene.path("tokens").exists());
}

#[tokio::test]
async fn another_database_is_refused_before_anything_is_made() {
    let scene = Scene::new("DROP TABLE messages");
    scene.import(&[]).await.fails(1, &["is not the database of the Flask app", "`messages`"]);
    fs::remove_file(scene.path("p2p_messaging.db")).expect("can be removed");
    scene.import(&[]).await.fails(1, &["p2p_messaging.db", "No such file"]);
    assert!(!scene.path("data").exists() && !scene.path("tokens").exists());
}

/// The app was killed in a transaction: what of it is in the file has to be undone, and not by reading.
#[tokio::test]
async fn a_write_that_was_cut_off_is_not_read() {
    let scene = Scene::new(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO messages (from_user, to_user, message) SELECT 'a', 'b', i FROM n;",
    );
    let mut app = SqliteConnection::establish(&scene.text("p2p_messaging.db")).expect("opens");
    let write = "PRAGMA cache_size = 2; BEGIN; UPDATE messages SET message = 'unfinished';";
    app.batch_execute(write).expect("executes");
    for file in ["p2p_messaging.db", "p2p_messaging.db-journal"] {
        fs::copy(scene.path(file), scene.path(&format!("killed-{file}"))).expect("can be copied");
    }
    let killed = scene.text("killed-p2p_messaging.db");
    let outcome = scene.machine.run(&["import-flask", &killed]).await;
    outcome.fails(1, &["cut off while it wrote", "p2p_messaging.db-journal", "start it once"]);
}

#[tokio::test]
async fn a_reader_who_leaves_does_not_end_the_import() {
    let scene = Scene::new(TWO_USERS);
    scene.app("INSERT INTO users VALUES ('a b', '::1'), ('a c', '::1')");
    let arguments = scene.arguments(&[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = scene.machine.command(&arguments).spawn().expect("can be started");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("can be waited for").code(), Some(0));
    let server = scene.serve().await;
    assert_eq!(scene.mailbox(&server, "alice").await.len(), 4);
}
