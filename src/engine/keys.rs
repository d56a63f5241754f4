//! Names of rows: what came in once, what is counted, what was said once.

use crate::cell::{AgentRun, CellId};
use crate::gitea::event::{CommentSnapshot, ForgeEvent, created_key};
use crate::mission::MissionId;
use crate::store::Due;
use std::fmt;

/// The key of something that happened. The inbox takes each key once, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxKey(String);

impl InboxKey {
    /// Something that happened on the forge. What polling found has a key of its own:
    /// its delivery may still come, and proves more.
    pub fn of_event(event: &ForgeEvent) -> Self {
        let key = event.semantic_key();
        match event {
            ForgeEvent::Comment { sender_can_push: None, .. } => Self(format!("{key}:polled")),
            _ => Self(key),
        }
    }

    /// The same for what is only a reason to ask the forge: never a repetition.
    #[must_use]
    pub fn never_repeated(self) -> Self {
        Self(format!("{}:{}", self.0, uuid::Uuid::now_v7()))
    }

    /// The delivery of a comment's creation, whatever it claimed.
    pub fn comment_created(repository: i64, comment: i64) -> Self {
        Self(format!("comment:{repository}:{comment}:created"))
    }

    /// The delivery of a comment's creation, with the claims that the comment makes now.
    pub fn comment_created_as(repository: i64, issue: i64, comment: &CommentSnapshot) -> Self {
        Self(created_key(repository, issue, comment))
    }

    /// The delivery of a comment's deletion.
    pub fn comment_deleted(repository: i64, comment: i64) -> Self {
        Self(format!("comment:{repository}:{comment}:deleted"))
    }

    /// What follows from an effect.
    pub fn of_effect(effect: &str) -> Self {
        // Once several inputs could follow.
        Self(format!("effect:{effect}:0"))
    }

    /// An effect takes long.
    pub fn effect_waits(effect: &str) -> Self {
        Self(format!("effect:{effect}:waits"))
    }

    /// An agent's run ended.
    pub fn agent_ended(cell: &CellId, run: &AgentRun) -> Self {
        Self(format!("ended:{cell}:{}:{}", run.agent, run.number))
    }

    /// A deadline passed.
    pub fn deadline(due: &Due) -> Self {
        Self(format!("deadline:{}:{:?}:{}", due.cell, due.kind, due.at))
    }

    /// An operator's command.
    pub fn operation(operation: &str) -> Self {
        Self(format!("operation:{operation}"))
    }

    /// An issue is taken for deleted, at that time.
    pub fn issue_deleted(mission: &MissionId, at: i64) -> Self {
        Self(format!("gone:{mission}:{at}"))
    }

    /// An issue that was taken for deleted shows again, at that time.
    pub fn issue_shown(mission: &MissionId, at: i64) -> Self {
        Self(format!("shown:{mission}:{at}"))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InboxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whatever is counted by the minute.
#[derive(Debug, Clone, Copy)]
pub enum Pace<'a> {
    /// Commands of a person, by the account's number.
    Commands(i64),
    /// How often that person was told, on a mission, that there are too many.
    CommandsTold(&'a MissionId, i64),
    /// Looks at a mission's issue.
    Looks(&'a MissionId),
}

impl fmt::Display for Pace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commands(person) => write!(f, "commands:{person}"),
            Self::CommandsTold(mission, person) => write!(f, "commands_told:{mission}:{person}"),
            Self::Looks(mission) => write!(f, "look:{mission}"),
        }
    }
}

/// Under which it is kept that people were told, on a mission, of a label that does not
/// count.
pub fn label_told_key(mission: &MissionId, label: i64) -> String {
    format!("label_told:{mission}:{label}")
}
