//! Holds `docs/API.md` to the contract: the page is made from the comments of `proto/`, here, and
//! the test fails when it is not what they give. `PEERPOST_WRITE_DOCS=1 cargo test --test api` makes it
//! anew.

mod comments;
mod page;

use std::fs;
use std::path::{Path, PathBuf};

use peerpost::proto;
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Set to anything: the page is written instead of compared.
const WRITE_VARIABLE: &str = "PEERPOST_WRITE_DOCS";

fn page_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/API.md")
}

fn contract() -> FileDescriptorSet {
    FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("the descriptors are whole")
}

#[test]
fn the_page_says_what_the_contract_says() {
    let made = page::of(&contract());
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        fs::write(page_path(), &made).expect("the page can be written");
    }
    let kept = fs::read_to_string(page_path()).unwrap_or_default();
    let differs = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    assert!(
        made == kept,
        "docs/API.md is not what the contract gives; `{WRITE_VARIABLE}=1 cargo test --test api` makes \
         it anew. First difference (made, kept): {differs:#?}"
    );
}

/// A page without the comments would agree with itself.
#[test]
fn the_page_names_every_part_of_the_contract_with_its_comment() {
    let contract = contract();
    let made = page::of(&contract);
    let file = page::messaging(&contract);
    for message in &file.message_type {
        for field in &message.field {
            let entry = format!("- `{}` ", field.name());
            assert!(made.contains(&entry), "{}.{} is missing", message.name(), field.name());
        }
    }
    for method in file.service.iter().flat_map(|service| &service.method) {
        let call = format!("127.0.0.1:50051 peerpost.v1.MessagingService/{}", method.name());
        assert!(made.contains(&call), "no call of {}", method.name());
    }
    for sentence in [
        "A subscription shows the user as online. A user may have 256 at a time",
        "Above 1,000: 1,000. Not negative.",
        "| `USERNAME_TAKEN` | `ALREADY_EXISTS` |",
    ] {
        assert!(made.contains(sentence), "missing: {sentence}");
    }
}
