//! Commands of comments, once the forge said what it shows of them and what their author
//! may do.

use super::Decision;
use super::commands::Asked;
use super::comments::is_program;
use super::mission_tx::MissionTx;
use crate::cell::Actor;
use crate::config::PolledCommands;
use crate::engine::effect::Effect;
use crate::engine::input::{Disbelief, Look};
use crate::engine::lane::Lane;
use crate::engine::request::{AuthorityRequest, Heard, actor};
use crate::mission::{Level, Line, Mission, MissionId, is_proposal, sha256};
use crate::publication::sentences::issues as say;
use crate::publication::{Answer, Publication};
use crate::store::Result;
use serde_json::json;
use std::collections::BTreeMap;

/// Most bytes of a command that somebody is asked to confirm: less than the gate lets through in one paragraph.
const ASKED_MAX: usize = 3 * 1024;

impl AuthorityRequest {
    /// The mission that it is about.
    pub fn mission(&self) -> MissionId {
        MissionId::new(self.repo.id, self.issue.number)
    }

    /// Who gave the commands.
    pub fn actor(&self) -> Actor {
        actor(&self.person)
    }

    /// The words of the commands that could be read.
    fn verbs(&self) -> Vec<String> {
        let verbs = self.lines.iter().filter_map(|line| match line {
            Line::Command { command, .. } => Some(command.verb().to_owned()),
            Line::Refused { .. } => None,
        });
        verbs.collect()
    }
}

/// Carries out commands whose comment the forge confirmed.
pub fn authorized(
    decision: &Decision<'_>,
    request: &AuthorityRequest,
    level: Level,
    accounts: BTreeMap<String, i64>,
    look: &Look,
) -> Result<()> {
    if decision.tx().has_acted_on(request.repo.id, request.comment)? {
        return Ok(());
    }
    let known = decision.tx().mission(request.mission().as_str())?;
    let is_mission =
        known.as_ref().is_some_and(Mission::is_one) || is_proposal(&look.issue.title, &look.issue.body) || look.label;
    if !is_mission && request.lines.iter().all(Line::needs_mission) {
        return no_mission(decision, request, level, known.as_ref());
    }
    decision.on_issue(&request.repo, &look.issue, |mission, new| {
        mission.take_in(look, new)?;
        let policy = &mission.context().config.policy;
        let confirm = policy.polled_commands == PolledCommands::Confirm && request.heard == Heard::Polled;
        if confirm && level == Level::Director && request.lines.iter().any(Line::is_confirmed) {
            return ask_to_confirm(mission, request);
        }
        mission.act_on(request.comment)?;
        let asked = Asked::of_comment(request, level, accounts, look.summons_base.clone());
        mission.run_commands(&asked, &request.lines, &request.misplaced)
    })
}

/// Asks somebody to confirm commands that only polling found, and waits for it.
fn ask_to_confirm(mission: &mut MissionTx<'_>, request: &AuthorityRequest) -> Result<()> {
    let hidden = request.lines.iter().find_map(|line| match line {
        Line::Command { command, .. } => mission.context().not_shown_whole(&command.to_string(), ASKED_MAX),
        Line::Refused { .. } => None,
    });
    if let Some(why) = hidden {
        let text = say::cannot_be_confirmed(&why);
        return refuse_comment(mission, request, &["confirm".to_owned()], &why, vec![(false, text)]);
    }
    let login = &request.person.login;
    let mut items = vec![(true, say::confirm(login))];
    for line in &request.lines {
        items.push(match line {
            Line::Command { command, .. } => (true, format!("`{}`", command.to_string().replace('`', "'"))),
            Line::Refused { why, .. } => (false, why.clone()),
        });
    }
    let answer = Answer { items, mentions: vec![login.clone()], ..Answer::default() };
    let id = mission.next_effect_id();
    let body = mission.context().render(&Publication::Question(answer), &id, None).body;
    let sha256 = sha256(body.trim_end());
    let question = Effect::Comment {
        repo: mission.repo().clone(),
        number: mission.known().number,
        kind: "question".to_owned(),
        body,
    };
    mission.queue_as(&id, Lane::Comments(mission.id()), &question, None)?;
    let confirm =
        Effect::Confirm { request: Box::new(request.clone()), question: id, sha256, asked_at: mission.now().0 };
    mission.queue(Lane::Confirmation(request.comment), &confirm, None)
}

/// Answers a comment none of whose commands is carried out, unless it was answered before.
/// Why is on record for each of `commands`; `items` is what its author is told.
fn refuse_comment(
    mission: &mut MissionTx<'_>,
    request: &AuthorityRequest,
    commands: &[String],
    why: &str,
    items: Vec<(bool, String)>,
) -> Result<()> {
    if !mission.act_on(request.comment)? {
        return Ok(());
    }
    for command in commands {
        mission.record(&request.actor(), None, "refused", &json!({"command": command, "why": why}))?;
    }
    mission.answer(request.comment, false, true, &Answer { items, ..Answer::default() })
}

/// Somebody did not confirm in time what only polling had found.
pub fn not_confirmed(decision: &Decision<'_>, request: &AuthorityRequest, why: &str) -> Result<()> {
    if decision.tx().has_acted_on(request.repo.id, request.comment)? {
        return Ok(());
    }
    let text = say::not_confirmed(&request.person.login, why);
    decision.on_issue(&request.repo, &request.issue, |mission, _| {
        refuse_comment(mission, request, &request.verbs(), why, vec![(false, text)])
    })
}

/// The forge could not be asked for authority: every command of the comment is answered.
pub fn could_not_be_authorized(decision: &Decision<'_>, request: &AuthorityRequest, why: &str) -> Result<()> {
    // Nobody waits for an answer to what was no command.
    let known = decision.tx().mission(request.mission().as_str())?;
    if request.lines.is_empty() || (known.is_none() && request.lines.iter().all(Line::needs_mission)) {
        return Ok(());
    }
    // The other way in which the comment was heard of may have ended first.
    if decision.tx().has_acted_on(request.repo.id, request.comment)? {
        return Ok(());
    }
    let mut items: Vec<(bool, String)> = vec![];
    for line in &request.lines {
        items.push(match line {
            Line::Refused { why, .. } => (false, why.clone()),
            Line::Command { command, .. } => (false, say::not_carried_out(command.verb())),
        });
    }
    items.push((false, say::rights_unknown(why)));
    decision.on_issue(&request.repo, &request.issue, |mission, _| {
        refuse_comment(mission, request, &request.verbs(), why, items)
    })
}

/// Commands on an issue that is no mission, which mean nothing there: who may write is
/// told so, once an issue; other people, and other bots, are left alone.
fn no_mission(
    decision: &Decision<'_>,
    request: &AuthorityRequest,
    level: Level,
    known: Option<&Mission>,
) -> Result<()> {
    decision.tx().act_on(request.repo.id, request.comment, decision.now().0)?;
    let verbs: Vec<&str> = request.lines.iter().filter_map(|line| Some(line.spec()?.name)).collect();
    let data = json!({"comment": request.comment, "commands": verbs, "why": "the issue is no mission"});
    decision.record(request.mission().as_str(), &request.actor(), None, "refused", &data)?;
    let told = known.is_some_and(|mission| mission.told_no_mission);
    let Some(verb) = verbs.first().filter(|_| level >= Level::Write && !told && !is_program(&request.person.login))
    else {
        return Ok(());
    };
    decision.on_issue(&request.repo, &request.issue, |mission, _| {
        mission.known_mut().told_no_mission = true;
        let text = say::no_mission(verb);
        let answer = Answer::one(false, text);
        mission.answer(request.comment, false, true, &answer)
    })
}

/// What was heard of a comment does not hold: it is on record, and answered where
/// somebody may wait for an answer.
pub fn disbelieved(decision: &Decision<'_>, request: &AuthorityRequest, why: Disbelief) -> Result<()> {
    let id = request.mission();
    let action = match why {
        Disbelief::Differs => "security_not_what_the_forge_has",
        Disbelief::Migrated => "security_migrated_command",
        Disbelief::Edited | Disbelief::Gone | Disbelief::NoAccount => "refused",
    };
    let data = json!({"comment": request.comment, "commands": request.verbs(), "why": why});
    decision.record(id.as_str(), &request.actor(), None, action, &data)?;
    let text = match why {
        Disbelief::Edited => say::comment_edited(),
        Disbelief::Differs => say::comment_differs(),
        Disbelief::Gone => say::comment_gone(),
        Disbelief::NoAccount => say::account_gone(),
        Disbelief::Migrated => return Ok(()),
    };
    if request.lines.is_empty() || decision.tx().has_acted_on(request.repo.id, request.comment)? {
        return Ok(());
    }
    let told = decision.on_mission(&id, |mission| {
        let answer = Answer::one(false, text.clone());
        mission.answer(request.comment, false, true, &answer)
    });
    told.map(drop)
}
