//! Inputs that came in, each stored once under its key.

use super::{Result, Tx};
use rusqlite::params;

/// An input that waits to be handled.
#[derive(Debug, Clone)]
pub struct InboxRow {
    /// Its number, in order of arrival.
    pub seq: i64,
    /// The key of the event, by which duplicates are recognised.
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

    /// Whether a webhook delivery was ever stored with this key, or with a key that begins with it and continues
    /// with a claim. Inputs that only polling found do not count.
    pub fn was_delivered(&self, key: &str) -> Result<bool> {
        let mut found = self.conn.prepare_cached(
            "SELECT 1 FROM inbox WHERE (key = ?1 OR (key > ?1 || ':' AND key < ?1 || ';')) AND key NOT LIKE '%:polled'",
        )?;
        Ok(found.exists([key])?)
    }

    /// The oldest waiting inputs, at most `limit`.
    pub fn waiting_inputs(&self, limit: i64) -> Result<Vec<InboxRow>> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT seq, key, input, received_at FROM inbox WHERE done = 0 ORDER BY seq LIMIT ?")?;
        let rows = statement.query_map([limit], |row| {
            Ok(InboxRow { seq: row.get(0)?, key: row.get(1)?, input: row.get(2)?, received_at: row.get(3)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many inputs are waiting.
    pub fn count_waiting_inputs(&self) -> Result<i64> {
        Ok(self.conn.query_row("SELECT COUNT(*) FROM inbox WHERE done = 0", [], |row| row.get(0))?)
    }

    /// Marks an input as handled and deletes its content; its key stays.
    pub fn handled(&self, seq: i64, note: Option<&str>) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE inbox SET done = 1, input = '', note = ? WHERE seq = ?")?
            .execute(params![note, seq])?;
        Ok(())
    }

    /// Records that a comment's commands are now carried out or answered. Returns false if they already were.
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

    /// Adds `count` to what somebody or something did in the current minute, and returns the sum. `who` names what
    /// is being counted: a person's commands, or checks of an issue.
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
