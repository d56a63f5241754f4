//! The keeper: the small program, one a cell, that owns the cell's processes
//! and outlives the daemon.
//!
//! How a cell starts: the daemon runs `lazarus cell-launch RUN_ROOT` (a plain
//! `posix_spawn`, so it does not matter how large the daemon is) and keeps one
//! such process waiting. The [`launch`]er, single-threaded, makes a run directory
//! and opens what only the host's user can open, then the namespaces with
//! `CLONE_PARENT`, so that the keeper is the daemon's waitable child; when it
//! hears of a cell it gives the run directory that cell's name, writes the id
//! maps and ends. The keeper, the first process of the cell's PID namespace,
//! builds the cell's root, drops the host's, and then listens on its control
//! socket. Each agent gets a PID, mount and IPC namespace inside of that, so
//! agents of one cell see neither each other's processes nor homes.
//!
//! There is no pipe between daemon and keeper after the start and no signal
//! on the daemon's death: logs are files, events wait in the keeper until
//! somebody connects. What ended is in the exit record, written with fsync.
//!
//! On a host without namespaces (`level_1`) the same keeper runs without them,
//! as a subreaper; nothing else differs.

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
