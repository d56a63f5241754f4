//! Isolation steps, one function for each, in the order in which the keeper takes them; and the probe that finds
//! out what this host supports.
//!
//! The order matters: trees are picked while the process can still reach the host's paths, the new root is built
//! from them, the old root is dropped, and only then does any code run that we did not write.

#![allow(unsafe_code, reason = "system calls that no safe wrapper offers; one a block, each with its reason")]

mod bwrap;
mod cgroup;
mod confine;
mod filter;
mod mounts;
mod peer;
mod probe;
pub mod program;
pub mod quota;
mod sight;
mod steps;

pub use bwrap::{arguments as bwrap_arguments, in_memory};
pub use cgroup::{Group, Groups, ResourceLimits, settle as settle_groups};
pub use confine::{Confined, Confinement, NOT_CONFINED, TIMED_OUT, confined};
pub use filter::{Filter, Sockets, apply as apply_filter, compile as compile_filter};
pub use mounts::{
    System, SystemMark, Tree, attach, build_root, devices, hide, hide_proc, mount_proc, mount_tmpfs, mount_tmpfs_for,
    name_home, pick, pick_system, pivot, private, read_only, shown_to_every_cell,
};
pub use peer::{Doorkeeper, Stranger};
pub use probe::{FIRST_ID, HostReport, Missing, probe};
pub use sight::{Hidden, InSight, Own, Shown, Sight, What, without};
pub use steps::{
    LandlockPaths, ProcessLimits, StepError, become_user, clone_process, close_from, default_broken_pipe,
    drop_capabilities, drop_capability_bounds, few_heaps, is_passing, keep_to_processors, loopback_up,
    new_cgroup_namespace, no_new_privileges, not_dumpable, restrict_landlock, set_hostname, set_limits, subreaper,
    write_id_maps,
};
