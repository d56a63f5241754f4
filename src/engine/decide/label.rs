//! The approval label: what adding it means, and which labels do not count.

use super::commands::Asked;
use super::mission_tx::MissionTx;
use crate::cell::{Actor, At};
use crate::engine::effect::Effect;
use crate::engine::forge_identity::{APPROVED, label_was_renamed};
use crate::engine::input::{LabelEvent, Look};
use crate::engine::keys::label_told_key;
use crate::engine::lane::Lane;
use crate::engine::request::actor;
use crate::gitea::event::IssueSnapshot;
use crate::mission::{Level, Moment};
use crate::publication::sentences::requests as say;
use crate::publication::{Publication, Warning};
use crate::store::{PinKind, Result, label_name};
use serde_json::json;
use std::collections::BTreeMap;

impl MissionTx<'_> {
    /// Says so where a label is on the issue that is named like the approval label
    /// and does not count: once for each label.
    pub fn warn_of_other_labels(&mut self, issue: &IssueSnapshot) -> Result<()> {
        if self.known().records.is_empty() {
            return Ok(());
        }
        let Some(repo) = self.context().repo(self.repo().id) else { return Ok(()) };
        let counts = repo.approved_label.map(|label| label.id());
        for label in issue.labels.iter().filter(|label| label.name == APPROVED && Some(label.id) != counts) {
            let key = label_told_key(self.id(), label.id);
            if self.tx().meta(&key)?.is_some() {
                continue;
            }
            self.tx().put_meta(&key, "")?;
            let why = match (&repo.label_off, counts) {
                (Some(off), _) => off.clone(),
                (None, Some(id)) => say::label_is_another(label.id, id, &self.repo().full_name()),
                (None, None) => say::label_is_off(),
            };
            self.record(&Actor::System, None, "label_not_counted", &json!({"label": label.id, "why": why}))?;
            self.warn(say::label_approves_nothing(APPROVED, &why), None)?;
        }
        Ok(())
    }

    /// A label that counts was seen under another name: who puts it on an issue may
    /// mean something else by it, so from now on it does not count.
    pub fn doubt_renamed_label(&self, issue: &IssueSnapshot) -> Result<()> {
        let Some(pinned) = self.context().repo(self.repo().id).and_then(|repo| repo.approved_label) else {
            return Ok(());
        };
        let Some(label) = issue.labels.iter().find(|l| l.id == pinned.id() && l.name != APPROVED) else {
            return Ok(());
        };
        let fault = label_was_renamed(label.id, &label.name);
        self.tx().amend_pin(PinKind::Label, &label_name(self.repo().id, APPROVED), None, Some(&fault))?;
        self.record(&Actor::System, None, "label_not_counted", &json!({"label": label.id, "why": fault}))?;
        self.context().change_identity(|known| {
            if let Some(repo) = known.repos.get_mut(&self.repo().id) {
                repo.approved_label = None;
                repo.label_off = Some(fault);
            }
        });
        Ok(())
    }

    /// Deals with the approval label, once for each time that somebody adds it.
    pub fn label(&mut self, look: &Look) -> Result<()> {
        let bot = self.context().bot().map(|b| b.id);
        let events = &look.label_events;
        let newest = events.last().map_or(self.known().label_event, |e| e.id);
        // What somebody took off again is taken back; the bot takes off what it dealt with.
        let stands = |index: usize| !events[index + 1..].iter().any(|e| !e.added && Some(e.actor.id) != bot);
        let added: Vec<&LabelEvent> =
            (0..events.len()).filter(|i| events[*i].added && stands(*i)).map(|i| &events[i]).collect();
        let handled = std::mem::replace(&mut self.known_mut().label_handled, look.label.then_some(newest));
        self.known_mut().label_event = newest;
        // Whatever comes of it, it counts once.
        if look.label && handled != Some(newest) {
            self.drop_label()?;
        }
        if added.is_empty() && look.label && handled.is_none() && !events.iter().any(|e| !e.added) {
            return self.warn(say::label_was_there(), None);
        }
        let mut strangers: Vec<String> = vec![];
        for event in added {
            if event.level == Some(Level::Director) && Some(event.actor.id) != bot {
                self.approve_by_label(event)?;
                continue;
            }
            self.record(&actor(&event.actor), None, "refused", &json!({"command": "label", "why": "not a director"}))?;
            let name = format!("`{}`", event.actor.login);
            if !strangers.contains(&name) {
                strangers.push(name);
            }
        }
        if !strangers.is_empty() {
            let names = strangers.join(", ");
            let one = strangers.len() == 1;
            self.warn(if one { say::label_by_stranger(&names) } else { say::label_by_strangers(&names) }, None)?;
        }
        Ok(())
    }

    fn drop_label(&mut self) -> Result<()> {
        let effect = Effect::RemoveApproval { repo: self.repo().clone(), number: self.known().number };
        let id = self.id().clone();
        self.queue_instead(Lane::Label(&id), &effect, 0)
    }

    fn approve_by_label(&mut self, event: &LabelEvent) -> Result<()> {
        self.known_mut().mark_text_uncertain(event.at / 1000);
        let asked = Asked {
            actor: actor(&event.actor),
            level: Level::Director,
            comment: None,
            given: Some(Moment { at: At(event.at), id: Some(event.id) }),
            text: self.text()?,
            sha256: String::new(),
            accounts: BTreeMap::new(),
            base: None,
        };
        let done = self.approve(&asked, None)?;
        if !done.ok {
            self.record(&asked.actor, None, "refused", &json!({"command": "label", "why": done.says}))?;
        }
        if !done.says.is_empty() {
            let text = say::label_taken_off(&done.says);
            let warning = Publication::Warning(Warning { text, change: done.change });
            self.publish_to_warned(&warning)?;
        }
        self.show()
    }
}
