//! Messages of the contract as canonical protobuf JSON, and requests from it or from the parameters
//! of a query.

use std::sync::LazyLock;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, SerializeOptions,
};
use serde_json::{Map, Value};

use super::problem::{FieldProblem, Problem};
use crate::proto;

/// Fields that were not set are shown, as the JSON mapping allows, so that a client finds `false`,
/// `"0"` and `[]` where it looks; but for those whose absence says something.
const SHOWN: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(true);

/// What stands for the request as a whole where a field is named.
const REQUEST: &str = "request";

/// The contract's descriptors.
pub(super) static CONTRACT: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET)
        .expect("the build made the descriptors, and tests read them")
});

/// The RPC of this name.
pub(super) fn rpc(name: &str) -> MethodDescriptor {
    let service = CONTRACT.get_service_by_name("peerpost.v1.MessagingService");
    let found = service.and_then(|service| service.methods().find(|it| it.name() == name));
    found.expect("routes name RPCs of the contract, which tests hold them to")
}

/// A request from a JSON object.
///
/// # Errors
/// All fields that are wrong.
pub(super) fn read(message: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = DynamicMessage::deserialize_with_options(message.clone(), &mut reader, &READ);
    match read.and_then(|read| reader.end().map(|()| read)) {
        Ok(read) => Ok(read),
        Err(error) => Err(what_is_wrong(message, json, &error)),
    }
}

/// A request from an object that was read, or from parameters.
///
/// # Errors
/// All fields that are wrong.
pub(super) fn read_object(
    message: &MessageDescriptor,
    object: Map<String, Value>,
) -> Result<DynamicMessage, Problem> {
    let mut problems = problems(message, &object);
    if problems.is_empty() {
        match DynamicMessage::deserialize_with_options(
            message.clone(),
            Value::Object(object),
            &READ,
        ) {
            Ok(read) => return Ok(read),
            Err(error) => problems.push(FieldProblem::new(REQUEST, &in_short(&error))),
        }
    }
    Err(Problem::invalid_fields(problems))
}

/// A message as JSON.
pub(super) fn shown(message: &MessageDescriptor, bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let internal = |error: String| Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, error);
    let message = DynamicMessage::decode(message.clone(), bytes)
        .map_err(|error| internal(format!("an answer that cannot be decoded: {error}")))?;
    let mut json = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &SHOWN)
        .map_err(|error| internal(format!("an answer that has no JSON: {error}")))?;
    Ok(json)
}

/// The parameters of a query as an object of the request's fields, beside those that it has already.
///
/// # Errors
/// All parameters that are wrong.
pub(super) fn parameters(
    message: &MessageDescriptor,
    query: &str,
    mut object: Map<String, Value>,
) -> Result<Map<String, Value>, Problem> {
    let mut problems = Vec::new();
    for (name, value) in pairs(query)? {
        let Some(field) = field(message, &name) else {
            problems.push(FieldProblem::new(&name, "is no parameter of this call"));
            continue;
        };
        match parameter(&field, value) {
            Err(problem) => problems.push(FieldProblem::new(field.name(), problem)),
            Ok(value) => {
                if object.insert(field.name().to_owned(), value).is_some() {
                    problems.push(FieldProblem::new(field.name(), "is given twice"));
                }
            }
        }
    }
    if problems.is_empty() { Ok(object) } else { Err(Problem::invalid_fields(problems)) }
}

/// The names and values of a query (`application/x-www-form-urlencoded`).
pub(super) fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let decode = |text: &str| percent_decoded("query", &text.replace('+', " "));
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    });
    pairs.collect()
}

/// What a part of the request's target stands for.
pub(super) fn percent_decoded(part: &str, text: &str) -> Result<String, Problem> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from)
        .map_err(|_| Problem::invalid_fields(vec![FieldProblem::new(part, "is not UTF-8")]))
}

/// A parameter's value as its field's JSON: numbers may be strings there, but booleans not.
fn parameter(field: &FieldDescriptor, value: String) -> Result<Value, &'static str> {
    match (field.kind(), value.as_str()) {
        (Kind::Bool, "true") => Ok(Value::Bool(true)),
        (Kind::Bool, "false") => Ok(Value::Bool(false)),
        (Kind::Bool, _) => Err("is neither true nor false"),
        _ => Ok(Value::String(value)),
    }
}

/// The field of this name, in either form that the JSON mapping knows.
fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

/// Which fields of a text that could not be read are wrong.
fn what_is_wrong(message: &MessageDescriptor, json: &[u8], error: &serde_json::Error) -> Problem {
    let whole = |problem: &str| Problem::invalid_fields(vec![FieldProblem::new(REQUEST, problem)]);
    if json.trim_ascii().is_empty() {
        return whole("is required");
    }
    match serde_json::from_slice(json) {
        Err(error) => whole(&format!("is not JSON: {error}")),
        Ok(Value::Object(object)) => match problems(message, &object) {
            problems if problems.is_empty() => whole(&in_short(error)),
            problems => Problem::invalid_fields(problems),
        },
        Ok(_) => whole("is not a JSON object"),
    }
}

/// What is wrong with each member of an object, alone and with those that exclude it.
fn problems(message: &MessageDescriptor, object: &Map<String, Value>) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    for (name, value) in object {
        let Some(field) = field(message, name) else {
            problems.push(FieldProblem::new(name, "is no field of this request"));
            continue;
        };
        let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        let read = DynamicMessage::deserialize_with_options(message.clone(), alone, &READ);
        if let Err(error) = read {
            let problem = format!("cannot be decoded: {}", in_short(&error));
            problems.push(FieldProblem::new(field.name(), &problem));
        }
    }
    let given = |field: &FieldDescriptor| {
        let names = [field.json_name(), field.name()];
        names.iter().any(|name| object.get(*name).is_some_and(|value| !value.is_null()))
    };
    for oneof in message.oneofs() {
        let given: Vec<_> = oneof.fields().filter(given).collect();
        if given.len() > 1 {
            let names: Vec<_> = given.iter().map(FieldDescriptor::name).collect();
            let problem = format!("is given in more than one field: {}", names.join(", "));
            problems.push(FieldProblem::new(oneof.name(), &problem));
        }
    }
    problems
}

/// Without the place in the text, which says little where fields are named.
fn in_short(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::json;

    use super::*;

    fn request(rpc_name: &str) -> MessageDescriptor {
        rpc(rpc_name).input()
    }

    fn read_as<M: prost::Message + Default>(rpc_name: &str, json: &str) -> M {
        let read = read(&request(rpc_name), json.as_bytes());
        let read = read.unwrap_or_else(|problem| panic!("{json}: {problem:?}"));
        M::decode(read.encode_to_vec().as_slice()).expect("the same message")
    }

    /// The fields that the problem names.
    #[track_caller]
    fn refused<T: std::fmt::Debug>(read: Result<T, Problem>) -> Vec<String> {
        let problem = read.expect_err("refused").to_json();
        assert_eq!(problem["reason"], "INVALID_FIELD");
        let violations = problem["fieldViolations"].as_array().expect("fields").clone();
        violations.iter().map(|it| it["field"].as_str().expect("a name").to_owned()).collect()
    }

    #[test]
    fn reads_both_forms_of_names_and_of_numbers() {
        for json in [
            r#"{"afterSequence": "7", "pageSize": 3, "receivedOnly": true}"#,
            r#"{"after_sequence": 7, "page_size": "3", "received_only": true, "peer": null}"#,
        ] {
            let read: proto::GetMessagesRequest = read_as("GetMessages", json);
            assert_eq!(
                read,
                proto::GetMessagesRequest {
                    cursor: Some(proto::get_messages_request::Cursor::AfterSequence(7)),
                    received_only: true,
                    page_size: 3,
                    ..Default::default()
                }
            );
        }
        let bytes: proto::SendMessageRequest = read_as("SendMessage", r#"{"data": "/+8="}"#);
        let data = vec![0xff, 0xef].into();
        assert_eq!(bytes.body, Some(proto::send_message_request::Body::Data(data)));
    }

    #[test]
    fn names_every_field_that_is_wrong() {
        let send = request("SendMessage");
        let wrong = |json: &str| refused(read(&send, json.as_bytes()));
        assert_eq!(
            wrong(r#"{"to_user": 5, "text": [], "colour": 1}"#),
            ["colour", "text", "to_user"]
        );
        assert_eq!(wrong(r#"{"text": "a", "data": "YQ=="}"#), ["body"]);
        assert_eq!(wrong(r#"{"data": "?"}"#), ["data"]);
        for whole in ["", " \n", "{", "[]", "5", "null", "{} {}", r#"{"text": "\ud800"}"#, "\u{0}"]
        {
            assert_eq!(wrong(whole), ["request"], "{whole}");
        }
        let get = request("GetMessages");
        for number in ["1.5", "9223372036854775808", r#""x""#, "true", "{}", r#""""#] {
            let json = format!(r#"{{"after_sequence": {number}}}"#);
            assert_eq!(refused(read(&get, json.as_bytes())), ["after_sequence"], "{number}");
        }
        assert_eq!(refused(read(&send, b"{\"text\": \"\xff\"}")), ["request"]);
    }

    #[test]
    fn reads_parameters_as_the_fields_that_they_name() {
        let get = request("GetMessages");
        let object =
            parameters(&get, "afterSequence=4&peer=b%6fb+x&received_only=true&&", Map::new());
        let object = object.expect("good parameters");
        assert_eq!(
            Value::Object(object.clone()),
            json!({"after_sequence": "4", "peer": "bob x", "received_only": true})
        );
        assert!(read_object(&get, object).is_ok());
        let parameters = |query| parameters(&get, query, Map::new());
        assert_eq!(refused(parameters("peers=x&received_only=1")), ["peers", "received_only"]);
        assert_eq!(refused(parameters("peer=a&peer=b")), ["peer"]);
        assert_eq!(refused(parameters("peer=%ff")), ["query"]);
        let both = parameters("after_sequence=1&before_sequence=x").expect("known");
        assert_eq!(refused(read_object(&get, both)), ["before_sequence", "cursor"]);
    }

    #[test]
    fn shows_what_is_not_set_unless_that_says_something() {
        let user = proto::User { username: "a".into(), ..Default::default() };
        let shown = shown(
            &rpc("GetUser").output(),
            &proto::GetUserResponse { user: Some(user) }.encode_to_vec(),
        );
        let shown: Value = serde_json::from_slice(&shown.expect("it has JSON")).expect("JSON");
        assert_eq!(shown, json!({"user": {"username": "a", "ipAddress": "", "online": false}}));
    }
}
