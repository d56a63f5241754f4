//! Single steps on the way into a cell.

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

/// An isolation step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct StepError {
    /// What was tried, and on what.
    pub step: String,
    /// The kernel's error.
    pub source: io::Error,
}

/// Whether an error may go away without anybody changing anything: a disk or a table is full, memory is short, or a
/// file system does not answer.
pub fn is_passing(error: &io::Error) -> bool {
    const PASSING: [libc::c_int; 12] = [
        libc::EAGAIN,
        libc::EBUSY,
        libc::EDQUOT,
        libc::EINTR,
        libc::EIO,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::ENOSPC,
        libc::ESTALE,
        libc::ETIMEDOUT,
        libc::ETXTBSY,
    ];
    error.raw_os_error().is_some_and(|code| PASSING.contains(&code))
}

impl StepError {
    pub(crate) fn last(step: impl Into<String>) -> Self {
        Self { step: step.into(), source: io::Error::last_os_error() }
    }
    pub(crate) fn of(step: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let step = step.into();
        move |e| Self { step, source: e.into() }
    }
}

fn check(result: libc::c_long, step: &str) -> Result<libc::c_long, StepError> {
    if result < 0 { Err(StepError::last(step)) } else { Ok(result) }
}

/// Forks into new namespaces. Returns the child's pid, and 0 in the child.
///
/// With `CLONE_PARENT` among the flags, the child is a child of our parent.
pub fn clone_process(flags: libc::c_int) -> Result<libc::pid_t, StepError> {
    let exit_signal = if flags & libc::CLONE_PARENT == 0 { libc::SIGCHLD } else { 0 };
    // SAFETY: without CLONE_VM and without a stack this is a fork. The caller is single-threaded, so the child may
    // continue as the parent would.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags | exit_signal), 0, 0, 0, 0) };
    check(pid, "creating a process in its own namespaces").map(|pid| pid as libc::pid_t)
}

/// Writes the id maps of a new user namespace whose first process is `pid`.
///
/// As root, the cell gets two unprivileged ids: 0 inside (the keeper) is `base`, and 1000 inside (the agents) is
/// `base + 1`. An ordinary user has only one id to give: 1000 inside is the user.
pub fn write_id_maps(pid: libc::pid_t, base: Option<u32>, uid: u32, gid: u32) -> Result<(), StepError> {
    let write = |file: &str, text: &str| {
        std::fs::write(format!("/proc/{pid}/{file}"), text)
            .map_err(|source| StepError { step: format!("writing {file} of the cell's user namespace"), source })
    };
    match base {
        Some(base) => {
            let map = format!("0 {base} 1\n1000 {} 1\n", base + 1);
            write("uid_map", &map)?;
            write("gid_map", &map)
        }
        None => {
            write("uid_map", &format!("1000 {uid} 1\n"))?;
            write("setgroups", "deny")?;
            write("gid_map", &format!("1000 {gid} 1\n"))
        }
    }
}

/// Permanently changes this process's user and group.
pub fn become_user(uid: u32, gid: u32) -> Result<(), StepError> {
    // SAFETY: system calls without pointers to our memory.
    unsafe {
        // Fails if setgroups is denied (in an ordinary user's namespace); there are no groups to drop then.
        let _ = libc::setgroups(0, std::ptr::null());
        check(libc::c_long::from(libc::setresgid(gid, gid, gid)), "taking the cell's group")?;
        check(libc::c_long::from(libc::setresuid(uid, uid, uid)), "taking the cell's user")?;
    }
    Ok(())
}

/// Prevents others from tracing this process, reading its `/proc/PID` and getting core files of it.
pub fn not_dumpable() -> Result<(), StepError> {
    // SAFETY: prctl with integers only.
    check(libc::c_long::from(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }), "becoming non-dumpable")?;
    Ok(())
}

/// Restores the default for SIGPIPE: like other programs, this one ends quietly when the reader of its output goes
/// away.
pub fn default_broken_pipe() {
    // SAFETY: sets one signal's disposition before there are threads.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Limits glibc's heaps. By default it gives its threads up to eight heaps for each processor, and each heap keeps
/// what a burst once needed. With 200 cells that was several MB out of 30; going from four heaps to two saved 1 MB.
pub fn few_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: passes only integers, before there are threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Hides the control groups above this process: its own group becomes the root that it sees.
pub fn new_cgroup_namespace() -> Result<(), StepError> {
    // SAFETY: passes only integers.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }), "hiding the control groups")?;
    Ok(())
}

/// Becomes the parent of orphaned descendants, if there is no PID namespace to do that.
pub fn subreaper() -> Result<(), StepError> {
    // SAFETY: prctl with integers only.
    check(
        libc::c_long::from(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }),
        "becoming a subreaper",
    )?;
    Ok(())
}

/// Sets `no_new_privs`: setuid programs give no privileges from now on.
pub fn no_new_privileges() -> Result<(), StepError> {
    // SAFETY: prctl with integers only.
    check(libc::c_long::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }), "setting no_new_privs")?;
    Ok(())
}

/// Empties the capability bounding set, as far as this process is allowed to.
pub fn drop_capability_bounds() {
    for capability in 0..64 {
        // SAFETY: prctl with integers only. EINVAL marks the end of the known capabilities; EPERM (not privileged)
        // means that there is nothing to drop.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            return;
        }
    }
}

/// Drops all capabilities from all sets.
pub fn drop_capabilities() -> Result<(), StepError> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // SAFETY: prctl with integers only.
    let _ = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let header = Header { version: 0x2008_0522, pid: 0 };
    let data = [Data::default(); 2];
    // SAFETY: both structs live through the call and have the layout of `linux/capability.h`, version 3.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check(result, "dropping capabilities")?;
    Ok(())
}

/// Sets the cell's host name to `cell`.
pub fn set_hostname() -> Result<(), StepError> {
    // SAFETY: pointer and length belong to the same literal.
    let result = unsafe { libc::sethostname(c"cell".as_ptr(), 4) };
    check(libc::c_long::from(result), "naming the cell's host")?;
    Ok(())
}

/// Brings up the loopback interface of a new network namespace.
pub fn loopback_up() -> Result<(), StepError> {
    // SAFETY: the request is zeroed, its name is `lo` with a NUL, and it lives through both calls; the descriptor
    // is closed at the end.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(libc::c_long::from(socket), "opening a socket for the loopback")?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
        let outcome = check(libc::c_long::from(result), "bringing the loopback up");
        libc::close(socket);
        outcome.map(|_| ())
    }
}

/// Resource limits of an agent's processes. They never exceed the present hard limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Most open files of each process.
    pub open_files: u64,
    /// Largest file, in bytes.
    pub file_size: u64,
    /// Most processes of the cell; only set if the kernel's count includes nobody else's.
    pub processes: Option<u64>,
    /// Memory that each process may write to, in bytes; only set if nothing else limits memory.
    pub data: Option<u64>,
}

/// Sets the limits, never above the present hard limits.
pub fn set_limits(limits: ProcessLimits) -> Result<(), StepError> {
    let mut wanted = vec![
        // With a limit of 1, and not with 0, the kernel also does not run the host's core-dump handler (core(5)).
        (libc::RLIMIT_CORE, 1, "the limit of core files"),
        (libc::RLIMIT_NOFILE, limits.open_files, "the limit of open files"),
        (libc::RLIMIT_FSIZE, limits.file_size, "the limit of file size"),
        (libc::RLIMIT_MEMLOCK, 8 << 20, "the limit of locked memory"),
        (libc::RLIMIT_MSGQUEUE, 819_200, "the limit of message queues"),
    ];
    if let Some(processes) = limits.processes {
        wanted.push((libc::RLIMIT_NPROC, processes, "the limit of processes"));
    }
    if let Some(data) = limits.data {
        wanted.push((libc::RLIMIT_DATA, data, "the limit of memory"));
    }
    for (resource, value, what) in wanted {
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the struct lives through the call.
        check(libc::c_long::from(unsafe { libc::getrlimit(resource, &raw mut now) }), what)?;
        let value = value.min(now.rlim_max);
        let new = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: as above.
        check(libc::c_long::from(unsafe { libc::setrlimit(resource, &raw const new) }), what)?;
    }
    Ok(())
}

/// Pins this process, and what it starts, to `count` of the processors that it may use now. `pick` selects which
/// ones, so that cells spread over them. Together with a filter that refuses changes, this roughly limits processor
/// time if no control group does.
///
/// # Errors
/// If the kernel refuses.
pub fn keep_to_processors(count: u64, pick: u64) -> Result<(), StepError> {
    // SAFETY: plain data for which zero is a valid value; both calls get its size.
    unsafe {
        let mut now: libc::cpu_set_t = std::mem::zeroed();
        let size = std::mem::size_of::<libc::cpu_set_t>();
        check(libc::c_long::from(libc::sched_getaffinity(0, size, &raw mut now)), "asking for processors")?;
        let usable: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(|n| libc::CPU_ISSET(*n, &now)).collect();
        if usable.len() as u64 <= count {
            return Ok(());
        }
        let mut wanted: libc::cpu_set_t = std::mem::zeroed();
        for index in 0..count {
            libc::CPU_SET(usable[((pick + index) % usable.len() as u64) as usize], &mut wanted);
        }
        check(libc::c_long::from(libc::sched_setaffinity(0, size, &raw const wanted)), "keeping to processors")?;
    }
    Ok(())
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: u32) {
    // SAFETY: passes only integers. Nobody uses those descriptors afterwards: this is the first step of a program,
    // or the last before exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result != 0 {
        for fd in first..4096 {
            // SAFETY: as above. Closing a descriptor that is not open fails, which is harmless.
            unsafe { libc::close(fd as libc::c_int) };
        }
    }
}

/// The paths that Landlock lets an agent use. Everything else is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockPaths {
    /// Paths that may be read and executed.
    pub read: Vec<PathBuf>,
    /// Paths that may also be written.
    pub write: Vec<PathBuf>,
}

/// Restricts this process, and what it starts, with everything that the kernel's Landlock supports: files by path,
/// signals and abstract sockets by scope. Returns `full` or `partial`, or `None` if the kernel has no Landlock.
pub fn restrict_landlock(paths: &LandlockPaths) -> Result<Option<&'static str>, StepError> {
    let wrong = |step: &str| {
        let step = step.to_owned();
        move |e: landlock::RulesetError| StepError { step, source: io::Error::other(e.to_string()) }
    };
    let abi = ABI::V7;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|r| r.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .map_err(wrong("making the Landlock rules"))?;
    let mut ruleset = ruleset;
    for (list, access) in [(&paths.read, AccessFs::from_read(abi)), (&paths.write, AccessFs::from_all(abi))] {
        for path in list {
            // A path that does not exist needs no rule: it stays denied.
            let Ok(fd) = PathFd::new(path) else { continue };
            let is_file = !path.is_dir();
            let access = if is_file { access & AccessFs::from_file(abi) } else { access };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access)).map_err(wrong("adding a Landlock rule"))?;
        }
    }
    let status = ruleset.restrict_self().map_err(wrong("restricting by Landlock"))?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Some("full"),
        RulesetStatus::PartiallyEnforced => Some("partial"),
        RulesetStatus::NotEnforced => None,
    })
}

/// Converts a path to the form that the kernel takes.
pub(crate) fn c_path(path: &Path) -> Result<CString, StepError> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| StepError {
        step: format!("using the path {}", path.display()),
        source: io::Error::other("it contains a NUL byte"),
    })
}
