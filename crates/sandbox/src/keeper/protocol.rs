//! The messages between daemon and keeper: JSON, one object on each line.

use crate::egress;
use crate::sandbox::{Groups, LandlockPaths, ProcessLimits, ResourceLimits};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The address on which the egress proxy listens in a cell that has one.
pub const EGRESS_AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// Where a cell with a root of its own sees the objects of its project's mirror, read-only.
pub const OBJECTS_IN_CELL: &str = "/run/lazarus/objects";

/// The kind of sandbox that a launcher makes, before its cell is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxKind {
    /// Whether to make namespaces (`level_2`) or not (`level_1`, or sandboxes by bwrap).
    pub namespaces: bool,
    /// Whether `bwrap` makes a sandbox for each agent instead.
    pub bwrap: bool,
    /// Whether the cell stays in the host's network.
    pub host_network: bool,
    /// Whether agents are pinned to some processors, because no control group limits their processor time.
    pub pinned: bool,
}

/// What is made before the cell is known: the first line on the launcher's standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prewarmed {
    /// The kind of sandbox.
    pub sandbox: SandboxKind,
    /// Where the cell gets a control group.
    pub groups: Groups,
}

/// Everything else that the launcher needs, as one line on its standard input. The only secret in it is the token
/// of the cell's egress proxy, and it is never written to a file. Other secrets travel over the control socket when
/// an agent starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    /// The cell's name.
    pub cell: String,
    /// The cell's home on the host.
    pub home: PathBuf,
    /// The cell's run directory on the host.
    pub run_dir: PathBuf,
    /// The file of this program. Agents see it as `/run/lazarus/lazarus`.
    pub program: PathBuf,
    /// When running as root: the first of the two user ids that the cell gets. `None` otherwise.
    pub id_base: Option<u32>,
    /// The directory with the git objects that the clone borrows, shown read-only.
    pub objects: Option<PathBuf>,
    /// Host paths to show read-only, in addition to the usual ones.
    pub read_paths: Vec<PathBuf>,
    /// Paths inside the cell that are covered because they show something of the daemon's.
    #[serde(default)]
    pub hidden: Vec<PathBuf>,
    /// The path of `bwrap`, if that makes the sandbox.
    pub bwrap: Option<PathBuf>,
    /// Limits of each process.
    pub limits: ProcessLimits,
    /// Limits of all the cell's processes together.
    pub resources: ResourceLimits,
    /// Limits of all the cell's files together.
    pub room: DiskSpace,
    /// Limits of the files that a harvest makes.
    pub harvest_room: DiskSpace,
    /// Whether the file system enforces these limits by quota.
    pub quota: bool,
    /// Whether project and homes are in memory, in a tmpfs of exactly that size.
    pub in_memory: bool,
    /// Size of each agent's own `/tmp`, in bytes, if that is in memory.
    #[serde(default = "usual_tmp")]
    pub tmp: u64,
    /// Most bytes that are kept of each agent's log.
    pub log: u64,
    /// The egress proxy to start; `None` without one.
    pub egress: Option<egress::Spec>,
}

fn usual_tmp() -> u64 {
    256 << 20
}

/// How much disk space the files of a cell may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpace {
    /// Most bytes.
    pub bytes: u64,
    /// Most files and directories.
    pub files: u64,
}

/// What is written on the launcher's standard output: first, by the launcher, the keeper's pid on the host; then,
/// by the keeper, whether it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ready", rename_all = "snake_case")]
pub enum Ready {
    /// The launcher made the keeper.
    Launched {
        /// The keeper's pid.
        pid: i32,
    },
    /// The keeper listens.
    Listening {
        /// The isolation steps that were taken, in words.
        applied: Vec<String>,
    },
    /// A step failed; nothing runs.
    Failed {
        /// Which step failed, and why.
        why: String,
        /// Whether a later attempt may succeed without anybody changing anything.
        #[serde(default)]
        passing: bool,
    },
}

/// What `lazarus cell-enter` still has to do inside the sandbox that `bwrap` made.
#[derive(Debug, Serialize, Deserialize)]
pub struct Enter {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The paths that the program may use.
    pub paths: LandlockPaths,
    /// The kind of sandbox that it runs in.
    pub sandbox: SandboxKind,
    /// Whether it may trace its own processes.
    pub ptrace: bool,
}

/// Access of an agent to the project and to shared files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Read and write.
    Work,
    /// Read only.
    Observe,
}

/// An order to start one agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartAgent {
    /// The agent's name, which is also its home's.
    pub agent: String,
    /// The number of the run. A run that was already started is not started again.
    pub run: u32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The complete environment. It may hold secrets; see `Drop`.
    pub env: Vec<(String, String)>,
    /// A file to use as standard input, as the agent sees it.
    pub stdin: Option<PathBuf>,
    /// The working directory, as the agent sees it.
    pub cwd: PathBuf,
    /// Access to the project.
    pub view: View,
    /// The paths that it may use, as it sees them.
    pub paths: LandlockPaths,
    /// Whether it may trace its own processes. This works only in a PID namespace of its own, that is at `level_2`;
    /// elsewhere it has no effect.
    #[serde(default)]
    pub ptrace: bool,
}

impl std::fmt::Debug for StartAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold secrets, so it is not printed.
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

/// An order from the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Start an agent.
    Start(StartAgent),
    /// End one agent's processes.
    StopAgent {
        /// The agent's name.
        agent: String,
    },
    /// Send SIGTERM to every process; the keeper stays.
    Terminate,
    /// End all processes, then the keeper.
    Stop {
        /// How long processes may take to end by themselves, in milliseconds.
        grace_ms: u64,
    },
    /// Freeze every process.
    Freeze,
    /// Let frozen processes continue.
    Thaw,
}

/// The state of an agent's run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// The agent's name.
    pub agent: String,
    /// The number of the run.
    pub run: u32,
    /// Whether it is running.
    pub running: bool,
    /// Exit status, if the program exited.
    pub code: Option<i32>,
    /// Signal number, if a signal ended it.
    pub signal: Option<i32>,
    /// Anything else that is known about its end, such as a limit that it hit.
    pub note: Option<String>,
}

/// A message from the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first message on every connection: everything that the keeper knows.
    Hello {
        /// The cell's name.
        cell: String,
        /// Whether its agents are in namespaces of their own.
        // The name in JSON is the old one, because keepers of earlier versions live on across an upgrade.
        #[serde(rename = "walled")]
        sandboxed: bool,
        /// Isolation steps that were taken, in words.
        applied: Vec<String>,
        /// The last run of each agent.
        agents: Vec<AgentState>,
    },
    /// An agent's program runs: its `exec` succeeded.
    Started(AgentState),
    /// An agent ended, or could not be started.
    Ended(AgentState),
    /// All processes were frozen or thawed.
    Frozen {
        /// Whether they are frozen now.
        frozen: bool,
    },
}

/// `exit.json`: the final state, written with fsync before the keeper ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The cell's name.
    pub cell: String,
    /// The last run of each agent.
    pub agents: Vec<AgentState>,
    /// Whether no process was left when it was written.
    pub empty: bool,
}
