//! Compiles the contract under `proto/` to Rust, without a system protoc, and notes of which commit the
//! build is.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What a build may be told of its commit, where there is no checkout: `HASH DATE`, or the hash alone.
const COMMIT_VARIABLE: &str = "PEERPOST_COMMIT";

/// The longest that it may be.
const COMMIT_BYTES_MAX: usize = 64;

/// What is built from, beside `proto/`.
const SOURCES: [&str; 5] = ["src", "migrations", "build.rs", "Cargo.toml", "Cargo.lock"];

const CONTRACT: [&str; 2] = ["peerpost/v1/messaging.proto", "peerpost/v1/error_reason.proto"];

/// An operator's contract: none of the descriptors that the users' listeners serve.
const ADMIN_CONTRACT: [&str; 1] = ["peerpost/admin/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rustc-env=PEERPOST_BUILD_COMMIT={}", commit()?);

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

/// The commit that is built, with its date: from [`COMMIT_VARIABLE`], else, for a release, from the
/// checkout. Empty where neither says.
fn commit() -> Result<String, Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={COMMIT_VARIABLE}");
    match env::var(COMMIT_VARIABLE) {
        Ok(given) if !given.is_empty() => {
            // It is printed, and is a metric's label.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || " .+-".contains(c);
            if given.len() > COMMIT_BYTES_MAX || !given.chars().all(is_plain) {
                return Err(format!("{COMMIT_VARIABLE} is {given:?}, which is no commit").into());
            }
            Ok(given)
        }
        // Otherwise each commit would have everything compiled again, also for those who test.
        _ if env::var("PROFILE").as_deref() == Ok("release") => Ok(checkout().unwrap_or_default()),
        _ => Ok(String::new()),
    }
}

/// The checkout's commit; `None` where there is none, or no git.
fn checkout() -> Option<String> {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let top = git(&["rev-parse", "--show-toplevel"])?;
    // A copy of the sources in somebody else's checkout is of another commit.
    if Path::new(&top).canonicalize().ok()? != folder.canonicalize().ok()? {
        return None;
    }
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    // Both change with a commit, one only with a checkout; a worktree has its own.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        // A path that is not there would count as changed, always.
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit =
        git(&["log", "-1", "--abbrev=12", "--date=format-local:%Y-%m-%d", "--format=%h %cd"])?;
    let (hash, date) = commit.split_once(' ')?;
    let mut changes = vec!["status", "--porcelain", "--", "proto"];
    changes.extend(SOURCES);
    let mark = if git(&changes)?.is_empty() { "" } else { "+changes" };
    Some(format!("{hash}{mark} {date}"))
}

/// What git prints; `None` when it fails.
fn git(arguments: &[&str]) -> Option<String> {
    // `--no-optional-locks`: `status` does not write to the index, in which somebody may be writing.
    let command =
        Command::new("git").arg("--no-optional-locks").args(arguments).env("TZ", "UTC").output();
    let output = command.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
