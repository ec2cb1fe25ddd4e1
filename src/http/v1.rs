//! The RPCs with one answer, under `/v1`.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use serde_json::Map;
use tonic::body::Body;

use super::call::{self, Caller, Inner, Refused};
use super::problem::{FieldProblem, Problem};
use super::routes::{Route, Verb};
use super::{Gateway, answer, json, request_body};
use crate::domain::limits::REQUEST_BYTES_MAX;

/// The header that names an idempotency key: the same as `request_id`.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

const REQUEST_ID: &str = "request_id";

/// Calls `rpc` with the request's fields.
pub(super) async fn call<S: Inner>(
    gateway: Gateway<S>,
    route: Route,
    rpc: &'static str,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let (input, output) = (json::rpc(rpc).input(), json::rpc(rpc).output());
    let (parts, body) = request.into_parts();
    let caller = Caller::of(&parts);
    let bytes_max = match rpc {
        "SendMessage" => request_body::send_bytes_max(gateway.body_bytes_max),
        _ => REQUEST_BYTES_MAX,
    };
    let message = async move {
        let message = match route.verb {
            Verb::Get => from_target(&input, route, &parts)?,
            Verb::Post => {
                from_target(&input, route, &parts)?;
                request_body::check_type(&parts.headers)?;
                let content = request_body::whole(body, bytes_max).await?;
                from_content(&input, &parts.headers, &content)?
            }
        };
        Ok(message.encode_to_vec())
    };
    let bytes: Bytes = call::unary(gateway.inner, rpc, caller, message).await?;
    let mut json = json::shown(&output, &bytes)?;
    // For those who read it in a terminal.
    json.push(b'\n');
    Ok(answer::with(StatusCode::OK, answer::JSON, json))
}

/// A request from its path and its query, which has no parameters where there is content.
fn from_target(
    input: &MessageDescriptor,
    route: Route,
    parts: &Parts,
) -> Result<DynamicMessage, Problem> {
    let mut object = Map::new();
    if let Some((name, value)) = route.variable(parts.uri.path()) {
        object.insert(name.to_owned(), json::percent_decoded("path", value)?.into());
    }
    let query = parts.uri.query().unwrap_or_default();
    if route.verb == Verb::Post {
        let strays = json::pairs(query)?.into_iter().map(|(name, _)| {
            FieldProblem::new(&name, "is a parameter where fields are in the content")
        });
        let strays: Vec<_> = strays.collect();
        if !strays.is_empty() {
            return Err(Problem::invalid_fields(strays));
        }
    }
    json::read_object(input, json::parameters(input, query, object)?)
}

/// A request from its content, and the idempotency key among its headers.
fn from_content(
    input: &MessageDescriptor,
    headers: &HeaderMap,
    content: &[u8],
) -> Result<DynamicMessage, Refused> {
    let mut message = json::read(input, content)?;
    if let (Some(key), Some(field)) =
        (idempotency_key(headers)?, input.get_field_by_name(REQUEST_ID))
    {
        let is_other =
            message.has_field(&field) && message.get_field(&field).as_str() != Some(key.as_str());
        if is_other {
            let problem = FieldProblem::new(REQUEST_ID, "differs from the header Idempotency-Key");
            return Err(Problem::invalid_fields(vec![problem]).into());
        }
        message.set_field(&field, Value::String(key));
    }
    Ok(message)
}

/// The key, which stands in quotes or not.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let Ok(text) = value.to_str() else {
        let problem = FieldProblem::new(REQUEST_ID, "is in a header that is not visible ASCII");
        return Err(Problem::invalid_fields(vec![problem]));
    };
    let text = text.trim();
    let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    Ok(Some(unquoted.unwrap_or(text).to_owned()))
}
