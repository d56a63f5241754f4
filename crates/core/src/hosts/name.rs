//! The names of hosts, and the host that a request asks for.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Longest name, in bytes: RFC 1035, section 2.3.4, as text.
pub const NAME_MAX: usize = 253;
/// Longest label, in bytes.
const LABEL_MAX: usize = 63;
/// Why something is not the name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing.
    #[error("it is empty; write a name such as `api.example.org`")]
    Empty,
    /// More than [`NAME_MAX`] bytes.
    #[error("it is longer than 253 bytes")]
    TooLong,
    /// A NUL byte.
    #[error("it holds a NUL byte")]
    Nul,
    /// Not ASCII.
    #[error("it is not ASCII; write an international name in its `xn--` form")]
    NotAscii,
    /// A dot at the end.
    #[error("it ends with a dot; leave that out")]
    TrailingDot,
    /// A label that is empty, too long, or begins or ends with a hyphen.
    #[error("between its dots there have to be 1 to 63 letters, digits or inner hyphens")]
    Label,
    /// A number in the last place, as in `127.1` or `0x7f000001`: the system
    /// would read it as an IPv4 address.
    #[error("it is an address in disguise; only names of hosts are allowed here")]
    AddressForm,
    /// `user@host`.
    #[error("it has a user's name in front of the host")]
    User,
    /// No port where one has to be, or no number from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

/// A host's name: lower-case ASCII, 1 to 253 bytes, labels of letters, digits
/// and inner hyphens, no dot at the end, and nothing that the system's resolver
/// would take for an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.contains('\0') {
            return Err(NameError::Nul);
        }
        if !text.is_ascii() {
            return Err(NameError::NotAscii);
        }
        if text.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        if text.ends_with('.') {
            return Err(NameError::TrailingDot);
        }
        let good = |label: &str| {
            (1..=LABEL_MAX).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !text.split('.').all(good) {
            return Err(NameError::Label);
        }
        // What inet_aton(3) takes: its last part is decimal, octal or hex. No
        // top-level domain is a number (RFC 3696, section 2).
        let last = text.rsplit('.').next().unwrap_or(text).to_ascii_lowercase();
        if last.bytes().all(|b| b.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(NameError::AddressForm);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// What a request asks for: a name, or an address as it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name.
    Name(HostName),
    /// An address; an IPv4 address in IPv6's clothes is an IPv4 address here.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl FromStr for Host {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(inner) = text.strip_prefix('[') {
            // No zone: `[fe80::1%eth0]` is nobody's to name.
            let inner = inner.strip_suffix(']').ok_or(NameError::Label)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| NameError::Label)?;
            return Ok(Self::Address(IpAddr::from(address).to_canonical()));
        }
        match text.parse::<Ipv4Addr>() {
            Ok(address) => Ok(Self::Address(address.into())),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

/// A host and a port, as a request asks for them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Asked {
    /// Reads the authority of a request or a `Host` header. Without a default,
    /// the port has to be there, as with CONNECT.
    ///
    /// # Errors
    /// Where it is not exactly a host and a port.
    pub fn parse(authority: &str, default_port: Option<u16>) -> Result<Self, NameError> {
        if authority.contains('@') {
            return Err(NameError::User);
        }
        let (host, port) = split_port(authority)?;
        Ok(Self { host: host.parse()?, port: port.or(default_port).ok_or(NameError::Port)? })
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Cuts `host:port`, `[v6]:port` or either without a port.
pub(super) fn split_port(text: &str) -> Result<(&str, Option<u16>), NameError> {
    let (host, port) = match text.rfind(']') {
        Some(end) => (&text[..=end], text[end + 1..].strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let Some(port) = port else {
        // Nothing may stand between the bracket and the end.
        return if host.len() == text.len() { Ok((host, None)) } else { Err(NameError::Label) };
    };
    // `parse` alone would take `+443`.
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NameError::Port);
    }
    match port.parse() {
        Ok(0) | Err(_) => Err(NameError::Port),
        Ok(port) => Ok((host, Some(port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_names_are_refused_with_a_word() {
        for (name, why) in [
            ("", NameError::Empty),
            ("a\0.example.org", NameError::Nul),
            ("bücher.example", NameError::NotAscii),
            ("example.org.", NameError::TrailingDot),
            ("a..example.org", NameError::Label),
            (".example.org", NameError::Label),
            ("-a.example.org", NameError::Label),
            ("a b.example.org", NameError::Label),
            ("a%2eexample.org", NameError::Label),
            ("127.1", NameError::AddressForm),
            ("2130706433", NameError::AddressForm),
            ("0x7f000001", NameError::AddressForm),
            ("0X7F.0.0.0x1", NameError::AddressForm),
            ("0177.0.0.01", NameError::AddressForm),
            ("0x", NameError::AddressForm),
        ] {
            assert_eq!(name.parse::<HostName>(), Err(why), "{name:?}");
        }
        assert_eq!("a.".repeat(130).parse::<HostName>(), Err(NameError::TooLong));
        assert!("xn--bcher-kva.example".parse::<HostName>().is_ok());
    }
}
