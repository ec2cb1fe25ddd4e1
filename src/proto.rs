//! The contract, generated from `proto/peerpost/v1/`, and its descriptors.
//!
//! The comments on these items are those of the `.proto` files.

#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications)]
mod generated {
    tonic::include_proto!("peerpost.v1");
}

pub use generated::*;

/// An operator's contract, generated from `proto/peerpost/admin/v1/`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications)]
pub mod admin {
    tonic::include_proto!("peerpost.admin.v1");
}

/// The contract's file descriptors with comments and imports, as reflection serves them. The operator's
/// contract is not among them.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("peerpost_descriptor");

/// The `domain` of every `google.rpc.ErrorInfo` that the service sends.
pub const ERROR_DOMAIN: &str = "peerpost.v1";

impl ErrorReason {
    /// The text that stands in `ErrorInfo.reason`: the value's name without its prefix.
    pub fn as_reason(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("ERROR_REASON_").unwrap_or(name)
    }

    /// The value for a text from `ErrorInfo.reason`, or `None` for one this version does not know.
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::from_str_name(&format!("ERROR_REASON_{reason}"))
    }
}
