//! What came of a request: one type, whoever asked and however it is shown.

use super::{CellView, Listing, Time};
use crate::cell::{At, CellId};
use crate::store::{Entry, Head, LedgerFault, Pin};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// What keys an answer has as JSON, beside `success` and `message`: a row of the
/// table in `docs/specification.md` §7. A refusal has the keys of its request, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `summon`.
    Summon,
    /// `team`.
    Team,
    /// `invite`: a verb on one cell, which also says who was invited.
    Invite,
    /// `status CELL`, and every other verb on one cell.
    OneCell,
    /// `status`: a list of cells.
    Cells,
    /// No cell is the answer: only whether it was done.
    #[default]
    Plain,
}

impl Form {
    /// The form of what comes of a command, by its name.
    pub fn of_command(name: &str) -> Self {
        match name {
            "summon" => Self::Summon,
            "team" => Self::Team,
            "invite" => Self::Invite,
            _ => Self::OneCell,
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Nothing was done.
    Refused {
        /// Why, and what to do, for a person.
        message: String,
    },
    /// A command was carried out, or refused.
    Given(Box<CommandAnswer>),
    /// How a cell stands.
    Cell {
        /// In a sentence.
        message: String,
        /// The cell.
        cell: Box<CellView>,
    },
    /// How cells stand.
    Cells(Box<CellsAnswer>),
    /// What agents printed.
    Logs {
        /// How much it is, in a sentence.
        message: String,
        /// Whose agents they are.
        cell: Box<CellView>,
        /// The end of each agent's log: its name, the text.
        logs: Vec<(String, String)>,
    },
    /// Entries of the ledger.
    Ledger {
        /// They, oldest first.
        entries: Vec<EntryView>,
        /// The first one that was left out, where there is one.
        next: Option<i64>,
    },
    /// The ledger was checked.
    Verified {
        /// Its newest entry, where it is whole.
        head: Option<Head>,
        /// What is wrong, where it is not.
        fault: Option<LedgerFault>,
        /// Where heads were looked for.
        seen: HeadsSeen,
    },
    /// What names were found to mean.
    Pins {
        /// Each name.
        pins: Vec<Pin>,
    },
}

/// Where heads of the ledger were looked for: a tail that was cut is seen in no other way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadsSeen {
    /// Nowhere beyond those that were given.
    NotAsked,
    /// So many were found on the forge.
    OnForge(usize),
    /// The forge could not be asked, and why.
    Unknown(String),
}

impl std::fmt::Display for HeadsSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAsked => {
                f.write_str("the forge was not asked, so a tail that was cut, or an old copy put back, is not seen")
            }
            Self::OnForge(count) => write!(f, "{count} heads on the forge are in it"),
            Self::Unknown(error) => write!(
                f,
                "but the heads on the forge could not be looked for, so that a tail that was cut would not be \
                 seen: {error}; try again, give a head with --head, or say --offline"
            ),
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandAnswer {
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

/// How cells stand, and Lazarus with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellsAnswer {
    /// The cells that were asked for.
    pub listing: Listing,
    /// How many live, of all that there are.
    pub live: i64,
    /// How many are over.
    pub over: i64,
    /// Inputs that are not decided yet.
    pub inputs: i64,
    /// Effects that are not done yet.
    pub effects: i64,
    /// What has failed and is tried again.
    pub waiting: Vec<super::Waiting>,
    /// Whether a daemon has the data directory.
    pub daemon: bool,
    /// The ledger's head.
    pub head: Head,
}

impl CellsAnswer {
    /// Whether all of them could be read.
    pub fn is_whole(&self) -> bool {
        self.listing.damaged.is_empty()
    }

    fn message(&self) -> String {
        let mut message = format!("{} live, {} over", self.live, self.over);
        if let Some(first) = self.listing.damaged.first() {
            let _ = write!(message, "; {} cannot be read: {}", self.listing.damaged.len(), first.error);
        }
        message
    }
}

/// An entry of the ledger as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// The entry. Its hash is over the registry's own name of the mission.
    #[serde(flatten)]
    pub entry: Entry,
    /// What people call the mission; `-` where it is about none.
    pub name: String,
}

impl EntryView {
    fn to_json(&self) -> Value {
        let Self { entry, name } = self;
        json!({
            "seq": entry.seq, "at": Time(At(entry.at)), "at_ms": entry.at, "mission": name, "mission_id": entry.mission,
            "cell": entry.cell, "actor": entry.actor, "action": entry.action, "data": entry.data,
            "previous": entry.previous, "hash": entry.hash,
        })
    }
}

impl Answer {
    /// A refusal.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused { message: message.into() }
    }

    /// Whether what was asked was done.
    pub fn success(&self) -> bool {
        match self {
            Self::Refused { .. } => false,
            Self::Given(given) => given.success,
            Self::Cells(cells) => cells.is_whole(),
            Self::Verified { fault, seen, .. } => fault.is_none() && !matches!(seen, HeadsSeen::Unknown(_)),
            Self::Cell { .. } | Self::Logs { .. } | Self::Ledger { .. } | Self::Pins { .. } => true,
        }
    }

    /// What came of it, in a sentence.
    pub fn message(&self) -> String {
        match self {
            Self::Refused { message } | Self::Cell { message, .. } | Self::Logs { message, .. } => message.clone(),
            Self::Given(given) => given.message.clone(),
            Self::Cells(cells) => cells.message(),
            Self::Ledger { entries, next } => {
                let more = next.map_or_else(String::new, |next| format!("; more from {next} (--from)"));
                format!("{} entries{more}", entries.len())
            }
            Self::Verified { head: Some(head), seen, .. } => {
                format!("the ledger is whole: {} entries, head {head}; {seen}", head.seq)
            }
            Self::Verified { fault, .. } => fault.as_ref().map(ToString::to_string).unwrap_or_default(),
            Self::Pins { pins } => format!("{} pins", pins.len()),
        }
    }

    /// The JSON of contract §7, one object. A key of the form whose value is not known
    /// is null, so a refusal has the same keys as a success.
    pub fn to_json(&self, form: Form) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("success", json!(self.success()));
        put("message", json!(self.message()));
        match self {
            Self::Given(given) => given.put(form, &mut put),
            Self::Refused { .. } => CommandAnswer::default().put(form, &mut put),
            Self::Cell { cell, .. } => CommandAnswer::showing(cell).put(form, &mut put),
            Self::Logs { cell, logs, .. } => {
                CommandAnswer::showing(cell).put(form, &mut put);
                put("logs", logs.iter().map(|(agent, text)| (agent.clone(), json!(text))).collect());
            }
            Self::Cells(answer) => {
                let cells = &answer.listing.cells;
                let active: Vec<&CellView> = cells.iter().filter(|cell| cell.state.is_active()).collect();
                put("active_cells", json!(active));
                put("cells", json!(cells));
                put("damaged", json!(answer.listing.damaged));
                put("pending_inputs", json!(answer.inputs));
                put("pending_effects", json!(answer.effects));
                put("waiting", json!(answer.waiting));
                put("daemon", json!(answer.daemon));
                put("ledger", json!(answer.head.to_string()));
            }
            Self::Ledger { entries, .. } => {
                put("entries", entries.iter().map(EntryView::to_json).collect());
            }
            Self::Verified { head, fault, .. } => {
                put("head", json!(head.as_ref().map(ToString::to_string)));
                put("fault", json!(fault));
            }
            Self::Pins { pins } => {
                put("pins", json!(pins));
            }
        }
        Value::Object(object)
    }
}

impl CommandAnswer {
    fn showing(cell: &CellView) -> Self {
        Self { cell_id: Some(cell.cell_id.clone()), cell: Some(Box::new(cell.clone())), ..Self::default() }
    }

    /// The keys of a form.
    fn put<T>(&self, form: Form, put: &mut impl FnMut(&str, Value) -> T) {
        let cell = self.cell.as_deref();
        match form {
            Form::Plain => return,
            Form::Cells => {
                put("active_cells", json!([]));
                return;
            }
            _ => put("cell_id", json!(self.cell_id)),
        };
        match form {
            Form::Summon | Form::Team => {
                put("project", json!(cell.map(|cell| &cell.project)));
                if form == Form::Summon {
                    put("agent", json!(self.agents.first()));
                } else {
                    put("agents", json!(self.agents));
                }
                put("backend", json!(cell.map(|cell| cell.backend)));
                put("pid", json!(cell.and_then(|cell| cell.pid)));
                return;
            }
            Form::Invite => {
                put("guest", json!(self.guest));
                put("role", json!(self.role));
                put("invited_by", json!(self.invited_by));
            }
            _ => {}
        }
        put("cell", json!(cell));
        put("probe", json!(cell.map(|cell| &cell.probe)));
        put("expired", json!(cell.map(|cell| cell.expired)));
    }
}
