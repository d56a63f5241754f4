//! The ledger: append-only by trigger, hash-chained.
//!
//! Each entry's hash is SHA-256 over a canonical encoding: the words
//! `lazarus-ledger-v1`, then each field with its length (8 bytes, big-endian)
//! before it, the previous entry's hash among them. So no byte can change, no
//! entry go, come or move without every later hash being wrong; a cut tail and
//! an old copy put back are seen by the heads that spawn and close logs carry
//! on the forge.

use super::{Result, Tx};
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the first entry names as its predecessor.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An entry to be.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// The mission, or empty.
    pub mission: String,
    /// The cell, or empty.
    pub cell: String,
    /// Who, as JSON.
    pub actor: String,
    /// What happened, one word.
    pub action: String,
    /// The particulars, as JSON.
    pub data: String,
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1, without gaps.
    pub seq: i64,
    /// Milliseconds since the epoch.
    pub at: i64,
    /// The mission, or empty.
    pub mission: String,
    /// The cell, or empty.
    pub cell: String,
    /// Who, as JSON.
    pub actor: String,
    /// What happened, one word.
    pub action: String,
    /// The particulars, as JSON.
    pub data: String,
    /// The hash of the entry before, hex.
    pub previous: String,
    /// Its own hash, hex.
    pub hash: String,
}

impl Entry {
    /// The hash that this entry ought to have.
    pub fn expected_hash(&self) -> String {
        hash_of(self.seq, &self.new_entry(), &self.previous)
    }

    fn new_entry(&self) -> NewEntry {
        NewEntry {
            at: self.at,
            mission: self.mission.clone(),
            cell: self.cell.clone(),
            actor: self.actor.clone(),
            action: self.action.clone(),
            data: self.data.clone(),
        }
    }
}

fn hash_of(seq: i64, entry: &NewEntry, previous: &str) -> String {
    let mut hasher = Sha256::new();
    let (seq, at) = (seq.to_string(), entry.at.to_string());
    let fields = [
        "lazarus-ledger-v1",
        &seq,
        &at,
        &entry.mission,
        &entry.cell,
        &entry.actor,
        &entry.action,
        &entry.data,
        previous,
    ];
    for field in fields {
        hasher.update((field.len() as u64).to_be_bytes());
        hasher.update(field.as_bytes());
    }
    hex::encode(hasher.finalize())
}

/// Where the ledger stands: a number and a hash that fix everything before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last entry's number; 0 for an empty ledger.
    pub seq: i64,
    /// The last entry's hash.
    pub hash: String,
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl Head {
    /// Finds `N:HASH` heads in a text of ours.
    pub fn find_all(text: &str) -> Vec<Self> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'))
            .filter_map(|word| {
                let (seq, hash) = word.split_once(':')?;
                let seq = seq.parse().ok()?;
                (hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
                    .then(|| Self { seq, hash: hash.to_owned() })
            })
            .collect()
    }
}

/// What is wrong with a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum LedgerFault {
    /// An entry's content does not give its hash.
    #[error("entry {seq} was changed: its content does not give its hash")]
    Changed {
        /// The entry.
        seq: i64,
    },
    /// An entry does not follow the one before.
    #[error("entry {seq} does not follow the entry before it: one was removed, added or moved here")]
    Broken {
        /// The entry.
        seq: i64,
    },
    /// A number is missing.
    #[error("entry {seq} is missing")]
    Missing {
        /// The entry.
        seq: i64,
    },
    /// A head that the forge holds is not in the ledger.
    #[error(
        "the forge holds a head for entry {seq} that this ledger does not have: its tail was cut, or an older copy was put back"
    )]
    NotAtHead {
        /// The entry.
        seq: i64,
    },
}

impl Tx<'_> {
    /// Where the ledger stands now.
    pub fn head(&self) -> Result<Head> {
        Ok(self
            .conn
            .prepare_cached("SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
            .optional()?
            .unwrap_or_else(|| Head { seq: 0, hash: GENESIS.to_owned() }))
    }

    /// Appends an entry and returns the new head.
    pub fn append(&self, entry: &NewEntry) -> Result<Head> {
        let head = self.head()?;
        let seq = head.seq + 1;
        let hash = hash_of(seq, entry, &head.hash);
        self.conn
            .prepare_cached(
                "INSERT INTO ledger (seq, at, mission, cell, actor, action, data, previous, hash) VALUES (?,?,?,?,?,?,?,?,?)",
            )?
            .execute(params![
                seq, entry.at, entry.mission, entry.cell, entry.actor, entry.action, entry.data, head.hash, hash
            ])?;
        Ok(Head { seq, hash })
    }

    /// Entries from `from` on, at most `limit`; of one cell or mission, where
    /// `about` is given.
    pub fn entries(&self, from: i64, limit: i64, about: Option<&str>) -> Result<Vec<Entry>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT seq, at, mission, cell, actor, action, data, previous, hash FROM ledger \
             WHERE seq >= ?1 AND (?3 IS NULL OR cell = ?3 OR mission = ?3) ORDER BY seq LIMIT ?2",
        )?;
        let rows = statement.query_map(params![from, limit, about], |row| {
            Ok(Entry {
                seq: row.get(0)?,
                at: row.get(1)?,
                mission: row.get(2)?,
                cell: row.get(3)?,
                actor: row.get(4)?,
                action: row.get(5)?,
                data: row.get(6)?,
                previous: row.get(7)?,
                hash: row.get(8)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Time of the newest entry, in milliseconds: no clock of ours goes back
    /// behind it.
    pub fn last_entry_at(&self) -> Result<i64> {
        Ok(self.conn.query_row("SELECT COALESCE(MAX(at), 0) FROM ledger", [], |row| row.get(0))?)
    }
}

/// Checks the whole chain, and that every given head is in it. Returns the
/// head, or the first bad entry.
///
/// # Errors
/// Where the file cannot be read; a bad entry is not an error but an answer.
pub fn verify(tx: &Tx<'_>, heads: &[Head]) -> Result<std::result::Result<Head, LedgerFault>> {
    let mut head = Head { seq: 0, hash: GENESIS.to_owned() };
    let mut wanted: Vec<&Head> = heads.iter().collect();
    // Whoever can write the file can also write what the schema forbids.
    let before_first: Option<i64> =
        tx.conn.query_row("SELECT MIN(seq) FROM ledger WHERE seq < 1", [], |row| row.get(0))?;
    if let Some(seq) = before_first {
        return Ok(Err(LedgerFault::Broken { seq }));
    }
    loop {
        let entries = tx.entries(head.seq + 1, 1000, None)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if entry.seq != head.seq + 1 {
                return Ok(Err(LedgerFault::Missing { seq: head.seq + 1 }));
            }
            if entry.previous != head.hash {
                return Ok(Err(LedgerFault::Broken { seq: entry.seq }));
            }
            if entry.hash != entry.expected_hash() {
                return Ok(Err(LedgerFault::Changed { seq: entry.seq }));
            }
            head = Head { seq: entry.seq, hash: entry.hash };
            wanted.retain(|w| **w != head);
        }
    }
    Ok(match wanted.iter().min_by_key(|w| w.seq) {
        Some(missing) => Err(LedgerFault::NotAtHead { seq: missing.seq }),
        None => Ok(head),
    })
}
