//! The `peerpost` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerpost::cli::main()
}
