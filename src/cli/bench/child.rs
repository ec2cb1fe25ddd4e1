//! Processes that the bench starts: servers that share nothing with it but the machine.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a server may take until it listens.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// How a ready server begins the line that says where it listens.
const READY: &str = "peerpost listens on ";

/// A server in a process of its own. It ends with the value, however the bench ends.
pub(super) struct ServerProcess {
    child: Child,
    uri: String,
    /// When the process was started.
    pub(super) started: Instant,
}

impl ServerProcess {
    /// Serves a data folder.
    pub(super) async fn serve(data_dir: &Path) -> anyhow::Result<Self> {
        Self::start(serve(Command::new(this_binary()?), data_dir)).await
    }

    /// Serves a data folder with more flags.
    pub(super) async fn serve_with(data_dir: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let mut command = serve(Command::new(this_binary()?), data_dir);
        command.args(flags);
        Self::start(command).await
    }

    /// Serves a data folder under `strace`, which counts the syncs into `log`. `None`: there is no
    /// `strace`, or it may not trace.
    pub(super) async fn serve_traced(data_dir: &Path, log: &Path) -> anyhow::Result<Option<Self>> {
        let trace = ["-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o"];
        let works = Command::new("strace")
            .args(trace)
            .arg(log)
            .arg("true")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !works.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let mut command = Command::new("strace");
        // The tracee is the bench's direct child, which it ends by its id; the tracer is detached.
        command.arg("-D").args(trace).arg(log).arg(this_binary()?);
        Self::start(serve(command, data_dir)).await.map(Some)
    }

    /// Serves answers that nothing was done for; see [`noop`](super::noop).
    pub(super) async fn noop(mailbox_messages: u64, body_bytes: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(this_binary()?);
        command.arg(super::noop::COMMAND);
        command.args(["--mailbox-messages", &mailbox_messages.to_string()]);
        command.args(["--body-bytes", &body_bytes.to_string()]);
        Self::start(command).await
    }

    async fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // Its warnings are for the one who looks on; that it stops is no news.
        command.env("PEERPOST_LOG", "warn");
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        // Made before the wait, so that a server which never gets ready is ended as well.
        let mut process = Self { child, uri: String::new(), started };
        let stdout = process.child.stdout.take().context("its stdout is a pipe")?;
        let (sender, receiver) = oneshot::channel();
        // Ends with the child, when the pipe closes.
        std::thread::Builder::new().name("bench-child".into()).spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let uri = lines.find_map(|line| line.strip_prefix(READY).map(str::to_owned));
            // Gone when the bench was stopped meanwhile.
            let _ = sender.send(uri);
            lines.for_each(drop);
        })?;
        process.uri = timeout(START_DEADLINE, receiver)
            .await
            .map_err(|_| anyhow!("{command:?} did not listen within {START_DEADLINE:?}"))??
            .ok_or_else(|| anyhow!("{command:?} ended before it listened; see what it wrote"))?;
        Ok(process)
    }

    /// Where it listens.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// The memory that it holds: its resident set, as Linux counts it. `None` elsewhere.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    /// Ends it as a crash does, and waits until it is gone.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Fails only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.end();
    }
}

fn this_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the program that runs, to start it as a server")
}

fn serve(mut command: Command, data_dir: &Path) -> Command {
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
    command
}

/// A folder that ends with the value.
pub(super) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Makes one in `parent`.
    pub(super) fn make(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("peerpost-bench-{:016x}", getrandom::u64()?));
        fs::create_dir(&path).with_context(|| {
            format!("cannot make a folder in {}; --folder names another", parent.display())
        })?;
        Ok(Self(path))
    }

    /// The path of a file or folder in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The type of the file system that it is on, such as `ext4`. `None` where that is not known.
    pub(super) fn file_system(&self) -> Option<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let path = self.0.canonicalize().ok()?;
        let mounts = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((PathBuf::from(fields.next()?), fields.next()?.to_owned()))
        });
        let over = mounts.filter(|(point, _)| path.starts_with(point));
        // The last of the deepest is what stands on top.
        over.max_by_key(|(point, _)| point.components().count()).map(|(_, kind)| kind)
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever clears the system's temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files that a process may have open, as Linux limits them. `None` elsewhere.
pub(super) fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many syncs a log of `strace` holds.
pub(super) fn syncs_in(log: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(log).context("cannot read what strace wrote")?;
    if text.is_empty() {
        bail!("strace wrote nothing");
    }
    let calls = text.lines().filter(|line| line.contains("sync(") && !line.contains("resumed"));
    Ok(calls.count() as u64)
}
