//! Slash commands: what there is, who may give it, and how it is read.
//!
//! Everything that is known of a command stands in one row of the [`table`]: its
//! name, its arguments, who may give it, where it means something, its help, and its
//! verb on the command line. The parser, the guard, `/help`, the command line and
//! `docs/commands.md` are made from these rows.
//!
//! A command is a line of ordinary text that begins with `/`. Ordinary means:
//! in a paragraph at the top level of the comment, outside of code, quotes,
//! lists, links, tables, HTML and `<details>`. Arguments are literal strings;
//! nothing is expanded.
//!
//! A new command takes a variant of [`Command`] with its verb here, a row in `table.rs`,
//! a line in `display.rs`, and the function in the engine that carries it out.

mod arguments;
mod display;
mod guard;
mod lines;
mod options;
mod outcome;
mod parse;
mod table;

pub use arguments::Given;
pub(super) use arguments::agent_names;
pub use guard::{Denied, Scope, Who};
pub(super) use lines::{OpenHtml, front_matter, markdown};
pub use options::SummonOptions;
pub use parse::{COMMANDS_MAX, Line, Misplaced, Parsed, parse_commands, parse_comment, suspicious};
pub(super) use parse::{behind_prefix, read_prefixed};
pub use table::{Argument, ArgumentForm, CommandSpec, On, Verb, grammar};

use crate::cell::{CellId, Outcome, Role};
use serde::{Deserialize, Serialize};

/// What one command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the arguments of contract §7")]
pub enum Command {
    Summon {
        agents: Vec<String>,
        options: SummonOptions,
    },
    Approve {
        #[serde(default)]
        number: Option<u32>,
    },
    Reject {
        #[serde(default)]
        number: Option<u32>,
        reason: Option<String>,
    },
    Invite {
        identity: String,
        role: Role,
        cell: Option<CellId>,
    },
    Revoke {
        identity: String,
        cell: Option<CellId>,
    },
    Accept {
        cell: Option<CellId>,
    },
    Tell {
        agent: String,
        text: String,
    },
    Status {
        cell: Option<CellId>,
    },
    Help {
        command: Option<String>,
    },
    Extend {
        by: i64,
        cell: Option<CellId>,
    },
    Pause {
        cell: Option<CellId>,
    },
    Resume {
        cell: Option<CellId>,
    },
    Checkpoint {
        note: Option<String>,
    },
    Revive {
        agent: Option<String>,
    },
    Substitute {
        agent: String,
        instead_of: Option<String>,
    },
    Handoff {
        task: String,
        from: String,
        to: String,
    },
    Decide {
        text: String,
    },
    Vote {
        yes: bool,
        on: Option<String>,
    },
    Publish {
        what: Publishable,
        cell: Option<CellId>,
    },
    Close {
        /// What the director said; `None` where nothing was said of it.
        #[serde(default)]
        outcome: Option<Outcome>,
        reason: Option<String>,
        cell: Option<CellId>,
    },
    Resurrect {
        cell: Option<CellId>,
    },
    Destroy {
        cell: CellId,
    },
}

/// What leaves a cell only if a director says so (contract §8), and its work,
/// where the forge refused it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Publishable {
    /// The commits: branch and pull request.
    Work,
    /// The shared notes, if they are marked `PUBLISH`.
    Notes,
    /// The record of decisions.
    Decisions,
    /// A checkpoint.
    Checkpoint,
    /// A file of `shared/artifacts`, by name.
    Artifact(String),
}

impl Command {
    /// Its word, as the ledger and the registry have it. A team is a summons of several
    /// agents, so both have the word `summon`.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Summon { .. } => "summon",
            Self::Approve { .. } => "approve",
            Self::Reject { .. } => "reject",
            Self::Invite { .. } => "invite",
            Self::Revoke { .. } => "revoke",
            Self::Accept { .. } => "accept",
            Self::Tell { .. } => "tell",
            Self::Status { .. } => "status",
            Self::Help { .. } => "help",
            Self::Extend { .. } => "extend",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Revive { .. } => "revive",
            Self::Substitute { .. } => "substitute",
            Self::Handoff { .. } => "handoff",
            Self::Decide { .. } => "decide",
            Self::Vote { .. } => "vote",
            Self::Publish { .. } => "publish",
            Self::Close { .. } => "close",
            Self::Resurrect { .. } => "resurrect",
            Self::Destroy { .. } => "destroy",
        }
    }

    /// Its row in the table.
    pub fn spec(&self) -> &'static CommandSpec {
        table::row(self.verb())
    }
}
