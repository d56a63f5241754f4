//! Ranges of addresses, as people write them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Shortest prefixes that a range may have: the largest private networks
/// (10.0.0.0/8 and fc00::/7). What is shorter allows more than anybody owns.
const SHORTEST: (u8, u8) = (8, 7);

/// A range of addresses: `10.0.0.0/8`, or one address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    address: IpAddr,
    prefix: u8,
}

/// Why something is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no range of addresses: {why}; write `10.0.0.0/8`, or one address alone")]
pub struct RangeError {
    text: String,
    why: &'static str,
}

/// Bits from the left, and how many there are.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

fn under_prefix(bits: u128, prefix: u8) -> u128 {
    bits.checked_shr(128 - u32::from(prefix)).unwrap_or(0)
}

impl AddressRange {
    /// Whether it holds that address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address));
        width == other_width && under_prefix(own, self.prefix) == under_prefix(other, self.prefix)
    }

    /// Whether it is that address and no other.
    pub fn is_only(&self, address: IpAddr) -> bool {
        self.address == address && self.prefix == bits(self.address).1
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = |why| RangeError { text: text.chars().filter(|c| !c.is_control()).take(60).collect(), why };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong("it does not begin with an address"))?;
        if address.to_canonical() != address {
            return Err(wrong("it is an IPv4 address written as IPv6"));
        }
        let (own, width) = bits(address);
        let prefix = match prefix {
            None => width,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|p| *p <= width && !prefix.starts_with('+'))
                .ok_or_else(|| wrong("its prefix is not a number of bits"))?,
        };
        if prefix < if address.is_ipv4() { SHORTEST.0 } else { SHORTEST.1 } {
            return Err(wrong("it is wider than any network of one's own"));
        }
        if prefix < 128 && own << prefix != 0 {
            return Err(wrong("it has bits beyond its prefix"));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;
    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_its_prefix_says() {
        let range: AddressRange = "10.32.0.0/11".parse().unwrap();
        assert!(range.contains("10.63.255.255".parse().unwrap()));
        assert!(!range.contains("10.64.0.0".parse().unwrap()));
        assert!(!range.contains("::a20:0".parse().unwrap()));
        let v6: AddressRange = "fd12::/16".parse().unwrap();
        assert!(v6.contains("fd12:ffff::1".parse().unwrap()));
        assert!(!v6.contains("fd13::1".parse().unwrap()));
        assert!("127.0.0.1".parse::<AddressRange>().unwrap().is_only("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn ranges_that_cannot_be_meant_are_refused() {
        for text in ["", "0.0.0.0/0", "::/0", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/+8", "host", "::ffff:10.0.0.1"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text:?}");
        }
    }
}
