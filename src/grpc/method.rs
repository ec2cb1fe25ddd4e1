/// A method of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Register,
    SendMessage,
    SendMessages,
    GetMessages,
    Subscribe,
    Acknowledge,
    GetUser,
    ListUsers,
    CreateToken,
    ListTokens,
    RevokeToken,
    DeleteUser,
    /// None of the service's.
    Unknown,
}

impl Method {
    /// All, each at its index.
    pub(super) const ALL: [Self; 13] = [
        Self::Register,
        Self::SendMessage,
        Self::SendMessages,
        Self::GetMessages,
        Self::Subscribe,
        Self::Acknowledge,
        Self::GetUser,
        Self::ListUsers,
        Self::CreateToken,
        Self::ListTokens,
        Self::RevokeToken,
        Self::DeleteUser,
        Self::Unknown,
    ];

    /// The method that a path ends with.
    pub(super) fn of(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("Register") => Self::Register,
            Some("SendMessage") => Self::SendMessage,
            Some("SendMessages") => Self::SendMessages,
            Some("GetMessages") => Self::GetMessages,
            Some("Subscribe") => Self::Subscribe,
            Some("Acknowledge") => Self::Acknowledge,
            Some("GetUser") => Self::GetUser,
            Some("ListUsers") => Self::ListUsers,
            Some("CreateToken") => Self::CreateToken,
            Some("ListTokens") => Self::ListTokens,
            Some("RevokeToken") => Self::RevokeToken,
            Some("DeleteUser") => Self::DeleteUser,
            _ => Self::Unknown,
        }
    }

    /// The name with the service's, as OpenTelemetry's `rpc.method` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Register => "peerpost.v1.MessagingService/Register",
            Self::SendMessage => "peerpost.v1.MessagingService/SendMessage",
            Self::SendMessages => "peerpost.v1.MessagingService/SendMessages",
            Self::GetMessages => "peerpost.v1.MessagingService/GetMessages",
            Self::Subscribe => "peerpost.v1.MessagingService/Subscribe",
            Self::Acknowledge => "peerpost.v1.MessagingService/Acknowledge",
            Self::GetUser => "peerpost.v1.MessagingService/GetUser",
            Self::ListUsers => "peerpost.v1.MessagingService/ListUsers",
            Self::CreateToken => "peerpost.v1.MessagingService/CreateToken",
            Self::ListTokens => "peerpost.v1.MessagingService/ListTokens",
            Self::RevokeToken => "peerpost.v1.MessagingService/RevokeToken",
            Self::DeleteUser => "peerpost.v1.MessagingService/DeleteUser",
            Self::Unknown => "_OTHER",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// Whether its requests carry a body.
    pub(super) fn is_send(self) -> bool {
        matches!(self, Self::SendMessage | Self::SendMessages)
    }

    /// Whether its handler looks at what the caller was recognised by, beside who they are.
    pub(super) fn needs_credential(self) -> bool {
        self.is_stream() || self == Self::ListTokens
    }

    /// Whether its answers are a stream.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::SendMessages | Self::Subscribe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[test]
    fn every_method_of_the_contract_is_known() {
        let descriptors = prost_reflect::DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET);
        let descriptors = descriptors.expect("the contract's");
        let service = descriptors
            .get_service_by_name(proto::messaging_service_server::SERVICE_NAME)
            .expect("the service");
        let mut known = vec![Method::Unknown];
        for descriptor in service.methods() {
            let name = format!("{}/{}", service.full_name(), descriptor.name());
            let method = Method::of(&format!("/{name}"));
            assert_eq!(method.name(), name);
            assert_eq!(method.is_stream(), descriptor.is_server_streaming());
            known.push(method);
        }
        assert_eq!(known.len(), Method::ALL.len());
        for (index, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method.index(), index);
            assert!(known.contains(&method), "{method:?} is not in the contract");
        }
    }
}
