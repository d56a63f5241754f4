//! `/approve [N]`: counts an approval, and starts the cell if that is enough.

use super::{Asked, Done};
use crate::cell::Actor;
use crate::engine::decide::mission_tx::MissionTx;
use crate::engine::effect::Slot;
use crate::mission::{Approving, Concern, Verdict};
use crate::store::Result;
use serde_json::json;

impl MissionTx<'_> {
    /// Counts an approval, however it was given, and starts the cell if that is enough.
    pub fn approve(&mut self, asked: &Asked, number: Option<u32>) -> Result<Done> {
        if !self.known().open {
            return Ok(Done::no("the issue is closed"));
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
                self.known_mut().warn(asked.id(), Concern::Edit);
                let mut done = self.too_soon(
                    "approval",
                    &format!("Look at it and `/approve {number}` again if that is what you mean."),
                )?;
                done.cell = self.known().records.iter().find(|r| r.number == number).map(|r| r.cell.clone());
                Ok(done)
            }
            Verdict::Counted { number, missing } => {
                let Some(record) = self.known().records.iter().find(|r| r.number == number).cloned() else {
                    return Ok(Done::no("there is nothing to approve"));
                };
                let data = json!({"number": number, "sha256": record.sha256(self.id().as_str()), "missing": missing});
                self.record(&asked.actor, Some(&record.cell), "voted", &data)?;
                Ok(Done::ok(format!(
                    "Counted for request {number}; {missing} more approval{} needed.",
                    if missing == 1 { " is" } else { "s are" }
                ))
                .on(&record.cell))
            }
            Verdict::Approved { record, by } => {
                if record.council.is_some() {
                    let data =
                        json!({"number": record.number, "sha256": record.sha256(self.id().as_str()), "missing": 0});
                    self.record(&asked.actor, Some(&record.cell), "voted", &data)?;
                }
                let mut approvers: Vec<Actor> = by.into_iter().map(|(id, login)| Actor::Person { id, login }).collect();
                if matches!(asked.actor, Actor::Operator { .. }) {
                    approvers = vec![asked.actor.clone()];
                }
                let names: Vec<String> = approvers.iter().map(Actor::name).collect();
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
        let Ok(record) = self.known().open_record(number).cloned() else { return Ok(None) };
        let number = record.number;
        if self.is_shown_changed(number) {
            self.show_open(&record, "Somebody changed this comment; now it is as Lazarus wrote it. ")?;
            return Ok(Some(Done::no(format!(
                "somebody changed or deleted the comment that shows request {number}. It is put right: look at it, and `/approve {number}` if that is what you mean"
            ))));
        }
        let shown =
            self.tx().comment_of_kind(self.id().as_str(), &Slot::of(&record).to_string())?.map(|c| c.comment_id);
        let before = given.id.zip(shown).is_none_or(|(given, shown)| given < shown);
        if before && self.now().0.saturating_sub(given.at.0) > self.rules().settle {
            return Ok(Some(Done::no(format!(
                "request {number} had not been shown when this approval was given; look at it, and `/approve {number}` if that is what you mean"
            ))));
        }
        Ok(None)
    }
}
