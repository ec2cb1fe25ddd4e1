//! The binary as a person at a terminal runs it, with a configuration folder of its own.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use peerpost::testing::eventually;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::binary;

/// A machine from which a server is used.
pub(crate) struct Machine {
    folder: TempDir,
    server: String,
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Machine {
    pub(crate) fn new(server: impl Display) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, server: server.to_string() }
    }

    /// Where the tokens are kept; not there before the first.
    pub(crate) fn config_dir(&self) -> PathBuf {
        self.folder.path().join("home/config")
    }

    /// A command that knows nothing of the environment but this machine's.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("PEERPOST_")) {
            command.env_remove(name);
        }
        command
            .args(args)
            .env("PEERPOST_CONFIG_DIR", self.config_dir())
            .env("PEERPOST_SERVER", &self.server)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Outcome {
        self.start(args).end().await
    }

    /// Runs a command with one more variable in its environment.
    pub(crate) async fn run_with(&self, name: &str, value: &str, args: &[&str]) -> Outcome {
        let mut command = self.command(args);
        command.env(name, value);
        Running::start(command).end().await
    }

    pub(crate) async fn run_with_stdin(&self, stdin: &[u8], args: &[&str]) -> Outcome {
        let mut command = self.command(args);
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        let mut pipe = running.child.stdin.take().expect("stdin is piped");
        pipe.write_all(stdin).expect("the command reads its stdin");
        drop(pipe);
        running.end().await
    }

    /// Runs a command that succeeds, and returns its stdout.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        self.run(args).await.ok()
    }

    /// Runs a command that succeeds and prints a JSON object a line.
    pub(crate) async fn json(&self, args: &[&str]) -> Vec<Value> {
        parse(&self.ok(args).await)
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary can be started");
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(collect(pipe, Arc::clone(&stdout)));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(collect(pipe, Arc::clone(&stderr)));
        }
        Self { child, stdout, stderr, readers }
    }

    /// Its stdin, when it was started with a pipe as that.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits for the command to end by itself.
    pub(crate) async fn end(mut self) -> Outcome {
        let status = eventually("the command's end", async || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .await;
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader does not panic");
        }
        let (stdout, stderr) = (lock(&self.stdout).clone(), lock(&self.stderr).clone());
        Outcome { code: status.code(), stdout, stderr }
    }

    /// Asks the command to end (SIGTERM), and waits until it has.
    pub(crate) async fn terminate(self) -> Outcome {
        self.signal("-TERM");
        self.end().await
    }

    /// Sends it a signal, as `kill` names it.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("`kill` can be run").success(), "`kill {signal} {pid}` failed");
    }

    /// Waits until it has printed so many lines, and returns them.
    pub(crate) async fn lines(&self, count: usize) -> Vec<String> {
        eventually("lines on stdout", async || {
            let lines: Vec<_> = lock(&self.stdout).lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }

    /// Waits until a line of stderr contains `text`.
    pub(crate) async fn notes(&self, text: &str) {
        eventually(text, async || lock(&self.stderr).contains(text).then_some(())).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// Asserts that it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Asserts that it failed with this code, printed no data, and said these on stderr.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        for text in says {
            assert!(self.stderr.contains(text), "no {text:?} in {self:?}");
        }
    }
}

/// A JSON object a line.
#[track_caller]
pub(crate) fn parse(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Reads whole lines to the end, in a thread that ends with the child, when the pipe closes.
fn collect(pipe: impl Read + Send + 'static, text: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = String::new();
        while pipe.read_line(&mut line).is_ok_and(|count| count > 0) {
            lock(&text).push_str(&line);
            line.clear();
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
