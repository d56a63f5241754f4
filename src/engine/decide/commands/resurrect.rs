//! `/resurrect [CELL]`: a closed cell is brought back.

use super::{Asked, Done};
use crate::cell::{CellId, Input as CellInput, State};
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::publishing::Until;
use crate::store::Result;

/// Brings a closed cell back.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, cell: Option<&CellId>) -> Result<Done> {
    if !mission.known().open {
        return Ok(Done::no("the issue is closed; reopen it first"));
    }
    let named = match cell {
        Some(id) => id.clone(),
        None => {
            let rows = mission.cells()?.into_iter().map(|row| row.cell);
            let closed = rows.filter(|cell| cell.state == State::Closed).map(|cell| cell.id).collect::<Vec<_>>();
            match Done::the_one(&closed, "this mission has no closed cell") {
                Ok(one) => one,
                Err(done) => return Ok(done),
            }
        }
    };
    mission.on_cell(Some(&named), &CellInput::Resurrect, &asked.actor, |_, _| Ok(Done::ok("").until(Until::Active)))
}
