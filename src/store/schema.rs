//! The tables, and how an older file is upgraded (`user_version`).

use super::{Result, StoreError};
use rusqlite::Connection;
use std::path::Path;

/// One migration step for each version. A step that was released is never changed.
const MIGRATIONS: &[&str] = &["
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

-- Everything that ever came in, once, under the key of what happened. The
-- text goes when it was handled; the key stays, so that a replay years later
-- is known.
CREATE TABLE inbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    lane TEXT NOT NULL,
    input TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    note TEXT
) STRICT;
CREATE INDEX inbox_open ON inbox(seq) WHERE done = 0;

CREATE TABLE missions (
    id TEXT PRIMARY KEY,
    repo_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX missions_by_number ON missions(repo_id, number);

CREATE TABLE texts (hash TEXT PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL) STRICT;

CREATE TABLE cells (
    slot INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    mission TEXT NOT NULL,
    state TEXT NOT NULL,
    live INTEGER NOT NULL,
    deadline INTEGER,
    deadline_kind TEXT,
    data TEXT NOT NULL,
    facts TEXT NOT NULL DEFAULT '{}',
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX cells_live ON cells(slot) WHERE live = 1;
CREATE INDEX cells_by_mission ON cells(mission);
CREATE INDEX cells_deadline ON cells(deadline) WHERE deadline IS NOT NULL;

CREATE TABLE effects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    lane TEXT NOT NULL,
    mission TEXT NOT NULL,
    cell TEXT,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    error TEXT
) STRICT;
CREATE INDEX effects_open ON effects(lane, seq) WHERE state IN ('ready', 'running');

-- The bot's comments, so that the one that is edited in place is found.
CREATE TABLE comments (
    effect TEXT PRIMARY KEY,
    mission TEXT NOT NULL,
    cell TEXT,
    kind TEXT NOT NULL,
    comment_id INTEGER NOT NULL
) STRICT;
CREATE INDEX comments_by_kind ON comments(mission, kind);

-- What an operator's command came to.
CREATE TABLE operations (id TEXT PRIMARY KEY, outcome TEXT, at INTEGER NOT NULL) STRICT;

-- Names from the configuration, pinned to the number they first meant.
CREATE TABLE pins (kind TEXT NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (kind, name)) STRICT;

CREATE TABLE watermarks (repo_id INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT;
CREATE TABLE pace (person INTEGER NOT NULL, minute INTEGER NOT NULL, commands INTEGER NOT NULL, PRIMARY KEY (person, minute)) STRICT;

CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY CHECK (seq > 0),
    at INTEGER NOT NULL,
    mission TEXT NOT NULL,
    cell TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    data TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX ledger_by_mission ON ledger(mission, seq);
CREATE INDEX ledger_by_cell ON ledger(cell, seq);
CREATE TRIGGER ledger_is_append_only_update BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_is_append_only_delete BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_is_a_chain BEFORE INSERT ON ledger
WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM ledger)
BEGIN SELECT RAISE(ABORT, 'the ledger has no gaps'); END;
", "
-- Comments whose commands were carried out, or answered: once, whatever else is
-- heard of them.
CREATE TABLE acted (repo_id INTEGER NOT NULL, comment_id INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (repo_id, comment_id)) STRICT, WITHOUT ROWID;

-- How often, in the running minute.
DROP TABLE pace;
CREATE TABLE paces (who TEXT NOT NULL, minute INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (who, minute)) STRICT, WITHOUT ROWID;

-- The text that each issue was last seen with, whether it is a mission or not:
-- an edit from before it became one counts as well.
CREATE TABLE issue_texts (
    repo_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hash TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    at INTEGER NOT NULL,
    since INTEGER NOT NULL,
    edited_at INTEGER,
    before_title TEXT,
    before_body TEXT,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (repo_id, number)
) STRICT, WITHOUT ROWID;
-- Since when an effect fails, and since when, and how often in a row, the forge
-- says that the thing it is about is not there.
ALTER TABLE comments ADD COLUMN body_sha256 TEXT;
ALTER TABLE effects ADD COLUMN failing_since INTEGER;
ALTER TABLE effects ADD COLUMN missing_since INTEGER;
ALTER TABLE effects ADD COLUMN missing_looks INTEGER NOT NULL DEFAULT 0;

-- What a name meant when it was first looked at. id 0: nothing. within: the
-- repository of a label, the organisation of a team. fault: why it grants
-- nothing any more, for good.
ALTER TABLE pins ADD COLUMN within INTEGER;
ALTER TABLE pins ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pins ADD COLUMN fault TEXT;
UPDATE pins SET name = substr(kind, 7) || ' ' || name, within = CAST(substr(kind, 7) AS INTEGER), kind = 'label'
    WHERE kind LIKE 'label:%';
UPDATE pins SET kind = 'account' WHERE kind = 'director';
"];

/// Checks that the file has the schema that this program writes.
pub(super) fn is_current(conn: &Connection, path: &Path) -> Result<()> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let (known, path) = (MIGRATIONS.len() as i64, path.display().to_string());
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(StoreError::TooOld { path, found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(StoreError::TooNew { path, found, known }),
    }
}

/// Upgrades the file's schema, each step in a transaction.
pub(super) fn migrate(conn: &Connection, path: &Path) -> Result<()> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::TooNew { path: path.display().to_string(), found, known });
    }
    for (index, step) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        conn.execute_batch(&format!("BEGIN IMMEDIATE; {step} PRAGMA user_version = {}; COMMIT;", index + 1))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{PinKind, Store, label_name};

    #[tokio::test]
    async fn names_that_an_older_lazarus_pinned_mean_what_they_meant() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("registry.sqlite");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!("{} PRAGMA user_version = 1;", MIGRATIONS[0])).unwrap();
        conn.execute_batch(
            "INSERT INTO pins (kind, name, id) VALUES ('repository', 'acme/widget', 3), ('director', 'ada', 7), \
             ('label:3', 'lazarus/approved', 12)",
        )
        .unwrap();
        drop(conn);
        let store = Store::open(&path).unwrap();
        let pinned = store
            .read(|tx| {
                let id = |kind, name: &str| Ok::<_, StoreError>(tx.pin(kind, name)?.and_then(|pin| pin.pinned()));
                let label = id(PinKind::Label, &label_name(3, "lazarus/approved"))?;
                Ok((tx.repository_named("Acme/Widget")?, id(PinKind::Account, "ada")?, label))
            })
            .await
            .unwrap();
        let (repository, account, label) = pinned;
        assert_eq!(repository, Some(3));
        assert_eq!(account.unwrap().id(), 7);
        let label = label.unwrap();
        assert_eq!((label.id(), label.within()), (12, Some(3)));
    }
}
