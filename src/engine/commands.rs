//! Commands, in comments and on the command line: who asked, what it does, what
//! is answered.

use super::context::Context;
use super::desk::{Desk, Release};
use super::input::{AuthorityRequest, Effect, Outcome, Until};
use crate::cell::{
    self, Actor, Approval, At, AutoRevive, BackendKind, CellId, Identity, Input as CellInput, Outcome as End, Role,
    Spec, State,
};
use crate::gitea::event::{IssueAction, IssueSnapshot, RepoRef};
use crate::mission::{
    ApprovedText, Ballot, Command, Level, Line, Publishable, SummonOptions, Verdict, duration_words, grammar, vote,
    what_changed,
};
use crate::publication::{Answer, TextChange};
use crate::store::{Result, Tx};
use crate::workspace::Held;
use serde_json::json;
use std::collections::BTreeMap;

/// Logins whose numbers have to be known: invited and revoked people.
pub(super) fn logins_in(lines: &[Line]) -> Vec<String> {
    lines
        .iter()
        .filter_map(|line| match line {
            Line::Command { command: Command::Invite { identity, .. } | Command::Revoke { identity, .. }, .. } => {
                identity.strip_prefix("human:").map(str::to_owned)
            }
            _ => None,
        })
        .collect()
}

/// Who asks, with what rights, where.
pub(super) struct Asked {
    pub(super) actor: Actor,
    pub(super) level: Level,
    /// The comment that is answered; none for an operator.
    pub(super) comment: Option<i64>,
    /// When it was given, by the forge's clock.
    pub(super) given_at: At,
    /// The text that was before the asker's eyes: of the signed event.
    pub(super) text: ApprovedText,
    pub(super) accounts: BTreeMap<String, i64>,
}

impl Asked {
    pub(super) fn of_comment(request: &AuthorityRequest, level: Level, accounts: BTreeMap<String, i64>) -> Self {
        Self {
            actor: Actor::Person { id: request.person.id, login: request.person.login.clone() },
            level,
            comment: Some(request.comment),
            given_at: At(request.written_at),
            text: ApprovedText::new(&request.issue.title, &request.issue.body),
            accounts,
        }
    }

    pub(super) fn id(&self) -> i64 {
        match &self.actor {
            Actor::Person { id, .. } => *id,
            _ => 0,
        }
    }

    pub(super) fn login(&self) -> &str {
        match &self.actor {
            Actor::Person { login, .. } => login,
            Actor::Operator { name } => name,
            Actor::System => "lazarus",
        }
    }
}

/// What is to be shown: all, or one.
pub(super) enum About<T> {
    All,
    One(T),
}

impl<T: Clone> About<T> {
    pub(super) fn of(one: Option<&T>) -> Self {
        one.map_or(Self::All, |one| Self::One(one.clone()))
    }

    const fn only(&self) -> Option<&T> {
        match self {
            Self::All => None,
            Self::One(one) => Some(one),
        }
    }
}

/// What came of one command.
#[derive(Default)]
pub(super) struct Done {
    pub(super) ok: bool,
    /// Words; empty where what follows speaks for itself.
    pub(super) says: String,
    pub(super) status: Option<About<CellId>>,
    pub(super) change: Option<TextChange>,
    pub(super) help: Option<About<String>>,
    pub(super) mentions: Vec<String>,
    pub(super) cell: Option<CellId>,
    /// What an operator's command waits for.
    pub(super) until: Option<Until>,
}

impl Done {
    pub(super) fn ok(says: impl Into<String>) -> Self {
        Self { ok: true, says: says.into(), ..Self::default() }
    }
    pub(super) fn no(says: impl Into<String>) -> Self {
        Self { says: says.into(), ..Self::default() }
    }
    pub(super) fn on(mut self, cell: &CellId) -> Self {
        self.cell = Some(cell.clone());
        self
    }
    pub(super) fn until(mut self, until: Until) -> Self {
        self.until = Some(until);
        self
    }
}

impl Desk<'_> {
    /// Runs the commands of one comment, in order, and answers once.
    pub(super) fn run_commands(&mut self, asked: &Asked, lines: &[Line]) -> Result<()> {
        let mut answer = Answer::default();
        let (mut all, mut none) = (true, true);
        for line in lines {
            let done = match line {
                Line::Refused { why, .. } => Done::no(why.clone()),
                Line::Command { command, .. } => self.command(asked, command)?,
            };
            if let (false, Line::Command { command, .. }) = (done.ok, line) {
                let why = self.context.redact(&done.says);
                self.record(
                    &asked.actor,
                    done.cell.as_ref(),
                    "refused",
                    &json!({"command": verb_of(command), "why": why}),
                )?;
            }
            all &= done.ok;
            none &= !done.ok;
            if !done.says.is_empty() {
                answer.items.push((done.ok, done.says));
            }
            if let Some(only) = done.status {
                answer.status = Some(self.status(only.only())?);
            }
            answer.change = done.change.or(answer.change);
            if let Some(only) = done.help {
                answer.help.extend(
                    grammar()
                        .iter()
                        .filter(|c| only.only().is_none_or(|o| o == c.name))
                        .map(|c| (c.usage.replace('|', "\\|"), c.who.to_owned(), c.does.to_owned())),
                );
            }
            answer.mentions.extend(done.mentions);
        }
        if let Some(comment) = asked.comment {
            self.answer(comment, all, none, &answer)?;
        }
        self.show()
    }

    /// The live cell that a command is about, or why that is not clear.
    pub(super) fn which(&self, named: Option<&CellId>) -> Result<std::result::Result<CellId, String>> {
        if let Some(id) = named {
            return Ok(match self.cell(id)? {
                Some(cell) => Ok(cell.id),
                None => Err(format!("there is no cell `{id}` in this mission")),
            });
        }
        let live: Vec<_> = self.live_cells()?;
        Ok(match live.as_slice() {
            [] => Err("this mission has no live cell".to_owned()),
            [one] => Ok(one.id.clone()),
            many => Err(format!(
                "this mission has {} live cells; name one: {}",
                many.len(),
                many.iter().map(|c| format!("`{}` ({})", c.id, c.state)).collect::<Vec<_>>().join(", ")
            )),
        })
    }

    /// Applies a cell input to the cell that is meant, and words a refusal.
    pub(super) fn on_cell(
        &mut self,
        named: Option<&CellId>,
        input: &CellInput,
        actor: &Actor,
        then: impl FnOnce(&Self, &CellId) -> Result<Done>,
    ) -> Result<Done> {
        let id = match self.which(named)? {
            Ok(id) => id,
            Err(why) => return Ok(Done::no(why)),
        };
        match self.apply(&id, input, actor)? {
            Ok(_) => Ok(then(self, &id)?.on(&id)),
            Err(refusal) => Ok(Done::no(refusal.to_string()).on(&id)),
        }
    }

    #[allow(clippy::too_many_lines, reason = "one arm a command, as the table in contract §7")]
    pub(super) fn command(&mut self, asked: &Asked, command: &Command) -> Result<Done> {
        let director = asked.level == Level::Director;
        let writer = asked.level >= Level::Write;
        let only_directors = |what: &str| {
            Done::no(format!("`/{what}` is for directors of this repository, and `{}` is not one", asked.login()))
        };
        let not_yet =
            |what: &str| Done::no(format!("`/{what}` is known, but this version of Lazarus cannot do it yet"));
        let actor = &asked.actor;
        Ok(match command {
            Command::Help { command } => Done { ok: true, help: Some(About::of(command.as_ref())), ..Done::default() },
            Command::Status { cell } => match cell {
                Some(id) if self.cell(id)?.is_none() => Done::no(format!("there is no cell `{id}` in this mission")),
                only => Done { ok: true, status: Some(About::of(only.as_ref())), ..Done::default() },
            },
            Command::Summon { agents, options } => {
                if !writer {
                    return Ok(Done::no(format!(
                        "`{}` may read this repository, not write to it; people with write access may ask for a cell, and anybody may propose a mission by the issue template",
                        asked.login()
                    )));
                }
                self.summon(asked, agents, options)?
            }
            Command::Approve if !director => only_directors("approve"),
            Command::Approve => self.approve(asked)?,
            Command::Reject { .. } if !director => only_directors("reject"),
            Command::Reject { reason } => match self.mission.ballot.take() {
                None => Done::no("there is nothing to reject here"),
                Some(ballot) => {
                    let reason = reason.clone().unwrap_or_else(|| "no reason was given".to_owned());
                    let drop = CellInput::Drop { outcome: End::Rejected, reason };
                    match self.apply(&ballot.cell, &drop, actor)? {
                        Ok(_) => Done::ok(format!("Cell `{}` is rejected.", ballot.cell)).on(&ballot.cell),
                        Err(refusal) => Done::no(refusal.to_string()),
                    }
                }
            },
            Command::Invite { .. } if !director => only_directors("invite"),
            Command::Invite { identity, role, cell } => self.invite(asked, identity, *role, cell.as_ref())?,
            Command::Revoke { .. } if !director => only_directors("revoke"),
            Command::Revoke { identity, cell } => {
                let Ok(identity) = Identity::parse(identity) else {
                    return Ok(Done::no("an identity is `agent:NAME`, `bot:NAME` or `human:LOGIN`"));
                };
                let input = CellInput::Revoke { identity: identity.clone() };
                self.on_cell(cell.as_ref(), &input, actor, |_, id| {
                    Ok(Done::ok(format!("`{identity}` takes no part in `{id}` any more.")))
                })?
            }
            Command::Accept { cell } => {
                let Actor::Person { id, login } = actor else {
                    return Ok(Done::no("an invitation is accepted by the person who was invited, in a comment"));
                };
                let Ok(identity) = Identity::parse(&format!("human:{login}")) else {
                    return Ok(Done::no("this login cannot take part in a cell"));
                };
                // Without a cell: the one that has the invitation.
                let mut named = cell.clone();
                if named.is_none() {
                    let invited: Vec<CellId> = self
                        .live_cells()?
                        .into_iter()
                        .filter(|c| {
                            c.participant(&identity)
                                .is_some_and(|p| matches!(p.state, cell::ParticipantState::Invited { .. }))
                        })
                        .map(|c| c.id)
                        .collect();
                    if let [one] = invited.as_slice() {
                        named = Some(one.clone());
                    }
                }
                let input = CellInput::Accept { identity: identity.clone(), forge_id: Some(*id) };
                self.on_cell(named.as_ref(), &input, actor, |desk, id| {
                    let role = desk.cell(id)?.and_then(|c| c.participant(&identity).map(|p| p.role));
                    Ok(Done::ok(format!(
                        "`{identity}` takes part in `{id}` as {}.",
                        role.map_or("participant", Role::word)
                    )))
                })?
            }
            Command::Tell { .. } if !writer => Done::no("`/tell` is for people with write access"),
            Command::Tell { agent, text } => {
                let input = CellInput::Work { agent: Some(agent.clone()), text: text.clone() };
                self.on_cell(None, &input, actor, |_, _| Ok(Done::ok("")))?
            }
            Command::Extend { .. } if !director => only_directors("extend"),
            Command::Extend { by, cell } => {
                self.on_cell(cell.as_ref(), &CellInput::Extend { by: *by }, actor, |desk, id| {
                    let until = desk.cell(id)?.and_then(|c| c.expires_at).map(super::desk::time_words);
                    Ok(Done::ok(format!("Cell `{id}` may run until {}.", until.unwrap_or_default())))
                })?
            }
            Command::Pause { .. } if !director => only_directors("pause"),
            Command::Pause { cell } => self.on_cell(cell.as_ref(), &CellInput::Pause, actor, |_, id| {
                Ok(Done::ok(format!("Cell `{id}` is frozen.")))
            })?,
            Command::Resume { .. } if !director => only_directors("resume"),
            Command::Resume { cell } => self.on_cell(cell.as_ref(), &CellInput::Resume, actor, |_, id| {
                Ok(Done::ok(format!("Cell `{id}` goes on.")))
            })?,
            Command::Revive { .. } if !director => only_directors("revive"),
            Command::Revive { agent } => {
                if !self.mission.open {
                    return Ok(Done::no("the issue is closed; nothing is revived on a closed mission"));
                }
                self.on_cell(None, &CellInput::Revive { agent: agent.clone() }, actor, |_, id| {
                    Ok(Done::ok(format!("Cell `{id}` is revived.")))
                })?
            }
            Command::Decide { .. } if !director => only_directors("decide"),
            Command::Decide { text } => {
                let id = match self.which(None)? {
                    Ok(id) => id,
                    Err(why) => return Ok(Done::no(why)),
                };
                let head = self.record(actor, Some(&id), "decided", &json!({"text": text}))?;
                let line = json!({"id": head.seq, "at": self.now.0, "by": asked.login(), "decision": text}).to_string();
                let effect = Effect::Record { file: "decisions.jsonl".to_owned(), line };
                self.queue(format!("cell:{id}"), &effect, Some(&id), 0)?;
                Done::ok(format!("Decision {} is on record.", head.seq)).on(&id)
            }
            Command::Close { .. } if !director => only_directors("close"),
            Command::Close { outcome, reason, cell } => {
                let input = CellInput::Close { outcome: *outcome, reason: reason.clone() };
                let id = match self.which(cell.as_ref())? {
                    Ok(id) => id,
                    Err(why) => return Ok(Done::no(why)),
                };
                match self.apply(&id, &input, actor)? {
                    Ok(_) => {
                        if self.mission.ballot.as_ref().is_some_and(|b| b.cell == id) {
                            self.mission.ballot = None;
                        }
                        Done::ok("").on(&id).until(Until::Closed)
                    }
                    Err(refusal) => Done::no(refusal.to_string()).on(&id),
                }
            }
            Command::Resurrect { .. } if !director => only_directors("resurrect"),
            Command::Resurrect { cell } => {
                if !self.mission.open {
                    return Ok(Done::no("the issue is closed; reopen it first"));
                }
                let named = match cell {
                    Some(id) => Some(id.clone()),
                    None => {
                        let closed: Vec<CellId> = self
                            .tx
                            .cells_of(&self.id)?
                            .into_iter()
                            .filter(|r| r.cell.state == State::Closed)
                            .map(|r| r.cell.id)
                            .collect();
                        match closed.as_slice() {
                            [one] => Some(one.clone()),
                            [] => return Ok(Done::no("this mission has no closed cell")),
                            many => {
                                let names: Vec<String> = many.iter().map(|c| format!("`{c}`")).collect();
                                return Ok(Done::no(format!("name one: {}", names.join(", "))));
                            }
                        }
                    }
                };
                self.on_cell(
                    named.as_ref(),
                    &CellInput::Resurrect,
                    actor,
                    |_, _| Ok(Done::ok("").until(Until::Active)),
                )?
            }
            Command::Destroy { .. } if !director => only_directors("destroy"),
            Command::Destroy { cell } => {
                let input = CellInput::Destroy { reason: Some(format!("destroyed by {}", asked.login())) };
                let done = self.on_cell(Some(cell), &input, actor, |_, id| {
                    Ok(Done::ok(format!("Cell `{id}` is destroyed; the ledger remains.")).until(Until::Scrubbed))
                })?;
                if done.ok && self.mission.ballot.as_ref().is_some_and(|b| b.cell == *cell) {
                    self.mission.ballot = None;
                }
                done
            }
            Command::Checkpoint { .. } if !director => only_directors("checkpoint"),
            Command::Checkpoint { note } => {
                let input = CellInput::Checkpoint { note: note.clone() };
                self.on_cell(None, &input, actor, |_, _| Ok(Done::ok("")))?
            }
            Command::Substitute { .. } => not_yet("substitute"),
            Command::Handoff { .. } => not_yet("handoff"),
            Command::Vote { .. } => not_yet("vote"),
            Command::Publish { .. } if !director => only_directors("publish"),
            Command::Publish { what: Publishable::Work, cell } => self.publish_again(asked, cell.as_ref())?,
            Command::Publish { what, cell } => self.publish_file(what, cell.as_ref(), actor)?,
        })
    }

    /// Has people told, once a mission, what of the project a cell would lack.
    pub(super) fn look_at_project(&mut self) -> Result<()> {
        if self.mission.cells.len() <= 1 {
            let effect = Effect::LookAtProject { repo: self.repo.clone() };
            self.queue(format!("look:{}", self.id), &effect, None, 0)?;
        }
        Ok(())
    }

    /// Lets something optional out of a cell that is still on disk.
    pub(super) fn publish_file(&mut self, what: &Publishable, named: Option<&CellId>, actor: &Actor) -> Result<Done> {
        let mut cells: Vec<CellId> = vec![];
        for row in self.tx.cells_of(&self.id)? {
            let there = row.cell.started_at.is_some() && !matches!(row.cell.state, State::Archived | State::Destroyed);
            if there && named.is_none_or(|id| *id == row.cell.id) {
                cells.push(row.cell.id);
            }
        }
        match cells.as_slice() {
            [id] => {
                let id = id.clone();
                self.record(actor, Some(&id), "publish_asked", &json!({"what": what}))?;
                let effect = Effect::PublishFile {
                    repo: self.repo.clone(),
                    number: self.mission.number,
                    what: what.clone(),
                    by: actor.clone(),
                };
                self.queue(format!("cell:{id}"), &effect, Some(&id), 0)?;
                Ok(Done::ok("").on(&id))
            }
            [] => Ok(Done::no("there is no such cell of this mission whose files are still there")),
            many => {
                let names: Vec<String> = many.iter().map(|c| format!("`{c}`")).collect();
                Ok(Done::no(format!("name one: {}", names.join(", "))))
            }
        }
    }

    /// Tries to publish a cell's work again, where the forge refused it, or it was
    /// held. What the forge would run by itself goes with it, if it is just what
    /// was shown before the command was given. A known secret never does.
    pub(super) fn publish_again(&mut self, asked: &Asked, named: Option<&CellId>) -> Result<Done> {
        let mut cells = vec![];
        for row in self.tx.cells_of(&self.id)? {
            let facts = super::desk::facts_of(&row.facts);
            let missing = facts.held().next().is_some()
                || facts.published.as_ref().is_some_and(super::input::PublishedWork::lacks_something);
            let wanted = named.is_none_or(|id| *id == row.cell.id);
            if wanted && missing && !facts.publishing && row.cell.state != State::Destroyed {
                cells.push((row.cell, facts));
            }
        }
        let (cell, mut facts) = match cells.as_slice() {
            [one] => one.clone(),
            [] => return Ok(Done::no("there is no closed cell here whose work the forge refused, or that is held")),
            many => {
                let names: Vec<String> = many.iter().map(|(c, _)| format!("`{}`", c.id)).collect();
                return Ok(Done::no(format!("name one: {}", names.join(", "))));
            }
        };
        let id = cell.id.clone();
        let mut release = Release::default();
        for held in facts.held().filter(|held| !held.has_secret()) {
            release.tried.push(held.commit.clone());
            if held.can_be_released() {
                release.released.push(held.commit.clone());
            }
        }
        if !release.released.is_empty() {
            let shown = facts.held_shown.as_deref().map(|effect| self.tx.comment_of_effect(effect)).transpose()?;
            let seen = shown.flatten().is_some_and(|shown| asked.comment.is_none_or(|comment| comment > shown));
            if !seen {
                return Ok(Done::no(format!(
                    "what is held of `{id}` is other than what was shown when this command was given; look at it and give the command again"
                ))
                .on(&id));
            }
            let what: Vec<&Held> = facts.held().filter(|held| release.released.contains(&held.commit)).collect();
            self.record(&asked.actor, Some(&id), "work_released", &json!({"released": what}))?;
        }
        if !self.publish_work(&cell, &facts, &release)? {
            let words: Vec<String> = facts.held().map(Held::words).collect();
            return Ok(Done::no(format!(
                "nothing of `{id}` can be released: {}. A known secret never leaves; `lazarus work {id} DIR` gives the work to an operator",
                words.join("; ")
            ))
            .on(&id));
        }
        facts.published = None;
        self.put_facts(&id, &facts)?;
        let mut says = String::new();
        if !release.released.is_empty() {
            let words: Vec<String> =
                facts.held().filter(|held| release.released.contains(&held.commit)).map(Held::words).collect();
            says = format!("Released by `{}`: {}.", asked.login(), words.join("; "));
        }
        Ok(Done::ok(says).on(&id).until(Until::Published))
    }

    pub(super) fn invite(&mut self, asked: &Asked, identity: &str, role: Role, cell: Option<&CellId>) -> Result<Done> {
        let Ok(identity) = Identity::parse(identity) else {
            return Ok(Done::no("an identity is `agent:NAME`, `bot:NAME` or `human:LOGIN`"));
        };
        let mut forge_id = None;
        match &identity {
            Identity::Agent(name) if self.context.profiles.get(name).is_none() => {
                return Ok(Done::no(format!(
                    "there is no agent `{name}`; allowed are {}. A person is `human:LOGIN`",
                    self.context.profiles.names().join(", ")
                )));
            }
            Identity::Human(login) => match asked.accounts.get(&login.to_lowercase()) {
                Some(id) => forge_id = Some(*id),
                None => return Ok(Done::no(format!("the forge knows no account `{login}`"))),
            },
            _ => {}
        }
        let ttl = duration_words(self.context.defaults().policy.invitation_ttl);
        let input = CellInput::Invite { identity: identity.clone(), forge_id, role };
        let mut done = self.on_cell(cell, &input, &asked.actor, |_, id| {
            Ok(match &identity {
                Identity::Human(_) => Done::ok(format!(
                    "`{identity}` is invited to `{id}` as {role}, and accepts with `/accept` within {ttl}."
                )),
                _ => Done::ok(format!("`{identity}` takes part in `{id}` as {role}.")),
            })
        })?;
        if done.ok
            && let Identity::Human(login) = &identity
        {
            done.mentions.push(login.clone());
        }
        Ok(done)
    }

    pub(super) fn approve(&mut self, asked: &Asked) -> Result<Done> {
        if self.mission.ballot.is_none() {
            return Ok(Done::no(
                if self.mission.is_proposal && self.mission.complained_of.as_deref() == Some(&self.mission.text) {
                    "this proposal cannot be read as it is, so it cannot be approved; see the comment that names its fields"
                } else {
                    "there is no open proposal or request here; `/summon AGENT` asks for a cell"
                },
            ));
        }
        if !self.mission.open {
            return Ok(Done::no("the issue is closed"));
        }
        let policy = &self.context.config.policy;
        let ms = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        // What counts is the text that the approval was given on.
        let text = asked.text.clone();
        let verdict = vote(
            &mut self.mission,
            &text,
            (asked.id(), asked.login()),
            asked.given_at,
            self.now,
            ms(policy.approval_settle),
            ms(policy.council_window),
            policy.proposer_may_vote,
        );
        let Some(ballot) = self.mission.ballot.clone() else { return Ok(Done::no("there is nothing to approve")) };
        match verdict {
            Verdict::Nothing => Ok(Done::no("there is nothing to approve")),
            Verdict::NotCounted(why) => Ok(Done::no(format!("This approval does not count: {why}."))),
            Verdict::TooSoon => {
                let mut done =
                    self.too_soon("approval", "Look at it and `/approve` again if that is what you mean.")?;
                done.cell = Some(ballot.cell);
                Ok(done)
            }
            Verdict::Counted { missing } => {
                self.record(
                    &asked.actor,
                    Some(&ballot.cell),
                    "voted",
                    &json!({"text": text.hash, "missing": missing}),
                )?;
                Ok(Done::ok(format!(
                    "Counted; {missing} more approval{} needed.",
                    if missing == 1 { " is" } else { "s are" }
                ))
                .on(&ballot.cell))
            }
            Verdict::Approved { by } => {
                if ballot.council.is_some() {
                    self.record(&asked.actor, Some(&ballot.cell), "voted", &json!({"text": text.hash, "missing": 0}))?;
                }
                self.mission.ballot = None;
                let mut approvers: Vec<Actor> = by.into_iter().map(|(id, login)| Actor::Person { id, login }).collect();
                if matches!(asked.actor, Actor::Operator { .. }) {
                    approvers = vec![asked.actor.clone()];
                }
                self.start(&ballot.cell, text.hash, approvers, &asked.actor)
            }
        }
    }

    /// Approves a cell that is proposed: from here on it prepares itself.
    pub(super) fn start(&mut self, cell: &CellId, text: String, by: Vec<Actor>, actor: &Actor) -> Result<Done> {
        match self.apply(cell, &CellInput::Approve { approval: Approval { text, by } }, actor)? {
            Ok(_) => Ok(Done::ok("").on(cell).until(Until::Active)),
            Err(refusal) => Ok(Done::no(refusal.to_string()).on(cell)),
        }
    }

    pub(super) fn too_soon(&self, what: &str, then: &str) -> Result<Done> {
        let before = self.mission.text_before.as_deref().map(|h| self.tx.text(h)).transpose()?.flatten();
        let change = match before {
            Some(before) => Some(TextChange { diff: what_changed(&before, &self.text()?, 60) }),
            None => None,
        };
        let settle = self.context.config.policy.approval_settle;
        Ok(Done {
            change,
            ..Done::no(format!(
                "The text was changed less than {} before this {what}, so it may not be the text that was read. {then}",
                duration_words(settle.as_millis() as i64)
            ))
        })
    }

    pub(super) fn summon(&mut self, asked: &Asked, agents: &[String], options: &SummonOptions) -> Result<Done> {
        if !self.mission.open {
            return Ok(Done::no("the issue is closed; reopen it to ask for a cell"));
        }
        let spec = match self.spec(agents, options) {
            Ok(spec) => spec,
            Err(why) => return Ok(Done::no(why)),
        };
        let most = self.context.config.policy.max_cells_per_mission as usize;
        let live = self.live_cells()?;
        if live.len() >= most {
            return Ok(Done::no(format!("a mission may have {most} live cells; close one first")));
        }
        if asked.text.hash != self.mission.text {
            // The event's text is not the newest that is known: somebody edited in between.
            return Ok(Done::no(
                "the issue's text was changed since this command was given; look at it and give the command again",
            ));
        }
        let director = asked.level == Level::Director;
        let settle = i64::try_from(self.context.config.policy.approval_settle.as_millis()).unwrap_or(i64::MAX);
        let warned = (asked.id(), self.mission.text.clone());
        if director
            && asked.comment.is_some()
            && self.mission.edited_at.is_some_and(|edited| asked.given_at.0 - edited.0 < settle)
            && !self.mission.summons_warned.contains(&warned)
        {
            self.mission.summons_warned.push(warned);
            return self.too_soon("summons", "Look at it and give the command again if that is what you mean.");
        }
        if !director && self.mission.ballot.is_some() {
            return Ok(Done::no("another proposal or request is before the directors already"));
        }
        let cell = new_cell_id();
        let propose = CellInput::Propose {
            id: cell.clone(),
            mission: self.id.clone(),
            spec,
            policy: self.context.defaults().policy,
        };
        if let Err(refusal) = self.apply(&cell, &propose, &asked.actor)? {
            return Ok(Done::no(refusal.to_string()));
        }
        let text = self.mission.text.clone();
        self.look_at_project()?;
        if director {
            return self.start(&cell, text, vec![asked.actor.clone()], &asked.actor);
        }
        self.mission.ballot = Some(Ballot {
            cell: cell.clone(),
            text,
            proposer: asked.id(),
            council: None,
            members: None,
            votes: vec![],
            warned: vec![],
            request: true,
        });
        Ok(Done::ok(format!(
            "Recorded as a request (cell `{cell}`): a director approves it with `/approve`, or rejects it with `/reject`."
        ))
        .on(&cell))
    }

    pub(super) fn spec(&self, agents: &[String], options: &SummonOptions) -> std::result::Result<Spec, String> {
        let defaults = self.context.defaults();
        for agent in agents {
            if !defaults.agents.contains(agent) {
                let near =
                    self.context.profiles.nearest(agent).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                return Err(format!("there is no agent `{agent}`; allowed are {}{near}", defaults.agents.join(", ")));
            }
        }
        if agents.len() > defaults.agents_max {
            return Err(format!("a cell has at most {} agents", defaults.agents_max));
        }
        let backend = options.backend.unwrap_or(BackendKind::Process);
        if !defaults.backends.contains(&backend) {
            let there: Vec<&str> = defaults.backends.iter().map(|b| b.word()).collect();
            return Err(format!("backend=`{backend}` is not available here; allowed are {}", there.join(", ")));
        }
        let isolation = options.isolation.unwrap_or(defaults.isolation_min);
        if isolation < defaults.isolation_min {
            return Err(format!(
                "isolation=`{isolation}` is weaker than `{}`, the least that policy allows",
                defaults.isolation_min
            ));
        }
        let network = options.network.unwrap_or(cell::Network::None);
        if let Some(why) = self.context.network_refusal(network, &[]) {
            return Err(format!("network=`{network}`: {why}"));
        }
        let ttl = options.ttl.unwrap_or(defaults.ttl_default).min(options.ttl.unwrap_or(defaults.policy.ttl_max));
        if ttl > defaults.policy.ttl_max {
            return Err(format!(
                "ttl is longer than {}, the most that policy allows",
                duration_words(defaults.policy.ttl_max)
            ));
        }
        Ok(Spec {
            agents: agents.to_vec(),
            backend,
            isolation,
            network,
            hosts: vec![],
            ttl,
            model: options.model.clone(),
            task: options.task.clone(),
            auto_revive: AutoRevive::Ask,
            limits: cell::LimitsWanted::default(),
        })
    }
}

/// The word of a command, without its arguments.
pub(super) fn verb_of(command: &Command) -> String {
    serde_json::to_value(command)
        .ok()
        .and_then(|v| v.get("verb").and_then(|v| v.as_str().map(str::to_owned)))
        .unwrap_or_default()
}

pub(super) fn new_cell_id() -> CellId {
    let mut bytes = [0u8; 10];
    // Without randomness from the kernel nothing here is safe any more.
    #[allow(clippy::expect_used, reason = "there is no way to go on without it")]
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    CellId::from_random(bytes)
}

#[allow(clippy::too_many_arguments, reason = "the parts of one input")]
pub(super) fn operated(
    tx: &Tx<'_>,
    context: &Context,
    now: At,
    key: &str,
    operation: &str,
    by: String,
    command: Command,
    issue: Option<Box<(RepoRef, IssueSnapshot)>>,
    cell: Option<CellId>,
    accounts: BTreeMap<String, i64>,
) -> Result<()> {
    let refuse = |message: String| {
        let text = serde_json::to_string(&Outcome::refused(message)).unwrap_or_default();
        tx.put_operation(operation, &text, now.0)
    };
    let mut desk = if let Some(found) = &issue {
        let (mut desk, new) = Desk::for_issue(tx, context, now, key, &found.0, &found.1)?;
        if new {
            desk.take_on(&found.1, IssueAction::Seen)?;
        } else {
            desk.observe(&found.1, IssueAction::Seen)?;
        }
        desk
    } else {
        let Some(cell) = &cell else { return refuse("neither a mission nor a cell was named".to_owned()) };
        match Desk::of_cell(tx, context, now, key, cell)? {
            Some(desk) => desk,
            None => return refuse(format!("there is no cell {cell}; `lazarus status` lists them")),
        }
    };
    let text = desk.text()?;
    let asked = Asked {
        actor: Actor::Operator { name: by },
        level: Level::Director,
        comment: None,
        given_at: now,
        text,
        accounts,
    };
    let done = desk.command(&asked, &command)?;
    let target = done.cell.clone().or(cell);
    let row = target.as_ref().map(|id| tx.cell(id.as_str())).transpose()?.flatten();
    let mut waits = false;
    if let (true, Some(until), Some(row)) = (done.ok, done.until, &row) {
        let mut facts = desk.facts(&row.cell.id)?;
        let there = match until {
            Until::Active => row.cell.state == State::Active,
            Until::Closed => !row.cell.state.is_live() && !facts.publishing,
            Until::Published | Until::Scrubbed => false,
        };
        if !there {
            facts.waiting.push((operation.to_owned(), until));
            desk.put_facts(&row.cell.id, &facts)?;
            waits = true;
        }
    }
    if !waits {
        let mut outcome = match &row {
            Some(row) => desk.cell_outcome(&row.cell, &super::desk::facts_of(&row.facts)),
            None => Outcome::default(),
        };
        outcome.success = done.ok;
        outcome.message = if done.says.is_empty() { "done".to_owned() } else { done.says.replace('`', "") };
        match &command {
            Command::Invite { identity, role, .. } => {
                outcome.more.insert("guest".into(), json!(identity));
                outcome.more.insert("role".into(), json!(role));
                outcome.more.insert("invited_by".into(), json!(asked.login()));
            }
            Command::Revoke { identity, .. } => {
                outcome.more.insert("guest".into(), json!(identity));
            }
            _ => {}
        }
        desk.settle_operation(operation, &outcome)?;
    }
    desk.show()?;
    desk.close()
}
