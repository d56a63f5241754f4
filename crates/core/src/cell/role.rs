//! Roles and what each may do (contract §4, one table).

use serde::{Deserialize, Serialize};

/// What a participant is in a cell. Fixed for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A human who decides.
    Director,
    /// Works on the project.
    Executor,
    /// Reads the project.
    Observer,
    /// Works from outside the fleet, in the strictest backend that policy names.
    Guest,
    /// Takes over from an executor, from its last checkpoint.
    Substitute,
}

/// One thing that a role may or may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read project and shared files.
    Read,
    /// Write project and shared files, run tools.
    Write,
    /// Commit to the mission's branch.
    Commit,
    /// Invite, checkpoint, extend, pause, revive, substitute, close.
    Steer,
    /// Publish optional artifacts, destroy, resurrect.
    Publish,
    /// See ledger and logs of the own cell.
    SeeLogs,
}

impl Role {
    /// Every role, in the order in which messages name them.
    pub const ALL: [Self; 5] = [Self::Director, Self::Executor, Self::Observer, Self::Guest, Self::Substitute];

    /// Whether this role has that permission, by the table of contract §4.
    /// "May ask" counts as no: asking is a comment, not a permission.
    pub const fn may(self, permission: Permission) -> bool {
        match self {
            Self::Director => !matches!(permission, Permission::Write | Permission::Commit),
            Self::Executor | Self::Substitute => {
                matches!(permission, Permission::Read | Permission::Write | Permission::Commit | Permission::SeeLogs)
            }
            Self::Observer => matches!(permission, Permission::Read | Permission::SeeLogs),
            Self::Guest => matches!(permission, Permission::Read | Permission::Write | Permission::Commit),
        }
    }

    /// Whether a participant in this role does the mission's work, so that a
    /// cell without one has nothing to run.
    pub const fn works(self) -> bool {
        matches!(self, Self::Executor | Self::Guest | Self::Substitute)
    }

    /// The word for it in commands and comments.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Director => "director",
            Self::Executor => "executor",
            Self::Observer => "observer",
            Self::Guest => "guest",
            Self::Substitute => "substitute",
        }
    }

    /// The role with that word, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.word().eq_ignore_ascii_case(word))
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}
