//! Effects: what is to be done outside, as rows.
//!
//! Rows of one lane run one after the other, in order; lanes run side by side.
//! A row is claimed (`running`, one attempt more) before it is run, so that
//! after a crash it is known that it may have happened.

use super::{Result, Tx};
use rusqlite::{OptionalExtension as _, params};

/// Where an effect stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectState {
    /// Waits.
    Ready,
    /// Is being done, or was when the machine stopped.
    Running,
    /// Is done.
    Done,
    /// Cannot be done.
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

/// One effect.
#[derive(Debug, Clone)]
pub struct EffectRow {
    /// Its order.
    pub seq: i64,
    /// Its stable name; comments carry it as a marker.
    pub id: String,
    /// What it must not overtake.
    pub lane: String,
    /// The mission.
    pub mission: String,
    /// The cell, where there is one.
    pub cell: Option<String>,
    /// Its kind, one word.
    pub kind: String,
    /// The particulars, as JSON.
    pub data: String,
    /// Attempts before this one.
    pub attempts: i64,
    /// Not to be run before, in milliseconds since the epoch.
    pub not_before: i64,
}

/// How long an effect has been failing already. Times in milliseconds since the
/// epoch, by the engine's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Since its first failure.
    pub failing_since: Option<i64>,
    /// Since when the forge has said, each time, that a thing is not there.
    pub missing_since: Option<i64>,
    /// How often in a row it said so.
    pub missing_looks: i64,
}

/// An effect that waits, and what it waits for.
#[derive(Debug, Clone)]
pub struct WaitingEffect {
    /// The effect.
    pub row: EffectRow,
    /// What went wrong at the last attempt; `None` where there was none yet.
    pub error: Option<String>,
    /// Since its first failure, in milliseconds since the epoch.
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
    /// Queues an effect; one that is there already stays as it is.
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

    /// Takes waiting effects of that kind in that lane back: a newer one says
    /// it all. One that is being done stays.
    pub fn supersede(&self, lane: &str, kind: &str) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM effects WHERE lane = ? AND kind = ? AND state = 'ready' AND attempts = 0")?
            .execute(params![lane, kind])?;
        Ok(())
    }

    /// Claims the head of every lane that is free and due: at most `limit`, and beside
    /// them of some kinds, given by their words, at most the other limit.
    pub fn claim(&self, now: i64, limit: i64, (slow, slow_limit): (&[&'static str], i64)) -> Result<Vec<EffectRow>> {
        // Words of ours, without quotes in them.
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

    /// Ends an effect. What it carried goes; its name stays.
    pub fn settle(&self, id: &str, state: EffectState, error: Option<&str>) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE effects SET state = ?, error = ?, data = '' WHERE id = ?")?
            .execute(params![state.word(), error, id])?;
        Ok(())
    }

    /// Puts an effect back, not to be tried before then. `missing`: the forge
    /// said that the thing it is about is not there.
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

    /// For how long an effect has been failing.
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

    /// Whether an effect is not done yet.
    pub fn is_open_effect(&self, id: &str) -> Result<bool> {
        Ok(self
            .conn
            .prepare_cached("SELECT 1 FROM effects WHERE id = ? AND state IN ('ready', 'running')")?
            .exists([id])?)
    }

    /// Takes back what still waits in a lane: there is no need for it any more.
    pub fn withdraw(&self, lane: &str) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM effects WHERE lane = ? AND state = 'ready'")?.execute([lane])?;
        Ok(())
    }

    /// After a start: what was being done is to be done again. Patience begins
    /// anew: nothing was tried while no daemon ran.
    pub fn reclaim(&self) -> Result<usize> {
        self.conn.execute(
            "UPDATE effects SET failing_since = NULL, missing_since = NULL, missing_looks = 0 \
             WHERE state IN ('ready', 'running') AND failing_since IS NOT NULL",
            [],
        )?;
        Ok(self.conn.execute("UPDATE effects SET state = 'ready' WHERE state = 'running'", [])?)
    }

    /// When the next effect is due, in milliseconds since the epoch.
    pub fn next_effect_at(&self) -> Result<Option<i64>> {
        Ok(self
            .conn
            .query_row(
                // Only the heads of lanes: what waits behind one is not due.
                "SELECT MIN(not_before) FROM effects e WHERE state = 'ready' AND NOT EXISTS \
                 (SELECT 1 FROM effects o WHERE o.lane = e.lane AND o.seq < e.seq AND o.state IN ('ready', 'running'))",
                [],
                |row| row.get(0),
            )
            .optional()?
            .flatten())
    }

    /// How many effects are not done. A later look for a doubled comment, or for
    /// somebody's confirmation, is not work that anybody waits for.
    pub fn count_open_effects(&self) -> Result<i64> {
        Ok(self.conn.query_row(
            "SELECT COUNT(*) FROM effects WHERE state IN ('ready', 'running') AND kind NOT IN ('deduplicate', 'confirm')",
            [],
            |row| row.get(0),
        )?)
    }

    /// Effects that failed at least once and are tried again, the oldest first:
    /// for `doctor` and `status`. (What waits for somebody's word has not failed.)
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
