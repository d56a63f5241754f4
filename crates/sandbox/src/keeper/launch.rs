//! The launcher: `lazarus cell-launch RUN_ROOT`. It reads two lines from its standard input: first which sandbox to
//! make, then which cell to launch in it. The daemon keeps one launcher on standby between the two, so that
//! starting a cell need not wait for loading a program and making namespaces. When the daemon ends, that input
//! closes, and the launcher and everything that it prewarmed end too.

use super::init::{Keeper, Opened, Prepared};
use super::protocol::EGRESS_AT;
use super::{LaunchSpec, Prewarmed, Ready, SandboxKind};
use crate::egress;
use crate::sandbox::{Group, Groups, StepError, clone_process, close_from, is_passing, write_id_maps};
use rustix::cmsg_space;
use rustix::fs::{FlockOperation, flock};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The file in the run directory that describes the cell's control group.
pub const GROUP: &str = "group.json";
/// The file in the run directory with the proxy's pid.
pub const EGRESS_PID: &str = "egress.pid";
/// The file in the run directory with the keeper's pid.
pub const KEEPER_PID: &str = "keeper.pid";
/// The file in the run directory that the keeper keeps locked while it lives.
pub const LOCK: &str = "lock";
/// Prefix of the names of run directories that do not belong to a cell yet. It is the prefix that versions up to
/// 0.1 used, so that what one of theirs left is removed, too.
const PREWARMED: &str = ".ahead-";
const GROUP_WRITTEN: &str = "writing down which control group the cell has";

/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 1 << 20;

/// What the launcher passes to the keeper once its id maps are written.
#[derive(Serialize, Deserialize)]
struct Release {
    spec: LaunchSpec,
    /// Whether the cell already had a run directory. What was prewarmed is opened again there then.
    again: bool,
}

/// The launcher's answer after it received the cell's listening socket.
#[derive(Serialize, Deserialize)]
enum Proxy {
    Serves,
    Failed(String),
}

/// Runs the launcher, and the keeper in its child. Returns the exit status. Must be called before any thread
/// starts.
pub fn launch(run_root: &Path) -> i32 {
    // Closes what the daemon's parent left open: a keeper would hold it open for days.
    close_from(3);
    // Ctrl-C in the daemon's terminal is meant for the daemon: the launcher ends when its input closes, and cleans
    // up. The keeper and agents' inits set their own signal handling.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: passes only integers.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    match try_launch(run_root) {
        Ok(()) => 0,
        Err(error) => fail(&error),
    }
}

fn fail(error: &StepError) -> i32 {
    say(&Ready::Failed { why: error.to_string(), passing: is_passing(&error.source) });
    1
}

fn say(ready: &Ready) {
    let mut line = serde_json::to_string(ready).unwrap_or_default();
    line.push('\n');
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
}

fn step(step: &str) -> impl FnOnce(io::Error) -> StepError {
    let step = step.to_owned();
    move |source| StepError { step, source }
}

/// Reads one line; `None` if the input ended, which means that the launcher is no longer needed.
fn read_line<T: DeserializeOwned>(input: &mut impl BufRead) -> Result<Option<T>, StepError> {
    let mut line = vec![];
    input.take(LINE_MAX).read_until(b'\n', &mut line).map_err(step("reading what to launch"))?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|e| StepError { step: "reading what to launch".to_owned(), source: io::Error::other(e.to_string()) })
}

#[allow(clippy::exit, reason = "the keeper is a process of its own; nothing of the launcher's may run after it")]
fn try_launch(run_root: &Path) -> Result<(), StepError> {
    let mut input = io::stdin().lock();
    let Some(Prewarmed { sandbox, groups }) = read_line(&mut input)? else { return Ok(()) };
    let mut prewarmed = PrewarmedRunDir::make(run_root)?;
    let opened = open()?;
    // SAFETY: takes no arguments.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut flags = libc::CLONE_PARENT;
    if sandbox.namespaces {
        flags |= libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if !sandbox.host_network {
            flags |= libc::CLONE_NEWNET;
        }
    }
    let (go, mut release) = UnixStream::pair().map_err(step("making a pair of sockets"))?;
    let pid = clone_process(flags)?;
    if pid == 0 {
        drop((release, input));
        std::process::exit(keep(sandbox, go, opened));
    }
    drop((go, opened));
    // Must precede anything that the keeper writes: the reader has to learn this pid in every case, to reap the
    // keeper.
    say(&Ready::Launched { pid });
    prewarmed.belongs_to(pid, &groups)?;
    let Some(mut spec) = read_line::<LaunchSpec>(&mut input)? else { return Ok(()) };
    if sandbox.namespaces {
        write_id_maps(pid, spec.id_base, uid, gid)?;
    }
    prewarmed.is_still_in_its_group()?;
    let (group, again) = prewarmed.becomes(&spec)?;
    if sandbox.bwrap {
        spec.program = own_name(&spec)?;
    }
    let (egress, run_dir, cell, resources) =
        (spec.egress.clone(), spec.run_dir.clone(), spec.cell.clone(), spec.resources);
    let mut line = serde_json::to_vec(&Release { spec, again }).unwrap_or_default();
    line.push(b'\n');
    let sent = release.write_all(&line).map_err(step("releasing the keeper"));
    zeroize::Zeroize::zeroize(&mut line);
    sent?;
    // Done while the keeper settles in.
    let group = groups.limit(group, &cell, pid, resources);
    let group = serde_json::to_vec(&group).unwrap_or_default();
    std::fs::write(run_dir.join(GROUP), &group).map_err(step(GROUP_WRITTEN))?;
    if let Some(egress) = egress {
        serve_egress(&release, pid, &run_dir, &egress)?;
    }
    release.write_all(&[&group[..], b"\n"].concat()).map_err(step("telling the keeper of its control group"))
}

/// A run directory that is made before its cell is known, because creating files can take as long as making the
/// whole sandbox. If no cell comes, it is removed together with its control group.
struct PrewarmedRunDir {
    path: PathBuf,
    group: Option<Group>,
    /// The keeper's pid, and its line in `/proc` that names its control groups, as of when it entered its own.
    keeper: Option<(i32, String)>,
}

fn groups_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

impl PrewarmedRunDir {
    /// Creates one and makes it the current directory of this process and its keeper.
    fn make(run_root: &Path) -> Result<Self, StepError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = run_root.join(format!("{PREWARMED}{}-{}", std::process::id(), now.as_nanos()));
        make_directory(&path)?;
        let prewarmed = Self { path, group: None, keeper: None };
        make_directory(&prewarmed.path.join("keeper"))?;
        std::env::set_current_dir(&prewarmed.path).map_err(step("entering the run directory"))?;
        Ok(prewarmed)
    }

    /// Records the keeper's pid and puts the keeper into a control group of its own.
    fn belongs_to(&mut self, keeper: i32, groups: &Groups) -> Result<(), StepError> {
        let write = |name: &str, text: &[u8]| {
            let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(name)?;
            file.write_all(text)
        };
        write(KEEPER_PID, keeper.to_string().as_bytes()).map_err(step("writing keeper.pid"))?;
        let name = format!("lazarus-{}", self.path.file_name().unwrap_or_default().display());
        let group = groups.enter(&name.replace(PREWARMED, ""), keeper)?;
        let text = serde_json::to_vec(&group).unwrap_or_default();
        self.group = Some(group);
        self.keeper = Some((keeper, groups_of(keeper)));
        write(GROUP, &text).map_err(step(GROUP_WRITTEN))
    }

    /// Fails if somebody moved the keeper out of its control group while it was on standby: its cell would have no
    /// limits.
    fn is_still_in_its_group(&self) -> Result<(), StepError> {
        match &self.keeper {
            Some((keeper, groups)) if groups_of(*keeper) != *groups => Err(StepError {
                step: "checking the cell's control group".to_owned(),
                source: io::Error::other("somebody moved the cell's first process to another one while it waited"),
            }),
            _ => Ok(()),
        }
    }

    /// Turns it into the cell's run directory. Returns the control group, and whether the cell already had a run
    /// directory, which it then keeps.
    fn becomes(mut self, spec: &LaunchSpec) -> Result<(Group, bool), StepError> {
        let run_dir = &spec.run_dir;
        let again = match std::fs::rename(&self.path, run_dir) {
            Ok(()) => false,
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                for name in [KEEPER_PID, GROUP] {
                    let to = run_dir.join(name);
                    std::fs::rename(self.path.join(name), &to).map_err(step(&format!("making {}", to.display())))?;
                }
                true
            }
            Err(e) => return Err(step(&format!("making {}", run_dir.display()))(e)),
        };
        let group = self.group.take().unwrap_or_default();
        if let Some(egress) = &spec.egress {
            make_directory(&egress.directory)?;
        }
        // The directory that the keeper may write. Files that the launcher writes lie above it.
        let own = run_dir.join("keeper");
        make_directory(&own)?;
        if let Some(base) = spec.id_base {
            chown(&own, Some(base), Some(base)).map_err(step("giving the run directory to the keeper"))?;
        }
        Ok((group, again))
    }
}

impl Drop for PrewarmedRunDir {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            group.remove();
        }
        // It no longer exists here if it became a cell's.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Links the program under a name in the cell's run directory: `bwrap` is given this path for each agent, and a
/// daemon of another version may have removed its copies by then.
fn own_name(spec: &LaunchSpec) -> Result<PathBuf, StepError> {
    let own = spec.run_dir.join("program");
    let _ = std::fs::remove_file(&own);
    std::fs::hard_link(&spec.program, &own)
        .or_else(|_| std::fs::copy(&spec.program, &own).map(drop))
        .map_err(step(&format!("making {}", own.display())))?;
    Ok(own)
}

/// Creates a directory that only this user can access, if it does not exist.
fn make_directory(path: &Path) -> Result<(), StepError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(step(&format!("making {}", path.display())))
}

/// Removes what launchers left that were killed while on standby: one launcher's directory, or all. A keeper that
/// such a launcher had already made ends by itself, but uses its directory until then, so a thread waits for its
/// end first.
pub fn clear_prewarmed(run_root: &Path, launcher: Option<u32>) {
    let prefix = launcher.map_or_else(|| PREWARMED.to_owned(), |pid| format!("{PREWARMED}{pid}-"));
    for entry in std::fs::read_dir(run_root).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        if keeper_lives(&path) {
            std::thread::spawn(move || {
                // Without a lock file, no keeper holds one.
                let _ = File::open(path.join(LOCK)).map(|lock| flock(&lock, FlockOperation::LockShared));
                take_away_prewarmed(path);
            });
        } else {
            take_away_prewarmed(path);
        }
    }
}

fn take_away_prewarmed(path: PathBuf) {
    let group = std::fs::read(path.join(GROUP)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    drop(PrewarmedRunDir { path, group, keeper: None });
}

/// Whether a keeper lives in a run directory. A keeper holds a lock until it ends, however it ends.
pub fn keeper_lives(run_dir: &Path) -> bool {
    let Ok(lock) = File::open(run_dir.join(LOCK)) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}

/// Receives the cell's listening socket and starts the proxy for it on the host's side of the sandbox, where the
/// network is. The proxy ends with the keeper.
fn serve_egress(mut keeper: &UnixStream, pid: i32, run_dir: &Path, spec: &egress::Spec) -> Result<(), StepError> {
    // No socket arrives if the keeper failed; the keeper reports that itself.
    let Ok(listener) = receive_descriptor(keeper) else { return Ok(()) };
    let started = || -> Result<(), String> {
        let pid = rustix::process::Pid::from_raw(pid).ok_or("the keeper has no pid")?;
        let keeper = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|e| format!("watching the keeper: {e}"))?;
        let program = Path::new("/proc/self/exe");
        let child = egress::start(program, spec, listener.as_fd(), Some(keeper.as_fd())).map_err(|e| e.to_string())?;
        std::fs::write(run_dir.join(EGRESS_PID), child.id().to_string()).map_err(|e| e.to_string())
    };
    let answer = started().map_or_else(Proxy::Failed, |()| Proxy::Serves);
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    keeper.write_all(&line).map_err(step("telling the keeper of the egress proxy"))
}

/// Opens the proxy's socket in the cell's own network, as the keeper, and passes it to the launcher.
fn open_egress(mut launcher: &UnixStream, heard: &mut impl BufRead) -> Result<(), StepError> {
    let what = "opening the way to the egress proxy";
    let listener = TcpListener::bind(EGRESS_AT).map_err(step(what))?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(launcher, &[IoSlice::new(b"L")], &mut control, SendFlags::NOSIGNAL)
        .map_err(|e| StepError { step: what.to_owned(), source: e.into() })?;
    launcher.flush().map_err(step(what))?;
    match read_line::<Proxy>(heard)? {
        Some(Proxy::Serves) => Ok(()),
        Some(Proxy::Failed(why)) => Err(StepError { step: what.to_owned(), source: io::Error::other(why) }),
        None => Err(StepError { step: what.to_owned(), source: io::ErrorKind::UnexpectedEof.into() }),
    }
}

fn receive_descriptor(from: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut found = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    found.next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The whole life of the keeper, as the launcher's child. Returns the exit status.
fn keep(sandbox: SandboxKind, go: UnixStream, mut opened: Opened) -> i32 {
    let settle = || -> Result<Option<Keeper>, StepError> {
        let prepared = Prepared::new(sandbox)?;
        // If no complete line arrives, the launcher died or no longer needs this keeper.
        let mut heard = BufReader::new(&go);
        let Some(Release { spec, again }) = read_line(&mut heard)? else { return Ok(None) };
        if again {
            std::env::set_current_dir(&spec.run_dir).map_err(step(&format!("entering {}", spec.run_dir.display())))?;
            opened = open()?;
        }
        // The name that `ps` shows; the kernel keeps 15 bytes of it.
        if let Ok(name) = std::ffi::CString::new(spec.cell.as_str()) {
            // SAFETY: the string lives through the call.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
        }
        if spec.egress.is_some() {
            open_egress(&go, &mut heard)?;
        }
        let group = || {
            let gone = || StepError {
                step: "reading which control group the cell has".to_owned(),
                source: io::ErrorKind::UnexpectedEof.into(),
            };
            read_line(&mut heard)?.ok_or_else(gone)
        };
        Keeper::settle_in(prepared, spec, group, opened).map(Some)
    };
    match settle() {
        Ok(Some(keeper)) => {
            say(&Ready::Listening { applied: keeper.applied().to_vec() });
            keeper.run()
        }
        Ok(None) => 1,
        Err(error) => fail(&error),
    }
}

/// Opens what only the host's user can open, in the run directory, which is the current directory: a socket's path
/// may have at most 108 bytes.
fn open() -> Result<Opened, StepError> {
    let made = |options: &mut std::fs::OpenOptions, name: &str| options.create(true).mode(0o600).open(name);
    let log = made(File::options().append(true), "keeper/keeper.log").map_err(step("opening keeper.log"))?;
    // SAFETY: both descriptors are open.
    unsafe { libc::dup2(log.as_raw_fd(), 2) };
    // The umask that the daemon runs under (a service with `UMask=0077`, say) must not decide who can read what in
    // the cell.
    // SAFETY: passes only an integer.
    unsafe { libc::umask(0o022) };
    // Held while the keeper lives: nobody can start a second one, and whoever obtains the lock knows that the first
    // has ended.
    let lock = made(File::options().truncate(false).write(true), LOCK).map_err(step("opening the lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| StepError {
        step: "taking the lock of the run directory".to_owned(),
        source: io::Error::other("another keeper of this cell is running"),
    })?;
    match std::fs::remove_file("control.sock") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(step("removing the old control.sock")(e)),
        _ => {}
    }
    Ok(Opened {
        control: UnixListener::bind("control.sock").map_err(step("making control.sock"))?,
        // Opens the keeper's own directory, the only one that it may write. What the daemon and the launcher wrote
        // lies above it, out of its reach.
        run_dir: File::open("keeper").map_err(step("opening the keeper's directory"))?,
        _lock: lock,
    })
}
