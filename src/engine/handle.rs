//! What each input leads to; what happens to an issue, and commands, have pages of
//! their own.

use super::commands::{Asked, logins_in, operated, verb_of, verb_of_line};
use super::context::Context;
use super::desk::{Desk, Release, comment_lane, effect_name, mission_id, queue_effect};
use super::failed::{failed, waits};
use super::input::{AuthorityRequest, Disbelief, Effect, Heard, Input, Look, Outcome, Until};
use super::look::sha256;
use crate::cell::{Actor, At, Input as CellInput};
use crate::config::PolledCommands;
use crate::gitea::event::{CommentAction, CommentSnapshot, ForgeEvent, IssueAction, IssueSnapshot, Person, RepoRef};
use crate::mission::{ApprovedText, Command, Level, Line, Mission, Origin, Parsed, is_proposal};
use crate::publication::{Answer, Publication};
use crate::store::{Result, Sight, StoreError, Tx};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Handles one input inside the writer's transaction.
pub fn handle(tx: &Tx<'_>, context: &Context, now: At, key: &str, input: Input) -> Result<()> {
    match input {
        Input::Forge { happened } => forge(tx, context, now, key, happened),
        Input::Looked { repo, number, look } => match look {
            Some(look) => {
                let known = tx.mission(&mission_id(repo.id, number))?.is_some();
                let ours = known || look.label || is_proposal(&look.issue.title, &look.issue.body);
                if !ours {
                    return Ok(());
                }
                let (mut desk, new) = Desk::for_issue(tx, context, now, key, &repo, &look.issue)?;
                desk.take_in(&look, new)?;
                desk.close()
            }
            None => {
                let id = mission_id(repo.id, number);
                let Some(mut desk) = Desk::open(tx, context, now, key, &id)? else { return Ok(()) };
                desk.deleted()?;
                desk.close()
            }
        },
        Input::Authorized { request, level, accounts, look } => {
            authorized(tx, context, now, key, &request, level, accounts, &look)
        }
        Input::Disbelieved { request, why } => disbelieved(tx, context, now, key, &request, why),
        Input::NotConfirmed { request, why } => {
            if tx.has_acted_on(request.repo.id, request.comment)? {
                return Ok(());
            }
            let (mut desk, _) = Desk::for_issue(tx, context, now, key, &request.repo, &request.issue)?;
            tx.act_on(request.repo.id, request.comment, now.0)?;
            let actor = Actor::Person { id: request.person.id, login: request.person.login.clone() };
            for line in &request.lines {
                let Line::Command { command, .. } = line else { continue };
                desk.record(&actor, None, "refused", &json!({"command": verb_of(command), "why": why}))?;
            }
            let text = format!("What `{}` was asked to confirm is not done: {why}.", request.person.login);
            let answer = Answer { items: vec![(false, text)], ..Answer::default() };
            desk.answer(request.comment, false, true, &answer)?;
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
        Input::Started { cell, runs, running, commit, branch, behind, planted } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            let mut facts = desk.facts(&cell)?;
            facts.running = Some(running);
            facts.commit = Some(commit);
            facts.branch = Some(branch);
            facts.behind = behind;
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
        Input::StartFailed { cell, reason, changed } => {
            let Some(mut desk) = Desk::of_cell(tx, context, now, key, &cell)? else { return Ok(()) };
            if changed {
                let repo = desk.repo.clone();
                desk.look(&repo)?;
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
            let missing = match &harvest.unknown {
                _ if !facts.outcome_open => None,
                Some(_) => Some("its work could not be read"),
                None if harvest.has_work() => None,
                None => Some("nothing was committed or changed"),
            };
            let ended = match missing {
                Some(why) => CellInput::EndedWithout { why: why.to_owned() },
                None => CellInput::Ended,
            };
            let _ = desk.apply(&cell, &ended, &Actor::System)?;
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
            let (taken, words) = match (&outcome, &applied) {
                (_, Err(refusal)) => (false, refusal.to_string()),
                (CellInput::CheckpointTaken { hash }, Ok(_)) => (true, format!("the checkpoint of {cell} is {hash}")),
                (_, Ok(_)) => {
                    let why = harvest.unknown.as_deref().unwrap_or("no snapshot was handed out");
                    (false, format!("no checkpoint of {cell} was taken: {why}"))
                }
            };
            desk.settle_until(&cell, Until::Snapshot, taken, &words)?;
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
            let words = match (&refused, &left) {
                (Some(why), _) => format!("nothing of {cell} was published: {why}"),
                (None, Some((name, _))) => format!("{name} of cell {cell} is published"),
                (None, None) => format!("published from {cell}"),
            };
            desk.settle_until(&cell, Until::FileLeft, refused.is_none(), &words)?;
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
        Input::IssueGone { mission } => {
            let Some(mut desk) = Desk::open(tx, context, now, key, &mission)? else { return Ok(()) };
            desk.deleted()?;
            desk.close()
        }
        Input::IssueShown { repo, issue } => {
            let id = mission_id(repo.id, issue.number);
            let Some(mut desk) = Desk::open(tx, context, now, key, &id)? else { return Ok(()) };
            desk.look(&repo)?;
            desk.close()
        }
        Input::Waits { effect, kind, cell, why } => waits(tx, context, now, key, &effect, &kind, &cell, &why),
        Input::Failed { kind, mission, cell, why, effect } => {
            failed(tx, context, now, key, &kind, &mission, cell.as_ref(), &why, effect.map(|effect| *effect))
        }
        Input::Nothing => Ok(()),
    }
}

/// Says that an input could not be decided, because a record that it needs
/// cannot be read: in the ledger, and to whoever gave a command. What was
/// decided of it is undone already, and other missions go on.
pub fn not_decided(
    tx: &Tx<'_>,
    context: &Context,
    now: At,
    key: &str,
    input: Option<&Input>,
    error: &StoreError,
) -> Result<()> {
    let (mut mission, mut cell) = (String::new(), None);
    let mut answer = None;
    match input {
        Some(Input::Operated { operation, cell: named, issue, .. }) => {
            cell.clone_from(named);
            if let Some(found) = issue {
                mission = mission_id(found.0.id, found.1.issue.number);
            }
            tx.put_operation(operation, &outcome_text(&Outcome::refused(error.to_string()))?, now.0)?;
        }
        Some(Input::Forge { happened: ForgeEvent::Comment { repo, action, issue, comment, sender_can_push, .. } }) => {
            mission = mission_id(repo.id, issue.number);
            let commands = context.commands_in(&comment.body).lines.len() as i64;
            // What polling found was counted when it was found.
            let counts = if sender_can_push.is_some() { commands } else { 0 };
            let by_bot = context.bot().is_some_and(|bot| bot.id == comment.author.id);
            let limit = i64::from(context.config.policy.commands_per_minute);
            if *action == CommentAction::Created
                && commands > 0
                && !by_bot
                && tx.pace_of(&pace_name(comment.author.id), now.0, counts)? <= limit
            {
                answer = Some((repo, issue.number, comment.id));
            }
        }
        Some(Input::Forge { happened: ForgeEvent::Issue { repo, issue, .. } }) => {
            mission = mission_id(repo.id, issue.number);
        }
        Some(Input::Authorized { request, .. }) => {
            mission = mission_id(request.repo.id, request.issue.number);
            answer = Some((&request.repo, request.issue.number, request.comment));
        }
        Some(Input::Deadline { cell: due, .. }) => {
            // It would be found due again at once, and for ever.
            tx.put_off(due.as_str(), now.plus(super::LOOK_AGAIN_AT_DAMAGED).0)?;
            cell = Some(due.clone());
        }
        _ => {}
    }
    let why = context.redact(&error.to_string());
    tx.append(&crate::store::NewEntry {
        at: now.0,
        mission: mission.clone(),
        cell: cell.map(|cell| cell.to_string()).unwrap_or_default(),
        actor: serde_json::to_string(&Actor::System).map_err(StoreError::json("actor"))?,
        action: "not_decided".to_owned(),
        data: json!({"input": key, "why": why}).to_string(),
    })?;
    let Some((repo, number, comment)) = answer else { return Ok(()) };
    let text = "Nothing was done: what is stored of this mission cannot be read. Whoever operates this Lazarus finds \
                in its log, and by `lazarus status`, what is damaged; after it is mended, give the command again.";
    let answer = Answer { items: vec![(false, text.to_owned())], ..Answer::default() };
    let id = hex::encode(&Sha256::digest(format!("not decided:{key}"))[..10]);
    let published = context.render(&Publication::Refusal(answer), &id, None);
    let queue = |id: &str, lane: String, effect: &Effect| queue_effect(tx, now, id, lane, &mission, None, effect, 0);
    let react = Effect::React { repo: repo.clone(), comment, content: "confused".to_owned(), alone: false };
    queue(&format!("{id}r"), format!("react:{comment}"), &react)?;
    let kind = "refusal".to_owned();
    let say = Effect::Comment { repo: repo.clone(), number, kind, body: published.body };
    queue(&id, comment_lane(&mission), &say)
}

fn outcome_text(outcome: &Outcome) -> Result<String> {
    serde_json::to_string(outcome).map_err(StoreError::json("outcome"))
}

fn forge(tx: &Tx<'_>, context: &Context, now: At, key: &str, event: ForgeEvent) -> Result<()> {
    match event {
        ForgeEvent::Issue { repo, action, issue, previous_title, previous_body, .. } => {
            if issue.is_pull {
                return Ok(());
            }
            let text = ApprovedText::new(&issue.title, &issue.body);
            // What an edit replaced is only in its delivery; of a part that stayed as
            // it was the forge says nothing.
            let before = (previous_title.is_some() || previous_body.is_some()).then(|| {
                ApprovedText::new(
                    previous_title.as_deref().unwrap_or(&issue.title),
                    previous_body.as_deref().unwrap_or(&issue.body),
                )
            });
            let at = issue.updated_at.as_millisecond();
            let sight = Sight {
                at,
                since: if action == IssueAction::Opened { issue.created_at.as_millisecond() } else { at },
                told: matches!(action, IssueAction::Edited | IssueAction::Seen),
                before: before.as_ref(),
            };
            tx.see_text((repo.id, issue.number), &text, sight, now.0)?;

            let labelled = approval_label(context, &repo).is_some_and(|l| issue.labels.iter().any(|x| x.id == l));
            let id = mission_id(repo.id, issue.number);
            let Some(mut desk) = Desk::open(tx, context, now, key, &id)? else {
                // Most issues are none of our business.
                if action == IssueAction::Deleted || !(labelled || is_proposal(&issue.title, &issue.body)) {
                    return Ok(());
                }
                return first_look(tx, now, key, &repo, issue.number);
            };
            let mission = &desk.mission;
            let news = match action {
                IssueAction::Seen | IssueAction::Other | IssueAction::Opened => {
                    text.hash != mission.text
                        || issue.open != mission.open
                        || mission.deleted
                        || (labelled && mission.label_handled.is_none())
                        || (!mission.records.is_empty() && issue.updated_at.as_second() > mission.seen_at)
                }
                IssueAction::LabelsChanged => {
                    labelled || mission.label_handled.is_some() || !mission.records.is_empty()
                }
                IssueAction::Edited | IssueAction::Closed | IssueAction::Reopened | IssueAction::Deleted => true,
            };
            if news {
                desk.look(&repo)?;
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
                CommentAction::Edited | CommentAction::Deleted
                    if is_of_open_request(tx, &mission_id(repo.id, issue.number), comment.id)? =>
                {
                    let Some(mut desk) = Desk::open(tx, context, now, key, &mission_id(repo.id, issue.number))? else {
                        return Ok(());
                    };
                    desk.look(&repo)?;
                    desk.close()
                }
                CommentAction::Edited if sender.id != comment.author.id && !by_bot(&sender) => {
                    // A command put into somebody else's mouth: never executed,
                    // and worth knowing.
                    if context.commands_in(&comment.body).lines.is_empty() {
                        return Ok(());
                    }
                    let id = mission_id(repo.id, issue.number);
                    tx.append(&crate::store::NewEntry {
                        at: now.0,
                        mission: id,
                        cell: String::new(),
                        actor: serde_json::to_string(&Actor::Person { id: sender.id, login: sender.login.clone() })
                            .map_err(StoreError::json("actor"))?,
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
    context.repo(repo.id).and_then(|r| r.approved_label).map(|label| label.id())
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
    // The signed event shows the issue's text as it was when this was said.
    let text = ApprovedText::new(&issue.title, &issue.body);
    let at = issue.updated_at.as_millisecond();
    tx.see_text((repo.id, issue.number), &text, Sight { at, since: at, told: false, before: None }, now.0)?;
    let mut parsed = context.commands_in(&comment.body);
    if parsed.is_empty()
        || tx.knows(&format!("comment:{}:{}:deleted", repo.id, comment.id))?
        || tx.has_acted_on(repo.id, comment.id)?
    {
        return Ok(());
    }
    let id = mission_id(repo.id, issue.number);
    let known = tx.mission(&id)?;
    let is_mission = known.as_ref().is_some_and(Mission::is_one) || is_proposal(&issue.title, &issue.body);
    let program = is_program(&comment.author.login);
    if program || !is_mission {
        // Nobody asked for advice.
        parsed.misplaced.clear();
    }
    if !is_mission {
        // Other bots have commands of their own.
        parsed.lines.retain(|line| !line.is_slip() && !(program && (needs_mission(line) || everybody_may(line))));
    }
    if parsed.is_empty() {
        return tx.act_on(repo.id, comment.id, now.0).map(|_| ());
    }
    // What is no command, or none here, is looked at without a word.
    let silent = parsed.lines.is_empty()
        || (!is_mission
            && known.as_ref().is_none_or(|mission| mission.told_no_mission)
            && parsed.lines.iter().all(needs_mission));
    if silent {
        let limit = i64::from(context.config.policy.commands_per_minute);
        if tx.pace_of(&format!("commands:{}", comment.author.id), now.0, 1)? <= limit {
            let request = authority_request(repo, issue, comment, parsed, stated_write);
            let lane = format!("authority:{id}");
            let effect = Effect::Authorize { request: Box::new(request) };
            queue_effect(tx, now, &effect_name(key, 1), lane, &id, None, &effect, 0)?;
        }
        return Ok(());
    }
    let (mut desk, _) = Desk::for_issue(tx, context, now, key, repo, issue)?;
    if stated_write.is_none() {
        desk.mission.doubt_text_before(comment.created_at.as_second());
    }
    let limit = i64::from(context.config.policy.commands_per_minute);
    let count = parsed.lines.len() as i64;
    // What polling finds waits there for its minute, so here it is refused only if no
    // minute has room for it.
    let in_minute =
        if stated_write.is_none() { count } else { tx.pace_of(&pace_name(comment.author.id), now.0, count)? };
    if in_minute > limit {
        // It is answered, so polling does not find it again.
        tx.act_on(repo.id, comment.id, now.0)?;
        let why = format!("more than {limit} commands in a minute");
        let verbs: Vec<String> = parsed.lines.iter().map(verb_of_line).collect();
        let actor = Actor::Person { id: comment.author.id, login: comment.author.login.clone() };
        let data = json!({"command": verbs.join(", "), "comment": comment.id, "why": why});
        desk.record(&actor, None, "refused", &data)?;
        let mut answer = Answer::default();
        // Each gets a reaction, and the words stand once a minute: words for each would
        // be the flood.
        let told = format!("commands_told:{}:{}", desk.id, comment.author.id);
        if tx.pace_of(&told, now.0, 1)? == 1 {
            let text = format!(
                "`{}` gave more than {limit} commands in a minute. Each comment with a 😕 is not carried out; give its commands again a minute later.",
                comment.author.login
            );
            answer.items.push((false, text));
        }
        desk.answer(comment.id, false, true, &answer)?;
        return desk.close();
    }
    let react = Effect::React { repo: repo.clone(), comment: comment.id, content: "eyes".to_owned(), alone: false };
    desk.queue(format!("react:{}", comment.id), &react, None, 0)?;
    let request = authority_request(repo, issue, comment, parsed, stated_write);
    let everybody_may = request.misplaced.is_empty() && request.lines.iter().all(everybody_may);
    // What was taken for deleted is looked for first: then everything is answered.
    let deleted = desk.mission.deleted;
    if deleted {
        desk.look(repo)?;
    }
    if everybody_may && !deleted {
        tx.act_on(repo.id, comment.id, now.0)?;
        let asked = Asked::of_comment(&request, Level::Read, BTreeMap::new(), None);
        desk.run_commands(&asked, &request.lines, &[])?;
    } else {
        let lane = format!("authority:{}", desk.id);
        desk.queue(lane, &Effect::Authorize { request: Box::new(request) }, None, 0)?;
    }
    desk.close()
}

/// Under which name somebody's commands are counted.
pub(super) fn pace_name(person: i64) -> String {
    format!("commands:{person}")
}

fn authority_request(
    repo: &RepoRef,
    issue: &IssueSnapshot,
    comment: &CommentSnapshot,
    parsed: Parsed,
    stated_write: Option<bool>,
) -> AuthorityRequest {
    AuthorityRequest {
        repo: repo.clone(),
        issue: issue.clone(),
        comment: comment.id,
        person: comment.author.clone(),
        written_at: comment.created_at.as_millisecond(),
        sha256: sha256(&comment.body),
        logins: logins_in(&parsed.lines),
        lines: parsed.lines,
        misplaced: parsed.misplaced,
        stated_write,
        heard: if stated_write.is_some() { Heard::Delivered } else { Heard::Polled },
    }
}

/// Whether a line is answered whoever wrote it.
const fn everybody_may(line: &Line) -> bool {
    matches!(line, Line::Refused { .. } | Line::Command { command: Command::Status { .. } | Command::Help { .. }, .. })
}

/// Whether a line means nothing where no mission is.
pub(super) fn needs_mission(line: &Line) -> bool {
    let name = match line {
        Line::Command { command, .. } => Some(verb_of(command)),
        Line::Refused { of, .. } => of.clone(),
    };
    !matches!(name.as_deref(), None | Some("summon" | "team" | "status" | "help"))
}

/// Whether an account is a program's, by its name. The forge does not say it. Only what
/// nobody asked for is kept from it.
fn is_program(login: &str) -> bool {
    let login = login.to_ascii_lowercase();
    ["-bot", "_bot", ".bot", "[bot]"].iter().any(|end| login.ends_with(end))
        || login.starts_with("bot-")
        || matches!(login.as_str(), "bot" | "dependabot" | "renovate" | "gitea-actions" | "forgejo-actions")
}

/// The forge is asked about an issue that is no mission yet.
fn first_look(tx: &Tx<'_>, now: At, key: &str, repo: &RepoRef, number: i64) -> Result<()> {
    let id = mission_id(repo.id, number);
    let effect = Effect::Look { repo: repo.clone(), number };
    let lane = format!("authority:{id}");
    tx.supersede(&lane, &effect.kind())?;
    queue_effect(tx, now, &effect_name(key, 1), lane, &id, None, &effect, 0)
}

/// Whether a comment is the one that made an open request.
fn is_of_open_request(tx: &Tx<'_>, mission: &str, comment: i64) -> Result<bool> {
    let mission = tx.mission(mission)?;
    Ok(mission
        .is_some_and(|m| m.records.iter().any(|r| matches!(r.origin, Origin::Comment { id, .. } if id == comment))))
}

/// Most bytes of a command that somebody is asked to confirm: less than the gate lets through in one paragraph.
const ASKED_MAX: usize = 3 * 1024;

/// Carries out commands whose comment the forge confirmed.
#[allow(clippy::too_many_arguments, reason = "the parts of one input")]
fn authorized(
    tx: &Tx<'_>,
    context: &Context,
    now: At,
    key: &str,
    request: &AuthorityRequest,
    level: Level,
    accounts: BTreeMap<String, i64>,
    look: &Look,
) -> Result<()> {
    if tx.has_acted_on(request.repo.id, request.comment)? {
        return Ok(());
    }
    let id = mission_id(request.repo.id, request.issue.number);
    let known = tx.mission(&id)?;
    let is_mission =
        known.as_ref().is_some_and(Mission::is_one) || is_proposal(&look.issue.title, &look.issue.body) || look.label;
    if !is_mission && request.lines.iter().all(needs_mission) {
        return no_mission(tx, context, now, key, request, level, known.as_ref());
    }
    let (mut desk, new) = Desk::for_issue(tx, context, now, key, &request.repo, &look.issue)?;
    desk.take_in(look, new)?;
    let confirm = context.config.policy.polled_commands == PolledCommands::Confirm && request.heard == Heard::Polled;
    if confirm && level == Level::Director && request.lines.iter().any(needs_director) {
        let hidden = request.lines.iter().find_map(|line| match line {
            Line::Command { command, .. } => context.not_shown_whole(&command.to_string(), ASKED_MAX),
            Line::Refused { .. } => None,
        });
        if let Some(why) = hidden {
            tx.act_on(request.repo.id, request.comment, now.0)?;
            let actor = Actor::Person { id: request.person.id, login: request.person.login.clone() };
            desk.record(&actor, None, "refused", &json!({"command": "confirm", "why": why}))?;
            let text = format!(
                "Only polling found your comment, so it has to be confirmed, and that cannot be asked: {why}. Give the command in another form."
            );
            desk.answer(request.comment, false, true, &Answer { items: vec![(false, text)], ..Answer::default() })?;
            return desk.close();
        }
        desk.ask_to_confirm(request)?;
        return desk.close();
    }
    tx.act_on(request.repo.id, request.comment, now.0)?;
    let asked = Asked::of_comment(request, level, accounts, look.summons_base.clone());
    desk.run_commands(&asked, &request.lines, &request.misplaced)?;
    desk.close()
}

/// Commands on an issue that is no mission, which mean nothing there: who may write is
/// told so, once an issue; other people, and other bots, are left alone.
fn no_mission(
    tx: &Tx<'_>,
    context: &Context,
    now: At,
    key: &str,
    request: &AuthorityRequest,
    level: Level,
    known: Option<&Mission>,
) -> Result<()> {
    tx.act_on(request.repo.id, request.comment, now.0)?;
    let verbs: Vec<String> = request
        .lines
        .iter()
        .filter_map(|line| match line {
            Line::Command { command, .. } => Some(verb_of(command)),
            Line::Refused { of, .. } => of.clone(),
        })
        .collect();
    tx.append(&crate::store::NewEntry {
        at: now.0,
        mission: mission_id(request.repo.id, request.issue.number),
        cell: String::new(),
        actor: actor_text(&request.person)?,
        action: "refused".to_owned(),
        data: json!({"comment": request.comment, "commands": verbs, "why": "the issue is no mission"}).to_string(),
    })?;
    let told = known.is_some_and(|mission| mission.told_no_mission);
    let Some(verb) = verbs.first().filter(|_| level >= Level::Write && !told && !is_program(&request.person.login))
    else {
        return Ok(());
    };
    let (mut desk, _) = Desk::for_issue(tx, context, now, key, &request.repo, &request.issue)?;
    desk.mission.told_no_mission = true;
    let text =
        format!("`/{verb}` does nothing here, because this issue is no mission. `/summon AGENT` asks for a cell.");
    let answer = Answer { items: vec![(false, text)], ..Answer::default() };
    desk.answer(request.comment, false, true, &answer)?;
    desk.close()
}

/// What was heard of a comment does not hold: it is on record, and answered where
/// somebody may wait for an answer.
fn disbelieved(
    tx: &Tx<'_>,
    context: &Context,
    now: At,
    key: &str,
    request: &AuthorityRequest,
    why: Disbelief,
) -> Result<()> {
    let id = mission_id(request.repo.id, request.issue.number);
    let verbs: Vec<String> = request
        .lines
        .iter()
        .filter_map(|line| match line {
            Line::Command { command, .. } => Some(verb_of(command)),
            Line::Refused { .. } => None,
        })
        .collect();
    let action = match why {
        Disbelief::Differs => "security_not_what_the_forge_has",
        Disbelief::Migrated => "security_migrated_command",
        Disbelief::Edited | Disbelief::Gone | Disbelief::NoAccount => "refused",
    };
    tx.append(&crate::store::NewEntry {
        at: now.0,
        mission: id.clone(),
        cell: String::new(),
        actor: actor_text(&request.person)?,
        action: action.to_owned(),
        data: json!({"comment": request.comment, "commands": verbs, "why": why}).to_string(),
    })?;
    let text = match why {
        Disbelief::Edited => {
            "This comment was edited before it was acted on, so nothing was done; give the command again in a new comment."
        }
        Disbelief::Differs => {
            "The forge does not show this comment as it was delivered, so nothing was done; give the command again in a new comment."
        }
        Disbelief::Gone => "The comment was deleted before it was acted on, so nothing was done.",
        Disbelief::NoAccount => "The account that wrote this is gone, so it has no rights here any more.",
        Disbelief::Migrated => return Ok(()),
    };
    if request.lines.is_empty() || tx.has_acted_on(request.repo.id, request.comment)? {
        return Ok(());
    }
    let Some(mut desk) = Desk::open(tx, context, now, key, &id)? else { return Ok(()) };
    let answer = Answer { items: vec![(false, text.to_owned())], ..Answer::default() };
    desk.answer(request.comment, false, true, &answer)?;
    desk.close()
}

fn actor_text(person: &Person) -> Result<String> {
    let actor = Actor::Person { id: person.id, login: person.login.clone() };
    serde_json::to_string(&actor).map_err(StoreError::json("actor"))
}

/// Whether a line asks for something that only a director can do, of a director.
fn needs_director(line: &Line) -> bool {
    match line {
        Line::Refused { .. } => false,
        Line::Command { command, .. } => !matches!(
            command,
            Command::Status { .. } | Command::Help { .. } | Command::Accept { .. } | Command::Tell { .. }
        ),
    }
}
