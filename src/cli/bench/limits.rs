//! What this machine can do at most: syncs of its disk, and rows into the store without gRPC.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::filling::Filling;
use super::meter::Figures;
use super::options::{Extent, Load};
use super::progress;

/// What is written before each sync: a page.
const PAGE_BYTES: usize = 4096;

/// The two ways to have data on disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sync {
    /// With all of the file's metadata.
    Fsync,
    /// With what is needed to read the data again.
    Fdatasync,
}

/// Appends a page and syncs it, again and again; how long each took.
pub(super) async fn syncs(file: &Path, how: Sync, duration: Duration) -> anyhow::Result<Figures> {
    let path = file.to_owned();
    let measure = tokio::task::spawn_blocking(move || {
        let mut file = File::create(&path)?;
        let page = [0x5a; PAGE_BYTES];
        let (begin, mut durations) = (Instant::now(), Vec::new());
        while begin.elapsed() < duration {
            let one = Instant::now();
            file.write_all(&page)?;
            match how {
                Sync::Fsync => file.sync_all()?,
                Sync::Fdatasync => file.sync_data()?,
            }
            durations.push(one.elapsed());
        }
        std::fs::remove_file(&path)?;
        std::io::Result::Ok(Figures::of_durations(&durations, 1))
    });
    let label = format!("{how:?} of 4 KiB");
    progress::waited(&label, measure)
        .await?
        .with_context(|| format!("cannot sync in {}", file.display()))
}

/// The rows of a load's messages into a store of their own, in full groups, without gRPC.
pub(super) async fn rows(
    folder: &Path,
    load: &Load,
    duration: Duration,
) -> anyhow::Result<Figures> {
    // As many who send as in the load: how many pages of the indexes are written depends on it.
    let users = (load.workers(), load.users);
    let mut filling = Filling::open(folder, users, load.body_bytes).await?;
    let appended = filling.append(Extent::Duration(duration));
    let figures = progress::waited("rows without gRPC", appended).await;
    filling.close().await;
    figures
}
