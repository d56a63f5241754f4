//! Operators' commands: carried out like those of comments, and answered when what they
//! asked for has come to be.

use super::Decision;
use super::commands::Asked;
use super::mission_tx::MissionTx;
use crate::cell::{Actor, Cell, CellId, State};
use crate::engine::facts::Facts;
use crate::engine::input::{Look, Outcome};
use crate::gitea::event::RepoRef;
use crate::mission::publishing::Until;
use crate::mission::{Command, Level};
use crate::publication::sentences::{operators as say, plain};
use crate::store::{Result, StoreError};
use std::collections::BTreeMap;

/// An operator's command.
pub struct Operation {
    /// Its name, under which the outcome is kept.
    pub name: String,
    /// The system account.
    pub by: String,
    /// The command, as it was given.
    pub command: Command,
    /// The issue, for commands on a mission.
    pub issue: Option<Box<(RepoRef, Look)>>,
    /// The cell, for commands on one.
    pub cell: Option<CellId>,
    /// Numbers of accounts that the command names.
    pub accounts: BTreeMap<String, i64>,
}

impl Operation {
    /// Carries it out.
    pub fn decide(self, decision: &Decision<'_>) -> Result<()> {
        let refuse = |name: &str, message: String| decision.finish_operation(name, &Outcome::refused(message));
        if let Some(found) = self.issue.clone() {
            return decision.on_issue(&found.0, &found.1.issue, |mission, new| {
                mission.take_in(&found.1, new)?;
                self.carry_out(mission)
            });
        }
        let name = self.name.clone();
        let Some(cell) = self.cell.clone() else {
            return refuse(&name, say::nothing_named());
        };
        match decision.on_cell(&cell, |mission| self.carry_out(mission))? {
            Some(()) => Ok(()),
            None => refuse(&name, say::no_cell(&cell)),
        }
    }

    fn carry_out(self, mission: &mut MissionTx<'_>) -> Result<()> {
        mission.mean(self.cell.as_ref());
        let asked = Asked {
            actor: Actor::Operator { name: self.by },
            level: Level::Director,
            comment: None,
            given: None,
            text: mission.text()?,
            sha256: String::new(),
            accounts: self.accounts,
            base: self.issue.as_ref().and_then(|found| found.1.summons_base.clone()),
        };
        let done = mission.command(&asked, &self.command)?;
        let target = done.cell.clone().or(self.cell);
        let row = target.as_ref().map(|id| mission.tx().cell(id.as_str())).transpose()?.flatten();
        if let (true, Some(until), Some(row)) = (done.ok, done.until, &row) {
            let facts = Facts::of(row)?;
            if !facts.publishing.is_there(until, row.cell.state) {
                mission.change_facts(&row.cell.id, |facts| facts.publishing.wait(self.name, until))?;
                return mission.show();
            }
        }
        let mut outcome = row.as_ref().map_or_else(Outcome::default, |row| Outcome::on(&row.cell.id));
        outcome.success = done.ok;
        outcome.message = match (&target, done.says.as_str()) {
            (Some(cell), "") => say::done_on(self.command.verb(), cell),
            (None, "") => say::done(self.command.verb()),
            (_, says) => plain(says),
        };
        mission.finish_operation(&self.name, &outcome)?;
        mission.show()
    }
}

impl Decision<'_> {
    /// Notes what an operator's command came to.
    pub(super) fn finish_operation(&self, operation: &str, outcome: &Outcome) -> Result<()> {
        let text = serde_json::to_string(outcome).map_err(StoreError::json("outcome"))?;
        self.tx().put_operation(operation, &text, self.now().0)
    }
}

impl MissionTx<'_> {
    /// Answers the operators who waited for what a cell has come to.
    pub fn answer_waiters(&self, cell: &Cell, facts: &mut Facts, scrubbed: bool) -> Result<()> {
        let (work, publishing) = facts.work_and_publishing();
        let over = matches!(cell.state, State::Closed | State::Archived | State::Destroyed);
        for (operation, until, success) in publishing.arrived(cell, work, scrubbed) {
            let message = match (until, &cell.reason) {
                (Until::Published, _) => match plain(&facts.what_is_missing().join("; ")) {
                    missing if missing.is_empty() => say::work_published(&cell.id),
                    missing => missing,
                },
                (_, Some(reason)) if over => say::cell_is_because(&cell.id, cell.state, reason),
                _ => say::cell_is(&cell.id, cell.state),
            };
            self.finish_operation(&operation, &Outcome { success, message, ..Outcome::on(&cell.id) })?;
        }
        Ok(())
    }

    /// Answers the operators who waited for one thing on a cell.
    pub fn answer_those_who_wait_for(&self, cell: &CellId, until: Until, success: bool, message: &str) -> Result<()> {
        let mut facts = self.facts(cell)?;
        let arrived = facts.publishing.arrived_at(until);
        if arrived.is_empty() {
            return Ok(());
        }
        for operation in arrived {
            let outcome = Outcome { success, message: plain(message), ..Outcome::on(cell) };
            self.finish_operation(&operation, &outcome)?;
        }
        self.put_facts(cell, &facts)
    }

    /// Notes what an operator's command came to.
    pub fn finish_operation(&self, operation: &str, outcome: &Outcome) -> Result<()> {
        self.decision().finish_operation(operation, outcome)
    }
}
