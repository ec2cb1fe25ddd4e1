use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{TestUser, eventually, here, within_patience};

/// What stands in the line in which the ready server says its address.
const READY: &str = "listen";

/// The real binary, serving a folder: for tests that kill it. It ends with the value.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    addr: SocketAddr,
    stderr: Arc<Mutex<String>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl ServerProcess {
    /// Starts `binary serve` on a data folder and a free port, and waits until it listens.
    pub async fn start(binary: &Path, data_dir: &Path) -> Self {
        Self::start_with(&[], binary, data_dir, &[]).await
    }

    /// [`start`](Self::start) with more flags, and through another program: `wrapper` and its
    /// arguments come before the binary's. It must become the binary (`exec`), so that what is
    /// signalled and ended is the server.
    pub async fn start_with(
        wrapper: &[&str],
        binary: &Path,
        data_dir: &Path,
        flags: &[&str],
    ) -> Self {
        Self::ready(spawn(&mut serve(wrapper, binary, data_dir, flags))).await
    }

    /// Starts the test binary that this is as the server: see
    /// [`server_process!`](crate::server_process). It ends with this process, however that ends.
    pub async fn start_here(data_dir: &Path) -> Self {
        Self::ready(spawn(&mut here::command(data_dir))).await
    }

    async fn ready(mut child: Child) -> Self {
        let stderr = Arc::default();
        let ready = watch(&mut child, Arc::clone(&stderr));
        // Made before the wait, so that a server which never gets ready is ended as well.
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { child, addr, stderr };
        let ready = within_patience("the server getting ready", ready).await.ok();
        process.addr = ready.unwrap_or_else(|| panic!("the server ended: {}", process.stderr()));
        process
    }

    /// Starts `binary serve` on a data folder where it cannot run, and waits for its end.
    pub async fn fail_to_start(binary: &Path, data_dir: &Path) -> Exit {
        let mut child = spawn(&mut serve(&[], binary, data_dir, &[]));
        let stderr = Arc::default();
        let ready = watch(&mut child, Arc::clone(&stderr));
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let process = Self { child, addr, stderr };
        let ready = within_patience("the server's end", ready).await;
        assert!(ready.is_err(), "the server started: {}", process.stderr());
        process.exit().await
    }

    /// The address that the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The id of the server's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Registers a new user.
    pub async fn user(&self, name: &str) -> TestUser {
        TestUser::register(self.addr, name).await
    }

    /// What the server wrote to stderr until now.
    pub fn stderr(&self) -> String {
        lock(&self.stderr).clone()
    }

    /// Ends the process as a crash does (SIGKILL), and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks the process to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Has the process read its certificates again (SIGHUP).
    pub fn reload(&self) {
        self.signal("-HUP");
    }

    /// Freezes the process (SIGSTOP): it is there, and does nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn unpause(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("`kill` can be run").success(), "`kill {signal} {pid}` failed");
    }

    /// Waits for the process to end by itself.
    pub async fn exit(mut self) -> Exit {
        let status = eventually("the process's end", async || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .await;
        Exit { code: status.code(), stderr: self.stderr() }
    }

    /// The memory that the process holds, in bytes: its resident set, as Linux counts it.
    #[cfg(target_os = "linux")]
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB"));
        let kib = kib.expect("the status has a line VmRSS in kB").trim();
        kib.parse::<u64>().expect("a number of KiB") * 1024
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Fails only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(wrapper: &[&str], binary: &Path, data_dir: &Path, flags: &[&str]) -> Command {
    let mut words = wrapper.iter().map(OsStr::new).chain([binary.as_os_str()]);
    let mut command = Command::new(words.next().expect("the binary, if nothing else"));
    command.args(words).args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data_dir).args(flags).stdin(Stdio::null());
    command
}

fn spawn(command: &mut Command) -> Child {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary can be started")
}

/// Collects what the child writes, to the end so that it never blocks on a full pipe. The answer is
/// the address that it says it listens on; an error when it ends without.
fn watch(child: &mut Child, stderr: Arc<Mutex<String>>) -> oneshot::Receiver<SocketAddr> {
    let (ready, receiver) = oneshot::channel();
    let ready = Arc::new(Mutex::new(Some(ready)));
    let pipe = child.stdout.take().expect("stdout is piped");
    collect("a server's stdout", pipe, Arc::default(), Arc::clone(&ready));
    let pipe = child.stderr.take().expect("stderr is piped");
    collect("a server's stderr", pipe, stderr, ready);
    receiver
}

/// Reads lines in a thread of their own, which ends with the child, when the pipe closes.
fn collect(
    name: &str,
    pipe: impl Read + Send + 'static,
    text: Arc<Mutex<String>>,
    ready: Arc<Mutex<Option<oneshot::Sender<SocketAddr>>>>,
) {
    let read = move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            *lock(&text) += &(line.clone() + "\n");
            if let Some(addr) = address_in(&line)
                && let Some(ready) = lock(&ready).take()
            {
                // The receiver is gone only when the test has failed already.
                let _ = ready.send(addr);
            }
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(read).expect("a thread can be started");
}

/// The address in a line that says where the server listens.
fn address_in(line: &str) -> Option<SocketAddr> {
    let is_of_an_address = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
    let mut words = line.split(|c| !is_of_an_address(c));
    words
        .find_map(|word| word.trim_start_matches(':').parse().ok())
        .filter(|_| line.contains(READY))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
