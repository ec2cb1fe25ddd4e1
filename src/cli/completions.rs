use clap_complete::{Shell, generate};

use super::{command, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(peerpost completions bash)                                in ~/.bashrc
  peerpost completions zsh > ~/.zfunc/_peerpost                      with ~/.zfunc in fpath
  peerpost completions fish > ~/.config/fish/completions/peerpost.fish")]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut command(), "peerpost", &mut script);
    output::bytes(&script)
}
