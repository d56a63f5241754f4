//! What an attempt is, and what is said of it.

use std::fmt;

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// What it tries, in words.
    pub name: &'static str,
    /// The words for `attempts.c`; `{…}` is put in for each column.
    pub call: &'static str,
    /// What is looked at from outside, whatever the program says.
    pub outside: Outside,
}

/// What an attempt that succeeded leaves to be seen on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// Nothing: the program's own word counts.
    Nothing,
    /// This file of the host is there.
    Made(&'static str),
    /// The process on the host that may be attacked was signalled.
    Signalled,
}

/// An attempt of which the program's own word counts.
pub const fn said(name: &'static str, call: &'static str) -> Attempt {
    Attempt { name, call, outside: Outside::Nothing }
}

/// An attempt to make a file on the host.
pub const fn made(name: &'static str, call: &'static str, path: &'static str) -> Attempt {
    Attempt { name, call, outside: Outside::Made(path) }
}

/// An attempt to signal a process on the host.
pub const fn signalled(name: &'static str, call: &'static str) -> Attempt {
    Attempt { name, call, outside: Outside::Signalled }
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Refused, or nothing came of it; how.
    Stopped(String),
    /// It got out; what was seen.
    Escaped(String),
    /// Nothing is known; why.
    NotRun(String),
}

impl Verdict {
    /// As in the table.
    pub fn word(&self) -> String {
        match self {
            Self::Stopped(_) => "stopped".to_owned(),
            Self::Escaped(_) => "escaped".to_owned(),
            Self::NotRun(why) => format!("not run: {why}"),
        }
    }

    /// Of two in the same cell, the worse; of a verdict and none, the verdict.
    pub fn worse(self, other: Self) -> Self {
        match (&self, &other) {
            (_, Self::Escaped(_)) | (Self::NotRun(_), _) => other,
            _ => self,
        }
    }

    /// This, if it escaped; else what another way came to.
    pub fn or(self, other: Self) -> Self {
        if self.has_escaped() { self } else { other }
    }

    pub fn has_escaped(&self) -> bool {
        matches!(self, Self::Escaped(_))
    }

    pub fn was_stopped(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(how) => write!(f, "stopped ({how})"),
            Self::Escaped(what) => write!(f, "escaped ({what})"),
            Self::NotRun(why) => write!(f, "not run: {why}"),
        }
    }
}

/// Every class with its attempts, in the table's order.
pub const CLASSES: &[(&str, &[Attempt])] = &[
    ("files", crate::files::ATTEMPTS),
    ("links and descriptors", crate::descriptors::ATTEMPTS),
    ("other processes", crate::processes::ATTEMPTS),
    ("mounts", crate::mounts::ATTEMPTS),
    ("namespaces", crate::namespaces::ATTEMPTS),
    ("setuid and capabilities", crate::capabilities::ATTEMPTS),
    ("kernel", crate::kernel::ATTEMPTS),
    ("network", crate::network::ATTEMPTS),
    ("devices and terminals", crate::devices::ATTEMPTS),
    ("IPC", crate::ipc::ATTEMPTS),
    ("an observer's view", crate::observer::ATTEMPTS),
];
