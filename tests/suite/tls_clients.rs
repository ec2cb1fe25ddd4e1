//! Certificates of clients, and the command line over TLS.

use peerpost::client::Client;
use peerpost::testing::{TestServer, within_patience};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cli_support::Machine;
use crate::client_support::impatient;
use crate::tls_support::{Authority, Files, Issued, connect, register, trusting};

/// A server that lets in who has a certificate of `clients`.
async fn start(files: &Files, clients: &Authority) -> TestServer {
    files.write("clients.pem", &clients.pem());
    let mut tls = files.options();
    tls.client_ca = Some(files.path("clients.pem"));
    TestServer::start_with(|options| options.tls = Some(tls)).await
}

#[tokio::test]
async fn a_client_needs_a_certificate_of_the_authority_that_the_server_names() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let files = Files::of(&authority.issue());
    let server = start(&files, &clients).await;
    let known = clients.issue();
    let with = |identity: &Issued| {
        trusting(&authority).tls_identity(identity.certificate.as_str(), identity.key.as_str())
    };
    let (alice, token) = register(&server.uri(), with(&known), "alice").await;
    alice.send("alice", "hello").await.expect("stored");
    for identity in [None, Some(strangers.issue())] {
        // With TLS 1.3 the client learns of it after its own part of the handshake.
        let refused =
            match connect(server.addr(), &authority, &["http/1.1"], identity.as_ref()).await {
                Err(_) => true,
                Ok(mut stream) => {
                    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
                    let sent = stream.write_all(request).await;
                    let mut answer = Vec::new();
                    let read = within_patience("the end", stream.read_to_end(&mut answer)).await;
                    assert!(answer.is_empty(), "{answer:?}");
                    sent.is_err() || read.is_err()
                }
            };
        assert!(refused);
        let options = impatient().tls_ca(authority.pem());
        let options = match &identity {
            Some(it) => options.tls_identity(it.certificate.as_str(), it.key.as_str()),
            None => options,
        };
        let client = Client::connect_with(&server.uri(), options).expect("a server");
        let answer = client.with_token(&token).user("alice").await;
        answer.expect_err("a token alone does not let anybody in");
    }
}

#[tokio::test]
async fn the_commands_speak_tls() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let files = Files::of(&authority.issue());
    let server = start(&files, &clients).await;
    let known = clients.issue();
    files.write("stranger.pem", &Authority::new().pem());
    files.write("ca.pem", &authority.pem());
    files.write("client.pem", &known.certificate);
    files.write("client.key", &known.key);
    let machine = Machine::new(server.uri());
    let path = |name| files.path(name).to_str().expect("UTF-8").to_owned();
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let trust = ["--tls-ca", &ca];
    let identity = ["--tls-client-cert", &certificate, "--tls-client-key", &key];
    let known = [&trust[..], &identity[..]].concat();
    machine.ok(&[&known[..], &["register", "alice"]].concat()).await;
    machine.ok(&[&known[..], &["send", "alice", "over TLS"]].concat()).await;
    assert!(machine.ok(&[&known[..], &["inbox"]].concat()).await.contains("over TLS"));
    let stranger = path("stranger.pem");
    let distrustful = [&["--tls-ca", &stranger][..], &identity[..], &["inbox"]].concat();
    let untrusted = machine.run(&distrustful).await;
    untrusted.fails(1, &["cannot connect", &server.uri(), "hint: --tls-ca"]);
    machine.run(&[&trust[..], &["inbox"]].concat()).await.fails(1, &["error: "]);
    machine
        .run(&["--tls-client-cert", &certificate, "inbox"])
        .await
        .fails(2, &["--tls-client-key"]);
    machine.run(&["--tls-ca", "nowhere.pem", "inbox"]).await.fails(1, &["nowhere.pem"]);
}
