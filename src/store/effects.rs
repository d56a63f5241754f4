//! Effects: rows that say what is to be done outside.
//!
//! Rows of one lane run one after another, in order; different lanes run at the same time. A row is claimed (set to
//! `running`, with one more attempt) before it runs, so that after a crash we know that it may have happened.

use super::{Result, Tx};
use crate::cell::CellId;
use rusqlite::{OptionalExtension as _, params};

/// The state of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectState {
    /// Waits to be run.
    Ready,
    /// Is running, or was when the machine stopped.
    Running,
    /// Is done.
    Done,
    /// Failed for good.
    Failed,
}

impl EffectState {
    const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// One effect that is to be run.
#[derive(Debug, Clone)]
pub struct EffectRow {
    /// Its position in the queue.
    pub seq: i64,
    /// Its stable name. Comments carry it as a marker.
    pub id: String,
    /// Its lane: effects of one lane never overtake each other.
    pub lane: String,
    /// The mission that it belongs to.
    pub mission: String,
    /// The cell that it is about; `None` if it is about none.
    pub cell: Option<String>,
    /// Its kind, one word.
    pub kind: String,
    /// Its parameters, as JSON.
    pub data: String,
    /// Number of attempts before this one.
    pub attempts: i64,
    /// It is not run before this time, in milliseconds since the epoch.
    pub not_before: i64,
}

impl EffectRow {
    /// The name of the cell that it is about; `None` if it is about none.
    pub fn cell_id(&self) -> Option<CellId> {
        self.cell.as_deref().and_then(|cell| CellId::parse(cell).ok())
    }
}

/// How long an effect has been failing. Times are in milliseconds since the epoch, by the engine's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Time of its first failure.
    pub failing_since: Option<i64>,
    /// Time since which the forge has said at every attempt that something does not exist.
    pub missing_since: Option<i64>,
    /// How often in a row the forge said so.
    pub missing_looks: i64,
}

/// An effect that has not been done yet, and why.
#[derive(Debug, Clone)]
pub struct WaitingEffect {
    /// The effect.
    pub row: EffectRow,
    /// The error of the last attempt; `None` if there was no attempt yet.
    pub error: Option<String>,
    /// Time of its first failure, in milliseconds since the epoch.
    pub failing_since: Option<i64>,
}

const COLUMNS: &str = "seq, id, lane, mission, cell, kind, data, attempts, not_before";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<EffectRow> {
    Ok(EffectRow {
        seq: row.get(0)?,
        id: row.get(1)?,
        lane: row.get(2)?,
        mission: row.get(3)?,
        cell: row.get(4)?,
        kind: row.get(5)?,
        data: row.get(6)?,
        attempts: row.get(7)?,
        not_before: row.get(8)?,
    })
}

impl Tx<'_> {
    /// Queues an effect. If it already exists, it stays as it is.
    pub fn queue(&self, effect: &EffectRow, now: i64) -> Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO effects (id, lane, mission, cell, kind, data, state, attempts, not_before, created_at) \
                 VALUES (?,?,?,?,?,?,'ready',?,?,?) ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![
                effect.id,
                effect.lane,
                effect.mission,
                effect.cell,
                effect.kind,
                effect.data,
                effect.attempts,
                effect.not_before,
                now
            ])?;
        Ok(())
    }

    /// Removes waiting effects of that kind from that lane, because a newer one covers them. One that is running
    /// stays.
    pub fn supersede(&self, lane: &str, kind: &str) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM effects WHERE lane = ? AND kind = ? AND state = 'ready' AND attempts = 0")?
            .execute(params![lane, kind])?;
        Ok(())
    }

    /// Claims the first effect of each lane that is free and due: at most `limit`, not counting effects of the kinds
    /// in `slow`, of which at most `slow_limit` are claimed in addition.
    pub fn claim(&self, now: i64, limit: i64, (slow, slow_limit): (&[&'static str], i64)) -> Result<Vec<EffectRow>> {
        // These are our own words, without quotes in them.
        let slow: Vec<String> = slow.iter().map(|word| format!("'{word}'")).collect();
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM effects e WHERE state = 'ready' AND not_before <= ?1 AND (kind IN ({})) = ?3 AND NOT EXISTS \
             (SELECT 1 FROM effects o WHERE o.lane = e.lane AND o.seq < e.seq AND o.state IN ('ready', 'running')) \
             ORDER BY seq LIMIT ?2",
            slow.join(", ")
        ))?;
        let mut rows: Vec<EffectRow> = vec![];
        for (is_slow, limit) in [(false, limit), (true, slow_limit)] {
            for row in statement.query_map(params![now, limit, is_slow], read)? {
                rows.push(row?);
            }
        }
        for row in &rows {
            self.conn
                .prepare_cached("UPDATE effects SET state = 'running', attempts = attempts + 1 WHERE seq = ?")?
                .execute([row.seq])?;
        }
        Ok(rows)
    }

    /// Finishes an effect. Its parameters are removed; its name stays.
    pub fn settle(&self, id: &str, state: EffectState, error: Option<&str>) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE effects SET state = ?, error = ?, data = '' WHERE id = ?")?
            .execute(params![state.word(), error, id])?;
        Ok(())
    }

    /// Puts an effect back, to be tried again at `not_before` at the earliest. `missing` says that the forge does
    /// not have what the effect is about.
    pub fn retry(&self, id: &str, not_before: i64, error: &str, now: i64, missing: bool) -> Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE effects SET state = 'ready', not_before = ?2, error = ?3, \
                 failing_since = COALESCE(failing_since, ?4), \
                 missing_since = CASE WHEN ?5 THEN COALESCE(missing_since, ?4) END, \
                 missing_looks = CASE WHEN ?5 THEN missing_looks + 1 ELSE 0 END WHERE id = ?1",
            )?
            .execute(params![id, not_before, error, now, missing])?;
        Ok(())
    }

    /// How long an effect has been failing.
    pub fn trouble(&self, id: &str) -> Result<Trouble> {
        Ok(self
            .conn
            .prepare_cached("SELECT failing_since, missing_since, missing_looks FROM effects WHERE id = ?")?
            .query_row([id], |row| {
                Ok(Trouble { failing_since: row.get(0)?, missing_since: row.get(1)?, missing_looks: row.get(2)? })
            })
            .optional()?
            .unwrap_or_default())
    }

    /// Whether an effect exists and is not finished.
    pub fn is_open_effect(&self, id: &str) -> Result<bool> {
        Ok(self
            .conn
            .prepare_cached("SELECT 1 FROM effects WHERE id = ? AND state IN ('ready', 'running')")?
            .exists([id])?)
    }

    /// Removes the waiting effects of a lane, which are not needed any more.
    pub fn withdraw(&self, lane: &str) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM effects WHERE lane = ? AND state = 'ready'")?.execute([lane])?;
        Ok(())
    }

    /// Called after a start: effects that were running are queued again. Their patience begins anew, because
    /// nothing was tried while no daemon ran.
    pub fn reclaim(&self) -> Result<usize> {
        self.conn.execute(
            "UPDATE effects SET failing_since = NULL, missing_since = NULL, missing_looks = 0 \
             WHERE state IN ('ready', 'running') AND failing_since IS NOT NULL",
            [],
        )?;
        Ok(self.conn.execute("UPDATE effects SET state = 'ready' WHERE state = 'running'", [])?)
    }

    /// When the next effect is due, in milliseconds since the epoch; `None` if none waits.
    pub fn next_effect_at(&self) -> Result<Option<i64>> {
        Ok(self
            .conn
            .query_row(
                // Only the first effect of each lane: those behind it are not due.
                "SELECT MIN(not_before) FROM effects e WHERE state = 'ready' AND NOT EXISTS \
                 (SELECT 1 FROM effects o WHERE o.lane = e.lane AND o.seq < e.seq AND o.state IN ('ready', 'running'))",
                [],
                |row| row.get(0),
            )
            .optional()?
            .flatten())
    }

    /// How many effects are not finished. Later checks for duplicate comments, or for somebody's confirmation, are
    /// not counted, because nobody waits for them.
    pub fn count_open_effects(&self) -> Result<i64> {
        Ok(self.conn.query_row(
            "SELECT COUNT(*) FROM effects WHERE state IN ('ready', 'running') AND kind NOT IN ('deduplicate', 'confirm')",
            [],
            |row| row.get(0),
        )?)
    }

    /// Effects that failed at least once and are tried again, oldest first, for `doctor` and `status`. (An effect
    /// that waits for somebody's answer has not failed.)
    pub fn failing_effects(&self, limit: i64) -> Result<Vec<WaitingEffect>> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS}, error, failing_since FROM effects \
             WHERE state IN ('ready', 'running') AND failing_since IS NOT NULL AND kind <> 'confirm' ORDER BY seq LIMIT ?"
        ))?;
        let rows = statement.query_map([limit], |row| {
            Ok(WaitingEffect { row: read(row)?, error: row.get(9)?, failing_since: row.get(10)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
