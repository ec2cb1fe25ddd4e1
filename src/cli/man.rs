use std::path::PathBuf;

use anyhow::Context as _;
use clap_mangen::Man;

use super::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost man | man -l -                              read the page of peerpost
  peerpost man --dir ~/.local/share/man/man1           install them all: man peerpost-chat")]
pub(super) struct Args {
    /// Write the page of every command into this folder, which is made when it is not there.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let command = super::command();
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).context("cannot make the page")?;
        return output::bytes(&page);
    };
    let write = || {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(command, folder)
    };
    write().with_context(|| format!("cannot write man pages into {}", folder.display()))?;
    output::note(&format!("the man pages are in {}", folder.display()));
    Ok(())
}
