//! A keeper as seen from outside: by its lock and its pid, without asking it.

use crate::backend::Seen;
use crate::cell::CellId;
use crate::keeper::{KEEPER_PID, LOCK, keeper_lives};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Waits until the keeper of a run directory has ended: it holds a lock while it lives, however it ends.
pub(super) fn wait_for_end(run_dir: &Path) {
    if let Ok(lock) = std::fs::File::open(run_dir.join(LOCK)) {
        let _ = rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared);
    }
}

/// Kills a keeper or a proxy that does not end. It cannot hit another process that reused the pid: the pidfd is
/// opened first, and then the lock says whether the process is still alive.
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

/// Looks at a cell whose run directory lies below `run_root`, whether or not a daemon runs. Blocks while it reads
/// one or two files.
pub fn look(run_root: &Path, cell: &CellId) -> Seen {
    let run_dir = run_root.join(cell.as_str());
    let lives = keeper_lives(&run_dir);
    Seen { lives, pid: if lives { pid_of(&run_dir) } else { None } }
}

/// The pid of a run directory's keeper, which may have ended.
pub(super) fn pid_of(run_dir: &Path) -> Option<i32> {
    std::fs::read_to_string(run_dir.join(KEEPER_PID)).ok()?.trim().parse().ok()
}
