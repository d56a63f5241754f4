//! `/destroy CELL`: a cell and all that it has are removed.

use super::{Asked, Done};
use crate::cell::{CellId, Input as CellInput};
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::publishing::Until;
use crate::store::Result;

/// Destroys a cell. A request for it is not open any more.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, cell: &CellId) -> Result<Done> {
    let input = CellInput::Destroy { reason: Some(format!("destroyed by {}", asked.login())) };
    let done = mission.on_cell(Some(cell), &input, &asked.actor, |_, id| {
        Ok(Done::ok(format!("Cell `{id}` is destroyed; the ledger remains.")).until(Until::Scrubbed))
    })?;
    if let Some(record) = mission.known().records.iter().find(|r| done.ok && r.cell == *cell).cloned() {
        mission.known_mut().take_record(record.number);
        mission.show_record(&record, &format!("Its cell was destroyed by {}.", asked.login()), false)?;
    }
    Ok(done)
}
