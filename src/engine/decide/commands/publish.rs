//! `/publish WHAT [CELL]`: something leaves a cell that does not leave by itself.

use super::{Asked, Done};
use crate::cell::{Actor, CellId, State};
use crate::engine::decide::mission_tx::MissionTx;
use crate::engine::effect::Effect;
use crate::engine::facts::Facts;
use crate::engine::lane::Lane;
use crate::mission::Publishable;
use crate::mission::held::Held;
use crate::mission::publishing::{Again, Until};
use crate::store::Result;
use serde_json::json;

/// Publishes a cell's work, or a file of it.
pub fn run(mission: &mut MissionTx<'_>, asked: &Asked, what: &Publishable, cell: Option<&CellId>) -> Result<Done> {
    match what {
        Publishable::Work => publish_again(mission, asked, cell),
        _ => publish_file(mission, what, cell, &asked.actor),
    }
}

/// Lets something optional out of a cell that is still on disk.
fn publish_file(
    mission: &mut MissionTx<'_>,
    what: &Publishable,
    named: Option<&CellId>,
    actor: &Actor,
) -> Result<Done> {
    let mut cells: Vec<CellId> = vec![];
    for row in mission.cells()? {
        let there = row.cell.started_at.is_some() && !matches!(row.cell.state, State::Archived | State::Destroyed);
        if there && named.is_none_or(|id| *id == row.cell.id) {
            cells.push(row.cell.id);
        }
    }
    let id = match Done::the_one(&cells, "there is no such cell of this mission whose files are still there") {
        Ok(id) => id,
        Err(done) => return Ok(done),
    };
    mission.record(actor, Some(&id), "publish_asked", &json!({"what": what}))?;
    let effect = Effect::PublishFile {
        repo: mission.repo().clone(),
        number: mission.known().number,
        what: what.clone(),
        by: actor.clone(),
    };
    mission.queue(Lane::Cell(&id), &effect, Some(&id))?;
    Ok(Done::ok("").on(&id).until(Until::FileLeft))
}

/// Tries to publish a cell's work again, where the forge refused it, or it was
/// held.
fn publish_again(mission: &mut MissionTx<'_>, asked: &Asked, named: Option<&CellId>) -> Result<Done> {
    let mut cells = vec![];
    for row in mission.cells()? {
        let mut facts = Facts::of(&row)?;
        let (work, publishing) = facts.work_and_publishing();
        let wanted = named.is_none_or(|id| *id == row.cell.id);
        if wanted && publishing.can_be_tried_again(work) && row.cell.state != State::Destroyed {
            cells.push((row.cell, facts));
        }
    }
    let ids: Vec<CellId> = cells.iter().map(|(cell, _)| cell.id.clone()).collect();
    let none = "there is no closed cell here whose work the forge refused, or that is held";
    let id = match Done::the_one(&ids, none) {
        Ok(id) => id,
        Err(done) => return Ok(done),
    };
    let Some((cell, mut facts)) = cells.pop() else { return Ok(Done::no(none)) };
    // What is released is just what was shown before the command was given.
    let shown = facts.publishing.held_shown().map(|effect| mission.tx().comment_of_effect(effect)).transpose()?;
    let shown = shown.flatten().is_some_and(|shown| asked.comment.is_none_or(|comment| comment > shown));
    let (work, publishing) = facts.work_and_publishing();
    let push = match publishing.try_again(work, shown) {
        Again::Push(push) => push,
        Again::NotShown => {
            return Ok(Done::no(format!(
                "what is held of `{id}` is other than what was shown when this command was given; look at it and give the command again"
            ))
            .on(&id));
        }
        Again::Nothing => {
            let words: Vec<String> = facts.held().map(Held::words).collect();
            return Ok(Done::no(format!(
                "nothing of `{id}` can be released: {}. A known secret never leaves; `lazarus work {id} DIR` gives the work to an operator",
                words.join("; ")
            ))
            .on(&id));
        }
    };
    let released: Vec<&Held> = facts.held().filter(|held| push.released.contains(&held.commit)).collect();
    let mut says = String::new();
    if !released.is_empty() {
        mission.record(&asked.actor, Some(&id), "work_released", &json!({"released": released}))?;
        let words: Vec<String> = released.into_iter().map(Held::words).collect();
        says = format!("Released by `{}`: {}.", asked.login(), words.join("; "));
    }
    mission.push_work(&cell, &facts, push)?;
    mission.put_facts(&id, &facts)?;
    Ok(Done::ok(says).on(&id).until(Until::Published))
}
