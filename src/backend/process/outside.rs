//! A keeper as it is seen from outside, by its lock and its pid, with nobody asking it.

use crate::backend::Seen;
use crate::cell::CellId;
use crate::keeper::{KEEPER_PID, LOCK, keeper_lives};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Waits until the keeper of a run directory is gone: it holds a lock as long
/// as it lives, in whatever way it ends.
pub(super) fn wait_for_end(run_dir: &Path) {
    if let Ok(lock) = std::fs::File::open(run_dir.join(LOCK)) {
        let _ = rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared);
    }
}

/// Kills a keeper or a proxy that does not end, but no stranger that got its
/// number: the descriptor is taken first, then the lock says whether it lives.
pub(super) fn kill_locked(pid_file: &Path, lives: impl Fn() -> bool) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(pid) = std::fs::read_to_string(pid_file).ok().and_then(|t| t.trim().parse().ok()).and_then(Pid::from_raw)
    else {
        return;
    };
    let Ok(fd): Result<OwnedFd, _> = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if lives() {
        let _ = pidfd_send_signal(&fd, Signal::KILL);
    }
}

/// What is to be seen of a cell whose run directory lies below `run_root`, with
/// a daemon or without one. Blocks for a file or two.
pub fn look(run_root: &Path, cell: &CellId) -> Seen {
    let run_dir = run_root.join(cell.as_str());
    let lives = keeper_lives(&run_dir);
    Seen { lives, pid: if lives { pid_of(&run_dir) } else { None } }
}

/// The pid that the keeper of a run directory has or had.
pub(super) fn pid_of(run_dir: &Path) -> Option<i32> {
    std::fs::read_to_string(run_dir.join(KEEPER_PID)).ok()?.trim().parse().ok()
}
