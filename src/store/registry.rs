//! Missions, cells, texts and the small facts beside them.

use super::{Result, StoreError, Tx};
use crate::cell::{Cell, DeadlineKind, next_deadline};
use crate::mission::{ApprovedText, Mission};
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A cell as the registry has it, with what is known of its running.
#[derive(Debug, Clone)]
pub struct CellRow {
    /// Its slot: a number of its own for as long as the registry lives, from
    /// which its user ids are made.
    pub slot: i64,
    /// The cell.
    pub cell: Cell,
    /// What the backend found and the engine keeps beside it, as JSON.
    pub facts: String,
}

/// One of the bot's comments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommentRow {
    /// The effect that posted it.
    pub effect: String,
    /// Its number on the forge.
    pub comment_id: i64,
}

fn parse<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(StoreError::json(what))
}

impl Tx<'_> {
    /// A mission by its name in the registry.
    pub fn mission(&self, id: &str) -> Result<Option<Mission>> {
        let text: Option<String> = self
            .conn
            .prepare_cached("SELECT state FROM missions WHERE id = ?")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        text.map(|t| parse("mission", &t)).transpose()
    }

    /// A mission by repository and issue number.
    pub fn mission_by_number(&self, repo_id: i64, number: i64) -> Result<Option<Mission>> {
        let text: Option<String> = self
            .conn
            .prepare_cached(
                "SELECT state FROM missions WHERE repo_id = ? AND number = ? ORDER BY updated_at DESC LIMIT 1",
            )?
            .query_row([repo_id, number], |row| row.get(0))
            .optional()?;
        text.map(|t| parse("mission", &t)).transpose()
    }

    /// Missions of a repository that have a cell that is not over, or a ballot.
    pub fn missions_of(&self, repo_id: i64) -> Result<Vec<Mission>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT DISTINCT m.state FROM missions m JOIN cells c ON c.mission = m.id WHERE m.repo_id = ? AND c.live = 1",
        )?;
        let rows = statement.query_map([repo_id], |row| row.get::<_, String>(0))?;
        rows.map(|t| parse("mission", &t?)).collect()
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

    /// A cell by its name.
    pub fn cell(&self, id: &str) -> Result<Option<CellRow>> {
        let row: Option<(i64, String, String)> = self
            .conn
            .prepare_cached("SELECT slot, data, facts FROM cells WHERE id = ?")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        row.map(|(slot, data, facts)| Ok(CellRow { slot, cell: parse("cell", &data)?, facts })).transpose()
    }

    /// Stores a cell, with its next deadline.
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
        // Not `INSERT … ON CONFLICT`: that takes a slot, and with it user ids, for
        // every change of a cell.
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

    /// What is known of a cell's running, as JSON.
    pub fn put_facts(&self, cell: &str, facts: &str) -> Result<()> {
        self.conn.prepare_cached("UPDATE cells SET facts = ? WHERE id = ?")?.execute(params![facts, cell])?;
        Ok(())
    }

    /// Cells that are not over, oldest first, at most `limit`.
    pub fn live_cells(&self, limit: i64) -> Result<Vec<CellRow>> {
        self.cell_rows("SELECT slot, data, facts FROM cells WHERE live = 1 ORDER BY slot LIMIT ?1", params![limit])
    }

    /// Every cell, the newest last, at most `limit` of the newest.
    pub fn all_cells(&self, limit: i64) -> Result<Vec<CellRow>> {
        self.cell_rows(
            "SELECT slot, data, facts FROM (SELECT slot, data, facts FROM cells ORDER BY slot DESC LIMIT ?1) ORDER BY slot",
            params![limit],
        )
    }

    /// Every cell of a mission, oldest first.
    pub fn cells_of(&self, mission: &str) -> Result<Vec<CellRow>> {
        self.cell_rows("SELECT slot, data, facts FROM cells WHERE mission = ?1 ORDER BY slot", params![mission])
    }

    fn cell_rows(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<CellRow>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement
            .query_map(values, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))?;
        rows.map(|row| {
            let (slot, data, facts) = row?;
            Ok(CellRow { slot, cell: parse("cell", &data)?, facts })
        })
        .collect()
    }

    /// How many cells there are: live, and over.
    pub fn count_cells(&self) -> Result<(i64, i64)> {
        let live = self.conn.query_row("SELECT COUNT(*) FROM cells WHERE live = 1", [], |row| row.get(0))?;
        // Slots count up, so the newest says how many there were: no scan.
        let all: i64 = self.conn.query_row("SELECT COALESCE(MAX(slot), 0) FROM cells", [], |row| row.get(0))?;
        Ok((live, all - live))
    }

    /// The next deadline of any cell.
    pub fn next_cell_deadline(&self) -> Result<Option<i64>> {
        Ok(self
            .conn
            .prepare_cached("SELECT MIN(deadline) FROM cells WHERE deadline IS NOT NULL")?
            .query_row([], |row| row.get(0))?)
    }

    /// Cells whose deadline has passed.
    pub fn due_cells(&self, now: i64) -> Result<Vec<(String, String, i64, DeadlineKind)>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, mission, deadline, deadline_kind FROM cells WHERE deadline IS NOT NULL AND deadline <= ? ORDER BY deadline LIMIT 100",
        )?;
        let rows = statement.query_map([now], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
        })?;
        rows.map(|row| {
            let (id, mission, at, kind) = row?;
            Ok((id, mission, at, parse("deadline", &kind)?))
        })
        .collect()
    }

    /// Keeps a text under its hash.
    pub fn put_text(&self, text: &ApprovedText) -> Result<()> {
        self.conn
            .prepare_cached("INSERT INTO texts (hash, title, body) VALUES (?,?,?) ON CONFLICT (hash) DO NOTHING")?
            .execute(params![text.hash, text.title, text.body])?;
        Ok(())
    }

    /// The text with that hash.
    pub fn text(&self, hash: &str) -> Result<Option<ApprovedText>> {
        Ok(self
            .conn
            .prepare_cached("SELECT title, body FROM texts WHERE hash = ?")?
            .query_row([hash], |row| Ok(ApprovedText { title: row.get(0)?, body: row.get(1)?, hash: hash.to_owned() }))
            .optional()?)
    }

    /// Notes a comment of the bot.
    pub fn put_comment(&self, effect: &str, mission: &str, cell: Option<&str>, kind: &str, id: i64) -> Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO comments (effect, mission, cell, kind, comment_id) VALUES (?1,?2,?3,?4,?5) \
                 ON CONFLICT (effect) DO UPDATE SET comment_id = ?5",
            )?
            .execute(params![effect, mission, cell, kind, id])?;
        Ok(())
    }

    /// The newest comment of that kind on a mission.
    pub fn comment_of_kind(&self, mission: &str, kind: &str) -> Result<Option<CommentRow>> {
        Ok(self
            .conn
            .prepare_cached("SELECT effect, comment_id FROM comments WHERE mission = ? AND kind = ? ORDER BY comment_id DESC LIMIT 1")?
            .query_row([mission, kind], |row| Ok(CommentRow { effect: row.get(0)?, comment_id: row.get(1)? }))
            .optional()?)
    }

    /// The number of the comment that an effect posted, once it has.
    pub fn comment_of_effect(&self, effect: &str) -> Result<Option<i64>> {
        Ok(self
            .conn
            .prepare_cached("SELECT comment_id FROM comments WHERE effect = ?")?
            .query_row([effect], |row| row.get(0))
            .optional()?)
    }

    /// Whether a comment with that number is one that the bot posted.
    pub fn is_own_comment(&self, comment_id: i64) -> Result<bool> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM comments WHERE comment_id = ?")?.exists([comment_id])?)
    }

    /// What an operator's command came to; `None` while it is under way.
    pub fn operation(&self, id: &str) -> Result<Option<String>> {
        Ok(self
            .conn
            .prepare_cached("SELECT outcome FROM operations WHERE id = ?")?
            .query_row([id], |row| row.get::<_, Option<String>>(0))
            .optional()?
            .flatten())
    }

    /// Notes what an operator's command came to.
    pub fn put_operation(&self, id: &str, outcome: &str, now: i64) -> Result<()> {
        self.conn
            .prepare_cached("INSERT INTO operations (id, outcome, at) VALUES (?,?,?) ON CONFLICT (id) DO NOTHING")?
            .execute(params![id, outcome, now])?;
        Ok(())
    }

    /// The number that a name was pinned to.
    pub fn pin(&self, kind: &str, name: &str) -> Result<Option<i64>> {
        Ok(self
            .conn
            .prepare_cached("SELECT id FROM pins WHERE kind = ? AND name = ?")?
            .query_row([kind, &name.to_lowercase()], |row| row.get(0))
            .optional()?)
    }

    /// Pins a name to a number; a name that is pinned already stays so.
    pub fn put_pin(&self, kind: &str, name: &str, id: i64) -> Result<()> {
        self.conn
            .prepare_cached("INSERT INTO pins (kind, name, id) VALUES (?,?,?) ON CONFLICT (kind, name) DO NOTHING")?
            .execute(params![kind, name.to_lowercase(), id])?;
        Ok(())
    }

    /// How far the reconciler has looked, in seconds since the epoch.
    pub fn watermark(&self, repo_id: i64) -> Result<Option<i64>> {
        Ok(self
            .conn
            .query_row("SELECT at FROM watermarks WHERE repo_id = ?", [repo_id], |row| row.get(0))
            .optional()?)
    }

    /// Notes how far the reconciler has looked.
    pub fn put_watermark(&self, repo_id: i64, at: i64) -> Result<()> {
        self.conn.execute(
            "INSERT INTO watermarks (repo_id, at) VALUES (?1,?2) ON CONFLICT (repo_id) DO UPDATE SET at = MAX(at, ?2)",
            params![repo_id, at],
        )?;
        Ok(())
    }

    /// A small fact by name.
    pub fn meta(&self, key: &str) -> Result<Option<String>> {
        Ok(self.conn.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0)).optional()?)
    }

    /// Notes a small fact.
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
    use crate::cell::{Actor, At, CellId, Input, LimitsWanted, Policy, Spec, decide, evolve};
    use crate::cell::{AutoRevive, BackendKind, Isolation, Network};
    use crate::store::Store;

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
