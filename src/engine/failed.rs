//! What is answered where something could not be done: no command ends without a
//! word and an entry in the ledger (contract §6), whatever stood in its way.

use super::commands::verb_of;
use super::context::Context;
use super::desk::{Desk, mission_id};
use super::handle::needs_mission;
use super::input::{AuthorityRequest, Effect, PublishedWork};
use crate::cell::{Actor, At, CellId, Effect as CellEffect, Input as CellInput};
use crate::mission::{Line, duration_words};
use crate::publication::{Answer, Publication, Warning};
use crate::store::{NewEntry, Result, Tx};
use serde_json::json;

/// The lane of the comment that says that an effect takes long. What still waits
/// there is taken back when the effect ends.
pub(super) fn notice_lane(effect: &str) -> String {
    format!("waits:{effect}")
}

/// An effect was given up: it goes on record, and whoever waits for it is told.
#[allow(clippy::too_many_arguments, reason = "the parts of one failure")]
pub(super) fn failed(
    tx: &Tx<'_>,
    context: &Context,
    now: At,
    key: &str,
    kind: &str,
    mission: &str,
    cell: Option<&CellId>,
    why: &str,
    effect: Option<Effect>,
) -> Result<()> {
    tx.append(&NewEntry {
        at: now.0,
        mission: mission.to_owned(),
        cell: cell.map(ToString::to_string).unwrap_or_default(),
        actor: serde_json::to_string(&Actor::System).unwrap_or_default(),
        action: "effect_failed".to_owned(),
        data: json!({"kind": kind, "why": why}).to_string(),
    })?;
    if let Some(Effect::Authorize { request }) = &effect {
        return refuse_all(tx, context, now, key, request, why);
    }
    let Some(mut desk) = Desk::open(tx, context, now, key, mission)? else { return Ok(()) };
    match (effect, cell) {
        (Some(Effect::Look { .. }), _) => {
            desk.refuse(
                format!("The forge could not be asked about this issue: {why}. An edit, or a new comment, makes Lazarus ask again."),
                None,
            )?;
        }
        (Some(Effect::Confirm { request, .. }), _) => {
            desk.refuse(
                format!("It could not be found out whether `{}` confirmed a command: {why}. Give it again in a new comment.", request.person.login),
                None,
            )?;
        }
        (Some(Effect::Push { .. }), Some(id)) => {
            if let Some(found) = desk.cell(id)? {
                let published = PublishedWork { refused: Some(why.to_owned()), ..PublishedWork::default() };
                desk.work_published(&found, &published)?;
            }
        }
        (Some(Effect::PublishFile { what, by, .. }), Some(id)) => {
            desk.record(&by, cell, "file_published", &json!({"what": what, "left": null, "refused": why}))?;
            desk.refuse(format!("Nothing of `{id}` was published: {why}"), cell)?;
        }
        (Some(Effect::Cell { order }), Some(id)) => cell_order_failed(&mut desk, id, order, why)?,
        // Where reactions are switched off, say: the answer is given in words.
        (Some(Effect::React { alone: true, content, .. }), _) => {
            let done = content == "+1";
            let text = if done { "Done." } else { "Not done." };
            let answer = Answer { items: vec![(done, text.to_owned())], ..Answer::default() };
            let publication = if done { Publication::Answer(answer) } else { Publication::Refusal(answer) };
            desk.publish(&publication, None)?;
        }
        // The words themselves were refused, perhaps for their size: then at least
        // that there were some. A warning is not replaced by another.
        (Some(Effect::Comment { kind, .. }), _) if kind != "warning" => {
            let text = format!(
                "A comment of Lazarus (of the kind {kind}) could not be posted here: {why}. `lazarus ledger show` has what it was about."
            );
            desk.warn(text, None)?;
        }
        // Kinds that can no longer be read.
        (None, _) if super::attempt::owes_an_answer(kind) => {
            desk.refuse(format!("Something that was asked for here was not done: {why}. Ask for it again."), cell)?;
        }
        _ => {}
    }
    desk.close()
}

/// A cell's order was given up. (Starts tell the cell themselves.)
fn cell_order_failed(desk: &mut Desk<'_>, id: &CellId, order: CellEffect, why: &str) -> Result<()> {
    let what = match order {
        CellEffect::Checkpoint { .. } => {
            let failed = CellInput::CheckpointFailed { reason: why.to_owned() };
            let _ = desk.apply(id, &failed, &Actor::System)?;
            desk.show()?;
            "No checkpoint was taken"
        }
        CellEffect::StartAgents { .. } => "Its agents could not be started",
        CellEffect::Tell { .. } => "Its agents were not told",
        CellEffect::StopAgent { .. } => "An agent of it was not ended",
        CellEffect::Freeze => "It could not be frozen, so it goes on",
        CellEffect::Thaw => "It could not be thawed",
        _ => return Ok(()),
    };
    desk.refuse(format!("Cell `{id}`: {what}: {why}. Give the command again, or `/close` the cell."), Some(id))
}

/// Every command of a comment is answered: it was not done, and why.
fn refuse_all(tx: &Tx<'_>, context: &Context, now: At, key: &str, request: &AuthorityRequest, why: &str) -> Result<()> {
    // Nobody waits for an answer to what was no command.
    let known = tx.mission(&mission_id(request.repo.id, request.issue.number))?;
    if request.lines.is_empty() || (known.is_none() && request.lines.iter().all(needs_mission)) {
        return Ok(());
    }
    // The other way in which the comment was heard of may have ended first.
    if !tx.act_on(request.repo.id, request.comment, now.0)? {
        return Ok(());
    }
    let (mut desk, _) = Desk::for_issue(tx, context, now, key, &request.repo, &request.issue)?;
    let actor = Actor::Person { id: request.person.id, login: request.person.login.clone() };
    let mut items = vec![];
    for line in &request.lines {
        match line {
            Line::Refused { why, .. } => items.push((false, why.clone())),
            Line::Command { command, .. } => {
                let verb = verb_of(command);
                desk.record(&actor, None, "refused", &json!({"command": verb, "why": why}))?;
                items.push((false, format!("`/{verb}` was not carried out.")));
            }
        }
    }
    items.push((false, format!("Lazarus asked the forge who may do this, and could not find out: {why}. Give the command again in a new comment.")));
    desk.answer(request.comment, false, true, &Answer { items, ..Answer::default() })?;
    desk.close()
}

/// An effect that people wait for takes long: they are told, once.
#[allow(clippy::too_many_arguments, reason = "the parts of one input")]
pub(super) fn waits(
    tx: &Tx<'_>,
    context: &Context,
    now: At,
    key: &str,
    effect: &str,
    kind: &str,
    cell: &CellId,
    why: &str,
) -> Result<()> {
    let Some(mut desk) = Desk::of_cell(tx, context, now, key, cell)? else { return Ok(()) };
    // It ended meanwhile.
    if tx.trouble(effect)?.failing_since.is_none() || !tx.is_open_effect(effect)? {
        return Ok(());
    }
    let patience = duration_words(super::attempt::milliseconds(context.config.forge.patience));
    desk.record(&Actor::System, Some(cell), "waits", &json!({"kind": kind, "why": why}))?;
    if kind == "push" {
        desk.work_waits(cell, why, &patience)?;
    } else {
        let text = format!(
            "Cell `{cell}` is waiting for the forge: {why}. Lazarus tries again for up to {patience}, then says so; `/close` ends the waiting."
        );
        let notice = Publication::Warning(Warning { text, change: None });
        desk.publish_on(&notice_lane(effect), &notice, Some(cell))?;
    }
    desk.close()
}

impl Desk<'_> {
    /// Says that something that was asked for was not done.
    fn refuse(&mut self, text: String, cell: Option<&CellId>) -> Result<()> {
        let answer = Answer { items: vec![(false, text)], ..Answer::default() };
        self.publish(&Publication::Refusal(answer), cell)
    }
}
