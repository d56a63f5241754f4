//! Running effects: the half of the engine that waits, and has no transaction. What came of an effect goes back into the
//! inbox. Each may run twice: once before a crash and once after.

mod agent;
pub mod authority;
mod cell;
mod comments;
pub mod failure;
mod forge;
pub mod look;
mod publish;
mod work;

use super::Engine;
use super::effect::Effect;
use super::input::Input;
use crate::backend::Record;
use crate::cell::CellId;
use crate::mission::ApprovedText;
use crate::store::EffectRow;
use failure::{Attempt, Ran};

/// Runs one effect.
pub async fn run(engine: &Engine, row: &EffectRow) -> Attempt {
    let effect: Effect = match serde_json::from_str(&row.data) {
        Ok(effect) => effect,
        Err(error) => return Attempt::Never { why: format!("it cannot be read: {error}"), input: None },
    };
    let result = match effect {
        Effect::Cell { order } => cell::run(engine, row, order).await,
        Effect::Record { file, line } => record(engine, row, &file, line).await,
        effect => forge::run(engine, row, effect).await,
    };
    match result {
        Ok(input) => Attempt::Done(input),
        Err(attempt) => engine.judge(row, attempt).await,
    }
}

/// Adds a line to a cell's own records.
async fn record(engine: &Engine, row: &EffectRow, file: &str, line: String) -> Ran {
    let never = |why: String| Attempt::Never { why, input: None };
    if file != "decisions.jsonl" {
        return Err(never(format!("a cell has no record `{file}`")));
    }
    let Some(cell) = row.cell.as_deref().and_then(|c| CellId::parse(c).ok()) else { return Ok(Input::Nothing) };
    let name = cell.to_string();
    let Some(stored) = engine.store.read(move |tx| tx.cell(&name)).await? else { return Ok(Input::Nothing) };
    let backend = engine.backends.get(stored.cell.spec.backend)?;
    backend.deliver(&cell, Record::Decision(line)).await?;
    Ok(Input::Nothing)
}

/// A mission as people and trailers name it: `owner/repo#12`.
async fn mission_words(engine: &Engine, id: &str) -> Result<String, Attempt> {
    let id = id.to_owned();
    let mission = engine.store.read(move |tx| tx.mission(&id)).await?;
    Ok(mission.map_or_else(String::new, |m| format!("{}/{}#{}", m.owner, m.repo, m.number)))
}

async fn approved_text(engine: &Engine, cell: &crate::cell::Cell) -> Result<ApprovedText, Attempt> {
    let hash = cell.approval.as_ref().map(|a| a.text.clone()).unwrap_or_default();
    engine
        .store
        .read(move |tx| tx.text(&hash))
        .await?
        .ok_or_else(|| Attempt::Never { why: "the approved text is not in the registry".to_owned(), input: None })
}
