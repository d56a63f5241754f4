//! What one cell may reach: the hosts that it may ask for, and the addresses that their names may
//! resolve to.

use super::address::{Standing, canonical, standing};
use lazarus_core::hosts::{AddressRange, Asked, Host, HostRule};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The port of an `http:` URI that names none.
pub(crate) const HTTP_PORT: u16 = 80;

/// What one cell may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The hosts and ports that may be asked for.
    pub hosts: Vec<HostRule>,
    /// Addresses that are not public but may be reached by the names above: an operator's own
    /// network. Loopback, link-local and metadata addresses, and this machine's own, must be listed
    /// one by one.
    #[serde(default)]
    pub allow_addresses: Vec<AddressRange>,
}

/// What a matching rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// Whether a tunnel may carry something other than TLS.
    pub plain: bool,
}

impl Rules {
    /// Looks for a rule that allows what was asked for. A host given as an address must be named by
    /// a rule and also listed by itself in `allow_addresses`, so a proposal cannot name an address
    /// that policy does not allow.
    pub fn permit(&self, asked: &Asked) -> Option<Permit> {
        if let Host::Address(address) = asked.host
            && !self.listed_alone(address)
        {
            return None;
        }
        let mut covering = self.hosts.iter().filter(|rule| rule.covers(asked)).peekable();
        covering.peek()?;
        Some(Permit { plain: covering.any(HostRule::is_plain) })
    }

    /// Checks whether a name may resolve to that address. Returns the address to connect to; an
    /// IPv4-mapped address becomes IPv4.
    ///
    /// # Errors
    /// The kind of address, in words, if it may not be reached.
    pub fn reachable(&self, address: IpAddr) -> Result<IpAddr, &'static str> {
        let address = canonical(address);
        let in_range = || self.allow_addresses.iter().any(|range| range.contains(address));
        match standing(address) {
            Standing::Never(kind) => Err(kind),
            _ if self.listed_alone(address) => Ok(address),
            Standing::Alone(kind) => Err(kind),
            Standing::Range(kind) if !in_range() => Err(kind),
            // An allowed range means that network, not the machine that we run on.
            Standing::Range(_) | Standing::Everybodys if is_of_this_machine(address) => Err("of this machine itself"),
            Standing::Range(_) | Standing::Everybodys => Ok(address),
        }
    }

    /// Lists the hosts, in words for people.
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

/// Whether this machine has the address: services that listen on it may trust local clients. The
/// kernel uses an own address as its own source, and only then. Connecting a UDP socket sends
/// nothing, so we ask that way.
fn is_of_this_machine(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((address, HTTP_PORT)).and_then(|()| socket.local_addr()))
        .is_ok_and(|local| local.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
