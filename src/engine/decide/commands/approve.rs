//! `/approve [N]`: counts an approval, and starts the cell if that is enough.

use super::{Asked, Done};
use crate::cell::Actor;
use crate::engine::decide::mission_tx::MissionTx;
use crate::engine::effect::Slot;
use crate::mission::{Approving, Concern, DecisionRecord, Verdict};
use crate::publication::sentences::requests as say;
use crate::store::Result;
use serde_json::json;

impl MissionTx<'_> {
    /// Counts an approval, however it was given, and starts the cell if that is enough.
    pub fn approve(&mut self, asked: &Asked, number: Option<u32>) -> Result<Done> {
        if !self.known().open {
            return Ok(Done::no(say::issue_closed()));
        }
        let seen = self.has_seen(asked.id(), Concern::Edit, asked.given)?;
        let approving = Approving { id: asked.id(), login: asked.login().to_owned(), given: asked.given, number, seen };
        if let Some(done) = self.not_as_shown(asked, number)? {
            return Ok(done);
        }
        let (current, rules, now) = (self.known().text.clone(), self.rules(), self.now());
        match self.known_mut().approve(&current, &approving, rules, now) {
            Verdict::NothingOpen
                if self.known().is_proposal && self.known().complained_of.as_deref() == Some(&self.known().text) =>
            {
                Ok(Done::no(say::cannot_be_approved()))
            }
            Verdict::NothingOpen => Ok(Done::no(say::nothing_open())),
            Verdict::Several { open } => Ok(Done::no(say::several_open(&self.list_open(&open)))),
            Verdict::NotOpen { number, open } => Ok(Done::no(match open.as_slice() {
                [] => say::not_open_nor_others(number),
                open => say::not_open_but_others(number, &self.list_open(open)),
            })),
            Verdict::BornLater { number } => Ok(Done::no(say::born_later(number))),
            Verdict::NotCounted { why, .. } => Ok(Done::no(say::does_not_count(&why))),
            Verdict::TooSoon { number } => {
                self.known_mut().warn(asked.id(), Concern::Edit);
                let mut done = self.too_soon("approval", &say::approve_again(number))?;
                done.cell = self.known().records.iter().find(|r| r.number == number).map(|r| r.cell.clone());
                Ok(done)
            }
            Verdict::Counted { number, missing } => {
                let Some(record) = self.known().records.iter().find(|r| r.number == number).cloned() else {
                    return Ok(Done::no(say::nothing_to_approve()));
                };
                self.record_vote(asked, &record, missing)?;
                Ok(Done::ok(say::counted(number, missing)).on(&record.cell))
            }
            Verdict::Approved { record, by } => {
                if record.council.is_some() {
                    self.record_vote(asked, &record, 0)?;
                }
                let mut approvers: Vec<Actor> = by.into_iter().map(|(id, login)| Actor::Person { id, login }).collect();
                if matches!(asked.actor, Actor::Operator { .. }) {
                    approvers = vec![asked.actor.clone()];
                }
                let names: Vec<String> = approvers.iter().map(Actor::name).collect();
                let names = names.join(", ");
                let started = self.start(&record, approvers, &asked.actor)?;
                let standing =
                    if started.ok { say::approved_by(&names) } else { say::not_started(&names, &started.says) };
                self.show_record(&record, &standing, false)?;
                Ok(started)
            }
        }
    }

    fn record_vote(&self, asked: &Asked, record: &DecisionRecord, missing: usize) -> Result<()> {
        let sha256 = record.sha256(self.id().as_str());
        let data = json!({"number": record.number, "sha256": sha256, "missing": missing});
        self.record(&asked.actor, Some(&record.cell), "voted", &data).map(drop)
    }

    /// What is answered where the comment that shows a record is not as it was written, or was written long after
    /// the approval: then it was for something else. The record is shown anew.
    fn not_as_shown(&mut self, asked: &Asked, number: Option<u32>) -> Result<Option<Done>> {
        let Some(given) = asked.given else { return Ok(None) };
        let Ok(record) = self.known().open_record(number).cloned() else { return Ok(None) };
        let number = record.number;
        if self.is_shown_changed(number) {
            self.show_open(&record, &say::comment_put_right())?;
            return Ok(Some(Done::no(say::shown_was_changed(number))));
        }
        let shown =
            self.tx().comment_of_kind(self.id().as_str(), &Slot::of(&record).to_string())?.map(|c| c.comment_id);
        let before = given.id.zip(shown).is_none_or(|(given, shown)| given < shown);
        if before && self.now().0.saturating_sub(given.at.0) > self.rules().settle {
            return Ok(Some(Done::no(say::not_shown_yet(number))));
        }
        Ok(None)
    }
}
