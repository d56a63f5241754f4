//! How a cell runs. A backend starts, orders and ends cells, and reports
//! facts; it knows nothing of missions and comments.

mod launcher;
mod process;

use process::line_of;
pub use process::{ProcessBackend, look};

use crate::cell::{BackendKind, CellId, Exit, Isolation, Network};
use crate::egress::{self, HostName, Rules};
use crate::keeper::{LimitsMet, Room, StartAgent};
use crate::sandbox::{Budget, HostReport};
use crate::workspace::{HandedOut, Held};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why a backend did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
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
}

/// What a cell is to be started as.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The cell.
    pub cell: CellId,
    /// Its home.
    pub home: PathBuf,
    /// Its slot in the registry, from which its ids are made.
    pub slot: i64,
    /// The weakest isolation that is acceptable.
    pub isolation: Isolation,
    /// What it may reach.
    pub network: Network,
    /// The objects that its clone borrows, on the host.
    pub objects: Option<PathBuf>,
    /// Paths of the system to show besides the usual.
    pub read_paths: Vec<PathBuf>,
    /// Which hosts, where it is to reach named ones.
    pub egress: Egress,
    /// Open files a process.
    pub open_files: u64,
    /// What all its processes may use together.
    pub budget: Budget,
    /// What its files may use together.
    pub room: Room,
    /// Whether project and homes are to be in memory.
    pub in_memory: bool,
    /// Each agent's own `/tmp`, in bytes, where that is in memory.
    pub tmp: u64,
    /// What reading the work may use beside that.
    pub harvest_room: Room,
    /// Most bytes of each agent's log.
    pub log: u64,
}

/// The named hosts of a cell.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// What may be reached.
    pub rules: Rules,
    /// Addresses of names that the system's resolver is not asked for.
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
}

/// What a cell used, known at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Limits that it met, and what came of it.
    pub met: LimitsMet,
    /// What went through its proxy and what was refused, where it had one.
    pub egress: Option<egress::Report>,
}

/// What a cell left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// The work, where it was wanted: what was said of it, and the directory
    /// that it is in, which agents may have written.
    pub work: Option<(HandedOut, PathBuf)>,
    /// What it used.
    pub usage: Usage,
    /// The proxy's refusals: lines of JSON.
    pub refusals: Vec<u8>,
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
pub enum Fact {
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
    /// It lives, and facts of it arrive again.
    Live(Running),
    /// It is over; these runs were on record and reported as facts.
    Over(Vec<(String, u32)>),
}

/// What work is wanted out of a cell at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkWanted {
    /// The commit that its clone was made from.
    pub base: String,
    /// Largest pack, in bytes.
    pub pack_max: u64,
    /// Most branches besides the one that is checked out.
    pub branches_max: usize,
    /// Whether what was not committed becomes a commit.
    pub commit_rest: bool,
    /// Lines for the end of commits that are made of the work.
    pub trailers: String,
    /// Whether a snapshot of everything is wanted beside it.
    pub snapshot: bool,
}

/// What was harvested at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Harvest {
    /// Commits since the clone: hash, author, subject.
    pub commits: Vec<(String, String, String)>,
    /// How many commits there are, if more than are listed.
    pub commit_count: u64,
    /// Files touched: lines added, lines removed, path.
    pub files: Vec<(u64, u64, String)>,
    /// How many files, if more than are listed.
    pub file_count: u64,
    /// Files that were changed and not committed.
    pub uncommitted: u64,
    /// Whether those became a commit, the last.
    pub rest: bool,
    /// The commit of the snapshot, where one was wanted.
    pub snapshot: Option<String>,
    /// The newest commit of the mission's own branch, where there is anything.
    pub tip: Option<String>,
    /// The one below it, where `tip` is of what nobody committed: it can leave by
    /// itself.
    pub committed: Option<String>,
    /// What of the work may not leave, by its commit, and why.
    pub held: Vec<Held>,
    /// How the git was confined that read it, in words.
    pub read_by: Option<String>,
    /// Other branches with work of their own: name, commit.
    pub branches: Vec<(String, String)>,
    /// What else people should know of it, in words.
    pub notes: Vec<String>,
    /// Why it is not known, if so.
    pub unknown: Option<String>,
}

impl Harvest {
    /// Whether anything was committed or changed.
    pub fn has_work(&self) -> bool {
        self.commit_count > 0
            || self.file_count > 0
            || self.uncommitted > 0
            || self.tip.is_some()
            || self.committed.is_some()
            || !self.branches.is_empty()
            || !self.held.is_empty()
    }
}

/// One way to run cells. Every call may be made twice without harm.
pub trait Backend: Send + Sync {
    /// Which.
    fn kind(&self) -> BackendKind;
    /// What this host can give.
    fn probe(&self) -> BoxFuture<'_, Result<HostReport, BackendError>>;
    /// Starts the cell, unless it runs.
    fn start(&self, plan: Plan) -> BoxFuture<'_, Result<Running, BackendError>>;
    /// Starts an agent in a cell that runs, unless that run was started.
    /// Returns once its program runs.
    fn start_agent(&self, cell: CellId, start: StartAgent) -> BoxFuture<'_, Result<(), BackendError>>;
    /// Ends one agent's processes.
    fn stop_agent(&self, cell: CellId, agent: String) -> BoxFuture<'_, Result<(), BackendError>>;
    /// Freezes or thaws every process.
    fn freeze(&self, cell: CellId, frozen: bool) -> BoxFuture<'_, Result<(), BackendError>>;
    /// Freezes every process, has a snapshot and the work handed out, thaws. `run`
    /// is larger each time.
    fn snapshot(
        &self,
        plan: Plan,
        wanted: WorkWanted,
        run: u32,
    ) -> BoxFuture<'_, Result<(HandedOut, PathBuf), BackendError>>;
    /// Ends every process and proves it. Where work is wanted, it is handed out
    /// before.
    fn stop(&self, plan: Plan, wanted: Option<WorkWanted>) -> BoxFuture<'_, Result<Left, BackendError>>;
    /// Looks for a cell that ought to run.
    fn adopt(&self, cell: CellId) -> BoxFuture<'_, Result<Adopted, BackendError>>;
    /// Looks at a cell from outside.
    fn look(&self, cell: CellId) -> BoxFuture<'_, Seen>;
    /// The last lines of an agent's log.
    fn log(&self, cell: CellId, agent: String, bytes: u64) -> BoxFuture<'_, Result<String, BackendError>>;
}
