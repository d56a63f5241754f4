//! Changing what is mounted where.

use crate::attempt::{Attempt, said};

pub const ATTEMPTS: &[Attempt] = &[
    said("mount a tmpfs", "mount {home} tmpfs"),
    said("mount proc", "mount {home} proc"),
    said("mount sysfs", "mount {home} sysfs"),
    said("mount control groups", "mount {home} cgroup2"),
    said("bind the root elsewhere", "bind / {home}"),
    said("make /usr writable again", "remount {remountable}"),
    said("take /proc away", "umount /proc"),
    said("take away what covers the host", "umount {covered}"),
    said("open a file system", "fsopen tmpfs"),
    said("pick a file system to change it", "fspick /"),
    said("clone a tree of mounts", "open-tree /"),
    said("move a mount", "move-mount"),
    said("change the flags of a mount", "mount-setattr {remountable}"),
    said("change the root by pivoting", "pivot-root {home}"),
];
