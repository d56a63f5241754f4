//! What comes in, and what is to be done: the rows of inbox and effects queue.

use crate::backend::{Running, Usage};
use crate::cell::{Actor, AgentRun, Base, CellId, DeadlineKind, Effect as CellEffect, Exit};
use crate::gitea::event::{ForgeEvent, IssueSnapshot, Person, RepoRef};
use crate::mission::{Command, Level, Line, Member, Misplaced, Publishable};
use crate::repository::{Harvest, Held};
use crate::store::{CellRow, StoreError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
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
    /// The forge was asked about an issue, because something was heard of it.
    Looked {
        /// Where.
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
        /// Why.
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
        /// Commits that the branch has beyond that one by now.
        #[serde(default)]
        behind: u64,
        /// Configuration for agents that the repository carries.
        planted: Vec<String>,
    },
    /// A cell could not be started.
    StartFailed {
        /// The cell.
        cell: CellId,
        /// Why.
        reason: String,
        /// Whether the issue was found to be other than it was approved.
        #[serde(default)]
        changed: bool,
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
        issue: Option<Box<(RepoRef, Look)>>,
        /// The cell, for commands on one.
        cell: Option<CellId>,
        /// Numbers of accounts that the command names.
        accounts: BTreeMap<String, i64>,
    },
    /// The forge said often enough that a mission's issue is not there.
    IssueGone {
        /// The mission.
        mission: String,
    },
    /// The forge shows an issue that was taken for deleted.
    IssueShown {
        /// Where.
        repo: RepoRef,
        /// The issue as it is.
        issue: Box<IssueSnapshot>,
    },
    /// An effect that people wait for has been failing for some time, and is
    /// tried again.
    Waits {
        /// The effect.
        effect: String,
        /// Its kind.
        kind: String,
        /// The cell.
        cell: CellId,
        /// Why it fails.
        why: String,
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
        /// The effect, where it could be read: whom it owes an answer.
        #[serde(default)]
        effect: Option<Box<Effect>>,
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
    /// SHA-256 of the comment's whole text, hex; empty in requests of a Lazarus
    /// that did not compare it.
    #[serde(default)]
    pub sha256: String,
    /// What it says.
    pub lines: Vec<Line>,
    /// Commands in it that stand where none counts.
    #[serde(default)]
    pub misplaced: Vec<Misplaced>,
    /// What a signed delivery stated of the right to write.
    pub stated_write: Option<bool>,
    /// Logins that the commands name.
    pub logins: Vec<String>,
    /// How it was heard of.
    #[serde(default)]
    pub heard: Heard,
}

/// How a comment was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// By a signed delivery of its creation.
    #[default]
    Delivered,
    /// By polling alone: a text that was edited in its first second looks the same.
    Polled,
    /// By polling, and its author confirmed it since.
    Confirmed,
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
    /// Who.
    pub actor: Person,
    /// Whether it was put on, not taken off.
    pub added: bool,
    /// When, by the forge's clock, in milliseconds.
    pub at: i64,
    /// What they may do, looked up where it was put on.
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
        /// Whether it is the whole answer: no words go with it.
        #[serde(default)]
        alone: bool,
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
    /// A comment that is edited in place: each slot of a mission has one.
    #[serde(alias = "status")]
    Standing {
        /// Where.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// Which one: `status`, `proposal`, `request-3`, …
        #[serde(default = "status_slot")]
        slot: String,
        /// The text, with the marker.
        body: String,
        /// Whether it is written only where it stands already.
        #[serde(default)]
        only_edit: bool,
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
    /// See whether somebody confirmed what only polling had found.
    Confirm {
        /// What is to be confirmed.
        request: Box<AuthorityRequest>,
        /// The effect that asked for it: its comment is where the answer is given.
        question: String,
        /// SHA-256 of that comment's text, hex: somebody may have edited it.
        sha256: String,
        /// When it was asked, by our clock, in milliseconds since the epoch.
        asked_at: i64,
    },
    /// Look for what of a project a cell would not have.
    LookAtProject {
        /// Which.
        repo: RepoRef,
    },
    /// Ask the forge about an issue: what was heard of it is only a hint.
    #[serde(alias = "read_timeline")]
    Look {
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

fn status_slot() -> String {
    "status".to_owned()
}

impl Effect {
    /// The repository that it speaks to the forge about, by the name that it had when this was queued.
    pub(super) fn reference_mut(&mut self) -> Option<&mut RepoRef> {
        match self {
            Self::React { repo, .. }
            | Self::Comment { repo, .. }
            | Self::Standing { repo, .. }
            | Self::StateLabel { repo, .. }
            | Self::RemoveApproval { repo, .. }
            | Self::LookAtProject { repo }
            | Self::Look { repo, .. }
            | Self::Push { repo, .. }
            | Self::PublishFile { repo, .. }
            | Self::Deduplicate { repo, .. } => Some(repo),
            Self::Authorize { request } | Self::Confirm { request, .. } => Some(&mut request.repo),
            Self::Cell { .. } | Self::Record { .. } => None,
        }
    }

    /// Its kind, one word. A comment that is edited in place has its slot for it, so
    /// that a newer text of the same slot can take an older one's place.
    pub fn kind(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Standing { slot, .. } => return Cow::Owned(slot.clone()),
            Self::React { .. } => "react",
            Self::Comment { .. } => "comment",
            Self::StateLabel { .. } => "state_label",
            Self::RemoveApproval { .. } => "remove_approval",
            Self::Authorize { .. } => "authorize",
            Self::Confirm { .. } => "confirm",
            Self::LookAtProject { .. } => "look_at_project",
            Self::Look { .. } => "look",
            Self::Cell { .. } => "cell",
            Self::Push { .. } => "push",
            Self::PublishFile { .. } => "publish_file",
            Self::Record { .. } => "record",
            Self::Deduplicate { .. } => "deduplicate",
        })
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
    /// Commits that the branch had beyond that one at the start.
    pub behind: u64,
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
    /// Whether nobody said how it ended, after all its agents had ended: then its
    /// work says it.
    pub outcome_open: bool,
    /// The newest run whose end people were told of.
    pub end_told: u32,
    /// Operators' commands that wait for the cell to come so far.
    pub waiting: Vec<(String, Until)>,
}

impl Facts {
    /// Reads what is kept beside a cell.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], which names the cell. Facts that cannot be read
    /// are never taken for none: with them work would be lost.
    pub fn of(row: &CellRow) -> Result<Self, StoreError> {
        serde_json::from_str(&row.facts)
            .map_err(|error| StoreError::Corrupt { what: "facts", why: format!("{}: {error}", row.cell.id) })
    }
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
    /// A snapshot was taken, or failed.
    Snapshot,
    /// Something optional has left, or may not.
    FileLeft,
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
