//! A mailbox as server-sent events (the HTML standard's `text/event-stream`).
//!
//! Every event's id is a cursor, `<epoch>/<sequence>`: everything up to that sequence was delivered.
//! A client that comes again with the last id it saw (`Last-Event-ID`) gets what comes after it, or is
//! told that there is another database now.

use async_stream::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use prost_reflect::{MessageDescriptor, ReflectMessage as _};
use serde_json::{Map, Value};
use tonic::Status;
use tonic::body::Body;

use super::call::{self, Answers, Caller, Inner};
use super::problem::{FieldProblem, Problem};
use super::{Gateway, answer, json};
use crate::proto::SubscribeResponse;
use crate::proto::subscribe_response::Event;

const RPC: &str = "Subscribe";

const LAST_EVENT_ID: &str = "last-event-id";

/// How long a client waits before it comes again, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// Events that are there are given together up to so many bytes: then what waits for the client has
/// its turn.
const GATHERED_BYTES: usize = 16 * 1024;

/// Follows the mailbox of the caller.
pub(super) async fn follow<S: Inner>(
    gateway: Gateway<S>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let (parts, _) = request.into_parts();
    let caller = Caller::of(&parts);
    let input = json::rpc(RPC).input();
    let message = async move {
        let query = parts.uri.query().unwrap_or_default();
        let mut object = json::parameters(&input, query, Map::new())?;
        resume(&mut object, &parts.headers)?;
        Ok(json::read_object(&input, object)?.encode_to_vec())
    };
    let answers = call::call(gateway.inner, RPC, caller, message).await?;
    let body = Body::new(StreamBody::new(frames(answers)));
    let mut response = answer::headed(StatusCode::OK, "text/event-stream", body);
    // Proxies that gather answers before they pass them on are asked not to.
    let (gather, no) =
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(gather, no);
    Ok(response)
}

/// The id of the last event that the client saw goes before what its address says: a browser comes
/// again at the same address.
fn resume(object: &mut Map<String, Value>, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(()) };
    let Some((epoch, sequence)) = id.to_str().ok().and_then(cursor) else {
        let problem = "is not the id of an event of this service: <epoch>/<sequence>";
        return Err(Problem::invalid_fields(vec![FieldProblem::new(LAST_EVENT_ID, problem)]));
    };
    object.remove("from_now");
    object.insert("after_sequence".to_owned(), sequence.into());
    object.insert("epoch".to_owned(), epoch.into());
    Ok(())
}

fn cursor(id: &str) -> Option<(&str, i64)> {
    let (epoch, sequence) = id.split_once('/')?;
    let is_number = !sequence.is_empty() && sequence.bytes().all(|byte| byte.is_ascii_digit());
    let sequence = sequence.parse().ok().filter(|_| is_number)?;
    if epoch.is_empty() { None } else { Some((epoch, sequence)) }
}

/// The events, as the client takes them: between polls nothing runs.
fn frames(
    mut answers: Answers,
) -> impl tokio_stream::Stream<Item = Result<Frame<bytes::Bytes>, Status>> + Send {
    stream! {
        let mut writer = Writer::default();
        let mut text = format!("retry: {RETRY_MS}\n\n").into_bytes();
        loop {
            yield Ok(Frame::data(std::mem::take(&mut text).into()));
            let end = match answers.next().await {
                Ok(Some(message)) => writer.event(&message, &mut text),
                Ok(None) => break,
                Err(status) => Err(Problem::of(&status)),
            };
            let end = end.and_then(|()| {
                while text.len() < GATHERED_BYTES && let Some(message) = answers.at_hand() {
                    writer.event(&message, &mut text)?;
                }
                Ok(())
            });
            if let Err(problem) = end {
                let data = problem.to_json().to_string();
                write(&mut text, "error", None, data.as_bytes());
                yield Ok(Frame::data(text.into()));
                break;
            }
        }
    }
}

/// Writes events of one subscription.
struct Writer {
    output: MessageDescriptor,
    /// As `started` says.
    epoch: String,
}

impl Default for Writer {
    fn default() -> Self {
        Self { output: json::rpc(RPC).output(), epoch: String::new() }
    }
}

impl Writer {
    fn event(&mut self, message: &[u8], text: &mut Vec<u8>) -> Result<(), Problem> {
        let undecodable = |error: &dyn std::fmt::Display| {
            let detail = format!("an event that cannot be decoded: {error}");
            Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, detail)
        };
        let event = SubscribeResponse::decode(message).map_err(|error| undecodable(&error))?.event;
        let (name, sequence) = match event {
            Some(Event::Started(started)) => {
                self.epoch = started.epoch;
                ("started", started.after_sequence)
            }
            Some(Event::Message(message)) => ("message", message.sequence),
            Some(Event::CaughtUp(caught_up)) => ("caught_up", caught_up.through_sequence),
            Some(Event::Heartbeat(heartbeat)) => ("heartbeat", heartbeat.through_sequence),
            None => return Err(undecodable(&"it is of no kind")),
        };
        let all = prost_reflect::DynamicMessage::decode(self.output.clone(), message);
        let all = all.map_err(|error| undecodable(&error))?;
        let event = all.get_field_by_name(name);
        let Some(event) = event.as_ref().and_then(|event| event.as_message()) else {
            return Err(undecodable(&"it is of no kind"));
        };
        let data = json::shown(&event.descriptor(), &event.encode_to_vec())?;
        write(text, name, Some(&format!("{}/{sequence}", self.epoch)), &data);
        Ok(())
    }
}

/// One event. JSON is one line.
fn write(text: &mut Vec<u8>, name: &str, id: Option<&str>, data: &[u8]) {
    text.extend_from_slice(format!("event: {name}\n").as_bytes());
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_epoch_and_a_sequence() {
        assert_eq!(cursor("e0/17"), Some(("e0", 17)));
        for other in
            ["17", "/17", "e0/", "e0/-1", "e0/+1", "e0/x", "e0/1/2", "e0/99999999999999999999"]
        {
            assert_eq!(cursor(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_id_goes_before_the_address() {
        let mut object = Map::from_iter([
            ("from_now".to_owned(), Value::Bool(true)),
            ("received_only".to_owned(), Value::Bool(true)),
        ]);
        let headers = |id| {
            HeaderMap::from_iter([(
                HeaderName::from_static(LAST_EVENT_ID),
                HeaderValue::from_static(id),
            )])
        };
        let before = object.clone();
        resume(&mut object, &headers("")).expect("none");
        assert_eq!(object, before);
        resume(&mut object, &headers("e/5")).expect("an id");
        let expected =
            serde_json::json!({"received_only": true, "after_sequence": 5, "epoch": "e"});
        assert_eq!(Value::Object(object.clone()), expected);
        assert!(resume(&mut object, &headers("5")).is_err());
    }
}
