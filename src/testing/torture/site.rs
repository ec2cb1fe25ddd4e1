//! Where a seed takes place: a server that is killed and started again, and two networks in front of
//! it, one of them rough.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::plan::{End, Fault, Round};
use crate::testing::{PowerDisk, Proxy, Recorder, ServerProcess, patience};

const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// How much went wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// SIGKILLs, of a frozen server too.
    pub kills: u64,
    /// Cuts of the disk's power.
    pub power_cuts: u64,
    /// SIGTERMs.
    pub stops: u64,
    /// SIGSTOPs that were followed by a SIGCONT.
    pub pauses: u64,
    /// Times that all connections of the rough network broke, or it stalled.
    pub network: u64,
    /// Answers that were lost with their connections.
    pub answers_lost: u64,
}

impl Faults {
    pub(super) fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.stops += other.stops;
        self.pauses += other.pauses;
        self.network += other.network;
        self.answers_lost += other.answers_lost;
    }
}

/// A server and the networks in front of it, whose addresses stay.
#[derive(Debug)]
pub(super) struct Site {
    binary: PathBuf,
    data_dir: PathBuf,
    merge_messages: String,
    server: Option<ServerProcess>,
    /// What the data folder is on, if its power is to be cut. Dropped after the server.
    disk: Option<PowerDisk>,
    /// Breaks only when the server does.
    pub(super) calm: Proxy,
    pub(super) rough: Proxy,
    pub(super) faults: Faults,
}

impl Site {
    /// On a folder within `home`, or on a disk there whose power can be cut.
    pub(super) async fn open(
        binary: PathBuf,
        home: &Path,
        disk: Option<PowerDisk>,
        merge_messages: usize,
    ) -> Self {
        let home = disk.as_ref().map_or_else(|| home.to_owned(), PowerDisk::path);
        let data_dir = home.join("data");
        let merge_messages = merge_messages.to_string();
        let server = serve(&binary, &data_dir, &merge_messages).await;
        let (calm, rough) = (Proxy::start(server.addr()).await, Proxy::start(server.addr()).await);
        Self {
            binary,
            data_dir,
            merge_messages,
            server: Some(server),
            disk,
            calm,
            rough,
            faults: Faults::default(),
        }
    }

    /// Lets a round go by: its faults in their order, its end, and the server's next start.
    ///
    /// # Errors
    /// When sends stop being answered for longer than anything should take.
    pub(super) async fn go_through(
        &mut self,
        round: &Round,
        recorder: &Recorder,
    ) -> Result<(), String> {
        let begin = recorder.sends_answered();
        for (after, fault) in &round.faults {
            answered(recorder, begin + after).await?;
            self.inflict(*fault).await;
        }
        answered(recorder, begin + round.sends).await?;
        sleep(round.pause_before_end).await;
        match round.end {
            End::None => {}
            end => self.restart(end).await,
        }
        Ok(())
    }

    async fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Pause(time) => {
                let server = self.server.as_ref().expect("it runs between rounds' ends");
                server.pause();
                sleep(time).await;
                server.unpause();
                self.faults.pauses += 1;
            }
            Fault::Cut => {
                self.rough.cut();
                self.faults.network += 1;
            }
            Fault::Stall(time) => {
                self.rough.stall();
                sleep(time).await;
                self.rough.resume();
                self.faults.network += 1;
            }
            Fault::LoseAnswers(count, loss) => self.rough.lose_answers(count, loss),
        }
    }

    /// Ends the server and starts it on the same folder.
    pub(super) async fn restart(&mut self, end: End) {
        let server = self.server.take().expect("it runs between rounds' ends");
        match end {
            End::Stop => {
                server.terminate();
                let exit = server.exit().await;
                assert_eq!(exit.code, Some(0), "it did not stop cleanly: {}", exit.stderr);
                self.faults.stops += 1;
            }
            End::Kill | End::KillFrozen | End::None => {
                if end == End::KillFrozen {
                    server.pause();
                }
                server.kill();
                self.faults.kills += 1;
            }
            End::PowerCut => {
                let disk = self.disk.as_mut().expect("there is one where power is to be cut");
                disk.cut(server).await;
                self.faults.power_cuts += 1;
            }
        }
        // Nothing was awaited since a kill: whoever connects now waits here for the next server, and
        // never meets a stranger's on the address that was given up.
        for network in [&self.calm, &self.rough] {
            network.stall();
        }
        let server = serve(&self.binary, &self.data_dir, &self.merge_messages).await;
        for network in [&self.calm, &self.rough] {
            network.retarget(server.addr());
            network.resume();
        }
        self.server = Some(server);
    }

    /// No answer is lost from now on.
    pub(super) fn calm_down(&mut self) {
        self.faults.answers_lost = self.rough.answers_lost() as u64;
        self.rough.lose_answers(0, crate::testing::Loss::Whole);
    }
}

async fn serve(binary: &Path, data_dir: &Path, merge_messages: &str) -> ServerProcess {
    // How long a stop waits for clients of a stalled network is no matter here.
    let flags = ["--merge-messages", merge_messages, "--drain-deadline-ms", "300"];
    ServerProcess::start_with(&[], binary, data_dir, &flags).await
}

/// Waits until so many sends were answered.
async fn answered(recorder: &Recorder, count: usize) -> Result<(), String> {
    let begun = Instant::now();
    while recorder.sends_answered() < count {
        if begun.elapsed() > patience() / 2 {
            return Err(format!("hangs: {} sends of {count} answered", recorder.sends_answered()));
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
