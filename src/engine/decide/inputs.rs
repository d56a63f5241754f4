//! What each input leads to.

use super::Decision;
use super::mission_tx::{MissionTx, stored_id};
use super::{comments, failed, operators, requests};
use crate::backend::Usage;
use crate::cell::{Actor, CellId, Input as CellInput};
use crate::engine::input::{Input, Look};
use crate::gitea::event::{ForgeEvent, RepoRef};
use crate::mission::publishing::Until;
use crate::mission::{MissionId, is_proposal};
use crate::publication::sentences::{cells, issues, operators as to_operators};
use crate::publication::{Answer, Publication};
use crate::repository::Harvest;
use crate::store::Result;
use serde_json::json;

/// Decides one input.
pub fn decide(decision: &Decision<'_>, input: Input) -> Result<()> {
    match input {
        Input::Forge { happened: ForgeEvent::Issue { repo, action, issue, previous_title, previous_body, .. } } => {
            comments::issue_changed(decision, &repo, action, &issue, (previous_title, previous_body))
        }
        Input::Forge { happened: ForgeEvent::Comment { repo, action, issue, comment, sender, sender_can_push } } => {
            let heard = comments::HeardComment { repo, issue, comment, sender, stated_write: sender_can_push };
            heard.decide(decision, action)
        }
        Input::Forge { happened: ForgeEvent::Other { .. } } | Input::Nothing => Ok(()),
        Input::Looked { repo, number, look } => looked(decision, &repo, number, look.as_deref()),
        Input::Authorized { request, level, accounts, look } => {
            requests::authorized(decision, &request, level, accounts, &look)
        }
        Input::Disbelieved { request, why } => requests::disbelieved(decision, &request, why),
        Input::NotConfirmed { request, why } => requests::not_confirmed(decision, &request, &why),
        Input::ProjectSeen { mission, missing } => on_mission(decision, &mission, |mission| {
            let missing = missing.join("; it has ");
            mission.warn(issues::project_lacks(&missing), None)
        }),
        Input::Started { cell, runs, running, commit, branch, behind, planted } => {
            on_cell(decision, &cell, |mission| {
                let facts = mission.change_facts(&cell, |facts| {
                    facts.running = Some(running);
                    facts.commit = Some(commit);
                    facts.branch = Some(branch);
                    facts.behind = behind;
                })?;
                let started = mission.apply(&cell, &CellInput::Started { runs }, &Actor::System)?;
                if started.is_ok_and(|events| !events.is_empty())
                    && let Some(now) = mission.cell(&cell)?
                {
                    let log = mission.spawn_log(&now, &facts, planted)?;
                    mission.publish(&Publication::SpawnLog(log), Some(&cell))?;
                }
                mission.show()
            })
        }
        Input::StartFailed { cell, reason, changed } => on_cell(decision, &cell, |mission| {
            if changed {
                mission.look(&mission.repo().clone())?;
            }
            let _ = mission.apply(&cell, &CellInput::StartFailed { reason }, &Actor::System)?;
            mission.show()
        }),
        Input::AgentEnded { cell, run, exit } => on_cell(decision, &cell, |mission| {
            let ended = mission.apply(&cell, &CellInput::AgentEnded { run, exit }, &Actor::System)?;
            if ended.is_ok_and(|events| !events.is_empty()) {
                mission.show()?;
            }
            Ok(())
        }),
        Input::Stopped { cell, harvest, usage } => {
            on_cell(decision, &cell, |mission| stopped(mission, &cell, harvest, usage))
        }
        Input::Snapshot { cell, harvest } => {
            on_cell(decision, &cell, |mission| snapshot_taken(mission, &cell, harvest))
        }
        Input::Pushed { cell, published } => on_cell(decision, &cell, |mission| match mission.cell(&cell)? {
            Some(row) => mission.work_published(&row, &published),
            None => Ok(()),
        }),
        Input::FilePublished { cell, what, by, left, refused } => on_cell(decision, &cell, |mission| {
            let data = json!({"what": what, "left": left, "refused": refused});
            mission.record(&by, Some(&cell), "file_published", &data)?;
            let words = match (&refused, &left) {
                (Some(why), _) => to_operators::nothing_published(&cell, why),
                (None, Some((name, _))) => to_operators::file_published(name, &cell),
                (None, None) => to_operators::published_from(&cell),
            };
            mission.answer_those_who_wait_for(&cell, Until::FileLeft, refused.is_none(), &words)?;
            if let Some(why) = refused {
                mission.refuse(cells::nothing_published(&cell, &why), Some(&cell))?;
            }
            Ok(())
        }),
        Input::Scrubbed { cell } => on_cell(decision, &cell, |mission| {
            mission.record(&Actor::System, Some(&cell), "scrubbed", &json!({}))?;
            if let Some(row) = mission.cell(&cell)? {
                let mut facts = mission.facts(&cell)?;
                mission.answer_waiters(&row, &mut facts, true)?;
                mission.put_facts(&cell, &facts)?;
            }
            Ok(())
        }),
        Input::Deadline { cell, kind } => on_cell(decision, &cell, |mission| {
            let _ = mission.apply(&cell, &CellInput::Deadline { kind }, &Actor::System)?;
            mission.show()
        }),
        Input::Operated { operation, by, command, issue, cell, accounts } => {
            let operation = operators::Operation { name: operation, by, command, issue, cell, accounts };
            operation.decide(decision)
        }
        Input::IssueDeleted { mission } => on_mission(decision, &mission, MissionTx::issue_deleted),
        Input::IssueShown { repo, issue } => {
            decision.on_mission(&MissionId::new(repo.id, issue.number), |mission| mission.look(&repo)).map(drop)
        }
        Input::Waits { effect, kind, cell, why } => failed::waits(decision, &effect, &kind, &cell, &why),
        Input::Failed { kind, mission, cell, why, effect } => {
            let failure = failed::Failed { kind, mission, cell, why, effect: effect.map(|effect| *effect) };
            failure.decide(decision)
        }
    }
}

/// Decides on a mission, if it is known.
fn on_mission<'a>(
    decision: &Decision<'a>,
    id: &str,
    decide: impl FnOnce(&mut MissionTx<'a>) -> Result<()>,
) -> Result<()> {
    decision.on_mission(&stored_id(id)?, decide).map(drop)
}

/// Decides on a cell's mission, if the cell is known.
fn on_cell<'a>(
    decision: &Decision<'a>,
    cell: &CellId,
    decide: impl FnOnce(&mut MissionTx<'a>) -> Result<()>,
) -> Result<()> {
    decision.on_cell(cell, decide).map(drop)
}

/// The forge was asked about an issue.
fn looked(decision: &Decision<'_>, repo: &RepoRef, number: i64, look: Option<&Look>) -> Result<()> {
    let id = MissionId::new(repo.id, number);
    let Some(look) = look else { return decision.on_mission(&id, MissionTx::issue_deleted).map(drop) };
    let known = decision.tx().mission(id.as_str())?.is_some();
    if !(known || look.label || is_proposal(&look.issue.title, &look.issue.body)) {
        return Ok(());
    }
    decision.on_issue(repo, &look.issue, |mission, new| mission.take_in(look, new))
}

/// A cell's processes are gone and its work was read.
fn stopped(mission: &mut MissionTx<'_>, cell: &CellId, harvest: Harvest, usage: Usage) -> Result<()> {
    let facts = mission.change_facts(cell, |facts| {
        facts.take_work(harvest.clone());
        facts.usage = usage.clone();
    })?;
    mission.record(
        &Actor::System,
        Some(cell),
        "harvested",
        &json!({
            "commits": harvest.commit_count, "files": harvest.file_count, "uncommitted": harvest.uncommitted,
            "unknown": harvest.unknown, "tip": harvest.tip, "branches": harvest.branches,
            "read_by": harvest.read_by,
            "limits_met": usage.met, "egress": usage.egress,
        }),
    )?;
    mission.record_held(cell, &harvest.held)?;
    let missing = match &harvest.unknown {
        _ if !facts.outcome_open => None,
        Some(_) => Some(cells::work_unreadable()),
        None if harvest.has_work() => None,
        None => Some(cells::nothing_changed()),
    };
    let ended = match missing {
        Some(why) => CellInput::EndedWithout { why },
        None => CellInput::Ended,
    };
    let _ = mission.apply(cell, &ended, &Actor::System)?;
    mission.show()
}

/// A snapshot was taken of a cell, or failed.
fn snapshot_taken(mission: &mut MissionTx<'_>, cell: &CellId, harvest: Harvest) -> Result<()> {
    let missing = || harvest.unknown.clone().unwrap_or_else(to_operators::no_snapshot);
    let taken = harvest.snapshot.clone().filter(|_| harvest.unknown.is_none());
    let outcome = match &taken {
        Some(hash) => CellInput::CheckpointTaken { hash: hash.clone() },
        None => CellInput::CheckpointFailed { reason: missing() },
    };
    let applied = mission.apply(cell, &outcome, &Actor::System)?;
    let (success, words) = match (&taken, &applied) {
        (_, Err(refusal)) => (false, refusal.to_string()),
        (Some(hash), Ok(_)) => (true, to_operators::checkpoint_is(cell, hash)),
        (None, Ok(_)) => (false, to_operators::no_checkpoint(cell, &missing())),
    };
    mission.answer_those_who_wait_for(cell, Until::Snapshot, success, &words)?;
    if applied.is_ok_and(|events| !events.is_empty()) {
        let answer = match &taken {
            Some(hash) => Answer::one(true, cells::checkpoint(cell, hash)),
            None => Answer::one(false, cells::no_checkpoint(cell, harvest.unknown.as_deref().unwrap_or_default())),
        };
        mission.publish(&Publication::Answer(answer), Some(cell))?;
        if harvest.snapshot.is_some() {
            mission.change_facts(cell, |facts| facts.checkpoint.clone_from(&harvest.snapshot))?;
        }
        let row = mission.cell(cell)?.filter(|_| harvest.snapshot.is_some());
        if let Some(row) = row.filter(|_| mission.context().config.harvest.at_checkpoint) {
            mission.record_held(cell, &harvest.held)?;
            let mut facts = mission.facts(cell)?;
            facts.take_work(harvest);
            let (work, publishing) = facts.work_and_publishing();
            let push = publishing.checkpoint_taken(work);
            mission.put_facts(cell, &facts)?;
            match push {
                Some(push) => mission.push_work(&row, &facts, push)?,
                None => mission.say_what_is_held(&row)?,
            }
        }
    }
    mission.show()
}
