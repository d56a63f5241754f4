//! `/reject [N] [REASON]`: a request is taken from before the directors.

use super::{Asked, Done};
use crate::cell::{Input as CellInput, Outcome as End};
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::Verdict;
use crate::store::Result;

/// Rejects a request.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, number: Option<u32>, reason: Option<&str>) -> Result<Done> {
    let record = match mission.known().open_record(number) {
        Ok(record) => record.clone(),
        Err(Verdict::Several { open }) => {
            return Ok(Done::no(format!("several requests are open; name one: {}", mission.list_open(&open))));
        }
        Err(Verdict::NotOpen { number, .. }) => return Ok(Done::no(format!("request {number} is not open"))),
        Err(_) => return Ok(Done::no("there is nothing to reject here")),
    };
    let reason = reason.unwrap_or("no reason was given").to_owned();
    let drop = CellInput::Drop { outcome: End::Rejected, reason: reason.clone() };
    match mission.apply(&record.cell, &drop, &asked.actor)? {
        Ok(_) => {
            mission.known_mut().take_record(record.number);
            mission.show_record(&record, &format!("Rejected by {}: {reason}.", asked.login()), false)?;
            Ok(Done::ok(format!("Request {} (cell `{}`) is rejected.", record.number, record.cell)).on(&record.cell))
        }
        Err(refusal) => Ok(Done::no(refusal.to_string())),
    }
}
