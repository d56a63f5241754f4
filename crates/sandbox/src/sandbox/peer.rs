//! Checks who connects to one of the daemon's sockets, by what the kernel says.
//!
//! File permissions already keep cells away from these sockets. This is a second check that does not rely on them:
//! an agent of an ordinary user has that user's id, and a path may be visible by mistake.
//!
//! What distinguishes a process of a cell from an operator's:
//!
//! - At `level_2` it is in a PID namespace below the daemon's, which a process can never leave. The peer's pidfd
//!   (`SO_PEERPIDFD`, Linux 6.5) always refers to that process and shows this. On older kernels its pid does, which
//!   in theory could have been reused by then.
//! - At `level_1` it has the daemon's namespaces and user. But it runs under `no_new_privs` and one more system
//!   call filter than the daemon, and it cannot drop either, not even by `exec`, `fork` or the end of its parent.
//!
//! Whoever works in a container, in a PID namespace of their own (`unshare --pid`), or in a sandbox that sets both
//! of the latter, cannot be told from an agent and is refused too.

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::Pid;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The user id that the kernel reports for a user who does not exist in the reader's user namespace (proc(5),
/// `/proc/sys/kernel/overflowuid`).
const NOBODY_HERE: u32 = 65534;
/// Least time between two log lines about refused peers.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Why a peer is refused.
#[derive(Debug, thiserror::Error)]
pub enum Stranger {
    /// Another user, with that id.
    #[error("user {0}, who is neither the daemon's user nor root")]
    User(u32),
    /// A process in a PID namespace other than the daemon's.
    #[error(
        "a process in a PID namespace that is not the daemon's, as those of cells and containers are; give the command in an ordinary shell, where the daemon runs"
    )]
    Namespace,
    /// A process with fewer rights than the daemon, as agents have.
    #[error(
        "a process under no_new_privs and a system call filter, as agents are; give the command in a shell without a sandbox"
    )]
    Confined,
    /// A process that ended before it could be checked.
    #[error("a process that ended before it could be looked at")]
    Gone,
    /// The kernel does not say who it is.
    #[error("a process of which the kernel does not say who it is ({0})")]
    Unknown(#[from] io::Error),
}

/// Restrictions of a process that it can never lift again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Confinement {
    no_new_privileges: bool,
    filtered: bool,
    /// The number of filters; `None` before Linux 5.9, which does not report it.
    filters: Option<u64>,
}

impl Confinement {
    /// Reads them from `/proc/PID/status`. A kernel without filters reports none.
    fn of(status: &str) -> Self {
        let number = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
        Self {
            no_new_privileges: number("NoNewPrivs:") == Some(1),
            filtered: number("Seccomp:") == Some(2),
            filters: number("Seccomp_filters:"),
        }
    }

    /// Whether a process with these restrictions may be an agent of a daemon that has those.
    fn is_of_an_agent(self, daemon: Self) -> bool {
        let more = match (self.filters, daemon.filters) {
            (Some(own), Some(daemons)) => own > daemons,
            _ => !(daemon.no_new_privileges && daemon.filtered),
        };
        self.no_new_privileges && self.filtered && more
    }
}

/// Checks the peers of a socket.
#[derive(Debug)]
pub struct Doorkeeper {
    /// The `fdinfo` directory of this process, in the daemon's `/proc`. Before Linux 5.14 a process that is not
    /// dumpable cannot open it; peers have no pidfd there either.
    descriptors: Option<OwnedFd>,
    /// How many PID namespaces the daemon's processes are in, counted from that `/proc`.
    depth: usize,
    /// The daemon's own restrictions, on its side; `None` in a cell, where a peer's cannot be read.
    daemon: Option<Confinement>,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    left_out: u64,
}

impl Doorkeeper {
    /// Creates one for a process in the daemon's own namespaces.
    ///
    /// # Errors
    /// If `/proc` does not say who we are.
    pub fn of_the_daemon() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let daemon = Some(Confinement::of(&status));
        Ok(Self { descriptors: descriptors(), depth: depth(&status), daemon, said: Mutex::default() })
    }

    /// Creates one for the first process of a cell's PID namespace, while it still has the daemon's `/proc`.
    ///
    /// # Errors
    /// If that does not say who we are.
    pub fn of_a_cell() -> io::Result<Self> {
        let depth = depth(&std::fs::read_to_string("/proc/self/status")?).saturating_sub(1);
        Ok(Self { descriptors: descriptors(), depth, daemon: None, said: Mutex::default() })
    }

    /// Admits the daemon's user and root, but no process of a cell.
    ///
    /// # Errors
    /// Who was refused, and why.
    pub fn let_in(&self, socket: impl AsFd) -> Result<(), Stranger> {
        self.let_in_from(socket, None)
    }

    /// Does the same, but also admits a process with an agent's restrictions if it is in that process group. The
    /// daemon made the group in its own session, and processes of other sessions cannot join it (setpgid(2)).
    ///
    /// # Errors
    /// Who was refused, and why.
    pub fn let_in_from(&self, socket: impl AsFd, group: Option<Pid>) -> Result<(), Stranger> {
        let own = rustix::process::geteuid().as_raw();
        let (pid, uid) = credentials(&socket)?;
        // Inside a cell, root and a daemon that runs as root have no user id; file permissions keep all others out.
        let root = if self.daemon.is_some() { 0 } else { NOBODY_HERE };
        if uid != own && uid != root {
            return Err(Stranger::User(uid));
        }
        if self.daemon.is_none() && pid != 0 {
            // A process that has a pid here is a process of the cell.
            return Err(Stranger::Namespace);
        }
        let peer = match (&self.descriptors, peer_descriptor(&socket)) {
            (Some(descriptors), Ok(peer)) => Some((descriptors, peer)),
            (None, _) | (_, Err(Errno::NOPROTOOPT | Errno::INVAL)) => None,
            (_, Err(Errno::SRCH)) => return Err(Stranger::Gone),
            (_, Err(error)) => return Err(Stranger::Unknown(error.into())),
        };
        if let Some((descriptors, peer)) = peer {
            let pid = self.pid_of(descriptors, &peer)?;
            self.not_confined(pid, uid, group)?;
            // The pid still belongs to the same process, so it was not reused.
            return if self.pid_of(descriptors, &peer)? == pid { Ok(()) } else { Err(Stranger::Gone) };
        }
        if self.daemon.is_none() {
            // Outside this cell. An older kernel tells us no more than that.
            return Ok(());
        }
        if pid == 0 || depth(&status_of(pid)?) != self.depth {
            return Err(Stranger::Namespace);
        }
        self.not_confined(pid, uid, group)
    }

    /// The pid of a process that is in the daemon's own PID namespace.
    fn pid_of(&self, descriptors: &OwnedFd, peer: &OwnedFd) -> Result<i32, Stranger> {
        let name = peer.as_raw_fd().to_string();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(descriptors, name, flags, Mode::empty()).map_err(io::Error::from)?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
        match pid {
            Some(pid) if pid > 0 && depth(&text) == self.depth => Ok(pid),
            // It is in a namespace that this `/proc` does not cover, or in one below the daemon's.
            Some(pid) if pid >= 0 => Err(Stranger::Namespace),
            Some(_) => Err(Stranger::Gone),
            None => Err(Stranger::Unknown(io::Error::other("its descriptor has no number"))),
        }
    }

    /// Refuses a process with fewer rights than the daemon, as its agents have. Agents are never root unless the
    /// daemon is.
    fn not_confined(&self, pid: i32, uid: u32, group: Option<Pid>) -> Result<(), Stranger> {
        let Some(daemon) = self.daemon else { return Ok(()) };
        if uid != rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        let found = Confinement::of(&status_of(pid)?);
        let ours = || group.is_some() && rustix::process::getpgid(Pid::from_raw(pid)).ok() == group;
        if found.is_of_an_agent(daemon) && !ours() { Err(Stranger::Confined) } else { Ok(()) }
    }

    /// Returns how many peers were refused without a log line since the last one, or `None` if no line is due yet.
    pub fn should_say(&self) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.at.is_some_and(|at| at.elapsed() < SAID_EVERY) {
            said.left_out += 1;
            return None;
        }
        said.at = Some(Instant::now());
        Some(std::mem::take(&mut said.left_out))
    }
}

fn descriptors() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/fdinfo", flags, Mode::empty()).ok()
}

/// Reads `/proc/PID/status`.
fn status_of(pid: i32) -> Result<String, Stranger> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::SRCH) => Stranger::Gone,
        _ => Stranger::Unknown(error),
    })
}

/// The number of PID namespaces that a process is in, counted from that of the `/proc`. A kernel without them
/// reports none.
fn depth(text: &str) -> usize {
    text.lines().find_map(|line| line.strip_prefix("NSpid:")).map_or(1, |pids| pids.split_whitespace().count())
}

/// Pid and user id of the peer. The pid is 0 for a process that has none here.
fn credentials(socket: &impl AsFd) -> Result<(i32, u32), Stranger> {
    // The library's type cannot hold the pid 0 of a process without a pid here.
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = std::mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the struct and its length live through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok((found.pid, found.uid)) } else { Err(io::Error::last_os_error().into()) }
}

/// The pidfd of the peer, as of when it connected.
fn peer_descriptor(socket: &impl AsFd) -> Result<OwnedFd, Errno> {
    let mut fd: libc::c_int = -1;
    let mut length = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the integer and its length live through the call, and the new descriptor is ours.
    unsafe {
        let result = libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        );
        if result == 0 {
            Ok(OwnedFd::from_raw_fd(fd))
        } else {
            Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn who_is_where_the_daemon_is_is_let_in() {
        let place = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(place.path().join("s")).unwrap();
        let doorkeeper = Doorkeeper::of_the_daemon().unwrap();
        let client = UnixStream::connect(place.path().join("s")).unwrap();
        let (peer, _) = listener.accept().unwrap();
        doorkeeper.let_in(&peer).unwrap();
        drop(client);
        // The peer's process lives on, although its end of the connection does not.
        doorkeeper.let_in(&peer).unwrap();
    }

    #[test]
    fn fewer_rights_than_the_daemons_are_an_agents() {
        let status = |nnp: u8, mode: u8, filters: &str| {
            Confinement::of(&format!("Name:\tx\nNoNewPrivs:\t{nnp}\nSeccomp:\t{mode}\n{filters}"))
        };
        let (free, agent) = (status(0, 0, "Seccomp_filters:\t0\n"), status(1, 2, "Seccomp_filters:\t1\n"));
        assert!(agent.is_of_an_agent(free) && !free.is_of_an_agent(free));
        // The daemon is in a sandbox itself: its agents have one more filter, its operators do not.
        let (sandboxed, its_agent) = (status(1, 2, "Seccomp_filters:\t2\n"), status(1, 2, "Seccomp_filters:\t3\n"));
        assert!(its_agent.is_of_an_agent(sandboxed) && !sandboxed.is_of_an_agent(sandboxed));
        assert!(!free.is_of_an_agent(sandboxed));
        // A shell in a container has only a filter.
        assert!(!status(0, 2, "Seccomp_filters:\t1\n").is_of_an_agent(free));
        // A kernel that does not report the number of filters.
        assert!(status(1, 2, "").is_of_an_agent(status(0, 0, "")));
        // A kernel without filters: nothing can be started there either.
        let none = Confinement::of("Name:\tx\nNoNewPrivs:\t1\n");
        assert!(!none.is_of_an_agent(none));
    }

    #[test]
    fn namespaces_are_counted_from_the_one_that_proc_shows() {
        assert_eq!(depth("Pid:\t7\nNSpid:\t7\n"), 1);
        assert_eq!(depth("Pid:\t7\nNSpid:\t7\t2\t1\n"), 3);
        assert_eq!(depth("Pid:\t7\n"), 1);
    }
}
