//! `/accept [CELL]`: somebody takes up an invitation.

use super::{Asked, Done};
use crate::cell::{Actor, CellId, Identity, Input as CellInput, ParticipantState, Role};
use crate::engine::decide::mission_tx::MissionTx;
use crate::store::Result;

/// Accepts an invitation to a cell; without a name, to the one that has it.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, cell: Option<&CellId>) -> Result<Done> {
    let Actor::Person { id, login } = &asked.actor else {
        return Ok(Done::no("an invitation is accepted by the person who was invited, in a comment"));
    };
    let Ok(identity) = Identity::parse(&format!("human:{login}")) else {
        return Ok(Done::no("this login cannot take part in a cell"));
    };
    let mut named = cell.cloned();
    if named.is_none() {
        let invited: Vec<CellId> = mission
            .live_cells()?
            .into_iter()
            .filter(|c| c.participant(&identity).is_some_and(|p| matches!(p.state, ParticipantState::Invited { .. })))
            .map(|c| c.id)
            .collect();
        if let [one] = invited.as_slice() {
            named = Some(one.clone());
        }
    }
    let input = CellInput::Accept { identity: identity.clone(), forge_id: Some(*id) };
    mission.on_cell(named.as_ref(), &input, &asked.actor, |mission, id| {
        let role = mission.cell(id)?.and_then(|c| c.participant(&identity).map(|p| p.role));
        let role = role.map_or("participant", Role::word);
        Ok(Done::ok(format!("`{identity}` takes part in `{id}` as {role}.")))
    })
}
