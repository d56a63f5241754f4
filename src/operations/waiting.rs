//! What has failed and is tried again: `lazarus status` and `lazarus doctor` show
//! it, for some of it is for people to mend.

use crate::store::{self, Tx};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most of it that is shown.
const SHOWN: i64 = 50;

/// One thing that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What, in one word: `authorize`, `comment`, `push`, …
    pub what: String,
    /// `OWNER/REPO#N`.
    pub mission: String,
    /// The cell, where there is one.
    pub cell: Option<String>,
    /// Since its first failure, in UTC.
    pub since: String,
    /// Why the last attempt failed.
    pub why: String,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, mission, cell, since, why } = self;
        write!(
            f,
            "{what} of {}{mission}, since {since}: {why}",
            cell.as_ref().map_or(String::new(), |c| format!("{c}, "))
        )
    }
}

/// What has failed and is tried again, the oldest first.
///
/// # Errors
/// Where the registry cannot be read.
pub fn waiting(tx: &Tx<'_>) -> store::Result<Vec<Waiting>> {
    // Of an older daemon that still runs this is not known.
    if !tx.is_current() {
        return Ok(vec![]);
    }
    tx.failing_effects(SHOWN)?
        .into_iter()
        .map(|waits| {
            let mission = tx.mission(&waits.row.mission)?;
            let at = jiff::Timestamp::from_millisecond(waits.failing_since.unwrap_or_default()).unwrap_or_default();
            Ok(Waiting {
                what: waits.row.kind,
                mission: mission.map_or(waits.row.mission, |mission| mission.name()),
                cell: waits.row.cell,
                since: at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
                // The forge's words among others: they do not steer a terminal.
                why: waits.error.unwrap_or_default().chars().filter(|c| *c == '\n' || !c.is_control()).collect(),
            })
        })
        .collect()
}
