use std::fmt;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// The address at which a user can be reached: an IPv4 or IPv6 literal, with or without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// An address alone.
    Host(IpAddr),
    /// An address with a port other than 0.
    HostAndPort(SocketAddr),
}

/// Why a text is not a [`PeerAddress`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerAddressError {
    /// Neither an IP literal nor one with a port.
    #[error(
        "is not an IPv4 or IPv6 literal, with or without a port \
         (such as 192.0.2.7, 192.0.2.7:9000, 2001:db8::7 or [2001:db8::7]:9000)"
    )]
    Malformed,
    /// The port is 0.
    #[error("has port 0; a port is 1 to 65535")]
    PortZero,
    /// An IPv6 zone identifier means nothing on another machine.
    #[error("has a zone identifier, which means nothing to other machines")]
    Zone,
}

impl PeerAddress {
    /// Parses an IP literal, with or without a port.
    ///
    /// # Errors
    /// [`PeerAddressError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, PeerAddressError> {
        if text.contains('%') {
            return Err(PeerAddressError::Zone);
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Host(ip));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(PeerAddressError::PortZero),
            Ok(address) => Ok(Self::HostAndPort(address)),
            Err(_) => Err(PeerAddressError::Malformed),
        }
    }

    /// The address from which a call came. A dual-stack socket sees IPv4 callers as mapped IPv6
    /// addresses; they are shown as what they are.
    pub fn seen(ip: IpAddr) -> Self {
        Self::Host(ip.to_canonical())
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(ip) => ip.fmt(f),
            Self::HostAndPort(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_literals_and_shows_them_in_canonical_form() {
        let accepted = [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:9000", "192.0.2.7:9000"),
            ("2001:DB8:0:0::7", "2001:db8::7"),
            ("[2001:db8::7]:9000", "[2001:db8::7]:9000"),
        ];
        for (text, shown) in accepted {
            let address = PeerAddress::parse(text).expect(text);
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn refuses_names_and_malformed_literals() {
        use PeerAddressError as E;
        let refused = [
            ("", E::Malformed),
            ("localhost", E::Malformed),
            ("256.0.0.1", E::Malformed),
            ("1.2.3.4:70000", E::Malformed),
            ("[::1]", E::Malformed),
            (" 1.2.3.4", E::Malformed),
            ("1.2.3.4:0", E::PortZero),
            ("fe80::1%eth0", E::Zone),
        ];
        for (text, error) in refused {
            assert_eq!(PeerAddress::parse(text).expect_err(text), error);
        }
    }

    #[test]
    fn shows_a_mapped_caller_as_ipv4() {
        let mapped = "::ffff:192.0.2.7".parse().expect("a literal");
        assert_eq!(PeerAddress::seen(mapped).to_string(), "192.0.2.7");
    }
}
