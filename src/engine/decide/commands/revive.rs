//! `/revive [AGENT]`: agents that ended badly are started again.

use super::{Asked, Done};
use crate::cell::Input as CellInput;
use crate::engine::decide::mission_tx::MissionTx;
use crate::store::Result;

/// Starts agents of the mission's cell again.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, agent: Option<&str>) -> Result<Done> {
    if !mission.known().open {
        return Ok(Done::no("the issue is closed; nothing is revived on a closed mission"));
    }
    let input = CellInput::Revive { agent: agent.map(str::to_owned) };
    mission.on_cell(None, &input, &asked.actor, |_, id| Ok(Done::ok(format!("Cell `{id}` is revived."))))
}
