//! What may stand in each field of each request, and how that is answered: a row for each field.

use peerpost::proto::ErrorReason::{
    self, BodyTooLarge, EpochMismatch, InvalidField, MessageExpired, SequenceOutOfRange,
};
use prost_types::field_descriptor_proto::Type;

use crate::contract::{Field, Said, Value};

/// Registered in every test here: the longest name that there can be.
pub(crate) const LONGEST_NAME: &str =
    "longest-name-with-64-characters-0123456789-0123456789-0123456789";

/// Over every bound of a field, and within what a request may have beside a body.
const HUGE_BYTES: usize = 15_000;

/// As ids of tokens are.
const TOKEN_ID: &str = "0190a1b2-c3d4-7e5f-8a6b-0123456789ab";

/// More than any request may have, so that it is refused unread.
const UNREAD_BYTES: usize = 1_000_000;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    Accepted,
    /// For this reason, which names this field.
    Refused(ErrorReason, &'a str),
}

use Outcome::{Accepted, Refused};

/// A row: what may stand in a field of text or of bytes, and how that is answered.
pub(crate) struct Text {
    missing: Outcome<'static>,
    empty: Outcome<'static>,
    /// The most that it may hold.
    at_bound: String,
    at_bound_is: Outcome<'static>,
    over: String,
    over_is: Outcome<'static>,
    huge: Outcome<'static>,
    unread: Outcome<'static>,
    not_utf8: Outcome<'static>,
    odd: Outcome<'static>,
    /// Those of [`ODD`] that are accepted all the same, with spaces between.
    odd_accepted: &'static str,
}

/// A row: what may stand in a field of numbers, and how that is answered.
pub(crate) struct Number {
    missing: Outcome<'static>,
    /// Each bound, what lies beyond it, and zero.
    values: Vec<(i64, Outcome<'static>)>,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Row {
    Text(Text),
    Number(Number),
}

/// Unicode with which texts were made to look like others, to end early, or to grow.
const ODD: [&str; 14] = [
    "a\u{202e}ecila",
    "\u{2067}alice",
    "ali\u{200b}ce",
    "alice\u{200d}",
    "\u{feff}alice",
    "alice\u{301}",
    "alice\0",
    "alice\n",
    "\u{e000}",
    "\u{ffff}\u{10ffff}",
    "👩‍👩‍👧‍👦",
    "аlice",
    "ａｌｉｃｅ",
    "\u{212a}",
];

const BAD_UTF8: [&[u8]; 4] = [b"\xff\xfe", b"alice\xc3", b"\xc0\x80", b"\xed\xa0\x80"];

/// A request that is accepted, of the RPC of this name.
pub(crate) fn good_request(rpc: &str) -> Said<'static> {
    match rpc {
        // The second ends alice.
        "Register" | "DeleteUser" => vec![("username", Value::text("alice"))],
        "SendMessage" | "SendMessages" => {
            vec![("to_user", Value::text("bob")), ("text", Value::text("hi"))]
        }
        "Subscribe" => vec![("heartbeat_interval.seconds", Value::Number(60))],
        "GetMessages" | "Acknowledge" | "ListUsers" | "CreateToken" | "ListTokens" => Vec::new(),
        "GetUser" => vec![("username", Value::text("bob"))],
        // Of nobody's.
        "RevokeToken" => vec![("token_id", Value::text(TOKEN_ID))],
        _ => panic!("{rpc} is new: what is a good request?"),
    }
}

/// The table. `last` is the last sequence of the caller's mailbox.
pub(crate) fn row(rpc: &str, field: &str, last: i64) -> Row {
    match (rpc, field) {
        ("Register", "username") => Row::Text(name("username", "Fresh-name.with_64")),
        ("Register", "ip_address") => Row::Text(Text {
            at_bound: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".into(),
            over: "[2001:db8:1111:2222:3333:4444:5555:6666]:65536".into(),
            ..optional("ip_address", 0)
        }),
        ("Register", "invite") => Row::Text(Text {
            at_bound: format!("pi_{}", "A".repeat(22)),
            over: format!("pi_{}", "A".repeat(23)),
            ..optional("invite", 0)
        }),
        ("SendMessage" | "SendMessages", "to_user") => sent(name("to_user", LONGEST_NAME)),
        ("SendMessage" | "SendMessages", "text") => Row::Text(body("text")),
        ("SendMessage" | "SendMessages", "data") => {
            Row::Text(Text { not_utf8: Accepted, ..body("data") })
        }
        ("SendMessage" | "SendMessages", "content_type") => sent(optional("content_type", 128)),
        ("SendMessage" | "SendMessages", "request_id") => {
            // Another for each of the two: a repeated one stores nothing.
            let at_bound = format!("{rpc:x<64}");
            sent(Text { at_bound, ..optional("request_id", 64) })
        }
        ("SendMessage" | "SendMessages", "expire_time.seconds") => {
            let (past, none) = (Refused(MessageExpired, "expire_time"), no_time("expire_time"));
            let (first, last) = (-62_135_596_800, 253_402_300_799);
            let within = [(last, Accepted), (0, past), (first, past)];
            let beyond = [last + 1, first - 1, i64::MAX, i64::MIN].map(|n| (n, none));
            numbers(within.into_iter().chain(beyond).collect())
        }
        // Beside no seconds: in 1970.
        ("SendMessage" | "SendMessages", "expire_time.nanos") => {
            let (past, none) = (Refused(MessageExpired, "expire_time"), no_time("expire_time"));
            let beyond = [-1, 1_000_000_000, i64::from(i32::MAX)].map(|n| (n, none));
            numbers([0, 999_999_999].map(|n| (n, past)).into_iter().chain(beyond).collect())
        }
        ("SendMessage" | "SendMessages", "ttl.seconds") => {
            let beyond = [0, -1, 315_576_001, i64::MAX, i64::MIN].map(|n| (n, no_time("ttl")));
            numbers([(315_576_000, Accepted)].into_iter().chain(beyond).collect())
        }
        // Beside no seconds: a body that is gone before it is read.
        ("SendMessage" | "SendMessages", "ttl.nanos") => {
            let beyond = [0, 999, -1, 1_000_000_000, i64::from(i32::MAX)];
            let beyond = beyond.map(|n| (n, no_time("ttl")));
            numbers([(1_000, Accepted)].into_iter().chain(beyond).collect())
        }
        ("GetMessages", "before_sequence") => cursor("before_sequence", last + 1),
        ("GetMessages" | "Subscribe", "after_sequence") => cursor("after_sequence", last),
        ("Acknowledge", "through_sequence") => cursor("through_sequence", last),
        ("GetMessages" | "Subscribe" | "Acknowledge", "epoch") => Row::Text(Text {
            at_bound_is: Refused(EpochMismatch, "epoch"),
            odd: Refused(EpochMismatch, "epoch"),
            ..optional("epoch", 64)
        }),
        ("GetMessages", "peer") => {
            Row::Text(Text { missing: Accepted, empty: Accepted, ..name("peer", LONGEST_NAME) })
        }
        ("GetUser", "username") => Row::Text(name("username", LONGEST_NAME)),
        ("ListUsers", "prefix") => {
            Row::Text(Text { missing: Accepted, empty: Accepted, ..name("prefix", LONGEST_NAME) })
        }
        // What the server gives out is opaque; these are the keys of names with 64 and 65 characters.
        ("ListUsers", "page_token") => Row::Text(Text {
            at_bound: "eHh4".repeat(21) + "eA",
            over: "eHh4".repeat(21) + "eHg",
            ..optional("page_token", 0)
        }),
        ("GetMessages" | "Subscribe", "received_only") => {
            numbers(vec![(0, Accepted), (1, Accepted), (-1, Accepted)])
        }
        ("Subscribe", "from_now") => {
            let refused = Refused(InvalidField, "from_now");
            numbers(vec![(0, refused), (1, Accepted), (-1, Accepted)])
        }
        ("GetMessages" | "ListUsers" | "ListTokens", "page_size") => {
            let good = [0, 1, 1000, 1001, i64::from(i32::MAX)];
            bounded("page_size", &good, &[-1, i64::from(i32::MIN)])
        }
        ("Subscribe", "heartbeat_interval.seconds") => {
            bounded("heartbeat_interval", &[0, 1, 3600], &[-1, 3601, i64::MAX, i64::MIN])
        }
        // Beside 60 seconds.
        ("Subscribe", "heartbeat_interval.nanos") => {
            let refused = Refused(InvalidField, "heartbeat_interval");
            let beyond = [-1, 1_000_000_000, i64::from(i32::MAX)].map(|n| (n, refused));
            numbers([0, 999_999_999].map(|n| (n, Accepted)).into_iter().chain(beyond).collect())
        }
        _ => row_of_tokens(rpc, field),
    }
}

/// The part of the table that is about one's account.
fn row_of_tokens(rpc: &str, field: &str) -> Row {
    match (rpc, field) {
        // It is for people, who have other scripts.
        ("CreateToken", "display_name") => Row::Text(Text {
            odd_accepted: "alice\u{301} \u{e000} \u{ffff}\u{10ffff} аlice ａｌｉｃｅ \u{212a}",
            ..optional("display_name", 64)
        }),
        ("CreateToken", "expire_time.seconds") => bounded(
            "expire_time",
            &[4_000_000_000],
            &[0, -1, 1_000_000_000, 9_000_000_000, i64::MAX, i64::MIN],
        ),
        // Beside no seconds, so in 1970.
        ("CreateToken", "expire_time.nanos") => {
            bounded("expire_time", &[], &[0, 1, 999_999_999, -1])
        }
        ("CreateToken", "ttl.seconds") => {
            let most = 36_500 * 24 * 60 * 60;
            bounded("ttl", &[1, most], &[0, -1, most + 1, i64::MAX, i64::MIN])
        }
        ("CreateToken", "ttl.nanos") => bounded("ttl", &[1, 999_999_999], &[0, -1, 1_000_000_000]),
        ("ListTokens", "page_token") => Row::Text(Text {
            at_bound: TOKEN_ID.into(),
            over: format!("{TOKEN_ID}0"),
            ..optional("page_token", 0)
        }),
        ("RevokeToken", "token_id") => {
            let refused = Refused(InvalidField, "token_id");
            Row::Text(Text {
                missing: refused,
                empty: refused,
                at_bound: TOKEN_ID.into(),
                at_bound_is: Refused(ErrorReason::TokenNotFound, "token_id"),
                over: format!("{TOKEN_ID}0"),
                ..optional("token_id", 0)
            })
        }
        // A name, but not the caller's.
        ("DeleteUser", "username") => Row::Text(Text {
            at_bound_is: Refused(InvalidField, "username"),
            ..name("username", LONGEST_NAME)
        }),
        _ => panic!("{rpc}.{field} is new: it has no row here"),
    }
}

fn no_time(field: &'static str) -> Outcome<'static> {
    Refused(InvalidField, field)
}

/// A field that may be left out, of at most this many characters.
fn optional(field: &'static str, characters_max: usize) -> Text {
    let refused = Refused(InvalidField, field);
    Text {
        missing: Accepted,
        empty: Accepted,
        at_bound: "x".repeat(characters_max),
        at_bound_is: Accepted,
        over: "x".repeat(characters_max + 1),
        over_is: refused,
        huge: refused,
        unread: Refused(InvalidField, "request"),
        not_utf8: refused,
        odd: refused,
        odd_accepted: "",
    }
}

/// A field that holds a username, and must.
fn name(field: &'static str, at_bound: &str) -> Text {
    let refused = Refused(InvalidField, field);
    let at_bound = format!("{at_bound:x<64}");
    Text { missing: refused, empty: refused, at_bound, ..optional(field, 64) }
}

/// A row of a request that carries a body, for which alone it can be too large to be read.
fn sent(text: Text) -> Row {
    Row::Text(Text { unread: Refused(BodyTooLarge, "body"), ..text })
}

fn body(field: &'static str) -> Text {
    Text {
        missing: Refused(InvalidField, "body"),
        empty: Refused(InvalidField, field),
        over_is: Refused(BodyTooLarge, field),
        huge: Accepted,
        unread: Refused(BodyTooLarge, "body"),
        not_utf8: Refused(InvalidField, "body"),
        odd: Accepted,
        ..optional(field, 65_536)
    }
}

fn cursor(field: &'static str, max: i64) -> Row {
    let beyond = Refused(SequenceOutOfRange, field);
    let negative = Refused(InvalidField, field);
    numbers(vec![
        (0, Accepted),
        (1, Accepted),
        (max, Accepted),
        (max + 1, beyond),
        (i64::MAX, beyond),
        (-1, negative),
        (i64::MIN, negative),
    ])
}

/// Numbers that are good, and others.
fn bounded(field: &'static str, good: &[i64], others: &[i64]) -> Row {
    let refused = Refused(InvalidField, field);
    let others = others.iter().map(|n| (*n, refused));
    numbers(good.iter().map(|n| (*n, Accepted)).chain(others).collect())
}

fn numbers(values: Vec<(i64, Outcome<'static>)>) -> Row {
    Row::Number(Number { missing: Accepted, values })
}

/// What a row says of each request, in the order in which they are tried.
pub(crate) fn cells(row: Row) -> Vec<(Option<Value>, Outcome<'static>)> {
    match row {
        Row::Text(text) => {
            let bytes = |bytes: &[u8]| Some(Value::Bytes(bytes.to_owned()));
            let mut cells = vec![
                (None, text.missing),
                (bytes(b""), text.empty),
                (bytes(text.at_bound.as_bytes()), text.at_bound_is),
                (bytes(text.over.as_bytes()), text.over_is),
                (bytes(&[b'x'; HUGE_BYTES]), text.huge),
                (bytes(&vec![b'x'; UNREAD_BYTES]), text.unread),
            ];
            cells.extend(BAD_UTF8.map(|bad| (bytes(bad), text.not_utf8)));
            cells.extend(ODD.map(|odd| {
                let is_accepted = text.odd_accepted.split(' ').any(|it| it == odd);
                (bytes(odd.as_bytes()), if is_accepted { Accepted } else { text.odd })
            }));
            cells
        }
        Row::Number(number) => {
            let values = number.values.into_iter();
            let values = values.map(|(value, outcome)| (Some(Value::Number(value)), outcome));
            [(None, number.missing)].into_iter().chain(values).collect()
        }
    }
}

/// Bytes from which no value can be read, whatever the row.
pub(crate) fn undecodable(field: &Field) -> Vec<Value> {
    match field.kind {
        Type::String | Type::Bytes => vec![Value::OtherKind, Value::Number(1)],
        _ => vec![Value::OtherKind, Value::EndlessNumber, Value::text("1")],
    }
}
