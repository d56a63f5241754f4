//! What is to be done outside: the rows of the effects queue, and what is true of
//! each kind of them.

use super::lane::Lane;
use super::request::AuthorityRequest;
use crate::cell::{Actor, CellId, Effect as CellEffect};
use crate::gitea::event::RepoRef;
use crate::mission::{DecisionRecord, Origin, Publishable};
use crate::store::{EffectRow, StoreError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of an effect: the word that its row has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectKind {
    /// A reaction.
    React,
    /// A comment.
    Comment,
    /// A comment that is edited in place. Its word is its slot, so that a newer text of
    /// the same slot can take an older one's place.
    Standing(String),
    /// The label that shows the state.
    StateLabel,
    /// Take the approval label off.
    RemoveApproval,
    /// Find out what a commenter may do.
    Authorize,
    /// See whether somebody confirmed.
    Confirm,
    /// Look for what of a project a cell would not have.
    LookAtProject,
    /// Ask the forge about an issue.
    Look,
    /// Something on a cell.
    Cell,
    /// Push a cell's work.
    Push,
    /// Let something optional out.
    PublishFile,
    /// Append to a record in the cell.
    Record,
    /// Look for a comment that was posted twice.
    Deduplicate,
}

impl EffectKind {
    /// The kinds of which one can take minutes. They have places of their own, so that a
    /// reaction never waits behind a clone.
    pub const SLOW: [&'static str; 2] = ["cell", "push"];

    /// The kind that a row's word means.
    pub fn of(word: &str) -> Self {
        match word {
            "react" => Self::React,
            "comment" => Self::Comment,
            "state_label" => Self::StateLabel,
            "remove_approval" => Self::RemoveApproval,
            "authorize" => Self::Authorize,
            "confirm" => Self::Confirm,
            "look_at_project" => Self::LookAtProject,
            "look" => Self::Look,
            "cell" => Self::Cell,
            "push" => Self::Push,
            "publish_file" => Self::PublishFile,
            "record" => Self::Record,
            "deduplicate" => Self::Deduplicate,
            slot => Self::Standing(slot.to_owned()),
        }
    }

    /// Its word.
    pub fn word(&self) -> &str {
        match self {
            Self::Standing(slot) => slot,
            Self::React => "react",
            Self::Comment => "comment",
            Self::StateLabel => "state_label",
            Self::RemoveApproval => "remove_approval",
            Self::Authorize => "authorize",
            Self::Confirm => "confirm",
            Self::LookAtProject => "look_at_project",
            Self::Look => "look",
            Self::Cell => "cell",
            Self::Push => "push",
            Self::PublishFile => "publish_file",
            Self::Record => "record",
            Self::Deduplicate => "deduplicate",
        }
    }

    /// Whether one can take minutes.
    pub fn is_slow(&self) -> bool {
        Self::SLOW.contains(&self.word())
    }

    /// Whether one has to be done in the end, however long it takes: until nothing of a
    /// cell runs, it is not closed. (A start judges itself.)
    pub fn is_never_given_up(&self) -> bool {
        matches!(self, Self::Cell | Self::Record | Self::Confirm)
    }

    /// Whether one owes somebody an answer: it must not end without a word.
    pub fn owes_an_answer(&self) -> bool {
        matches!(self, Self::Authorize | Self::Confirm | Self::Look | Self::Push | Self::PublishFile)
    }
}

impl fmt::Display for EffectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which of a mission's comments that are edited in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// How its cells stand.
    Status,
    /// The request that the issue itself makes.
    Proposal,
    /// What is wrong with a proposal.
    Unreadable,
    /// The request with that number.
    Request(u32),
}

impl Slot {
    /// Where a record is shown.
    pub fn of(record: &DecisionRecord) -> Self {
        match record.origin {
            Origin::Issue => Self::Proposal,
            _ => Self::Request(record.number),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("status"),
            Self::Proposal => f.write_str("proposal"),
            Self::Unreadable => f.write_str("unreadable"),
            Self::Request(number) => write!(f, "request-{number}"),
        }
    }
}

/// What is to be done outside, as the queue holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// A reaction.
    React {
        /// The repository, by its newest name when this was queued.
        repo: RepoRef,
        /// On which comment.
        comment: i64,
        /// The forge's word for the reaction, such as `+1`.
        content: String,
        /// Whether it is the whole answer: no words go with it.
        #[serde(default)]
        alone: bool,
    },
    /// A comment.
    Comment {
        /// The repository, by its newest name when this was queued.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// The kind of its publication, as it stands in the marker.
        kind: String,
        /// The text, with the marker.
        body: String,
    },
    /// A comment that is edited in place: each slot of a mission has one.
    #[serde(alias = "status")]
    Standing {
        /// The repository, by its newest name when this was queued.
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
        /// The repository, by its newest name when this was queued.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// The state's word.
        state: String,
    },
    /// Take the approval label off.
    RemoveApproval {
        /// The repository, by its newest name when this was queued.
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
        /// The repository, by its newest name when this was queued.
        repo: RepoRef,
    },
    /// Ask the forge about an issue: what was heard of it is only a hint.
    #[serde(alias = "read_timeline")]
    Look {
        /// The repository, by its newest name when this was queued.
        repo: RepoRef,
        /// Which issue.
        number: i64,
    },
    /// Something on a cell.
    Cell {
        /// What the core ordered.
        order: CellEffect,
    },
    /// Push a cell's work and ask for it to be pulled.
    Push {
        /// The repository, by its newest name when this was queued.
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
        /// The repository, by its newest name when this was queued.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// The file or record that is to leave.
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
        /// The repository, by its newest name when this was queued.
        repo: RepoRef,
        /// On which issue.
        number: i64,
        /// The effect whose marker it carries.
        of: String,
    },
}

fn status_slot() -> String {
    Slot::Status.to_string()
}

impl Effect {
    /// Its row in the queue, not run before `not_before`, in milliseconds since the epoch.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn row(
        &self,
        id: &str,
        lane: Lane<'_>,
        mission: &str,
        cell: Option<&CellId>,
        not_before: i64,
    ) -> Result<EffectRow, StoreError> {
        Ok(EffectRow {
            seq: 0,
            id: id.to_owned(),
            lane: lane.to_string(),
            mission: mission.to_owned(),
            cell: cell.map(ToString::to_string),
            kind: self.kind().to_string(),
            data: serde_json::to_string(self).map_err(StoreError::json("effect"))?,
            attempts: 0,
            not_before,
        })
    }

    /// The repository that it speaks to the forge about, by the name that it had when this was queued.
    pub fn reference_mut(&mut self) -> Option<&mut RepoRef> {
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

    /// The kind that its row has.
    pub fn kind(&self) -> EffectKind {
        match self {
            Self::React { .. } => EffectKind::React,
            Self::Comment { .. } => EffectKind::Comment,
            Self::Standing { slot, .. } => EffectKind::Standing(slot.clone()),
            Self::StateLabel { .. } => EffectKind::StateLabel,
            Self::RemoveApproval { .. } => EffectKind::RemoveApproval,
            Self::Authorize { .. } => EffectKind::Authorize,
            Self::Confirm { .. } => EffectKind::Confirm,
            Self::LookAtProject { .. } => EffectKind::LookAtProject,
            Self::Look { .. } => EffectKind::Look,
            Self::Cell { .. } => EffectKind::Cell,
            Self::Push { .. } => EffectKind::Push,
            Self::PublishFile { .. } => EffectKind::PublishFile,
            Self::Record { .. } => EffectKind::Record,
            Self::Deduplicate { .. } => EffectKind::Deduplicate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_back_from_its_word() {
        for word in [
            "react",
            "comment",
            "state_label",
            "remove_approval",
            "authorize",
            "confirm",
            "look_at_project",
            "look",
            "cell",
            "push",
            "publish_file",
            "record",
            "deduplicate",
        ] {
            let kind = EffectKind::of(word);
            assert_eq!(kind.word(), word);
            assert!(!matches!(kind, EffectKind::Standing(_)), "{word}");
        }
        for slot in [Slot::Status, Slot::Proposal, Slot::Unreadable, Slot::Request(3)] {
            assert_eq!(EffectKind::of(&slot.to_string()), EffectKind::Standing(slot.to_string()));
        }
    }
}
