//! One input, decided: everything between reading the state and the new rows,
//! inside one transaction.
//!
//! A [`Desk`] holds the mission that the input is about. What the pure core
//! decides becomes ledger entries, evolved cells, effects and comments here;
//! the desk itself decides nothing but who is asked and what is said.

use super::context::Context;
use super::input::{AuthorityRequest, Effect, Facts, Outcome, PublishedWork, Until};
use crate::cell::{self, Actor, At, Cell, CellId, Event, Identity, Input as CellInput, Refusal, State};
use crate::egress;
use crate::gitea::event::{IssueSnapshot, RepoRef};
use crate::mission::{ApprovedText, Concern, Line, Mission, Moment, duration_words};
use crate::publication::{Answer, CloseLog, Publication, PullRequest, SpawnLog, StatusRow, StatusTable, Warning};
use crate::repository::{Finding, Held};
use crate::store::{EffectRow, Head, NewEntry, Result, StoreError, Tx};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The lane on which a mission's visible comments keep their order.
pub fn comment_lane(mission: &str) -> String {
    format!("comments:{mission}")
}

/// A mission's name in the registry.
pub fn mission_id(repo_id: i64, number: i64) -> String {
    format!("{repo_id}#{number}")
}

/// The name of the `count`-th effect of an input: the same input gives the same.
pub fn effect_name(key: &str, count: u32) -> String {
    let mut hasher = Sha256::new();
    hasher.update(key.as_bytes());
    hasher.update([0]);
    hasher.update(count.to_be_bytes());
    hex::encode(&hasher.finalize()[..10])
}

/// Puts an effect of a mission into the queue.
#[allow(clippy::too_many_arguments, reason = "the parts of one row")]
pub fn queue_effect(
    tx: &Tx<'_>,
    now: At,
    id: &str,
    lane: String,
    mission: &str,
    cell: Option<&CellId>,
    effect: &Effect,
    not_before: i64,
) -> Result<()> {
    let data = serde_json::to_string(effect).map_err(|e| StoreError::Corrupt { what: "effect", why: e.to_string() })?;
    tx.queue(
        &EffectRow {
            seq: 0,
            id: id.to_owned(),
            lane,
            mission: mission.to_owned(),
            cell: cell.map(ToString::to_string),
            kind: effect.kind().into_owned(),
            data,
            attempts: 0,
            not_before,
        },
        now.0,
    )
}

/// One decision in progress.
pub struct Desk<'a> {
    pub tx: &'a Tx<'a>,
    pub context: &'a Context,
    pub now: At,
    /// The input's key: the effects' names are made from it, so that the same
    /// input gives the same names.
    key: String,
    effects: u32,
    pub id: String,
    pub mission: Mission,
    pub repo: RepoRef,
    /// Numbers of the issue's own requests that this input made void.
    pub voided: Vec<u32>,
    /// Numbers of the open requests whose comment somebody changed or deleted.
    pub changed_shown: Vec<u32>,
    /// The cell that an operator named: meant by commands that name none.
    pub meant: Option<CellId>,
}

impl<'a> Desk<'a> {
    /// Opens the desk of a mission that is known.
    pub fn open(tx: &'a Tx<'a>, context: &'a Context, now: At, key: &str, id: &str) -> Result<Option<Self>> {
        let Some(mission) = tx.mission(id)? else { return Ok(None) };
        let repo = RepoRef { id: mission.repo_id, owner: mission.owner.clone(), name: mission.repo.clone() };
        let mut desk = Self {
            tx,
            context,
            now,
            key: key.to_owned(),
            effects: 0,
            id: id.to_owned(),
            mission,
            repo,
            voided: vec![],
            changed_shown: vec![],
            meant: None,
        };
        desk.end_what_is_older_than_records()?;
        Ok(Some(desk))
    }

    /// A Lazarus without decision records left something open: nobody was shown it as
    /// it would run, so it ends, and has to be asked for again.
    fn end_what_is_older_than_records(&mut self) -> Result<()> {
        let Some(old) = self.mission.from_before_records.take() else { return Ok(()) };
        let reason = "Lazarus was upgraded while this was open; it has to be asked for again".to_owned();
        let drop = CellInput::Drop { outcome: cell::Outcome::Abandoned, reason };
        let _ = self.apply(&old.cell, &drop, &Actor::System)?;
        // A proposal is read again at the next look.
        self.mission.is_proposal = false;
        let repo = self.repo.clone();
        self.look(&repo)
    }

    /// Opens the desk of a cell's mission.
    pub fn of_cell(tx: &'a Tx<'a>, context: &'a Context, now: At, key: &str, cell: &CellId) -> Result<Option<Self>> {
        match tx.cell(cell.as_str())? {
            Some(row) => Self::open(tx, context, now, key, &row.cell.mission),
            None => Ok(None),
        }
    }

    /// Opens the desk for an issue; a new one is taken on record. The second
    /// value says whether it was new.
    pub fn for_issue(
        tx: &'a Tx<'a>,
        context: &'a Context,
        now: At,
        key: &str,
        repo: &RepoRef,
        issue: &IssueSnapshot,
    ) -> Result<(Self, bool)> {
        let id = mission_id(repo.id, issue.number);
        if let Some(mut desk) = Self::open(tx, context, now, key, &id)? {
            // Names move; the newest is the one to call it by.
            desk.mission.owner.clone_from(&repo.owner);
            desk.mission.repo.clone_from(&repo.name);
            desk.repo = repo.clone();
            return Ok((desk, false));
        }
        let text = ApprovedText::new(&issue.title, &issue.body);
        tx.put_text(&text)?;
        // What was heard of the issue before it became a mission counts as well.
        let seen = tx.seen_text(repo.id, issue.number)?;
        let (mut edited_at, mut text_before) = (None, None);
        if let Some(seen) = &seen {
            let before = if seen.text.hash == text.hash {
                edited_at = seen.edited_at.map(At);
                seen.before.clone()
            } else {
                edited_at = Some(At(issue.updated_at.as_millisecond()));
                Some((seen.text.title.clone(), seen.text.body.clone()))
            };
            if let (Some(_), Some((title, body))) = (edited_at, before) {
                let before = ApprovedText::new(&title, &body);
                tx.put_text(&before)?;
                text_before = Some(before.hash);
            }
        }
        let mission = Mission {
            repo_id: repo.id,
            owner: repo.owner.clone(),
            repo: repo.name.clone(),
            issue_id: issue.id,
            number: issue.number,
            author: issue.author.id,
            author_login: issue.author.login.clone(),
            open: issue.open,
            deleted: false,
            text: text.hash,
            seen_at: issue.updated_at.as_second(),
            first_polled: seen
                .filter(|seen| edited_at.is_none() && seen.since > issue.created_at.as_millisecond())
                .map(|seen| seen.since / 1000),
            edited_at,
            text_before,
            is_proposal: false,
            complained_of: None,
            records: vec![],
            last_record: 0,
            from_before_records: None,
            cells: vec![],
            label_event: 0,
            label_handled: None,
            warned: vec![],
            shown_state: None,
            told_no_mission: false,
        };
        let desk = Self {
            tx,
            context,
            now,
            key: key.to_owned(),
            effects: 0,
            id,
            mission,
            repo: repo.clone(),
            voided: vec![],
            changed_shown: vec![],
            meant: None,
        };
        Ok((desk, true))
    }

    /// Stores the mission. Every path ends here.
    pub fn close(self) -> Result<()> {
        self.tx.put_mission(&self.id, &self.mission, self.now.0)
    }

    /// The text that the issue has now.
    pub fn text(&self) -> Result<ApprovedText> {
        self.tx.text(&self.mission.text)?.ok_or(StoreError::Corrupt { what: "text", why: "it is missing".to_owned() })
    }

    /// Puts an entry into the ledger.
    pub fn record(&self, actor: &Actor, cell: Option<&CellId>, action: &str, data: &serde_json::Value) -> Result<Head> {
        self.tx.append(&NewEntry {
            at: self.now.0,
            mission: self.id.clone(),
            cell: cell.map(ToString::to_string).unwrap_or_default(),
            actor: serde_json::to_string(actor).map_err(StoreError::json("actor"))?,
            action: action.to_owned(),
            data: data.to_string(),
        })
    }

    fn next_effect_id(&mut self) -> String {
        self.effects += 1;
        effect_name(&self.key, self.effects)
    }

    /// Queues an effect.
    pub fn queue(&mut self, lane: String, effect: &Effect, cell: Option<&CellId>, not_before: i64) -> Result<String> {
        let id = self.next_effect_id();
        self.queue_as(&id, lane, effect, cell, not_before)?;
        Ok(id)
    }

    fn queue_as(&self, id: &str, lane: String, effect: &Effect, cell: Option<&CellId>, not_before: i64) -> Result<()> {
        queue_effect(self.tx, self.now, id, lane, &self.id, cell, effect, not_before)
    }

    /// Asks somebody to confirm commands that only polling found, and waits for it.
    pub fn ask_to_confirm(&mut self, request: &AuthorityRequest) -> Result<()> {
        let login = &request.person.login;
        let mut items = vec![(
            true,
            format!(
                "`{login}`: only polling found your comment, so nobody can say that it was not edited since. If you mean the following, give this comment a 👍 within a day; a 👎 takes it back."
            ),
        )];
        for line in &request.lines {
            items.push(match line {
                Line::Command { command, .. } => (true, format!("`{}`", command.to_string().replace('`', "'"))),
                Line::Refused { why, .. } => (false, why.clone()),
            });
        }
        let answer = Answer { items, mentions: vec![login.clone()], ..Answer::default() };
        let id = self.next_effect_id();
        let published = self.context.render(&Publication::Question(answer), &id, None);
        let sha256 = super::look::sha256(published.body.trim_end());
        let effect = Effect::Comment {
            repo: self.repo.clone(),
            number: self.mission.number,
            kind: "question".to_owned(),
            body: published.body,
        };
        self.queue_as(&id, comment_lane(&self.id), &effect, None, 0)?;
        let confirm =
            Effect::Confirm { request: Box::new(request.clone()), question: id, sha256, asked_at: self.now.0 };
        self.queue(format!("confirm:{}", request.comment), &confirm, None, 0).map(|_| ())
    }

    /// Writes a comment.
    pub fn publish(&mut self, publication: &Publication, cell: Option<&CellId>) -> Result<()> {
        self.publish_on(&comment_lane(&self.id), publication, cell).map(|_| ())
    }

    /// Writes a comment and returns the name of the effect that posts it.
    pub fn publish_as(&mut self, publication: &Publication, cell: Option<&CellId>) -> Result<Option<String>> {
        self.publish_on(&comment_lane(&self.id), publication, cell)
    }

    /// The same for a comment that keeps no order with the others.
    pub fn publish_on(
        &mut self,
        lane: &str,
        publication: &Publication,
        cell: Option<&CellId>,
    ) -> Result<Option<String>> {
        if self.mission.deleted {
            return Ok(None);
        }
        let id = self.next_effect_id();
        let published = self.context.render(publication, &id, cell.map(CellId::as_str));
        if !published.removed.is_empty() {
            self.record(&Actor::System, cell, "gate_removed", &json!({"effect": id, "removed": published.removed}))?;
        }
        let kind = publication.kind().to_owned();
        let effect =
            Effect::Comment { repo: self.repo.clone(), number: self.mission.number, kind, body: published.body };
        self.queue_as(&id, lane.to_owned(), &effect, cell, 0)?;
        Ok(Some(id))
    }

    /// A short word that something was not done, or is worth knowing.
    pub fn warn(&mut self, text: impl Into<String>, change: Option<String>) -> Result<()> {
        let change = change.map(|diff| crate::publication::TextChange { diff });
        self.publish(&Publication::Warning(Warning { text: text.into(), change }), None)
    }

    /// Writes a comment that has a slot of its own: one that stands there already is
    /// edited in place. With `only_edit`, none is written where none stands.
    pub fn publish_standing(&mut self, slot: &str, publication: &Publication, only_edit: bool) -> Result<()> {
        if self.mission.deleted {
            return Ok(());
        }
        let id = self.next_effect_id();
        let published = self.context.render(publication, &id, None);
        let lane = comment_lane(&self.id);
        self.tx.supersede(&lane, slot)?;
        let effect = Effect::Standing {
            repo: self.repo.clone(),
            number: self.mission.number,
            slot: slot.to_owned(),
            body: published.body,
            only_edit,
        };
        self.queue_as(&id, lane, &effect, None, 0)
    }

    /// Brings the status comment and the state label up to date.
    pub fn show(&mut self) -> Result<()> {
        if self.mission.deleted || (self.mission.cells.is_empty() && self.mission.records.is_empty()) {
            return Ok(());
        }
        let publication = Publication::Status(self.status(None)?);
        self.publish_standing("status", &publication, false)?;
        let newest = self.mission.cells.last().cloned();
        let state = newest.map(|c| self.tx.cell(c.as_str())).transpose()?.flatten().map(|row| row.cell.state);
        if let Some(state) = state
            && self.mission.shown_state.as_deref() != Some(state.word())
        {
            self.mission.shown_state = Some(state.word().to_owned());
            let lane = format!("label:{}", self.id);
            self.tx.supersede(&lane, "state_label")?;
            let effect = Effect::StateLabel {
                repo: self.repo.clone(),
                number: self.mission.number,
                state: state.word().to_owned(),
            };
            self.queue(lane, &effect, None, 0)?;
        }
        Ok(())
    }

    /// How the mission's cells stand; of one cell, where it is named.
    pub fn status(&self, only: Option<&CellId>) -> Result<StatusTable> {
        let mut table = StatusTable::default();
        for row in self.tx.cells_of(&self.id)? {
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
            .mission
            .records
            .iter()
            .map(|record| {
                let number = record.number;
                match &record.council {
                    Some(council) => format!(
                        "Request {number} waits for the council: {} of {} approvals (`/approve {number}`).",
                        record.votes.len(),
                        council.votes
                    ),
                    None => {
                        format!("Request {number} waits for a director: `/approve {number}` or `/reject {number}`.")
                    }
                }
            })
            .collect();
        table.waiting = (!waiting.is_empty()).then(|| waiting.join(" "));
        Ok(table)
    }

    /// A cell of this mission.
    pub fn cell(&self, id: &CellId) -> Result<Option<Cell>> {
        Ok(self.tx.cell(id.as_str())?.filter(|row| row.cell.mission == self.id).map(|row| row.cell))
    }

    /// The live cells of this mission. What is only asked for is no live cell.
    pub fn live_cells(&self) -> Result<Vec<Cell>> {
        let cells = self.tx.cells_of(&self.id)?.into_iter().map(|row| row.cell);
        Ok(cells.filter(|c| c.state.is_live() && c.state != State::Proposed).collect())
    }

    /// What is kept beside a cell.
    pub fn facts(&self, cell: &CellId) -> Result<Facts> {
        Ok(self.tx.cell(cell.as_str())?.map(|row| Facts::of(&row)).transpose()?.unwrap_or_default())
    }

    /// Keeps it.
    pub fn put_facts(&self, cell: &CellId, facts: &Facts) -> Result<()> {
        let text =
            serde_json::to_string(facts).map_err(|e| StoreError::Corrupt { what: "facts", why: e.to_string() })?;
        self.tx.put_facts(cell.as_str(), &text)
    }

    /// Lets the core decide on a cell and stores what comes of it.
    pub fn apply(
        &mut self,
        id: &CellId,
        input: &CellInput,
        actor: &Actor,
    ) -> Result<std::result::Result<Vec<Event>, Refusal>> {
        let known = self.cell(id)?;
        let (events, effects) = match cell::decide(known.as_ref(), input, actor, self.now) {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut now = known.clone();
        for event in &events {
            let data = serde_json::to_value(event).map_err(StoreError::json("event"))?;
            self.record(actor, Some(id), event.action(), &data)?;
            now = cell::evolve(now, event, self.now);
        }
        if let Some(cell) = now.as_ref().filter(|_| !events.is_empty()) {
            self.tx.put_cell(cell, self.now.0)?;
            if !self.mission.cells.contains(id) {
                self.mission.cells.push(id.clone());
            }
        }
        for effect in effects {
            self.queue(format!("cell:{id}"), &Effect::Cell { order: effect }, Some(id), 0)?;
        }
        if let Some(cell) = now {
            let before = known.map(|c| c.state);
            if before != Some(cell.state) {
                self.came_to(&cell, actor)?;
            }
        }
        Ok(Ok(events))
    }

    /// What follows from a cell's new state: logs, and answers to operators.
    fn came_to(&mut self, cell: &Cell, actor: &Actor) -> Result<()> {
        let mut facts = self.facts(&cell.id)?;
        if matches!(cell.state, State::Closing | State::Closed) && facts.closed_by.is_none() {
            facts.closed_by = Some(name_of(actor));
        }
        if cell.state == State::Preparing {
            facts.closed_by = None;
        }
        if cell.state == State::Closed && cell.approval.is_some() {
            // The log says where the work went, so it waits for that.
            facts.publishing = self.publish_work(cell, &facts, &Release::default())?;
            if !facts.publishing {
                self.publish_close_log(cell, &mut facts)?;
            }
        }
        if cell.state == State::Downed {
            self.ask_about_the_dead(cell)?;
        }
        if cell.state == State::Idle && facts.end_told < cell.last_run {
            facts.end_told = cell.last_run;
            self.say_that_work_ended(cell)?;
        }
        self.settle_waiting(cell, &mut facts, false)?;
        self.put_facts(&cell.id, &facts)
    }

    fn publish_close_log(&mut self, cell: &Cell, facts: &mut Facts) -> Result<()> {
        let log = Publication::CloseLog(self.close_log(cell, facts)?);
        let shown = self.publish_as(&log, Some(&cell.id))?;
        if facts.held().next().is_some() {
            facts.held_shown = shown;
        }
        Ok(())
    }

    /// Has the work of a cell pushed and proposed, where there is any that may
    /// leave, or that is to be tried again.
    pub fn publish_work(&mut self, cell: &Cell, facts: &Facts, release: &Release) -> Result<bool> {
        let Some(harvest) = facts.harvest.as_ref() else { return Ok(false) };
        let tried = |commit: &str| !harvest.is_held(commit) || release.tried.iter().any(|tried| tried == commit);
        let tip = harvest.tip.as_ref().filter(|tip| tried(tip));
        let instead = harvest.committed.as_ref().filter(|commit| tried(commit));
        let branch = format!("lazarus/{}-{}", self.mission.number, cell.id);
        let others: Vec<(String, String)> = harvest
            .branches
            .iter()
            .enumerate()
            .filter(|(_, (_, commit))| tried(commit))
            .map(|(index, (name, commit))| (format!("{branch}-{}-{}", index + 1, branch_word(name)), commit.clone()))
            .collect();
        if tip.is_none() && instead.is_none() && others.is_empty() {
            return Ok(false);
        }
        let approval = cell.approval.as_ref();
        let pull = PullRequest {
            cell: cell.id.to_string(),
            issue: self.mission.number,
            approved_by: approval.iter().flat_map(|a| a.by.iter().map(name_of)).collect(),
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
            rest: harvest.rest && tip.is_some(),
            notes: harvest.notes.clone(),
            head: self.tx.head()?.to_string(),
        };
        let asked = approval.map(|a| self.tx.text(&a.text)).transpose()?.flatten().unwrap_or(self.text()?);
        // The template's beginning says nothing to a reviewer.
        let title = self.context.plain_title(asked.title.trim_start_matches("[mission]"));
        let id = self.next_effect_id();
        let published = self.context.render(&Publication::PullRequest(pull), &id, Some(cell.id.as_str()));
        if !published.removed.is_empty() {
            self.record(
                &Actor::System,
                Some(&cell.id),
                "gate_removed",
                &json!({"effect": id, "removed": published.removed}),
            )?;
        }
        let data = json!({"branch": branch, "tip": tip.or(instead)});
        let effect = Effect::Push {
            repo: self.repo.clone(),
            branch,
            tip: tip.cloned(),
            instead: instead.cloned(),
            others,
            released: release.released.clone(),
            base: facts.branch.clone().unwrap_or_default(),
            title,
            body: published.body,
        };
        self.queue_as(&id, format!("cell:{}", cell.id), &effect, Some(&cell.id), 0)?;
        self.record(&Actor::System, Some(&cell.id), "publishing", &data)?;
        Ok(true)
    }

    /// Tells people what of a cell's work is held, where nothing else does.
    pub fn say_what_is_held(&mut self, cell: &Cell) -> Result<()> {
        let mut facts = self.facts(&cell.id)?;
        let items: Vec<(bool, String)> = facts.held().map(|held| (false, held_words(&cell.id, held))).collect();
        if items.is_empty() {
            return Ok(());
        }
        let answer = Answer { items, ..Answer::default() };
        facts.held_shown = self.publish_as(&Publication::Refusal(answer), Some(&cell.id))?;
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
        if let Some(harvest) = &mut facts.harvest {
            let left = |held: &Held| published.commits.contains(&held.commit);
            let anew = |held: &Held| published.held.iter().any(|now| now.commit == held.commit);
            let known = harvest.held.clone();
            harvest.held.retain(|held| !left(held) && !anew(held));
            for held in &published.held {
                let mut held = held.clone();
                // It knows no more of the branch than what it is pushed as.
                if let Some(before) = known.iter().find(|before| before.commit == held.commit) {
                    held.branch.clone_from(&before.branch);
                    held.rest = before.rest;
                } else if let Some((name, _)) = harvest.branches.iter().find(|(_, commit)| *commit == held.commit) {
                    held.branch = Some(name.clone());
                } else {
                    held.rest = harvest.rest && harvest.tip.as_ref() == Some(&held.commit);
                }
                // A secret that was found once holds for good.
                held.findings.extend(
                    known
                        .iter()
                        .filter(|k| k.commit == held.commit)
                        .flat_map(|k| k.findings.iter().filter(|f| matches!(f, Finding::Secret { .. })).cloned()),
                );
                harvest.held.push(held);
            }
        }
        self.record_held(&cell.id, &published.held)?;
        facts.published = Some(published.clone());
        if std::mem::take(&mut facts.publishing) {
            self.publish_close_log(cell, &mut facts)?;
        } else {
            let mut items = vec![];
            if let Some(branch) = published.branch.as_ref().or(published.others.first()) {
                let pull = published.pull.as_ref();
                let pull = pull.map_or_else(String::new, |(number, _)| format!(", pull request {number}"));
                items.push((true, format!("The work of `{}` is on branch `{branch}`{pull}.", cell.id)));
            }
            if let Some(why) = &published.refused {
                items.push((false, format!("The work of `{}` is not published: {why}", cell.id)));
            }
            for (branch, why) in &published.others_refused {
                items.push((false, format!("The branch `{branch}` is not published: {why}")));
            }
            let held: Vec<String> = facts.held().map(|held| held_words(&cell.id, held)).collect();
            items.extend(held.into_iter().map(|words| (false, words)));
            let done = items.iter().all(|(done, _)| *done);
            let answer = Answer { items, ..Answer::default() };
            let publication = if done { Publication::Answer(answer) } else { Publication::Refusal(answer) };
            let shown = self.publish_as(&publication, Some(&cell.id))?;
            if facts.held().next().is_some() {
                facts.held_shown = shown;
            }
        }
        self.settle_waiting(cell, &mut facts, false)?;
        self.put_facts(&cell.id, &facts)
    }

    /// The work of a cell does not leave yet. The close log does not wait for it any
    /// longer: what becomes of the work is said when it is known.
    pub fn work_waits(&mut self, id: &CellId, why: &str, patience: &str) -> Result<()> {
        let Some(cell) = self.cell(id)? else { return Ok(()) };
        let mut facts = self.facts(id)?;
        if !std::mem::take(&mut facts.publishing) {
            return self.warn(
                format!("The work of `{id}` is not published yet: {why}. Lazarus tries again for up to {patience}."),
                None,
            );
        }
        let not_yet =
            format!("not yet: {why}. Lazarus tries again for up to {patience}, and says here what became of it");
        let so_far = PublishedWork { refused: Some(not_yet), ..PublishedWork::default() };
        let shown = Facts { published: Some(so_far), ..facts.clone() };
        self.publish(&Publication::CloseLog(self.close_log(&cell, &shown)?), Some(id))?;
        self.settle_waiting(&cell, &mut facts, false)?;
        self.put_facts(id, &facts)
    }

    /// Every executor ended: those who asked and approved are told, and what they can do
    /// now. The status comment says it as well, but nobody is notified of an edit.
    fn say_that_work_ended(&mut self, cell: &Cell) -> Result<()> {
        let id = &cell.id;
        let ended: Vec<String> = cell
            .workers()
            .filter_map(|p| match &p.run {
                cell::RunState::Ended { exit, .. } => Some(format!("`{}` ({exit})", p.identity.name())),
                _ => None,
            })
            .collect();
        let agent = cell.workers().next().map_or("AGENT", |p| p.identity.name());
        let until = cell.expires_at.map(|at| format!(" It waits until {}.", time_words(at))).unwrap_or_default();
        let text = format!(
            "The work in cell `{id}` has ended: {}. `/close` ends the cell and publishes what there is; `/tell {agent} TEXT` gives more to do.{until}",
            ended.join(", ")
        );
        let answer = Answer { items: vec![(true, text)], mentions: whom_to_call(cell), ..Answer::default() };
        self.publish(&Publication::Answer(answer), Some(id))
    }

    /// Somebody died and nothing revives them by itself: the directors are
    /// asked, or told, as the proposal said.
    fn ask_about_the_dead(&mut self, cell: &Cell) -> Result<()> {
        let dead: Vec<String> = cell
            .workers()
            .filter_map(|p| match &p.run {
                cell::RunState::Ended { exit, .. } if !exit.success => {
                    Some(format!("`{}` ({exit})", p.identity.name()))
                }
                _ => None,
            })
            .collect();
        let id = &cell.id;
        let text = format!(
            "Cell `{id}` is frozen, because an agent ended badly: {}. `/revive`, `/close` or `/destroy {id}` goes on from here.",
            dead.join(", ")
        );
        if cell.spec.auto_revive == cell::AutoRevive::Ask {
            let answer = Answer { items: vec![(true, text)], mentions: whom_to_call(cell), ..Answer::default() };
            return self.publish(&Publication::Question(answer), Some(id));
        }
        self.publish(&Publication::Warning(Warning { text, change: None }), Some(id))
    }

    /// Answers the operators who waited for what a cell has come to.
    pub fn settle_waiting(&self, cell: &Cell, facts: &mut Facts, scrubbed: bool) -> Result<()> {
        let waiting = std::mem::take(&mut facts.waiting);
        for (operation, until) in waiting {
            let over = matches!(cell.state, State::Closed | State::Archived | State::Destroyed);
            let reached = match until {
                Until::Active => over || (cell.started_at.is_some() && cell.state != State::Preparing),
                Until::Closed => over && !facts.publishing,
                Until::Published => facts.published.is_some() && !facts.publishing,
                // These are answered by what came of them, or never any more.
                Until::Snapshot => over,
                Until::Scrubbed | Until::FileLeft => scrubbed,
            };
            if reached {
                let mut outcome = Outcome::on(&cell.id);
                let mut missing: Vec<String> = vec![];
                if let Some(published) = &facts.published {
                    missing.extend(published.refused.clone());
                    missing.extend(published.others_refused.iter().map(|(branch, why)| format!("{branch}: {why}")));
                }
                missing.extend(facts.held().map(Held::words));
                outcome.success = match until {
                    Until::Active => !over,
                    Until::Published => missing.is_empty(),
                    Until::Snapshot | Until::FileLeft => false,
                    _ => true,
                };
                outcome.message = if until == Until::Published {
                    match missing.join("; ").replace('`', "") {
                        missing if missing.is_empty() => format!("the work of cell {} is published", cell.id),
                        missing => missing,
                    }
                } else {
                    match &cell.reason {
                        Some(reason) if over => format!("cell {} is {}: {reason}", cell.id, cell.state),
                        _ => format!("cell {} is {}", cell.id, cell.state),
                    }
                };
                self.settle_operation(&operation, &outcome)?;
            } else {
                facts.waiting.push((operation, until));
            }
        }
        Ok(())
    }

    /// Answers the operators who waited for one thing on a cell.
    pub fn settle_until(&self, cell: &CellId, until: Until, success: bool, message: &str) -> Result<()> {
        let mut facts = self.facts(cell)?;
        let (reached, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut facts.waiting).into_iter().partition(|(_, u)| *u == until);
        if reached.is_empty() {
            return Ok(());
        }
        facts.waiting = waiting;
        for (operation, _) in reached {
            let outcome = Outcome { success, message: message.replace('`', ""), ..Outcome::on(cell) };
            self.settle_operation(&operation, &outcome)?;
        }
        self.put_facts(cell, &facts)
    }

    /// Notes what an operator's command came to.
    pub fn settle_operation(&self, operation: &str, outcome: &Outcome) -> Result<()> {
        let text =
            serde_json::to_string(outcome).map_err(|e| StoreError::Corrupt { what: "outcome", why: e.to_string() })?;
        self.tx.put_operation(operation, &text, self.now.0)
    }

    /// The log of a cell that runs now.
    pub fn spawn_log(&self, cell: &Cell, facts: &Facts, planted: Vec<String>) -> Result<SpawnLog> {
        let running = facts.running.clone().unwrap_or_default();
        Ok(SpawnLog {
            cell: cell.id.to_string(),
            asked_by: name_of(&cell.proposed_by),
            approved_by: cell.approval.iter().flat_map(|a| a.by.iter().map(name_of)).collect(),
            participants: cell
                .participants
                .iter()
                .filter(|p| p.state != cell::ParticipantState::Gone)
                .map(|p| (p.identity.to_string(), p.role.to_string()))
                .collect(),
            backend: cell.spec.backend.to_string(),
            isolation: running.isolation.map_or_else(|| "unknown".to_owned(), |i| i.to_string()),
            applied: running.applied,
            missing: running.missing,
            network: cell.spec.network.to_string(),
            ttl: duration_words(cell.spec.ttl),
            until: cell.expires_at.map(time_words).unwrap_or_default(),
            commit: facts.commit.clone().unwrap_or_default(),
            branch: facts.branch.clone().unwrap_or_default(),
            behind: facts.behind,
            text: cell.approval.as_ref().map(|a| a.text.clone()).unwrap_or_default(),
            request: cell.approval.as_ref().map(|a| a.number).unwrap_or_default(),
            record: cell.approval.as_ref().map(|a| a.record.clone()).unwrap_or_default(),
            head: self.tx.head()?.to_string(),
            planted,
        })
    }

    pub fn close_log(&self, cell: &Cell, facts: &Facts) -> Result<CloseLog> {
        let harvest = facts.harvest.clone().unwrap_or_default();
        let rest = harvest.rest && harvest.tip.as_ref().is_some_and(|tip| !harvest.is_held(tip));
        let published = facts.published.clone().unwrap_or_default();
        let started = cell.started_at;
        Ok(CloseLog {
            cell: cell.id.to_string(),
            outcome: cell.outcome.map(|o| o.to_string()).unwrap_or_default(),
            reason: cell.reason.clone(),
            closed_by: facts.closed_by.clone().unwrap_or_else(|| "lazarus".to_owned()),
            duration: started.map_or_else(|| "no time at work".to_owned(), |at| duration_words(self.now.0 - at.0)),
            commits: harvest.commits,
            commit_count: harvest.commit_count,
            files: harvest.files,
            file_count: harvest.file_count,
            uncommitted: harvest.uncommitted,
            rest,
            notes: harvest.notes,
            unknown: harvest.unknown,
            met: facts.usage.met.0.clone().into_iter().collect(),
            reached: facts.usage.egress.as_ref().map(reached).unwrap_or_default(),
            denied: (facts.usage.egress.iter())
                .flat_map(|report| report.refused.iter().map(|(why, count)| (why.words().to_owned(), *count)))
                .collect(),
            exits: cell
                .participants
                .iter()
                .filter_map(|p| match &p.run {
                    cell::RunState::Ended { exit, .. } => Some((p.identity.to_string(), exit.to_string())),
                    _ => None,
                })
                .collect(),
            branch: published.branch,
            renamed: published.renamed,
            others: published.others,
            pull: published.pull.map(|(number, _)| number),
            refused: published.refused,
            others_refused: published.others_refused,
            held: facts.held().map(|held| held_words(&cell.id, held)).collect(),
            head: self.tx.head()?.to_string(),
            grace_until: started.map(|_| time_words(self.now.plus(cell.policy.closed_grace))),
        })
    }

    /// Answers a comment: a reaction, and words where there are any.
    pub fn answer(&mut self, comment: i64, all_done: bool, none_done: bool, answer: &Answer) -> Result<()> {
        let content = if all_done { "+1" } else { "confused" };
        let alone = answer.items.is_empty() && answer.status.is_none() && answer.help.is_empty();
        let effect = Effect::React { repo: self.repo.clone(), comment, content: content.to_owned(), alone };
        self.queue(format!("react:{comment}"), &effect, None, 0)?;
        if alone {
            return Ok(());
        }
        let publication =
            if none_done { Publication::Refusal(answer.clone()) } else { Publication::Answer(answer.clone()) };
        if let Some(effect) = self.publish_as(&publication, None)? {
            self.mission.warned_by(&effect);
        }
        Ok(())
    }

    /// Whether somebody gave a word after the comment in which they were shown something.
    pub fn has_seen(&self, person: i64, of: Concern, given: Option<Moment>) -> Result<bool> {
        let Some(given) = given.and_then(|given| given.id) else { return Ok(false) };
        for effect in
            self.mission.warned.iter().filter(|w| w.person == person && w.of == of).filter_map(|w| w.by.as_ref())
        {
            if self.tx.comment_of_effect(effect)?.is_some_and(|shown| given > shown) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What a director decided about work that was not published.
#[derive(Debug, Default)]
pub struct Release {
    /// Commits that are tried: once more, or because they were released.
    pub tried: Vec<String>,
    /// Of these, what the forge would run by itself and may.
    pub released: Vec<String>,
}

impl Facts {
    /// What of the work does not leave.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.harvest.iter().flat_map(|harvest| &harvest.held)
    }
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

/// What is held, and who can do what about it, in sentences.
fn held_words(cell: &CellId, held: &Held) -> String {
    let words = held.words();
    let mut letters = words.chars();
    let words = letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect());
    let what = if held.has_secret() {
        format!(
            "A known secret never leaves: an operator finds the work by `lazarus work {cell} DIR`, and it leaves once \
             the cell was brought back (`/resurrect {cell}`) and has the secret nowhere in its history any more"
        )
    } else if held.can_be_released() {
        format!("A director lets exactly this commit go with `/publish work {cell}`")
    } else {
        format!(
            "It can leave once an operator has raised the limit: `/publish work {cell}` tries again, and \
             `lazarus work {cell} DIR` has it meanwhile"
        )
    };
    format!("{words}. {what}.")
}

/// Hosts in a close log; the others are counted together.
const HOSTS_SHOWN: usize = 10;

/// Which hosts a cell reached, most bytes first.
fn reached(report: &egress::Report) -> Vec<(String, u64, String, String)> {
    let mut hosts: Vec<(&str, egress::Count)> = report.hosts.iter().map(|(h, c)| (h.as_str(), *c)).collect();
    hosts.sort_by_key(|(_, count)| std::cmp::Reverse(count.bytes_in.saturating_add(count.bytes_out)));
    let mut others = report.other_hosts;
    for (_, count) in hosts.iter().skip(HOSTS_SHOWN) {
        others.connections += count.connections;
        others.bytes_out += count.bytes_out;
        others.bytes_in += count.bytes_in;
    }
    hosts.truncate(HOSTS_SHOWN);
    if others.connections > 0 {
        hosts.push(("other hosts", others));
    }
    let size = |bytes: u64| if bytes < 10_000 { format!("{bytes} B") } else { format!("{} kB", bytes.div_ceil(1000)) };
    hosts.into_iter().map(|(h, c)| (h.to_owned(), c.connections, size(c.bytes_out), size(c.bytes_in))).collect()
}

/// A branch's name as a part of another: letters, digits and `-`.
fn branch_word(name: &str) -> String {
    let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    word.trim_matches('-').to_owned()
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

/// Who, for people: without numbers.
pub fn name_of(actor: &Actor) -> String {
    match actor {
        Actor::Person { login, .. } => login.clone(),
        other => other.to_string(),
    }
}

/// A point in time for people, in UTC, to the minute.
pub fn time_words(at: At) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| "never".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M UTC").to_string())
}
