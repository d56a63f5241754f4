//! Starts one agent inside the cell: its init process, and its program.

use super::in_memory;
use super::init::sockets_in;
use super::log::Log;
use super::protocol::{EGRESS_AT, Enter, OBJECTS_IN_CELL};
use super::watch::HARVESTER;
use super::{LaunchSpec, SandboxKind, StartAgent, View};
use crate::sandbox::{
    Filter, Group, LandlockPaths, ProcessLimits, Sockets, StepError, apply_filter, attach, become_user,
    bwrap_arguments, clone_process, close_from, compile_filter, drop_capabilities, drop_capability_bounds, hide,
    hide_proc, in_memory, keep_to_processors, mount_proc, mount_tmpfs, name_home, no_new_privileges, not_dumpable,
    pick, read_only, restrict_landlock, set_limits,
};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Directory for agents' files that must lie outside their homes. No agent can have this name, and no agent sees
/// it.
const OUTSIDE_HOMES: &str = ".private";
/// The user and group id of agents inside a cell.
pub const AGENT_ID: u32 = 1000;
/// Most bytes of address space that one process may reserve if no control group counts its memory: 128 TiB, all
/// that a processor gives to one process (AddressSanitizer reserves 16 TiB of them, ThreadSanitizer more).
const ADDRESSES: u64 = 1 << 47;
/// Bytes of each agent's `/dev/shm`, and of its `/run`.
const SHARED_MEMORY: u64 = 64 << 20;
const RUN: u64 = 16 << 20;

/// Directories that programs expect in `/run`, with their modes: services keep their sockets there by default.
fn run_directories(uid: u32) -> [(String, u32); 4] {
    [
        (format!("user/{uid}"), 0o700),
        ("lock".to_owned(), 0o755),
        ("postgresql".to_owned(), 0o755),
        ("mysqld".to_owned(), 0o755),
    ]
}

/// A running agent.
pub struct Started {
    /// Pid of its init process, as the keeper sees it.
    pub pid: libc::pid_t,
    /// The pipe on which the init reports how the program ended.
    pub report: File,
    /// Isolation steps that were taken for it, in words.
    pub applied: Vec<String>,
}

fn io_step(step: &str) -> impl FnOnce(io::Error) -> StepError {
    let step = step.to_owned();
    move |source| StepError { step, source }
}

/// What is the same for all agents of a cell.
#[derive(Clone, Copy)]
pub struct InCell<'a> {
    /// The specification of the cell.
    pub spec: &'a LaunchSpec,
    /// The kind of sandbox that agents get.
    pub sandbox: SandboxKind,
    /// The cell's control group.
    pub group: &'a Group,
    /// The directory for logs.
    pub run_dir: &'a File,
    /// The system call filter for agents.
    pub filter: &'a Filter,
}

/// An agent's init that has made everything that is the same for all agents, and now waits for the order that says
/// which agent it is for.
pub struct Waiting {
    /// Its pid, as the keeper sees it.
    pub pid: libc::pid_t,
    order: io::PipeWriter,
    report: io::PipeReader,
    trouble: io::PipeReader,
}

/// Prewarms an agent's init, before there is an order for it.
pub fn prepare(cell: InCell<'_>) -> Result<Waiting, StepError> {
    let pipe = || io::pipe().map_err(io_step("making a pipe"));
    // Three pipes: one for the order; one for how the program ended; and one for what went wrong before `exec`,
    // which closes by itself when `exec` succeeds.
    let ((order_end, order), (report, report_end), (trouble, trouble_end)) = (pipe()?, pipe()?, pipe()?);
    let namespaces = cell.sandbox.namespaces;
    let flags = if namespaces { libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC } else { 0 };
    let pid = clone_process(flags)?;
    if pid == 0 {
        drop((order, report, trouble));
        let mut trouble_end = trouble_end;
        let status = match agent_init(cell, order_end, report_end, &mut trouble_end) {
            Ok(status) => status,
            Err(error) => {
                let _ = write!(trouble_end, "-{error}");
                127
            }
        };
        // SAFETY: ends this process at once; its destructors belong to the keeper.
        unsafe { libc::_exit(status) };
    }
    Ok(Waiting { pid, order, report, trouble })
}

impl Waiting {
    /// Starts an agent, and returns once its program's `exec` succeeded. If the init died before it read the order,
    /// the error's kind is `BrokenPipe`.
    pub fn begin(mut self, sandbox: SandboxKind, start: &StartAgent) -> Result<Started, StepError> {
        let mut order = serde_json::to_vec(start).unwrap_or_default();
        let sent = self.order.write_all(&order);
        zeroize::Zeroize::zeroize(&mut order);
        drop(self.order);
        let mut said = String::new();
        self.trouble.read_to_string(&mut said).map_err(io_step("waiting for the agent's start"))?;
        let gone = said.is_empty() && sent.is_err();
        if let (Err(error), true) = (&sent, gone) {
            said = format!("-the agent's init ended before it read the order: {error}");
        }
        if sandbox.bwrap && said.is_empty() {
            said = format!("-bwrap ended before the agent could begin; the log of {} says why", start.agent);
        }
        if let Some((_, why)) = said.split_once('-') {
            let mut status = 0;
            // SAFETY: our own child, not yet reaped; `status` lives through the call.
            unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            let kind = if gone { io::ErrorKind::BrokenPipe } else { io::ErrorKind::Other };
            return Err(StepError {
                step: format!("starting agent {}", start.agent),
                source: io::Error::new(kind, why.to_owned()),
            });
        }
        let applied = said.lines().map(str::to_owned).collect();
        Ok(Started { pid: self.pid, report: File::from(OwnedFd::from(self.report)), applied })
    }
}

/// The kind of process that an agent is started as.
#[derive(Clone, Copy)]
struct Kind<'a> {
    cell: InCell<'a>,
    start: &'a StartAgent,
}

/// The agent's init process: makes its view, starts the program, writes its log, and reaps what the program leaves
/// behind. When it ends, everything in its PID namespace ends.
fn agent_init(
    cell: InCell<'_>,
    mut order: io::PipeReader,
    mut report: io::PipeWriter,
    trouble: &mut io::PipeWriter,
) -> Result<i32, StepError> {
    let InCell { spec, sandbox, run_dir, .. } = cell;
    // SAFETY: resets the signals that the keeper blocked and ignored; the sets live through the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGTERM] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::setsid();
    }
    not_dumpable()?;
    if sandbox.namespaces {
        every_view(spec)?;
    } else {
        end_with_parent();
    }
    let mut line = vec![];
    order.read_to_end(&mut line).map_err(io_step("waiting for an order"))?;
    let start = serde_json::from_slice::<StartAgent>(&line);
    zeroize::Zeroize::zeroize(&mut line);
    // The pipe closed without an order: this init is not needed.
    let Ok(start) = start else { return Ok(0) };
    if sandbox.namespaces {
        own_view(spec, &start)?;
    }
    let kind = Kind { cell, start: &start };
    let (mut output, output_end) = io::pipe().map_err(io_step("making a pipe"))?;
    // SAFETY: a fork of a single-threaded process.
    let pid = clone_process(0)?;
    if pid == 0 {
        drop((report, output));
        let result = become_agent(kind, &output_end, trouble);
        if let Err(error) = result {
            let _ = write!(trouble, "-{error}");
        }
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(127) };
    }
    drop(output_end);
    // Only the program's own process may keep this pipe open.
    close_pipe(trouble);
    close_streams();
    let mut log = Log::new(run_dir, &start.agent, spec.log);
    let status = write_log_until_end(pid, &mut output, &mut log)?;
    let end = if libc::WIFSIGNALED(status) {
        format!("signal {}", libc::WTERMSIG(status))
    } else {
        format!("code {}", libc::WEXITSTATUS(status))
    };
    let _ = report.write_all(format!("{end} {}", log.dropped()).as_bytes());
    if !sandbox.namespaces {
        // Ends what the program left behind. Orphans already belong to the keeper and end with the cell.
        for pid in descendants() {
            signal(pid, libc::SIGKILL);
        }
    }
    Ok(0)
}

/// Writes the program's output to its log and reaps orphans until the program has ended and all its output is in
/// the log. Returns its wait status.
fn write_log_until_end(pid: libc::pid_t, output: &mut io::PipeReader, log: &mut Log<'_>) -> Result<i32, StepError> {
    rustix::io::ioctl_fionbio(&*output, true).map_err(StepError::of("reading what the agent prints"))?;
    // SAFETY: the sets live through the calls, and the descriptor is ours. SIGTERM is not handled here: the program
    // receives it itself.
    let children = unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(StepError::last("watching for the agent's end"));
        }
        File::from_raw_fd(fd)
    };
    let mut buffer = [0; 8 << 10];
    let output_fd = output.as_raw_fd();
    // Reads up to `most` bytes; at the end at most what is still in the pipe.
    let mut take = |most: usize| {
        let mut taken = 0;
        while taken < most {
            match output.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => {
                    log.write(&buffer[..read]);
                    taken += read;
                }
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    };
    let mut open = true;
    loop {
        let mut ended = None;
        loop {
            let mut status = 0;
            // SAFETY: waits for any child without blocking; `status` lives through the call.
            let child = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if child <= 0 {
                break;
            }
            if child == pid {
                ended = Some(status);
            }
        }
        if let Some(status) = ended {
            take(1 << 20);
            return Ok(status);
        }
        let mut polled = [
            libc::pollfd { fd: children.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: if open { output_fd } else { -1 }, events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: the array lives through the call, and its length is passed.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
        if polled[0].revents != 0 {
            // SAFETY: signalfd_siginfo is plain data, read with its exact size.
            unsafe {
                let mut info: libc::signalfd_siginfo = std::mem::zeroed();
                libc::read(children.as_raw_fd(), (&raw mut info).cast(), std::mem::size_of_val(&info));
            }
        }
        if polled[1].revents != 0 {
            open = take(64 << 10);
        }
    }
}

fn close_pipe(pipe: &mut io::PipeWriter) {
    // Replaced and not dropped, because the caller still owns it.
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        // SAFETY: both descriptors are open and ours.
        unsafe { libc::dup3(null.as_raw_fd(), pipe.as_raw_fd(), libc::O_CLOEXEC) };
    }
}

fn close_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for fd in 0..3 {
            // SAFETY: both descriptors are open.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
    }
}

/// Without a PID namespace, nothing else would end this process when the keeper ends.
fn end_with_parent() {
    // SAFETY: prctl with integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}

/// Makes the mounts that are the same for all agents: a `/tmp`, `/run`, shared memory and `/proc` of its own.
/// Nobody else sees them, because the keeper made all mounts of the cell private.
fn every_view(spec: &LaunchSpec) -> Result<(), StepError> {
    for (place, bytes) in [("/tmp", spec.tmp), ("/dev/shm", SHARED_MEMORY)] {
        mount_tmpfs(Path::new(place), "1777", bytes)?;
    }
    // `/run` is for sockets and locks, and the binary stays visible in it at `/run/lazarus`.
    let own = pick(Path::new("/run/lazarus"))?;
    mount_tmpfs(Path::new("/run"), "1777", RUN)?;
    attach(&own, Path::new("/run/lazarus"), false, false)?;
    for (name, mode) in run_directories(AGENT_ID) {
        let place = Path::new("/run").join(name);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&place).and_then(|()| {
            if spec.id_base.is_some() {
                std::os::unix::fs::chown(&place, Some(AGENT_ID), Some(AGENT_ID))?;
            }
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode))
        });
        made.map_err(io_step(&format!("making {}", place.display())))?;
    }
    mount_proc(Path::new("/proc"))?;
    hide_proc()
}

/// Makes the mounts for this agent: shows its home and no other, and makes all that it may not write read-only.
fn own_view(spec: &LaunchSpec, start: &StartAgent) -> Result<(), StepError> {
    let home = Path::new("/cell/home").join(&start.agent);
    let place = if spec.in_memory && start.agent != HARVESTER {
        in_memory::make_home(&start.agent, AGENT_ID)?
    } else {
        Path::new("/.homes").join(&start.agent)
    };
    attach(&pick(&place)?, &home, true, false)?;
    name_home(&home)?;
    hide(Path::new("/.homes"))?;
    if spec.in_memory {
        hide(Path::new(in_memory::ROOM))?;
    }
    if start.view == View::Observe {
        read_only(Path::new("/cell/project"), true)?;
        read_only(Path::new("/cell/work"), true)?;
        read_only(Path::new("/cell/shared"), true)?;
    }
    read_only(Path::new("/"), false)
}

/// Sets user, limits and streams; then either runs `bwrap`, which makes the sandbox, or takes the last steps
/// itself.
fn become_agent(kind: Kind<'_>, output: &io::PipeWriter, trouble: &mut io::PipeWriter) -> Result<(), StepError> {
    let Kind { cell: InCell { spec, sandbox, group, filter, .. }, start } = kind;
    let c = |text: &str| {
        CString::new(text).map_err(|_| StepError {
            step: "preparing the agent's arguments".to_owned(),
            source: io::Error::other("an argument contains a NUL byte"),
        })
    };
    let argv: Vec<CString> = start.argv.iter().map(|a| c(a)).collect::<Result<_, _>>()?;
    // The proxy's token enters the cell only here.
    let way_out = spec.egress.as_ref().map(|egress| egress.token.environment(EGRESS_AT)).unwrap_or_default();
    let own = start.env.iter().filter(|(name, _)| !way_out.iter().any(|(n, _)| n == name));
    let env: Vec<CString> =
        own.chain(&way_out).map(|(name, value)| c(&format!("{name}={value}"))).collect::<Result<_, _>>()?;
    set_limits(ProcessLimits {
        // Runtimes and sanitizers reserve terabytes of address space that they never use. The keeper counts memory
        // in use; this limit only stops what cannot be intended.
        data: (!group.memory).then_some(ADDRESSES),
        // If the group counts processes, it also records that it refused some, so no second limit is set.
        processes: spec.limits.processes.filter(|_| !group.processes),
        ..spec.limits
    })?;
    if sandbox.pinned {
        let pick = spec.cell.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        keep_to_processors(spec.resources.cpu.div_ceil(1000), pick)?;
    }
    // The bounding set can only be emptied while this process still has the privilege.
    drop_capability_bounds();
    if let Some(base) = spec.id_base {
        let id = if sandbox.namespaces { AGENT_ID } else { base + 1 };
        // The agent must own its stream to be able to reopen `/dev/stdout`.
        std::os::unix::fs::fchown(output, Some(id), Some(id)).map_err(io_step("giving the agent its streams"))?;
        become_user(id, id)?;
    }
    if !sandbox.namespaces {
        end_with_parent();
    }
    let stdin = start.stdin.as_deref().unwrap_or(Path::new("/dev/null"));
    // This path is given as the agent sees it, but is opened before the agent's view exists, so it is translated.
    let stdin = match stdin.strip_prefix("/cell") {
        Ok(below) if sandbox.bwrap => spec.home.join(below),
        _ => stdin.to_owned(),
    };
    let stdin = File::open(&stdin).map_err(io_step(&format!("opening {} as standard input", stdin.display())))?;
    for (from, to) in [(stdin.as_raw_fd(), 0), (output.as_raw_fd(), 1), (output.as_raw_fd(), 2)] {
        // SAFETY: both descriptors are open.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(StepError::last("connecting the agent's streams"));
        }
    }
    std::mem::forget(stdin);
    // SAFETY: passes only an integer.
    unsafe { libc::umask(0o022) };
    let path = start.env.iter().find(|(n, _)| n == "PATH").map(|(_, v)| v.as_str());
    if let Some(bwrap) = &spec.bwrap {
        return become_bwrap(kind, bwrap, &env, trouble);
    }
    if let Some((_, own)) = start.env.iter().find(|(name, _)| name == "TMPDIR")
        && Path::new(own).parent() == start.env.iter().find(|(name, _)| name == "HOME").map(|(_, home)| Path::new(home))
    {
        // An earlier run may have removed it. It lies in a directory that the agent controls, so we create it with
        // the agent's rights and ignore a failure.
        let _ = std::fs::create_dir(own);
    }
    std::env::set_current_dir(&start.cwd).map_err(io_step(&format!("entering {}", start.cwd.display())))?;
    let tracing = start.ptrace && sandbox.namespaces;
    let own_filter = tracing.then(|| compile_filter(sockets_in(sandbox), sandbox.pinned, true)).transpose()?;
    if tracing {
        let _ = writeln!(trouble, "tracing of its own processes, as the profile of {} says", start.agent);
    }
    last_steps(&start.paths, sandbox, own_filter.as_ref().unwrap_or(filter), trouble, || exec(&argv, &env, path))
}

/// Runs `bwrap` to make this agent's sandbox; `lazarus cell-enter` takes the remaining steps inside it.
fn become_bwrap(kind: Kind<'_>, bwrap: &Path, env: &[CString], trouble: &mut io::PipeWriter) -> Result<(), StepError> {
    let Kind { cell: InCell { spec, sandbox, .. }, start } = kind;
    let work = start.view == View::Work;
    let mut binds = vec![
        (spec.home.join(".lazarus"), "/cell/.lazarus".into(), false),
        (spec.home.join("project"), "/cell/project".into(), work),
        (spec.home.join("work"), "/cell/work".into(), work),
        (spec.home.join("shared"), "/cell/shared".into(), work),
        (spec.home.join("home").join(&start.agent), Path::new("/cell/home").join(&start.agent), true),
        (spec.program.clone(), PathBuf::from("/run/lazarus/lazarus"), false),
    ];
    if let Some(objects) = &spec.objects {
        binds.push((objects.clone(), OBJECTS_IN_CELL.into(), false));
    }
    // A setuid `bwrap` cannot limit the size of a tmpfs, so these directories are on the disk and count as the
    // cell's. They lie beside the agents' homes and not in one: an agent could leave a link in its home, which
    // `bwrap` would follow in the next run.
    let mut places = vec![("/tmp".to_owned(), "tmp".to_owned()), ("/dev/shm".to_owned(), "shm".to_owned())];
    // SAFETY: takes no arguments.
    let uid = unsafe { libc::geteuid() };
    for (name, _) in run_directories(uid) {
        places.push((format!("/run/{name}"), format!("run-{}", name.replace('/', "-"))));
    }
    for (place, name) in places {
        let own = spec.home.join("home").join(OUTSIDE_HOMES).join(&start.agent).join(name);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&own)
            .map_err(io_step(&format!("making {}", own.display())))?;
        binds.push((own, place.into(), true));
    }
    let home = Path::new("/cell/home").join(&start.agent);
    let (mut words, open) =
        bwrap_arguments(&spec.cell, &home, &binds, &spec.read_paths, &spec.hidden, sandbox.host_network)?;
    if let Some((name, value)) = start.env.iter().find(|(name, _)| name == "TMPDIR") {
        // The dynamic linker removes it from a setuid program's environment (ld.so(8), secure-execution mode).
        words.extend(["--setenv", name, value].map(str::to_owned));
    }
    let enter = Enter {
        argv: start.argv.clone(),
        cwd: start.cwd.clone(),
        paths: start.paths.clone(),
        sandbox,
        ptrace: start.ptrace,
    };
    let enter = in_memory(&serde_json::to_string(&enter).unwrap_or_default())?;
    let said = trouble.as_raw_fd();
    words.extend(["--", "/run/lazarus/lazarus", "cell-enter"].map(str::to_owned));
    words.extend([enter.as_raw_fd().to_string(), said.to_string()]);
    // SAFETY: the descriptor is ours; it must stay open for `cell-enter`.
    unsafe { libc::fcntl(said, libc::F_SETFD, 0) };
    let argv: Vec<CString> =
        std::iter::once(bwrap.display().to_string()).chain(words).filter_map(|word| CString::new(word).ok()).collect();
    let error = exec(&argv, env, None);
    drop(open);
    Err(StepError { step: format!("running {}", bwrap.display()), source: error })
}

/// `lazarus cell-enter WHAT SAY`: the descriptor numbers of the [`Enter`](super::Enter) to read and of the pipe on
/// which errors are reported. Returns only if it failed.
pub fn enter(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> i32 {
    let mut number = || arguments.next().and_then(|a| a.to_str()?.parse::<i32>().ok()).filter(|n| *n > 2);
    let (Some(what), Some(say)) = (number(), number()) else { return 2 };
    // SAFETY: the parent opened both descriptors for this process, and nothing else uses them.
    let (mut what, mut trouble) = unsafe { (File::from_raw_fd(what), io::PipeWriter::from(OwnedFd::from_raw_fd(say))) };
    let mut result = || -> Result<(), StepError> {
        let mut text = String::new();
        what.read_to_string(&mut text).map_err(io_step("reading what to enter"))?;
        let Enter { argv, cwd, paths, sandbox, ptrace } =
            serde_json::from_str(&text).map_err(|e| io_step("reading what to enter")(io::Error::other(e)))?;
        let sockets = if sandbox.host_network { Sockets::Internet } else { Sockets::All };
        let filter = compile_filter(sockets, sandbox.pinned, ptrace)?;
        if ptrace {
            let _ = writeln!(trouble, "tracing of its own processes, as its profile says");
        }
        let words =
            |list: Vec<String>| -> Vec<CString> { list.into_iter().filter_map(|w| CString::new(w).ok()).collect() };
        let env = std::env::vars_os().filter_map(|(name, value)| {
            let pair = [name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat();
            CString::new(pair).ok()
        });
        let (argv, env) = (words(argv), env.collect::<Vec<_>>());
        let path = std::env::var("PATH").ok();
        std::env::set_current_dir(&cwd).map_err(io_step(&format!("entering {}", cwd.display())))?;
        last_steps(&paths, sandbox, &filter, &mut trouble, || exec(&argv, &env, path.as_deref()))
    };
    if let Err(error) = result() {
        let _ = write!(trouble, "-{error}");
    }
    127
}

/// Takes the irreversible steps: drops capabilities, applies Landlock and the filter, and runs the program.
fn last_steps(
    paths: &LandlockPaths,
    sandbox: SandboxKind,
    filter: &Filter,
    trouble: &mut io::PipeWriter,
    exec: impl FnOnce() -> io::Error,
) -> Result<(), StepError> {
    drop_capabilities()?;
    no_new_privileges()?;
    let landlock = restrict_landlock(paths)?;
    match landlock {
        Some(how) => {
            let _ = writeln!(trouble, "Landlock ({how})");
        }
        // Without Landlock, namespaces alone are less than `level_2` promises.
        None if sandbox.namespaces || sandbox.bwrap => {
            return Err(StepError {
                step: "restricting by Landlock".to_owned(),
                source: io::Error::other("the kernel does not offer it"),
            });
        }
        None => {}
    }
    // The pipe for errors stays open so that a failing `exec` can be reported, and closes by itself when `exec`
    // succeeds. Every other descriptor is closed.
    let keep = trouble.as_raw_fd();
    // SAFETY: both descriptors are ours, and 3 is not used for anything else afterwards.
    unsafe {
        if keep == 3 {
            libc::fcntl(keep, libc::F_SETFD, libc::FD_CLOEXEC);
        } else {
            libc::dup3(keep, 3, libc::O_CLOEXEC);
        }
    }
    close_from(4);
    // SAFETY: descriptor 3 is the pipe, as of the lines above.
    let mut trouble = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(3) });
    if let Err(error) = apply_filter(filter) {
        let _ = write!(trouble, "-{error}");
        return Ok(());
    }
    let error = exec();
    let _ = write!(trouble, "-{error}");
    Ok(())
}

/// Runs `execve` along the agent's own PATH. Returns only if it failed.
fn exec(argv: &[CString], env: &[CString], path: Option<&str>) -> io::Error {
    let Some(program) = argv.first() else { return io::Error::other("there is no program to run") };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (arguments, environment) = (pointers(argv), pointers(env));
    let name = program.to_string_lossy();
    let path = path.unwrap_or("/usr/bin:/bin");
    let candidates: Vec<CString> = if name.contains('/') {
        vec![program.clone()]
    } else {
        path.split(':').filter_map(|d| CString::new(format!("{d}/{name}")).ok()).collect()
    };
    let mut last = None;
    for candidate in candidates {
        let file = candidate.to_string_lossy().into_owned();
        if let Err(missing) = interpreter_of(Path::new(&file), path) {
            last = Some(io::Error::other(format!("running {file}: {missing}")));
            continue;
        }
        // SAFETY: both arrays end with NULL, and their strings outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        let error = io::Error::last_os_error();
        // If the file exists, the kernel misses something that the file needs.
        let there = Path::new(&file).exists();
        if error.raw_os_error() == Some(libc::ENOENT) && there {
            let what = format!("the loader that it names {NOT_IN_CELL}");
            last = Some(io::Error::other(format!("running {file}: {what}")));
        } else if error.raw_os_error() != Some(libc::ENOENT) {
            last = Some(io::Error::new(error.kind(), format!("running {file}: {error}")));
        }
    }
    last.unwrap_or_else(|| {
        let places = if name.contains('/') { String::new() } else { format!("; it was looked for in {path}") };
        io::Error::other(format!("the program {name} {NOT_IN_CELL}{places}"))
    })
}

/// Words of an error by which the daemon recognises that a program, or something it needs, is not visible in the
/// cell.
pub const NOT_IN_CELL: &str = "is not in the cell";

/// Checks that a script's interpreter exists, and also what `env` in its first line would look up along `path`.
fn interpreter_of(file: &Path, path: &str) -> Result<(), String> {
    let mut start = [0; 256];
    let Ok(read) = File::open(file).and_then(|mut file| file.read(&mut start)) else { return Ok(()) };
    let Some(line) = start[..read].strip_prefix(b"#!") else { return Ok(()) };
    let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned();
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else { return Ok(()) };
    if !Path::new(interpreter).exists() {
        return Err(format!("its interpreter {interpreter} {NOT_IN_CELL}"));
    }
    if Path::new(interpreter).file_name().is_some_and(|name| name == "env") {
        let wanted = words.find(|word| !word.starts_with('-') && !word.contains('='));
        if let Some(wanted) = wanted.filter(|wanted| !wanted.contains('/'))
            && !path.split(':').any(|directory| Path::new(directory).join(wanted).exists())
        {
            return Err(format!("its interpreter {wanted} {NOT_IN_CELL}; it was looked for in {path}"));
        }
    }
    Ok(())
}

/// How an agent's program ended, as its init reported it.
#[derive(Clone, Copy)]
pub struct Report {
    /// Exit status, if the program exited.
    pub code: Option<i32>,
    /// Signal number, if a signal ended it.
    pub signal: Option<i32>,
    /// Bytes of output that the log did not keep.
    pub dropped: u64,
}

/// Parses the report of an agent's init. `None` if it is not a report.
pub fn parse_report(text: &str) -> Option<Report> {
    let mut words = text.split(' ');
    let (kind, number) = (words.next()?, words.next()?.parse().ok()?);
    let dropped = words.next()?.parse().ok()?;
    match kind {
        "code" => Some(Report { code: Some(number), signal: None, dropped }),
        "signal" => Some(Report { code: None, signal: Some(number), dropped }),
        _ => None,
    }
}

/// Every process of this PID namespace except the first.
pub fn others() -> Vec<libc::pid_t> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|pid| *pid != 1).collect()
}

/// Signals a process that was a descendant of this one, if it still is: the kernel reuses pids.
pub fn signal(pid: libc::pid_t, signal: libc::c_int) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let (Some(found), Some(signal)) = (Pid::from_raw(pid), Signal::from_named_raw(signal)) else { return };
    let Ok(fd) = pidfd_open(found, PidfdFlags::empty()) else { return };
    // SAFETY: takes no arguments.
    let own = unsafe { libc::getpid() };
    let mut above = pid;
    while above > 1 && above != own {
        above = parent_of(above).unwrap_or(0);
    }
    if above == own {
        let _ = pidfd_send_signal(&fd, signal);
    }
}

fn parent_of(pid: libc::pid_t) -> Option<libc::pid_t> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain any character, so the fields are read after its last parenthesis.
    stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok())
}

/// Every descendant of this process that `/proc` shows, children before their parents.
pub fn descendants() -> Vec<libc::pid_t> {
    let mut parents: Vec<(libc::pid_t, libc::pid_t)> = vec![];
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if let Some(parent) = parent_of(pid) {
            parents.push((pid, parent));
        }
    }
    // SAFETY: takes no arguments.
    let mut found = vec![unsafe { libc::getpid() }];
    let mut index = 0;
    while index < found.len() {
        let parent = found[index];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        index += 1;
    }
    found.remove(0);
    found
}

/// Leaves the standard streams and the session that the keeper was started with.
pub fn detach_streams() {
    // SAFETY: passes no pointers. It fails harmlessly if this process leads a session already, as the first process
    // of a namespace may.
    unsafe { libc::setsid() };
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for fd in 0..2 {
            // SAFETY: both descriptors are open.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
    }
}
