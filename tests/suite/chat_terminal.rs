//! A terminal that a test holds: a command runs in it, keys are typed, and the screen is read as a
//! person would see it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use peerpost::testing::eventually;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use vt100::Parser;

use crate::cli_support::Machine;
use crate::support::binary;

/// The rows of history that a terminal keeps: none is looked at.
const SCROLLBACK_ROWS: usize = 0;

/// A command in a terminal. It ends with the value.
pub(crate) struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<Parser>>,
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Runs the binary with this machine's environment in a terminal of this size.
    pub(crate) fn start(machine: &Machine, args: &[&str], columns: u16, rows: u16) -> Self {
        let pair = native_pty_system().openpty(size(columns, rows)).expect("a terminal");
        let mut command = CommandBuilder::new(binary());
        command.args(args);
        command.env_clear();
        // As the machine's other commands, and as a terminal would say what it is.
        for (name, value) in machine.command(args).get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let inherited =
            |name: &str| std::env::var_os(name).map(|value| (OsString::from(name), value));
        for (name, value) in ["PATH", "HOME"].into_iter().filter_map(inherited) {
            command.env(name, value);
        }
        command.env("TERM", "xterm-256color");
        command.env("TZ", "UTC");
        let child = pair.slave.spawn_command(command).expect("the binary can be started");
        // Only the command holds it from here on: when it ends, so does what is read.
        drop(pair.slave);
        let screen = Arc::new(Mutex::new(Parser::new(rows, columns, SCROLLBACK_ROWS)));
        let output = Arc::new(Mutex::new(Vec::new()));
        let from = pair.master.try_clone_reader().expect("a terminal can be read");
        let reader = read(from, Arc::clone(&screen), Arc::clone(&output));
        let keyboard = pair.master.take_writer().expect("a terminal can be typed at");
        Self { master: pair.master, keyboard, child, screen, output, reader: Some(reader) }
    }

    /// Types these bytes.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal can be typed at");
        self.keyboard.flush().expect("a terminal can be typed at");
    }

    /// Types a line and Enter.
    pub(crate) fn type_line(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        lock(&self.screen).screen_mut().set_size(rows, columns);
        self.master.resize(size(columns, rows)).expect("a terminal can be resized");
    }

    /// The screen's rows, without the spaces at their ends.
    pub(crate) fn rows(&self) -> Vec<String> {
        let screen = lock(&self.screen);
        let (_, columns) = screen.screen().size();
        screen.screen().rows(0, columns).map(|row| row.trim_end().to_owned()).collect()
    }

    /// Waits until the screen is as this says.
    pub(crate) async fn shows(&self, what: &str, is_shown: impl Fn(&[String]) -> bool) {
        let waited = format!("a screen with {what}");
        let shown = eventually(&waited, async || is_shown(&self.rows()).then_some(()));
        tokio::select! {
            biased;
            () = shown => {}
            // A moment before patience ends: a screen tells more than a wait that hangs.
            () = tokio::time::sleep(peerpost::testing::patience() * 9 / 10) => {
                panic!("no {what} on:\n{}", self.rows().join("\n"));
            }
        }
    }

    /// Waits until a row has this in it.
    pub(crate) async fn shows_text(&self, text: &str) {
        self.shows(&format!("{text:?}"), |rows| rows.iter().any(|row| row.contains(text))).await;
    }

    /// Whether the command has a screen of its own at this moment.
    pub(crate) fn is_on_own_screen(&self) -> bool {
        lock(&self.screen).screen().alternate_screen()
    }

    /// Everything that was written to the terminal.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&lock(&self.output)).into_owned()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.process_id().expect("the process runs")
    }

    /// Waits for the command to end by itself, and returns its exit code.
    pub(crate) async fn end(&mut self) -> u32 {
        let status = eventually("the command's end", async || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .await;
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        status.exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads in a thread that ends with the command, when the terminal closes.
fn read(
    mut from: Box<dyn Read + Send>,
    screen: Arc<Mutex<Parser>>,
    output: Arc<Mutex<Vec<u8>>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            lock(&screen).process(&bytes[..count]);
            lock(&output).extend_from_slice(&bytes[..count]);
        }
    })
}

fn size(columns: u16, rows: u16) -> PtySize {
    PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
