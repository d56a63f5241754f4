//! What each input leads to; what happens to an issue, and commands, have pages of
//! their own.

use super::commands::{Asked, logins_in, operated};
use super::context::Context;
use super::desk::{Desk, Release, mission_id};
use super::input::{AuthorityRequest, Effect, Input};
use crate::cell::{Actor, At, Input as CellInput};
use crate::gitea::event::{CommentAction, CommentSnapshot, ForgeEvent, IssueAction, IssueSnapshot, Person, RepoRef};
use crate::mission::{Command, Level, Line, is_proposal, parse_comment};
use crate::publication::{Answer, Publication};
use crate::store::{Result, Tx};
use serde_json::json;
use std::collections::BTreeMap;

/// Handles one input inside the writer's transaction.
pub fn handle(tx: &Tx<'_>, context: &Context, now: At, key: &str, input: Input) -> Result<()> {
    match input {
        Input::Forge { happened } => forge(tx, context, now, key, happened),
        Input::Authorized { request, level, accounts, lost } => {
            let (mut desk, _) = Desk::for_issue(tx, context, now, key, &request.repo, &request.issue)?;
            if let Some(ballot) = desk.mission.ballot.as_mut() {
                ballot.votes.retain(|v| !lost.contains(&v.id));
            }
            let asked = Asked::of_comment(&request, level, accounts);
            desk.run_commands(&asked, &request.lines)?;
            desk.close()
        }
        Input::CouncilKnown { mission, cell, members, unknown } => {
            let Some(mut desk) = Desk::open(tx, context, now, key, &mission)? else { return Ok(()) };
            if let Some(ballot) = desk.mission.ballot.as_mut().filter(|b| b.cell == cell) {
                ballot.members = Some(members);
                if !unknown.is_empty() {
                    let names: Vec<String> = unknown.iter().map(|n| format!("`{n}`")).collect();
                    desk.warn(format!("The council names {}, whom the forge does not know.", names.join(", ")), None)?;
                }
            }
            desk.close()
        }
        Input::ProjectSeen { mission, missing } => {
            let Some(mut desk) = Desk::open(tx, context, now, key, &mission)? else { return Ok(()) };
            desk.warn(
                format!("Not all of this project comes into a cell. It has {}.", missing.join("; it has ")),
                None,
            )?;
            desk.close()
        }
        Input::Labelled { repo, issue, events } => {
            let (mut desk, _) = Desk::for_issue(tx, context, now, key, &repo, &issue)?;
            desk.observe(&issue, IssueAction::Seen)?;
            desk.approve_by_label(&events)?;
            desk.close()
        }
        Input::Started { cell, runs, running, commit, branch, planted } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            let mut facts = desk.facts(&cell)?;
            facts.running = Some(running);
            facts.commit = Some(commit);
            facts.branch = Some(branch);
            desk.put_facts(&cell, &facts)?;
            let started = desk.apply(&cell, &CellInput::Started { runs }, &Actor::System)?;
            if started.is_ok_and(|events| !events.is_empty())
                && let Some(now) = desk.cell(&cell)?
            {
                let log = desk.spawn_log(&now, &facts, planted)?;
                desk.publish(&Publication::SpawnLog(log), Some(&cell))?;
            }
            desk.show()?;
            desk.close()
        }
        Input::StartFailed { cell, reason, found } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            if let Some(found) = found {
                desk.observe(&found.1, IssueAction::Seen)?;
            }
            let _ = desk.apply(&cell, &CellInput::StartFailed { reason }, &Actor::System)?;
            desk.show()?;
            desk.close()
        }
        Input::AgentEnded { cell, run, exit } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            let events = desk.apply(&cell, &CellInput::AgentEnded { run, exit }, &Actor::System)?.unwrap_or_default();
            if !events.is_empty() {
                desk.show()?;
            }
            desk.close()
        }
        Input::Stopped { cell, harvest, usage } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            let mut facts = desk.facts(&cell)?;
            facts.harvest = Some(harvest.clone());
            facts.published = None;
            facts.held_shown = None;
            facts.usage = usage.clone();
            desk.put_facts(&cell, &facts)?;
            desk.record(
                &Actor::System,
                Some(&cell),
                "harvested",
                &json!({
                    "commits": harvest.commit_count, "files": harvest.file_count, "uncommitted": harvest.uncommitted,
                    "unknown": harvest.unknown, "tip": harvest.tip, "branches": harvest.branches,
                    "read_by": harvest.read_by,
                    "limits_met": usage.met, "egress": usage.egress,
                }),
            )?;
            desk.record_held(&cell, &harvest.held)?;
            let _ = desk.apply(&cell, &CellInput::Ended, &Actor::System)?;
            desk.show()?;
            desk.close()
        }
        Input::Snapshot { cell, harvest } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            let outcome = match (&harvest.snapshot, &harvest.unknown) {
                (Some(hash), None) => CellInput::CheckpointTaken { hash: hash.clone() },
                (_, why) => CellInput::CheckpointFailed {
                    reason: why.clone().unwrap_or_else(|| "no snapshot was handed out".to_owned()),
                },
            };
            let applied = desk.apply(&cell, &outcome, &Actor::System)?;
            if applied.is_ok_and(|events| !events.is_empty()) {
                let items = match &outcome {
                    CellInput::CheckpointTaken { hash } => (true, format!("Checkpoint of `{cell}`: `{hash}`.")),
                    _ => (false, format!("No checkpoint of `{cell}`: {}", harvest.unknown.clone().unwrap_or_default())),
                };
                let answer = Answer { items: vec![items], ..Answer::default() };
                desk.publish(&Publication::Answer(answer), Some(&cell))?;
                let mut facts = desk.facts(&cell)?;
                if harvest.snapshot.is_some() {
                    facts.checkpoint.clone_from(&harvest.snapshot);
                    desk.put_facts(&cell, &facts)?;
                }
                let row = desk.cell(&cell)?.filter(|_| harvest.snapshot.is_some());
                if let Some(row) = row.filter(|_| context.config.harvest.at_checkpoint) {
                    desk.record_held(&cell, &harvest.held)?;
                    facts.harvest = Some(harvest);
                    facts.published = None;
                    facts.held_shown = None;
                    desk.put_facts(&cell, &facts)?;
                    if !desk.publish_work(&row, &facts, &Release::default())? {
                        desk.say_what_is_held(&row)?;
                    }
                }
            }
            desk.show()?;
            desk.close()
        }
        Input::Pushed { cell, published } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            if let Some(row) = desk.cell(&cell)? {
                desk.work_published(&row, &published)?;
            }
            desk.close()
        }
        Input::FilePublished { cell, what, by, left, refused } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            desk.record(&by, Some(&cell), "file_published", &json!({"what": what, "left": left, "refused": refused}))?;
            if let Some(why) = refused {
                let items = vec![(false, format!("Nothing of `{cell}` was published: {why}"))];
                desk.publish(&Publication::Refusal(Answer { items, ..Answer::default() }), Some(&cell))?;
            }
            desk.close()
        }
        Input::Scrubbed { cell } => {
            let Some(desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            desk.record(&Actor::System, Some(&cell), "scrubbed", &json!({}))?;
            if let Some(row) = desk.cell(&cell)? {
                let mut facts = desk.facts(&cell)?;
                desk.settle_waiting(&row, &mut facts, true)?;
                desk.put_facts(&cell, &facts)?;
            }
            desk.close()
        }
        Input::Deadline { cell, kind } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            let _ = desk.apply(&cell, &CellInput::Deadline { kind }, &Actor::System)?;
            desk.show()?;
            desk.close()
        }
        Input::Operated { operation, by, command, issue, cell, accounts } => {
            operated(tx, context, now, key, &operation, by, command, issue, cell, accounts)
        }
        Input::Failed { kind, mission, cell, why } => {
            let cell = cell.as_ref();
            tx.append(&crate::store::NewEntry {
                at: now.0,
                mission,
                cell: cell.map(ToString::to_string).unwrap_or_default(),
                actor: serde_json::to_string(&Actor::System).unwrap_or_default(),
                action: "effect_failed".to_owned(),
                data: json!({"kind": kind, "why": why}).to_string(),
            })?;
            Ok(())
        }
        Input::Nothing => Ok(()),
    }
}

fn forge(tx: &Tx<'_>, context: &Context, now: At, key: &str, event: ForgeEvent) -> Result<()> {
    match event {
        ForgeEvent::Issue { repo, action, issue, sender, previous_title: _, previous_body: _ } => {
            if issue.is_pull {
                return Ok(());
            }
            let known = tx.mission(&mission_id(repo.id, issue.number))?;
            // Most issues are none of our business: they are not even recorded.
            let ours = known.is_some()
                || is_proposal(&issue.title, &issue.body)
                || approval_label(context, &repo).is_some_and(|l| issue.labels.iter().any(|x| x.id == l));
            if !ours || (known.is_none() && action == IssueAction::Deleted) {
                return Ok(());
            }
            let (mut desk, new) = Desk::for_issue(tx, context, now, key, &repo, &issue)?;
            if new {
                desk.take_on(&issue, action)?;
            } else if action == IssueAction::Deleted {
                desk.deleted(&sender)?;
            } else {
                desk.observe(&issue, action)?;
            }
            if matches!(action, IssueAction::LabelsChanged | IssueAction::Seen) && desk.mission.ballot.is_some() {
                let has_label = approval_label(context, &repo).is_some_and(|l| issue.labels.iter().any(|x| x.id == l));
                if has_label || action == IssueAction::LabelsChanged {
                    desk.read_timeline()?;
                }
            }
            desk.close()
        }
        ForgeEvent::Comment { repo, action, issue, comment, sender, sender_can_push } => {
            let by_bot = |p: &Person| context.bot().is_some_and(|b| b.id == p.id);
            if by_bot(&comment.author) || (issue.is_pull && !context.config.policy.pull_request_commands) {
                return Ok(());
            }
            match action {
                CommentAction::Created => {
                    commented(tx, context, now, key, &repo, &issue, &comment, &sender, sender_can_push)
                }
                CommentAction::Edited if sender.id != comment.author.id && !by_bot(&sender) => {
                    // A command put into somebody else's mouth: never executed,
                    // and worth knowing.
                    if parse_comment(&comment.body).lines.is_empty() {
                        return Ok(());
                    }
                    let id = mission_id(repo.id, issue.number);
                    tx.append(&crate::store::NewEntry {
                        at: now.0,
                        mission: id,
                        cell: String::new(),
                        actor: serde_json::to_string(&Actor::Person { id: sender.id, login: sender.login.clone() })
                            .unwrap_or_default(),
                        action: "security_command_in_edited_comment".to_owned(),
                        data: json!({"comment": comment.id, "author": comment.author.login}).to_string(),
                    })?;
                    Ok(())
                }
                CommentAction::Edited | CommentAction::Deleted => Ok(()),
            }
        }
        ForgeEvent::Other { .. } => Ok(()),
    }
}

pub(super) fn approval_label(context: &Context, repo: &RepoRef) -> Option<i64> {
    context.repo(repo.id).and_then(|r| r.approved_label)
}

#[allow(clippy::too_many_arguments, reason = "the parts of one event")]
fn commented(
    tx: &Tx<'_>,
    context: &Context,
    now: At,
    key: &str,
    repo: &RepoRef,
    issue: &IssueSnapshot,
    comment: &CommentSnapshot,
    sender: &Person,
    stated_write: Option<bool>,
) -> Result<()> {
    // An account that is gone, or one that comments as another: no rights.
    if comment.author.id <= 0 || comment.author.id != sender.id {
        return Ok(());
    }
    let parsed = parse_comment(&comment.body);
    if parsed.lines.is_empty() || tx.knows(&format!("comment:{}:{}:deleted", repo.id, comment.id))? {
        return Ok(());
    }
    let (mut desk, new) = Desk::for_issue(tx, context, now, key, repo, issue)?;
    if new {
        // A poll shows the issue as it is, a delivery as it was when this was said.
        desk.take_on(issue, if stated_write.is_none() { IssueAction::Seen } else { IssueAction::Other })?;
    } else {
        desk.observe(issue, IssueAction::Other)?;
    }
    if stated_write.is_none() {
        desk.mission.doubt_text_before(comment.created_at.as_second());
    }
    let limit = i64::from(context.config.policy.commands_per_minute);
    let count = parsed.lines.len() as i64;
    let in_minute = tx.pace(comment.author.id, now.0, count)?;
    if in_minute > limit {
        // Said once a minute, then silence: answering each would be the flood.
        if in_minute - count <= limit {
            let text = format!(
                "`{}` gave more than {limit} commands in a minute; the rest of this minute is not read.",
                comment.author.login
            );
            let answer = Answer { items: vec![(false, text)], ..Answer::default() };
            desk.answer(comment.id, false, true, &answer)?;
        }
        return desk.close();
    }
    let react = Effect::React { repo: repo.clone(), comment: comment.id, content: "eyes".to_owned() };
    desk.queue(format!("react:{}", comment.id), &react, None, 0)?;
    let request = AuthorityRequest {
        repo: repo.clone(),
        issue: issue.clone(),
        comment: comment.id,
        person: comment.author.clone(),
        written_at: comment.created_at.as_millisecond(),
        logins: logins_in(&parsed.lines),
        voters: desk
            .mission
            .ballot
            .iter()
            .flat_map(|b| b.votes.iter().filter(|v| v.id > 0).map(|v| (v.id, v.login.clone())))
            .collect(),
        lines: parsed.lines,
        stated_write,
    };
    let everybody_may = request.lines.iter().all(|line| {
        matches!(
            line,
            Line::Refused { .. } | Line::Command { command: Command::Status { .. } | Command::Help { .. }, .. }
        )
    });
    if everybody_may {
        let asked = Asked::of_comment(&request, Level::Read, BTreeMap::new());
        desk.run_commands(&asked, &request.lines)?;
    } else {
        let lane = format!("authority:{}", desk.id);
        desk.queue(lane, &Effect::Authorize { request: Box::new(request) }, None, 0)?;
    }
    desk.close()
}
