//! What tools ask without a token: which services there are, and whether they serve.

use peerpost::proto::messaging_service_server::SERVICE_NAME;
use peerpost::testing::{TestServer, within_patience};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The services that tools find.
const SERVICES: [&str; 2] = [SERVICE_NAME, "grpc.health.v1.Health"];

/// Files that a tool needs to show the contract and the details of errors.
const SYMBOLS: [&str; 7] = [
    SERVICE_NAME,
    "peerpost.v1.Message",
    "peerpost.v1.ErrorReason",
    "google.rpc.ErrorInfo",
    "google.rpc.BadRequest",
    "google.rpc.RetryInfo",
    "grpc.health.v1.Health",
];

#[tokio::test]
async fn the_server_and_its_service_are_serving() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(channel(&server));
    for service in ["", SERVICE_NAME] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = within_patience("Check", health.check(request)).await.expect("an answer");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn the_health_of_an_unknown_service_is_not_found() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(channel(&server));
    let request = HealthCheckRequest { service: "peerpost.v1.Nothing".into() };
    let status = within_patience("Check", health.check(request)).await.expect_err("refused");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn health_can_be_watched() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(channel(&server));
    let request = HealthCheckRequest { service: SERVICE_NAME.into() };
    let answer = within_patience("Watch", health.watch(request)).await.expect("an answer");
    let mut updates = answer.into_inner();
    let first = within_patience("the first update", updates.message()).await.expect("goes on");
    assert_eq!(first.expect("an update").status(), ServingStatus::Serving);

    server.begin_stop();
    let last = within_patience("the last update", updates.message()).await.expect("goes on");
    assert_eq!(last.expect("an update").status(), ServingStatus::NotServing);
    let end = within_patience("the end", updates.message()).await;
    assert_eq!(end.expect_err("ended").code(), Code::Unavailable);
}

/// The two versions of reflection have the same messages under different names.
macro_rules! reflection {
    ($version:ident) => {
        mod $version {
            use std::collections::HashSet;

            use peerpost::testing::{TestServer, within_patience};
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            use super::{SERVICES, SYMBOLS, channel};

            #[tokio::test]
            async fn it_lists_the_services() {
                let server = TestServer::start().await;
                let answer = ask(&server, MessageRequest::ListServices(String::new())).await;
                let MessageResponse::ListServicesResponse(list) = answer else {
                    panic!("{answer:?}");
                };
                let names: HashSet<_> = list.service.iter().map(|it| it.name.as_str()).collect();
                for service in SERVICES {
                    assert!(names.contains(service), "{service} is not among {names:?}");
                }
            }

            #[tokio::test]
            async fn it_describes_the_contract_and_the_details_of_errors() {
                let server = TestServer::start().await;
                for symbol in SYMBOLS {
                    let request = MessageRequest::FileContainingSymbol(symbol.into());
                    let answer = ask(&server, request).await;
                    let found = matches!(answer, MessageResponse::FileDescriptorResponse(_));
                    assert!(found, "{symbol}: {answer:?}");
                }
            }

            /// The drain's own deadline is far off: only the stream's end lets the server go.
            #[tokio::test]
            async fn an_open_stream_does_not_hold_the_drain() {
                let hour = std::time::Duration::from_hours(1);
                let mut server = TestServer::start_with(|it| it.drain_deadline = hour).await;
                let mut client = ServerReflectionClient::new(channel(&server));
                let call = client.server_reflection_info(tokio_stream::pending());
                let answer = within_patience("reflection", call).await.expect("an answer");
                let mut answers = answer.into_inner();
                server.begin_stop();
                let end = within_patience("the end", answers.message()).await;
                assert_eq!(end.expect_err("ended").code(), tonic::Code::Unavailable);
                within_patience("the stop", server.stop()).await;
            }

            async fn ask(server: &TestServer, message: MessageRequest) -> MessageResponse {
                let message_request = Some(message);
                let request = ServerReflectionRequest { host: String::new(), message_request };
                let mut client = ServerReflectionClient::new(channel(server));
                let call = client.server_reflection_info(tokio_stream::once(request));
                let answer = within_patience("reflection", call).await.expect("an answer");
                let mut answers = answer.into_inner();
                let first = within_patience("reflection", answers.message()).await;
                let first = first.expect("goes on").expect("an answer");
                first.message_response.expect("an answer always holds one")
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);

fn channel(server: &TestServer) -> Channel {
    Endpoint::from_shared(server.uri()).expect("a URI").connect_lazy()
}
