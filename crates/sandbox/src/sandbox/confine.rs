//! Runs a program that reads what came out of a cell, confined: `lazarus confined SPECIFICATION PROGRAM
//! ARGUMENTS…`.
//!
//! Git on the host's side parses packs and trees that agents made. It runs with limits on memory, processor time,
//! time and file size. It sees only the system's programs and a few given directories, has no network, and may not
//! make the system calls that agents may not make. Without namespaces, Landlock restricts it to its paths; without
//! Landlock too, only the limits and the filter remain. The probe decides which of these applies, and the log says
//! so.
//!
//! This is a process of its own between the daemon and the program, because a process sets limits on itself, and
//! namespaces can only be made by a process without threads. It kills the program when the time is over. Both end
//! with the daemon's thread that waits for them.

use super::mounts::{SYSTEM, attach, mount_tmpfs, pick, pivot, private, read_only};
use super::{
    HostReport, LandlockPaths, Sockets, StepError, apply_filter, clone_process, close_from, compile_filter,
    drop_capabilities, drop_capability_bounds, no_new_privileges, not_dumpable, restrict_landlock, write_id_maps,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The exit status if the time was over.
pub const TIMED_OUT: i32 = 124;
/// The exit status if the program could not be confined.
pub const NOT_CONFINED: i32 = 125;

/// Devices that the program sees: git writes to the first, and makes random names from the second.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/urandom"];

/// How strongly a program can be confined on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// Namespaces with a root of their own, Landlock if the kernel has it, a system call filter, limits.
    Namespaces,
    /// Landlock, a system call filter, limits.
    Landlock,
    /// A system call filter and limits.
    Limits,
}

impl Confinement {
    /// The strongest one that the probe found.
    pub fn of(report: &HostReport) -> Self {
        match report {
            HostReport { namespaces: true, .. } => Self::Namespaces,
            HostReport { landlock: Some(_), .. } => Self::Landlock,
            _ => Self::Limits,
        }
    }

    /// Describes it, in words for the log and the ledger.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces, Landlock, system call filter, limits",
            Self::Landlock => "Landlock, system call filter, limits",
            Self::Limits => "system call filter, limits",
        }
    }
}

/// What one confined program may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// How this is enforced.
    pub by: Confinement,
    /// Whether it may reach the network. If so, only limits and the filter confine it.
    pub network: bool,
    /// Directories that it may read, in addition to the system's programs.
    pub read: Vec<PathBuf>,
    /// Directories that it may also write.
    pub write: Vec<PathBuf>,
    /// Memory that each of its processes may write to, in bytes.
    pub memory: u64,
    /// Processor time of each of its processes, in seconds.
    pub cpu: u64,
    /// Time until it is killed, in seconds.
    pub time: u64,
    /// Largest file that it may write, in bytes.
    pub file: u64,
}

/// Runs `PROGRAM ARGUMENTS…` as the specification says. Returns its exit status, or 128 plus the signal's number if
/// a signal ended it. Must be called before any thread starts.
pub fn confined(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    close_from(3);
    let text = arguments.next().unwrap_or_default();
    let parsed = serde_json::from_slice(std::os::unix::ffi::OsStrExt::as_bytes(text.as_os_str()));
    let outcome = match (parsed, arguments.next()) {
        (Ok(spec), Some(program)) => run(&spec, &program, arguments.collect()),
        (Err(error), _) => Err(other("reading the specification", &error)),
        (_, None) => Err(other("reading the specification", &"no program is named")),
    };
    outcome.unwrap_or_else(|error| {
        say(&format!("confining a program: {error}"));
        NOT_CONFINED
    })
}

fn other(step: &str, error: &dyn std::fmt::Display) -> StepError {
    StepError { step: step.to_owned(), source: io::Error::other(error.to_string()) }
}

fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> StepError {
    let step = step.into();
    move |source| StepError { step, source }
}

fn say(words: &str) {
    let _ = writeln!(io::stderr(), "lazarus: {words}");
}

/// Has the kernel kill this process when its parent ends.
fn end_with_parent() -> Result<(), StepError> {
    // SAFETY: prctl with integers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) } != 0 {
        return Err(StepError::last("asking to end with the parent"));
    }
    Ok(())
}

#[allow(clippy::exit, reason = "the child's life ends here; nothing of its parent's may run in it")]
fn run(spec: &Confined, program: &OsString, arguments: Vec<OsString>) -> Result<i32, StepError> {
    end_with_parent()?;
    let program = find(program).ok_or_else(|| other("looking for the program", &program.display()))?;
    // SAFETY: takes no arguments.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let in_namespaces = spec.by == Confinement::Namespaces && !spec.network;
    let mut flags = 0;
    if in_namespaces {
        flags = libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWCGROUP;
    }
    let (mut go, release) = io::pipe().map_err(step("making a pipe"))?;
    let pid = clone_process(flags)?;
    if pid == 0 {
        drop(release);
        let mut byte = [0u8; 1];
        if !matches!(go.read(&mut byte), Ok(1)) {
            std::process::exit(NOT_CONFINED);
        }
        drop(go);
        let why = settle_in_and_run(spec, in_namespaces, &program, arguments);
        say(&format!("confining a program: {why}"));
        std::process::exit(NOT_CONFINED);
    }
    drop(go);
    let child = Pid::from_raw(pid).ok_or_else(|| other("starting", &"there is no process"))?;
    // The only user inside is our own. Nobody is root there, so executing a program gives no capabilities back.
    let mapped = if in_namespaces { write_id_maps(pid, None, uid, gid) } else { Ok(()) };
    if mapped.is_ok() {
        let _ = (&release).write_all(b"+");
    }
    drop(release);
    let over = wait(child, Duration::from_secs(spec.time));
    let mut status = 0;
    // SAFETY: waits for the child that was made above; `status` lives through the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(step("waiting for the program")(error));
        }
    }
    mapped?;
    if !over? {
        say(&format!("it took longer than {} s", spec.time));
        return Ok(TIMED_OUT);
    }
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) })
}

/// Waits until a child has ended, and kills it when its time is over. Returns whether it ended by itself.
fn wait(child: Pid, time: Duration) -> Result<bool, StepError> {
    let fd = pidfd_open(child, PidfdFlags::empty()).map_err(StepError::of("watching the program"))?;
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = pidfd_send_signal(&fd, Signal::KILL);
            return Ok(false);
        }
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => {
                let _ = pidfd_send_signal(&fd, Signal::KILL);
                return Err(StepError::of("watching the program")(error));
            }
        }
    }
}

/// Looks a program up along PATH, as a shell does.
fn find(program: &OsString) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return path.exists().then(|| path.to_owned());
    }
    let places = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&places).map(|place| place.join(path)).find(|path| path.is_file())
}

/// The directories of the system's programs, and of this program if it lies elsewhere.
fn programs(program: &Path) -> BTreeSet<PathBuf> {
    let mut found: BTreeSet<PathBuf> =
        SYSTEM.iter().filter(|path| **path != "/opt").map(PathBuf::from).filter(|path| path.exists()).collect();
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    if !found.iter().any(|known| known.canonicalize().is_ok_and(|known| real.starts_with(known))) {
        let mut parts = real.components().skip(1);
        let top = parts.next().map(|part| Path::new("/").join(part));
        // A program in a store needs others of that store. Any other program needs its prefix: `bin/..`.
        let stores = [Path::new("/nix"), Path::new("/gnu")];
        found.extend(match top {
            Some(top) if stores.contains(&top.as_path()) => Some(top),
            _ => real.parent().and_then(Path::parent).filter(|prefix| prefix.parent().is_some()).map(Path::to_owned),
        });
    }
    found
}

/// Does everything from the fork to the program's `exec`. Returns why the program does not run.
fn settle_in_and_run(spec: &Confined, in_namespaces: bool, program: &Path, arguments: Vec<OsString>) -> StepError {
    let settled = || -> Result<(), StepError> {
        end_with_parent()?;
        not_dumpable()?;
        let programs = programs(program);
        if in_namespaces {
            enter(spec, &programs)?;
        }
        limit(spec, in_namespaces)?;
        no_new_privileges()?;
        if !spec.network && spec.by != Confinement::Limits {
            let mut read: Vec<PathBuf> = programs.into_iter().collect();
            read.extend(["/etc/ld.so.cache", DEVICES[1]].map(PathBuf::from));
            read.extend_from_slice(&spec.read);
            let mut write = spec.write.clone();
            write.push(DEVICES[0].into());
            let landlock = restrict_landlock(&LandlockPaths { read, write })?;
            if landlock.is_none() && spec.by == Confinement::Landlock {
                return Err(other("restricting by Landlock", &"the kernel does not offer it"));
            }
        }
        drop_capability_bounds();
        drop_capabilities()?;
        apply_filter(&compile_filter(if spec.network { Sockets::All } else { Sockets::None }, false, false)?)
    };
    if let Err(error) = settled() {
        return error;
    }
    let error = Command::new(program).args(arguments).exec();
    step(format!("running {}", program.display()))(error)
}

/// Enters a root that contains the programs, the readable and the writable directories, and nothing else.
fn enter(spec: &Confined, programs: &BTreeSet<PathBuf>) -> Result<(), StepError> {
    private()?;
    let mut links = vec![];
    let mut trees = vec![];
    for path in programs {
        match std::fs::read_link(path) {
            Ok(target) => links.push((path.clone(), target)),
            Err(_) => trees.push((pick(path)?, path.clone(), false)),
        }
    }
    let cache = Path::new("/etc/ld.so.cache");
    if cache.exists() {
        trees.push((pick(cache)?, cache.to_owned(), false));
    }
    for path in &spec.read {
        trees.push((pick(path)?, path.clone(), false));
    }
    // After the readable ones, because writable directories may lie inside them.
    for path in &spec.write {
        trees.push((pick(path)?, path.clone(), true));
    }
    let devices = DEVICES.map(|path| Ok::<_, StepError>((pick(Path::new(path))?, Path::new(path))));
    // Any directory can serve as mount point: whatever was below it was already picked.
    let root = PathBuf::from("/tmp");
    mount_tmpfs(&root, "755", 1 << 20)?;
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for (tree, path, writable) in &trees {
        attach(tree, &inside(path), *writable, false)?;
    }
    for device in devices {
        let (tree, path) = device?;
        attach(&tree, &inside(path), false, true)?;
    }
    for (path, target) in links {
        std::os::unix::fs::symlink(target, inside(&path)).map_err(step(format!("linking {}", path.display())))?;
    }
    pivot(&root)?;
    read_only(Path::new("/"), false)
}

/// Sets the limits, never above the present hard limits.
fn limit(spec: &Confined, in_namespaces: bool) -> Result<(), StepError> {
    let mut wanted = vec![
        (libc::RLIMIT_CORE, 0, "the limit of core files"),
        (libc::RLIMIT_CPU, spec.cpu.max(1), "the limit of processor time"),
        (libc::RLIMIT_DATA, spec.memory, "the limit of memory"),
        (libc::RLIMIT_FSIZE, spec.file, "the limit of file size"),
        (libc::RLIMIT_NOFILE, 1024, "the limit of open files"),
    ];
    if in_namespaces {
        // Only with a namespace of its own: otherwise the limit would count all processes of the user.
        wanted.push((libc::RLIMIT_NPROC, 32, "the limit of processes"));
    }
    for (resource, value, what) in wanted {
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the struct lives through the call.
        if unsafe { libc::getrlimit(resource, &raw mut now) } != 0 {
            return Err(StepError::last(what));
        }
        let value = value.min(now.rlim_max);
        let new = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: as above.
        if unsafe { libc::setrlimit(resource, &raw const new) } != 0 {
            return Err(StepError::last(what));
        }
    }
    Ok(())
}
