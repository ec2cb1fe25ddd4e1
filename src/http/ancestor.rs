//! The three calls of the Flask app that this service descends from: same paths, fields, statuses and
//! shapes. Whom a request names must be who calls.

use async_stream::try_stream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::body::Body;

use super::call::{self, Caller, Inner, Refused};
use super::problem::Problem;
use super::{Gateway, answer, json, request_body, v1};
use crate::domain::Username;
use crate::domain::limits::{CALL_DEADLINE, PAGE_SIZE_MAX};
use crate::proto::{
    GetMessagesRequest, GetMessagesResponse, Message, RegisterRequest, RegisterResponse,
    SendMessageRequest, get_messages_request, message, send_message_request,
};

/// A mailbox is sent in pieces of about so many bytes.
const PIECE_BYTES: usize = 32 * 1024;

type Answered = Result<Response<Body>, Problem>;

/// `POST /register`. A name that is new gets its token, which this app has and the ancestor had not.
pub(super) async fn register<S: Inner>(gateway: Gateway<S>, request: Request<Body>) -> Answered {
    let names = ["username", "ip_address"];
    let (caller, texts) = texts(request, gateway.body_bytes_max, names).await?;
    let [username, ip_address] = texts;
    let request = RegisterRequest { username, ip_address, ..Default::default() };
    let answer = unary(&gateway, "Register", caller, &request).await?;
    let token = RegisterResponse::decode(&*answer).map_err(|error| undecodable(&error))?.token;
    let said = match token.as_str() {
        "" => json!({"message": "Address updated"}),
        token => json!({"message": "Registered", "token": token}),
    };
    Ok(done(StatusCode::OK, &said))
}

/// `POST /send_message`.
pub(super) async fn send<S: Inner>(gateway: Gateway<S>, request: Request<Body>) -> Answered {
    let request_id = v1::idempotency_key(request.headers())?.unwrap_or_default();
    let names = ["from_user", "to_user", "message"];
    let (caller, texts) = texts(request, gateway.body_bytes_max, names).await?;
    if let Some((name, _)) = names.iter().zip(&texts).find(|(_, text)| text.is_empty()) {
        return Err(bad_request(format!("{name} is missing")));
    }
    let [from_user, to_user, text] = texts;
    let caller = caller.named(user("from_user", &from_user)?);
    let request = SendMessageRequest {
        to_user,
        body: Some(send_message_request::Body::Text(text)),
        request_id,
        ..Default::default()
    };
    // The sender and the recipient.
    let mut strangers = 2;
    while let Err(problem) = unary(&gateway, "SendMessage", caller.clone(), &request).await {
        match problem.unknown_user() {
            Some(name) if gateway.is_open && strangers > 0 => {
                strangers -= 1;
                introduce(&gateway, &caller, name).await?;
            }
            _ => return Err(problem),
        }
    }
    Ok(done(StatusCode::CREATED, &json!({"message": "Sent"})))
}

/// `GET /get_messages?to_user=NAME`: all that the user received, in order.
pub(super) async fn read<S: Inner>(gateway: Gateway<S>, request: Request<Body>) -> Answered {
    let (parts, _) = request.into_parts();
    let parameters = json::pairs(parts.uri.query().unwrap_or_default())?;
    let to_user = parameters.iter().find(|(name, _)| name == "to_user").map(|(_, value)| value);
    let Some(to_user) = to_user.filter(|name| !name.is_empty()) else {
        return Err(bad_request("the parameter to_user is missing"));
    };
    let caller = Caller::of(&parts).named(user("to_user", to_user)?);
    let is_open = gateway.is_open;
    let mut pieces = Box::pin(mailbox(gateway, caller));
    // Until the first piece is full, what is wrong can still be told by the status.
    let first = match pieces.next().await.transpose() {
        // The ancestor knew names only by what was sent to them.
        Err(problem) if is_open && problem.unknown_user().is_some() => {
            return Ok(done(StatusCode::OK, &json!({"messages": []})));
        }
        first => first?.unwrap_or_default(),
    };
    let pieces = tokio_stream::once(Ok(first)).chain(pieces);
    let frames = pieces.map(|piece| match piece {
        Ok(bytes) => Ok(Frame::data(bytes)),
        Err(problem) => Err(Status::unavailable(problem.detail())),
    });
    let body = Body::new(StreamBody::new(frames));
    Ok(answer::headed(StatusCode::OK, answer::JSON, body))
}

/// `{"messages": [[id, from_user, message, timestamp], …]}` in pieces, read page by page, up to where
/// the mailbox ended when the first page was read. When a page cannot be read the answer breaks off: it
/// must not look whole.
fn mailbox<S: Inner>(
    gateway: Gateway<S>,
    caller: Caller,
) -> impl Stream<Item = Result<Bytes, Problem>> + Send {
    try_stream! {
        let mut page = page_after(&gateway, &caller, None).await?;
        let end = page.last_sequence;
        let mut text = String::from("{\"messages\":[");
        let mut separator = "";
        loop {
            let mut cursor = end;
            for message in page.messages {
                cursor = message.sequence;
                if cursor > end {
                    break;
                }
                text.push_str(separator);
                text.push_str(&row(message).to_string());
                separator = ",";
                if text.len() >= PIECE_BYTES {
                    yield std::mem::take(&mut text).into();
                }
            }
            if !page.has_more || cursor >= end {
                break;
            }
            page = page_after(&gateway, &caller, Some(cursor)).await?;
        }
        text.push_str("]}\n");
        yield text.into();
    }
}

/// A message as the ancestor's row: its number in the mailbox, its sender, its text, its time.
fn row(message: Message) -> Value {
    let text = match message.body {
        Some(message::Body::Text(text)) => text,
        // The ancestor had only text. `content_type` and which of the two it is are shown under /v1.
        Some(message::Body::Data(data)) => STANDARD.encode(data),
        None => String::new(),
    };
    let seconds = message.send_time.map(|time| time.seconds).unwrap_or_default();
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    // As SQLite's CURRENT_TIMESTAMP.
    let time = time.strftime("%Y-%m-%d %H:%M:%S").to_string();
    json!([message.sequence, message.from_user, text, time])
}

/// Registers a name that an open server does not know. The ancestor let anybody write to any name: its
/// users expect to find there what came before they registered.
async fn introduce<S: Inner>(
    gateway: &Gateway<S>,
    caller: &Caller,
    name: &str,
) -> Result<(), Problem> {
    let request = RegisterRequest { username: name.to_owned(), ..Default::default() };
    unary(gateway, "Register", caller.clone(), &request).await?;
    Ok(())
}

/// A page of what the caller received after a sequence; `None`: from the mailbox's beginning.
async fn page_after<S: Inner>(
    gateway: &Gateway<S>,
    caller: &Caller,
    after: Option<i64>,
) -> Result<GetMessagesResponse, Problem> {
    let request = GetMessagesRequest {
        cursor: after.map(get_messages_request::Cursor::AfterSequence),
        received_only: true,
        page_size: i32::try_from(PAGE_SIZE_MAX).unwrap_or(i32::MAX),
        ..Default::default()
    };
    let answer = unary(gateway, "GetMessages", caller.clone(), &request).await?;
    GetMessagesResponse::decode(answer).map_err(|error| undecodable(&error))
}

async fn unary<S: Inner>(
    gateway: &Gateway<S>,
    rpc: &str,
    caller: Caller,
    request: &impl prost::Message,
) -> Result<Bytes, Problem> {
    let message = request.encode_to_vec();
    call::unary(gateway.inner.clone(), rpc, caller, async { Ok(message) }).await
}

/// What a request says under these names, and who sent it. That says for whom the call is made, so it is
/// read first, under the deadline that every call has.
async fn texts<const N: usize>(
    request: Request<Body>,
    body_bytes_max: usize,
    names: [&str; N],
) -> Result<(Caller, [String; N]), Problem> {
    let (parts, body) = request.into_parts();
    request_body::check_type(&parts.headers)?;
    let reading = request_body::whole(body, request_body::send_bytes_max(body_bytes_max));
    let content = match timeout(CALL_DEADLINE, reading).await {
        Ok(Ok(content)) => content,
        Ok(Err(Refused::Problem(problem))) => return Err(problem),
        Ok(Err(Refused::TooLarge)) => {
            let detail = format!("at most {body_bytes_max} bytes of a message are accepted");
            return Err(Problem::plain(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Err(_) => {
            let detail = "the request did not come in time";
            return Err(Problem::plain(StatusCode::REQUEST_TIMEOUT, detail));
        }
    };
    match serde_json::from_slice(&content) {
        Ok(Value::Object(object)) => Ok((Caller::of(&parts), required(object, names)?)),
        Ok(_) => Err(bad_request("the request is not a JSON object")),
        Err(error) => Err(bad_request(format!("the request is not JSON: {error}"))),
    }
}

/// The members of these names, all of them texts.
fn required<const N: usize>(
    mut object: Map<String, Value>,
    names: [&str; N],
) -> Result<[String; N], Problem> {
    let mut texts = [const { String::new() }; N];
    for (text, name) in texts.iter_mut().zip(names) {
        *text = match object.remove(name) {
            Some(Value::String(value)) => value,
            None | Some(Value::Null) => return Err(bad_request(format!("{name} is missing"))),
            Some(_) => return Err(bad_request(format!("{name} is not a text"))),
        };
    }
    Ok(texts)
}

/// A name as it goes with a call.
fn user(field: &str, name: &str) -> Result<HeaderValue, Problem> {
    let name = Username::parse(name).map_err(|error| bad_request(format!("{field} {error}")))?;
    HeaderValue::from_str(name.as_str()).map_err(|error| bad_request(format!("{field}: {error}")))
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::plain(StatusCode::BAD_REQUEST, detail)
}

fn undecodable(error: &prost::DecodeError) -> Problem {
    let detail = format!("an answer that cannot be decoded: {error}");
    Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, detail)
}

fn done(status: StatusCode, json: &Value) -> Response<Body> {
    answer::with(status, answer::JSON, format!("{json}\n"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, Full};

    use super::*;

    #[test]
    fn a_row_is_as_the_ancestors_database_gave_it() {
        let text = Some(message::Body::Text("hi \"Bob\"".into()));
        let time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 999_999_999 });
        let message = Message {
            sequence: 3,
            from_user: "Alice".into(),
            body: text,
            send_time: time,
            ..Default::default()
        };
        assert_eq!(row(message.clone()), json!([3, "Alice", "hi \"Bob\"", "2023-11-14 22:13:20"]));
        let data = Some(message::Body::Data(vec![0xff, 0].into()));
        assert_eq!(row(Message { body: data, ..message })[2], "/wA=");
    }

    /// Answers with one page, which says that there is more, and then with an error.
    async fn a_page_and_no_more(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let frame = request.into_body().collect().await.expect("a request").to_bytes();
        let asked = GetMessagesRequest::decode(&frame[5..]).expect("a request");
        if asked.cursor.is_some() {
            return Ok(Status::data_loss("damaged").into_http());
        }
        let text = Some(message::Body::Text("x".repeat(PIECE_BYTES)));
        let message = Message { sequence: 1, body: text, ..Default::default() };
        let page = GetMessagesResponse {
            messages: vec![message],
            has_more: true,
            last_sequence: 2,
            ..Default::default()
        };
        Ok(Response::new(Body::new(Full::new(call::framed(&page.encode_to_vec())))))
    }

    #[tokio::test]
    async fn a_mailbox_that_cannot_be_read_to_its_end_breaks_off() {
        let gateway = Gateway::new(tower::service_fn(a_page_and_no_more), 1_000, false);
        let request = Request::get("/get_messages?to_user=bob").body(Body::empty());
        let answer = read(gateway, request.expect("a request")).await.expect("it begins well");
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = answer.into_body();
        let first = body.frame().await.expect("a piece").expect("the first page");
        assert!(first.into_data().is_ok_and(|bytes| bytes.starts_with(b"{\"messages\":[[1,")));
        assert!(body.frame().await.expect("an error").is_err());
    }

    #[test]
    fn says_what_is_missing() {
        let object = || Map::from_iter([("a".to_owned(), json!("x")), ("b".to_owned(), json!(1))]);
        assert_eq!(required(object(), ["a"]).expect("there"), ["x"]);
        let refused = |names| required(object(), names).expect_err("refused").detail().to_owned();
        assert_eq!(refused(["a", "c"]), "c is missing");
        assert_eq!(refused(["a", "b"]), "b is not a text");
        assert!(user("to_user", "no such name").is_err());
    }
}
