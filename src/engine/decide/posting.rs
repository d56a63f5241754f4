//! What Lazarus writes on a mission's issue.

use super::mission_tx::MissionTx;
use crate::cell::{Actor, CellId};
use crate::engine::effect::{Effect, Slot};
use crate::engine::lane::Lane;
use crate::publication::{Answer, Publication, TextChange, Warning};
use crate::store::Result;
use serde_json::json;

impl MissionTx<'_> {
    /// Writes a comment.
    pub fn publish(&mut self, publication: &Publication, cell: Option<&CellId>) -> Result<()> {
        self.publish_as(publication, cell).map(drop)
    }

    /// Writes a comment and returns the name of the effect that posts it. `None`: the issue
    /// is not there any more.
    pub fn publish_as(&mut self, publication: &Publication, cell: Option<&CellId>) -> Result<Option<String>> {
        let id = self.id().clone();
        self.publish_on(Lane::Comments(&id), publication, cell)
    }

    /// The same on another lane than the comments', so that it keeps no order with them.
    pub fn publish_on(
        &mut self,
        lane: Lane<'_>,
        publication: &Publication,
        cell: Option<&CellId>,
    ) -> Result<Option<String>> {
        if self.known().deleted {
            return Ok(None);
        }
        let (id, body) = self.rendered(publication, cell)?;
        let kind = publication.kind().to_owned();
        let effect = Effect::Comment { repo: self.repo().clone(), number: self.known().number, kind, body };
        self.queue_as(&id, lane, &effect, cell)?;
        Ok(Some(id))
    }

    /// The text of a publication, under the name of the effect that is to publish it. What
    /// the gate took out of it is on record.
    pub fn rendered(&mut self, publication: &Publication, cell: Option<&CellId>) -> Result<(String, String)> {
        let id = self.next_effect_id();
        let published = self.context().render(publication, &id, cell.map(CellId::as_str));
        if !published.removed.is_empty() {
            self.record(&Actor::System, cell, "gate_removed", &json!({"effect": id, "removed": published.removed}))?;
        }
        Ok((id, published.body))
    }

    /// A short word that something was not done, or is worth knowing.
    pub fn warn(&mut self, text: impl Into<String>, change: Option<String>) -> Result<()> {
        let change = change.map(|diff| TextChange { diff });
        self.publish(&Publication::Warning(Warning { text: text.into(), change }), None)
    }

    /// Says that something that was asked for was not done.
    pub fn refuse(&mut self, text: String, cell: Option<&CellId>) -> Result<()> {
        let answer = Answer::one(false, text);
        self.publish(&Publication::Refusal(answer), cell)
    }

    /// Writes a comment that has a slot of its own: one that stands there already is
    /// edited in place. With `only_edit`, none is written where none stands.
    pub fn publish_standing(&mut self, slot: Slot, publication: &Publication, only_edit: bool) -> Result<()> {
        if self.known().deleted {
            return Ok(());
        }
        let id = self.next_effect_id();
        let published = self.context().render(publication, &id, None);
        let lane = Lane::Comments(self.id());
        let effect = Effect::Standing {
            repo: self.repo().clone(),
            number: self.known().number,
            slot: slot.to_string(),
            body: published.body,
            only_edit,
        };
        self.tx().supersede(&lane.to_string(), effect.kind().word())?;
        self.queue_as(&id, lane, &effect, None)
    }

    /// Answers a comment: a reaction, and words where there are any.
    pub fn answer(&mut self, comment: i64, all_done: bool, none_done: bool, answer: &Answer) -> Result<()> {
        let content = if all_done { "+1" } else { "confused" };
        let alone = answer.items.is_empty() && answer.status.is_none() && answer.help.is_empty();
        let effect = Effect::React { repo: self.repo().clone(), comment, content: content.to_owned(), alone };
        self.queue(Lane::Reactions(comment), &effect, None)?;
        if alone {
            return Ok(());
        }
        self.publish_to_warned(&Publication::answering(answer.clone(), !none_done))
    }

    /// Writes a comment that shows what somebody is to see before their word counts, if they
    /// are to see anything.
    pub fn publish_to_warned(&mut self, publication: &Publication) -> Result<()> {
        if let Some(effect) = self.publish_as(publication, None)? {
            self.known_mut().warned_by(&effect);
        }
        Ok(())
    }
}
