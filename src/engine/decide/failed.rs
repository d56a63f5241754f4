//! What is answered where something could not be done: no command ends without a
//! word and an entry in the ledger (contract §6), whatever stood in its way.

use super::mission_tx::{MissionTx, stored_id};
use super::{Decision, requests};
use crate::cell::{Actor, CellId, Effect as CellEffect, Input as CellInput};
use crate::engine::clock::milliseconds;
use crate::engine::effect::{Effect, EffectKind};
use crate::engine::lane::Lane;
use crate::mission::duration_words;
use crate::mission::publishing::PublishedWork;
use crate::publication::sentences::{cells, commands, issues};
use crate::publication::{Answer, Publication, Warning};
use crate::store::Result;
use serde_json::json;

/// An effect that was given up.
pub struct Failed {
    /// The word of its kind.
    pub kind: String,
    /// Its mission.
    pub mission: String,
    /// Its cell, where there is one.
    pub cell: Option<CellId>,
    /// Why it was given up.
    pub why: String,
    /// The effect, where it could be read.
    pub effect: Option<Effect>,
}

impl Failed {
    /// It goes on record, and whoever waits for it is told.
    pub fn decide(self, decision: &Decision<'_>) -> Result<()> {
        let data = json!({"kind": self.kind, "why": self.why});
        decision.record(&self.mission, &Actor::System, self.cell.as_ref(), "effect_failed", &data)?;
        match &self.effect {
            Some(Effect::Authorize { request }) => requests::could_not_be_authorized(decision, request, &self.why),
            _ => {
                let id = stored_id(&self.mission)?;
                decision.on_mission(&id, |mission| self.tell(mission)).map(drop)
            }
        }
    }

    fn tell(self, mission: &mut MissionTx<'_>) -> Result<()> {
        let Self { kind, cell, why, effect, .. } = self;
        let cell = cell.as_ref();
        match (effect, cell) {
            (Some(Effect::Look { .. }), _) => {
                mission.refuse(issues::issue_unknown(&why), None)?;
            }
            (Some(Effect::Confirm { request, .. }), _) => {
                mission.refuse(issues::confirmation_unknown(&request.person.login, &why), None)?;
            }
            (Some(Effect::Push { .. }), Some(id)) => {
                if let Some(found) = mission.cell(id)? {
                    let published = PublishedWork { refused: Some(why), ..PublishedWork::default() };
                    mission.work_published(&found, &published)?;
                }
            }
            (Some(Effect::PublishFile { what, by, .. }), Some(id)) => {
                mission.record(&by, cell, "file_published", &json!({"what": what, "left": null, "refused": why}))?;
                mission.refuse(cells::nothing_published(id, &why), cell)?;
            }
            (Some(Effect::Cell { order }), Some(id)) => cell_order_failed(mission, id, order, &why)?,
            // Where reactions are switched off, say: the answer is given in words.
            (Some(Effect::React { alone: true, content, .. }), _) => {
                let done = content == "+1";
                let text = if done { commands::done() } else { commands::not_done() };
                let answer = Answer::one(done, text);
                mission.publish(&Publication::answering(answer, done), None)?;
            }
            // The words themselves were refused, perhaps for their size: then at least
            // that there were some. A warning is not replaced by another.
            (Some(Effect::Comment { kind, .. }), _) if kind != "warning" => {
                mission.warn(issues::comment_not_posted(&kind, &why), None)?;
            }
            // Kinds that can no longer be read.
            (None, _) if EffectKind::of(&kind).owes_an_answer() => {
                mission.refuse(issues::something_not_done(&why), cell)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A cell's order was given up. (Starts tell the cell themselves.)
fn cell_order_failed(mission: &mut MissionTx<'_>, id: &CellId, order: CellEffect, why: &str) -> Result<()> {
    let what = match order {
        CellEffect::Checkpoint { .. } => {
            let failed = CellInput::CheckpointFailed { reason: why.to_owned() };
            let _ = mission.apply(id, &failed, &Actor::System)?;
            mission.show()?;
            cells::no_checkpoint_taken()
        }
        CellEffect::StartAgents { .. } => cells::agents_not_started(),
        CellEffect::Tell { .. } => cells::agents_not_told(),
        CellEffect::StopAgent { .. } => cells::agent_not_ended(),
        CellEffect::Freeze => cells::not_frozen(),
        CellEffect::Thaw => cells::not_thawed(),
        _ => return Ok(()),
    };
    mission.refuse(cells::order_failed(id, &what, why), Some(id))
}

/// An effect that people wait for takes long: they are told, once.
pub fn waits(decision: &Decision<'_>, effect: &str, kind: &str, cell: &CellId, why: &str) -> Result<()> {
    // It may have ended meanwhile.
    let tx = decision.tx();
    if tx.trouble(effect)?.failing_since.is_none() || !tx.is_open_effect(effect)? {
        return Ok(());
    }
    let waits = decision.on_cell(cell, |mission| {
        let patience = duration_words(milliseconds(mission.context().config.forge.patience));
        mission.record(&Actor::System, Some(cell), "waits", &json!({"kind": kind, "why": why}))?;
        if EffectKind::of(kind) == EffectKind::Push {
            return mission.work_waits(cell, why, &patience);
        }
        let text = cells::waits_for_forge(cell, why, &patience);
        let notice = Publication::Warning(Warning { text, change: None });
        mission.publish_on(Lane::Waits(effect), &notice, Some(cell)).map(drop)
    });
    waits.map(drop)
}
