//! What happens to an issue: seen, edited, closed, deleted. All of it is taken from a
//! look at the forge, never from what a delivery says of it.

use super::mission_tx::MissionTx;
use crate::cell::{Actor, At, Input as CellInput, Outcome as End, State};
use crate::engine::effect::Effect;
use crate::engine::facts::Facts;
use crate::engine::input::Look;
use crate::engine::keys::Pace;
use crate::engine::lane::Lane;
use crate::gitea::event::{IssueSnapshot, RepoRef};
use crate::mission::{ApprovedText, what_changed};
use crate::publication::Publication;
use crate::publication::sentences::{issues as say, requests};
use crate::store::Result;
use serde_json::json;

/// Looks at one issue that are taken at once within a minute; more wait.
const LOOKS_AT_ONCE: i64 = 10;
/// How long a look waits beyond that, in milliseconds.
const LOOK_LATER: i64 = 10_000;

impl MissionTx<'_> {
    /// Asks the forge about the issue.
    pub fn look(&mut self, repo: &RepoRef) -> Result<()> {
        let effect = Effect::Look { repo: repo.clone(), number: self.known().number };
        let looks = self.tx().pace_of(&Pace::Looks(self.id()).to_string(), self.now().0, 1)?;
        let not_before = if looks > LOOKS_AT_ONCE { self.now().0 + LOOK_LATER } else { 0 };
        let id = self.id().clone();
        self.queue_instead(Lane::Authority(&id), &effect, not_before)
    }

    /// Takes over what the forge shows of an issue.
    pub fn take_in(&mut self, look: &Look, new: bool) -> Result<()> {
        self.known_mut().forget_voters(&look.lost);
        self.note_changed_shown(&look.changed_shown);
        for comment in &look.changed {
            for record in self.known_mut().void_by_comment(*comment) {
                self.void(&record, &requests::comment_changed())?;
            }
        }
        let issue = &look.issue;
        self.undo_deletion(issue)?;
        let known = self.known_mut();
        known.seen_at = known.seen_at.max(issue.updated_at.as_second());
        known.author_login.clone_from(&issue.author.login);
        let text = ApprovedText::new(&issue.title, &issue.body);
        let edited = text.hash != self.known().text;
        if edited {
            self.edited(&text, At(issue.updated_at.as_millisecond()))?;
        }
        let reopened = issue.open && !self.known().open;
        if issue.open != self.known().open {
            self.known_mut().open = issue.open;
            if !issue.open {
                self.end_all(&say::issue_closed())?;
            }
        }
        // Reopening restarts nothing; a proposal is before the directors again.
        if issue.open && (new || edited || reopened || !self.known().is_proposal) && self.known().proposal().is_none() {
            let born = if reopened { At(issue.updated_at.as_millisecond()) } else { self.text_is_from(look) };
            self.consider_proposal(look, born)?;
        }
        self.doubt_renamed_label(issue)?;
        self.warn_of_other_labels(issue)?;
        self.label(look)
    }

    /// Since when the issue has the text that it has, by the forge's clock.
    fn text_is_from(&self, look: &Look) -> At {
        let polled = self.known().first_polled.map(|seconds| At(seconds * 1000));
        self.known().edited_at.or(polled).unwrap_or(At(look.issue.created_at.as_millisecond()))
    }

    fn edited(&mut self, text: &ApprovedText, at: At) -> Result<()> {
        let before = self.text()?;
        self.tx().put_text(text)?;
        self.record(&Actor::System, None, "text_changed", &json!({"from": before.hash, "to": text.hash}))?;
        // Of several edits one after the other, what it was before the first of them.
        let settle = self.rules().settle;
        let known = self.known_mut();
        let before_that = known.text_before.take();
        let goes_on = known.edited_at.is_some_and(|last| at.0.saturating_sub(last.0) < settle);
        known.text_before = before_that.filter(|_| goes_on).or_else(|| Some(before.hash.clone()));
        known.warned.clear();
        known.text.clone_from(&text.hash);
        known.edited_at = Some(at);
        let change = what_changed(&before, text, 40);
        let mut voided = vec![];
        for cell in self.cells()?.into_iter().map(|row| row.cell) {
            if cell.approval.is_none() || cell.approval_void || matches!(cell.state, State::Archived | State::Destroyed)
            {
                continue;
            }
            let _ = self.apply(&cell.id, &CellInput::Void, &Actor::System)?;
            let reason = say::text_changed();
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
            self.warn(say::approval_void(&voided.join(", ")), Some(change))?;
        }
        let void = self.known_mut().void_by_edit();
        let voters: Vec<String> = void.iter().flat_map(|r| r.votes.iter().map(|v| v.login.clone())).collect();
        for record in void {
            self.void(&record, &requests::text_changed_after())?;
        }
        if !voters.is_empty() {
            let voters = voters.join(", ");
            self.warn(say::votes_void(&voters), None)?;
        }
        Ok(())
    }

    /// The forge has no such issue any more.
    pub fn issue_deleted(&mut self) -> Result<()> {
        if self.known().deleted {
            return Ok(());
        }
        self.record(&Actor::System, None, "issue_deleted", &json!({}))?;
        self.known_mut().deleted = true;
        self.known_mut().open = false;
        self.end_all(&say::issue_deleted())
    }

    /// The issue shows again, so it was not deleted: commands work again. What was
    /// ended stays ended.
    fn undo_deletion(&mut self, issue: &IssueSnapshot) -> Result<()> {
        // A number is never given twice; whatever else it were, it is not ours.
        if !self.known().deleted || issue.id != self.known().issue_id {
            return Ok(());
        }
        self.record(&Actor::System, None, "issue_restored", &json!({}))?;
        self.known_mut().deleted = false;
        let mut ended = vec![];
        for row in self.cells()? {
            let cell = &row.cell;
            if cell.reason.as_deref() != Some(say::issue_deleted().as_str()) {
                continue;
            }
            ended.push(say::cell_is(&cell.id, cell.state));
            // Its log had nowhere to go.
            let facts = Facts::of(&row)?;
            if cell.state == State::Closed
                && cell.approval.is_some()
                && !facts.publishing.log_waits()
                && !self.tx().has_comment(cell.id.as_str(), "close-log")?
            {
                let published = facts.publishing.published().cloned().unwrap_or_default();
                let log = self.close_log(cell, &facts, published)?;
                self.publish(&Publication::CloseLog(log), Some(&cell.id))?;
            }
        }
        let cells = match ended.as_slice() {
            [] => String::new(),
            ended => say::stays_ended(&ended.join(", ")),
        };
        self.warn(say::shows_again(&cells), None)?;
        Ok(())
    }

    fn end_all(&mut self, reason: &str) -> Result<()> {
        for record in std::mem::take(&mut self.known_mut().records) {
            self.void(&record, reason)?;
        }
        for cell in self.live_cells()? {
            let input = match cell.state {
                State::Invited => CellInput::Drop { outcome: End::Abandoned, reason: reason.to_owned() },
                State::Idle => CellInput::Close { outcome: End::Completed, reason: Some(reason.to_owned()) },
                _ => CellInput::Close { outcome: End::Abandoned, reason: Some(reason.to_owned()) },
            };
            if cell.state == State::Idle {
                // Whoever closes an issue does not say how its work went.
                self.change_facts(&cell.id, |facts| facts.outcome_open = true)?;
            }
            let _ = self.apply(&cell.id, &input, &Actor::System)?;
        }
        self.show()
    }
}
