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
use crate::mission::ApprovedText;
use crate::store::EffectRow;
use failure::{EffectError, Performed};

/// Runs one effect.
pub async fn run(engine: &Engine, row: &EffectRow) -> Performed {
    let effect: Effect = match serde_json::from_str(&row.data) {
        Ok(effect) => effect,
        Err(error) => return Err(EffectError::permanent(format!("it cannot be read: {error}"))),
    };
    let result = match effect {
        Effect::Cell { order } => cell::run(engine, row, order).await,
        Effect::Record { file, line } => record(engine, row, &file, line).await,
        effect => forge::run(engine, row, effect).await,
    };
    match result {
        Ok(input) => Ok(input),
        Err(error) => engine.judge(row, error).await,
    }
}

/// Adds a line to a cell's own records.
async fn record(engine: &Engine, row: &EffectRow, file: &str, line: String) -> Performed {
    if file != "decisions.jsonl" {
        return Err(EffectError::permanent(format!("a cell has no record `{file}`")));
    }
    let Some(cell) = row.cell_id() else { return Ok(Input::Nothing) };
    let Some(stored) = engine.stored_cell(&cell).await? else { return Ok(Input::Nothing) };
    let backend = engine.backends.get(stored.cell.spec.backend)?;
    backend.deliver(&cell, Record::Decision(line)).await?;
    Ok(Input::Nothing)
}

/// A mission as people and trailers name it: `owner/repo#12`.
async fn mission_words(engine: &Engine, id: &str) -> Result<String, EffectError> {
    Ok(engine.stored_mission(id).await?.map_or_else(String::new, |mission| mission.name()))
}

async fn approved_text(engine: &Engine, cell: &crate::cell::Cell) -> Result<ApprovedText, EffectError> {
    let hash = cell.approval.as_ref().map(|a| a.text.clone()).unwrap_or_default();
    engine
        .store
        .read(move |tx| tx.text(&hash))
        .await?
        .ok_or_else(|| EffectError::permanent("the approved text is not in the registry"))
}
