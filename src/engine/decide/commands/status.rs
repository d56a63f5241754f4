//! `/status [CELL]`: how the mission's cells stand.

use super::{About, Done};
use crate::cell::CellId;
use crate::engine::decide::mission_tx::MissionTx;
use crate::store::Result;

/// Shows all cells, or one.
pub fn run(mission: &MissionTx<'_>, cell: Option<&CellId>) -> Result<Done> {
    Ok(match cell {
        Some(id) if mission.cell(id)?.is_none() => Done::no(format!("there is no cell `{id}` in this mission")),
        only => Done { ok: true, status: Some(About::of(only)), ..Done::default() },
    })
}
