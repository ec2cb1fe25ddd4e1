//! Compiles the contract under `proto/` to Rust, without a system protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const CONTRACT: [&str; 2] = ["peerpost/v1/messaging.proto", "peerpost/v1/error_reason.proto"];

/// An operator's contract: none of the descriptors that the users' listeners serve.
const ADMIN_CONTRACT: [&str; 1] = ["peerpost/admin/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        // Comments travel with the descriptors, so that `grpcurl describe` shows the manual.
        .include_source_info(true)
        .include_imports(true)
        .open_files(CONTRACT)?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("peerpost_descriptor.bin"), compiler.encode_file_descriptor_set())?;

    compiler.open_files(ADMIN_CONTRACT)?;
    tonic_prost_build::configure()
        .bytes(".peerpost.v1")
        // The one google.rpc message in the contract is the crate's that encodes error details.
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
