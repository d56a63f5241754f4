//! Rules as people write them: which host may be asked for, on which port.

use super::name::split_port;
use super::{AddressRange, Asked, Host, HostName, NameError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Ports of a rule that names none.
const USUAL_PORTS: [u16; 2] = [443, 80];
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

    /// Whether tunnels to it may carry something else than TLS.
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether it is about that host and port.
    pub fn covers(&self, asked: &Asked) -> bool {
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
            Ok(address) => {
                return Ok(Self { pattern: Pattern::Address(IpAddr::from(address).to_canonical()), port: None, plain });
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
