//! Which hosts a cell may ask for: rules as people write them, and the host
//! that a request asks for. Both become the same checked types, so that what
//! is compared was spelt one way.

use super::address::{AddressRange, Standing, canonical, standing};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::str::FromStr;

/// Longest name, in bytes: RFC 1035, section 2.3.4, as text.
pub const NAME_MAX: usize = 253;
/// Longest label, in bytes.
const LABEL_MAX: usize = 63;
/// Ports of a rule that names none.
const USUAL_PORTS: [u16; 2] = [443, 80];
/// The port of `http:` where a URI names none.
pub(crate) const HTTP_PORT: u16 = 80;

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
            return Ok(Self::Address(canonical(address.into())));
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
fn split_port(text: &str) -> Result<(&str, Option<u16>), NameError> {
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

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not the name of a host.
    #[error("`{rule}` is no rule for a host: {why}")]
    Name {
        /// The rule, cut to what can be read.
        rule: String,
        /// What is wrong.
        why: NameError,
    },
    /// A `*` somewhere else than alone in the first place.
    #[error("`{rule}` is no rule for a host: `*` may only stand for the whole first label, as in `*.example.org`")]
    Star {
        /// The rule, cut to what can be read.
        rule: String,
    },
    /// `*.org`.
    #[error("`{rule}` is too wide: below `*.` there have to be two labels at least, as in `*.example.org`")]
    TooWide {
        /// The rule, cut to what can be read.
        rule: String,
    },
    /// An address without `ip:`.
    #[error(
        "`{rule}` is an address, not a name: write `ip:{rule}`, and list that address in `[egress] allow_addresses`"
    )]
    Address {
        /// The rule, cut to what can be read.
        rule: String,
    },
    /// A word after the host that is not `plain`.
    #[error("`{rule}` is no rule for a host: after the host there may only be the word `plain`")]
    Word {
        /// The rule, cut to what can be read.
        rule: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(HostName),
    /// One label and a dot before it.
    Below(HostName),
    Address(IpAddr),
}

/// One rule, as people write it: `api.example.org`, `*.example.org` (one label
/// for the star), either with a port (`api.example.org:8443`; without one, 443
/// and 80), `ip:192.0.2.7` for one address, and the word `plain` after it where
/// tunnels may carry something else than TLS (`git.example.org:22 plain`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostRule {
    pattern: Pattern,
    port: Option<u16>,
    plain: bool,
}

impl HostRule {
    /// Whether a rule can lead anywhere: a name can; an address only if policy lists it
    /// alone.
    pub fn may_be_named(&self, allowed: &[AddressRange]) -> bool {
        match self.pattern {
            Pattern::Address(address) => allowed.iter().any(|range| range.is_only(address)),
            Pattern::Exact(_) | Pattern::Below(_) => true,
        }
    }

    fn covers(&self, asked: &Asked) -> bool {
        let host = match (&self.pattern, &asked.host) {
            (Pattern::Exact(rule), Host::Name(name)) => rule == name,
            (Pattern::Below(rule), Host::Name(name)) => {
                name.as_str().split_once('.').is_some_and(|(_, above)| above == rule.as_str())
            }
            (Pattern::Address(rule), Host::Address(address)) => rule == address,
            _ => false,
        };
        host && self.port.map_or_else(|| USUAL_PORTS.contains(&asked.port), |port| port == asked.port)
    }
}

impl FromStr for HostRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let shown = || text.chars().filter(|c| !c.is_control()).take(80).collect::<String>();
        let name = |why| RuleError::Name { rule: shown(), why };
        let (host, plain) = match text.split_once(' ') {
            Some((host, "plain")) => (host, true),
            Some(_) => return Err(RuleError::Word { rule: shown() }),
            None => (text, false),
        };
        if host.contains('@') {
            return Err(name(NameError::User));
        }
        let (explicit, host) = host.strip_prefix("ip:").map_or((false, host), |host| (true, host));
        // An IPv6 address without brackets has no port, and needs none.
        let (host, port) = match host.parse::<Ipv6Addr>() {
            Ok(_) if !explicit => return Err(RuleError::Address { rule: shown() }),
            Ok(address) => return Ok(Self { pattern: Pattern::Address(canonical(address.into())), port: None, plain }),
            Err(_) => split_port(host).map_err(name)?,
        };
        let pattern = if let Some(above) = host.strip_prefix("*.") {
            let above: HostName =
                if above.contains('*') { Err(RuleError::Star { rule: shown() }) } else { above.parse().map_err(name) }?;
            if !above.as_str().contains('.') {
                return Err(RuleError::TooWide { rule: shown() });
            }
            Pattern::Below(above)
        } else if host.contains('*') {
            return Err(RuleError::Star { rule: shown() });
        } else {
            match host.parse::<Host>().map_err(name)? {
                Host::Address(address) if explicit => Pattern::Address(address),
                Host::Address(_) => return Err(RuleError::Address { rule: shown() }),
                // `ip:` promises an address.
                Host::Name(_) if explicit => return Err(name(NameError::AddressForm)),
                Host::Name(host) => Pattern::Exact(host),
            }
        };
        Ok(Self { pattern, port, plain })
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Exact(name) => name.fmt(f)?,
            Pattern::Below(name) => write!(f, "*.{name}")?,
            Pattern::Address(address) => write!(f, "ip:{}", Host::Address(*address))?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if self.plain { f.write_str(" plain") } else { Ok(()) }
    }
}

impl TryFrom<String> for HostRule {
    type Error = RuleError;
    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<HostRule> for String {
    fn from(rule: HostRule) -> Self {
        rule.to_string()
    }
}

/// What one cell may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The hosts.
    pub hosts: Vec<HostRule>,
    /// Addresses that are not everybody's and may be reached nevertheless, by
    /// the names above: an operator's own network. Loopback, link-local and
    /// metadata addresses, and those of this machine, only one by one.
    #[serde(default)]
    pub allow_addresses: Vec<AddressRange>,
}

/// What a rule gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// Whether a tunnel may carry something else than TLS.
    pub plain: bool,
}

impl Rules {
    /// Whether that may be asked for. An address has to be named by a rule and
    /// to be listed, alone, in the allowed addresses: a proposal cannot name
    /// one that policy does not.
    pub fn permit(&self, asked: &Asked) -> Option<Permit> {
        if let Host::Address(address) = asked.host
            && !self.listed_alone(address)
        {
            return None;
        }
        let mut covering = self.hosts.iter().filter(|rule| rule.covers(asked)).peekable();
        covering.peek()?;
        Some(Permit { plain: covering.any(|rule| rule.plain) })
    }

    /// Whether a name may lead to that address. Returns the address to connect
    /// to, which is IPv4 where it was IPv4 in IPv6's clothes.
    ///
    /// # Errors
    /// With the kind of address that it is.
    pub fn reachable(&self, address: IpAddr) -> Result<IpAddr, &'static str> {
        let address = canonical(address);
        let in_range = || self.allow_addresses.iter().any(|range| range.contains(address));
        match standing(address) {
            Standing::Never(kind) => Err(kind),
            _ if self.listed_alone(address) => Ok(address),
            Standing::Alone(kind) => Err(kind),
            Standing::Range(kind) if !in_range() => Err(kind),
            // An allowed range is the network, not the machine that we are on.
            Standing::Range(_) | Standing::Everybodys if is_of_this_machine(address) => Err("of this machine itself"),
            Standing::Range(_) | Standing::Everybodys => Ok(address),
        }
    }

    /// The hosts, in words.
    pub fn words(&self) -> String {
        if self.hosts.is_empty() {
            return "none is named".to_owned();
        }
        self.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn listed_alone(&self, address: IpAddr) -> bool {
        self.allow_addresses.iter().any(|range| range.is_only(address))
    }
}

/// Whether an interface of this machine has the address: what listens there may
/// trust its neighbours. To such an address, and to no other, the kernel goes
/// from that address itself. To connect a UDP socket sends nothing.
fn is_of_this_machine(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((address, HTTP_PORT)).and_then(|()| socket.local_addr()))
        .is_ok_and(|local| local.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(hosts: &[&str], addresses: &[&str]) -> Rules {
        Rules {
            hosts: hosts.iter().map(|h| h.parse().unwrap()).collect(),
            allow_addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    fn permits(rules: &Rules, asked: &str) -> bool {
        Asked::parse(asked, None).is_ok_and(|asked| rules.permit(&asked).is_some())
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        let rules = rules(&["*.example.org"], &[]);
        assert!(permits(&rules, "a.example.org:443"));
        assert!(permits(&rules, "A.EXAMPLE.ORG:443"));
        for other in ["example.org", "a.b.example.org", "aexample.org", "a.example.org.evil.test", ".example.org"] {
            assert!(!permits(&rules, &format!("{other}:443")), "{other}");
        }
    }

    #[test]
    fn without_a_port_a_rule_means_443_and_80_and_with_one_that_alone() {
        let rules = rules(&["api.example.org", "git.example.org:8443"], &[]);
        for (asked, expected) in [
            ("api.example.org:443", true),
            ("api.example.org:80", true),
            ("api.example.org:8443", false),
            ("git.example.org:8443", true),
            ("git.example.org:443", false),
        ] {
            assert_eq!(permits(&rules, asked), expected, "{asked}");
        }
    }

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

    #[test]
    fn rules_that_cannot_be_meant_are_refused() {
        for rule in [
            "*",
            "*.org",
            "a.*.org",
            "*.*.example.org",
            "a*.example.org",
            "example.org.",
            "10.0.0.1",
            "[::1]",
            "::1",
            "ip:name.example.org",
            "a@example.org",
            "example.org:0",
            "example.org:65536",
            "example.org:+443",
            "example.org:",
            "example.org plains",
            "[::1]x:443",
            "https://example.org",
            "example.org/path",
            " ",
        ] {
            assert!(rule.parse::<HostRule>().is_err(), "{rule:?}");
        }
    }

    #[test]
    fn a_rule_reads_back_as_it_was_meant() {
        for rule in [
            "api.example.org",
            "*.example.org",
            "*.example.org:8443",
            "git.example.org:22 plain",
            "ip:192.0.2.7:80",
            "ip:[2001:db8::1]:443",
        ] {
            assert_eq!(rule.parse::<HostRule>().unwrap().to_string(), rule);
        }
        assert_eq!("API.Example.ORG".parse::<HostRule>().unwrap().to_string(), "api.example.org");
        assert_eq!("ip:2001:db8::1".parse::<HostRule>().unwrap().to_string(), "ip:[2001:db8::1]");
    }

    #[test]
    fn an_address_needs_a_rule_and_a_policy_that_lists_it_alone() {
        assert!(!permits(&rules(&["ip:192.0.2.7"], &[]), "192.0.2.7:443"));
        assert!(!permits(&rules(&["ip:192.0.2.7"], &["192.0.2.0/24"]), "192.0.2.7:443"));
        assert!(!permits(&rules(&["*.example.org"], &["192.0.2.7"]), "192.0.2.7:443"));
        let both = rules(&["ip:192.0.2.7"], &["192.0.2.7"]);
        assert!(permits(&both, "192.0.2.7:443"));
        assert!(permits(&both, "[::ffff:192.0.2.7]:443"));
        assert!(!permits(&both, "192.0.2.8:443"));
    }

    #[test]
    fn loopback_and_metadata_are_allowed_one_by_one_alone() {
        let wide = rules(&[], &["127.0.0.0/8", "169.254.0.0/16", "10.0.0.0/8"]);
        assert!(wide.reachable("127.0.0.1".parse().unwrap()).is_err());
        assert!(wide.reachable("169.254.169.254".parse().unwrap()).is_err());
        assert_eq!(wide.reachable("10.1.2.3".parse().unwrap()), Ok("10.1.2.3".parse().unwrap()));
        assert_eq!(wide.reachable("::ffff:10.1.2.3".parse().unwrap()), Ok("10.1.2.3".parse().unwrap()));
        let alone = rules(&[], &["127.0.0.1"]);
        assert!(alone.reachable("127.0.0.1".parse().unwrap()).is_ok());
        assert!(alone.reachable("127.0.0.2".parse().unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_asked_nothing_panics_and_names_are_normal(text in ".{0,300}") {
            if let Ok(asked) = Asked::parse(&text, Some(80)) {
                let shown = asked.to_string();
                prop_assert_eq!(Asked::parse(&shown, None), Ok(asked));
                prop_assert!(!shown.bytes().any(|b| b.is_ascii_uppercase()));
            }
            let _ = text.parse::<HostRule>();
        }

        #[test]
        fn a_rule_that_can_be_read_can_be_read_again(text in "(ip:)?(\\*\\.)?[a-zA-Z0-9.\\[\\]:-]{0,40}( plain)?") {
            if let Ok(rule) = text.parse::<HostRule>() {
                prop_assert_eq!(rule.to_string().parse::<HostRule>(), Ok(rule));
            }
        }
    }
}
