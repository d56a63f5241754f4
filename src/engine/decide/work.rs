//! The work of a cell leaves it, or is held.

use super::mission_tx::MissionTx;
use crate::cell::{self, Actor, Cell, CellId};
use crate::engine::effect::Effect;
use crate::engine::facts::Facts;
use crate::engine::lane::Lane;
use crate::mission::held::Held;
use crate::mission::publishing::{PublishedWork, Push, Said};
use crate::publication::sentences::cells;
use crate::publication::{Answer, Publication, PullRequest};
use crate::store::{Result, StoreError};
use serde_json::json;

impl MissionTx<'_> {
    /// Has work of a cell pushed and proposed.
    pub fn push_work(&mut self, cell: &Cell, facts: &Facts, push: Push) -> Result<()> {
        let Some(harvest) = facts.harvest.as_ref() else { return Ok(()) };
        let branch = format!("lazarus/{}-{}", self.known().number, cell.id);
        let others = push.others.into_iter();
        let others: Vec<(String, String)> = others
            .map(|(index, name, commit)| (format!("{branch}-{}-{}", index + 1, branch_word(&name)), commit))
            .collect();
        let approval = cell.approval.as_ref();
        let pull = PullRequest {
            cell: cell.id.to_string(),
            issue: self.known().number,
            approved_by: approval.iter().flat_map(|a| a.by.iter().map(Actor::name)).collect(),
            participants: cell
                .participants
                .iter()
                .filter(|p| p.role.works() && p.run != cell::RunState::Waiting)
                .map(|p| format!("{} ({})", p.identity, p.role))
                .collect(),
            text: approval.map(|a| a.text.clone()).unwrap_or_default(),
            base: facts.commit.clone().unwrap_or_default(),
            commits: harvest.commits.clone(),
            commit_count: harvest.commit_count,
            file_count: harvest.file_count,
            rest: harvest.rest && push.tip.is_some(),
            notes: harvest.notes.clone(),
            head: self.tx().head()?.to_string(),
        };
        let asked = approval.map(|a| self.tx().text(&a.text)).transpose()?.flatten().unwrap_or(self.text()?);
        // The template's beginning says nothing to a reviewer.
        let title = self.context().plain_title(asked.title.trim_start_matches("[mission]"));
        let (id, body) = self.rendered(&Publication::PullRequest(pull), Some(&cell.id))?;
        let data = json!({"branch": branch, "tip": push.tip.as_ref().or(push.instead.as_ref())});
        let effect = Effect::Push {
            repo: self.repo().clone(),
            branch,
            tip: push.tip,
            instead: push.instead,
            others,
            released: push.released,
            base: facts.branch.clone().unwrap_or_default(),
            title,
            body,
        };
        self.queue_as(&id, Lane::Cell(&cell.id), &effect, Some(&cell.id))?;
        self.record(&Actor::System, Some(&cell.id), "publishing", &data).map(drop)
    }

    /// Tells people what of a cell's work is held, where nothing else does.
    pub fn say_what_is_held(&mut self, cell: &Cell) -> Result<()> {
        let mut facts = self.facts(&cell.id)?;
        let items: Vec<(bool, String)> = facts.held().map(|held| (false, held_words(&cell.id, held))).collect();
        if items.is_empty() {
            return Ok(());
        }
        let answer = Answer { items, ..Answer::default() };
        let shown = self.publish_as(&Publication::Refusal(answer), Some(&cell.id))?;
        facts.publishing.held_is_shown(shown);
        self.put_facts(&cell.id, &facts)
    }

    /// Notes what of a cell's work is held, and why.
    pub fn record_held(&self, cell: &CellId, held: &[Held]) -> Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        self.record(&Actor::System, Some(cell), "work_held", &json!({"held": held})).map(|_| ())
    }

    /// The work of a cell left, or was refused, or is held.
    pub fn work_published(&mut self, cell: &Cell, published: &PublishedWork) -> Result<()> {
        let mut facts = self.facts(&cell.id)?;
        let data = serde_json::to_value(published).map_err(StoreError::json("published work"))?;
        self.record(&Actor::System, Some(&cell.id), "work_published", &data)?;
        self.record_held(&cell.id, &published.held)?;
        let (work, publishing) = facts.work_and_publishing();
        let (said, held) = publishing.push_ended(work, published.clone());
        if let Some(harvest) = &mut facts.harvest {
            harvest.held = held;
        }
        if said == Said::InTheLog {
            self.publish_close_log(cell, &mut facts)?;
        } else {
            let mut items = vec![];
            if let Some(branch) = published.branch.as_ref().or(published.others.first()) {
                let pull = published.pull.as_ref();
                let pull = pull.map_or_else(String::new, |(number, _)| cells::and_pull_request(*number));
                items.push((true, cells::work_is_on_branch(&cell.id, branch, &pull)));
            }
            if let Some(why) = &published.refused {
                items.push((false, cells::work_not_published(&cell.id, why)));
            }
            for (branch, why) in &published.others_refused {
                items.push((false, cells::branch_not_published(branch, why)));
            }
            let held: Vec<String> = facts.held().map(|held| held_words(&cell.id, held)).collect();
            items.extend(held.into_iter().map(|words| (false, words)));
            let done = items.iter().all(|(done, _)| *done);
            let answer = Answer { items, ..Answer::default() };
            let shown = self.publish_as(&Publication::answering(answer, done), Some(&cell.id))?;
            if facts.held().next().is_some() {
                facts.publishing.held_is_shown(shown);
            }
        }
        self.answer_waiters(cell, &mut facts, false)?;
        self.put_facts(&cell.id, &facts)
    }

    /// The work of a cell does not leave yet. The close log does not wait for it any
    /// longer: what becomes of the work is said when it is known.
    pub fn work_waits(&mut self, id: &CellId, why: &str, patience: &str) -> Result<()> {
        let Some(cell) = self.cell(id)? else { return Ok(()) };
        let mut facts = self.facts(id)?;
        if facts.publishing.push_takes_long() == Said::ByItself {
            return self.warn(cells::work_not_published_yet(id, why, patience), None);
        }
        let so_far = PublishedWork { refused: Some(cells::not_yet(why, patience)), ..PublishedWork::default() };
        self.publish(&Publication::CloseLog(self.close_log(&cell, &facts, so_far)?), Some(id))?;
        self.answer_waiters(&cell, &mut facts, false)?;
        self.put_facts(id, &facts)
    }
}

/// What is held, and who can do what about it, in sentences.
pub fn held_words(cell: &CellId, held: &Held) -> String {
    let words = held.words();
    let mut letters = words.chars();
    let words: String = letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect());
    let what = if held.has_secret() {
        cells::held_secret(cell)
    } else if held.can_be_released() {
        cells::held_for_director(cell)
    } else {
        cells::held_by_limit(cell)
    };
    cells::held(&words, &what)
}

/// A branch's name as a part of another: letters, digits and `-`.
fn branch_word(name: &str) -> String {
    let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    word.trim_matches('-').to_owned()
}
