//! What came in, once under each key.

use super::{Result, Tx};
use rusqlite::params;

/// One input that waits.
#[derive(Debug, Clone)]
pub struct InboxRow {
    /// Its number, in the order of arrival.
    pub seq: i64,
    /// The key of what happened.
    pub key: String,
    /// The input, as JSON.
    pub input: String,
    /// When it was stored, in milliseconds since the epoch.
    pub received_at: i64,
}

impl Tx<'_> {
    /// Stores an input unless its key is known. Returns whether it is new.
    pub fn receive(&self, key: &str, input: &str, now: i64) -> Result<bool> {
        let rows = self
            .conn
            .prepare_cached(
                // The lane was never read; older databases have it in their table.
                "INSERT INTO inbox (key, lane, input, received_at) VALUES (?,'',?,?) ON CONFLICT (key) DO NOTHING",
            )?
            .execute(params![key, input, now])?;
        Ok(rows == 1)
    }

    /// Whether an input with that key was ever stored.
    pub fn knows(&self, key: &str) -> Result<bool> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM inbox WHERE key = ?")?.exists([key])?)
    }

    /// Whether a delivery was ever stored whose key is this one, or begins with it and
    /// goes on with a claim. What only polling found does not count.
    pub fn was_delivered(&self, key: &str) -> Result<bool> {
        let mut found = self.conn.prepare_cached(
            "SELECT 1 FROM inbox WHERE (key = ?1 OR (key > ?1 || ':' AND key < ?1 || ';')) AND key NOT LIKE '%:polled'",
        )?;
        Ok(found.exists([key])?)
    }

    /// The oldest inputs that wait, at most `limit`.
    pub fn waiting_inputs(&self, limit: i64) -> Result<Vec<InboxRow>> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT seq, key, input, received_at FROM inbox WHERE done = 0 ORDER BY seq LIMIT ?")?;
        let rows = statement.query_map([limit], |row| {
            Ok(InboxRow { seq: row.get(0)?, key: row.get(1)?, input: row.get(2)?, received_at: row.get(3)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many inputs wait.
    pub fn count_waiting_inputs(&self) -> Result<i64> {
        Ok(self.conn.query_row("SELECT COUNT(*) FROM inbox WHERE done = 0", [], |row| row.get(0))?)
    }

    /// Marks an input as handled and lets its text go; the key stays.
    pub fn handled(&self, seq: i64, note: Option<&str>) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE inbox SET done = 1, input = '', note = ? WHERE seq = ?")?
            .execute(params![note, seq])?;
        Ok(())
    }

    /// Notes that a comment's commands are carried out or answered now. `false`:
    /// they were before.
    pub fn act_on(&self, repo_id: i64, comment_id: i64, now: i64) -> Result<bool> {
        let rows = self
            .conn
            .prepare_cached("INSERT INTO acted (repo_id, comment_id, at) VALUES (?,?,?) ON CONFLICT DO NOTHING")?
            .execute(params![repo_id, comment_id, now])?;
        Ok(rows == 1)
    }

    /// Whether a comment's commands were carried out or answered.
    pub fn has_acted_on(&self, repo_id: i64, comment_id: i64) -> Result<bool> {
        let mut known = self.conn.prepare_cached("SELECT 1 FROM acted WHERE repo_id = ? AND comment_id = ?")?;
        Ok(known.exists([repo_id, comment_id])?)
    }

    /// Counts what somebody or something does in the running minute; returns the
    /// sum. `who` names one of whatever has a pace: a person's commands, looks at an
    /// issue.
    pub fn pace_of(&self, who: &str, now: i64, count: i64) -> Result<i64> {
        let minute = now / 60_000;
        self.conn.execute("DELETE FROM paces WHERE minute < ?", [minute])?;
        Ok(self.conn.query_row(
            "INSERT INTO paces (who, minute, count) VALUES (?,?,?) \
             ON CONFLICT (who, minute) DO UPDATE SET count = count + excluded.count RETURNING count",
            params![who, minute, count],
            |row| row.get(0),
        )?)
    }
}
