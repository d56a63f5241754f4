//! `/resume [CELL]`: a frozen cell goes on.

use super::{Asked, Done};
use crate::cell::{CellId, Input as CellInput};
use crate::engine::decide::mission_tx::MissionTx;
use crate::store::Result;

/// Thaws a cell.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, cell: Option<&CellId>) -> Result<Done> {
    mission.on_cell(cell, &CellInput::Resume, &asked.actor, |_, id| Ok(Done::ok(format!("Cell `{id}` goes on."))))
}
