//! Decides which addresses a cell may reach. An allowed name can resolve to any address, by mistake
//! or by malice, so private networks, this machine and a cloud's metadata service are refused even
//! then.
//!
//! Source: the IANA special-purpose address registries (RFC 6890 and its
//! updates) and the cloud providers' documentation of metadata services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A public address: it may be reached.
    Everybodys,
    /// A private network's address: reached only if its range is allowed.
    Range(&'static str),
    /// An address of this machine, this link or a metadata service: reached only if exactly this
    /// address is allowed.
    Alone(&'static str),
    /// An address that can never be reached.
    Never(&'static str),
}

/// Converts an IPv4-mapped address (`::ffff:a.b.c.d`) to the IPv4 address that the kernel would
/// use; returns any other address unchanged.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Classifies an address. A mapped address is classified as its IPv4 address.
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
        // Most clouds; Alibaba; Oracle (classic); Azure's WireServer.
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
        // NAT64 (RFC 6052) carries the IPv4 destination in the last 32 bits. IPv6-only networks
        // reach the rest of the world through it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            match standing_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))) {
                Everybodys => Everybodys,
                _ => Alone("another network's behind NAT64"),
            }
        }
        [0x64, 0xff9b, 1, ..] => Alone("a local NAT64's"),
        // 6to4 and Teredo lead to an IPv4 address through relays that no longer exist.
        [0x2002, ..] => Never("a 6to4 tunnel's"),
        [0x2001, 0, ..] => Never("a Teredo tunnel's"),
        [0x2001, 2, 0, ..] => Range("benchmarking's"),
        [0x2001, second, ..] if second < 0x200 => Range("a protocol's own"),
        [0x2001, 0xdb8, ..] => Range("documentation's"),
        [0x3fff, second, ..] if second < 0x1000 => Range("documentation's"),
        // All other global unicast addresses (RFC 4291, section 2.4) are in 2000::/3.
        // IPv4-compatible and IPv4-translated addresses are not.
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
