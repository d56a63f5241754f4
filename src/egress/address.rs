//! Which addresses are everybody's. A name that is allowed may lead anywhere,
//! by a mistake or by malice; what is somebody's own network, this machine, or
//! a cloud's metadata is not reached by that.
//!
//! Source: the IANA special-purpose address registries (RFC 6890 and its
//! updates) and the cloud providers' documentation of metadata services.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
        if canonical(address) != address {
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

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Everybody's: it may be reached.
    Everybodys,
    /// Somebody's own network: reached where its range is allowed.
    Range(&'static str),
    /// This machine, this link or a metadata service: reached where that
    /// address alone is allowed.
    Alone(&'static str),
    /// Nobody's to reach.
    Never(&'static str),
}

/// An IPv4-mapped address (`::ffff:a.b.c.d`) as the IPv4 address that the
/// kernel makes of it; every other as it is.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whose an address is. Of a mapped one, whose its IPv4 address is.
pub fn standing(address: IpAddr) -> Standing {
    match canonical(address) {
        IpAddr::V4(v4) => standing_v4(v4),
        IpAddr::V6(v6) => standing_v6(v6),
    }
}

const METADATA: &str = "a metadata service's";

fn standing_v4(address: Ipv4Addr) -> Standing {
    use Standing::{Alone, Everybodys, Never, Range};
    match address.octets() {
        [0, ..] => Never("unspecified"),
        [127, ..] => Alone("loopback"),
        // Most clouds; Alibaba; Oracle (classic); Azure's wire server.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => Alone(METADATA),
        [169, 254, ..] => Alone("link-local"),
        [10, ..] | [192, 168, ..] => Range("private"),
        [172, second, ..] if second & 0xf0 == 16 => Range("private"),
        [100, second, ..] if second & 0xc0 == 64 => Range("carrier-grade NAT's"),
        [192, 0, 0, _] => Range("a protocol's own"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Range("documentation's"),
        [192, 88, 99, _] => Range("a 6to4 relay's"),
        [198, 18 | 19, ..] => Range("benchmarking's"),
        [255, 255, 255, 255] => Never("broadcast"),
        [224..=239, ..] => Never("multicast"),
        [240..=255, ..] => Range("reserved"),
        _ => Everybodys,
    }
}

fn standing_v6(address: Ipv6Addr) -> Standing {
    use Standing::{Alone, Everybodys, Never, Range};
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Never("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Alone("loopback"),
        // EC2 (instance, DNS, time, containers), Google Cloud, Oracle, Scaleway.
        [0xfd00, 0xec2 | 0xc1 | 0x42, ..] | [0xfd20, 0xce, ..] => Alone(METADATA),
        [first, ..] if first & 0xfe00 == 0xfc00 => Range("unique-local"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Alone("link-local"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Range("site-local"),
        [first, ..] if first & 0xff00 == 0xff00 => Never("multicast"),
        // NAT64 (RFC 6052): where it leads is in its last 32 bits. Networks
        // that have IPv6 alone reach the rest of the world by it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            match standing_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))) {
                Everybodys => Everybodys,
                _ => Alone("another network's behind NAT64"),
            }
        }
        [0x64, 0xff9b, 1, ..] => Alone("a local NAT64's"),
        // 6to4 and Teredo lead to an IPv4 address, by relays that are gone.
        [0x2002, ..] => Never("a 6to4 tunnel's"),
        [0x2001, 0, ..] => Never("a Teredo tunnel's"),
        [0x2001, 2, 0, ..] => Range("benchmarking's"),
        [0x2001, second, ..] if second < 0x200 => Range("a protocol's own"),
        [0x2001, 0xdb8, ..] => Range("documentation's"),
        [0x3fff, second, ..] if second < 0x1000 => Range("documentation's"),
        // The rest of what is global (RFC 4291, section 2.4) lies in 2000::/3:
        // IPv4-compatible and -translated addresses do not.
        [first, ..] if first & 0xe000 == 0x2000 => Everybodys,
        _ => Never("not a global unicast"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(address: &str) -> Standing {
        standing(address.parse().unwrap())
    }

    #[test]
    fn only_everybodys_addresses_are_everybodys() {
        for address in ["93.184.216.34", "1.1.1.1", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111"] {
            assert_eq!(of(address), Standing::Everybodys, "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ffff::1",
        ] {
            assert_ne!(of(address), Standing::Everybodys, "{address}");
        }
    }

    #[test]
    fn nat64_leads_where_its_last_bits_say() {
        assert_eq!(of("64:ff9b::5db8:d822"), Standing::Everybodys);
        assert!(matches!(of("64:ff9b::a00:1"), Standing::Alone(_)));
    }

    #[test]
    fn metadata_services_are_not_within_a_range() {
        for address in ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"] {
            assert!(matches!(of(address), Standing::Alone(_)), "{address}");
        }
    }

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

    proptest! {
        #[test]
        fn a_mapped_address_stands_as_its_own(v4: u32) {
            let v4 = Ipv4Addr::from(v4);
            prop_assert_eq!(standing(v4.to_ipv6_mapped().into()), standing(v4.into()));
        }

        #[test]
        fn what_is_not_in_2000_is_everybodys_only_by_nat64(v6: u128) {
            let v6 = Ipv6Addr::from(v6);
            if standing_v6(v6) == Standing::Everybodys {
                prop_assert!(v6.segments()[0] & 0xe000 == 0x2000 || v6.segments()[..2] == [0x64, 0xff9b]);
            }
        }
    }
}
