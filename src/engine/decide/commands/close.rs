//! `/close [OUTCOME] [REASON]`: a cell ends, and what it made leaves it.

use super::{Asked, Done};
use crate::cell::{self, CellId, Input as CellInput, Outcome as End};
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::publishing::Until;
use crate::store::Result;

/// Closes a cell.
pub fn run(
    mission: &mut MissionTx<'_>,
    asked: &Asked,
    outcome: Option<End>,
    reason: Option<&String>,
    cell: Option<&CellId>,
) -> Result<Done> {
    let id = match mission.which(cell)? {
        Ok(id) => id,
        Err(why) => return Ok(Done::no(why)),
    };
    // A request is not a live cell: it is decided, not closed.
    if let Some(record) = mission.known().records.iter().find(|r| r.cell == id) {
        let number = record.number;
        let why = format!("request {number} is not approved yet; use `/reject {number}`");
        return Ok(Done::no(why).on(&id));
    }
    let input = how_it_ended(mission, &id, outcome, reason.cloned())?;
    Ok(match mission.apply(&id, &input, &asked.actor)? {
        Ok(_) => Done::ok("").on(&id).until(Until::Closed),
        Err(refusal) => Done::no(refusal.to_string()).on(&id),
    })
}

/// How a cell is closed. Where the director did not say how it ended, it did not end
/// well if an agent ended badly; and where all have ended, the work decides, once it
/// is read (contract §10).
fn how_it_ended(mission: &MissionTx<'_>, id: &CellId, said: Option<End>, reason: Option<String>) -> Result<CellInput> {
    let Some(cell) = mission.cell(id)? else {
        return Ok(CellInput::Close { outcome: said.unwrap_or(End::Completed), reason });
    };
    let mut facts = mission.facts(id)?;
    let (mut bad, mut all_ended) = (vec![], true);
    for worker in cell.workers() {
        match &worker.run {
            cell::RunState::Ended { exit, .. } if !exit.success => {
                bad.push(format!("agent {} ended badly: {exit}", worker.identity.name()));
            }
            cell::RunState::Ended { .. } => {}
            _ => all_ended = false,
        }
    }
    let open = said.is_none() && bad.is_empty() && all_ended && cell.state.is_live();
    if facts.outcome_open != open && cell.state.is_live() {
        facts.outcome_open = open;
        mission.put_facts(id, &facts)?;
    }
    Ok(match said {
        Some(outcome) => CellInput::Close { outcome, reason },
        None if bad.is_empty() => CellInput::Close { outcome: End::Completed, reason },
        None => CellInput::Close { outcome: End::Failed, reason: reason.or_else(|| Some(bad.join("; "))) },
    })
}
