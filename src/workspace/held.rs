//! What of the work that was taken in is held.

use crate::backend::Harvest;
use crate::mission::publishing::Work;

pub(super) use crate::mission::held::shown;
pub use crate::mission::held::{Finding, Held, Place};

impl Harvest {
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
