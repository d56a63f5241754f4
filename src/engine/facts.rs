//! What the engine keeps beside a cell.

use crate::backend::{Running, Usage};
use crate::mission::publishing::{Publishing, Work};
use crate::repository::{Harvest, Held};
use crate::store::{CellRow, StoreError};
use serde::{Deserialize, Serialize};

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
    /// How that leaves.
    #[serde(flatten)]
    pub publishing: Publishing,
    /// Who closed it.
    pub closed_by: Option<String>,
    /// Whether nobody said how it ended, after all its agents had ended: then its
    /// work says it.
    pub outcome_open: bool,
    /// The newest run whose end people were told of.
    pub end_told: u32,
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

    /// Takes over what was done. What was published and shown before was of older work.
    pub fn take_work(&mut self, harvest: Harvest) {
        self.harvest = Some(harvest);
        self.publishing.work_taken();
    }

    /// What of the work does not leave.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.harvest.iter().flat_map(|harvest| &harvest.held)
    }

    /// Why something of the work has not left, in words.
    pub fn what_is_missing(&self) -> Vec<String> {
        let mut missing = vec![];
        if let Some(published) = self.publishing.published() {
            missing.extend(published.refused.clone());
            missing.extend(published.others_refused.iter().map(|(branch, why)| format!("{branch}: {why}")));
        }
        missing.extend(self.held().map(Held::words));
        missing
    }

    /// The work as the core decides on it, and the state of its way out.
    pub fn work_and_publishing(&mut self) -> (Work<'_>, &mut Publishing) {
        (self.harvest.as_ref().map(Harvest::work).unwrap_or_default(), &mut self.publishing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::publishing::Until;

    #[test]
    fn what_an_older_lazarus_kept_beside_a_cell_is_read() {
        let row = serde_json::json!({
            "running": null, "commit": "c0ffee", "branch": "main", "behind": 2,
            "harvest": {"tip": "beef", "held": [{"commit": "beef", "findings": [{"found": "limit", "words": "large"}]}]},
            "usage": {}, "checkpoint": null, "published": {"branch": "lazarus/7-x", "refused": "no"},
            "publishing": true, "held_shown": "e", "closed_by": "ada", "outcome_open": true, "end_told": 3,
            "waiting": [["o", "closed"]],
        });
        let facts: Facts = serde_json::from_value(row.clone()).unwrap();
        assert!(facts.publishing.log_waits() && facts.outcome_open && facts.end_told == 3);
        assert_eq!(facts.publishing.published().unwrap().refused.as_deref(), Some("no"));
        assert_eq!(facts.publishing.held_shown(), Some("e"));
        assert_eq!(facts.held().count(), 1);
        assert!(facts.clone().publishing.arrived_at(Until::Closed) == ["o"]);
        // What is written has every part that was there.
        let written = serde_json::to_value(&facts).unwrap();
        for name in row.as_object().unwrap().keys() {
            assert!(written.get(name).is_some(), "{name} is missing");
        }
        assert_eq!(serde_json::from_value::<Facts>(written).unwrap(), facts);
    }
}
