//! The `peerpost` command.

fn main() {}
