//! New namespaces, and those of others.

use crate::attempt::{Attempt, said};

pub const ATTEMPTS: &[Attempt] = &[
    said("unshare: user", "unshare user"),
    said("unshare: mount", "unshare mount"),
    said("unshare: PID", "unshare pid"),
    said("unshare: network", "unshare net"),
    said("unshare: IPC", "unshare ipc"),
    said("unshare: UTS", "unshare uts"),
    said("unshare: cgroup", "unshare cgroup"),
    said("unshare: time", "unshare time"),
    said("clone: user", "clone user"),
    said("clone: mount", "clone mount"),
    said("clone: PID", "clone pid"),
    said("clone: network", "clone net"),
    said("clone3: user", "clone3 user"),
    said("clone3: mount", "clone3 mount"),
    said("enter a namespace again", "setns self uts"),
    said("enter the network of a process of the host", "setns {victim} net"),
    said("enter the mounts of the first process", "setns {init} mnt"),
];
