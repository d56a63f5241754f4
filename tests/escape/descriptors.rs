//! Links, descriptors, and ways through `/proc`.

use crate::attempt::{Attempt, made, said};

pub const ATTEMPTS: &[Attempt] = &[
    said("read through a symbolic link", "symlink-read {host_home}/secret {home} treasure"),
    made("write through a symbolic link", "symlink-create {host_home} {home} through-link", "{host_home}/through-link"),
    said("read through a hard link", "hardlink {host_home}/secret {home}"),
    said("give the system's file a second name", "hardlink /usr/bin/env {home}"),
    said("find a descriptor that was left open", "descriptors"),
    said("find the host's root by the roots and directories of processes", "proc-roots {host_home}/secret"),
    said("look into the first process's root", "proc-file {init} root/tmp"),
    said("overwrite the program of the sandbox while it runs", "overwrite-program {program}"),
];
