//! Devices, terminals, core files.

use crate::attempt::{Attempt, said};

pub const ATTEMPTS: &[Attempt] = &[
    said("make the host's disk as a device", "mknod {home} b {disk}"),
    said("make the kernel's log as a device", "mknod {home} c 1 11"),
    said("open the host's disk", "open {disk_path}"),
    said("open /dev/mem", "open /dev/mem"),
    said("open /dev/kmsg", "open /dev/kmsg"),
    said("open /dev/kvm", "open /dev/kvm"),
    said("open /dev/fuse", "open /dev/fuse"),
    said("open /dev/loop-control", "open /dev/loop-control"),
    said("open /dev/console", "open /dev/console"),
    said("open /dev/net/tun", "open /dev/net/tun"),
    said("type into a terminal (TIOCSTI)", "tiocsti"),
    said("the console's tricks (TIOCLINUX)", "tioclinux"),
    said("another line discipline (TIOCSETD)", "tiocsetd"),
    said("leave a core file", "core {home}"),
];
