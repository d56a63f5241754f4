//! `/decide TEXT`: a decision is put on record, where the agents can read it.

use super::{Asked, Done};
use crate::engine::decide::mission_tx::MissionTx;
use crate::engine::effect::Effect;
use crate::engine::lane::Lane;
use crate::store::Result;
use serde_json::json;

/// Puts a decision on record.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, text: &str) -> Result<Done> {
    let id = match mission.which(None)? {
        Ok(id) => id,
        Err(why) => return Ok(Done::no(why)),
    };
    let head = mission.record(&asked.actor, Some(&id), "decided", &json!({"text": text}))?;
    let line = json!({"id": head.seq, "at": mission.now().0, "by": asked.login(), "decision": text}).to_string();
    let effect = Effect::Record { file: "decisions.jsonl".to_owned(), line };
    mission.queue(Lane::Cell(&id), &effect, Some(&id))?;
    Ok(Done::ok(format!("Decision {} is on record.", head.seq)).on(&id))
}
