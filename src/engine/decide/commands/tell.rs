//! `/tell AGENT TEXT`: an agent is given more to do.

use super::{Asked, Done};
use crate::cell::Input as CellInput;
use crate::engine::decide::mission_tx::MissionTx;
use crate::store::Result;

/// Gives an agent of the mission's cell a text.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, agent: &str, text: &str) -> Result<Done> {
    let input = CellInput::Work { agent: Some(agent.to_owned()), text: text.to_owned() };
    mission.on_cell(None, &input, &asked.actor, |_, _| Ok(Done::ok("")))
}
