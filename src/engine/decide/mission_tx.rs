//! One mission, being decided on: everything between reading its state and its new
//! rows, inside one transaction.
//!
//! A [`MissionTx`] is lent to a function and never handed out. When the function
//! returns, the mission's row is written if the mission changed; when it fails, the
//! whole input is undone ([`Tx::within`](crate::store::Tx::within)). So a decision
//! cannot be left unfinished, however it ends.

use super::Decision;
use crate::cell::{self, Actor, At, Cell, CellId, Event, Input as CellInput, Refusal};
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::facts::Facts;
use crate::engine::lane::Lane;
use crate::gitea::event::{IssueSnapshot, RepoRef};
use crate::mission::{ApprovedText, Concern, Mission, MissionId, Moment};
use crate::store::{CellRow, Head, Result, StoreError, Tx};

/// One mission, being decided on.
pub struct MissionTx<'a> {
    decision: Decision<'a>,
    /// Effects so far: their names are made from the input's key and their number, so
    /// that the same input gives the same names.
    effects: u32,
    id: MissionId,
    mission: Mission,
    /// The mission as the registry has it, where it has it.
    stored: Option<Mission>,
    repo: RepoRef,
    voided: Vec<u32>,
    changed_shown: Vec<u32>,
    meant: Option<CellId>,
}

impl<'a> Decision<'a> {
    /// Decides on a mission that is known. `None`: it is not.
    pub fn on_mission<T>(
        &self,
        id: &MissionId,
        decide: impl FnOnce(&mut MissionTx<'a>) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(mission) = self.tx().mission(id.as_str())? else { return Ok(None) };
        let repo = RepoRef { id: mission.repo_id, owner: mission.owner.clone(), name: mission.repo.clone() };
        let mut open = MissionTx::new(*self, id.clone(), mission.clone(), repo);
        open.stored = Some(mission);
        open.end_what_is_older_than_records()?;
        open.lend(decide).map(Some)
    }

    /// Decides on a cell's mission. `None`: there is no such cell.
    pub fn on_cell<T>(&self, cell: &CellId, decide: impl FnOnce(&mut MissionTx<'a>) -> Result<T>) -> Result<Option<T>> {
        match self.tx().cell(cell.as_str())? {
            Some(row) => self.on_mission(&stored_id(&row.cell.mission)?, decide),
            None => Ok(None),
        }
    }

    /// Decides on an issue's mission; a new one is taken on record. The second argument
    /// says whether it is new.
    pub fn on_issue<T>(
        &self,
        repo: &RepoRef,
        issue: &IssueSnapshot,
        decide: impl FnOnce(&mut MissionTx<'a>, bool) -> Result<T>,
    ) -> Result<T> {
        let id = MissionId::new(repo.id, issue.number);
        if self.tx().mission(id.as_str())?.is_none() {
            let mission = self.new_mission(repo, issue)?;
            return MissionTx::new(*self, id, mission, repo.clone()).lend(|mission| decide(mission, true));
        }
        let decided = self.on_mission(&id, |mission| {
            // Names move; the newest is the one to call it by.
            mission.mission.owner.clone_from(&repo.owner);
            mission.mission.repo.clone_from(&repo.name);
            mission.repo = repo.clone();
            decide(mission, false)
        })?;
        decided.ok_or(StoreError::Corrupt { what: "mission", why: format!("{id} went away while it was read") })
    }

    /// A mission as it begins. What was heard of the issue before counts as well.
    fn new_mission(&self, repo: &RepoRef, issue: &IssueSnapshot) -> Result<Mission> {
        let tx = self.tx();
        let text = ApprovedText::new(&issue.title, &issue.body);
        tx.put_text(&text)?;
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
        Ok(Mission {
            repo_id: repo.id,
            owner: repo.owner.clone(),
            repo: repo.name.clone(),
            issue_id: issue.id,
            number: issue.number,
            author: issue.author.id,
            author_login: issue.author.login.clone(),
            open: issue.open,
            text: text.hash,
            seen_at: issue.updated_at.as_second(),
            first_polled: seen
                .filter(|seen| edited_at.is_none() && seen.since > issue.created_at.as_millisecond())
                .map(|seen| seen.since / 1000),
            edited_at,
            text_before,
            ..Mission::default()
        })
    }
}

/// The mission that a row names.
pub fn stored_id(text: &str) -> Result<MissionId> {
    MissionId::parse(text).map_err(|error| StoreError::Corrupt { what: "mission's name", why: error.to_string() })
}

impl<'a> MissionTx<'a> {
    fn new(decision: Decision<'a>, id: MissionId, mission: Mission, repo: RepoRef) -> Self {
        Self {
            decision,
            effects: 0,
            id,
            mission,
            stored: None,
            repo,
            voided: vec![],
            changed_shown: vec![],
            meant: None,
        }
    }

    /// Lends itself to a decision, and writes the mission's row where it changed.
    fn lend<T>(mut self, decide: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let decided = decide(&mut self)?;
        if self.stored.as_ref() != Some(&self.mission) {
            self.tx().put_mission(self.id.as_str(), &self.mission, self.now().0)?;
        }
        Ok(decided)
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

    /// What the input is decided with.
    pub(super) const fn decision(&self) -> &Decision<'a> {
        &self.decision
    }

    /// The transaction.
    pub const fn tx(&self) -> &'a Tx<'a> {
        self.decision.tx()
    }

    /// What decisions are made with.
    pub const fn context(&self) -> &'a Context {
        self.decision.context()
    }

    /// The time of the decision.
    pub const fn now(&self) -> At {
        self.decision.now()
    }

    /// The mission's name in the registry.
    pub const fn id(&self) -> &MissionId {
        &self.id
    }

    /// What is known of the mission.
    pub const fn known(&self) -> &Mission {
        &self.mission
    }

    /// The same, to be changed. It is stored when the decision is made.
    pub const fn known_mut(&mut self) -> &mut Mission {
        &mut self.mission
    }

    /// The repository, by its newest name.
    pub const fn repo(&self) -> &RepoRef {
        &self.repo
    }

    /// Notes the number of the issue's own request that this input made void.
    pub fn note_void(&mut self, number: u32) {
        self.voided.push(number);
    }

    /// Numbers of the issue's own requests that this input made void.
    pub fn voided(&self) -> &[u32] {
        &self.voided
    }

    /// Notes of which open requests somebody changed or deleted the comment.
    pub fn note_changed_shown(&mut self, numbers: &[u32]) {
        numbers.clone_into(&mut self.changed_shown);
    }

    /// Whether somebody changed or deleted the comment that shows a request.
    pub fn is_shown_changed(&self, number: u32) -> bool {
        self.changed_shown.contains(&number)
    }

    /// Takes a cell for the one that is meant by commands that name none: an operator
    /// named it.
    pub fn mean(&mut self, cell: Option<&CellId>) {
        self.meant = cell.cloned();
    }

    /// The cell that commands mean which name none.
    pub const fn meant(&self) -> Option<&CellId> {
        self.meant.as_ref()
    }

    /// The text that the issue has now.
    pub fn text(&self) -> Result<ApprovedText> {
        self.text_of(&self.mission.text)
    }

    /// A text that a row names.
    pub fn text_of(&self, hash: &str) -> Result<ApprovedText> {
        self.tx().text(hash)?.ok_or(StoreError::Corrupt { what: "text", why: "it is missing".to_owned() })
    }

    /// A cell of this mission.
    pub fn cell(&self, id: &CellId) -> Result<Option<Cell>> {
        Ok(self.tx().cell(id.as_str())?.filter(|row| row.cell.mission == self.id.as_str()).map(|row| row.cell))
    }

    /// Every cell of this mission, oldest first.
    pub fn cells(&self) -> Result<Vec<CellRow>> {
        self.tx().cells_of(self.id.as_str())
    }

    /// The live cells of this mission. What is only asked for is no live cell.
    pub fn live_cells(&self) -> Result<Vec<Cell>> {
        let cells = self.cells()?.into_iter().map(|row| row.cell);
        Ok(cells.filter(|c| c.state.is_live() && c.state != cell::State::Proposed).collect())
    }

    /// What is kept beside a cell; nothing beside one that is not there.
    pub fn facts(&self, cell: &CellId) -> Result<Facts> {
        match self.tx().cell(cell.as_str())? {
            Some(row) => Facts::of(&row),
            None => Ok(Facts::default()),
        }
    }

    /// Keeps it.
    pub fn put_facts(&self, cell: &CellId, facts: &Facts) -> Result<()> {
        let text = serde_json::to_string(facts).map_err(StoreError::json("facts"))?;
        self.tx().put_facts(cell.as_str(), &text)
    }

    /// Changes what is kept beside a cell.
    pub fn change_facts(&self, cell: &CellId, change: impl FnOnce(&mut Facts)) -> Result<Facts> {
        let mut facts = self.facts(cell)?;
        change(&mut facts);
        self.put_facts(cell, &facts)?;
        Ok(facts)
    }

    /// Puts an entry into the ledger.
    pub fn record(&self, actor: &Actor, cell: Option<&CellId>, action: &str, data: &serde_json::Value) -> Result<Head> {
        self.decision.record(self.id.as_str(), actor, cell, action, data)
    }

    /// Notes that a comment's commands are carried out or answered now. `false`: they
    /// were before.
    pub fn act_on(&self, comment: i64) -> Result<bool> {
        self.tx().act_on(self.repo.id, comment, self.now().0)
    }

    /// The name of the next effect.
    pub fn next_effect_id(&mut self) -> String {
        self.effects += 1;
        self.decision.effect_name(self.effects)
    }

    /// Queues an effect.
    pub fn queue(&mut self, lane: Lane<'_>, effect: &Effect, cell: Option<&CellId>) -> Result<()> {
        self.queue_later(lane, effect, cell, 0)
    }

    /// Queues an effect that is not run before a time, in milliseconds since the epoch.
    pub fn queue_later(
        &mut self,
        lane: Lane<'_>,
        effect: &Effect,
        cell: Option<&CellId>,
        not_before: i64,
    ) -> Result<()> {
        let id = self.next_effect_id();
        self.decision.queue(&id, lane, &self.id, cell, effect, not_before)
    }

    /// Queues an effect under a name of [`next_effect_id`](Self::next_effect_id).
    pub fn queue_as(&self, id: &str, lane: Lane<'_>, effect: &Effect, cell: Option<&CellId>) -> Result<()> {
        self.decision.queue(id, lane, &self.id, cell, effect, 0)
    }

    /// Queues an effect of the mission in the place of those of its kind that wait.
    pub fn queue_instead(&mut self, lane: Lane<'_>, effect: &Effect, not_before: i64) -> Result<()> {
        self.tx().supersede(&lane.to_string(), effect.kind().word())?;
        self.queue_later(lane, effect, None, not_before)
    }

    /// Whether somebody gave a word after the comment in which they were shown something.
    pub fn has_seen(&self, person: i64, of: Concern, given: Option<Moment>) -> Result<bool> {
        let Some(given) = given.and_then(|given| given.id) else { return Ok(false) };
        for effect in
            self.mission.warned.iter().filter(|w| w.person == person && w.of == of).filter_map(|w| w.by.as_ref())
        {
            if self.tx().comment_of_effect(effect)?.is_some_and(|shown| given > shown) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the core decide on a cell and stores what comes of it.
    pub fn apply(
        &mut self,
        id: &CellId,
        input: &CellInput,
        actor: &Actor,
    ) -> Result<std::result::Result<Vec<Event>, Refusal>> {
        let known = self.cell(id)?;
        let (events, effects) = match cell::decide(known.as_ref(), input, actor, self.now()) {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut now = known.clone();
        for event in &events {
            let data = serde_json::to_value(event).map_err(StoreError::json("event"))?;
            self.record(actor, Some(id), event.action(), &data)?;
            now = cell::evolve(now, event, self.now());
        }
        if let Some(cell) = now.as_ref().filter(|_| !events.is_empty()) {
            self.tx().put_cell(cell, self.now().0)?;
            if !self.mission.cells.contains(id) {
                self.mission.cells.push(id.clone());
            }
        }
        for effect in effects {
            self.queue(Lane::Cell(id), &Effect::Cell { order: effect }, Some(id))?;
        }
        if let Some(cell) = now {
            let before = known.map(|c| c.state);
            if before != Some(cell.state) {
                self.on_state_changed(&cell, actor)?;
            }
        }
        Ok(Ok(events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::Profiles;
    use crate::config::{Config, LoadOptions};
    use crate::gitea::event::Person;
    use crate::store::Store;
    use std::path::PathBuf;

    struct Bench {
        store: Store,
        context: Context,
        repo: RepoRef,
        issue: IssueSnapshot,
        place: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let options = LoadOptions { system_file: PathBuf::from("/nonexistent"), ..LoadOptions::default() };
            let config = Config::load(&options).unwrap();
            let profiles = Profiles::from(config.agents.clone());
            let at = jiff::Timestamp::from_second(1_700_000_000).unwrap();
            Self {
                store: Store::open(&place.path().join("registry.sqlite")).unwrap(),
                context: Context::new(config, profiles, vec![]).unwrap(),
                repo: RepoRef { id: 3, owner: "acme".to_owned(), name: "widget".to_owned() },
                issue: IssueSnapshot {
                    id: 70,
                    number: 7,
                    title: "Sort the list".to_owned(),
                    body: "It is not sorted.".to_owned(),
                    open: true,
                    author: Person { id: 7, login: "ada".to_owned() },
                    labels: vec![],
                    created_at: at,
                    updated_at: at,
                    is_pull: false,
                    migrated: false,
                },
                place,
            }
        }

        /// Decides one input, as the engine does: what fails is undone.
        async fn decide(
            self,
            input: impl FnOnce(&Decision<'_>, &RepoRef, &IssueSnapshot) -> Result<()> + Send + 'static,
        ) -> (Self, Result<()>) {
            let Self { store, context, repo, issue, place } = self;
            let (send, receive) = tokio::sync::oneshot::channel();
            let decided = store
                .transact(move |tx| {
                    let decided = tx.within(|tx| {
                        input(&Decision { tx, context: &context, now: At(1), key: "an input" }, &repo, &issue)
                    });
                    let _ = send.send((context, repo, issue));
                    Ok(decided)
                })
                .await
                .unwrap();
            let (context, repo, issue) = receive.await.unwrap();
            (Self { store, context, repo, issue, place }, decided)
        }

        async fn open_effects(&self) -> i64 {
            let count = |tx: &Tx<'_>| tx.count_open_effects();
            self.store.read(count).await.unwrap()
        }

        async fn stored(&self) -> Option<Mission> {
            self.store.read(|tx| tx.mission("3#7")).await.unwrap()
        }

        /// How often the mission's row was written.
        async fn writes(&self) -> i64 {
            let count = |tx: &Tx<'_>| Ok(tx.conn.query_row("SELECT COUNT(*) FROM writes", [], |row| row.get(0))?);
            self.store.read(count).await.unwrap()
        }

        async fn count_writes(&self) {
            let count = |tx: &Tx<'_>| {
                tx.conn.execute_batch(
                    "CREATE TABLE writes (id TEXT); \
                     CREATE TRIGGER counted_new AFTER INSERT ON missions BEGIN INSERT INTO writes VALUES (NEW.id); END; \
                     CREATE TRIGGER counted AFTER UPDATE ON missions BEGIN INSERT INTO writes VALUES (NEW.id); END;",
                )?;
                Ok(())
            };
            self.store.transact(count).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_a_decision_changed_is_stored_wherever_it_returns() {
        let (bench, decided) = Bench::new()
            .decide(|decision, repo, issue| {
                decision.on_issue(repo, issue, |mission, new| {
                    mission.known_mut().told_no_mission = true;
                    if new {
                        return Ok(());
                    }
                    mission.known_mut().told_no_mission = false;
                    Ok(())
                })
            })
            .await;
        decided.unwrap();
        assert!(bench.stored().await.unwrap().told_no_mission);
    }

    #[tokio::test]
    async fn a_decision_that_fails_leaves_nothing_of_itself() {
        let (bench, decided) = Bench::new()
            .decide(|decision, repo, issue| {
                decision.on_issue(repo, issue, |mission, _| {
                    mission.known_mut().told_no_mission = true;
                    mission.warn("Half of it.", None)?;
                    Err(StoreError::Corrupt { what: "cell", why: "as the test wants it".to_owned() })
                })
            })
            .await;
        assert!(decided.is_err());
        assert_eq!(bench.stored().await, None);
        assert_eq!(bench.open_effects().await, 0);
    }

    #[tokio::test]
    async fn a_mission_is_written_when_it_changed_and_not_for_every_input() {
        let bench = Bench::new();
        bench.count_writes().await;
        let (bench, decided) =
            bench.decide(|decision, repo, issue| decision.on_issue(repo, issue, |_, _| Ok(()))).await;
        decided.unwrap();
        assert_eq!(bench.writes().await, 1, "it is new");
        let say = |decision: &Decision<'_>, repo: &RepoRef, issue: &IssueSnapshot| {
            decision.on_issue(repo, issue, |mission, _| mission.warn("It is said, and changes nothing.", None))
        };
        let (bench, decided) = bench.decide(say).await;
        decided.unwrap();
        assert_eq!(bench.writes().await, 1, "nothing of it changed");
        assert_eq!(bench.open_effects().await, 1, "and yet it was decided on");
        let (mut bench, decided) = bench
            .decide(|decision, repo, issue| {
                decision.on_issue(repo, issue, |mission, _| {
                    mission.known_mut().told_no_mission = true;
                    Ok(())
                })
            })
            .await;
        decided.unwrap();
        assert_eq!(bench.writes().await, 2, "one thing of it changed");
        bench.repo.name = "gadget".to_owned();
        let (bench, decided) = bench.decide(say).await;
        decided.unwrap();
        assert_eq!(bench.writes().await, 3, "it goes by another name");
    }
}
