//! Setuid programs, capabilities, other users.

use crate::attempt::{Attempt, said};

pub const ATTEMPTS: &[Attempt] = &[
    said("run the system's su", "setuid-program /usr/bin/su"),
    said("run a setuid program that is shown to it", "setuid-program {tools}/setuid wait-here"),
    said("make a setuid file of user 0", "make-setuid {home}"),
    said("make a file with capabilities", "file-capabilities {home}"),
    said("take a capability", "capset"),
    said("raise an ambient capability", "ambient"),
    said("join group 0", "setgroups"),
    said("become another user", "setuid 12345"),
];
