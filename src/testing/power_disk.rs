//! A disk whose power can be cut.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ServerProcess, eventually};

/// An ext4 file system in an image file, mounted through a loop device. What a process wrote and did
/// not sync is in the memory of the kernel and not in the image, as with a disk. A copy of the image is
/// therefore what a cut of power at that moment leaves.
///
/// Needs Linux, root, loop devices, and `mkfs.ext4`, `mount`, `umount`, `cp` and `truncate`.
#[derive(Debug)]
pub struct PowerDisk {
    home: PathBuf,
    /// How often the power was cut: each time the disk goes on with another image.
    cuts: u32,
}

impl PowerDisk {
    /// Makes an empty disk of so many bytes, its image and mount point in `home`, which must exist.
    ///
    /// # Errors
    /// What there is no such disk without, on this machine.
    pub fn create(home: &Path, bytes: u64) -> Result<Self, String> {
        let disk = Self { home: home.to_owned(), cuts: 0 };
        let image = disk.image(0);
        fs::create_dir(disk.path()).map_err(|error| format!("{}: {error}", disk.home.display()))?;
        run(Command::new("truncate").arg(format!("--size={bytes}")).arg(&image))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted: the same before and after a cut.
    pub fn path(&self) -> PathBuf {
        self.home.join("disk")
    }

    /// Cuts the power under a server whose data is here, and mounts what is left. The server is gone.
    pub async fn cut(&mut self, server: ServerProcess) {
        server.pause();
        // A call that the kernel is at work on, a sync perhaps, goes on when the signal comes. It is over
        // when its thread has stopped, and nothing is written any more.
        eventually("the server being frozen", async || is_frozen(server.id()).then_some(())).await;
        let (before, after) = (self.image(self.cuts), self.image(self.cuts + 1));
        let copied = run(Command::new("cp").arg("--sparse=always").arg(&before).arg(&after));
        copied.expect("an image can be copied");
        server.kill();
        unmount(&self.path()).expect("nobody uses the disk any more");
        self.cuts += 1;
        self.mount().expect("a journaled file system can be mounted after a cut");
        fs::remove_file(before).expect("the old image can be removed");
    }

    fn image(&self, number: u32) -> PathBuf {
        self.home.join(format!("disk-{number}.img"))
    }

    fn mount(&self) -> Result<(), String> {
        // The file system's own commits, every 5 seconds, would save what nobody synced.
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,commit=300"]);
        run(mount.arg(self.image(self.cuts)).arg(self.path()))
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        // It fails only when it was never mounted; a folder that is still in use is told by its removal.
        let _ = unmount(&self.path());
    }
}

fn unmount(path: &Path) -> Result<(), String> {
    run(Command::new("umount").arg(path))
}

/// Whether every thread of a process is stopped.
fn is_frozen(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    threads.flatten().all(|thread| {
        // "id (name) state …"
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("`{name}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`{name}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
