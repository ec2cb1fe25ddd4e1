//! Every RPC with every kind of token: none, malformed ones, one that was never given out, another
//! user's. None reads or writes what is not its own.

use bytes::Bytes;
use peerpost::domain;
use peerpost::proto::{
    AcknowledgeResponse, ErrorReason, GetMessagesResponse, ListTokensResponse, Message,
    SendMessageResponse, SendMessagesResponse, SubscribeResponse, Token, User,
    send_messages_response, subscribe_response,
};
use peerpost::testing::{TestServer, TestUser, refused};
use prost::Message as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

use crate::contract::{Rpc, Value, rpcs};
use crate::hostile_rows::good_request;
use crate::support::list;

/// What a user can be seen to have.
#[derive(Debug, PartialEq)]
struct Seen {
    profile: User,
    mailbox: Vec<Message>,
    acknowledged: i64,
    tokens: Vec<Token>,
}

async fn seen(user: &TestUser) -> Seen {
    let mut profile = user.get_user(&user.name).await.expect("registered");
    // A subscription that ended shows there later.
    (profile.online, profile.last_seen_time) = (false, None);
    Seen {
        profile,
        mailbox: user.mailbox().await,
        acknowledged: user.acknowledge(0).await.expect("nothing changes"),
        tokens: user.tokens().await.expect("the tokens"),
    }
}

#[tokio::test]
async fn no_call_gets_by_without_a_token_of_this_server() {
    use ErrorReason::{TokenMalformed, TokenMissing, TokenUnknown, UsernameTaken};
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    server.user("bob").await;
    alice.send("bob", "one").await;
    let channel = Endpoint::from_shared(server.uri()).expect("a URI").connect_lazy();
    let (whole, stranger) = (&alice.token, domain::Token::mint().reveal());
    let bytes = |bytes: &[u8]| Some(MetadataValue::try_from(bytes).expect("metadata"));
    let text = |text: String| bytes(text.as_bytes());
    let tokens: [(Option<MetadataValue<Ascii>>, ErrorReason); 9] = [
        (None, TokenMissing),
        (text(String::new()), TokenMalformed),
        (text("Bearer".into()), TokenMalformed),
        (text(format!("Basic {whole}")), TokenMalformed),
        (text(format!("Bearer {}", &whole[..whole.len() - 1])), TokenMalformed),
        (text(format!("Bearer {whole}\u{200b}")), TokenMalformed),
        (text(format!("Bearer {}", "x".repeat(8_000))), TokenMalformed),
        (bytes(b"Bearer pp_\xff\xfe"), TokenMalformed),
        (text(format!("Bearer {stranger}")), TokenUnknown),
    ];
    let before = seen(&alice).await;
    for rpc in rpcs() {
        for (token, reason) in &tokens {
            println!("{} with {token:?}", rpc.name);
            // A token that is no good is none; and no stranger takes a name.
            let reason = if rpc.name == "Register" { UsernameTaken } else { *reason };
            let request = rpc.encode(&good_request(&rpc.name));
            refused(rpc.call(&channel, token.clone(), request).await, reason);
        }
    }
    assert_eq!(seen(&alice).await, before);
    let users = alice.list_users(list("", 0, "")).await.expect("the users").users;
    assert_eq!(users.len(), 2, "nobody was registered");
}

/// What becomes of a call by mallory that alice could make.
enum Others {
    Refused(ErrorReason),
    /// A sequence and messages, which are to be mallory's own.
    Own(fn(&[u8]) -> (i64, Vec<Message>)),
    /// It says what all users may see, or nothing of anybody's.
    Public,
    /// Tokens, which are to be mallory's own.
    Tokens,
    /// A message, which is to carry mallory's name.
    Sent(fn(&[u8]) -> Message),
}

#[tokio::test]
async fn another_users_token_reads_and_changes_nothing_of_ones_own() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mallory = server.user("mallory").await;
    alice.send("bob", "a secret").await;
    bob.send("alice", "another").await;
    alice.acknowledge(1).await.expect("accepted");
    let channel = Endpoint::from_shared(server.uri()).expect("a URI").connect_lazy();
    let token_id = alice.tokens().await.expect("the tokens")[0].token_id.clone();
    let token = mallory.request(()).metadata().get("authorization").cloned();
    let before = (seen(&alice).await, bob.mailbox().await.len());
    let mut sent = 0;
    for rpc in rpcs() {
        println!("{}", rpc.name);
        let answer = rpc.call(&channel, token.clone(), of_alice(&rpc, &token_id)).await;
        match others(&rpc) {
            Others::Refused(reason) => drop(refused(answer, reason)),
            Others::Public => drop(answer.expect("accepted")),
            Others::Tokens => {
                let answer = ListTokensResponse::decode(answer.expect("accepted"));
                let tokens = answer.expect("a response").tokens;
                assert!(tokens.iter().all(|it| it.token_id != token_id), "{tokens:?}");
            }
            Others::Own(read) => {
                let (sequence, messages) = read(&answer.expect("accepted"));
                assert!(sequence <= sent, "{sequence} of {sent}");
                assert!(messages.iter().all(|it| it.from_user == "mallory"), "{messages:?}");
            }
            Others::Sent(read) => {
                assert_eq!(read(&answer.expect("accepted")).from_user, "mallory");
                sent += 1;
            }
        }
    }
    assert_eq!(seen(&alice).await, before.0);
    let own = mallory.tokens().await.expect("the tokens");
    assert!(own.len() == 2 && own.iter().all(|it| it.token_id != token_id), "{own:?}");
    let received = bob.mailbox().await.split_off(before.1);
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|message| message.from_user == "mallory"));
}

/// A request that is good when alice makes it.
fn of_alice(rpc: &Rpc, token_id: &str) -> Bytes {
    let mut said = good_request(&rpc.name);
    match rpc.name.as_str() {
        "Register" => said.push(("ip_address", Value::text("192.0.2.66"))),
        "RevokeToken" => said = vec![("token_id", Value::text(token_id))],
        "Acknowledge" => said.push(("through_sequence", Value::Number(2))),
        _ => {}
    }
    rpc.encode(&said)
}

fn others(rpc: &Rpc) -> Others {
    match rpc.name.as_str() {
        "Register" => Others::Refused(ErrorReason::UsernameTaken),
        // With the last it is mallory who has another token.
        "GetUser" | "ListUsers" | "CreateToken" => Others::Public,
        "ListTokens" => Others::Tokens,
        "RevokeToken" => Others::Refused(ErrorReason::TokenNotFound),
        "DeleteUser" => Others::Refused(ErrorReason::InvalidField),
        "SendMessage" => Others::Sent(|answer| {
            SendMessageResponse::decode(answer).expect("a response").message.expect("a message")
        }),
        "SendMessages" => Others::Sent(|answer| {
            let response = SendMessagesResponse::decode(answer).expect("a response");
            match response.result {
                Some(send_messages_response::Result::Message(message)) => message,
                other => panic!("{other:?}"),
            }
        }),
        "GetMessages" => Others::Own(|answer| {
            let page = GetMessagesResponse::decode(answer).expect("a response");
            (page.last_sequence, page.messages)
        }),
        "Subscribe" => Others::Own(|answer| {
            let response = SubscribeResponse::decode(answer).expect("a response");
            match response.event {
                Some(subscribe_response::Event::Started(started)) => {
                    // After what mallory acknowledged, which is nothing.
                    assert_eq!(started.after_sequence, 0);
                    (started.last_sequence, Vec::new())
                }
                other => panic!("{other:?}"),
            }
        }),
        "Acknowledge" => Others::Own(|answer| {
            let response = AcknowledgeResponse::decode(answer).expect("a response");
            (response.acknowledged_through, Vec::new())
        }),
        _ => panic!("{} is new: whose is what it answers?", rpc.name),
    }
}
