//! The result of a harvest, as the host's side verified it.

use super::held::Held;
use crate::mission::publishing::Work;
use serde::{Deserialize, Serialize};

/// What was harvested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Harvest {
    /// Commits since the clone: hash, author, subject.
    pub commits: Vec<(String, String, String)>,
    /// Number of commits, if there are more than are listed.
    pub commit_count: u64,
    /// Files that were changed: lines added, lines removed, path.
    pub files: Vec<(u64, u64, String)>,
    /// Number of files, if there are more than are listed.
    pub file_count: u64,
    /// Number of files that were changed and not committed.
    pub uncommitted: u64,
    /// Whether those changes became a commit, which is then the last one.
    pub rest: bool,
    /// The commit of the snapshot; `None` if none was asked for.
    pub snapshot: Option<String>,
    /// The newest commit of the mission's own branch; `None` if there is no work.
    pub tip: Option<String>,
    /// The commit below `tip`, if `tip` contains the uncommitted changes. It can be pushed by itself.
    pub committed: Option<String>,
    /// Parts of the work that may not leave, each with its commit and reasons.
    pub held: Vec<Held>,
    /// How the git that read the work was confined, in words.
    pub read_by: Option<String>,
    /// Other branches with work: name and commit.
    pub branches: Vec<(String, String)>,
    /// Other things that people should know, in words.
    pub notes: Vec<String>,
    /// Why the result is unknown, if it is.
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

    /// The commits of all parts of the work.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let all = self.tip.iter().chain(&self.committed).chain(self.branches.iter().map(|(_, commit)| commit));
        all.map(String::as_str)
    }

    /// Whether this commit is held.
    pub fn is_held(&self, commit: &str) -> bool {
        self.held.iter().any(|held| held.commit == commit)
    }

    /// The part of it that the core needs to decide what leaves.
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
