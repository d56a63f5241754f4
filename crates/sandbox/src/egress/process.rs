//! The proxy's own process, `lazarus cell-egress`: how the daemon starts it and what it does until
//! it ends. It outlives the daemon and ends with its cell.
//!
//! The specification and the descriptors that the proxy needs come over its standard input, a unix
//! socket. So no token and no descriptor number appears on a command line, and the daemon can start
//! it with a plain `posix_spawn`, which passes on only the standard streams.

use super::proxy::{HostNetwork, Proxy, ProxyLimits};
use super::record::Record;
use super::rules::Rules;
use super::stream::Listener;
use super::token::Token;
use crate::sandbox::{become_user, drop_capabilities, drop_capability_bounds, no_new_privileges, not_dumpable};
use lazarus_core::hosts::HostName;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroize as _;

/// The lock file in the proxy's directory, locked while the proxy lives.
const LOCK: &str = "lock";
/// Longest specification that is accepted, in bytes.
const SPEC_MAX: u64 = 1 << 20;
/// How often the counters are written, if they changed.
const WRITE_EVERY: Duration = Duration::from_secs(3);
/// Threads for the system's resolver, which blocks.
const RESOLVERS: usize = 8;

/// The unprivileged user that a proxy started by root becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id, not 0.
    pub uid: u32,
    /// Group id, not 0.
    pub gid: u32,
}

/// Specification of one proxy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The cell's name, shown in the process list.
    pub cell: String,
    /// The token that a request must carry.
    pub token: Token,
    /// The hosts and addresses that may be reached.
    pub rules: Rules,
    /// An existing directory that only the proxy uses, for counters, refusals and the lock. When
    /// started by root, the proxy gives it to `user`.
    pub directory: PathBuf,
    /// The user to become. Required when started by root, ignored otherwise.
    #[serde(default)]
    pub user: Option<User>,
    /// Addresses of names that are not asked of the system's resolver.
    #[serde(default)]
    pub addresses: BTreeMap<HostName, Vec<IpAddr>>,
}

/// The single line that the proxy writes to its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "egress", rename_all = "snake_case")]
enum Ready {
    Serving,
    Failed { why: String },
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be started, or the connection to it failed.
    #[error("starting the egress proxy: {0}")]
    Io(#[from] io::Error),
    /// The proxy said why it cannot run.
    #[error("the egress proxy did not start: {0}")]
    Refused(String),
}

/// Starts a proxy and waits until it says that it serves.
///
/// `program` is this binary. `listener` is a listening TCP or unix socket, usually in the cell's
/// network namespace. `ends` is any descriptor that becomes readable, or whose other end closes,
/// when the cell ends: a pipe from the keeper, or the keeper's pidfd. Without it only SIGTERM ends
/// the proxy. The caller must reap the child, which does not end with the caller.
///
/// # Errors
/// If the proxy did not start. Nothing is left behind then.
pub fn start(
    program: &Path,
    spec: &Spec,
    listener: BorrowedFd<'_>,
    ends: Option<BorrowedFd<'_>>,
) -> Result<Child, StartError> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
    let mut command = Command::new(program);
    command.arg("cell-egress").env_clear();
    command.stdin(Stdio::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // The command still holds the proxy's end of the socket, and we wait for that end to close.
    drop(command);
    let said = say(&ours, spec, [Some(listener), ends]).and_then(|()| {
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(output.take(4096)).read_line(&mut line)?;
        serde_json::from_str::<Ready>(&line).map_err(|_| io::Error::other("it ended without saying why"))
    });
    let error = match said {
        Ok(Ready::Serving) => return Ok(child),
        Ok(Ready::Failed { why }) => StartError::Refused(why),
        Err(error) => error.into(),
    };
    let _ = child.kill();
    let _ = child.wait();
    Err(error)
}

fn say(socket: &OwnedFd, spec: &Spec, descriptors: [Option<BorrowedFd<'_>>; 2]) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().flatten().copied().collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let mut line = serde_json::to_vec(spec)?;
    line.push(b'\n');
    // Only the first byte carries the descriptors, so the rest may be split wherever the socket's
    // buffer ends.
    let sent = sendmsg(socket, &[IoSlice::new(&line[..1])], &mut control, SendFlags::NOSIGNAL);
    let done = match sent {
        Ok(_) => UnixStream::from(socket.try_clone()?).write_all(&line[1..]),
        Err(error) => Err(error.into()),
    };
    line.zeroize();
    done
}

/// Whether the proxy that was given this directory is alive.
pub fn lives(directory: &Path) -> bool {
    File::open(directory.join(LOCK))
        .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK))
}

/// Entry point of `lazarus cell-egress`. Must be called before any thread starts.
pub fn main() -> ExitCode {
    let answer = |ready: &Ready| {
        let mut line = serde_json::to_vec(ready).unwrap_or_default();
        line.push(b'\n');
        let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    };
    match settle() {
        Ok(settled) => {
            answer(&Ready::Serving);
            detach();
            settled.run();
            ExitCode::SUCCESS
        }
        Err(why) => {
            answer(&Ready::Failed { why });
            ExitCode::FAILURE
        }
    }
}

/// A proxy that is ready to serve, with no more rights than it needs.
struct Settled {
    runtime: tokio::runtime::Runtime,
    listener: Listener,
    ends: Option<OwnedFd>,
    proxy: Arc<Proxy>,
    record: Arc<Record>,
    _lock: File,
}

fn settle() -> Result<Settled, String> {
    let wrong = |what: &str| {
        let what = what.to_owned();
        move |error: &dyn std::fmt::Display| format!("{what}: {error}")
    };
    // Leaves the terminal's session: Ctrl-C there must end the daemon and not the cells.
    let _ = rustix::process::setsid();
    let (spec, mut descriptors) = hear().map_err(|e| {
        wrong("reading what to do from standard input, which has to be a unix socket (the daemon starts this)")(&e)
    })?;
    let _ = rustix::thread::set_name(&std::ffi::CString::new(spec.cell.as_str()).unwrap_or_default());
    not_dumpable().map_err(|e| e.to_string())?;
    no_new_privileges().map_err(|e| e.to_string())?;
    let ends = (descriptors.len() > 1).then(|| descriptors.remove(1));
    let listener = descriptors.pop().ok_or("no listening socket came with the specification")?;

    // Opened now, because the path may no longer be reachable once we are another user.
    let directory =
        rustix::fs::open(&spec.directory, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| wrong(&format!("opening the directory {}", spec.directory.display()))(&e))?;
    if rustix::process::geteuid().is_root() {
        let Some(User { uid, gid }) = spec.user.filter(|user| user.uid != 0 && user.gid != 0) else {
            return Err(
                "the egress proxy does not run as root: name the user and group that it is to become".to_owned()
            );
        };
        std::os::unix::fs::fchown(&directory, Some(uid), Some(gid))
            .map_err(|e| wrong(&format!("giving {} to user {uid}", spec.directory.display()))(&e))?;
        drop_capability_bounds();
        become_user(uid, gid).map_err(|e| e.to_string())?;
    }
    drop_capabilities().map_err(|e| e.to_string())?;
    // Changing the user may have made the process dumpable again.
    not_dumpable().map_err(|e| e.to_string())?;

    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = openat(&directory, LOCK, flags, Mode::from_raw_mode(0o600))
        .map_err(|e| wrong(&format!("making a lock in {}", spec.directory.display()))(&e))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("an egress proxy with the directory {} runs already", spec.directory.display()))?;
    let record = Record::in_directory(directory)
        .map_err(|e| wrong(&format!("making the record in {}", spec.directory.display()))(&e))?;
    let record = Arc::new(record);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVERS)
        .thread_stack_size(256 << 10)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(|e| wrong("starting the runtime")(&e))?;
    let listener = {
        let _entered = runtime.enter();
        Listener::from_descriptor(listener).map_err(|e| wrong("using the listening socket")(&e))?
    };
    let outside = Arc::new(HostNetwork { addresses: spec.addresses });
    let proxy = Arc::new(Proxy::new(spec.rules, &spec.token, Arc::clone(&record), outside, ProxyLimits::default()));
    Ok(Settled { runtime, listener, ends, proxy, record, _lock: lock.into() })
}

/// Reads the specification and the descriptors that come with it from standard input.
fn hear() -> io::Result<(Spec, Vec<OwnedFd>)> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut first = [0];
    recvmsg(&socket, &mut [IoSliceMut::new(&mut first)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let mut line = first.to_vec();
    BufReader::new(File::from(socket)).take(SPEC_MAX).read_until(b'\n', &mut line)?;
    let spec = serde_json::from_slice(&line).map_err(io::Error::other);
    line.zeroize();
    Ok((spec?, descriptors))
}

/// Drops every tie to the process that started this one.
fn detach() {
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    let _ = rustix::stdio::dup2_stderr(&null);
}

impl Settled {
    fn run(self) {
        let Self { runtime, listener, ends, proxy, record, _lock } = self;
        let writing = Arc::clone(&record);
        runtime.block_on(async move {
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(WRITE_EVERY);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    // A failed write is tried again the next time.
                    let _ = writing.write(false);
                }
            });
            proxy.serve(listener, until_the_end(ends)).await;
        });
        // Does not wait for a resolver that hangs.
        runtime.shutdown_background();
        let _ = record.write(true);
    }
}

/// Returns on SIGTERM, or when the cell has ended.
async fn until_the_end(ends: Option<OwnedFd>) {
    let told = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            // Without a handler SIGTERM ends the process by default.
            Err(_) => std::future::pending().await,
        }
    };
    let ended = async {
        let Some(ends) = ends else { return std::future::pending().await };
        let (ended, heard) = tokio::sync::oneshot::channel();
        // A thread, because the descriptor may be of any kind. It ends with the process.
        let waits = move || {
            let mut polled = [PollFd::new(&ends, PollFlags::IN)];
            while poll(&mut polled, None) == Err(rustix::io::Errno::INTR) {}
            let _ = ended.send(());
        };
        // If no thread can be started, the sender is dropped, which ends the proxy: a cell without
        // network is better than a proxy that nobody ends.
        let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(waits);
        let _ = heard.await;
    };
    tokio::select! {
        () = told => {}
        () = ended => {}
    }
}
