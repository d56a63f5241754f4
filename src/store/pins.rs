//! What names in the configuration refer to. A name on a forge can change hands, so each name is looked up once,
//! and from then on only the number counts.

use super::{Result, Tx};
use crate::cell::Actor;
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of thing a name was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinKind {
    /// A repository, `owner/name`.
    Repository,
    /// A person's account.
    Account,
    /// A team, `organisation/team`; `within` is the organisation's number.
    Team,
    /// A label; `within` is the repository's number.
    Label,
}

impl PinKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Repository, Self::Account, Self::Team, Self::Label];

    /// The kind as one word, for the registry and the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Account => "account",
            Self::Team => "team",
            Self::Label => "label",
        }
    }

    /// Parses that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for PinKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A thing on the forge, known by its number. The name that it was pinned from
/// is in here for messages alone: there is no way to get at it, so nothing can
/// be looked up by it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pinned {
    kind: PinKind,
    id: i64,
    within: Option<i64>,
    name: String,
}

impl Pinned {
    /// Its number on the forge, always above 0.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The number of what it belongs to: a team's organisation, a label's repository. `None` for other kinds.
    pub fn within(&self) -> Option<i64> {
        self.within
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} `{}` (id {})", self.kind, shown(self.kind, &self.name), self.id)
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({self})")
    }
}

/// The registry prefixes a label's name with its repository's number.
fn shown(kind: PinKind, name: &str) -> &str {
    match kind {
        PinKind::Label => name.split_once(' ').map_or(name, |(_, label)| label),
        _ => name,
    }
}

/// What became of a name when it was first looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The kind of thing that was looked for.
    pub kind: PinKind,
    /// The name, as configured.
    pub name: String,
    /// The number that it referred to; 0 if nothing had this name.
    pub id: i64,
    /// The number of what that belongs to, if it belongs to something.
    pub within: Option<i64>,
    /// When it was pinned, in milliseconds since the epoch; 0 for pins of an older Lazarus.
    pub at: i64,
    /// Why it grants nothing until it is pinned anew; `None` if nothing is wrong.
    pub fault: Option<String>,
}

impl Pin {
    /// The thing itself; `None` if it does not exist or the pin has a fault.
    pub fn pinned(&self) -> Option<Pinned> {
        (self.id > 0 && self.fault.is_none()).then(|| Pinned {
            kind: self.kind,
            id: self.id,
            within: self.within,
            name: self.name.clone(),
        })
    }

    /// The name as people know it.
    pub fn shown_name(&self) -> &str {
        shown(self.kind, &self.name)
    }
}

/// A label's name as the registry stores it.
pub(crate) fn label_name(repository: i64, label: &str) -> String {
    format!("{repository} {label}")
}

const COLUMNS: &str = "kind, name, id, within, at, fault";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Pin>> {
    let kind: String = row.get(0)?;
    let Some(kind) = PinKind::parse(&kind) else { return Ok(None) };
    Ok(Some(Pin { kind, name: row.get(1)?, id: row.get(2)?, within: row.get(3)?, at: row.get(4)?, fault: row.get(5)? }))
}

impl Tx<'_> {
    /// The pin of a name; `None` if the name was never looked up.
    pub fn pin(&self, kind: PinKind, name: &str) -> Result<Option<Pin>> {
        Ok(self
            .conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM pins WHERE kind = ? AND name = ?"))?
            .query_row([kind.word(), &name.to_lowercase()], read)
            .optional()?
            .flatten())
    }

    /// Pins a name. If it was pinned before, that pin stays. Returns the pin that is valid now.
    pub fn put_pin(&self, pin: &Pin) -> Result<Pin> {
        self.conn
            .prepare_cached(
                "INSERT INTO pins (kind, name, id, within, at, fault) VALUES (?,?,?,?,?,?) \
                 ON CONFLICT (kind, name) DO NOTHING",
            )?
            .execute(params![pin.kind.word(), pin.name.to_lowercase(), pin.id, pin.within, pin.at, pin.fault])?;
        Ok(self.pin(pin.kind, &pin.name)?.unwrap_or_else(|| pin.clone()))
    }

    /// Sets a team's organisation, or the reason why a pin grants nothing from now on.
    pub fn amend_pin(&self, kind: PinKind, name: &str, within: Option<i64>, fault: Option<&str>) -> Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE pins SET within = COALESCE(within, ?3), fault = COALESCE(?4, fault) WHERE kind = ?1 AND name = ?2",
            )?
            .execute(params![kind.word(), name.to_lowercase(), within, fault])?;
        Ok(())
    }

    /// Deletes a pin, so that the next lookup on the forge pins the name anew. Returns the deleted pin.
    pub fn forget_pin(&self, kind: PinKind, name: &str) -> Result<Option<Pin>> {
        let old = self.pin(kind, name)?;
        self.conn
            .prepare_cached("DELETE FROM pins WHERE kind = ? AND name = ?")?
            .execute([kind.word(), &name.to_lowercase()])?;
        Ok(old)
    }

    /// Records a pin in the ledger, because rights follow from it.
    pub fn note_pin(&self, action: &str, by: &Actor, pin: &Pin, now: i64) -> Result<()> {
        let data = serde_json::json!({
            "kind": pin.kind, "name": pin.shown_name(), "id": pin.id, "within": pin.within, "fault": pin.fault,
        });
        self.record(now, by, "", None, action, &data).map(drop)
    }

    /// All pins, sorted by kind and name.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        let mut statement = self.conn.prepare_cached(&format!("SELECT {COLUMNS} FROM pins ORDER BY kind, name"))?;
        let rows = statement.query_map([], read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// The number of the repository that was served under this name.
    pub fn repository_named(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.pin(PinKind::Repository, name)?.map(|pin| pin.id).filter(|id| *id > 0))
    }
}

impl Tx<'_> {
    /// The configured name that was pinned to that repository, for messages.
    pub fn name_of_repository(&self, id: i64) -> Result<Option<String>> {
        Ok(self
            .conn
            .prepare_cached("SELECT name FROM pins WHERE kind = 'repository' AND id = ? ORDER BY name LIMIT 1")?
            .query_row([id], |row| row.get(0))
            .optional()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn account(name: &str, id: i64) -> Pin {
        Pin { kind: PinKind::Account, name: name.to_owned(), id, within: None, at: 1, fault: None }
    }

    #[tokio::test]
    async fn a_name_keeps_what_it_first_meant_until_somebody_has_it_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("registry.sqlite")).unwrap();
        let done = store.transact(|tx| {
            assert_eq!(tx.put_pin(&account("Ada", 7))?.id, 7);
            assert_eq!(tx.put_pin(&account("ada", 9))?.id, 7, "somebody else took the name");
            // A name that referred to nothing at first never refers to anything later.
            assert_eq!(tx.put_pin(&account("ghost", 0))?.pinned(), None);
            assert_eq!(tx.put_pin(&account("ghost", 11))?.pinned(), None);
            assert_eq!(tx.forget_pin(PinKind::Account, "ghost")?.map(|p| p.id), Some(0));
            assert_eq!(tx.put_pin(&account("ghost", 11))?.pinned().map(|p| p.id()), Some(11));
            tx.amend_pin(PinKind::Account, "ada", None, Some("it was renamed"))?;
            assert_eq!(tx.pin(PinKind::Account, "ADA")?.and_then(|p| p.pinned()), None);
            assert_eq!(tx.pins()?.len(), 2);
            Ok(())
        });
        done.await.unwrap();
    }

    #[test]
    fn a_pinned_thing_shows_its_name_to_people_alone() {
        let pin = Pin {
            kind: PinKind::Label,
            name: label_name(3, "lazarus/approved"),
            id: 5,
            within: Some(3),
            at: 1,
            fault: None,
        };
        assert_eq!(pin.pinned().unwrap().to_string(), "the label `lazarus/approved` (id 5)");
    }
}
