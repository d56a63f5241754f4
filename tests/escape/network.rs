//! Services of the host, its addresses and its neighbours'. All addresses are
//! ones that the stage gave to interfaces in a network namespace of its own.

use crate::attempt::{Attempt, said};

pub const ATTEMPTS: &[Attempt] = &[
    said("a service of the host on 127.0.0.1", "tcp 127.0.0.1 {port}"),
    said("a service of the host on ::1", "tcp ::1 {port}"),
    said("a service of the host by UDP", "udp 127.0.0.1 {port}"),
    said("the daemon's own address", "tcp 127.0.0.1 {daemon_port}"),
    said("the host's address on the LAN", "tcp {lan} {port}"),
    said("the host's address on the LAN by UDP", "udp {lan} {port}"),
    said("the host's IPv6 address", "tcp {lan6} {port}"),
    said("the metadata address", "tcp {metadata} {port}"),
    said("see the host's interfaces", "interface {lan}"),
    said("listen where the host's programs connect to", "listen {bait}"),
    said("a socket in a home of the host", "unix {host_home}/service.sock"),
    said("the daemon's control socket", "unix {control}"),
    said("the keeper's control socket", "unix {keeper_socket}"),
    said("an abstract socket of the host", "abstract {mark}"),
    said("an abstract datagram socket of the host", "abstract-dgram {mark}-d"),
    said("a raw socket", "socket 2 3 1"),
    said("a raw IPv6 socket", "socket 10 3 58"),
    said("a packet socket", "socket 17 3 0"),
    said("a vsock to the hypervisor", "socket 40 1 0"),
    said("netlink: events of devices", "socket 16 3 15"),
    said("netlink: audit", "socket 16 3 9"),
    said("netlink: packet filter", "socket 16 3 12"),
    said("netlink: generic", "socket 16 3 16"),
    said("netlink: socket diagnosis", "socket 16 3 4"),
    said("the kernel's cryptography (AF_ALG)", "socket 38 5 0"),
    said("XDP", "socket 44 3 0"),
];
