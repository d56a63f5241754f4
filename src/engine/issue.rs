//! What happens to an issue: seen, edited, labelled, closed, deleted.

use super::commands::{Asked, new_cell_id};
use super::desk::{Desk, facts_of};
use super::handle::approval_label;
use super::input::{Effect, LabelEvent};
use super::learn::{APPROVED, label_was_renamed};
use crate::cell::{Actor, At, Input as CellInput, Outcome as End, State};
use crate::gitea::event::{IssueAction, IssueSnapshot, Person};
use crate::mission::{ApprovedText, Ballot, Level, is_proposal, parse_proposal, what_changed};
use crate::publication::{Answer, Publication};
use crate::store::{PinKind, Result, label_name};
use serde_json::json;
use std::collections::BTreeMap;

/// Why cells are ended whose issue is gone.
const DELETED: &str = "the issue was deleted";

impl Desk<'_> {
    /// A mission that was not known: reads it, and says what is wrong with it.
    pub(super) fn take_on(&mut self, issue: &IssueSnapshot, action: IssueAction) -> Result<()> {
        let label = approval_label(self.context, &self.repo);
        if action == IssueAction::Seen {
            self.mission.first_polled = Some(issue.updated_at.as_second());
        }
        // Whoever opens an issue by the web form can put any label on it.
        if label.is_some_and(|l| issue.labels.iter().any(|x| x.id == l))
            && matches!(
                action,
                IssueAction::Opened | IssueAction::Seen | IssueAction::LabelsChanged | IssueAction::Other
            )
        {
            self.mission.smuggled_label = true;
            self.drop_label()?;
            self.warn(
                "The label `lazarus/approved` was on this issue when it was opened. That approves nothing, so it was taken off; a director approves with `/approve`, or by adding the label now.",
                None,
            )?;
        }
        if issue.open {
            self.consider_proposal()?;
        }
        Ok(())
    }

    pub(super) fn drop_label(&mut self) -> Result<()> {
        let effect = Effect::RemoveApproval { repo: self.repo.clone(), number: self.mission.number };
        let lane = format!("label:{}", self.id);
        self.tx.supersede(&lane, effect.kind())?;
        self.queue(lane, &effect, None, 0).map(|_| ())
    }

    pub(super) fn read_timeline(&mut self) -> Result<()> {
        let lane = format!("authority:{}", self.id);
        let effect = Effect::ReadTimeline { repo: self.repo.clone(), number: self.mission.number };
        self.tx.supersede(&lane, effect.kind())?;
        self.queue(lane, &effect, None, 0).map(|_| ())
    }

    /// Reads the issue's text as a proposal, if it means to be one.
    pub(super) fn consider_proposal(&mut self) -> Result<()> {
        let text = self.text()?;
        if !is_proposal(&text.title, &text.body) {
            self.mission.is_proposal = false;
            return Ok(());
        }
        self.mission.is_proposal = true;
        let proposer = Actor::Person { id: self.mission.author, login: self.mission.author_login.clone() };
        let parsed = parse_proposal(&text.body, &self.context.defaults()).and_then(|proposal| {
            match self.context.network_refusal(proposal.spec.network, &proposal.spec.hosts) {
                Some(why) => Err(vec![crate::mission::FieldError { field: "Network hosts".to_owned(), why }]),
                None => Ok(proposal),
            }
        });
        match parsed {
            Ok(proposal) => {
                let old = self.mission.ballot.take().filter(|b| !b.request);
                if let Some(ballot) = old.as_ref().filter(|b| !b.votes.is_empty() && b.text != text.hash) {
                    let voters: Vec<&str> = ballot.votes.iter().map(|v| v.login.as_str()).collect();
                    self.warn(
                        format!("The text was changed, so the approvals that were given ({}) are void; they have to be given again.", voters.join(", ")),
                        None,
                    )?;
                }
                let cell = match &old {
                    Some(ballot) => {
                        let _ = self.apply(
                            &ballot.cell.clone(),
                            &CellInput::Revise { spec: proposal.spec.clone() },
                            &proposer,
                        )?;
                        ballot.cell.clone()
                    }
                    None => {
                        let cell = new_cell_id();
                        let propose = CellInput::Propose {
                            id: cell.clone(),
                            mission: self.id.clone(),
                            spec: proposal.spec.clone(),
                            policy: self.context.defaults().policy,
                        };
                        let _ = self.apply(&cell, &propose, &proposer)?;
                        cell
                    }
                };
                let logins = proposal.council.as_ref().map(|c| c.members.clone()).unwrap_or_default();
                if !logins.is_empty() {
                    // On the same lane as votes, so before any of them.
                    let lane = format!("authority:{}", self.id);
                    self.queue(lane, &Effect::ResolveCouncil { cell: cell.clone(), logins }, Some(&cell), 0)?;
                }
                self.look_at_project()?;
                self.mission.ballot = Some(Ballot {
                    cell,
                    text: text.hash,
                    proposer: self.mission.author,
                    council: proposal.council,
                    members: None,
                    votes: vec![],
                    warned: vec![],
                    request: false,
                });
                self.show()
            }
            Err(errors) => {
                if let Some(ballot) = self.mission.ballot.take() {
                    let drop = CellInput::Drop {
                        outcome: End::Abandoned,
                        reason: "the proposal was edited and cannot be read any more".to_owned(),
                    };
                    let _ = self.apply(&ballot.cell, &drop, &Actor::System)?;
                }
                if self.mission.complained_of.as_deref() == Some(&text.hash) {
                    return Ok(());
                }
                self.mission.complained_of = Some(text.hash);
                let mut items = vec![(
                    false,
                    "This proposal cannot be read as it is. Edit the issue; each of these needs a change:".to_owned(),
                )];
                items.extend(errors.into_iter().map(|e| (false, format!("{}: {}", e.field, e.why))));
                let answer = Answer { items, ..Answer::default() };
                self.publish(&Publication::Refusal(answer), None)
            }
        }
    }

    /// Takes over what an issue looks like now, unless it is old news.
    pub(super) fn observe(&mut self, issue: &IssueSnapshot, action: IssueAction) -> Result<()> {
        let at = issue.updated_at.as_second();
        if at < self.mission.seen_at || self.mission.deleted {
            return Ok(());
        }
        let newer = at > self.mission.seen_at;
        self.mission.seen_at = at;
        self.mission.author_login.clone_from(&issue.author.login);
        let text = ApprovedText::new(&issue.title, &issue.body);
        // Within one second the order is not known: then only an event that is
        // about the text changes the text.
        if text.hash != self.mission.text && (newer || matches!(action, IssueAction::Edited | IssueAction::Seen)) {
            self.edited(&text, at)?;
        }
        if issue.open != self.mission.open
            && (newer || matches!(action, IssueAction::Closed | IssueAction::Reopened | IssueAction::Seen))
        {
            self.mission.open = issue.open;
            if issue.open {
                // Reopening restarts nothing; a proposal is before the directors again.
                if self.mission.ballot.is_none() && self.live_cells()?.is_empty() {
                    self.consider_proposal()?;
                }
            } else {
                self.end_all("the issue was closed")?;
            }
        }
        Ok(())
    }

    pub(super) fn edited(&mut self, text: &ApprovedText, at: i64) -> Result<()> {
        let before = self.text()?;
        self.tx.put_text(text)?;
        self.record(&Actor::System, None, "text_changed", &json!({"from": before.hash, "to": text.hash}))?;
        self.mission.text_before = Some(before.hash.clone());
        self.mission.text.clone_from(&text.hash);
        self.mission.edited_at = Some(At(at * 1000));
        let change = what_changed(&before, text, 40);
        let mut voided = vec![];
        for cell in self.tx.cells_of(&self.id)?.into_iter().map(|row| row.cell) {
            if cell.approval.is_none() || cell.approval_void || matches!(cell.state, State::Archived | State::Destroyed)
            {
                continue;
            }
            let _ = self.apply(&cell.id, &CellInput::Void, &Actor::System)?;
            let reason = "the text was changed after it was approved".to_owned();
            match cell.state {
                State::Invited => {
                    let _ =
                        self.apply(&cell.id, &CellInput::Drop { outcome: End::Abandoned, reason }, &Actor::System)?;
                }
                State::Preparing => {
                    let close = CellInput::Close { outcome: End::Abandoned, reason: Some(reason) };
                    let _ = self.apply(&cell.id, &close, &Actor::System)?;
                }
                _ => {}
            }
            if cell.state.is_live() {
                voided.push(format!("`{}`", cell.id));
            }
        }
        if !voided.is_empty() {
            self.drop_label()?;
            self.warn(
                format!(
                    "The text was changed after it was approved, so the approval of {} is void. What already runs goes on with the text that was approved; nothing is started or revived until a director approves again.",
                    voided.join(", ")
                ),
                Some(change),
            )?;
        }
        if let Some(ballot) = self.mission.ballot.clone().filter(|b| b.request) {
            // A request was for the text as it was.
            self.mission.ballot = None;
            let drop = CellInput::Drop {
                outcome: End::Abandoned,
                reason: "the text was changed after the request".to_owned(),
            };
            let _ = self.apply(&ballot.cell, &drop, &Actor::System)?;
        }
        if self.mission.open {
            self.consider_proposal()?;
        }
        Ok(())
    }

    pub(super) fn deleted(&mut self, by: &Person) -> Result<()> {
        self.record(&Actor::Person { id: by.id, login: by.login.clone() }, None, "issue_deleted", &json!({}))?;
        self.mission.deleted = true;
        self.mission.open = false;
        self.end_all(DELETED)
    }

    /// The issue shows again, so it was not deleted: commands work again. What was
    /// ended stays ended.
    pub(super) fn restore(&mut self, issue: &IssueSnapshot) -> Result<()> {
        // A number is never given twice; whatever else it were, it is not ours.
        if !self.mission.deleted || issue.id != self.mission.issue_id {
            return Ok(());
        }
        self.record(&Actor::System, None, "issue_restored", &json!({}))?;
        self.mission.deleted = false;
        // What it looked like before it was gone is older than anything now.
        self.mission.seen_at = self.mission.seen_at.min(issue.updated_at.as_second());
        let mut ended = vec![];
        for row in self.tx.cells_of(&self.id)? {
            let cell = &row.cell;
            if cell.reason.as_deref() != Some(DELETED) {
                continue;
            }
            ended.push(format!("`{}` is {}", cell.id, cell.state));
            // Its log had nowhere to go.
            let facts = facts_of(&row.facts);
            if cell.state == State::Closed
                && cell.approval.is_some()
                && !facts.publishing
                && !self.tx.has_comment(cell.id.as_str(), "close-log")?
            {
                self.publish(&Publication::CloseLog(self.close_log(cell, &facts)?), Some(&cell.id))?;
            }
        }
        let cells = match ended.as_slice() {
            [] => String::new(),
            ended => format!(
                " What was ended stays ended: {}. `/resurrect CELL` brings a closed one back within its grace period.",
                ended.join(", ")
            ),
        };
        self.warn(
            format!("The forge did not show this issue for some time, so it was taken for deleted. It is there, and commands work again.{cells}"),
            None,
        )?;
        self.observe(issue, IssueAction::Seen)?;
        self.show()
    }

    /// Says so where a label is on the issue that is named like the approval label
    /// and does not count: once for each label.
    pub(super) fn warn_of_other_labels(&mut self, issue: &IssueSnapshot) -> Result<()> {
        if self.mission.ballot.is_none() {
            return Ok(());
        }
        let Some(repo) = self.context.repo(self.repo.id) else { return Ok(()) };
        let counts = repo.approved_label.map(|label| label.id());
        for label in issue.labels.iter().filter(|label| label.name == APPROVED && Some(label.id) != counts) {
            let key = format!("label_told:{}:{}", self.id, label.id);
            if self.tx.meta(&key)?.is_some() {
                continue;
            }
            self.tx.put_meta(&key, "")?;
            let why = match (&repo.label_off, counts) {
                (Some(off), _) => off.clone(),
                (None, Some(id)) => format!(
                    "it is another label of that name (id {}) than the one that counts (id {id}). `/approve` works; where that one is gone, `lazarus init {}` pins another",
                    label.id,
                    self.repo.full_name()
                ),
                (None, None) => "approval by label is off here. `/approve` works".to_owned(),
            };
            self.record(&Actor::System, None, "label_not_counted", &json!({"label": label.id, "why": why}))?;
            self.warn(format!("The label `{APPROVED}` on this issue approves nothing: {why}."), None)?;
        }
        Ok(())
    }

    /// A label that counts was seen under another name: who puts it on an issue may
    /// mean something else by it, so from now on it does not count.
    pub(super) fn doubt_renamed_label(&self, issue: &IssueSnapshot) -> Result<()> {
        let Some(pinned) = self.context.repo(self.repo.id).and_then(|repo| repo.approved_label) else { return Ok(()) };
        let Some(label) = issue.labels.iter().find(|l| l.id == pinned.id() && l.name != APPROVED) else {
            return Ok(());
        };
        let fault = label_was_renamed(label.id, &label.name);
        self.tx.amend_pin(PinKind::Label, &label_name(self.repo.id, APPROVED), None, Some(&fault))?;
        self.record(&Actor::System, None, "label_not_counted", &json!({"label": label.id, "why": fault}))?;
        self.context.learn(|known| {
            if let Some(repo) = known.repos.get_mut(&self.repo.id) {
                repo.approved_label = None;
                repo.label_off = Some(fault);
            }
        });
        Ok(())
    }

    pub(super) fn end_all(&mut self, reason: &str) -> Result<()> {
        self.mission.ballot = None;
        for cell in self.live_cells()? {
            let input = match cell.state {
                State::Proposed | State::Invited => {
                    CellInput::Drop { outcome: End::Abandoned, reason: reason.to_owned() }
                }
                State::Idle => CellInput::Close { outcome: End::Completed, reason: Some(reason.to_owned()) },
                _ => CellInput::Close { outcome: End::Abandoned, reason: Some(reason.to_owned()) },
            };
            let _ = self.apply(&cell.id, &input, &Actor::System)?;
        }
        self.show()
    }

    pub(super) fn approve_by_label(&mut self, events: &[LabelEvent]) -> Result<()> {
        let Some(newest) = events.last() else { return Ok(()) };
        if newest.id <= self.mission.label_event {
            return Ok(());
        }
        self.mission.label_event = newest.id;
        if !newest.added || self.context.bot().is_some_and(|b| b.id == newest.actor.id) {
            return Ok(());
        }
        if newest.level != Some(Level::Director) {
            self.drop_label()?;
            return self.warn(
                format!(
                    "`{}` is not a director here, so the label approves nothing; it was taken off.",
                    newest.actor.login
                ),
                None,
            );
        }
        self.mission.doubt_text_before(newest.at / 1000);
        let text = self.text()?;
        let asked = Asked {
            actor: Actor::Person { id: newest.actor.id, login: newest.actor.login.clone() },
            level: Level::Director,
            comment: None,
            given_at: At(newest.at),
            text,
            accounts: BTreeMap::new(),
        };
        let done = self.approve(&asked)?;
        if !done.ok {
            self.drop_label()?;
        }
        if !done.says.is_empty() {
            let change = done.change.map(|c| c.diff);
            self.warn(done.says, change)?;
        }
        self.show()
    }
}
