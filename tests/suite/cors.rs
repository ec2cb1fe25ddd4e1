//! Which web pages may call the server.

use http::{HeaderMap, Method, StatusCode};
use peerpost::proto::{RegisterRequest, RegisterResponse};
use peerpost::testing::TestServer;

use crate::cli_support::Machine;
use crate::web::Browser;

const ALLOWED: &str = "https://chat.example.org";
const OTHER: &str = "https://evil.example.org";
const CALL: &str = "/peerpost.v1.MessagingService/Register";

async fn server(origins: &[&str]) -> TestServer {
    let parse = |origin: &&str| origin.parse().expect("an origin");
    let origins = origins.iter().map(parse).collect();
    TestServer::start_with(|options| options.allow_origins = origins).await
}

/// The values of a field, in lower case.
fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().map(|it| it.to_str().expect("text"));
    values.flat_map(|value| value.split(',')).map(|it| it.trim().to_ascii_lowercase()).collect()
}

async fn preflight(browser: &Browser, origin: &str, path: &str) -> (StatusCode, HeaderMap) {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-grpc-web"),
    ];
    let (head, _) = browser.fetch(Method::OPTIONS, path, &headers, "").await.into_parts();
    (head.status, head.headers)
}

async fn register(browser: &Browser, origin: &str, name: &str) -> HeaderMap {
    let request = RegisterRequest { username: name.into(), ..Default::default() };
    let mut answer = browser.call("Register", &[("origin", origin)], &request).await;
    answer.next::<RegisterResponse>().await.expect("registered");
    answer.headers
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_asks_comes_and_sees_the_status() {
    let server = server(&[OTHER, ALLOWED]).await;
    for (number, browser) in
        [Browser::http1(server.addr()), Browser::http2(server.addr())].iter().enumerate()
    {
        for path in [CALL, "/anything/else"] {
            let (status, headers) = preflight(browser, ALLOWED, path).await;
            assert_eq!(status, StatusCode::NO_CONTENT);
            assert_eq!(list(&headers, "access-control-allow-origin"), [ALLOWED]);
            assert!(list(&headers, "access-control-allow-methods").contains(&"post".into()));
            let allowed = list(&headers, "access-control-allow-headers");
            for name in [
                "authorization",
                "content-type",
                "x-grpc-web",
                "x-user-agent",
                "grpc-timeout",
                "peerpost-user",
                "last-event-id",
            ] {
                assert!(allowed.contains(&name.into()), "{name}: {allowed:?}");
            }
            let age = headers["access-control-max-age"].to_str().expect("text").parse::<u32>();
            assert!(age.expect("seconds") > 0);
        }
        let headers = register(browser, ALLOWED, &format!("user-{number}")).await;
        assert_eq!(list(&headers, "access-control-allow-origin"), [ALLOWED]);
        assert!(list(&headers, "vary").contains(&"origin".into()));
        let exposed = list(&headers, "access-control-expose-headers");
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(exposed.contains(&name.into()), "{name}: {exposed:?}");
        }
        let plain = browser.fetch(Method::GET, "/nothing", &[("origin", ALLOWED)], "").await;
        assert_eq!(plain.status(), StatusCode::NOT_FOUND);
        assert_eq!(list(plain.headers(), "access-control-allow-origin"), [ALLOWED]);
    }
}

#[tokio::test]
async fn a_page_of_another_origin_is_not_told_that_it_may() {
    for allowed in [&[][..], &[ALLOWED]] {
        let server = server(allowed).await;
        let browser = Browser::http1(server.addr());
        let near = ["http://chat.example.org", "https://chat.example.org:444", "null", OTHER];
        for (number, origin) in near.into_iter().enumerate() {
            let (status, headers) = preflight(&browser, origin, CALL).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{origin}");
            assert!(
                !headers.keys().any(|it| it.as_str().starts_with("access-control")),
                "{origin}"
            );
            // Whoever calls without asking has a token or none, as everybody.
            let headers = register(&browser, origin, &format!("user-{number}")).await;
            assert!(
                !headers.keys().any(|it| it.as_str().starts_with("access-control")),
                "{origin}"
            );
        }
    }
}

#[tokio::test]
async fn the_servers_own_pages_need_no_leave() {
    let server = server(&[]).await;
    let own = server.uri();
    let headers = register(&Browser::http1(server.addr()), &own, "alice").await;
    assert!(!headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn every_page_may_come_where_all_are_allowed() {
    let server = server(&["*"]).await;
    let browser = Browser::http1(server.addr());
    let (status, headers) = preflight(&browser, OTHER, CALL).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(list(&headers, "access-control-allow-origin"), ["*"]);
    let headers = register(&browser, OTHER, "alice").await;
    assert_eq!(list(&headers, "access-control-allow-origin"), ["*"]);
}

#[tokio::test]
async fn what_is_no_origin_is_refused_at_the_start() {
    let machine = Machine::new("http://127.0.0.1:1");
    for origin in ["chat.example.org", "https://chat.example.org/", "https://*.example.org", ""] {
        let outcome = machine.run(&["serve", "--allow-origin", origin]).await;
        assert_eq!(outcome.code, Some(2), "{origin}");
        assert!(outcome.stderr.contains("scheme://host[:port]"), "{}", outcome.stderr);
    }
}
