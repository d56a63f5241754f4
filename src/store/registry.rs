//! Missions, cells, texts, and other small facts.

use super::{Result, StoreError, Tx};
use crate::cell::{Cell, DeadlineKind, next_deadline};
use crate::mission::{ApprovedText, Mission};
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A cell as the registry stores it, with what is known about its running.
#[derive(Debug, Clone)]
pub struct CellRow {
    /// The cell's slot: a number that is never reused, from which its user ids are derived.
    pub slot: i64,
    /// The cell itself.
    pub cell: Cell,
    /// What the backend reported and the engine keeps with it, as JSON.
    pub facts: String,
}

/// One of the bot's comments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommentRow {
    /// The effect that posted it.
    pub effect: String,
    /// The comment's number on the forge.
    pub comment_id: i64,
    /// SHA-256 of its text without trailing blanks, in hex; `None` unless the comment is edited in place.
    pub sha256: Option<String>,
}

/// How an issue's text was observed. Times are the forge's, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// When the issue had last been changed, as of this observation.
    pub at: i64,
    /// If the text was never seen before: the latest time at which it may have become what it is. That is the
    /// opening, if we were told of the opening.
    pub since: i64,
    /// Whether the observation is about the text itself. Of two within one second it then counts as the later.
    pub told: bool,
    /// The text that it replaced, if the forge said so.
    pub before: Option<&'a ApprovedText>,
}

/// The text that an issue was last seen with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenText {
    /// The text. Title and body are shortened if they are very long, and empty if they were seen long ago; the hash
    /// is that of the complete text.
    pub text: ApprovedText,
    /// When it was edited, by the forge's clock in milliseconds since the epoch; `None` if it was not.
    pub edited_at: Option<i64>,
    /// The latest time at which it may have become what it is, by the forge's clock in milliseconds since the
    /// epoch. We did not see what it was before.
    pub since: i64,
    /// Title and body before the edit, shortened in the same way.
    pub before: Option<(String, String)>,
}

/// Most bytes of a title or body that are kept to say what changed.
const TEXT_KEPT: usize = 64 * 1024;

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_KEPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A row of a cell that cannot be read. Only its mission is affected: lists of cells continue with the others.
#[derive(Debug)]
pub struct Damaged {
    /// The cell's name.
    pub cell: String,
    /// Its mission's id in the registry.
    pub mission: String,
    /// What cannot be read, and why.
    pub error: StoreError,
}

/// One row of a list, or the error that it cannot be read.
pub type Listed<T> = std::result::Result<T, Damaged>;

/// A deadline that has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The cell's name.
    pub cell: String,
    /// Its mission's id in the registry.
    pub mission: String,
    /// The deadline, in milliseconds since the epoch.
    pub at: i64,
    /// The kind of deadline.
    pub kind: DeadlineKind,
}

/// Parses a row's JSON. `of` names the row in the error message.
fn parse<T: DeserializeOwned>(what: &'static str, of: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt { what, why: format!("{of}: {error}") })
}

/// Describes a mission for people, from its id in the registry (`1#7`).
fn issue_words(id: &str) -> String {
    id.split_once('#').map_or_else(|| id.to_owned(), |(repo, number)| format!("issue {number} of repository {repo}"))
}

impl Tx<'_> {
    /// The mission with this id in the registry.
    pub fn mission(&self, id: &str) -> Result<Option<Mission>> {
        let text: Option<String> = self
            .conn
            .prepare_cached("SELECT state FROM missions WHERE id = ?")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        text.map(|t| parse("mission", &issue_words(id), &t)).transpose()
    }

    /// The registry's id of the mission with this repository and issue number.
    pub fn mission_id_by_number(&self, repo_id: i64, number: i64) -> Result<Option<String>> {
        Ok(self
            .conn
            .prepare_cached(
                "SELECT id FROM missions WHERE repo_id = ? AND number = ? ORDER BY updated_at DESC LIMIT 1",
            )?
            .query_row([repo_id, number], |row| row.get(0))
            .optional()?)
    }

    /// The registry's id of the mission that was last known by this name. Names can move: if several missions had
    /// it, the one that was seen last.
    pub fn mission_id_by_name(&self, owner: &str, repository: &str, number: i64) -> Result<Option<String>> {
        Ok(self
            .conn
            .prepare_cached(
                "SELECT id FROM missions WHERE number = ?3 AND json_valid(state) \
                 AND lower(json_extract(state, '$.owner')) = lower(?1) \
                 AND lower(json_extract(state, '$.repo')) = lower(?2) ORDER BY updated_at DESC LIMIT 1",
            )?
            .query_row(params![owner, repository, number], |row| row.get(0))
            .optional()?)
    }

    /// The missions of a repository that have a live cell. A mission that cannot be read is returned as its error.
    pub fn missions_of(&self, repo_id: i64) -> Result<Vec<Result<Mission>>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT DISTINCT m.id, m.state FROM missions m JOIN cells c ON c.mission = m.id WHERE m.repo_id = ? AND c.live = 1",
        )?;
        let rows = statement.query_map([repo_id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| row.map(|(id, text)| parse("mission", &issue_words(&id), &text)).map_err(StoreError::from))
            .collect()
    }

    /// The missions of a repository whose issue was deleted, as far as we know, after `since` (milliseconds since
    /// the epoch): newest first, at most `limit`.
    pub fn deleted_missions(&self, repo_id: i64, since: i64, limit: i64) -> Result<Vec<Result<Mission>>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, state FROM missions WHERE repo_id = ? AND updated_at >= ? AND json_extract(state, '$.deleted') \
             ORDER BY updated_at DESC LIMIT ?",
        )?;
        let rows = statement
            .query_map([repo_id, since, limit], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| row.map(|(id, text)| parse("mission", &issue_words(&id), &text)).map_err(StoreError::from))
            .collect()
    }

    /// Stores a mission.
    pub fn put_mission(&self, id: &str, mission: &Mission, now: i64) -> Result<()> {
        let text = serde_json::to_string(mission).map_err(StoreError::json("mission"))?;
        self.conn
            .prepare_cached(
                "INSERT INTO missions (id, repo_id, number, state, updated_at) VALUES (?1,?2,?3,?4,?5) \
                 ON CONFLICT (id) DO UPDATE SET number = ?3, state = ?4, updated_at = ?5",
            )?
            .execute(params![id, mission.repo_id, mission.number, text, now])?;
        Ok(())
    }

    /// The cell with this name.
    pub fn cell(&self, id: &str) -> Result<Option<CellRow>> {
        let row: Option<(i64, String, String)> = self
            .conn
            .prepare_cached("SELECT slot, data, facts FROM cells WHERE id = ?")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        row.map(|(slot, data, facts)| Ok(CellRow { slot, cell: parse("cell", id, &data)?, facts })).transpose()
    }

    /// Stores a cell together with its next deadline.
    pub fn put_cell(&self, cell: &Cell, now: i64) -> Result<()> {
        let data = serde_json::to_string(cell).map_err(StoreError::json("cell"))?;
        let deadline = next_deadline(cell);
        let kind =
            deadline.map(|(_, kind)| serde_json::to_string(&kind)).transpose().map_err(StoreError::json("deadline"))?;
        let values = params![
            cell.id.as_str(),
            cell.mission,
            cell.state.word(),
            cell.state.is_live(),
            deadline.map(|(at, _)| at.0),
            kind,
            data,
            now
        ];
        // Not `INSERT … ON CONFLICT`: that would use up a slot, and with it user ids, at every change of a cell.
        let known = self.conn.prepare_cached(
            "UPDATE cells SET mission = ?2, state = ?3, live = ?4, deadline = ?5, deadline_kind = ?6, data = ?7, \
             updated_at = ?8 WHERE id = ?1",
        )?;
        if { known }.execute(values)? == 0 {
            self.conn
                .prepare_cached(
                    "INSERT INTO cells (id, mission, state, live, deadline, deadline_kind, data, updated_at) \
                     VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
                )?
                .execute(values)?;
        }
        Ok(())
    }

    /// Stores what is known about a cell's running, as JSON.
    pub fn put_facts(&self, cell: &str, facts: &str) -> Result<()> {
        self.conn.prepare_cached("UPDATE cells SET facts = ? WHERE id = ?")?.execute(params![facts, cell])?;
        Ok(())
    }

    /// Live cells, oldest first, at most `limit`.
    pub fn live_cells(&self, limit: i64) -> Result<Vec<Listed<CellRow>>> {
        self.cell_rows(
            "SELECT slot, id, mission, data, facts FROM cells WHERE live = 1 ORDER BY slot LIMIT ?1",
            params![limit],
        )
    }

    /// The newest `limit` cells, oldest of them first.
    pub fn all_cells(&self, limit: i64) -> Result<Vec<Listed<CellRow>>> {
        self.cell_rows(
            "SELECT slot, id, mission, data, facts FROM (SELECT slot, id, mission, data, facts FROM cells ORDER BY slot DESC LIMIT ?1) \
             ORDER BY slot",
            params![limit],
        )
    }

    /// All cells of a mission, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one of them cannot be read: nothing is decided about a mission that is only
    /// partly known.
    pub fn cells_of(&self, mission: &str) -> Result<Vec<CellRow>> {
        self.listed_cells_of(mission)?.into_iter().map(|row| row.map_err(|damaged| damaged.error)).collect()
    }

    /// All cells of a mission, oldest first, for display: those that cannot be read are returned as errors.
    pub fn listed_cells_of(&self, mission: &str) -> Result<Vec<Listed<CellRow>>> {
        self.cell_rows(
            "SELECT slot, id, mission, data, facts FROM cells WHERE mission = ?1 ORDER BY slot",
            params![mission],
        )
    }

    fn cell_rows(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Listed<CellRow>>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(values, |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?, row.get::<_, String>(4)?))
        })?;
        rows.map(|row| {
            let (slot, id, mission, data, facts): (i64, String, String, _, _) = row?;
            Ok(match parse("cell", &id, &data) {
                Ok(cell) => Ok(CellRow { slot, cell, facts }),
                Err(error) => Err(Damaged { cell: id, mission, error }),
            })
        })
        .collect()
    }

    /// The number of live cells, and of cells that are over.
    pub fn count_cells(&self) -> Result<(i64, i64)> {
        let live = self.conn.query_row("SELECT COUNT(*) FROM cells WHERE live = 1", [], |row| row.get(0))?;
        // Slots count up, so the newest one says how many cells there were, without a scan.
        let all: i64 = self.conn.query_row("SELECT COALESCE(MAX(slot), 0) FROM cells", [], |row| row.get(0))?;
        Ok((live, all - live))
    }

    /// The next deadline of any cell, in milliseconds since the epoch.
    pub fn next_cell_deadline(&self) -> Result<Option<i64>> {
        Ok(self
            .conn
            .prepare_cached("SELECT MIN(deadline) FROM cells WHERE deadline IS NOT NULL")?
            .query_row([], |row| row.get(0))?)
    }

    /// Deadlines of cells that have passed.
    pub fn due_cells(&self, now: i64) -> Result<Vec<Listed<Due>>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, mission, deadline, deadline_kind FROM cells WHERE deadline IS NOT NULL AND deadline <= ? ORDER BY deadline LIMIT 100",
        )?;
        let rows = statement.query_map([now], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get::<_, Option<String>>(3)?))
        })?;
        rows.map(|row| {
            let (cell, mission, at, kind) = row?;
            Ok(match parse("deadline", &cell, &kind.unwrap_or_default()) {
                Ok(kind) => Ok(Due { cell, mission, at, kind }),
                Err(error) => Err(Damaged { cell, mission, error }),
            })
        })
        .collect()
    }

    /// Postpones a cell's deadline that is due but cannot be handled, because its row cannot be read.
    pub fn put_off(&self, cell: &str, until: i64) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE cells SET deadline = ?2 WHERE id = ?1 AND deadline IS NOT NULL AND deadline < ?2")?
            .execute(params![cell, until])?;
        Ok(())
    }

    /// Stores a text under its hash.
    pub fn put_text(&self, text: &ApprovedText) -> Result<()> {
        self.conn
            .prepare_cached("INSERT INTO texts (hash, title, body) VALUES (?,?,?) ON CONFLICT (hash) DO NOTHING")?
            .execute(params![text.hash, text.title, text.body])?;
        Ok(())
    }

    /// The text with this hash.
    pub fn text(&self, hash: &str) -> Result<Option<ApprovedText>> {
        Ok(self
            .conn
            .prepare_cached("SELECT title, body FROM texts WHERE hash = ?")?
            .query_row([hash], |row| Ok(ApprovedText { title: row.get(0)?, body: row.get(1)?, hash: hash.to_owned() }))
            .optional()?)
    }

    /// Records the text that an issue was seen with.
    pub fn see_text(
        &self,
        (repo_id, number): (i64, i64),
        text: &ApprovedText,
        sight: Sight<'_>,
        now: i64,
    ) -> Result<()> {
        let Sight { at, since, told, before } = sight;
        let known: Option<(String, String, String, i64)> = self
            .conn
            .prepare_cached("SELECT hash, title, body, at FROM issue_texts WHERE repo_id = ? AND number = ?")?
            .query_row([repo_id, number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let edited = match &known {
            Some((hash, _, _, seen)) => {
                if at < *seen || (at == *seen && !told) {
                    return Ok(());
                }
                *hash != text.hash
            }
            None => before.is_some_and(|before| before.hash != text.hash),
        };
        let before = match (&known, before) {
            (_, Some(before)) => Some((before.title.as_str(), before.body.as_str())),
            (Some((_, title, body, _)), None) => Some((title.as_str(), body.as_str())),
            (None, None) => None,
        }
        .filter(|_| edited);
        self.conn
            .prepare_cached(
                "INSERT INTO issue_texts (repo_id, number, hash, title, body, at, edited_at, before_title, before_body, seen_at, since) \
                 VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11) ON CONFLICT (repo_id, number) DO UPDATE SET hash = ?3, title = ?4, \
                 body = ?5, at = ?6, seen_at = ?10, since = COALESCE(?7, since), edited_at = COALESCE(?7, edited_at), \
                 before_title = COALESCE(?8, before_title), before_body = COALESCE(?9, before_body)",
            )?
            .execute(params![
                repo_id,
                number,
                text.hash,
                cut(&text.title),
                cut(&text.body),
                at,
                edited.then_some(at),
                before.map(|b| cut(b.0)),
                before.map(|b| cut(b.1)),
                now,
                if edited { at } else { since }
            ])?;
        Ok(())
    }

    /// The text that an issue was last seen with.
    pub fn seen_text(&self, repo_id: i64, number: i64) -> Result<Option<SeenText>> {
        Ok(self
            .conn
            .prepare_cached(
                "SELECT hash, title, body, edited_at, before_title, before_body, since FROM issue_texts \
                 WHERE repo_id = ? AND number = ?",
            )?
            .query_row([repo_id, number], |row| {
                let before: (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
                Ok(SeenText {
                    text: ApprovedText { hash: row.get(0)?, title: row.get(1)?, body: row.get(2)? },
                    edited_at: row.get(3)?,
                    since: row.get(6)?,
                    before: before.0.zip(before.1),
                })
            })
            .optional()?)
    }

    /// Deletes texts that nobody needs any more: the previous text after an hour, the last one seen after 90 days.
    pub fn forget_old_texts(&self, now: i64) -> Result<()> {
        self.conn.execute(
            "UPDATE issue_texts SET title = '', body = '', before_title = NULL, before_body = NULL \
             WHERE seen_at < ? AND body <> ''",
            [now - 3_600_000],
        )?;
        self.conn.execute("DELETE FROM issue_texts WHERE seen_at < ?", [now - 90 * 86_400_000])?;
        Ok(())
    }

    /// The number on the forge of the comment that an effect posted.
    pub fn comment_of_effect(&self, effect: &str) -> Result<Option<i64>> {
        Ok(self
            .conn
            .prepare_cached("SELECT comment_id FROM comments WHERE effect = ?")?
            .query_row([effect], |row| row.get(0))
            .optional()?)
    }

    /// Records a comment of the bot.
    pub fn put_comment(&self, effect: &str, mission: &str, cell: Option<&str>, kind: &str, id: i64) -> Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO comments (effect, mission, cell, kind, comment_id) VALUES (?1,?2,?3,?4,?5) \
                 ON CONFLICT (effect) DO UPDATE SET comment_id = ?5",
            )?
            .execute(params![effect, mission, cell, kind, id])?;
        Ok(())
    }

    /// Records the present text of a comment of the bot.
    pub fn put_comment_text(&self, comment_id: i64, sha256: &str) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE comments SET body_sha256 = ?2 WHERE comment_id = ?1")?
            .execute(params![comment_id, sha256])?;
        Ok(())
    }

    /// The newest comment of that kind on a mission.
    pub fn comment_of_kind(&self, mission: &str, kind: &str) -> Result<Option<CommentRow>> {
        Ok(self
            .conn
            .prepare_cached("SELECT effect, comment_id, body_sha256 FROM comments WHERE mission = ? AND kind = ? ORDER BY comment_id DESC LIMIT 1")?
            .query_row([mission, kind], |row| Ok(CommentRow { effect: row.get(0)?, comment_id: row.get(1)?, sha256: row.get(2)? }))
            .optional()?)
    }

    /// Whether a comment of that kind was posted for a cell.
    pub fn has_comment(&self, cell: &str, kind: &str) -> Result<bool> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM comments WHERE cell = ? AND kind = ?")?.exists([cell, kind])?)
    }

    /// The outcome of an operator's command; `None` while it is running.
    pub fn operation(&self, id: &str) -> Result<Option<String>> {
        Ok(self
            .conn
            .prepare_cached("SELECT outcome FROM operations WHERE id = ?")?
            .query_row([id], |row| row.get::<_, Option<String>>(0))
            .optional()?
            .flatten())
    }

    /// Records the outcome of an operator's command.
    pub fn put_operation(&self, id: &str, outcome: &str, now: i64) -> Result<()> {
        self.conn
            .prepare_cached("INSERT INTO operations (id, outcome, at) VALUES (?,?,?) ON CONFLICT (id) DO NOTHING")?
            .execute(params![id, outcome, now])?;
        Ok(())
    }

    /// How far the reconciler has read, in seconds since the epoch.
    pub fn watermark(&self, repo_id: i64) -> Result<Option<i64>> {
        Ok(self
            .conn
            .query_row("SELECT at FROM watermarks WHERE repo_id = ?", [repo_id], |row| row.get(0))
            .optional()?)
    }

    /// Records how far the reconciler has read. It never goes back.
    pub fn put_watermark(&self, repo_id: i64, at: i64) -> Result<()> {
        self.conn.execute(
            "INSERT INTO watermarks (repo_id, at) VALUES (?1,?2) ON CONFLICT (repo_id) DO UPDATE SET at = MAX(at, ?2)",
            params![repo_id, at],
        )?;
        Ok(())
    }

    /// A small fact by its key.
    pub fn meta(&self, key: &str) -> Result<Option<String>> {
        Ok(self.conn.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0)).optional()?)
    }

    /// Stores a small fact.
    pub fn put_meta(&self, key: &str, value: &str) -> Result<()> {
        self.conn.execute(
            "INSERT INTO meta (key, value) VALUES (?1,?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
            params![key, value],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::cell::{Actor, At, Cell, CellId, Identity, Input, LimitsWanted, Policy, Spec, decide, evolve};
    use crate::cell::{AutoRevive, BackendKind, Isolation, Network};
    use crate::store::Store;

    /// Rows that were stored before a field existed still load, without a migration step.
    #[test]
    fn a_cell_of_an_older_lazarus_is_read() {
        let identity = Identity::Agent("scribe".to_owned());
        let participant = serde_json::json!({
            "identity": identity, "forge_id": null, "role": "executor", "state": {"state": "joined"},
            "run": {"run": "running", "number": 1},
        });
        let spec = serde_json::json!({
            "agents": ["scribe"], "backend": "process", "isolation": "level_2", "network": "none", "hosts": [],
            "ttl": 1000, "model": null, "task": null, "auto_revive": "no",
        });
        let policy = serde_json::json!({
            "ttl_max": 1000, "invitation_ttl": 1000, "closed_grace": 1000, "archive_retention": 1000, "guests": false,
            "substitutes": false, "max_retries": 3, "participants_max": 8,
        });
        let row = serde_json::json!({
            "id": CellId::from_random([1; 10]), "mission": "1#1", "state": "active", "spec": spec, "policy": policy,
            "proposed_by": {"kind": "system"}, "approval": null, "approval_void": false, "participants": [participant],
            "created_at": 0, "started_at": 1, "expires_at": 2, "closed_at": null, "archived_at": null, "outcome": null,
            "reason": null, "last_run": 1, "revivals": 0, "final_checkpoint": false,
        });
        let cell: Cell = super::parse("cell", "laz-x", &row.to_string()).unwrap();
        assert_eq!((cell.state_since, cell.participants[0].joined_at), (None, None));
    }

    #[tokio::test]
    async fn a_cell_keeps_its_slot_however_often_it_changes_and_the_next_has_the_next() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("registry.sqlite")).unwrap();
        let spec = Spec {
            agents: vec!["scribe".to_owned()],
            backend: BackendKind::Process,
            isolation: Isolation::Level2,
            network: Network::None,
            hosts: vec![],
            ttl: 1000,
            model: None,
            task: None,
            auto_revive: AutoRevive::No,
            limits: LimitsWanted::default(),
            base: None,
        };
        let policy = Policy {
            ttl_max: 1000,
            invitation_ttl: 1000,
            closed_grace: 1000,
            archive_retention: 1000,
            guests: false,
            substitutes: false,
            max_retries: 3,
            participants_max: 8,
        };
        let cells = [1, 2].map(|byte| {
            let propose = Input::Propose {
                id: CellId::from_random([byte; 10]),
                mission: "1#1".to_owned(),
                spec: spec.clone(),
                policy: policy.clone(),
            };
            let (events, _) = decide(None, &propose, &Actor::System, At(0)).unwrap();
            events.iter().fold(None, |cell, event| evolve(cell, event, At(0))).unwrap()
        });
        let names = cells.clone().map(|cell| cell.id.to_string());
        let counted = store.transact(move |tx| {
            for cell in &cells {
                for now in 0..5 {
                    tx.put_cell(cell, now)?;
                }
            }
            let slots = names.each_ref().map(|name| tx.cell(name).unwrap().unwrap().slot);
            Ok((slots, tx.count_cells()?))
        });
        assert_eq!(counted.await.unwrap(), ([1, 2], (2, 0)));
    }
}
