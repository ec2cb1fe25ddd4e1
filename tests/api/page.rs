//! The page: every RPC, field, bound and reason, in the contract's own words, with a call for each RPC.

use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto,
};

use super::comments::Comments;

const HEAD: &str = "\
# The API

<!-- Made from the comments of proto/ by `PEERPOST_WRITE_DOCS=1 cargo test --test api`. Not edited by hand. -->

Every RPC, field, bound and error reason of `peerpost.v1.MessagingService`, in the words of the contract,
[`messaging.proto`](../proto/peerpost/v1/messaging.proto), with a call by
[grpcurl](https://github.com/fullstorydev/grpcurl) for each. The calls run one after the other, against
`peerpost serve` on its default address. How to write a follower that misses nothing:
[CLIENTS.md](CLIENTS.md).
";

/// The first call: the others carry the token that it gives.
const REGISTER: &str = r#"# The token in the answer is shown this once.
TOKEN=$(grpcurl -plaintext -d '{"username": "dora", "ip_address": "192.0.2.7:9000"}' \
  127.0.0.1:50051 peerpost.v1.MessagingService/Register | sed -n 's/.*"token": "\(.*\)".*/\1/p')
"#;

/// What the other RPCs are called with. One without a row fails the test that compares the page.
const CALLS: [(&str, &str); 11] = [
    (
        "SendMessage",
        r#"-d '{"to_user": "dora", "text": "a note to self", "request_id": "note-1"}'"#,
    ),
    (
        "SendMessages",
        r#"-d '{"to_user": "dora", "text": "one", "request_id": "note-2"}
  {"to_user": "dora", "data": "AAECAw==", "content_type": "application/octet-stream"}'"#,
    ),
    ("GetMessages", r#"-d '{"after_sequence": 0, "page_size": 10}'"#),
    // A stream without an end of its own.
    (SUBSCRIBE, r#"-max-time 2 -d '{"after_sequence": 1, "heartbeat_interval": "1s"}'"#),
    ("Acknowledge", r#"-d '{"through_sequence": 3}'"#),
    ("GetUser", r#"-d '{"username": "dora"}'"#),
    ("ListUsers", r#"-d '{"prefix": "do", "page_size": 10}'"#),
    ("CreateToken", r#"-d '{"display_name": "laptop", "ttl": "86400s"}'"#),
    ("ListTokens", r#"-d '{"page_size": 10}'"#),
    // The oldest is the one that these calls carry, so that the other one goes.
    (
        "RevokeToken",
        r#"-d "{\"token_id\": \"$(grpcurl -plaintext -H "authorization: Bearer $TOKEN" \
    127.0.0.1:50051 peerpost.v1.MessagingService/ListTokens \
    | sed -n 's/.*"tokenId": "\(.*\)".*/\1/p' | tail -1)\"}""#,
    ),
    ("DeleteUser", r#"-d '{"username": "dora"}'"#),
];

const SUBSCRIBE: &str = "Subscribe";

/// The file that holds the service.
pub(crate) fn messaging(contract: &FileDescriptorSet) -> &FileDescriptorProto {
    file(contract, "peerpost/v1/messaging.proto")
}

fn file<'a>(contract: &'a FileDescriptorSet, name: &str) -> &'a FileDescriptorProto {
    contract.file.iter().find(|file| file.name() == name).expect("the contract has this file")
}

/// The whole page.
pub(crate) fn of(contract: &FileDescriptorSet) -> String {
    let messaging = Part::of(messaging(contract));
    let service = messaging.file.service.first().expect("the contract has its service");
    let mut page = format!("{HEAD}\n");
    paragraphs(&mut page, &messaging.comments.service());
    page.push_str("| RPC | request | response |\n| --- | --- | --- |\n");
    for method in &service.method {
        summary(&mut page, method);
    }
    for (index, method) in service.method.iter().enumerate() {
        messaging.rpc(&mut page, index, method);
    }
    page.push_str("\n## Messages\n");
    for (index, message) in messaging.file.message_type.iter().enumerate() {
        let is_of_an_rpc =
            message.name().ends_with("Request") || message.name().ends_with("Response");
        if !is_of_an_rpc {
            let _ = write!(page, "\n### {}\n\n", message.name());
            paragraphs(&mut page, &messaging.comments.message(index));
            messaging.fields(&mut page, index, message);
        }
    }
    reasons(&mut page, &Part::of(file(contract, "peerpost/v1/error_reason.proto")));
    page
}

fn summary(page: &mut String, method: &MethodDescriptorProto) {
    let name = method.name();
    let stream = |is_stream: bool| if is_stream { "stream of " } else { "" };
    let (request, response) = (local(method.input_type()), local(method.output_type()));
    let _ = writeln!(
        page,
        "| [{name}](#{}) | {}`{request}` | {}`{response}` |",
        name.to_lowercase(),
        stream(method.client_streaming()),
        stream(method.server_streaming()),
    );
}

struct Part<'a> {
    file: &'a FileDescriptorProto,
    comments: Comments,
}

impl<'a> Part<'a> {
    fn of(file: &'a FileDescriptorProto) -> Self {
        Self { file, comments: Comments::of(file) }
    }

    fn rpc(&self, page: &mut String, index: usize, method: &MethodDescriptorProto) {
        let name = method.name();
        let _ = write!(page, "\n## {name}\n\n");
        paragraphs(page, &self.comments.method(index));
        let _ = write!(page, "```sh\n{}```\n", call(name));
        for (role, message) in
            [("Request", method.input_type()), ("Response", method.output_type())]
        {
            let index = self
                .file
                .message_type
                .iter()
                .position(|it| it.name() == local(message))
                .expect("the service's messages are in its file");
            let _ = write!(page, "\n**{role}**, `{}`. ", local(message));
            paragraphs(page, &self.comments.message(index));
            self.fields(page, index, &self.file.message_type[index]);
        }
    }

    fn fields(&self, page: &mut String, index: usize, message: &DescriptorProto) {
        let mut oneof_before = None;
        for (number, field) in message.field.iter().enumerate() {
            if field.oneof_index != oneof_before {
                oneof_before = field.oneof_index;
                if let Some(oneof) = oneof_before {
                    let oneof = usize::try_from(oneof).expect("not negative");
                    let said = self.comments.oneof(index, oneof).join(" ");
                    let _ = writeln!(
                        page,
                        "- `{}`, one of these. {said}",
                        message.oneof_decl[oneof].name()
                    );
                }
            }
            let indent = if field.oneof_index.is_some() { "  " } else { "" };
            let said = self.comments.field(index, number).join(" ");
            assert!(!said.is_empty(), "{}.{} has no comment", message.name(), field.name());
            let _ = writeln!(page, "{indent}- `{}` ({}). {said}", field.name(), kind(field));
        }
    }
}

/// The call of an RPC, as it is typed.
fn call(name: &str) -> String {
    if name == "Register" {
        return REGISTER.to_owned();
    }
    let arguments = CALLS.iter().find_map(|(rpc, arguments)| (*rpc == name).then_some(arguments));
    let arguments =
        arguments.unwrap_or_else(|| panic!("tests/api/page.rs does not say how {name} is called"));
    let end = if name == SUBSCRIBE { " || true" } else { "" };
    format!(
        "grpcurl -plaintext -H \"authorization: Bearer $TOKEN\" \\\n  {arguments} \\\n  \
         127.0.0.1:50051 peerpost.v1.MessagingService/{name}{end}\n"
    )
}

/// `.peerpost.v1.Message` as `Message`.
fn local(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn kind(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    match name.strip_prefix("peerpost.v1.") {
        Some(ours) => format!("{repeated}[`{ours}`](#{})", ours.to_lowercase()),
        None => format!("{repeated}`{name}`"),
    }
}

/// What begins with a catchword, such as `Errors:`, has it in bold.
fn paragraphs(page: &mut String, paragraphs: &[String]) {
    for paragraph in paragraphs {
        let _ = match paragraph.split_once(' ') {
            Some((word, rest)) if word.ends_with([':', '.']) => {
                write!(page, "**{word}** {rest}\n\n")
            }
            _ => write!(page, "{paragraph}\n\n"),
        };
    }
}

fn reasons(page: &mut String, part: &Part<'_>) {
    page.push_str("\n## Error reasons\n\n");
    paragraphs(page, &part.comments.enumeration());
    page.push_str("| reason | status | what it means |\n| --- | --- | --- |\n");
    let values = part.file.enum_type.first().expect("the reasons are an enum").value.iter();
    // The first is proto3's zero, which is never sent.
    for (index, value) in values.enumerate().skip(1) {
        let said = part.comments.value(index).join(" ");
        let (status, meaning) = said.split_once(". ").expect("a comment begins with its status");
        let reason = value.name().trim_start_matches("ERROR_REASON_");
        let _ = writeln!(page, "| `{reason}` | `{status}` | {} |", meaning.replace('|', "\\|"));
    }
}
