//! What comes in: the rows of the inbox, and what an operator's command came to.

use super::effect::Effect;
use super::request::AuthorityRequest;
use crate::backend::{Running, Usage};
use crate::cell::{Actor, AgentRun, Base, CellId, DeadlineKind, Exit};
use crate::gitea::event::{ForgeEvent, IssueSnapshot, Person, RepoRef};
use crate::mission::publishing::PublishedWork;
use crate::mission::{Command, Level, Member, Publishable};
use crate::repository::Harvest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One thing that happened, as the inbox holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// Something happened on the forge.
    Forge {
        /// The event, as a delivery or polling gave it.
        happened: ForgeEvent,
    },
    /// The forge was asked about an issue, because something was heard of it.
    Looked {
        /// The repository of the issue.
        repo: RepoRef,
        /// The issue's number.
        number: i64,
        /// What the forge showed; `None`: no such issue.
        look: Option<Box<Look>>,
    },
    /// The forge confirmed a comment, and it is known what its author may do.
    Authorized {
        /// What was asked.
        request: Box<AuthorityRequest>,
        /// What they may do.
        level: Level,
        /// Numbers of accounts that the commands name, by lower-case login.
        accounts: BTreeMap<String, i64>,
        /// The issue and what belongs to it, as the forge shows it now.
        look: Box<Look>,
    },
    /// What was heard of a comment is not so, or it is nobody's command.
    Disbelieved {
        /// What was heard.
        request: Box<AuthorityRequest>,
        /// What does not hold.
        why: Disbelief,
    },
    /// Somebody did not confirm in time what only polling had found.
    NotConfirmed {
        /// What was asked.
        request: Box<AuthorityRequest>,
        /// Why it is not done, in words of ours.
        why: String,
    },
    /// It is known what of a project a cell would not have.
    ProjectSeen {
        /// The mission.
        mission: String,
        /// In words of ours.
        missing: Vec<String>,
    },
    /// A cell runs.
    Started {
        /// The cell that runs now.
        cell: CellId,
        /// Which runs.
        runs: Vec<AgentRun>,
        /// What was found.
        running: Running,
        /// The commit that was cloned.
        commit: String,
        /// Its branch.
        branch: String,
        /// Commits that the branch has beyond that one by now.
        #[serde(default)]
        behind: u64,
        /// Configuration for agents that the repository carries.
        planted: Vec<String>,
    },
    /// A cell could not be started.
    StartFailed {
        /// The cell that was not started.
        cell: CellId,
        /// The failure, in words for people.
        reason: String,
        /// Whether the issue was found to be other than it was approved.
        #[serde(default)]
        changed: bool,
    },
    /// An agent's run ended.
    AgentEnded {
        /// The cell in which it ran.
        cell: CellId,
        /// Which run.
        run: AgentRun,
        /// The exit status or the signal, judged by the profile's rule.
        exit: Exit,
    },
    /// A cell's processes are gone and its work was read.
    Stopped {
        /// The cell that was stopped.
        cell: CellId,
        /// What was done.
        harvest: Harvest,
        /// What it used.
        #[serde(default)]
        usage: Usage,
    },
    /// A snapshot was taken of a cell, or failed.
    Snapshot {
        /// The cell of which it was taken.
        cell: CellId,
        /// What was taken in: the work so far, and the snapshot.
        harvest: Harvest,
    },
    /// A cell's work left, or the forge refused it.
    Pushed {
        /// The cell whose work was pushed.
        cell: CellId,
        /// Where it went.
        published: PublishedWork,
    },
    /// Something optional left a cell, or may not.
    FilePublished {
        /// The cell that the file is from.
        cell: CellId,
        /// What was asked.
        what: Publishable,
        /// Who asked.
        by: Actor,
        /// The name that it left under, and the SHA-256 of what left.
        left: Option<(String, String)>,
        /// Why it did not.
        refused: Option<String>,
    },
    /// Nothing of a cell is on disk any more.
    Scrubbed {
        /// The cell of which nothing is left on disk.
        cell: CellId,
    },
    /// A deadline passed.
    Deadline {
        /// The cell whose deadline passed.
        cell: CellId,
        /// Which of its deadlines.
        kind: DeadlineKind,
    },
    /// An operator's command.
    Operated {
        /// Its name, under which the outcome is kept.
        operation: String,
        /// The system account.
        by: String,
        /// The command.
        command: Command,
        /// The issue, for commands on a mission.
        issue: Option<Box<(RepoRef, Look)>>,
        /// The cell, for commands on one.
        cell: Option<CellId>,
        /// Numbers of accounts that the command names.
        accounts: BTreeMap<String, i64>,
    },
    /// The forge said often enough that a mission's issue is not there.
    #[serde(rename = "issue_gone")]
    IssueDeleted {
        /// The mission.
        mission: String,
    },
    /// The forge shows an issue that was taken for deleted.
    IssueShown {
        /// The repository of the issue.
        repo: RepoRef,
        /// The issue as it is.
        issue: Box<IssueSnapshot>,
    },
    /// An effect that people wait for has been failing for some time, and is
    /// tried again.
    Waits {
        /// The effect.
        effect: String,
        /// The word of the effect's kind.
        kind: String,
        /// The cell that the effect is about.
        cell: CellId,
        /// Why it fails.
        why: String,
    },
    /// An effect could not be done for good.
    Failed {
        /// The word of the effect's kind.
        kind: String,
        /// The mission.
        mission: String,
        /// The cell, where there is one.
        cell: Option<CellId>,
        /// The reason, in words for people.
        why: String,
        /// The effect, where it could be read: whom it owes an answer.
        #[serde(default)]
        effect: Option<Box<Effect>>,
    },
    /// An effect is done and has nothing to say.
    Nothing,
}

/// Why something that was heard of a comment is not acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disbelief {
    /// The comment was edited since.
    Edited,
    /// The forge shows another author, issue, time or text.
    Differs,
    /// It came here by migration, from a forge whose people are not ours.
    Migrated,
    /// It is not there (any more).
    Gone,
    /// The account that wrote it is not there any more.
    NoAccount,
}

/// An issue and what belongs to it, as the forge showed it when it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The issue.
    pub issue: IssueSnapshot,
    /// The branch that the proposal names, or the default one, and where it points.
    #[serde(default)]
    pub proposal_base: Option<Base>,
    /// The default branch and where it points, where a summons was given.
    #[serde(default)]
    pub summons_base: Option<Base>,
    /// Why there is no base, in words of ours.
    #[serde(default)]
    pub no_base: Option<String>,
    /// Whom the names of the proposal's council mean.
    #[serde(default)]
    pub members: Vec<Member>,
    /// What these may do now, by account number.
    #[serde(default)]
    pub member_levels: Vec<(i64, Level)>,
    /// Names of the council that the forge does not know.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// Whether the approval label is on the issue.
    #[serde(default)]
    pub label: bool,
    /// Events of the approval label after the opening and after those that were dealt
    /// with before, oldest first.
    #[serde(default)]
    pub label_events: Vec<LabelEvent>,
    /// Numbers of voters who have lost the right to vote.
    #[serde(default)]
    pub lost: Vec<i64>,
    /// Comments of open requests that were edited or deleted.
    #[serde(default)]
    pub changed: Vec<i64>,
    /// Numbers of the open requests of which our comment is not as we wrote it, or
    /// not there.
    #[serde(default)]
    pub changed_shown: Vec<u32>,
}

/// The approval label was put on an issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelEvent {
    /// The timeline's number.
    pub id: i64,
    /// Who added or removed the label.
    pub actor: Person,
    /// Whether it was put on, not taken off.
    pub added: bool,
    /// When, by the forge's clock, in milliseconds.
    pub at: i64,
    /// What they may do, looked up where it was put on.
    pub level: Option<Level>,
}

/// What an operator's command came to (contract §7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Whether it was done.
    pub success: bool,
    /// The cell, where there is one.
    pub cell_id: Option<String>,
    /// Words for a person.
    pub message: String,
}

impl Outcome {
    /// Something done on a cell. How the cell stands is for others to look up.
    pub fn on(cell: &CellId) -> Self {
        Self { success: true, cell_id: Some(cell.to_string()), ..Self::default() }
    }

    /// A refusal.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}
