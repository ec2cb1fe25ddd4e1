//! Messages of the contract as JSON Schema, with the contract's comments.

use prost_reflect::{FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

/// The comment that stands before what is at `path` in a file of the contract.
pub(super) fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let places = info.map(|info| info.location.as_slice()).unwrap_or_default();
    let place = places.iter().find(|place| place.path == path);
    let text = place.and_then(|place| place.leading_comments.as_deref()).unwrap_or_default();
    // Each line begins with the space after its slashes.
    let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n").trim().to_owned()
}

/// Puts the schemas of a message, and of all that it holds, into `schemas` under their names.
pub(super) fn add(message: &MessageDescriptor, schemas: &mut Map<String, Value>) {
    if is_well_known(message) || schemas.contains_key(message.name()) {
        return;
    }
    let is_request = message.name().ends_with("Request");
    let mut properties = Map::new();
    for field in message.fields() {
        let mut schema = of_field(&field, is_request);
        schema["description"] = comment(&message.parent_file(), field.path()).into();
        properties.insert(field.json_name().to_owned(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "description": comment(&message.parent_file(), message.path()),
        "properties": properties,
    });
    if is_request {
        schema["additionalProperties"] = false.into();
    } else {
        // Shown even when they were not set.
        let always = message.fields().filter(|field| !field.supports_presence());
        let names: Vec<_> = always.map(|field| field.json_name().to_owned()).collect();
        schema["required"] = names.into();
    }
    schemas.insert(message.name().to_owned(), schema);
    for field in message.fields() {
        if let Kind::Message(inner) = field.kind() {
            add(&inner, schemas);
        }
    }
}

/// What a field holds, without its description.
pub(super) fn of_field(field: &FieldDescriptor, is_request: bool) -> Value {
    let schema = of_kind(&field.kind(), is_request);
    if field.is_list() { json!({"type": "array", "items": schema}) } else { schema }
}

fn of_kind(kind: &Kind, is_request: bool) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Kind::Int32 if is_request => json!({"type": ["integer", "string"], "format": "int32"}),
        Kind::Int32 => json!({"type": "integer", "format": "int32"}),
        // As a string, since many programs read numbers of JSON with 53 bits.
        Kind::Int64 if is_request => json!({"type": ["string", "integer"], "format": "int64"}),
        Kind::Int64 => json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => {
                json!({"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$", "examples": ["30s"]})
            }
            _ => json!({"$ref": format!("#/components/schemas/{}", message.name())}),
        },
        // No other kind is in a message that a route shows, which a test holds.
        _ => json!({}),
    }
}

fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}
