//! The server's settings: one TOML file, then the environment, then flags.

use std::fs;
use std::path::{Path, PathBuf};

use peerpost::client::{Client, ErrorReason};
use peerpost::testing::ServerProcess;

use crate::cli_support::{Machine, Running};
use crate::support::binary;

/// A machine without a server, and a file for settings in a folder of its own.
struct Scene {
    machine: Machine,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scene = Self { machine: Machine::new("http://127.0.0.1:1"), folder };
        fs::write(scene.path(), settings).expect("the file can be written");
        scene
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("settings.toml")
    }

    fn file(&self) -> String {
        self.path().to_str().expect("UTF-8").to_owned()
    }

    /// What `peerpost config` prints with these variables and flags, without the head.
    async fn shown(&self, variables: &[(&str, &str)], flags: &[&str]) -> String {
        let mut command = self.machine.command(&["config"]);
        command.args(["--config", &self.file()]).args(flags).envs(variables.iter().copied());
        Running::start(command).end().await.ok()
    }
}

/// The line of a setting, with one space where there are many.
#[track_caller]
fn line_of(shown: &str, key: &str) -> String {
    let begins = [format!("{key} = "), format!("# {key} is not set ")];
    let line = shown.lines().find(|line| begins.iter().any(|begin| line.starts_with(begin)));
    let line = line.unwrap_or_else(|| panic!("no {key} in {shown}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value of each kind: a number, a switch, a list, a path, one word of several, an address.
#[tokio::test]
async fn flags_go_before_the_environment_and_that_before_the_file() {
    let scene = Scene::new("");
    let file = scene.file();
    for (key, default, in_file, variable, in_environment, shown_environment, flag, shown_flag) in [
        (
            "drain-deadline-ms",
            "drain-deadline-ms = 8000 # default",
            "1000",
            "PEERPOST_DRAIN_DEADLINE_MS",
            "2000",
            "2000",
            "--drain-deadline-ms=3000",
            "3000",
        ),
        ("open", "open = false # default", "true", "PEERPOST_OPEN", "0", "false", "--open", "true"),
        (
            "plaintext-beyond-loopback",
            "plaintext-beyond-loopback = false # default",
            "true",
            "PEERPOST_PLAINTEXT_BEYOND_LOOPBACK",
            "yes",
            "true",
            "--plaintext-beyond-loopback=false",
            "false",
        ),
        (
            "listen",
            "listen = [\"127.0.0.1:50051\"] # default",
            "['127.0.0.1:1', 'unix:/s']",
            "PEERPOST_LISTEN",
            "127.0.0.1:2,[::1]:3",
            "[\"127.0.0.1:2\", \"[::1]:3\"]",
            "--listen=systemd",
            "[\"systemd\"]",
        ),
        (
            "data-dir",
            "data-dir = \"peerpost-data\" # default",
            "'in file'",
            "PEERPOST_DATA_DIR",
            "in \"env\"",
            "'in \"env\"'",
            "--data-dir=flag",
            "\"flag\"",
        ),
        (
            "log-format",
            "log-format = \"text\" # default",
            "'json'",
            "PEERPOST_LOG_FORMAT",
            "text",
            "\"text\"",
            "--log-format=json",
            "\"json\"",
        ),
        (
            "metrics-listen",
            "# metrics-listen is not set # default: nowhere",
            "'127.0.0.1:4'",
            "PEERPOST_METRICS_LISTEN",
            "127.0.0.1:5",
            "\"127.0.0.1:5\"",
            "--metrics-listen=127.0.0.1:6",
            "\"127.0.0.1:6\"",
        ),
    ] {
        fs::write(scene.path(), "").expect("the file can be written");
        assert_eq!(line_of(&scene.shown(&[], &[]).await, key), default);

        fs::write(scene.path(), format!("\n{key} = {in_file}\n")).expect("the file is written");
        let shown = line_of(&scene.shown(&[], &[]).await, key);
        assert!(shown.ends_with(&format!("# {file}:2")), "{shown}");
        let value = |text: &str| text.parse::<toml::Table>().expect("TOML").get(key).cloned();
        assert_eq!(value(&shown), value(&format!("{key} = {in_file}")), "{shown}");

        let variables = [(variable, in_environment)];
        let shown = line_of(&scene.shown(&variables, &[]).await, key);
        assert_eq!(shown, format!("{key} = {shown_environment} # {variable}"));

        let shown = line_of(&scene.shown(&variables, &[flag]).await, key);
        assert_eq!(shown, format!("{key} = {shown_flag} # --{key}"));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_named_and_nothing_is_started() {
    let scene = Scene::new("# settings\nwrokers = 2\nworkers = 2000\nopen = 'yes'\n");
    let file = scene.file();
    let says = [
        format!("{file}:2: there is no setting `wrokers`; did you mean `workers`?"),
        format!("{file}:3: workers = 2000: must be 1 to 1024"),
        format!("{file}:4: open: must be true or false, and is a TOML string"),
        "hint: `peerpost config --example`".to_owned(),
    ];
    let says: Vec<_> = says.iter().map(String::as_str).collect();
    for command in ["serve", "config"] {
        scene.machine.run(&[command, "--config", &file]).await.fails(2, &says);
        scene.machine.run_with("PEERPOST_CONFIG", &file, &[command]).await.fails(2, &says);
    }
    // A bad value is one, whether it counts or not.
    let replaced = ["config", "--config", &file, "--workers=1", "--open"];
    scene.machine.run(&replaced).await.fails(2, &says);

    let absent = ["serve", "--config", "absent.toml"];
    scene.machine.run(&absent).await.fails(2, &["cannot read absent.toml", "No such file"]);
    fs::write(scene.path(), "workers = \n").expect("the file can be written");
    scene.machine.run(&["config", "--config", &file]).await.fails(2, &[&format!("{file}:1: ")]);
}

#[tokio::test]
async fn a_bad_value_in_the_environment_is_refused_not_taken_for_yes() {
    let scene = Scene::new("");
    for (variable, value) in
        [("PEERPOST_OPEN", "maybe"), ("PEERPOST_WORKERS", "0"), ("PEERPOST_LOG", "a=b=c")]
    {
        let outcome = scene.machine.run_with(variable, value, &["config"]).await;
        outcome.fails(2, &["invalid value", value]);
    }
}

/// Flags that need another find it in the file, and those of the file need it as well.
#[tokio::test]
async fn what_belongs_together_may_come_from_several_places() {
    let scene = Scene::new("tls-cert = 'cert.pem'\n");
    let file = scene.file();
    let outcome = scene.machine.run(&["serve", "--config", &file]).await;
    outcome.fails(2, &["--tls-key", &format!("some of the flags are from {file}")]);
    let shown = scene.shown(&[], &["--tls-key", "key.pem"]).await;
    assert_eq!(line_of(&shown, "tls-key"), "tls-key = \"key.pem\" # --tls-key");
    assert_eq!(line_of(&shown, "tls-cert"), format!("tls-cert = \"cert.pem\" # {file}:1"));
}

#[tokio::test]
async fn what_is_printed_can_be_used_as_a_file() {
    let scene = Scene::new(
        "listen = ['127.0.0.1:1', 'unix:/s']\ndata-dir = \"a 'quoted' \\\"folder\\\"\"\nworkers = 3\n",
    );
    let first = scene.shown(&[("PEERPOST_DRAIN_DEADLINE_MS", "7")], &["--open"]).await;
    fs::write(scene.path(), &first).expect("the file can be written");
    let second = scene.shown(&[], &[]).await;
    let values = |text: &str| text.parse::<toml::Table>().expect("TOML");
    assert_eq!(values(&first), values(&second));
    assert_eq!(values(&first)["workers"].as_integer(), Some(3));
    assert_eq!(values(&first)["open"].as_bool(), Some(true));

    let example = scene.machine.ok(&["config", "--example"]).await;
    assert_eq!(values(&example), toml::Table::new(), "every line of it is a comment");
}

#[tokio::test]
async fn a_check_says_whether_a_server_could_start() {
    let scene = Scene::new("listen = ['127.0.0.1:0']\n");
    let file = scene.file();
    let check = ["config", "--check", "--config", &file];
    assert_eq!(scene.machine.ok(&check).await, "");
    fs::write(scene.path(), "listen = ['0.0.0.0:0']\n").expect("the file can be written");
    scene.machine.run(&check).await.fails(1, &["--plaintext-beyond-loopback"]);
    fs::write(scene.path(), "tls-cert = 'absent.pem'\ntls-key = 'absent.pem'\n").expect("written");
    scene.machine.run(&check).await.fails(1, &["absent.pem"]);
    assert!(!Path::new("peerpost-data").exists(), "nothing is made");
}

#[tokio::test]
async fn a_server_starts_from_a_file() {
    let scene = Scene::new("");
    let data = scene.folder.path().join("data");
    let settings = format!(
        "listen = ['127.0.0.1:0']\ndata-dir = {:?}\nopen = true\nbody-bytes-max = 5\n",
        data.to_str().expect("UTF-8"),
    );
    fs::write(scene.path(), settings).expect("the file can be written");
    let running = scene.machine.start(&["serve", "--config", &scene.file()]);
    let lines = running.lines(1).await;
    let uri = lines[0].rsplit(' ').next().expect("the server's URI").to_owned();
    running.notes("this server is OPEN").await;
    let client = Client::connect(&uri).expect("a URI");
    let registered = client.register("alice", "192.0.2.7").await;
    let (_, token) = registered.expect("registers");
    let client = client.with_token(&token.expect("a new name's token"));
    client.send("alice", "12345").await.expect("within the limit");
    let refused = client.send("alice", "123456").await.expect_err("over the limit");
    assert_eq!(refused.reason(), Some(ErrorReason::BodyTooLarge), "{refused}");
    assert!(data.is_dir());
    assert_eq!(running.terminate().await.code, Some(0));
}

/// The commands on a server's data find it by the server's file.
#[tokio::test]
async fn admin_commands_find_the_data_by_the_same_file() {
    let scene = Scene::new("");
    let data = scene.folder.path().join("data");
    let server = ServerProcess::start(binary(), &data).await;
    server.user("alice").await;
    let (file, data) = (scene.file(), data.to_str().expect("UTF-8").to_owned());
    fs::write(scene.path(), format!("data-dir = {data:?}\nworkers = 2\n")).expect("written");
    let machine = &scene.machine;
    let first = machine.ok(&["admin", "check", "--config", &file]).await;
    assert!(first.contains("1 users"), "{first}");
    let again = machine.run_with("PEERPOST_CONFIG", &file, &["admin", "check"]).await.ok();
    assert_eq!(again, first);
    let elsewhere = ["admin", "--config", &file, "check", "--data-dir", "absent"];
    machine.run(&elsewhere).await.fails(1, &["absent"]);
    server.kill();
}
