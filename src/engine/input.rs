//! What comes in, and what is to be done: the rows of inbox and effects queue.

use crate::backend::{Harvest, Running, Usage};
use crate::cell::{Actor, AgentRun, CellId, DeadlineKind, Effect as CellEffect, Exit};
use crate::gitea::event::{ForgeEvent, IssueSnapshot, Person, RepoRef};
use crate::mission::{Command, Level, Line, Publishable};
use crate::workspace::Held;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One thing that happened, as the inbox holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// Something happened on the forge.
    Forge {
        /// What.
        happened: ForgeEvent,
    },
    /// It is known what a commenter may do.
    Authorized {
        /// What was asked.
        request: Box<AuthorityRequest>,
        /// What they may do.
        level: Level,
        /// Numbers of accounts that the commands name, by lower-case login.
        accounts: BTreeMap<String, i64>,
        /// Voters of before who have lost the right.
        lost: Vec<i64>,
    },
    /// It is known whom a council's logins mean.
    CouncilKnown {
        /// The mission.
        mission: String,
        /// The cell that the ballot is about.
        cell: CellId,
        /// The accounts.
        members: Vec<i64>,
        /// Logins that the forge does not know.
        unknown: Vec<String>,
    },
    /// It is known what of a project a cell would not have.
    ProjectSeen {
        /// The mission.
        mission: String,
        /// In words of ours.
        missing: Vec<String>,
    },
    /// The timeline was read for approvals by label.
    Labelled {
        /// Where.
        repo: RepoRef,
        /// The issue as it is.
        issue: IssueSnapshot,
        /// Approval-label events after opening, oldest first.
        events: Vec<LabelEvent>,
    },
    /// A cell runs.
    Started {
        /// The cell.
        cell: CellId,
        /// Which runs.
        runs: Vec<AgentRun>,
        /// What was found.
        running: Running,
        /// The commit that was cloned.
        commit: String,
        /// Its branch.
        branch: String,
        /// Configuration for agents that the repository carries.
        planted: Vec<String>,
    },
    /// A cell could not be started.
    StartFailed {
        /// The cell.
        cell: CellId,
        /// Why.
        reason: String,
        /// Where the text was found changed: the issue as it is.
        found: Option<Box<(RepoRef, IssueSnapshot)>>,
    },
    /// An agent's run ended.
    AgentEnded {
        /// The cell.
        cell: CellId,
        /// Which run.
        run: AgentRun,
        /// How.
        exit: Exit,
    },
    /// A cell's processes are gone and its work was read.
    Stopped {
        /// The cell.
        cell: CellId,
        /// What was done.
        harvest: Harvest,
        /// What it used.
        #[serde(default)]
        usage: Usage,
    },
    /// A snapshot was taken of a cell, or failed.
    Snapshot {
        /// The cell.
        cell: CellId,
        /// What was taken in: the work so far, and the snapshot.
        harvest: Harvest,
    },
    /// A cell's work left, or the forge refused it.
    Pushed {
        /// The cell.
        cell: CellId,
        /// Where it went.
        published: PublishedWork,
    },
    /// Something optional left a cell, or may not.
    FilePublished {
        /// The cell.
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
        /// The cell.
        cell: CellId,
    },
    /// A deadline passed.
    Deadline {
        /// The cell.
        cell: CellId,
        /// Which.
        kind: DeadlineKind,
    },
    /// An operator's command.
    Operated {
        /// Its name, under which the outcome is kept.
        operation: String,
        /// The system account.
        by: String,
        /// What.
        command: Command,
        /// The issue, for commands on a mission.
        issue: Option<Box<(RepoRef, IssueSnapshot)>>,
        /// The cell, for commands on one.
        cell: Option<CellId>,
        /// Numbers of accounts that the command names.
        accounts: BTreeMap<String, i64>,
    },
    /// An effect could not be done for good.
    Failed {
        /// Its kind.
        kind: String,
        /// The mission.
        mission: String,
        /// The cell, where there is one.
        cell: Option<CellId>,
        /// Why.
        why: String,
    },
    /// An effect is done and has nothing to say.
    Nothing,
}

/// Commands that wait for authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRequest {
    /// Where.
    pub repo: RepoRef,
    /// The issue as it was in the event.
    pub issue: IssueSnapshot,
    /// The comment's number.
    pub comment: i64,
    /// Who wrote it.
    pub person: Person,
    /// When it was written, by the forge's clock, in milliseconds.
    pub written_at: i64,
    /// What it says.
    pub lines: Vec<Line>,
    /// What a signed delivery stated of the right to write.
    pub stated_write: Option<bool>,
    /// Logins that the commands name.
    pub logins: Vec<String>,
    /// Voters of before: number and login.
    pub voters: Vec<(i64, String)>,
}

/// The approval label was put on an issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelEvent {
    /// The timeline's number.
    pub id: i64,
    /// Who.
    pub actor: Person,
    /// Whether it was put on, not taken off.
    pub added: bool,
    /// When, by the forge's clock, in milliseconds.
    pub at: i64,
    /// What they may do, looked up for the newest event alone.
    pub level: Option<Level>,
}

/// What is to be done outside, as the queue holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// A reaction.
    React {
        /// Where.
        repo: RepoRef,
        /// On which comment.
        comment: i64,
        /// Which.
        content: String,
    },
    /// A comment.
    Comment {
        /// Where.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// Its kind.
        kind: String,
        /// The text, with the marker.
        body: String,
    },
    /// The one comment that is edited in place.
    Status {
        /// Where.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// The text, with the marker.
        body: String,
    },
    /// The label that shows the state.
    StateLabel {
        /// Where.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// The state's word.
        state: String,
    },
    /// Take the approval label off.
    RemoveApproval {
        /// Where.
        repo: RepoRef,
        /// From which issue.
        number: i64,
    },
    /// Find out what a commenter may do.
    Authorize {
        /// Who, and what they ask.
        request: Box<AuthorityRequest>,
    },
    /// Find out whom a council's logins mean.
    ResolveCouncil {
        /// The cell that the ballot is about.
        cell: CellId,
        /// The logins.
        logins: Vec<String>,
    },
    /// Look for what of a project a cell would not have.
    LookAtProject {
        /// Which.
        repo: RepoRef,
    },
    /// Read an issue's timeline for approvals by label.
    ReadTimeline {
        /// Where.
        repo: RepoRef,
        /// Which issue.
        number: i64,
    },
    /// Something on a cell.
    Cell {
        /// What.
        order: CellEffect,
    },
    /// Push a cell's work and ask for it to be pulled.
    Push {
        /// Where.
        repo: RepoRef,
        /// The name of the branch.
        branch: String,
        /// What goes on it.
        tip: Option<String>,
        /// What goes on it where `tip` may not leave.
        #[serde(default)]
        instead: Option<String>,
        /// Other branches: name, commit.
        others: Vec<(String, String)>,
        /// Commits that a director released although the forge runs something of
        /// them by itself.
        #[serde(default)]
        released: Vec<String>,
        /// The branch that it is for.
        base: String,
        /// The pull request's title.
        title: String,
        /// Its text.
        body: String,
    },
    /// Let something optional out, as a file on a comment.
    PublishFile {
        /// Where.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// What.
        what: Publishable,
        /// Who asked.
        by: Actor,
    },
    /// Append to a record in the cell that agents can read.
    Record {
        /// The file's name below `.lazarus`.
        file: String,
        /// The line.
        line: String,
    },
    /// Look for a comment that was posted twice because an answer was lost.
    Deduplicate {
        /// Where.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// The effect whose marker it carries.
        of: String,
    },
}

impl Effect {
    /// Its kind, one word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::React { .. } => "react",
            Self::Comment { .. } => "comment",
            Self::Status { .. } => "status",
            Self::StateLabel { .. } => "state_label",
            Self::RemoveApproval { .. } => "remove_approval",
            Self::Authorize { .. } => "authorize",
            Self::ResolveCouncil { .. } => "resolve_council",
            Self::LookAtProject { .. } => "look_at_project",
            Self::ReadTimeline { .. } => "read_timeline",
            Self::Cell { .. } => "cell",
            Self::Push { .. } => "push",
            Self::PublishFile { .. } => "publish_file",
            Self::Record { .. } => "record",
            Self::Deduplicate { .. } => "deduplicate",
        }
    }
}

/// What the engine keeps beside a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// What was found when it started.
    pub running: Option<Running>,
    /// The commit that was cloned.
    pub commit: Option<String>,
    /// Its branch.
    pub branch: Option<String>,
    /// What was done, once it was read.
    pub harvest: Option<Harvest>,
    /// What it used, once it ended.
    pub usage: Usage,
    /// Its last checkpoint.
    pub checkpoint: Option<String>,
    /// Where its work went, once it was tried.
    pub published: Option<PublishedWork>,
    /// Whether the close log waits for that.
    pub publishing: bool,
    /// The comment in which people were told what is held, by its effect.
    pub held_shown: Option<String>,
    /// Who closed it.
    pub closed_by: Option<String>,
    /// Operators' commands that wait for the cell to come so far.
    pub waiting: Vec<(String, Until)>,
}

/// Where a cell's work went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedWork {
    /// The branch, where one was pushed.
    pub branch: Option<String>,
    /// Whether the first choice of a name was somebody else's.
    pub renamed: bool,
    /// Other branches.
    pub others: Vec<String>,
    /// The pull request: number, address.
    pub pull: Option<(i64, String)>,
    /// Why something of it is missing, in the forge's words.
    pub refused: Option<String>,
    /// The same of other branches: name, words.
    pub others_refused: Vec<(String, String)>,
    /// Commits that are on the forge now.
    pub commits: Vec<String>,
    /// What was found to be held when it was about to leave.
    pub held: Vec<Held>,
}

impl PublishedWork {
    /// Whether the forge refused something of it.
    pub fn lacks_something(&self) -> bool {
        self.refused.is_some() || !self.others_refused.is_empty()
    }
}

/// What an operator's command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The cell runs, or will not.
    Active,
    /// The cell is closed and its work has left, or was refused.
    Closed,
    /// Its work has left.
    Published,
    /// Nothing of the cell is on disk any more.
    Scrubbed,
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
    /// Whatever the verb adds.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Outcome {
    /// A refusal.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}
