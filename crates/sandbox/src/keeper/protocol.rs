//! What daemon and keeper say to each other: JSON, one object a line.

use crate::egress;
use crate::sandbox::{Groups, LandlockPaths, ProcessLimits, ResourceLimits};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where the egress proxy listens in a cell that has one.
pub const EGRESS_AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// Where a walled cell sees the objects of its project's mirror, read-only.
pub const OBJECTS_IN_CELL: &str = "/run/lazarus/objects";

/// Which walls a launcher is to make, before it is known for which cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxKind {
    /// Whether to make namespaces (`level_2`) or not (`level_1`, or bwrap's).
    pub namespaces: bool,
    /// Whether each agent gets walls by `bwrap` instead.
    pub bwrap: bool,
    /// Whether the cell stays in the host's network.
    pub host_network: bool,
    /// Whether agents are kept to some processors, because no control group
    /// limits their time.
    pub pinned: bool,
}

/// What is made before it is known for which cell: the first line on the
/// launcher's standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prewarmed {
    /// The walls.
    pub sandbox: SandboxKind,
    /// Where the cell gets a control group.
    pub groups: Groups,
}

/// Everything else that the launcher has to know, as one line on its standard input. Of
/// secrets it holds the token of the cell's egress proxy alone, and never lies
/// in a file; others travel over the control socket at an agent's start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    /// The cell's name.
    pub cell: String,
    /// Its home on the host.
    pub home: PathBuf,
    /// Its run directory on the host.
    pub run_dir: PathBuf,
    /// This program's file, shown to agents as `/run/lazarus/lazarus`.
    pub program: PathBuf,
    /// As root: the first of the two ids that the cell gets.
    pub id_base: Option<u32>,
    /// The objects that the clone borrows, shown read-only.
    pub objects: Option<PathBuf>,
    /// Paths of the system to show read-only, besides the usual.
    pub read_paths: Vec<PathBuf>,
    /// Places, as the cell has them, that are covered because something of ours lies there.
    #[serde(default)]
    pub hidden: Vec<PathBuf>,
    /// The file of `bwrap`, where that makes the walls.
    pub bwrap: Option<PathBuf>,
    /// Limits on each process.
    pub limits: ProcessLimits,
    /// What all its processes may use together.
    pub resources: ResourceLimits,
    /// What its files may use together.
    pub room: DiskSpace,
    /// What reading the work may use of its own.
    pub harvest_room: DiskSpace,
    /// Whether the file system sees to that.
    pub quota: bool,
    /// Whether project and homes are in memory, in a file system of that size.
    pub in_memory: bool,
    /// Size of each agent's own `/tmp`, in bytes, where that is in memory.
    #[serde(default = "usual_tmp")]
    pub tmp: u64,
    /// Most bytes of each agent's log that are kept.
    pub log: u64,
    /// The way out to named hosts, where it has one.
    pub egress: Option<egress::Spec>,
}

fn usual_tmp() -> u64 {
    256 << 20
}

/// What the files of a cell may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpace {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
}

/// The first line that the launcher writes: the keeper's pid on the host.
/// The second, by the keeper: whether it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ready", rename_all = "snake_case")]
pub enum Ready {
    /// The launcher made the keeper.
    Launched {
        /// Its pid.
        pid: i32,
    },
    /// The keeper listens, and these steps were taken.
    Listening {
        /// Steps, in words.
        applied: Vec<String>,
    },
    /// A step failed; nothing runs.
    Failed {
        /// Which, and why.
        why: String,
        /// Whether it may well go later, with nobody changing anything.
        #[serde(default)]
        passing: bool,
    },
}

/// What is still to be done once `bwrap` made an agent's walls, by
/// `lazarus cell-enter` in them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Enter {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// What it may touch.
    pub paths: LandlockPaths,
    /// The walls that it is in.
    pub sandbox: SandboxKind,
    /// Whether it may trace processes of its own.
    pub ptrace: bool,
}

/// What an agent sees of the project and of shared files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Reads and writes.
    Work,
    /// Reads.
    Observe,
}

/// How to start one agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartAgent {
    /// Its name: also its home's.
    pub agent: String,
    /// The run's number; one that was started already is not started again.
    pub run: u32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its whole environment. May hold secrets; see `Drop`.
    pub env: Vec<(String, String)>,
    /// A file to read as standard input, as the agent sees it.
    pub stdin: Option<PathBuf>,
    /// Where it starts, as the agent sees it.
    pub cwd: PathBuf,
    /// What it sees.
    pub view: View,
    /// What it may touch, as it sees it.
    pub paths: LandlockPaths,
    /// Whether it may trace processes of its own. Only where it has a PID namespace of its own, which it has at
    /// `level_2`; elsewhere this does nothing.
    #[serde(default)]
    pub ptrace: bool,
}

impl std::fmt::Debug for StartAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold secrets.
        f.debug_struct("StartAgent").field("agent", &self.agent).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Drop for StartAgent {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        for (_, value) in &mut self.env {
            value.zeroize();
        }
    }
}

/// What the daemon asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Start an agent.
    Start(StartAgent),
    /// End one agent's processes.
    StopAgent {
        /// Whose.
        agent: String,
    },
    /// Ask every process to end; the keeper stays.
    Terminate,
    /// End everything, then the keeper.
    Stop {
        /// How long processes may take to end by themselves, in milliseconds.
        grace_ms: u64,
    },
    /// Stop every process where it stands.
    Freeze,
    /// Let them go on.
    Thaw,
}

/// Where an agent's run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// Its name.
    pub agent: String,
    /// The run's number.
    pub run: u32,
    /// Whether it runs.
    pub running: bool,
    /// Exit status, where it exited.
    pub code: Option<i32>,
    /// Signal, where one ended it.
    pub signal: Option<i32>,
    /// What else is known.
    pub note: Option<String>,
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first thing on every connection: everything it knows.
    Hello {
        /// The cell.
        cell: String,
        /// Whether its agents are in namespaces of their own.
        // Keepers of earlier versions live on across an upgrade.
        #[serde(rename = "walled")]
        sandboxed: bool,
        /// Steps of isolation that were taken, in words.
        applied: Vec<String>,
        /// Every run so far, the last of each agent.
        agents: Vec<AgentState>,
    },
    /// An agent's program runs (its `exec` succeeded).
    Started(AgentState),
    /// An agent ended, or could not be started.
    Ended(AgentState),
    /// Everything was frozen or thawed.
    Frozen {
        /// Whether it is frozen now.
        frozen: bool,
    },
}

/// `exit.json`: what was there at the end, written with fsync before the
/// keeper ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The cell.
    pub cell: String,
    /// Every agent's last run.
    pub agents: Vec<AgentState>,
    /// Whether nothing was left when it was written.
    pub empty: bool,
}
