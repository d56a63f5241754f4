//! Who may give which command: asked of the table, whoever asks and wherever.

use super::{CommandSpec, Line};
use crate::mission::Level;

/// Who may give a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever can comment.
    Everyone,
    /// People with an open invitation, for themselves.
    Invited,
    /// People with write access.
    Writers,
    /// Directors.
    Directors,
}

impl Who {
    /// The level that it takes. Whether somebody is invited is seen in the cell.
    pub const fn level(self) -> Level {
        match self {
            Self::Everyone | Self::Invited => Level::None,
            Self::Writers => Level::Write,
            Self::Directors => Level::Director,
        }
    }
}

/// On which issues a command means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// On every issue, also on one that is no mission.
    AnyIssue,
    /// On missions only.
    Mission,
}

/// Why somebody may not give a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// This version reads the command and cannot carry it out.
    NotYet,
    /// It takes a director.
    NotDirector,
    /// It takes write access.
    NotWriter,
}

impl CommandSpec {
    /// Whether somebody with this level may give the command.
    ///
    /// # Errors
    /// Why not.
    pub fn permits(&self, level: Level) -> Result<(), Denied> {
        if !self.is_built {
            return Err(Denied::NotYet);
        }
        match self.who.level() {
            needed if level >= needed => Ok(()),
            Level::Director => Err(Denied::NotDirector),
            _ => Err(Denied::NotWriter),
        }
    }

    /// Whether somebody has the right to the command at all: `invited` says whether they
    /// have an open invitation here. Then they are told why it did not count.
    pub fn belongs_to(&self, level: Level, invited: bool) -> bool {
        match self.who {
            Who::Invited => invited,
            who => level >= who.level(),
        }
    }
}

impl Line {
    /// The row of the command that the line gives, or was meant to give where its name
    /// is written out.
    pub fn spec(&self) -> Option<&'static CommandSpec> {
        match self {
            Self::Command { command, .. } => Some(command.spec()),
            Self::Refused { of, .. } => of.as_deref().and_then(CommandSpec::named),
        }
    }

    /// Whether the line is answered whoever wrote it: what cannot be read, and what
    /// everyone may give.
    pub fn is_for_everyone(&self) -> bool {
        match self {
            Self::Command { command, .. } => command.spec().who == Who::Everyone,
            Self::Refused { .. } => true,
        }
    }

    /// Whether the line means nothing on an issue that is no mission.
    pub fn needs_mission(&self) -> bool {
        self.spec().is_some_and(|spec| spec.scope == Scope::Mission)
    }

    /// Whether a director who gives it has to confirm it where only polling found the
    /// comment.
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Self::Command { command, .. } if command.spec().is_confirmed)
    }
}
