//! What a verb answers.

use super::CellView;
use crate::cell::CellId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What keys an answer has as JSON, beside `success` and `message`: a row of the
/// table in `docs/specification.md` §7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `summon`.
    Summon,
    /// `team`.
    Team,
    /// `invite`: a verb on one cell, which also says who was invited.
    Invite,
    /// `status CELL`, and every other verb on one cell.
    OneCell,
    /// No cell is the answer: only whether it was done.
    Plain,
}

/// What came of a request: the same whoever asked, and in whatever form it is
/// shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Whether it was done.
    pub success: bool,
    /// Words for a person.
    pub message: String,
    /// The cell that it is about, where that is known.
    pub cell_id: Option<CellId>,
    /// The cell as it stands now, where there is one.
    pub cell: Option<Box<CellView>>,
    /// The agents that a cell was asked for, by name.
    pub agents: Vec<String>,
    /// Whom an invitation is for.
    pub guest: Option<String>,
    /// As what.
    pub role: Option<String>,
    /// Who invited them.
    pub invited_by: Option<String>,
}

impl Answer {
    /// A refusal.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// How a cell stands.
    pub fn of_cell(message: impl Into<String>, cell: CellView) -> Self {
        Self {
            success: true,
            message: message.into(),
            cell_id: Some(cell.cell_id.clone()),
            cell: Some(Box::new(cell)),
            ..Self::default()
        }
    }

    /// The JSON of a form. A key of it whose value is not known is null, so a
    /// refusal has the same keys as a success.
    pub fn to_json(&self, form: Form) -> Value {
        let cell = self.cell.as_deref();
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("success", json!(self.success));
        put("message", json!(self.message));
        if form == Form::Plain {
            return Value::Object(object);
        }
        put("cell_id", json!(self.cell_id));
        if matches!(form, Form::Summon | Form::Team) {
            put("project", json!(cell.map(|cell| &cell.project)));
            if form == Form::Summon {
                put("agent", json!(self.agents.first()));
            } else {
                put("agents", json!(self.agents));
            }
            put("backend", json!(cell.map(|cell| cell.backend)));
            put("pid", json!(cell.and_then(|cell| cell.pid)));
            return Value::Object(object);
        }
        if form == Form::Invite {
            put("guest", json!(self.guest));
            put("role", json!(self.role));
            put("invited_by", json!(self.invited_by));
        }
        put("cell", json!(cell));
        put("probe", json!(cell.map(|cell| &cell.probe)));
        put("expired", json!(cell.map(|cell| cell.expired)));
        Value::Object(object)
    }
}
