//! `/checkpoint [NOTE]`: a snapshot of a cell's work is taken.

use super::{Asked, Done};
use crate::cell::Input as CellInput;
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::publishing::Until;
use crate::store::Result;

/// Has a snapshot taken of the mission's cell.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, note: Option<&String>) -> Result<Done> {
    let input = CellInput::Checkpoint { note: note.cloned() };
    mission.on_cell(None, &input, &asked.actor, |_, _| Ok(Done::ok("").until(Until::Snapshot)))
}
