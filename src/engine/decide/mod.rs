//! The half that decides: synchronous, inside the writer's transaction. It reads what
//! is stored, lets the core decide, and writes new state, ledger entries and effects.
//! It asks nobody: what has to be asked outside is an effect.
//!
//! [`inputs`] says what each kind of input leads to. Whatever is about a mission goes
//! through [`mission_tx`].

mod commands;
mod comments;
mod failed;
mod inputs;
mod issue;
mod label;
mod logs;
mod mission_tx;
mod operators;
mod posting;
mod proposal;
mod requests;
mod state;
mod undecided;
mod work;

use super::context::Context;
use super::effect::Effect;
use super::input::Input;
use super::keys::InboxKey;
use super::lane::Lane;
use crate::cell::{Actor, At, CellId};
use crate::mission::MissionId;
use crate::store::{Due, Head, InboxRow, Listed, Result, StoreError, Tx};
use sha2::{Digest as _, Sha256};

/// Inputs that one transaction takes at most.
const BATCH: i64 = 32;
/// When a deadline is looked at again whose cell cannot be read, in
/// milliseconds: somebody may have mended the registry by then.
const LOOK_AGAIN_AT_DAMAGED: i64 = 3_600_000;

/// What one input is decided with.
#[derive(Clone, Copy)]
pub(super) struct Decision<'a> {
    tx: &'a Tx<'a>,
    context: &'a Context,
    now: At,
    /// The input's key: the names of its effects are made from it.
    key: &'a str,
}

impl<'a> Decision<'a> {
    const fn tx(&self) -> &'a Tx<'a> {
        self.tx
    }

    const fn context(&self) -> &'a Context {
        self.context
    }

    const fn now(&self) -> At {
        self.now
    }

    /// The name of the `count`-th effect of the input: the same input gives the same.
    fn effect_name(&self, count: u32) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.key.as_bytes());
        hasher.update([0]);
        hasher.update(count.to_be_bytes());
        hex::encode(&hasher.finalize()[..10])
    }

    /// Puts an effect of a mission into the queue.
    fn queue(
        &self,
        id: &str,
        lane: Lane<'_>,
        mission: &MissionId,
        cell: Option<&CellId>,
        effect: &Effect,
        not_before: i64,
    ) -> Result<()> {
        let row = effect.row(id, lane, mission.as_str(), cell, not_before)?;
        self.tx.queue(&row, self.now.0)
    }

    /// Puts an entry into the ledger. `mission` may be empty: of none, or of one that
    /// cannot be told.
    fn record(
        &self,
        mission: &str,
        actor: &Actor,
        cell: Option<&CellId>,
        action: &str,
        data: &serde_json::Value,
    ) -> Result<Head> {
        self.tx.record(self.now.0, actor, mission, cell, action, data)
    }
}

/// Puts the deadlines that have passed into the inbox, each once.
pub(super) fn note_deadlines(tx: &Tx<'_>, now: At) -> Result<()> {
    for due in tx.due_cells(now.0)? {
        note_deadline(tx, now, due)?;
    }
    Ok(())
}

fn note_deadline(tx: &Tx<'_>, now: At, due: Listed<Due>) -> Result<()> {
    let noted = due.map_err(|damaged| (damaged.cell, damaged.error)).and_then(|due| match CellId::parse(&due.cell) {
        Ok(cell) => Ok((Input::Deadline { cell, kind: due.kind }, due)),
        Err(error) => Err((due.cell, StoreError::Corrupt { what: "cell", why: error.to_string() })),
    });
    match noted {
        Ok((input, due)) => {
            let text = serde_json::to_string(&input).map_err(StoreError::json("input"))?;
            tx.receive(InboxKey::deadline(&due).as_str(), &text, now.0)?;
        }
        Err((cell, error)) => {
            tracing::error!(cell, %error, "a deadline cannot be read; it is looked at again in an hour");
            tx.put_off(&cell, now.plus(LOOK_AGAIN_AT_DAMAGED).0)?;
        }
    }
    Ok(())
}

/// Decides what waits, in the order in which it came: at most a batch. Returns how many
/// inputs there were.
pub(super) fn decide_waiting(tx: &Tx<'_>, context: &Context, now: At) -> Result<usize> {
    let rows = tx.waiting_inputs(BATCH)?;
    for row in &rows {
        decide_one(tx, context, now, row)?;
    }
    Ok(rows.len())
}

/// Decides one input. What fails inside is noted and does not stop the rest;
/// what fails outside (the disk) stops everything, and nothing is lost.
fn decide_one(tx: &Tx<'_>, context: &Context, now: At, row: &InboxRow) -> Result<()> {
    let read = || serde_json::from_str::<Input>(&row.input).map_err(StoreError::json("input"));
    let failed = match read() {
        Ok(input) => tx.within(|tx| inputs::decide(&Decision { tx, context, now, key: &row.key }, input)),
        Err(error) => Err(error),
    };
    match failed {
        Ok(()) => tx.handled(row.seq, None),
        Err(error @ (StoreError::Corrupt { .. } | StoreError::Panicked(_))) => {
            tracing::error!(key = row.key, %error, "an input could not be handled");
            let decision = Decision { tx, context, now, key: &row.key };
            undecided::not_decided(&decision, read().ok().as_ref(), &error)?;
            tx.handled(row.seq, Some(&error.to_string()))
        }
        Err(error) => Err(error),
    }
}
