//! `/reject [N] [REASON]`: a request is taken from before the directors.

use super::{Asked, Done};
use crate::cell::{Input as CellInput, Outcome as End};
use crate::engine::decide::mission_tx::MissionTx;
use crate::mission::Verdict;
use crate::publication::sentences::requests as say;
use crate::store::Result;

/// Rejects a request.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, number: Option<u32>, reason: Option<&str>) -> Result<Done> {
    let record = match mission.known().open_record(number) {
        Ok(record) => record.clone(),
        Err(Verdict::Several { open }) => {
            return Ok(Done::no(say::several_to_reject(&mission.list_open(&open))));
        }
        Err(Verdict::NotOpen { number, .. }) => return Ok(Done::no(say::not_open(number))),
        Err(_) => return Ok(Done::no(say::nothing_to_reject())),
    };
    let reason = reason.map_or_else(say::no_reason, str::to_owned);
    let drop = CellInput::Drop { outcome: End::Rejected, reason: reason.clone() };
    match mission.apply(&record.cell, &drop, &asked.actor)? {
        Ok(_) => {
            mission.known_mut().take_record(record.number);
            mission.show_record(&record, &say::rejected_by(asked.login(), &reason), false)?;
            Ok(Done::ok(say::rejected(record.number, &record.cell)).on(&record.cell))
        }
        Err(refusal) => Ok(Done::no(refusal.to_string())),
    }
}
