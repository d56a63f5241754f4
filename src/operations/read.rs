//! Requests that only read: straight from the registry and the log files, with the
//! daemon running or not.

use super::{
    Answer, CellView, CellsAnswer, EntryView, HeadsSeen, Listing, MissionName, Missions, Request, Target, Which,
    listing, mission_of, waiting,
};
use crate::backend::{self, Seen};
use crate::cell::{At, Cell, CellId, Identity};
use crate::config::Config;
use crate::keeper::log_tail;
use crate::store::{self, DataLock, Head, StoreError};
use std::path::PathBuf;

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing was ever served here.
    #[error("there is no registry at {} yet; `lazarus serve` makes it", .0.display())]
    NoRegistry(PathBuf),
    /// No such cell.
    #[error("there is no cell {0}; `lazarus status --all` lists them")]
    NoCell(CellId),
    /// No such mission.
    #[error("nothing is known of {0}")]
    UnknownMission(MissionName),
    /// No such mission, where missions were to be listed.
    #[error("nothing is known of {0}; `lazarus status --all` lists what is")]
    UnlistedMission(MissionName),
    /// No such agent in a cell.
    #[error("AGENT {agent}: not in this cell; {}", there(.agents))]
    NoAgent {
        /// Its name, as it was given.
        agent: String,
        /// Those that there are.
        agents: Vec<String>,
    },
    /// A log.
    #[error("reading the log of agent {agent} of {cell}: {source}")]
    Log {
        /// The agent.
        agent: String,
        /// In which cell.
        cell: CellId,
        /// The system's error.
        source: std::io::Error,
    },
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not a request that only reads.
    #[error("a command is given to an engine, and not read")]
    NotForReading,
}

/// What somebody else wrote, so that it does not steer the operator's terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || crate::mission::suspicious(c) { '\u{fffd}' } else { c }).collect()
}

fn there(agents: &[String]) -> String {
    if agents.is_empty() { "there is none yet".to_owned() } else { format!("there are {}", agents.join(", ")) }
}

/// Everything that is read.
#[derive(Debug, Clone)]
pub struct Reader {
    registry: PathBuf,
    data: PathBuf,
    run: PathBuf,
    /// The time by which things are said.
    pub now: At,
}

impl Reader {
    /// Of an installation. Needs no daemon.
    ///
    /// # Errors
    /// [`ReadError::NoRegistry`].
    pub fn of(config: &Config) -> Result<Self, ReadError> {
        let registry = config.paths.registry.clone();
        if !registry.exists() {
            return Err(ReadError::NoRegistry(registry));
        }
        let now = At(jiff::Timestamp::now().as_millisecond());
        Ok(Self { registry, data: config.paths.data.clone(), run: config.paths.data.join("run"), now })
    }

    /// Answers a request that only reads.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn answer(&self, request: &Request) -> Result<Answer, ReadError> {
        match request {
            Request::Give { .. } => Err(ReadError::NotForReading),
            Request::ListCells { which } => self.cells(which).map(|cells| Answer::Cells(Box::new(cells))),
            Request::ShowCell { cell } => {
                let cell = Box::new(self.cell(cell)?);
                Ok(Answer::Cell { message: format!("cell {} is {}", cell.cell_id, cell.state), cell })
            }
            Request::ReadLogs { cell, agent, tail } => self.logs(cell, agent.as_deref(), *tail),
            Request::ReadLedger { about, from, limit } => self.ledger(about.as_ref(), *from, *limit),
            Request::VerifyLedger { heads } => self.verify(heads, HeadsSeen::NotAsked),
            Request::ListPins => {
                #[allow(
                    clippy::redundant_closure_for_method_calls,
                    reason = "the path is not general enough over lifetimes"
                )]
                let pins = store::look(&self.registry, |tx| tx.pins())?;
                Ok(Answer::Pins { pins })
            }
        }
    }

    /// How a cell stands.
    ///
    /// # Errors
    /// [`ReadError::NoCell`], or where it cannot be read.
    pub fn cell(&self, id: &CellId) -> Result<CellView, ReadError> {
        store::look(&self.registry, |tx| listing::one(tx, id, |cell| self.look(cell), self.now))?
            .ok_or_else(|| ReadError::NoCell(id.clone()))
    }

    fn cells(&self, which: &Which) -> Result<CellsAnswer, ReadError> {
        let (listing, (live, over), inputs, effects, head, waiting) = store::look(&self.registry, |tx| {
            let counted = tx.count_cells()?;
            let listing = Listing::read(tx, which, |cell| self.look(cell), self.now)?;
            Ok((listing, counted, tx.count_waiting_inputs()?, tx.count_open_effects()?, tx.head()?, waiting(tx)?))
        })?;
        let listing = match (listing, which) {
            (Some(listing), _) => listing,
            (None, Which::Of(mission)) => return Err(ReadError::UnlistedMission(mission.clone())),
            (None, _) => Listing::default(),
        };
        let daemon = DataLock::is_held(&self.data);
        Ok(CellsAnswer { listing, live, over, inputs, effects, waiting, daemon, head })
    }

    /// What is to be seen of a cell now.
    fn look(&self, cell: &Cell) -> Seen {
        if cell.state.has_processes() { backend::look(&self.run, &cell.id) } else { Seen::default() }
    }

    /// The last `bytes` of what an agent printed. Nothing where it printed nothing, or
    /// is gone.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn log(&self, cell: &CellId, agent: &str, bytes: u64) -> std::io::Result<String> {
        let text = log_tail(&self.run.join(cell.as_str()).join("keeper"), agent, bytes)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn logs(&self, id: &CellId, agent: Option<&str>, tail: u64) -> Result<Answer, ReadError> {
        let cell = Box::new(self.cell(id)?);
        let names: Vec<String> = cell
            .members
            .iter()
            .filter_map(|member| match &member.identity {
                Identity::Agent(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        if let Some(agent) = agent
            && !names.iter().any(|name| name == agent)
        {
            return Err(ReadError::NoAgent { agent: printable(agent), agents: names });
        }
        let mut logs = vec![];
        for name in names.into_iter().filter(|name| agent.is_none_or(|agent| agent == name)) {
            let text = self.log(id, &name, tail).map_err(|source| ReadError::Log {
                agent: name.clone(),
                cell: id.clone(),
                source,
            })?;
            // What an agent wrote must not steer the operator's terminal.
            let clean =
                text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect();
            logs.push((name, clean));
        }
        let message = format!("the logs of {} agents, at most {tail} bytes of each", logs.len());
        Ok(Answer::Logs { message, cell, logs })
    }

    fn ledger(&self, about: Option<&Target>, from: i64, limit: i64) -> Result<Answer, ReadError> {
        let found = store::look(&self.registry, |tx| {
            let id = match about {
                None => None,
                Some(Target::Cell(cell)) => Some(cell.to_string()),
                Some(Target::Mission(name)) => match mission_of(tx, name)? {
                    Some(id) => Some(id),
                    None => return Ok(Err(ReadError::UnknownMission(name.clone()))),
                },
            };
            let mut names = Missions::default();
            // One more, to know whether there are more.
            let entries = tx.entries(from, limit.saturating_add(1), id.as_deref())?;
            let named = entries.into_iter().map(|entry| {
                let name = if entry.mission.is_empty() { "-".to_owned() } else { names.name(tx, &entry.mission)? };
                Ok(EntryView { entry, name })
            });
            Ok(Ok(named.collect::<store::Result<Vec<_>>>()?))
        })?;
        let mut entries = found?;
        let kept = usize::try_from(limit).unwrap_or_default();
        let next = entries.get(kept).map(|view| view.entry.seq);
        entries.truncate(kept);
        Ok(Answer::Ledger { entries, next })
    }

    /// Checks the ledger's chain, and that these heads are in it. `seen` says where they
    /// were looked for.
    ///
    /// # Errors
    /// Where the registry cannot be read.
    pub fn verify(&self, heads: &[Head], seen: HeadsSeen) -> Result<Answer, ReadError> {
        let (head, fault) = match store::look(&self.registry, |tx| store::verify(tx, heads))? {
            Ok(head) => (Some(head), None),
            Err(fault) => (None, Some(fault)),
        };
        Ok(Answer::Verified { head, fault, seen })
    }
}
