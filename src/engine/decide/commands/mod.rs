//! Commands, in comments and on the command line: who asked, who may, what is answered.
//! What each command does is in the file that has its name.

mod accept;
mod approve;
mod checkpoint;
mod close;
mod decide;
mod destroy;
mod extend;
mod help;
mod invite;
mod pause;
mod publish;
mod reject;
mod resume;
mod resurrect;
mod revive;
mod revoke;
mod status;
mod summon;
mod tell;

use super::mission_tx::MissionTx;
use crate::cell::{Actor, Approval, At, Base, CellId, Input as CellInput};
use crate::engine::clock::milliseconds;
use crate::engine::effect::Effect;
use crate::engine::lane::Lane;
use crate::engine::request::AuthorityRequest;
use crate::mission::publishing::Until;
use crate::mission::{
    ApprovedText, Command, CommandSpec, DecisionRecord, Level, Line, Misplaced, Moment, Rules, Who, duration_words,
    grammar, what_changed,
};
use crate::publication::sentences::{commands as say, names, requests};
use crate::publication::{Answer, TextChange};
use crate::store::Result;
use serde_json::json;
use std::collections::BTreeMap;

/// Logins whose numbers have to be known: invited and revoked people.
pub fn logins_in(lines: &[Line]) -> Vec<String> {
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
pub struct Asked {
    pub actor: Actor,
    pub level: Level,
    /// The comment that is answered; none for an operator.
    pub comment: Option<i64>,
    /// When it was given, on the forge; none for an operator.
    pub given: Option<Moment>,
    /// The text that was before the asker's eyes: of the signed event.
    pub text: ApprovedText,
    /// SHA-256 of the comment's text, hex.
    pub sha256: String,
    pub accounts: BTreeMap<String, i64>,
    /// Where a cell that is asked for would start.
    pub base: Option<Base>,
}

impl Asked {
    pub fn of_comment(
        request: &AuthorityRequest,
        level: Level,
        accounts: BTreeMap<String, i64>,
        base: Option<Base>,
    ) -> Self {
        Self {
            actor: request.actor(),
            level,
            comment: Some(request.comment),
            given: Some(Moment { at: At(request.written_at), id: Some(request.comment) }),
            text: ApprovedText::new(&request.issue.title, &request.issue.body),
            sha256: request.sha256.clone(),
            accounts,
            base,
        }
    }

    pub fn id(&self) -> i64 {
        match &self.actor {
            Actor::Person { id, .. } => *id,
            _ => 0,
        }
    }

    pub fn login(&self) -> &str {
        match &self.actor {
            Actor::Person { login, .. } => login,
            Actor::Operator { name } => name,
            Actor::System => "lazarus",
        }
    }
}

/// What is to be shown: all, or one.
pub enum About<T> {
    All,
    One(T),
}

impl<T: Clone> About<T> {
    pub fn of(one: Option<&T>) -> Self {
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
pub struct Done {
    pub ok: bool,
    /// Words; empty where what follows speaks for itself.
    pub says: String,
    pub status: Option<About<CellId>>,
    pub change: Option<TextChange>,
    pub help: Option<About<String>>,
    pub mentions: Vec<String>,
    pub cell: Option<CellId>,
    /// What an operator's command waits for.
    pub until: Option<Until>,
}

impl Done {
    pub fn ok(says: impl Into<String>) -> Self {
        Self { ok: true, says: says.into(), ..Self::default() }
    }
    pub fn no(says: impl Into<String>) -> Self {
        Self { says: says.into(), ..Self::default() }
    }
    pub fn on(mut self, cell: &CellId) -> Self {
        self.cell = Some(cell.clone());
        self
    }
    pub fn until(mut self, until: Until) -> Self {
        self.until = Some(until);
        self
    }

    /// The one of these cells that a command is about, or why that is not clear.
    pub fn the_one(cells: &[CellId], none: &str) -> std::result::Result<CellId, Self> {
        match cells {
            [one] => Ok(one.clone()),
            [] => Err(Self::no(none)),
            many => Err(Self::no(say::name_one(&names(many)))),
        }
    }
}

impl MissionTx<'_> {
    /// Runs the commands of one comment, in order, and answers once.
    pub fn run_commands(&mut self, asked: &Asked, lines: &[Line], misplaced: &[Misplaced]) -> Result<()> {
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
                    Line::Command { .. } => self.context().redact(&done.says),
                };
                self.record(&asked.actor, done.cell.as_ref(), "refused", &json!({"command": verb, "why": why}))?;
            }
            all &= done.ok;
            none &= !done.ok;
            // Among several, each answer says which command it is for.
            if lines.len() > 1 {
                let says = if done.says.is_empty() { say::done_among_several() } else { done.says };
                let own = say::for_command(&verb);
                done.says = if verb.is_empty() || says.starts_with(&own) { says } else { own + &says };
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
    pub fn which(&self, named: Option<&CellId>) -> Result<std::result::Result<CellId, String>> {
        if let Some(id) = named.or(self.meant()) {
            return Ok(match self.cell(id)? {
                Some(cell) => Ok(cell.id),
                None => Err(say::no_such_cell(id)),
            });
        }
        let live: Vec<_> = self.live_cells()?;
        Ok(match live.as_slice() {
            [] => Err(say::no_live_cell()),
            [one] => Ok(one.id.clone()),
            many => {
                let cells: Vec<String> = many.iter().map(|c| say::cell_and_state(&c.id, c.state)).collect();
                Err(say::several_live_cells(many.len(), &cells.join(", ")))
            }
        })
    }

    /// Applies a cell input to the cell that is meant, and words a refusal.
    pub fn on_cell(
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

    /// Carries out one command, if whoever gave it may.
    pub fn command(&mut self, asked: &Asked, command: &Command) -> Result<Done> {
        if let Err(denied) = command.spec().permits(asked.level) {
            return Ok(Done::no(say::denied(denied, command.verb(), asked.login())));
        }
        match command {
            Command::Help { command } => Ok(help::run(command.as_ref())),
            Command::Status { cell } => status::run(self, cell.as_ref()),
            Command::Summon { agents, options } => summon::run(self, asked, agents, options),
            Command::Approve { number } => self.approve(asked, *number),
            Command::Reject { number, reason } => reject::run(self, asked, *number, reason.as_deref()),
            Command::Invite { identity, role, cell } => invite::run(self, asked, identity, *role, cell.as_ref()),
            Command::Revoke { identity, cell } => revoke::run(self, asked, identity, cell.as_ref()),
            Command::Accept { cell } => accept::run(self, asked, cell.as_ref()),
            Command::Tell { agent, text } => tell::run(self, asked, agent, text),
            Command::Extend { by, cell } => extend::run(self, asked, *by, cell.as_ref()),
            Command::Pause { cell } => pause::run(self, asked, cell.as_ref()),
            Command::Resume { cell } => resume::run(self, asked, cell.as_ref()),
            Command::Revive { agent } => revive::run(self, asked, agent.as_deref()),
            Command::Decide { text } => decide::run(self, asked, text),
            Command::Close { outcome, reason, cell } => {
                close::run(self, asked, *outcome, reason.as_ref(), cell.as_ref())
            }
            Command::Resurrect { cell } => resurrect::run(self, asked, cell.as_ref()),
            Command::Destroy { cell } => destroy::run(self, asked, cell),
            Command::Checkpoint { note } => checkpoint::run(self, asked, note.as_ref()),
            Command::Publish { what, cell } => publish::run(self, asked, what, cell.as_ref()),
            Command::Substitute { .. } | Command::Handoff { .. } | Command::Vote { .. } => {
                Ok(Done::no(say::not_yet(command.verb())))
            }
        }
    }

    /// What whoever wrote commands where none counts is told; `None` where they could not
    /// give them either, or nobody wrote any.
    fn misplaced_words(&self, asked: &Asked, misplaced: &[Misplaced]) -> Result<Option<String>> {
        let mut found = vec![];
        for command in misplaced {
            let Some(spec) = CommandSpec::named(&command.name) else { continue };
            let invited = spec.who == Who::Invited && self.is_invited(asked)?;
            if spec.belongs_to(asked.level, invited) {
                found.push(say::with_place(&command.name, command.place.words()));
            }
        }
        Ok((!found.is_empty()).then(|| say::misplaced(&found.join(", "))))
    }

    /// Whether somebody has an open invitation to a cell here.
    fn is_invited(&self, asked: &Asked) -> Result<bool> {
        Ok(self
            .live_cells()?
            .iter()
            .any(|cell| cell.participant_by_account(Some(asked.id())).is_some_and(|p| p.open_invitation().is_some())))
    }

    /// Has people told, once a mission, what of the project a cell would lack.
    pub fn look_at_project(&mut self) -> Result<()> {
        if self.known().cells.len() <= 1 {
            let effect = Effect::LookAtProject { repo: self.repo().clone() };
            let id = self.id().clone();
            self.queue(Lane::Project(&id), &effect, None)?;
        }
        Ok(())
    }

    fn list_open(&self, numbers: &[u32]) -> String {
        let named = numbers.iter().filter_map(|n| self.known().records.iter().find(|r| r.number == *n)).map(|record| {
            requests::number_and_agents(record.number, &record.spec.agents.join("+"), &record.asked_by.name())
        });
        named.collect::<Vec<_>>().join(", ")
    }

    pub fn rules(&self) -> Rules {
        let policy = &self.context().config.policy;
        Rules {
            settle: milliseconds(policy.approval_settle),
            window: milliseconds(policy.council_window),
            proposer_may_vote: policy.proposer_may_vote,
        }
    }

    /// Starts the cell of an approved record: from here on it prepares itself.
    fn start(&mut self, record: &DecisionRecord, by: Vec<Actor>, actor: &Actor) -> Result<Done> {
        let cell = &record.cell;
        let approval = Approval {
            text: record.text.clone(),
            number: record.number,
            record: record.sha256(self.id().as_str()),
            by,
        };
        match self.apply(cell, &CellInput::Approve { approval }, actor)? {
            Ok(_) => Ok(Done::ok("").on(cell).until(Until::Active)),
            Err(refusal) => Ok(Done::no(refusal.to_string()).on(cell)),
        }
    }

    fn too_soon(&self, what: &str, then: &str) -> Result<Done> {
        let before = self.known().text_before.as_deref().map(|h| self.tx().text(h)).transpose()?.flatten();
        let change = match before {
            Some(before) => Some(TextChange { diff: what_changed(&before, &self.text()?, 60) }),
            None => None,
        };
        Ok(Done {
            change,
            ..Done::no(requests::changed_shortly_before(what, &duration_words(self.rules().settle), then))
        })
    }
}

/// The word of the command that a line is or was meant to be; empty where that is not
/// known. It is always a word of the grammar, never what somebody wrote.
pub fn verb_of_line(line: &Line) -> String {
    match line {
        Line::Command { command, .. } => command.verb().to_owned(),
        Line::Refused { why, .. } => why
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(|quoted| quoted.strip_prefix('/'))
            .find_map(CommandSpec::named)
            .map(|c| c.name.to_owned())
            .unwrap_or_default(),
    }
}
