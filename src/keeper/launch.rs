//! The launcher: `lazarus cell-launch RUN_ROOT`, told on its standard input
//! first which walls to make, then which cell to launch in them. The daemon
//! keeps one waiting between the two, so that a cell's start does not have to
//! wait for a program to be loaded and namespaces to be made. Where the daemon
//! ends, so does the input, and with it the launcher and what it prepared.

use super::init::{Keeper, Opened, Prepared};
use super::{Ahead, LaunchSpec, Ready, Walls};
use crate::egress;
use crate::sandbox::{StepError, clone_process, write_id_maps};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

/// Where the egress proxy listens in a cell that has one.
pub const EGRESS_AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// The file in the run directory that says which control group the cell has.
pub const GROUP: &str = "group.json";
/// The file in the run directory with the pid of the proxy.
pub const EGRESS_PID: &str = "egress.pid";

/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 1 << 20;

/// What the launcher hands on to the keeper once its ids are there.
#[derive(Serialize, Deserialize)]
struct Go {
    /// The keeper's pid on the host, which it cannot see itself.
    pid: i32,
    spec: LaunchSpec,
}

/// The launcher's answer to a listening socket of the cell's.
#[derive(Serialize, Deserialize)]
enum Proxy {
    Serves,
    Failed(String),
}

/// Runs the launcher, and in its child the keeper. Returns the exit status.
/// Has to be called before anything starts a thread.
pub fn launch() -> i32 {
    match try_launch() {
        Ok(()) => 0,
        Err(error) => fail(&error),
    }
}

fn fail(error: &StepError) -> i32 {
    say(&Ready::Failed { why: error.to_string() });
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

/// One line, or nothing where the input ended: nobody needs us any more.
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
fn try_launch() -> Result<(), StepError> {
    let mut input = io::stdin().lock();
    let Some(Ahead { walls, groups }) = read_line(&mut input)? else { return Ok(()) };
    // SAFETY: asks for numbers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut flags = libc::CLONE_PARENT;
    if walls.namespaces {
        flags |= libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if !walls.host_network {
            flags |= libc::CLONE_NEWNET;
        }
    }
    let (go, mut release) = UnixStream::pair().map_err(step("making a pair of sockets"))?;
    let pid = clone_process(flags)?;
    if pid == 0 {
        drop((release, input));
        std::process::exit(keep(walls, go));
    }
    drop(go);
    // Before the keeper can say anything: these are the first words, and whoever
    // has to collect it hears them in every case.
    say(&Ready::Launched { pid });
    let group = groups.enter(&name_for_now(), pid)?;
    let spec = match read_line::<LaunchSpec>(&mut input) {
        Ok(Some(spec)) => spec,
        other => {
            // Nobody needs it: the keeper ends by this, and then its group can go.
            drop(release);
            group.remove();
            return other.map(|_| ());
        }
    };
    if walls.namespaces {
        write_id_maps(pid, spec.id_base, uid, gid)?;
    }
    let (egress, run_dir, cell, budget) = (spec.egress.clone(), spec.run_dir.clone(), spec.cell.clone(), spec.budget);
    let mut line = serde_json::to_vec(&Go { pid, spec }).unwrap_or_default();
    line.push(b'\n');
    let sent = release.write_all(&line).map_err(step("releasing the keeper"));
    zeroize::Zeroize::zeroize(&mut line);
    sent?;
    // While the keeper settles in.
    let group = groups.limit(group, &cell, pid, budget);
    let group = serde_json::to_vec(&group).unwrap_or_default();
    std::fs::write(run_dir.join(GROUP), &group).map_err(step("writing down which control group the cell has"))?;
    if let Some(egress) = egress {
        serve_egress(&release, pid, &run_dir, &egress)?;
    }
    release.write_all(&[&group[..], b"\n"].concat()).map_err(step("telling the keeper of its control group"))
}

/// A group's name before it is known for which cell it is; `group.json` says
/// later which it has.
fn name_for_now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("lazarus-{}-{}", std::process::id(), now.as_nanos())
}

/// Takes the cell's listening socket and starts the proxy for it: on this side
/// of the walls, where the network is. It ends with the keeper.
fn serve_egress(
    mut keeper: &UnixStream,
    pid: i32,
    run_dir: &std::path::Path,
    spec: &egress::Spec,
) -> Result<(), StepError> {
    // Without a socket the keeper failed, and says so by itself.
    let Ok(listener) = receive_descriptor(keeper) else { return Ok(()) };
    let started = || -> Result<(), String> {
        let pid = rustix::process::Pid::from_raw(pid).ok_or("the keeper has no pid")?;
        let keeper = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|e| format!("watching the keeper: {e}"))?;
        let program = std::path::Path::new("/proc/self/exe");
        let child = egress::start(program, spec, listener.as_fd(), Some(keeper.as_fd())).map_err(|e| e.to_string())?;
        std::fs::write(run_dir.join(EGRESS_PID), child.id().to_string()).map_err(|e| e.to_string())
    };
    let answer = started().map_or_else(Proxy::Failed, |()| Proxy::Serves);
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    keeper.write_all(&line).map_err(step("telling the keeper of the egress proxy"))
}

/// Opens the proxy's socket in the cell's own network, as the keeper, and has
/// the launcher serve it.
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

/// The keeper's whole life, as the launcher's child. Returns the exit status.
fn keep(walls: Walls, go: UnixStream) -> i32 {
    let settle = || -> Result<Option<Keeper>, StepError> {
        let prepared = Prepared::new(walls)?;
        // Without a whole line the launcher died, or nobody needs us.
        let mut heard = BufReader::new(&go);
        let Some(Go { pid, spec }) = read_line(&mut heard)? else { return Ok(None) };
        let opened = open(&spec, pid)?;
        if spec.egress.is_some() {
            open_egress(&go, &mut heard)?;
        }
        let group = || {
            let gone = || StepError {
                step: "hearing of the control group".to_owned(),
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

/// Opens what only the host's user can open, in the run directory.
fn open(spec: &LaunchSpec, pid: i32) -> Result<Opened, StepError> {
    let run_dir = &spec.run_dir;
    let io_step = |what: &str| {
        let step = format!("{what} in {}", run_dir.display());
        move |source: io::Error| StepError { step, source }
    };
    let made = |options: &mut std::fs::OpenOptions, name: &str| options.create(true).mode(0o600).open(name);
    // Relative names keep within the 108 bytes that a socket's path may have.
    std::env::set_current_dir(run_dir).map_err(io_step("entering"))?;
    let log = made(File::options().append(true), "keeper/keeper.log").map_err(io_step("opening keeper.log"))?;
    // SAFETY: both descriptors are open.
    unsafe { libc::dup2(log.as_raw_fd(), 2) };
    // What the daemon runs under (a service with `UMask=0077`, say) must not
    // decide who can read what in the cell.
    // SAFETY: integers alone.
    unsafe { libc::umask(0o022) };
    // As `ps` shows it; the kernel takes 15 bytes of it.
    if let Ok(name) = std::ffi::CString::new(spec.cell.as_str()) {
        // SAFETY: the string lives through the call.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
    // Held for as long as the keeper lives: nobody starts a second one, and
    // whoever can take it knows that the first is gone.
    let lock = made(File::options().truncate(false).write(true), "lock").map_err(io_step("opening the lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| StepError {
        step: format!("taking the lock in {}", run_dir.display()),
        source: io::Error::other("a keeper of this cell runs already"),
    })?;
    made(File::options().truncate(true).write(true), "keeper.pid")
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .map_err(io_step("writing keeper.pid"))?;
    match std::fs::remove_file("control.sock") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_step("removing the old control.sock")(e)),
        _ => {}
    }
    Ok(Opened {
        control: UnixListener::bind("control.sock").map_err(io_step("making control.sock"))?,
        // Its own directory, in which it may write: what the daemon wrote and
        // what was written here lies above it, out of its reach.
        run_dir: File::open("keeper").map_err(io_step("opening the keeper's directory"))?,
        _lock: lock,
    })
}
