//! What came out of a cell, as it was found to be.

use super::held::Held;
use crate::mission::publishing::Work;
use serde::{Deserialize, Serialize};

/// What was harvested at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Harvest {
    /// Commits since the clone: hash, author, subject.
    pub commits: Vec<(String, String, String)>,
    /// How many commits there are, if more than are listed.
    pub commit_count: u64,
    /// Files touched: lines added, lines removed, path.
    pub files: Vec<(u64, u64, String)>,
    /// How many files, if more than are listed.
    pub file_count: u64,
    /// Files that were changed and not committed.
    pub uncommitted: u64,
    /// Whether those became a commit, the last.
    pub rest: bool,
    /// The commit of the snapshot, where one was wanted.
    pub snapshot: Option<String>,
    /// The newest commit of the mission's own branch, where there is anything.
    pub tip: Option<String>,
    /// The one below it, where `tip` is of what nobody committed: it can leave by
    /// itself.
    pub committed: Option<String>,
    /// What of the work may not leave, by its commit, and why.
    pub held: Vec<Held>,
    /// How the git was confined that read it, in words.
    pub read_by: Option<String>,
    /// Other branches with work of their own: name, commit.
    pub branches: Vec<(String, String)>,
    /// What else people should know of it, in words.
    pub notes: Vec<String>,
    /// Why it is not known, if so.
    pub unknown: Option<String>,
}

impl Harvest {
    /// Whether anything was committed or changed.
    pub fn has_work(&self) -> bool {
        self.commit_count > 0
            || self.file_count > 0
            || self.uncommitted > 0
            || self.tip.is_some()
            || self.committed.is_some()
            || !self.branches.is_empty()
            || !self.held.is_empty()
    }

    /// Every commit by which a part of the work is found.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let all = self.tip.iter().chain(&self.committed).chain(self.branches.iter().map(|(_, commit)| commit));
        all.map(String::as_str)
    }

    /// Whether something holds a commit.
    pub fn is_held(&self, commit: &str) -> bool {
        self.held.iter().any(|held| held.commit == commit)
    }

    /// The same for the core, which decides what leaves.
    pub fn work(&self) -> Work<'_> {
        Work {
            tip: self.tip.as_deref(),
            committed: self.committed.as_deref(),
            rest: self.rest,
            branches: &self.branches,
            held: &self.held,
        }
    }
}
