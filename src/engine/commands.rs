//! Commands, in comments and on the command line: who asked, what it does, what
//! is answered.

use super::attempt::milliseconds;
use super::context::Context;
use super::desk::{Desk, Release};
use super::input::{AuthorityRequest, Effect, Facts, Look, Outcome, Until};
use crate::cell::{
    self, Actor, Approval, At, AutoRevive, BackendKind, Base, CellId, Identity, Input as CellInput, Outcome as End,
    Role, Spec, State,
};
use crate::gitea::event::RepoRef;
use crate::mission::{
    ApprovedText, Approving, Command, Concern, DecisionRecord, Level, Line, Misplaced, Moment, OPEN_MAX, Origin,
    Publishable, Rules, SummonOptions, TEMPLATE_MARKER, Verdict, duration_words, grammar, hidden_in_title,
    hidden_parts, what_changed,
};
use crate::publication::{Answer, SHOWN_BYTES_MAX, TextChange};
use crate::repository::Held;
use crate::store::{Result, StoreError, Tx};
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
    /// When it was given, on the forge; none for an operator.
    pub(super) given: Option<Moment>,
    /// The text that was before the asker's eyes: of the signed event.
    pub(super) text: ApprovedText,
    /// SHA-256 of the comment's text, hex.
    pub(super) sha256: String,
    pub(super) accounts: BTreeMap<String, i64>,
    /// Where a cell that is asked for would start.
    pub(super) base: Option<Base>,
}

impl Asked {
    pub(super) fn of_comment(
        request: &AuthorityRequest,
        level: Level,
        accounts: BTreeMap<String, i64>,
        base: Option<Base>,
    ) -> Self {
        Self {
            actor: Actor::Person { id: request.person.id, login: request.person.login.clone() },
            level,
            comment: Some(request.comment),
            given: Some(Moment { at: At(request.written_at), id: Some(request.comment) }),
            text: ApprovedText::new(&request.issue.title, &request.issue.body),
            sha256: request.sha256.clone(),
            accounts,
            base,
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
    pub(super) fn run_commands(&mut self, asked: &Asked, lines: &[Line], misplaced: &[Misplaced]) -> Result<()> {
        let mut answer = Answer::default();
        let (mut all, mut none) = (true, true);
        let notice = self.misplaced_words(asked, misplaced)?;
        if lines.is_empty() && notice.is_none() {
            return Ok(());
        }
        for line in lines {
            let verb = verb_of_line(line);
            let mut done = match line {
                Line::Refused { why, .. } => Done::no(why.clone()),
                Line::Command { command, .. } => self.command(asked, command)?,
            };
            if !done.ok {
                let why = match line {
                    // What could not be read may hold anything that a person wrote.
                    Line::Refused { .. } => "it cannot be read as a command".to_owned(),
                    Line::Command { .. } => self.context.redact(&done.says),
                };
                self.record(&asked.actor, done.cell.as_ref(), "refused", &json!({"command": verb, "why": why}))?;
            }
            all &= done.ok;
            none &= !done.ok;
            // Among several, each answer says which command it is for.
            if lines.len() > 1 {
                let says = if done.says.is_empty() { "done." } else { done.says.as_str() };
                let own = format!("`/{verb}`: ");
                done.says = if verb.is_empty() || says.starts_with(&own) { says.to_owned() } else { own + says };
            }
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
                        .map(|c| (c.usage.replace('|', "\\|"), c.who_words.to_owned(), c.does.to_owned())),
                );
            }
            answer.mentions.extend(done.mentions);
        }
        if let Some(notice) = notice {
            let names: Vec<&str> = misplaced.iter().map(|m| m.name.as_str()).collect();
            self.record(&asked.actor, None, "misplaced", &json!({"commands": names}))?;
            all = false;
            answer.items.push((false, notice));
        }
        if let Some(comment) = asked.comment {
            self.answer(comment, all, none, &answer)?;
        }
        self.show()
    }

    /// The live cell that a command is about, or why that is not clear.
    pub(super) fn which(&self, named: Option<&CellId>) -> Result<std::result::Result<CellId, String>> {
        if let Some(id) = named.or(self.meant.as_ref()) {
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
            Command::Approve { .. } if !director => only_directors("approve"),
            Command::Approve { number } => self.approve(asked, *number)?,
            Command::Reject { .. } if !director => only_directors("reject"),
            Command::Reject { number, reason } => self.reject(asked, *number, reason.as_deref())?,
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
                let id = match self.which(cell.as_ref())? {
                    Ok(id) => id,
                    Err(why) => return Ok(Done::no(why)),
                };
                // A request is not a live cell: it is decided, not closed.
                if let Some(record) = self.mission.records.iter().find(|r| r.cell == id) {
                    let number = record.number;
                    let why = format!("request {number} is not approved yet; use `/reject {number}`");
                    return Ok(Done::no(why).on(&id));
                }
                let input = self.how_it_ended(&id, *outcome, reason.clone())?;
                match self.apply(&id, &input, actor)? {
                    Ok(_) => Done::ok("").on(&id).until(Until::Closed),
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
                if let Some(record) = self.mission.records.iter().find(|r| done.ok && r.cell == *cell).cloned() {
                    self.mission.take_record(record.number);
                    self.show_record(&record, &format!("Its cell was destroyed by {}.", asked.login()), false)?;
                }
                done
            }
            Command::Checkpoint { .. } if !director => only_directors("checkpoint"),
            Command::Checkpoint { note } => {
                let input = CellInput::Checkpoint { note: note.clone() };
                self.on_cell(None, &input, actor, |_, _| Ok(Done::ok("").until(Until::Snapshot)))?
            }
            Command::Substitute { .. } => not_yet("substitute"),
            Command::Handoff { .. } => not_yet("handoff"),
            Command::Vote { .. } => not_yet("vote"),
            Command::Publish { .. } if !director => only_directors("publish"),
            Command::Publish { what: Publishable::Work, cell } => self.publish_again(asked, cell.as_ref())?,
            Command::Publish { what, cell } => self.publish_file(what, cell.as_ref(), actor)?,
        })
    }

    /// How a cell is closed. Where the director did not say how it ended, it did not end
    /// well if an agent ended badly; and where all have ended, the work decides, once it
    /// is read (contract §10).
    fn how_it_ended(&mut self, id: &CellId, said: Option<End>, reason: Option<String>) -> Result<CellInput> {
        let Some(cell) = self.cell(id)? else {
            return Ok(CellInput::Close { outcome: said.unwrap_or(End::Completed), reason });
        };
        let mut facts = self.facts(id)?;
        let (mut bad, mut all_ended) = (vec![], true);
        for worker in cell.workers() {
            match &worker.run {
                cell::RunState::Ended { exit, .. } if !exit.success => {
                    bad.push(format!("agent {} ended badly: {exit}", worker.identity.name()));
                }
                cell::RunState::Ended { .. } => {}
                _ => all_ended = false,
            }
        }
        let open = said.is_none() && bad.is_empty() && all_ended && cell.state.is_live();
        if facts.outcome_open != open && cell.state.is_live() {
            facts.outcome_open = open;
            self.put_facts(id, &facts)?;
        }
        Ok(match said {
            Some(outcome) => CellInput::Close { outcome, reason },
            None if bad.is_empty() => CellInput::Close { outcome: End::Completed, reason },
            None => CellInput::Close { outcome: End::Failed, reason: reason.or_else(|| Some(bad.join("; "))) },
        })
    }

    /// What whoever wrote commands where none counts is told; `None` where they could not
    /// give them either, or nobody wrote any.
    fn misplaced_words(&self, asked: &Asked, misplaced: &[Misplaced]) -> Result<Option<String>> {
        let mut found = vec![];
        for command in misplaced {
            if self.may_give(asked, &command.name)? {
                found.push(format!("`/{}` ({})", command.name, command.place.words()));
            }
        }
        Ok((!found.is_empty()).then(|| {
            format!(
                "Not carried out: {}. A command counts at the start of a line of its own, as ordinary text, with an empty line above it. Give it again so, in a new comment.",
                found.join(", ")
            )
        }))
    }

    /// Whether somebody has the right to a command, by its name.
    fn may_give(&self, asked: &Asked, name: &str) -> Result<bool> {
        Ok(match name {
            "status" | "help" => true,
            "summon" | "team" | "tell" => asked.level >= Level::Write,
            "accept" => self.live_cells()?.iter().any(|cell| {
                cell.participant_by_account(Some(asked.id())).is_some_and(|p| p.open_invitation().is_some())
            }),
            _ => asked.level == Level::Director,
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
                Ok(Done::ok("").on(&id).until(Until::FileLeft))
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
            let facts = Facts::of(&row)?;
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
                None => {
                    return Ok(Done::no(format!(
                        "the forge knows no account `{login}`; one that was renamed goes by its new name"
                    )));
                }
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

    /// Counts an approval, however it was given, and starts the cell if that is enough.
    pub(super) fn approve(&mut self, asked: &Asked, number: Option<u32>) -> Result<Done> {
        if !self.mission.open {
            return Ok(Done::no("the issue is closed"));
        }
        let seen = self.has_seen(asked.id(), Concern::Edit, asked.given)?;
        let approving = Approving { id: asked.id(), login: asked.login().to_owned(), given: asked.given, number, seen };
        if let Some(done) = self.not_as_shown(asked, number)? {
            return Ok(done);
        }
        let (current, rules) = (self.mission.text.clone(), self.rules());
        match self.mission.approve(&current, &approving, rules, self.now) {
            Verdict::NothingOpen
                if self.mission.is_proposal && self.mission.complained_of.as_deref() == Some(&self.mission.text) =>
            {
                Ok(Done::no(
                    "this proposal cannot be read as it is, so it cannot be approved; see the comment that names its fields",
                ))
            }
            Verdict::NothingOpen => {
                Ok(Done::no("there is no open proposal or request here; `/summon AGENT` asks for a cell"))
            }
            Verdict::Several { open } => Ok(Done::no(format!(
                "several requests are open, so nothing is started; name one: {}",
                self.list_open(&open)
            ))),
            Verdict::NotOpen { number, open } => Ok(Done::no(match open.as_slice() {
                [] => format!("request {number} is not open, and no other is"),
                open => format!("request {number} is not open; open are {}", self.list_open(open)),
            })),
            Verdict::BornLater { number } => Ok(Done::no(format!(
                "request {number} is newer than this approval, which was for something else; look at it, and `/approve {number}` if that is what you mean"
            ))),
            Verdict::NotCounted { why, .. } => Ok(Done::no(format!("This approval does not count: {why}."))),
            Verdict::TooSoon { number } => {
                self.mission.warn(asked.id(), Concern::Edit);
                let mut done = self.too_soon(
                    "approval",
                    &format!("Look at it and `/approve {number}` again if that is what you mean."),
                )?;
                done.cell = self.mission.records.iter().find(|r| r.number == number).map(|r| r.cell.clone());
                Ok(done)
            }
            Verdict::Counted { number, missing } => {
                let Some(record) = self.mission.records.iter().find(|r| r.number == number).cloned() else {
                    return Ok(Done::no("there is nothing to approve"));
                };
                let data = json!({"number": number, "sha256": record.sha256(&self.id), "missing": missing});
                self.record(&asked.actor, Some(&record.cell), "voted", &data)?;
                Ok(Done::ok(format!(
                    "Counted for request {number}; {missing} more approval{} needed.",
                    if missing == 1 { " is" } else { "s are" }
                ))
                .on(&record.cell))
            }
            Verdict::Approved { record, by } => {
                if record.council.is_some() {
                    let data = json!({"number": record.number, "sha256": record.sha256(&self.id), "missing": 0});
                    self.record(&asked.actor, Some(&record.cell), "voted", &data)?;
                }
                let mut approvers: Vec<Actor> = by.into_iter().map(|(id, login)| Actor::Person { id, login }).collect();
                if matches!(asked.actor, Actor::Operator { .. }) {
                    approvers = vec![asked.actor.clone()];
                }
                let names: Vec<String> = approvers.iter().map(super::desk::name_of).collect();
                let names = names.join(", ");
                let started = self.start(&record, approvers, &asked.actor)?;
                let standing = if started.ok {
                    format!("Approved by {names}.")
                } else {
                    format!("Not started, although {names} approved: {}.", started.says)
                };
                self.show_record(&record, &standing, false)?;
                Ok(started)
            }
        }
    }

    /// What is answered where the comment that shows a record is not as it was written, or was written long after
    /// the approval: then it was for something else. The record is shown anew.
    fn not_as_shown(&mut self, asked: &Asked, number: Option<u32>) -> Result<Option<Done>> {
        let Some(given) = asked.given else { return Ok(None) };
        let Ok(record) = self.mission.open_record(number).cloned() else { return Ok(None) };
        let number = record.number;
        if self.changed_shown.contains(&number) {
            self.show_open(&record, "Somebody changed this comment; now it is as Lazarus wrote it. ")?;
            return Ok(Some(Done::no(format!(
                "somebody changed or deleted the comment that shows request {number}. It is put right: look at it, and `/approve {number}` if that is what you mean"
            ))));
        }
        let shown = self.tx.comment_of_kind(&self.id, &super::issue::slot_of(&record))?.map(|c| c.comment_id);
        let before = given.id.zip(shown).is_none_or(|(given, shown)| given < shown);
        if before && self.now.0.saturating_sub(given.at.0) > self.rules().settle {
            return Ok(Some(Done::no(format!(
                "request {number} had not been shown when this approval was given; look at it, and `/approve {number}` if that is what you mean"
            ))));
        }
        Ok(None)
    }

    fn reject(&mut self, asked: &Asked, number: Option<u32>, reason: Option<&str>) -> Result<Done> {
        let record = match self.mission.open_record(number) {
            Ok(record) => record.clone(),
            Err(Verdict::Several { open }) => {
                return Ok(Done::no(format!("several requests are open; name one: {}", self.list_open(&open))));
            }
            Err(Verdict::NotOpen { number, .. }) => return Ok(Done::no(format!("request {number} is not open"))),
            Err(_) => return Ok(Done::no("there is nothing to reject here")),
        };
        let reason = reason.unwrap_or("no reason was given").to_owned();
        let drop = CellInput::Drop { outcome: End::Rejected, reason: reason.clone() };
        match self.apply(&record.cell, &drop, &asked.actor)? {
            Ok(_) => {
                self.mission.take_record(record.number);
                self.show_record(&record, &format!("Rejected by {}: {reason}.", asked.login()), false)?;
                Ok(Done::ok(format!("Request {} (cell `{}`) is rejected.", record.number, record.cell))
                    .on(&record.cell))
            }
            Err(refusal) => Ok(Done::no(refusal.to_string())),
        }
    }

    fn list_open(&self, numbers: &[u32]) -> String {
        let named = numbers.iter().filter_map(|n| self.mission.records.iter().find(|r| r.number == *n)).map(|record| {
            let by = match &record.asked_by {
                Actor::Person { login, .. } => login.clone(),
                other => other.to_string(),
            };
            format!("`{}` ({} for `{by}`)", record.number, record.spec.agents.join("+"))
        });
        named.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn rules(&self) -> Rules {
        let policy = &self.context.config.policy;
        Rules {
            settle: milliseconds(policy.approval_settle),
            window: milliseconds(policy.council_window),
            proposer_may_vote: policy.proposer_may_vote,
        }
    }

    /// Starts the cell of an approved record: from here on it prepares itself.
    fn start(&mut self, record: &DecisionRecord, by: Vec<Actor>, actor: &Actor) -> Result<Done> {
        let cell = &record.cell;
        let approval =
            Approval { text: record.text.clone(), number: record.number, record: record.sha256(&self.id), by };
        match self.apply(cell, &CellInput::Approve { approval }, actor)? {
            Ok(_) => Ok(Done::ok("").on(cell).until(Until::Active)),
            Err(refusal) => Ok(Done::no(refusal.to_string()).on(cell)),
        }
    }

    fn too_soon(&self, what: &str, then: &str) -> Result<Done> {
        let before = self.mission.text_before.as_deref().map(|h| self.tx.text(h)).transpose()?.flatten();
        let change = match before {
            Some(before) => Some(TextChange { diff: what_changed(&before, &self.text()?, 60) }),
            None => None,
        };
        Ok(Done {
            change,
            ..Done::no(format!(
                "The text was changed less than {} before this {what}, so it may not be the text that was read. {then}",
                duration_words(self.rules().settle)
            ))
        })
    }

    /// `/summon` and `/team`: a director's own is request and approval in one, a
    /// writer's is put before the directors.
    pub(super) fn summon(&mut self, asked: &Asked, agents: &[String], options: &SummonOptions) -> Result<Done> {
        if !self.mission.open {
            return Ok(Done::no("the issue is closed; reopen it to ask for a cell"));
        }
        let mut spec = match self.spec(agents, options) {
            Ok(spec) => spec,
            Err(why) => return Ok(Done::no(why)),
        };
        spec.base.clone_from(&asked.base);
        let most = self.context.config.policy.max_cells_per_mission as usize;
        if self.live_cells()?.len() >= most {
            return Ok(Done::no(format!("a mission may have {most} live cells; close one first")));
        }
        if asked.text.hash != self.mission.text {
            // The event's text is not the newest that is known: somebody edited in between.
            return Ok(Done::no(
                "the issue's text was changed since this command was given; look at it and give the command again",
            ));
        }
        let director = asked.level == Level::Director;
        if let Some(given) = asked.given.filter(|_| director) {
            let seen = self.has_seen(asked.id(), Concern::Edit, asked.given)?;
            if !self.mission.settled_for(given, self.rules().settle, seen) {
                self.mission.warn(asked.id(), Concern::Edit);
                return self.too_soon("summons", "Look at it and give the command again if that is what you mean.");
            }
            let hidden =
                [hidden_in_title(&asked.text.title), hidden_parts(&asked.text.body, &[TEMPLATE_MARKER])].concat();
            if !hidden.is_empty() && !self.has_seen(asked.id(), Concern::Hidden, asked.given)? {
                self.mission.warn(asked.id(), Concern::Hidden);
                return Ok(Done::no(format!(
                    "The page of this issue does not show all of the text that the agents would be given. It has {}. Give the command again if that is what you mean.",
                    hidden.join("; ")
                )));
            }
        }
        if !director {
            let text = self.text()?;
            let whole = text.whole();
            let parts = [("the issue's text", Some(&whole)), ("the task", spec.task.as_ref())];
            let hidden = parts
                .iter()
                .find_map(|(what, part)| Some((what, self.context.not_shown_whole(part.as_ref()?, SHOWN_BYTES_MAX)?)));
            if let Some((what, why)) = hidden {
                return Ok(Done::no(format!("This cannot be put before the directors because of {what}: {why}.")));
            }
        }
        if self.mission.records.len() >= OPEN_MAX {
            return Ok(Done::no(format!(
                "{OPEN_MAX} requests are before the directors already; one of them has to be decided first"
            )));
        }
        let origin = match asked.comment {
            Some(id) => Origin::Comment { id, sha256: asked.sha256.clone() },
            None => Origin::Operator,
        };
        // An operator's has no place on the forge; the clock is ours then.
        let born = asked.given.unwrap_or(Moment { at: self.now, id: None });
        let record = match self.put_before_directors(origin, born, asked.actor.clone(), spec, None, vec![])? {
            Ok(record) => record,
            Err(why) => return Ok(Done::no(why)),
        };
        self.look_at_project()?;
        if director {
            self.mission.take_record(record.number);
            return self.start(&record, vec![asked.actor.clone()], &asked.actor);
        }
        self.show_open(&record, "")?;
        Ok(Done::ok(format!(
            "Recorded as request {0} (cell `{1}`): a director approves it with `/approve {0}`, or rejects it with `/reject {0}`.",
            record.number, record.cell
        ))
        .on(&record.cell))
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
            base: None,
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

/// The word of the command that a line is or was meant to be; empty where that is not
/// known. It is always a word of the grammar, never what somebody wrote.
pub(super) fn verb_of_line(line: &Line) -> String {
    match line {
        Line::Command { command, .. } => verb_of(command),
        Line::Refused { why, .. } => why
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(|quoted| quoted.strip_prefix('/'))
            .find_map(|word| grammar().iter().find(|c| c.name == word))
            .map(|c| c.name.to_owned())
            .unwrap_or_default(),
    }
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
    issue: Option<Box<(RepoRef, Look)>>,
    cell: Option<CellId>,
    accounts: BTreeMap<String, i64>,
) -> Result<()> {
    let refuse = |message: String| {
        let text = serde_json::to_string(&Outcome::refused(message)).map_err(StoreError::json("outcome"))?;
        tx.put_operation(operation, &text, now.0)
    };
    let mut desk = if let Some(found) = &issue {
        let (mut desk, new) = Desk::for_issue(tx, context, now, key, &found.0, &found.1.issue)?;
        desk.take_in(&found.1, new)?;
        desk
    } else {
        let Some(cell) = &cell else { return refuse("neither a mission nor a cell was named".to_owned()) };
        match Desk::of_cell(tx, context, now, key, cell)? {
            Some(desk) => desk,
            None => return refuse(format!("there is no cell {cell}; `lazarus status` lists them")),
        }
    };
    desk.meant.clone_from(&cell);
    let text = desk.text()?;
    let asked = Asked {
        actor: Actor::Operator { name: by },
        level: Level::Director,
        comment: None,
        given: None,
        text,
        sha256: String::new(),
        accounts,
        base: issue.as_ref().and_then(|found| found.1.summons_base.clone()),
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
            Until::Published | Until::Scrubbed | Until::Snapshot | Until::FileLeft => false,
        };
        if !there {
            facts.waiting.push((operation.to_owned(), until));
            desk.put_facts(&row.cell.id, &facts)?;
            waits = true;
        }
    }
    if !waits {
        let mut outcome = row.as_ref().map_or_else(Outcome::default, |row| Outcome::on(&row.cell.id));
        outcome.success = done.ok;
        outcome.message = match (&target, done.says.as_str()) {
            (Some(cell), "") => format!("{} is done on cell {cell}", verb_of(&command)),
            (None, "") => format!("{} is done", verb_of(&command)),
            (_, says) => says.replace('`', ""),
        };
        desk.settle_operation(operation, &outcome)?;
    }
    desk.show()?;
    desk.close()
}
