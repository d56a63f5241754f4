//! How cells run. A backend makes, starts and ends cells, and reports what happens to them; it knows nothing about
//! missions and comments.
//!
//! This is the boundary between the engine and the host: the engine holds [`Backends`] and knows no host path, no
//! user id and no socket. A [`CellSpec`] describes a cell, an [`AgentSpec`] describes how an agent is started, and
//! a [`Running`] reports what was really set up. [`ProcessBackend`] is the only kind that is built so far.

mod process;

pub use process::{ProcessBackend, look};

pub use crate::egress::{Count as EgressCount, Report as EgressReport};
pub use crate::keeper::LimitsHit;
pub use crate::workspace::{HandedWork, HarvestManifest, HarvestRequest};

use crate::agents::{AgentCommand, Profiles};
use crate::cell::{BackendKind, CellId, Exit, Isolation, Limits, Network};
use crate::config::Config;
use crate::egress::{HostName, Rules};
use crate::failure::Failure;
use crate::host::{Host, HostError};
use crate::mission::ApprovedText;
use crate::repository::{GitError, LeftOut, Source};
use crate::workspace::HomeError;
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The kinds of backends that are built, which a proposal may ask for.
pub const BUILT: [BackendKind; 1] = [BackendKind::Process];

/// Why a backend could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// This installation has no such backend.
    #[error("the `{0}` backend is not built yet")]
    NotBuilt(BackendKind),
    /// This kind of backend cannot do what was asked.
    #[error("the `{backend}` backend cannot {what}: {why}")]
    Unsupported {
        /// The backend that was asked.
        backend: BackendKind,
        /// What was asked, as an infinitive.
        what: &'static str,
        /// Why it cannot.
        why: &'static str,
    },
    /// Cells would see some of the daemon's own files. Each line names one and says what to do.
    #[error("cells would see what no cell may see, so nothing is started:\n  {0}")]
    InSight(String),
    /// The requested isolation is not available on this host. Nothing weaker is started instead.
    #[error("isolation `{asked}` cannot be had on this host: {why}")]
    Isolation {
        /// The isolation that was requested.
        asked: Isolation,
        /// What is missing, and what to do.
        why: String,
    },
    /// The cell could not be started, and trying again will not help.
    #[error("the cell could not be started: {0}")]
    Start(String),
    /// The cell could not be started for a reason that may pass by itself, such as a full disk.
    #[error("the cell could not be started just now: {0}")]
    Passing(String),
    /// The project could not be cloned.
    #[error(transparent)]
    Source(#[from] GitError),
    /// The cell's home could not be made or used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The cell's keeper has ended.
    #[error("the cell's keeper is not there any more")]
    Gone,
    /// A file or socket of the cell could not be used.
    #[error("{tried}: {source}")]
    Io {
        /// What was tried.
        tried: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl BackendError {
    pub(crate) fn io(tried: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let tried = tried.into();
        move |source| Self::Io { tried, source }
    }

    /// Whether trying again may help.
    pub fn failure(&self) -> Failure {
        match self {
            Self::NotBuilt(_)
            | Self::Unsupported { .. }
            | Self::InSight(_)
            | Self::Isolation { .. }
            | Self::Start(_) => Failure::Lasting,
            Self::Source(error) => error.failure(),
            Self::Passing(_) | Self::Home(_) | Self::Gone | Self::Io { .. } => Failure::PASSING,
        }
    }
}

impl From<HostError> for BackendError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::NotRun(source) => Self::Io { tried: "probing this host".to_owned(), source },
            HostError::NoAnswer(_) => Self::Passing(error.to_string()),
            HostError::Stopped => Self::Gone,
        }
    }
}

/// Describes a cell independently of a host: it contains no host path.
#[derive(Debug, Clone)]
pub struct CellSpec {
    /// The cell's name.
    pub cell: CellId,
    /// The cell's slot: a number that no other cell of this installation has until this cell is destroyed.
    pub slot: i64,
    /// The project's number on the forge.
    pub project: i64,
    /// The profiles of the agents that work in it, by name. The backend knows which paths they need to be shown.
    pub agents: Vec<String>,
    /// The weakest isolation that is acceptable.
    pub isolation: Isolation,
    /// Which network it gets.
    pub network: Network,
    /// The hosts that it may reach, if its network is `proxy`.
    pub egress: Egress,
    /// Limits of all its processes and files together.
    pub limits: Limits,
    /// Whether project and homes are kept in memory.
    pub in_memory: bool,
    /// Largest pack that a harvest may produce, in bytes. The harvest needs this space in addition to the cell's
    /// own.
    pub pack_max: u64,
}

/// The hosts that a cell may reach.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// The hosts and addresses that are allowed.
    pub rules: Rules,
    /// Fixed addresses of names, used instead of the system's resolver.
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
}

/// What the agents of a cell are told, and the cell's record of itself.
#[derive(Debug, Clone)]
pub struct Brief {
    /// The approved text.
    pub text: ApprovedText,
    /// The cell's own record, as JSON. The backend adds the commit.
    pub record: serde_json::Value,
}

/// A cell's home that was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created {
    /// The commit that was cloned.
    pub commit: String,
    /// How many commits the branch has beyond that commit; 0 if the home already existed.
    pub behind: u64,
    /// Branches that could not be fetched and are missing from the home.
    pub left_out: Vec<LeftOut>,
    /// Configuration files for agents that the project contains. They are reported, and never loaded on the host's
    /// side.
    pub agent_config_in_repo: Vec<String>,
}

/// An agent's access to the project and to shared files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    Work,
    /// Read only.
    Observe,
}

/// How one agent is started. Paths in its command are symbolic.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// The agent's name, which is its profile's.
    pub agent: String,
    /// The number of the run. A run that was already started is not started again.
    pub run: u32,
    /// Program, arguments and environment.
    pub command: AgentCommand,
    /// The text of its task.
    pub prompt: String,
    /// Its access to the project.
    pub access: Access,
    /// Whether it gets a work tree of its own, if it may write.
    pub worktree: bool,
    /// Whether it may trace its own processes, if the backend can limit tracing to those.
    pub ptrace: bool,
}

/// An entry for the cell's own records, which its agents can read but not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The complete spawn log.
    SpawnLog(String),
    /// A decision, as one line of JSON. A line that is already there is not written again.
    Decision(String),
    /// A message for one agent, as one line of JSON. A line that is already there is not written again.
    Message {
        /// The agent's name.
        agent: String,
        /// The line.
        line: String,
    },
}

/// The path of a file below a cell's home: plain names, none of them `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellPath(Vec<String>);

impl CellPath {
    /// Builds a path from these names. `None` if one of them is not a plain file or directory name.
    pub fn new(names: &[&str]) -> Option<Self> {
        let plain = |name: &&str| !name.is_empty() && !matches!(*name, "." | "..") && !name.contains(['/', '\0']);
        (!names.is_empty() && names.iter().all(plain)).then(|| Self(names.iter().map(|n| (*n).to_owned()).collect()))
    }

    /// The names, from the outermost directory inwards.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What a backend supports on its host, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The strongest isolation that it supports.
    pub isolation: Isolation,
    /// The networks that a cell may be given.
    pub networks: Vec<Network>,
    /// What enforces the limits of a cell as a whole. Empty if only each process is limited.
    pub limits: Vec<String>,
    /// What is missing for stronger isolation, and what to do about it.
    pub missing: Vec<String>,
}

/// What a cell used. Complete only after the cell has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Limits that it hit, and what followed.
    pub met: LimitsHit,
    /// What its proxy carried and refused; `None` if it had no proxy.
    pub egress: Option<EgressReport>,
}

/// What a cell left when it was stopped.
#[derive(Debug, Default)]
pub struct StopReport {
    /// The harvested work; `None` if none was asked for, or if the cell's home no longer exists.
    pub work: Option<HandedWork>,
    /// What it used.
    pub usage: Usage,
}

/// What is known about a running cell: what was really set up, which may differ from what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The isolation that it has.
    pub isolation: Option<Isolation>,
    /// Isolation steps that were taken, in words.
    pub applied: Vec<String>,
    /// What is missing for stronger isolation, in words.
    pub missing: Vec<String>,
    /// The keeper's pid on this host.
    pub pid: Option<i32>,
}

/// What can be seen of a cell from outside, without asking its keeper.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether its keeper is alive. If it is not, nothing in the cell is.
    pub lives: bool,
    /// The keeper's pid on this host, while it lives.
    pub pid: Option<i32>,
}

/// Something that happened to a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellEvent {
    /// An agent's run ended.
    AgentEnded {
        /// The cell in which it happened.
        cell: CellId,
        /// The agent.
        agent: String,
        /// The run's number.
        run: u32,
        /// How it ended. The profile decides whether that counts as success.
        exit: Exit,
    },
}

/// What was found of a cell that should be running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It is running, and its events arrive again.
    Live(Running),
    /// It has ended. These runs (agent and number) were on record, and were reported as events.
    Over(Vec<(String, u32)>),
}

/// One way to run cells. Every call may be repeated without harm.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The kind of this backend.
    fn kind(&self) -> BackendKind;

    /// Prepares the host. Called once, before any other call, when all of the daemon's files are in place.
    ///
    /// # Errors
    /// If cells would see some of the daemon's own files, or a directory cannot be made.
    fn prepare(&self) -> Result<(), BackendError>;

    /// Finds out what this host supports.
    async fn probe(&self) -> Result<Capabilities, BackendError>;

    /// Makes the cell's home with the project in it, unless it exists. A home that agents have seen is never
    /// changed.
    async fn create(&self, spec: &CellSpec, source: &Source, brief: &Brief) -> Result<Created, BackendError>;

    /// The commit that a cell's home was made from; `None` if the home does not exist or is incomplete.
    async fn made_from(&self, cell: &CellId) -> Result<Option<String>, BackendError>;

    /// Starts the cell, unless it is running.
    async fn start(&self, spec: &CellSpec) -> Result<Running, BackendError>;

    /// Starts an agent in a running cell, unless that run was already started. Returns once the agent's program
    /// runs.
    async fn start_agent(&self, spec: &CellSpec, agent: AgentSpec) -> Result<(), BackendError>;

    /// Adds an entry to the cell's own records. Does nothing if the cell has no home any more.
    async fn deliver(&self, cell: &CellId, record: Record) -> Result<(), BackendError>;

    /// Ends one agent's processes.
    async fn stop_agent(&self, cell: &CellId, agent: &str) -> Result<(), BackendError>;

    /// Freezes or thaws every process.
    async fn freeze(&self, cell: &CellId, frozen: bool) -> Result<(), BackendError>;

    /// Freezes all processes, harvests the work and a snapshot, and thaws them. `run` must be larger in each call.
    async fn snapshot(&self, spec: &CellSpec, request: HarvestRequest, run: u32) -> Result<HandedWork, BackendError>;

    /// Ends all processes, and returns only when none is left. If `harvest` is given, the work is harvested first.
    async fn stop(&self, spec: &CellSpec, harvest: Option<HarvestRequest>) -> Result<StopReport, BackendError>;

    /// Moves the files of a stopped cell to the graveyard, where nothing runs in them any more.
    async fn retire(&self, cell: &CellId) -> Result<(), BackendError>;

    /// Moves the files of a retired cell back. Does nothing if they are already there.
    async fn revive_home(&self, cell: &CellId) -> Result<(), BackendError>;

    /// Reduces a retired cell to what the archive keeps.
    async fn archive(&self, cell: &CellId) -> Result<(), BackendError>;

    /// Ends all processes of the cell and removes all of its files.
    async fn destroy(&self, spec: &CellSpec) -> Result<(), BackendError>;

    /// Reconnects to a cell that should be running, after the daemon was restarted.
    async fn adopt(&self, cell: &CellId) -> Result<Adopted, BackendError>;

    /// Looks at a cell from outside, without asking its keeper.
    async fn look(&self, cell: &CellId) -> Seen;

    /// The last `bytes` bytes of an agent's log.
    async fn logs(&self, cell: &CellId, agent: &str, bytes: u64) -> Result<String, BackendError>;

    /// Reads a file that agents may have written, in a live or retired cell. `None` if it does not exist. No link
    /// is followed, and at most `most` bytes are read.
    async fn read_file(&self, cell: &CellId, path: &CellPath, most: u64) -> Result<Option<Vec<u8>>, BackendError>;

    /// Events of all cells. Each event goes to one listener, and waits until there is one.
    fn events(&self) -> BoxStream<'static, CellEvent>;
}

/// The backends of an installation, by kind.
#[derive(Clone, Default)]
pub struct Backends(BTreeMap<BackendKind, Arc<dyn Backend>>);

impl Backends {
    /// The backends that are built, for this host. Nothing is created on disk yet.
    ///
    /// # Errors
    /// If cells would see some of the daemon's own files.
    pub fn of_this_host(config: &Config, profiles: &Profiles, host: &Arc<Host>) -> Result<Self, BackendError> {
        Ok(Self::default().with(Arc::new(ProcessBackend::of(config, profiles.clone(), Arc::clone(host))?)))
    }

    /// Adds a backend, replacing another one of its kind.
    pub fn with(mut self, backend: Arc<dyn Backend>) -> Self {
        self.0.insert(backend.kind(), backend);
        self
    }

    /// The backend of this kind.
    ///
    /// # Errors
    /// If this kind is not built.
    pub fn get(&self, kind: BackendKind) -> Result<&Arc<dyn Backend>, BackendError> {
        self.0.get(&kind).ok_or(BackendError::NotBuilt(kind))
    }

    /// Prepares each backend; see [`Backend::prepare`].
    ///
    /// # Errors
    /// As for [`Backend::prepare`].
    pub fn prepare(&self) -> Result<(), BackendError> {
        self.0.values().try_for_each(|backend| backend.prepare())
    }

    /// Events of the cells of all backends.
    pub fn events(&self) -> BoxStream<'static, CellEvent> {
        futures::stream::select_all(self.0.values().map(|backend| backend.events())).boxed()
    }
}
