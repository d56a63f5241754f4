//! Lists of cells, straight from the registry, with the daemon running or not.

use super::{CellView, MissionName};
use crate::backend::Seen;
use crate::cell::{At, Cell, CellId};
use crate::store::{CellRow, Listed, Result, Tx};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Most cells that are listed at once.
const LISTED: i64 = 100_000;

/// Which cells are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// Those that are not over.
    Live,
    /// Those, and the newest that are over.
    All,
    /// Those of one mission.
    Of(MissionName),
}

/// A cell that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedView {
    /// The cell.
    pub cell_id: String,
    /// Its mission, as `OWNER/REPO#N`.
    pub project: String,
    /// What cannot be read, and what to do about it.
    pub error: String,
}

/// How cells stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Those that were wanted, oldest first.
    pub cells: Vec<CellView>,
    /// Those that were wanted and cannot be read.
    pub damaged: Vec<DamagedView>,
}

impl Listing {
    /// Reads the cells that are wanted. `look` says what is to be seen of one
    /// now. `None` where the mission is not known.
    ///
    /// # Errors
    /// Where the registry cannot be read; a single cell that cannot is in
    /// [`damaged`](Self::damaged).
    pub fn read(tx: &Tx<'_>, which: &Which, look: impl Fn(&Cell) -> Seen, now: At) -> Result<Option<Self>> {
        let rows = match which {
            Which::Live => tx.live_cells(LISTED)?,
            Which::All => tx.all_cells(LISTED)?,
            Which::Of(name) => match mission_of(tx, name)? {
                Some(id) => tx.listed_cells_of(&id)?,
                None => return Ok(None),
            },
        };
        let mut names = Missions::default();
        let mut listing = Self::default();
        for row in rows {
            listing.add(tx, &mut names, row, &look, now)?;
        }
        Ok(Some(listing))
    }

    fn add(
        &mut self,
        tx: &Tx<'_>,
        names: &mut Missions,
        row: Listed<CellRow>,
        look: impl Fn(&Cell) -> Seen,
        now: At,
    ) -> Result<()> {
        let (id, mission, error) = match row {
            Ok(row) => {
                let project = names.name(tx, &row.cell.mission)?;
                match CellView::new(&row, project, &look(&row.cell), now) {
                    Ok(view) => {
                        self.cells.push(view);
                        return Ok(());
                    }
                    Err(error) => (row.cell.id.to_string(), row.cell.mission, error),
                }
            }
            Err(damaged) => (damaged.cell, damaged.mission, damaged.error),
        };
        let project = names.name(tx, &mission)?;
        self.damaged.push(DamagedView { cell_id: id, project, error: error.to_string() });
        Ok(())
    }
}

/// A mission's name in the registry, if it is one that Lazarus knows.
pub fn mission_of(tx: &Tx<'_>, name: &MissionName) -> Result<Option<String>> {
    if let Some(id) = tx.mission_id_by_name(&name.owner, &name.repository, name.number)? {
        return Ok(Some(id));
    }
    // Under the name that the configuration has for it.
    let Some(repository) = tx.repository_named(&name.full_repository())? else { return Ok(None) };
    tx.mission_id_by_number(repository, name.number)
}

/// What people call missions, remembered while a list is made.
#[derive(Debug, Default)]
pub struct Missions(HashMap<String, String>);

impl Missions {
    /// What people call the mission that the registry calls `id`: the newest
    /// name of its repository, and the issue.
    ///
    /// # Errors
    /// Where the registry cannot be read.
    pub fn name(&mut self, tx: &Tx<'_>, id: &str) -> Result<String> {
        if let Some(name) = self.0.get(id) {
            return Ok(name.clone());
        }
        let name = name_of(tx, id)?;
        self.0.insert(id.to_owned(), name.clone());
        Ok(name)
    }
}

fn name_of(tx: &Tx<'_>, id: &str) -> Result<String> {
    // A mission that cannot be read still has a name, by its repository's.
    if let Ok(Some(mission)) = tx.mission(id) {
        return Ok(mission.name());
    }
    let Some((repository, number)) = id.split_once('#') else { return Ok(id.to_owned()) };
    let known = match repository.parse() {
        Ok(repository) => tx.name_of_repository(repository)?,
        Err(_) => None,
    };
    Ok(match known {
        Some(name) => format!("{name}#{number}"),
        None => format!("issue {number} of repository {repository}"),
    })
}

/// The cell with that name, as others see it. `None` where there is none.
///
/// # Errors
/// Where it cannot be read.
pub fn one(tx: &Tx<'_>, id: &CellId, look: impl Fn(&Cell) -> Seen, now: At) -> Result<Option<CellView>> {
    let Some(row) = tx.cell(id.as_str())? else { return Ok(None) };
    let project = Missions::default().name(tx, &row.cell.mission)?;
    CellView::new(&row, project, &look(&row.cell), now).map(Some)
}
