//! The keeper: the small process, one for each cell, that owns the cell's processes and outlives the daemon.
//! Containerd calls its counterpart a shim.
//!
//! How a cell starts: the daemon runs `lazarus cell-launch RUN_ROOT` (with a plain `posix_spawn`, so the daemon's
//! size does not matter) and keeps one such process on standby. The [`launch`]er is single-threaded. It makes a run
//! directory, opens what only the host's user can open, and then makes the namespaces with `CLONE_PARENT`, so that
//! the keeper becomes the daemon's own child. When the launcher is told which cell it is for, it renames the run
//! directory, writes the id maps and ends. The keeper, which is the first process of the cell's PID namespace,
//! builds the cell's root, drops the host's root, and listens on its control socket. Each agent gets a PID, mount
//! and IPC namespace inside the cell, so agents of one cell see neither each other's processes nor homes.
//!
//! After the start there is no pipe between daemon and keeper, and no signal when the daemon dies: logs are files,
//! and events wait in the keeper until somebody connects. The exit record, written with fsync, says how everything
//! ended.
//!
//! On a host without namespaces (`level_1`) the same keeper runs without them, as a subreaper; nothing else
//! differs.

#![allow(unsafe_code, reason = "fork, exec and signals of processes that this program owns")]

mod agent;
mod in_memory;
mod init;
mod launch;
mod log;
mod protocol;
mod watch;

pub use agent::{AGENT_ID, NOT_IN_CELL, enter};
pub use launch::{EGRESS_PID, GROUP, KEEPER_PID, LOCK, clear_prewarmed, keeper_lives, launch};
pub use log::log_tail;
pub use protocol::{
    AgentState, DiskSpace, Event, ExitRecord, LaunchSpec, OBJECTS_IN_CELL, Order, Prewarmed, Ready, SandboxKind,
    StartAgent, View,
};
pub use watch::{HARVESTER, LIMITS_HIT, LimitsHit};
