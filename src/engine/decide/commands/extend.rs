//! `/extend TIME [CELL]`: a cell may run for longer.

use super::{Asked, Done};
use crate::cell::{CellId, Input as CellInput};
use crate::engine::decide::mission_tx::MissionTx;
use crate::engine::decide::state::time_words;
use crate::store::Result;

/// Adds to a cell's time to live, in milliseconds.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, by: i64, cell: Option<&CellId>) -> Result<Done> {
    mission.on_cell(cell, &CellInput::Extend { by }, &asked.actor, |mission, id| {
        let until = mission.cell(id)?.and_then(|c| c.expires_at).map(time_words);
        Ok(Done::ok(format!("Cell `{id}` may run until {}.", until.unwrap_or_default())))
    })
}
