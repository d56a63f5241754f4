//! Commands in a comment that wait for what the forge says of them and of their author.

use crate::cell::Actor;
use crate::gitea::event::{IssueSnapshot, Person, RepoRef};
use crate::mission::{Line, Misplaced};
use serde::{Deserialize, Serialize};

/// Somebody on the forge, as one who acts.
pub fn actor(person: &Person) -> Actor {
    Actor::Person { id: person.id, login: person.login.clone() }
}

/// Commands that wait for authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRequest {
    /// The repository, by the name that it was heard under.
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
