//! The comments of a `.proto` file, by what they stand at.

use std::collections::HashMap;

use prost_types::FileDescriptorProto;

/// Where things are in a `FileDescriptorProto`: the numbers of its fields, as
/// `google/protobuf/descriptor.proto` gives them to `SourceCodeInfo.Location.path`.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
/// Fields of a message, values of an enum, methods of a service.
const MEMBERS: i32 = 2;
const ONEOFS: i32 = 8;

/// The comments that stand before the parts of a file.
pub(crate) struct Comments(HashMap<Vec<i32>, String>);

impl Comments {
    pub(crate) fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        Self(
            locations
                .map(|location| (location.path.clone(), location.leading_comments().to_owned()))
                .collect(),
        )
    }

    /// Paragraphs, each without the breaks of its lines.
    fn at(&self, path: &[i32]) -> Vec<String> {
        let text = self.0.get(path).map_or("", String::as_str);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let paragraphs = lines.split(|line| line.is_empty()).map(|lines| lines.join(" "));
        paragraphs.filter(|paragraph| !paragraph.is_empty()).collect()
    }

    pub(crate) fn service(&self) -> Vec<String> {
        self.at(&[SERVICES, 0])
    }

    pub(crate) fn method(&self, method: usize) -> Vec<String> {
        self.at(&[SERVICES, 0, MEMBERS, number(method)])
    }

    pub(crate) fn message(&self, message: usize) -> Vec<String> {
        self.at(&[MESSAGES, number(message)])
    }

    pub(crate) fn field(&self, message: usize, field: usize) -> Vec<String> {
        self.at(&[MESSAGES, number(message), MEMBERS, number(field)])
    }

    pub(crate) fn oneof(&self, message: usize, oneof: usize) -> Vec<String> {
        self.at(&[MESSAGES, number(message), ONEOFS, number(oneof)])
    }

    pub(crate) fn enumeration(&self) -> Vec<String> {
        self.at(&[ENUMS, 0])
    }

    pub(crate) fn value(&self, value: usize) -> Vec<String> {
        self.at(&[ENUMS, 0, MEMBERS, number(value)])
    }
}

fn number(index: usize) -> i32 {
    i32::try_from(index).expect("a contract is small")
}
