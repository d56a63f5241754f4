//! How a mission's cells stand: what follows when that changes, and what people are
//! shown of it.

use super::mission_tx::MissionTx;
use crate::cell::{self, Actor, At, Cell, CellId, Identity, State};
use crate::engine::effect::{Effect, Slot};
use crate::engine::facts::Facts;
use crate::engine::lane::Lane;
use crate::mission::publishing::Closed;
use crate::publication::sentences::{cells, requests};
use crate::publication::{Answer, Publication, StatusRow, StatusTable, Warning};
use crate::store::Result;

impl MissionTx<'_> {
    /// Brings the status comment and the state label up to date.
    pub fn show(&mut self) -> Result<()> {
        if self.known().deleted || (self.known().cells.is_empty() && self.known().records.is_empty()) {
            return Ok(());
        }
        let publication = Publication::Status(self.status(None)?);
        self.publish_standing(Slot::Status, &publication, false)?;
        let newest = self.known().cells.last().cloned();
        let state = newest.map(|c| self.tx().cell(c.as_str())).transpose()?.flatten().map(|row| row.cell.state);
        if let Some(state) = state
            && self.known().shown_state.as_deref() != Some(state.word())
        {
            self.known_mut().shown_state = Some(state.word().to_owned());
            let effect = Effect::StateLabel {
                repo: self.repo().clone(),
                number: self.known().number,
                state: state.word().to_owned(),
            };
            let id = self.id().clone();
            self.queue_instead(Lane::Label(&id), &effect, 0)?;
        }
        Ok(())
    }

    /// How the mission's cells stand; of one cell, where it is named.
    pub fn status(&self, only: Option<&CellId>) -> Result<StatusTable> {
        let mut table = StatusTable::default();
        for row in self.cells()? {
            let cell = &row.cell;
            if only.is_some_and(|id| *id != cell.id) {
                continue;
            }
            let facts = Facts::of(&row)?;
            table.cells.push(StatusRow {
                cell: cell.id.to_string(),
                state: match cell.outcome {
                    Some(outcome) if !cell.state.is_live() => format!("{} ({outcome})", cell.state),
                    _ => cell.state.to_string(),
                },
                participants: cell
                    .participants
                    .iter()
                    .filter(|p| p.state != cell::ParticipantState::Gone)
                    .map(|p| format!("{} ({}{})", p.identity, p.role, how_it_stands(p)))
                    .collect(),
                isolation: facts
                    .running
                    .and_then(|r| r.isolation)
                    .map_or_else(|| "not started".to_owned(), |i| i.to_string()),
                until: match cell.expires_at {
                    Some(at) if cell.state.is_live() => time_words(at),
                    _ => "–".to_owned(),
                },
            });
        }
        // The newest are what people look for.
        if table.cells.len() > 10 {
            table.cells.drain(..table.cells.len() - 10);
        }
        let waiting: Vec<String> = self
            .known()
            .records
            .iter()
            .map(|record| {
                let number = record.number;
                match &record.council {
                    Some(council) => requests::waits_for_council(number, record.votes.len(), council.votes),
                    None => requests::waits_for_director(number),
                }
            })
            .collect();
        table.waiting = (!waiting.is_empty()).then(|| waiting.join(" "));
        Ok(table)
    }

    /// What follows from a cell's new state: logs, and answers to operators.
    pub fn on_state_changed(&mut self, cell: &Cell, actor: &Actor) -> Result<()> {
        let mut facts = self.facts(&cell.id)?;
        if matches!(cell.state, State::Closing | State::Closed) && facts.closed_by.is_none() {
            facts.closed_by = Some(actor.name());
        }
        if cell.state == State::Preparing {
            facts.closed_by = None;
        }
        if cell.state == State::Closed && cell.approval.is_some() {
            let (work, publishing) = facts.work_and_publishing();
            match publishing.cell_closed(work) {
                Closed::Push(push) => self.push_work(cell, &facts, push)?,
                Closed::Log => self.publish_close_log(cell, &mut facts)?,
            }
        }
        if cell.state == State::Downed {
            self.ask_to_revive(cell)?;
        }
        if cell.state == State::Idle && facts.end_told < cell.last_run {
            facts.end_told = cell.last_run;
            self.say_that_work_ended(cell)?;
        }
        self.answer_waiters(cell, &mut facts, false)?;
        self.put_facts(&cell.id, &facts)
    }

    /// Every executor ended: those who asked and approved are told, and what they can do
    /// now. The status comment says it as well, but nobody is notified of an edit.
    fn say_that_work_ended(&mut self, cell: &Cell) -> Result<()> {
        let id = &cell.id;
        let agent = cell.workers().next().map_or("AGENT", |p| p.identity.name());
        let until = cell.expires_at.map(|at| cells::waits_until(&time_words(at))).unwrap_or_default();
        let text = cells::work_ended(id, &ended(cell, |_| true), agent, &until);
        let answer = Answer { items: vec![(true, text)], mentions: whom_to_call(cell), ..Answer::default() };
        self.publish(&Publication::Answer(answer), Some(id))
    }

    /// Somebody died and nothing revives them by itself: the directors are
    /// asked, or told, as the proposal said.
    fn ask_to_revive(&mut self, cell: &Cell) -> Result<()> {
        let id = &cell.id;
        let text = cells::frozen_by_death(id, &ended(cell, |exit| !exit.success));
        if cell.spec.auto_revive == cell::AutoRevive::Ask {
            let answer = Answer { items: vec![(true, text)], mentions: whom_to_call(cell), ..Answer::default() };
            return self.publish(&Publication::Question(answer), Some(id));
        }
        self.publish(&Publication::Warning(Warning { text, change: None }), Some(id))
    }
}

/// The agents of a cell whose newest run ended in such a way, with how, in words.
fn ended(cell: &Cell, so: impl Fn(&cell::Exit) -> bool) -> String {
    let ended = cell.workers().filter_map(|p| match &p.run {
        cell::RunState::Ended { exit, .. } if so(exit) => Some(cells::agent_and_exit(p.identity.name(), exit)),
        _ => None,
    });
    ended.collect::<Vec<_>>().join(", ")
}

/// Most people who are called in one comment.
const CALLED_MAX: usize = 3;

/// Whom a cell's news are for: who asked for it, and who approved it.
fn whom_to_call(cell: &Cell) -> Vec<String> {
    let approved = cell.approval.iter().flat_map(|approval| &approval.by);
    let mut called: Vec<String> = vec![];
    for actor in std::iter::once(&cell.proposed_by).chain(approved) {
        if let Actor::Person { login, .. } = actor
            && !called.contains(login)
            && called.len() < CALLED_MAX
        {
            called.push(login.clone());
        }
    }
    called
}

fn how_it_stands(participant: &cell::Participant) -> &'static str {
    match (&participant.state, &participant.run, &participant.identity) {
        (cell::ParticipantState::Invited { .. }, _, _) => ", invited",
        (_, cell::RunState::Running { .. }, _) => ", at work",
        (_, cell::RunState::Ended { exit, .. }, _) if exit.success => ", done",
        (_, cell::RunState::Ended { .. }, _) => ", dead",
        (_, cell::RunState::Waiting, Identity::Agent(_)) => ", waiting",
        _ => "",
    }
}

/// A point in time for people, in UTC, to the minute.
pub fn time_words(at: At) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| "never".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M UTC").to_string())
}
