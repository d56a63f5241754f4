//! Asking the forge. What a delivery says is a hint: before anything is done that
//! needs authority, the forge is asked for the issue, the comment, its author and
//! their rights, and what it shows is what counts (contract §6).

use super::authority::{account, comment_now, level_of};
use super::failure::{EffectError, Performed};
use crate::cell::Base;
use crate::engine::context::KnownRepo;
use crate::engine::effect::Slot;
use crate::engine::forge_identity::APPROVED;
use crate::engine::input::{Disbelief, Input, LabelEvent, Look};
use crate::engine::keys::InboxKey;
use crate::engine::request::{AuthorityRequest, Heard};
use crate::engine::{Engine, LOOK_TWICE};
use crate::gitea::Forge;
use crate::gitea::event::{Person, RepoRef};
use crate::mission::{
    ApprovedText, Command, DecisionRecord, Level, Line, Member, Origin, is_proposal, parse_titled_proposal, sha256,
};
use crate::store::{EffectRow, Pinned};
use futures::StreamExt as _;
use std::collections::BTreeMap;

/// How old a comment may be for what its delivery states of the writer's
/// rights to count, in milliseconds.
const FRESH: i64 = 60_000;
/// How long somebody has for confirming what only polling found, in milliseconds.
const CONFIRM_WITHIN: i64 = 24 * 3_600_000;

/// How often the comment that shows a record is looked at before a difference counts.
const LOOKS_AT_SHOWN: u32 = 3;
/// Most events of the approval label that one look deals with.
const LABEL_EVENTS_MAX: usize = 20;

fn served(engine: &Engine, repo: &RepoRef) -> Result<KnownRepo, EffectError> {
    let mut known =
        engine.context.repo(repo.id).ok_or_else(|| EffectError::permanent("the repository is not served any more"))?;
    known.reference = repo.clone();
    Ok(known)
}

/// Looks at an issue because something was heard of it.
pub async fn look(engine: &Engine, forge: &Forge, row: &EffectRow, repo: RepoRef, number: i64) -> Performed {
    let known = served(engine, &repo)?;
    match look_at(engine, forge, &known, &row.mission, number, false, false).await? {
        Some(look) => Ok(Input::Looked { repo, number, look: Some(Box::new(look)) }),
        // One 404 deletes nothing.
        None => Err(EffectError::not_shown_then("the issue", Input::Looked { repo, number, look: None })),
    }
}

/// An issue and what belongs to it, as the forge shows it now.
pub async fn look_at(
    engine: &Engine,
    forge: &Forge,
    known: &KnownRepo,
    mission: &str,
    number: i64,
    summons: bool,
    approves: bool,
) -> Result<Option<Look>, EffectError> {
    let api = forge.repo_ref(&known.reference);
    let Some(issue) = api.issue(number).get().await? else { return Ok(None) };
    let name = mission.to_owned();
    let mission = engine.stored_mission(mission).await?;
    let records: &[DecisionRecord] = mission.as_ref().map_or(&[], |m| &m.records);
    let text = ApprovedText::new(&issue.title, &issue.body);

    let known_proposal = mission.as_ref().is_some_and(|m| {
        m.is_proposal && m.text == text.hash && m.open == issue.open && m.from_before_records.is_none()
    });
    let proposal = (issue.open && !known_proposal && is_proposal(&text.title, &text.body))
        .then(|| parse_titled_proposal(&text.title, &text.body, &engine.context.defaults()).ok())
        .flatten();
    let (mut proposal_base, mut summons_base, mut no_base) = (None, None, None);
    let (mut members, mut member_levels, mut unknown) = (vec![], vec![], vec![]);
    if let Some(proposal) = &proposal {
        match base(forge, &known.reference, proposal.base.as_deref()).await? {
            Ok(found) => proposal_base = Some(found),
            Err(why) => no_base = Some(why),
        }
        for login in proposal.council.iter().flat_map(|c| &c.members) {
            match account(forge, login).await? {
                Some(user) => {
                    let person = Person { id: user.id, login: user.login.clone() };
                    member_levels.push((user.id, level_of(forge, known, &person, None).await?));
                    members.push(Member { id: user.id, login: user.login });
                }
                None => unknown.push(login.clone()),
            }
        }
    }
    if summons {
        match base(forge, &known.reference, None).await? {
            Ok(found) => summons_base = Some(found),
            Err(why) => no_base = Some(why),
        }
    }

    let pinned = known.approved_label.as_ref().map(Pinned::id);
    // One that was renamed may mean something else to whoever puts it on.
    let label = pinned.is_some_and(|id| issue.labels.iter().any(|l| l.id == id && l.name == APPROVED));
    let mut label_events: Vec<LabelEvent> = vec![];
    // One that was added and taken off since is in the timeline alone.
    if let Some(pinned) = pinned.filter(|_| label || !records.is_empty()) {
        let dealt_with = mission.as_ref().map_or(0, |m| m.label_event);
        let mut timeline = api.issue(number).timeline();
        while let Some(event) = timeline.next().await {
            let event = event?;
            let Some((found, added)) = event.label_added() else { continue };
            // Whoever opens an issue can set any label, and then stands in the timeline
            // as its author: in the second of the opening the author's labels are part
            // of it. What is older than the repository came here by migration.
            let opening =
                event.created_at.as_second() <= issue.created_at.as_second() && event.actor.id == issue.author.id;
            if found.id == pinned
                && found.name == APPROVED
                && event.id > dealt_with
                && !opening
                && !known.is_older(event.created_at)
            {
                label_events.push(LabelEvent {
                    id: event.id,
                    actor: event.actor.clone(),
                    added,
                    at: event.created_at.as_millisecond(),
                    level: None,
                });
            }
        }
        // A writer can add and remove it as often as they like: the newest few count.
        let surplus = label_events.len().saturating_sub(LABEL_EVENTS_MAX);
        label_events.drain(..surplus);
        for event in label_events.iter_mut().filter(|e| e.added) {
            event.level = Some(level_of(forge, known, &event.actor, None).await?);
        }
    }

    let mut lost = vec![];
    for (id, login) in mission.as_ref().map(crate::mission::Mission::voters).unwrap_or_default() {
        if level_of(forge, known, &Person { id, login }, None).await? != Level::Director {
            lost.push(id);
        }
    }
    let (mut changed, mut changed_shown) = (vec![], vec![]);
    // Only an approval asks how its record is shown.
    let approves = approves || label_events.iter().any(|event| event.added);
    for record in records {
        if approves && !is_as_written(engine, forge, &known.reference, number, &name, record).await? {
            changed_shown.push(record.number);
        }
        let Origin::Comment { id, sha256: before } = &record.origin else { continue };
        let same = comment_now(forge, &known.reference, number, *id).await?.is_some_and(|(_, now)| {
            now.updated_at == now.created_at && now.author.id == record.asker() && sha256(&now.body) == *before
        });
        if !same {
            changed.push(*id);
        }
    }
    Ok(Some(Look {
        issue,
        proposal_base,
        summons_base,
        no_base,
        members,
        member_levels,
        unknown,
        label,
        label_events,
        lost,
        changed,
        changed_shown,
    }))
}

/// Whether the comment that shows a record is as it was written: whoever may write can
/// edit any comment, ours too. An edit of our own is on the forge a moment before it is
/// on record, so a difference counts only if it stays.
async fn is_as_written(
    engine: &Engine,
    forge: &Forge,
    repo: &RepoRef,
    number: i64,
    mission: &str,
    record: &DecisionRecord,
) -> Result<bool, EffectError> {
    for attempt in 1.. {
        let (of, slot) = (mission.to_owned(), Slot::of(record).to_string());
        let Some(written) = engine.store.read(move |tx| tx.comment_of_kind(&of, &slot)).await? else { break };
        let Some(sha) = written.sha256 else { break };
        let now = comment_now(forge, repo, number, written.comment_id).await?;
        if now.is_some_and(|(_, now)| sha256(now.body.trim_end()) == sha) {
            break;
        }
        if attempt == LOOKS_AT_SHOWN {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_TWICE).await;
    }
    Ok(true)
}

/// A branch and where it points now. The inner error is for people.
async fn base(forge: &Forge, repo: &RepoRef, named: Option<&str>) -> Result<Result<Base, String>, EffectError> {
    let Some(repository) = forge.repository_by_id(repo.id).await? else {
        return Ok(Err("the repository is not there any more".to_owned()));
    };
    if repository.empty {
        return Ok(Err("the repository is empty; it needs a first commit".to_owned()));
    }
    let branch = named.unwrap_or(&repository.default_branch).to_owned();
    let api = forge.repo_ref(&repository.reference());
    let commit = match api.branch_head(&branch).await? {
        // One 404 says little, and here it would take a proposal's approval away.
        None => api.branch(&branch).await?.map(|found| found.commit_id),
        found => found,
    };
    match commit {
        Some(commit) => Ok(Ok(Base { branch, commit })),
        // What it says of the repository and of the branch cannot both be so.
        None if branch == repository.default_branch => Err(EffectError::not_shown("the default branch")),
        None => Ok(Err(format!("the repository has no branch `{branch}`"))),
    }
}

/// Compares a comment with what was heard of it, and finds out what its author may
/// do now.
pub async fn authorize(engine: &Engine, forge: &Forge, row: &EffectRow, request: Box<AuthorityRequest>) -> Performed {
    let known = served(engine, &request.repo)?;
    if let Some(why) = doubt(forge, &known, &request).await? {
        return Ok(Input::Disbelieved { request, why });
    }
    let age = engine.clock.now().0 - request.written_at;
    let stated = request.stated_write.filter(|_| age < FRESH);
    let level = level_of(forge, &known, &request.person, stated).await?;
    let mut accounts = BTreeMap::new();
    for login in &request.logins {
        if let Some(user) = account(forge, login).await? {
            accounts.insert(login.to_lowercase(), user.id);
        }
    }
    let asks = |wanted: fn(&Command) -> bool| {
        request.lines.iter().any(|line| matches!(line, Line::Command { command, .. } if wanted(command)))
    };
    let summons = asks(|command| matches!(command, Command::Summon { .. }));
    let approves = asks(|command| matches!(command, Command::Approve { .. }));
    let number = request.issue.number;
    let Some(look) = look_at(engine, forge, &known, &row.mission, number, summons, approves).await? else {
        return Err(EffectError::not_shown("the issue"));
    };
    Ok(Input::Authorized { request, level, accounts, look: Box::new(look) })
}

/// Why what was heard of a comment does not hold, if it does not.
async fn doubt(forge: &Forge, known: &KnownRepo, request: &AuthorityRequest) -> Result<Option<Disbelief>, EffectError> {
    let found = comment_now(forge, &request.repo, request.issue.number, request.comment).await?;
    let Some((number, now)) = found else { return Ok(Some(Disbelief::Gone)) };
    if now.author.id <= 0 {
        return Ok(Some(Disbelief::NoAccount));
    }
    if now.migrated || known.is_older(now.created_at) {
        return Ok(Some(Disbelief::Migrated));
    }
    if now.updated_at != now.created_at {
        return Ok(Some(Disbelief::Edited));
    }
    let same = now.author.id == request.person.id
        && number == request.issue.number
        && now.created_at.as_millisecond() == request.written_at
        && (request.sha256.is_empty() || sha256(&now.body) == request.sha256);
    Ok((!same).then_some(Disbelief::Differs))
}

/// Sees whether somebody confirmed, by a reaction, what only polling had found.
pub async fn confirm(
    engine: &Engine,
    forge: &Forge,
    row: &EffectRow,
    mut request: Box<AuthorityRequest>,
    question: String,
    shown: &str,
    asked_at: i64,
) -> Performed {
    let (repo, comment) = (request.repo.id, request.comment);
    let (asked, acted, delivered) = engine
        .store
        .read(move |tx| {
            let delivered = tx.was_delivered(InboxKey::comment_created(repo, comment).as_str())?;
            Ok((tx.comment_of_effect(&question)?, tx.has_acted_on(repo, comment)?, delivered))
        })
        .await?;
    if acted {
        // Its delivery came after all.
        return Ok(Input::Nothing);
    }
    let not_confirmed = |request, why: &str| Ok(Input::NotConfirmed { request, why: why.to_owned() });
    if engine.clock.now().0 - asked_at > CONFIRM_WITHIN {
        return not_confirmed(request, "nobody confirmed it within a day");
    }
    let again = || Err(EffectError::passing("it is not confirmed yet"));
    // What its delivery said is carried out by itself; where it said something else, somebody edited the comment.
    if delivered {
        let long_ago = engine.clock.now().0 - asked_at > FRESH;
        return if long_ago { not_confirmed(request, "it was delivered with other words") } else { again() };
    }
    let Some(asked) = asked else { return again() };
    let api = forge.repo_ref(&request.repo).comment(asked);
    match api.get().await? {
        None => return not_confirmed(request, "the question was deleted"),
        // Whoever may write can edit any comment, ours too.
        // And put it back: then the forge's time of the last change stays.
        Some(now) if sha256(now.body.trim_end()) != *shown || now.updated_at != now.created_at => {
            return not_confirmed(request, "somebody edited the question");
        }
        Some(_) => {}
    }
    let reactions = api.reactions().await?;
    let gave = |content: &str| reactions.iter().any(|r| r.user.id == request.person.id && r.content == content);
    if gave("-1") {
        return not_confirmed(request, "it was taken back with a 👎");
    }
    if !gave("+1") {
        return again();
    }
    request.heard = Heard::Confirmed;
    authorize(engine, forge, row, request).await
}
