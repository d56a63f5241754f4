//! How a cell runs. A backend makes, starts and ends cells, and reports what happened to them; it knows nothing
//! of missions and comments.
//!
//! This is the seam: the engine holds [`Backends`] and knows no path of a host, no user id and no socket. What a cell is
//! to be is a [`CellSpec`], how an agent is started an [`AgentSpec`]; what there is comes back as [`Running`], found
//! by doing. [`ProcessBackend`] is the kind that is built.

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

/// The kinds that are built: what a proposal may ask for.
pub const BUILT: [BackendKind; 1] = [BackendKind::Process];

/// Why a backend did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no such backend in this installation.
    #[error("the `{0}` backend is not built yet")]
    NotBuilt(BackendKind),
    /// This kind of backend cannot do that.
    #[error("the `{backend}` backend cannot {what}: {why}")]
    Unsupported {
        /// The backend.
        backend: BackendKind,
        /// What was asked, as an infinitive.
        what: &'static str,
        /// Why it cannot.
        why: &'static str,
    },
    /// Cells would see something of ours; each line says what, and what to do.
    #[error("cells would see what no cell may see, so nothing is started:\n  {0}")]
    InSight(String),
    /// The asked isolation cannot be had here. Nothing weaker is started.
    #[error("isolation `{asked}` cannot be had on this host: {why}")]
    Isolation {
        /// What was asked.
        asked: Isolation,
        /// What is missing, and what to do.
        why: String,
    },
    /// The cell could not be started.
    #[error("the cell could not be started: {0}")]
    Start(String),
    /// The cell could not be started, for a reason that may well pass by itself: a full disk, say.
    #[error("the cell could not be started just now: {0}")]
    Passing(String),
    /// The project could not be cloned.
    #[error(transparent)]
    Source(#[from] GitError),
    /// The cell's files could not be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The cell's keeper is gone.
    #[error("the cell's keeper is not there any more")]
    Gone,
    /// A file or socket of the cell could not be used.
    #[error("{tried}: {source}")]
    Io {
        /// What was tried.
        tried: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl BackendError {
    pub(crate) fn io(tried: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let tried = tried.into();
        move |source| Self::Io { tried, source }
    }

    /// Whether it helps to try again.
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

/// What a cell is to be, on whatever host: no path of one is in it.
#[derive(Debug, Clone)]
pub struct CellSpec {
    /// The cell.
    pub cell: CellId,
    /// Its number among the cells of this installation that are not destroyed: no two have the same at a time.
    pub slot: i64,
    /// The number of its project.
    pub project: i64,
    /// The profiles of the agents that work in it, by name: what they need to be shown is the backend's to know.
    pub agents: Vec<String>,
    /// The weakest isolation that is acceptable.
    pub isolation: Isolation,
    /// What it may reach.
    pub network: Network,
    /// Which hosts, where it is to reach named ones.
    pub egress: Egress,
    /// What all its processes and files may use together.
    pub limits: Limits,
    /// Whether project and homes are to be in memory.
    pub in_memory: bool,
    /// Largest pack of its work, in bytes: reading the work needs room beside the cell's own.
    pub pack_max: u64,
}

/// The named hosts of a cell.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// What may be reached.
    pub rules: Rules,
    /// Addresses of names that the system's resolver is not asked for.
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
}

/// What the agents of a cell are told, and what the cell says of itself.
#[derive(Debug, Clone)]
pub struct Brief {
    /// The text that was approved.
    pub text: ApprovedText,
    /// The cell's own record, to which its backend adds the commit.
    pub record: serde_json::Value,
}

/// A cell's home, made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created {
    /// The commit that was cloned.
    pub commit: String,
    /// Commits that the branch has beyond that one; 0 where the home was there.
    pub behind: u64,
    /// Branches that could not be fetched, and are left out.
    pub left_out: Vec<LeftOut>,
    /// Configuration for agents that lies in the project: said, never loaded by the host's side.
    pub agent_config_in_repo: Vec<String>,
}

/// What an agent may do to the project and to shared files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    Work,
    /// Read.
    Observe,
}

/// How one agent is started. Places in its command are symbolic.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// Its name: its profile's.
    pub agent: String,
    /// The run's number; one that was started already is not started again.
    pub run: u32,
    /// Program, arguments and environment.
    pub command: AgentCommand,
    /// What it is told, as text.
    pub prompt: String,
    /// What it may do.
    pub access: Access,
    /// Whether it gets a work tree of its own, where it works.
    pub worktree: bool,
    /// Whether it may trace processes of its own, where that reaches no others.
    pub ptrace: bool,
}

/// Something for a cell's own records, which its agents read and do not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// What the cell was started as: the whole text.
    SpawnLog(String),
    /// A decision: one line of JSON. A line that is there is not written again.
    Decision(String),
    /// A message for one agent: one line of JSON. A line that is there is not written again.
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
    /// The path with these names. Nothing where one is not the plain name of a file or directory.
    pub fn new(names: &[&str]) -> Option<Self> {
        let plain = |name: &&str| !name.is_empty() && !matches!(*name, "." | "..") && !name.contains(['/', '\0']);
        (!names.is_empty() && names.iter().all(plain)).then(|| Self(names.iter().map(|n| (*n).to_owned()).collect()))
    }

    /// The names, outermost first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What a backend can give on its host, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The strongest isolation that it gives.
    pub isolation: Isolation,
    /// The networks that a cell may be given.
    pub networks: Vec<Network>,
    /// What enforces the limits of a cell as a whole; empty where only each process is limited.
    pub limits: Vec<String>,
    /// What is missing for more, and what to do about it.
    pub missing: Vec<String>,
}

/// What a cell used, known at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Limits that it met, and what came of it.
    pub met: LimitsHit,
    /// What went through its proxy and what was refused, where it had one.
    pub egress: Option<EgressReport>,
}

/// What a cell left.
#[derive(Debug, Default)]
pub struct StopReport {
    /// The work, where it was wanted and there was any place to look for it.
    pub work: Option<HandedWork>,
    /// What it used.
    pub usage: Usage,
}

/// What is known of a cell that runs: found by doing, never what was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The isolation that it has.
    pub isolation: Option<Isolation>,
    /// Steps that were taken, in words.
    pub applied: Vec<String>,
    /// What is missing for more, in words.
    pub missing: Vec<String>,
    /// The keeper's pid on this host.
    pub pid: Option<i32>,
}

/// What is to be seen of a cell now, from outside and without asking it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether its keeper lives, and with it everything in the cell.
    pub lives: bool,
    /// The keeper's pid on this host, while it lives.
    pub pid: Option<i32>,
}

/// Something that happened to a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellEvent {
    /// An agent's run ended.
    AgentEnded {
        /// The cell.
        cell: CellId,
        /// The agent.
        agent: String,
        /// The run's number.
        run: u32,
        /// How. Whether it counts as success is for the profile to say.
        exit: Exit,
    },
}

/// What was found of a cell that ought to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It lives, and events of it arrive again.
    Live(Running),
    /// It is over; these runs were on record and reported as events.
    Over(Vec<(String, u32)>),
}

/// One way to run cells. Every call may be made twice without harm.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Which.
    fn kind(&self) -> BackendKind;

    /// Gets ready on its host: once, before anything else, with everything of ours in its place.
    ///
    /// # Errors
    /// Where cells would see something of ours, or a place cannot be made.
    fn prepare(&self) -> Result<(), BackendError>;

    /// What its host can give.
    async fn probe(&self) -> Result<Capabilities, BackendError>;

    /// Makes the cell's home with the project in it, unless it is made. A home that agents have seen stays as it is.
    async fn create(&self, spec: &CellSpec, source: &Source, brief: &Brief) -> Result<Created, BackendError>;

    /// The commit that a cell's home was made from; nothing where it is not made, or not whole.
    async fn made_from(&self, cell: &CellId) -> Result<Option<String>, BackendError>;

    /// Starts the cell, unless it runs.
    async fn start(&self, spec: &CellSpec) -> Result<Running, BackendError>;

    /// Starts an agent in a cell that runs, unless that run was started.
    /// Returns once its program runs.
    async fn start_agent(&self, spec: &CellSpec, agent: AgentSpec) -> Result<(), BackendError>;

    /// Adds to the cell's own records. Nothing where it has no home any more.
    async fn deliver(&self, cell: &CellId, record: Record) -> Result<(), BackendError>;

    /// Ends one agent's processes.
    async fn stop_agent(&self, cell: &CellId, agent: &str) -> Result<(), BackendError>;

    /// Freezes or thaws every process.
    async fn freeze(&self, cell: &CellId, frozen: bool) -> Result<(), BackendError>;

    /// Freezes every process, has a snapshot and the work handed out, thaws. `run`
    /// is larger each time.
    async fn snapshot(&self, spec: &CellSpec, request: HarvestRequest, run: u32) -> Result<HandedWork, BackendError>;

    /// Ends every process and proves it. Where work is wanted, it is handed out
    /// before.
    async fn stop(&self, spec: &CellSpec, harvest: Option<HarvestRequest>) -> Result<StopReport, BackendError>;

    /// Puts the files of a cell that was stopped where nothing runs in them any more.
    async fn retire(&self, cell: &CellId) -> Result<(), BackendError>;

    /// Brings the files of a retired cell back. Nothing where they are there.
    async fn revive_home(&self, cell: &CellId) -> Result<(), BackendError>;

    /// Reduces a retired cell to what the archive keeps.
    async fn archive(&self, cell: &CellId) -> Result<(), BackendError>;

    /// Ends every process of the cell and removes everything of it.
    async fn destroy(&self, spec: &CellSpec) -> Result<(), BackendError>;

    /// Looks for a cell that ought to run.
    async fn adopt(&self, cell: &CellId) -> Result<Adopted, BackendError>;

    /// Looks at a cell from outside.
    async fn look(&self, cell: &CellId) -> Seen;

    /// The last `bytes` of an agent's log.
    async fn logs(&self, cell: &CellId, agent: &str, bytes: u64) -> Result<String, BackendError>;

    /// Reads a file of a cell that agents may have made, of at most `most` bytes: live or retired. No link is
    /// followed. Nothing where it is not there.
    async fn read_file(&self, cell: &CellId, path: &CellPath, most: u64) -> Result<Option<Vec<u8>>, BackendError>;

    /// What happens to cells. Each event goes to one listener, and waits until there is one.
    fn events(&self) -> BoxStream<'static, CellEvent>;
}

/// The backends of an installation, by kind.
#[derive(Clone, Default)]
pub struct Backends(BTreeMap<BackendKind, Arc<dyn Backend>>);

impl Backends {
    /// Those that are built, on this host. Nothing is made yet.
    ///
    /// # Errors
    /// Where cells would see something of ours.
    pub fn of_this_host(config: &Config, profiles: &Profiles, host: &Arc<Host>) -> Result<Self, BackendError> {
        Ok(Self::default().with(Arc::new(ProcessBackend::of(config, profiles.clone(), Arc::clone(host))?)))
    }

    /// The same and one more, in the place of another of its kind.
    pub fn with(mut self, backend: Arc<dyn Backend>) -> Self {
        self.0.insert(backend.kind(), backend);
        self
    }

    /// The backend of this kind.
    ///
    /// # Errors
    /// Where it is not built.
    pub fn get(&self, kind: BackendKind) -> Result<&Arc<dyn Backend>, BackendError> {
        self.0.get(&kind).ok_or(BackendError::NotBuilt(kind))
    }

    /// Has each get ready; see [`Backend::prepare`].
    ///
    /// # Errors
    /// As there.
    pub fn prepare(&self) -> Result<(), BackendError> {
        self.0.values().try_for_each(|backend| backend.prepare())
    }

    /// What happens to the cells of all of them.
    pub fn events(&self) -> BoxStream<'static, CellEvent> {
        futures::stream::select_all(self.0.values().map(|backend| backend.events())).boxed()
    }
}
