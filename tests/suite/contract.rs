//! The contract as the descriptors tell it, and calls with requests written byte by byte: for tests
//! that go through every RPC and every field, those to come included.

use bytes::{Buf as _, BufMut as _, Bytes};
use peerpost::proto;
use peerpost::proto::ErrorReason;
use peerpost::testing::{refused, within_patience};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const SERVICE: &str = "peerpost.v1.MessagingService";

/// A method of the service.
#[derive(Debug)]
pub(crate) struct Rpc {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

/// A field of a request. Those of a message inside it stand for that message.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// `heartbeat_interval.seconds` for one of a message inside the request.
    pub(crate) path: String,
    pub(crate) kind: Type,
    /// What the server can name when the field cannot be decoded: for it a field of a oneof is the
    /// oneof, and one of a message inside the request is that message.
    pub(crate) place: String,
    oneof: Option<String>,
    numbers: Vec<u32>,
}

/// What a request says in a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Bytes(Vec<u8>),
    Number(i64),
    /// More bits than a number has: eleven bytes where ten are the most.
    EndlessNumber,
    /// Eight bytes where the field's kind has none such: no field of the contract is a `fixed64`.
    OtherKind,
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Bytes(text.into().into_bytes())
    }
}

/// What a request says, by the paths of its fields.
pub(crate) type Said<'a> = Vec<(&'a str, Value)>;

/// Every RPC of the service, in the contract's order.
pub(crate) fn rpcs() -> Vec<Rpc> {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let files = || set.file.iter();
    let of_file = |file: &prost_types::FileDescriptorProto| {
        let package = file.package().to_owned();
        let messages = file.message_type.clone().into_iter();
        messages.map(move |it| (format!(".{package}.{}", it.name()), it)).collect::<Vec<_>>()
    };
    let messages: Vec<_> = files().flat_map(of_file).collect();
    let service =
        files().flat_map(|file| file.service.iter()).find(|it| SERVICE.ends_with(it.name()));
    let methods = &service.expect("the service").method;
    let rpc = |method: &prost_types::MethodDescriptorProto| Rpc {
        name: method.name().to_owned(),
        fields: fields(&messages, message(&messages, method.input_type())),
    };
    methods.iter().map(rpc).collect()
}

fn message<'a>(messages: &'a [(String, DescriptorProto)], name: &str) -> &'a DescriptorProto {
    let found = messages.iter().find(|(known, _)| known == name);
    found.map_or_else(|| panic!("no message {name}"), |(_, message)| message)
}

fn fields(messages: &[(String, DescriptorProto)], request: &DescriptorProto) -> Vec<Field> {
    let field = |field: &FieldDescriptorProto| {
        let oneof = field.oneof_index.and_then(|index| usize::try_from(index).ok());
        let oneof = oneof.map(|index| request.oneof_decl[index].name().to_owned());
        let number = field.number().cast_unsigned();
        let place = oneof.clone().unwrap_or_else(|| field.name().to_owned());
        let own = Field {
            path: field.name().to_owned(),
            kind: field.r#type(),
            place,
            oneof,
            numbers: vec![number],
        };
        if own.kind != Type::Message {
            return vec![own];
        }
        let inner = fields(messages, message(messages, field.type_name()));
        let inside = |inner: Field| Field {
            path: format!("{}.{}", own.path, inner.path),
            kind: inner.kind,
            numbers: [own.numbers.clone(), inner.numbers].concat(),
            ..own.clone()
        };
        inner.into_iter().map(inside).collect()
    };
    request.field.iter().flat_map(field).collect()
}

impl Rpc {
    pub(crate) fn field(&self, path: &str) -> &Field {
        let found = self.fields.iter().find(|field| field.path == path);
        found.unwrap_or_else(|| panic!("{} has no field {path}", self.name))
    }

    /// What `said` becomes when it says `value` in `field`, or nothing there.
    pub(crate) fn saying<'a>(
        &self,
        said: &Said<'a>,
        field: &'a Field,
        value: Option<Value>,
    ) -> Said<'a> {
        let replaced = |path: &str| {
            let other = self.field(path);
            path == field.path || other.oneof.is_some() && other.oneof == field.oneof
        };
        let kept = said.iter().filter(|(path, _)| !replaced(path)).cloned();
        kept.chain(value.map(|value| (field.path.as_str(), value))).collect()
    }

    /// The request's bytes.
    pub(crate) fn encode(&self, said: &Said<'_>) -> Bytes {
        let mut bytes = Vec::new();
        for (path, value) in said {
            put(&mut bytes, &self.field(path).numbers, value);
        }
        bytes.into()
    }

    /// Calls it with these bytes as its one request. The answer is the first message of the response,
    /// as its bytes; one that holds the error of a request counts as that error.
    pub(crate) async fn call(
        &self,
        channel: &Channel,
        authorization: Option<MetadataValue<Ascii>>,
        request: Bytes,
    ) -> Result<Bytes, Status> {
        let metadata = authorization.map(|value| ("authorization", value));
        self.call_with(channel, metadata.as_slice(), request).await
    }

    /// Asserts that a good request was let in, whatever it came to: there is no token that can be revoked
    /// again and again.
    #[track_caller]
    pub(crate) fn let_in(&self, answer: Result<Bytes, Status>) {
        match (self.name.as_str(), answer) {
            (_, Ok(_)) => {}
            ("RevokeToken", answer) => drop(refused(answer, ErrorReason::TokenNotFound)),
            (name, Err(status)) => panic!("{name}: {status:?}"),
        }
    }

    /// Whether its caller is there after it.
    pub(crate) fn spares_its_caller(&self) -> bool {
        self.name != "DeleteUser"
    }

    /// [`call`](Self::call) with any metadata.
    pub(crate) async fn call_with(
        &self,
        channel: &Channel,
        metadata: &[(&'static str, MetadataValue<Ascii>)],
        request: Bytes,
    ) -> Result<Bytes, Status> {
        let mut request = Request::new(tokio_stream::once(request));
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.clone());
        }
        let path = format!("/{SERVICE}/{}", self.name).parse().expect("a path");
        let mut grpc = Grpc::new(channel.clone());
        let call = async {
            grpc.ready().await.expect("the server is there");
            let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
            let ended = || Status::new(Code::Ok, "the response ended without a message");
            answers.message().await?.ok_or_else(ended)
        };
        let answer = within_patience(&self.name, call).await?;
        if self.name == "SendMessages" {
            use proto::send_messages_response::Result as R;
            let response = proto::SendMessagesResponse::decode(answer.clone()).expect("a response");
            if let Some(R::Error(error)) = response.result {
                let code = Code::from_i32(error.code);
                let details = error.encode_to_vec().into();
                return Err(Status::with_details(code, error.message, details));
            }
        }
        Ok(answer)
    }
}

fn put(bytes: &mut Vec<u8>, numbers: &[u32], value: &Value) {
    let [number, inner @ ..] = numbers else { panic!("a field has a number") };
    if !inner.is_empty() {
        let mut message = Vec::new();
        put(&mut message, inner, value);
        return put(bytes, &[*number], &Value::Bytes(message));
    }
    match value {
        Value::Bytes(content) => {
            encode_key(*number, WireType::LengthDelimited, bytes);
            encode_varint(content.len() as u64, bytes);
            bytes.put_slice(content);
        }
        Value::Number(content) => {
            encode_key(*number, WireType::Varint, bytes);
            encode_varint(content.cast_unsigned(), bytes);
        }
        Value::EndlessNumber => {
            encode_key(*number, WireType::Varint, bytes);
            bytes.put_slice(&[0xff; 10]);
            bytes.put_u8(1);
        }
        Value::OtherKind => {
            encode_key(*number, WireType::SixtyFourBit, bytes);
            bytes.put_u64(0);
        }
    }
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
