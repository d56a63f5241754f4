//! `/revoke IDENTITY [CELL]`: somebody takes part no longer.

use super::{Asked, Done};
use crate::cell::{CellId, Identity, Input as CellInput};
use crate::engine::decide::mission_tx::MissionTx;
use crate::store::Result;

/// Takes somebody out of a cell.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, identity: &str, cell: Option<&CellId>) -> Result<Done> {
    let Ok(identity) = Identity::parse(identity) else {
        return Ok(Done::no("an identity is `agent:NAME`, `bot:NAME` or `human:LOGIN`"));
    };
    let input = CellInput::Revoke { identity: identity.clone() };
    mission.on_cell(cell, &input, &asked.actor, |_, id| {
        Ok(Done::ok(format!("`{identity}` takes no part in `{id}` any more.")))
    })
}
