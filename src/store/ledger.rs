//! The ledger: append-only (enforced by triggers) and hash-chained.
//!
//! The hash of each entry is SHA-256 over a canonical encoding: the words `lazarus-ledger-v1`, then each field
//! preceded by its length (8 bytes, big-endian), including the previous entry's hash. If any byte changes, or an
//! entry is removed, added or moved, all later hashes are wrong. A truncated ledger, or an old copy that was put
//! back, is detected by the heads in spawn and close logs on the forge.

use super::{Result, StoreError, Tx};
use crate::cell::{Actor, CellId};
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The previous hash of the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An entry that is to be appended.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Time, in milliseconds since the epoch.
    pub at: i64,
    /// The mission, or an empty string.
    pub mission: String,
    /// The cell, or an empty string.
    pub cell: String,
    /// Who acted, as JSON.
    pub actor: String,
    /// What happened, one word.
    pub action: String,
    /// The details, as JSON.
    pub data: String,
}

impl Tx<'_> {
    /// Appends what somebody did at `now`. `mission` is empty if it is about none, or about one that cannot be told.
    pub fn record(
        &self,
        now: i64,
        actor: &Actor,
        mission: &str,
        cell: Option<&CellId>,
        action: &str,
        data: &serde_json::Value,
    ) -> Result<Head> {
        self.append(&NewEntry {
            at: now,
            mission: mission.to_owned(),
            cell: cell.map(ToString::to_string).unwrap_or_default(),
            actor: serde_json::to_string(actor).map_err(StoreError::json("actor"))?,
            action: action.to_owned(),
            data: data.to_string(),
        })
    }
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, counted from 1 without gaps.
    pub seq: i64,
    /// Time, in milliseconds since the epoch.
    pub at: i64,
    /// The mission, or an empty string.
    pub mission: String,
    /// The cell, or an empty string.
    pub cell: String,
    /// Who acted, as JSON.
    pub actor: String,
    /// What happened, one word.
    pub action: String,
    /// The details, as JSON.
    pub data: String,
    /// Hash of the entry before, in hex.
    pub previous: String,
    /// Hash of this entry, in hex.
    pub hash: String,
}

impl Entry {
    /// Computes the hash that this entry should have.
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

/// The end of the ledger: a number and a hash that determine everything before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last entry; 0 for an empty ledger.
    pub seq: i64,
    /// Hash of the last entry, in hex.
    pub hash: String,
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl Head {
    /// Finds heads of the form `N:HASH` in one of our own texts.
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
    /// The content of an entry does not match its hash.
    #[error("entry {seq} was changed: its content does not give its hash")]
    Changed {
        /// The entry's number.
        seq: i64,
    },
    /// An entry does not continue the one before it.
    #[error("entry {seq} does not follow the entry before it: one was removed, added or moved here")]
    Broken {
        /// The entry's number.
        seq: i64,
    },
    /// An entry is missing.
    #[error("entry {seq} is missing")]
    Missing {
        /// The missing entry's number.
        seq: i64,
    },
    /// The ledger lacks a head that was posted on the forge.
    #[error(
        "the forge holds a head for entry {seq} that this ledger does not have: its tail was cut, or an older copy was put back"
    )]
    NotAtHead {
        /// The entry's number.
        seq: i64,
    },
}

impl Tx<'_> {
    /// The current head of the ledger.
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

    /// Entries with numbers from `from` on, at most `limit`. If `about` is given, only those of that cell or
    /// mission.
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

    /// Time of the newest entry, in milliseconds since the epoch. Our clock never goes back behind it.
    pub fn last_entry_at(&self) -> Result<i64> {
        Ok(self.conn.query_row("SELECT COALESCE(MAX(at), 0) FROM ledger", [], |row| row.get(0))?)
    }
}

/// Verifies the whole chain, and that it contains every given head. Returns the head, or the first bad entry.
///
/// # Errors
/// If the file cannot be read. A bad entry is not an error but a result.
pub fn verify(tx: &Tx<'_>, heads: &[Head]) -> Result<std::result::Result<Head, LedgerFault>> {
    let mut head = Head { seq: 0, hash: GENESIS.to_owned() };
    let mut wanted: Vec<&Head> = heads.iter().collect();
    // Whoever can write the file can also bypass the schema's constraints.
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
