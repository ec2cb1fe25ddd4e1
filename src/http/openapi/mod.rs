//! The `OpenAPI` document of every route, made from the contract's descriptors and comments, and the
//! pages that explain the reasons of problems.

mod schema;

use std::sync::LazyLock;

use http::{Response, StatusCode};
use prost_reflect::{MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};
use tonic::body::Body;

use super::problem::Problem;
use super::routes::{Does, ROUTES, Route, Verb};
use super::{answer, json};
use crate::version::VERSION;

const IDEMPOTENCY_KEY: &str =
    "As requestId of SendMessageRequest; when both are given, they are equal.";

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The document.
pub(super) fn answer() -> Response<Body> {
    answer::with(StatusCode::OK, answer::JSON, DOCUMENT.as_str())
}

/// What the contract says of a reason.
pub(super) fn explain(reason: &str) -> Response<Body> {
    let reasons = json::CONTRACT.get_enum_by_name("peerpost.v1.ErrorReason");
    let value = reasons
        .as_ref()
        .and_then(|reasons| reasons.get_value_by_name(&format!("ERROR_REASON_{reason}")));
    let Some(value) = value.filter(|value| value.number() != 0) else {
        let detail = "there is no such reason";
        return Problem::plain(StatusCode::NOT_FOUND, detail).into_response();
    };
    let comment = schema::comment(&value.parent_enum().parent_file(), value.path());
    answer::with(StatusCode::OK, answer::TEXT, format!("{reason}\n\n{comment}\n"))
}

fn document() -> Value {
    let service = json::rpc("SendMessage").parent_service().clone();
    let mut paths = Map::new();
    let mut schemas = Map::from_iter([("Problem".to_owned(), problem_schema())]);
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        let verb = match route.verb {
            Verb::Get => "get",
            Verb::Post => "post",
        };
        item[verb] = operation(route, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "peerpost",
            "version": VERSION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            "description": schema::comment(&service.parent_file(), service.path()),
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token that registering a name returned.",
                },
            },
            "responses": {
                "Problem": {
                    "description": "Why there is no answer; the status is that of its code.",
                    "content": content("application/problem+json", &reference("Problem")),
                },
                "Error": {
                    "description": "Why there is no answer.",
                    "content": content("application/json", &object(&["error"])),
                },
            },
        },
    })
}

fn operation(route: Route, schemas: &mut Map<String, Value>) -> Value {
    match route.does {
        Does::Welcome => plain("welcome", "Says what this is.", "text/plain"),
        Does::OpenApi => plain("openApi", "This document.", "application/json"),
        Does::Explain => {
            let mut operation = plain("explain", "Explains a problem's reason.", "text/plain");
            operation["parameters"] = json!([path_parameter("reason", "For instance DISK_FULL.")]);
            operation["responses"]["404"] = json!({"$ref": "#/components/responses/Problem"});
            operation
        }
        Does::Register => {
            let mut operation = ancestor_post("register", "200", &["username", "ip_address"]);
            // Open to callers without a token.
            operation["security"] = json!([{}, {"token": []}]);
            operation
        }
        Does::Send => {
            let members = ["from_user", "to_user", "message"];
            let mut operation = ancestor_post("sendMessage", "201", &members);
            operation["parameters"] = json!([header("Idempotency-Key", IDEMPOTENCY_KEY)]);
            operation
        }
        Does::Read => ancestor_read(),
        Does::Call(rpc) => call(route, &json::rpc(rpc), schemas),
        Does::Events => events(schemas),
    }
}

/// An RPC with one answer.
fn call(route: Route, rpc: &MethodDescriptor, schemas: &mut Map<String, Value>) -> Value {
    schema::add(&rpc.output(), schemas);
    let answer = content("application/json", &reference(rpc.output().name()));
    let mut operation = described(rpc);
    operation["responses"] = responses("200", "The answer.", &answer);
    match route.verb {
        Verb::Get => operation["parameters"] = parameters(&rpc.input(), Some(route)),
        Verb::Post => {
            schema::add(&rpc.input(), schemas);
            let request = content("application/json", &reference(rpc.input().name()));
            operation["requestBody"] = json!({"required": true, "content": request});
        }
    }
    if rpc.name() == "Register" {
        operation["security"] = json!([{}, {"token": []}]);
    }
    if rpc.name() == "SendMessage" {
        operation["parameters"] = json!([header("Idempotency-Key", IDEMPOTENCY_KEY)]);
    }
    operation
}

fn events(schemas: &mut Map<String, Value>) -> Value {
    let rpc = json::rpc("Subscribe");
    schema::add(&rpc.output(), schemas);
    let mut operation = described(&rpc);
    let mut parameters = parameters(&rpc.input(), None);
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.push(header(
            "Last-Event-ID",
            "The id of the last event seen, `<epoch>/<sequence>`: goes on after it, whatever the \
             parameters say.",
        ));
    }
    operation["parameters"] = parameters;
    let stream = "Server-sent events, named as the fields of SubscribeResponse, each with that \
                  field as its data and `<epoch>/<sequence>` as its id; at the end `error`, whose \
                  data is a Problem.";
    let text = content("text/event-stream", &json!({"type": "string"}));
    operation["responses"] = responses("200", stream, &text);
    operation
}

/// What the contract says of an RPC.
fn described(rpc: &MethodDescriptor) -> Value {
    let comment = schema::comment(&rpc.parent_service().parent_file(), rpc.path());
    let first = comment.split_inclusive(['.', ':']).next().unwrap_or_default().replace('\n', " ");
    let mut id = rpc.name().to_owned();
    // Apart from the ancestor's, which has no prefix.
    id.insert_str(0, "v1");
    json!({"operationId": id, "summary": first.trim_end_matches(':'), "description": comment})
}

/// A request's fields as parameters: that in the path is required.
fn parameters(message: &MessageDescriptor, route: Option<Route>) -> Value {
    let in_path = |name: &str| route.is_some_and(|it| it.path.contains(&format!("{{{name}}}")));
    let parameter = |field: prost_reflect::FieldDescriptor| {
        let description = schema::comment(&message.parent_file(), field.path());
        if in_path(field.name()) {
            return path_parameter(field.name(), &description);
        }
        json!({
            "name": field.json_name(),
            "in": "query",
            "description": description,
            "schema": schema::of_field(&field, true),
        })
    };
    message.fields().map(parameter).collect()
}

fn path_parameter(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": description,
        "schema": {"type": "string"},
    })
}

fn header(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string"},
    })
}

fn plain(id: &str, summary: &str, content_type: &str) -> Value {
    let schema = if content_type == "application/json" { "object" } else { "string" };
    let content = content(content_type, &json!({"type": schema}));
    json!({
        "operationId": id,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "As it says.", "content": content}},
    })
}

fn ancestor_post(id: &str, status: &str, members: &[&str]) -> Value {
    let answer = content("application/json", &object(&["message"]));
    let mut responses = responses(status, "Done. A new name gets its `token`.", &answer);
    responses["default"] = json!({"$ref": "#/components/responses/Error"});
    json!({
        "operationId": id,
        "summary": "The call of the app that this service descends from.",
        "requestBody": {
            "required": true,
            "content": content("application/json", &object(members)),
        },
        "responses": responses,
    })
}

fn ancestor_read() -> Value {
    let row = json!({
        "type": "array",
        "prefixItems": [
            {"type": "integer", "description": "The message's number in the mailbox."},
            {"type": "string", "description": "Who sent it."},
            {"type": "string", "description": "Its text, or its bytes in base64."},
            {"type": "string", "description": "When, in UTC: YYYY-MM-DD HH:MM:SS."},
        ],
    });
    let mailbox = json!({
        "type": "object",
        "required": ["messages"],
        "properties": {"messages": {"type": "array", "items": row}},
    });
    let answer = content("application/json", &mailbox);
    let mut responses = responses("200", "All that the user received, in order.", &answer);
    responses["default"] = json!({"$ref": "#/components/responses/Error"});
    let to_user = json!({
        "name": "to_user",
        "in": "query",
        "required": true,
        "description": "Whose token it is.",
        "schema": {"type": "string"},
    });
    json!({
        "operationId": "getMessages",
        "summary": "The call of the app that this service descends from.",
        "parameters": [to_user],
        "responses": responses,
    })
}

fn responses(status: &str, description: &str, content: &Value) -> Value {
    json!({
        status: {"description": description, "content": content},
        "default": {"$ref": "#/components/responses/Problem"},
    })
}

fn content(content_type: &str, schema: &Value) -> Value {
    json!({content_type: {"schema": schema}})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// An object with these members, all of them texts.
fn object(members: &[&str]) -> Value {
    let texts = members.iter().map(|name| ((*name).to_owned(), json!({"type": "string"})));
    let properties: Map<String, Value> = texts.collect();
    json!({"type": "object", "required": members, "properties": properties})
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "Why there is no answer (RFC 9457). What only HTTP knows, such as a path \
                        that is not there, has no reason.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "For people."},
            "reason": {"type": "string", "description": "For programs: see /v1/problems/{reason}."},
            "domain": {"type": "string"},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "fieldViolations": {
                "type": "array",
                "description": "Every field that is wrong, as the contract names it.",
                "items": object(&["field", "description"]),
            },
            "retryAfter": {
                "type": "string",
                "description": "When to try again, for instance \"0.25s\". The header Retry-After \
                                says it in whole seconds.",
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ErrorReason;

    #[test]
    fn every_route_is_described() {
        let document = document();
        for route in ROUTES {
            let verb = if route.verb == Verb::Get { "get" } else { "post" };
            let operation = &document["paths"][route.path][verb];
            assert!(operation["summary"].as_str().is_some_and(|it| it.len() > 5), "{route:?}");
            assert!(operation["responses"].is_object(), "{route:?}");
        }
        let ids: Vec<_> = document["paths"]
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(_, item)| item.as_object().into_iter().flatten())
            .map(|(_, operation)| operation["operationId"].to_string())
            .collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!((ids.len(), distinct.len()), (ROUTES.len(), ROUTES.len()));
    }

    /// The page that people read.
    #[test]
    fn every_route_and_every_reason_is_on_the_page() {
        let page = include_str!("../../../docs/HTTP.md");
        for route in ROUTES {
            let verb = if route.verb == Verb::Get { "GET" } else { "POST" };
            assert!(page.contains(&format!("| `{verb} {}", route.path)), "{route:?}");
        }
        for reason in (1..1_000).filter_map(|n| ErrorReason::try_from(n).ok()) {
            assert!(page.contains(reason.as_reason()), "{reason:?}");
        }
    }

    #[test]
    fn every_rpc_but_the_stream_of_sends_has_a_route() {
        let service = json::rpc("SendMessage").parent_service().clone();
        for rpc in service.methods() {
            let has_route = match rpc.name() {
                "Subscribe" => ROUTES.iter().any(|route| route.does == Does::Events),
                name => ROUTES.iter().any(|route| match route.does {
                    Does::Call(rpc) => rpc == name,
                    _ => false,
                }),
            };
            assert!(has_route != (rpc.name() == "SendMessages"), "{}", rpc.name());
        }
    }

    /// Of every message that a route shows: each field, with its comment and a type.
    #[test]
    fn every_field_is_described() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for (name, schema) in schemas {
            let Some(message) = json::CONTRACT.get_message_by_name(&format!("peerpost.v1.{name}"))
            else {
                assert_eq!(name, "Problem");
                continue;
            };
            for field in message.fields() {
                let property = &schema["properties"][field.json_name()];
                let of = if field.is_list() { &property["items"] } else { property };
                assert!(of["type"] != Value::Null || of["$ref"] != Value::Null, "{field:?}");
                let described = property["description"].as_str().unwrap_or_default();
                assert!(described.len() > 5, "{field:?} has no comment");
            }
        }
        for name in ["SendMessageRequest", "GetMessagesResponse", "Message", "User", "Heartbeat"] {
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    members.values().for_each(|member| references(member, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let (document, mut found) = (document(), Vec::new());
        references(&document, &mut found);
        assert!(found.len() > 20, "only {}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_reason_is_explained() {
        let all: Vec<_> = (1..1_000).filter_map(|n| ErrorReason::try_from(n).ok()).collect();
        assert!(all.len() >= 18);
        for reason in all {
            assert_eq!(explain(reason.as_reason()).status(), StatusCode::OK, "{reason:?}");
        }
        for other in ["", "UNSPECIFIED", "ERROR_REASON_DISK_FULL", "disk_full"] {
            assert_eq!(explain(other).status(), StatusCode::NOT_FOUND, "{other}");
        }
    }
}
