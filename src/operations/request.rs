//! What can be asked of Lazarus: one type, whoever asks and however it comes in.

use super::{MissionName, Which};
use crate::cell::CellId;
use crate::mission::Command;
use crate::store::Head;
use serde::{Deserialize, Serialize};

/// One thing that is asked of Lazarus.
///
/// It is data: it travels over the control socket as JSON, and whoever receives it does
/// not have to know where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Request {
    /// Give a command, as a comment would.
    Give {
        /// What it is given for.
        on: Target,
        /// The command.
        command: Command,
    },
    /// Say how cells stand.
    ListCells {
        /// Which of them.
        which: Which,
    },
    /// Say how one cell stands.
    ShowCell {
        /// Which one.
        cell: CellId,
    },
    /// Show what the agents of a cell printed.
    ReadLogs {
        /// The cell.
        cell: CellId,
        /// One agent by name; else all.
        agent: Option<String>,
        /// How much of the end of each log, in bytes.
        tail: u64,
    },
    /// Show entries of the ledger.
    ReadLedger {
        /// About what; else all.
        about: Option<Target>,
        /// The first one, from 1.
        from: i64,
        /// How many at most.
        limit: i64,
    },
    /// Check the ledger's chain, and that these heads are in it.
    VerifyLedger {
        /// Heads that were seen elsewhere.
        heads: Vec<Head>,
    },
    /// Show what the configuration's names were found to mean.
    ListPins,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// An issue, and all that belongs to it.
    Mission(MissionName),
    /// One cell.
    Cell(CellId),
}

impl Target {
    /// The cell, if it is one.
    pub const fn cell(&self) -> Option<&CellId> {
        match self {
            Self::Cell(cell) => Some(cell),
            Self::Mission(_) => None,
        }
    }
}
