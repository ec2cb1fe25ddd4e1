//! What is running: the package's version, and the commit that it was built from.

/// The package's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, and its date where the build knew it, such as `abcdef123456 2026-11-22`. Empty where nothing
/// said so: in a debug build, and in one from sources without a checkout that was not told
/// (`PEERPOST_COMMIT`). A hash that ends with `+changes` is of sources that were changed after it.
pub const COMMIT: &str = env!("PEERPOST_BUILD_COMMIT");

/// Both, as `--version` shows them: `0.1.0 (abcdef123456 2026-11-22)`.
pub const VERSION_AND_COMMIT: &str = if COMMIT.is_empty() {
    VERSION
} else {
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("PEERPOST_BUILD_COMMIT"), ")")
};
