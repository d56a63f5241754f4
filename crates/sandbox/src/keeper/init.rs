//! The keeper itself: the first process of the cell.

use super::agent::{self, InCell, Started, Waiting};
use super::in_memory;
use super::protocol::{EGRESS_AT, OBJECTS_IN_CELL};
use super::watch::{self, End, HARVESTER, LimitHit, Watch};
use super::{AgentState, Event, ExitRecord, LaunchSpec, LimitsHit, Order, SandboxKind};
use crate::sandbox::{
    Doorkeeper, Filter, Group, Sockets, StepError, System, become_user, build_root, compile_filter, loopback_up,
    new_cgroup_namespace, no_new_privileges, not_dumpable, pick_system, pivot, private, set_hostname, subreaper,
};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most times that the process list is read again to end processes that were forked meanwhile.
const ROUNDS_MAX: usize = 100;
/// Longest order that is read, in bytes. An environment with keys is the largest part of one.
const ORDER_MAX: usize = 1 << 20;

/// What was opened while the host's paths were still reachable.
pub struct Opened {
    /// The control socket, listening.
    pub control: UnixListener,
    /// The run directory, for logs and the exit record.
    pub run_dir: File,
    /// A lock that is held while the keeper lives.
    pub _lock: File,
}

struct Running {
    state: AgentState,
    /// Pid of the agent's init, as this keeper sees it; 0 once it has ended.
    pid: libc::pid_t,
    /// The pipe on which the init reports how its program ended.
    report: Option<File>,
}

struct Client {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    /// The client disconnected; it is removed at the end of the round.
    gone: bool,
}

/// What a keeper has done before it is told which cell it is for.
pub struct Prepared {
    sandbox: SandboxKind,
    applied: Vec<String>,
    filter: Filter,
    system: Option<System>,
    doorkeeper: Doorkeeper,
}

impl Prepared {
    /// Takes the steps that are the same for every cell.
    pub fn new(sandbox: SandboxKind) -> Result<Self, StepError> {
        let (mut applied, mut system) = (vec![], None);
        // Must happen while the host's `/proc` is still mounted.
        let doorkeeper = if sandbox.namespaces { Doorkeeper::of_a_cell() } else { Doorkeeper::of_the_daemon() };
        let doorkeeper = doorkeeper
            .map_err(|source| StepError { step: "reading from /proc which process we are".to_owned(), source })?;
        let network = match sandbox {
            SandboxKind { host_network: false, namespaces, bwrap, .. } if namespaces || bwrap => {
                "a network namespace with loopback alone"
            }
            SandboxKind { host_network: true, .. } => "the host's network, as policy says",
            SandboxKind { .. } => "no sockets at all, as there is no network namespace to keep them in",
        };
        if sandbox.namespaces {
            private()?;
            system = Some(pick_system()?);
            set_hostname()?;
            if !sandbox.host_network {
                loopback_up()?;
            }
            applied.push("user, mount, PID, IPC, UTS and cgroup namespaces; a root of its own".to_owned());
        } else {
            subreaper()?;
            if sandbox.bwrap {
                applied
                    .push("user, mount, PID, IPC, UTS and cgroup namespaces for each agent, made by bwrap".to_owned());
            }
        }
        applied.push(network.to_owned());
        let filter = compile_filter(sockets_in(sandbox), sandbox.pinned, false)?;
        applied.push("a system call allow-list for agents".to_owned());
        Ok(Self { sandbox, applied, filter, system, doorkeeper })
    }
}

/// The kinds of sockets that agents may create.
pub fn sockets_in(sandbox: SandboxKind) -> Sockets {
    match sandbox {
        SandboxKind { namespaces, bwrap, .. } if namespaces || bwrap => Sockets::All,
        SandboxKind { host_network: true, .. } => Sockets::Internet,
        SandboxKind { .. } => Sockets::None,
    }
}

/// The keeper of one cell: the process that owns the cell's processes. Containerd calls its counterpart a shim.
pub struct Keeper {
    spec: LaunchSpec,
    sandbox: SandboxKind,
    opened: Opened,
    applied: Vec<String>,
    filter: Filter,
    doorkeeper: Doorkeeper,
    agents: Vec<Running>,
    clients: Vec<Client>,
    /// The first agent's init, prewarmed before there is an order for it.
    waiting: Option<Waiting>,
    group: Group,
    /// Watches what agents use, or what the harvest uses while it runs.
    watch: Watch,
    harvest_watch: Watch,
    met: LimitsHit,
    signals: File,
    looked: Instant,
    stopping: Option<Instant>,
    killed: bool,
}

impl Keeper {
    /// Takes every remaining step into the cell, in order.
    ///
    /// `group` waits for the launcher's message about the cell's control group.
    pub fn settle_in(
        prepared: Prepared,
        spec: LaunchSpec,
        group: impl FnOnce() -> Result<Group, StepError>,
        opened: Opened,
    ) -> Result<Self, StepError> {
        let Prepared { mut sandbox, mut applied, mut filter, system, doorkeeper } = prepared;
        not_dumpable()?;
        if let Some(system) = system {
            let mut binds: Vec<(PathBuf, PathBuf, bool)> = vec![
                (spec.home.join(".lazarus"), "/cell/.lazarus".into(), false),
                (spec.home.join("shared"), "/cell/shared".into(), true),
                // Each agent later sees only its own home; see `agent`.
                (spec.home.join("home"), "/.homes".into(), true),
                (spec.program.clone(), "/run/lazarus/lazarus".into(), false),
            ];
            for name in ["project", "work"] {
                let place = if spec.in_memory { in_memory::ON_DISK } else { "/cell" };
                binds.push((spec.home.join(name), Path::new(place).join(name), !spec.in_memory));
            }
            if let Some(objects) = &spec.objects {
                binds.push((objects.clone(), OBJECTS_IN_CELL.into(), false));
            }
            let id_base = spec.id_base;
            let root = build_root(system, &spec.cell, &binds, &spec.read_paths, &spec.hidden, || {
                if id_base.is_some() { become_user(0, 0) } else { Ok(()) }
            })?;
            // Changing the user may have made the process dumpable again.
            not_dumpable()?;
            pivot(&root)?;
            if spec.in_memory {
                in_memory::fill(spec.room)?;
                applied.push("project and homes in memory: they are gone with the cell's first process".to_owned());
            }
        }
        let group = group()?;
        if sandbox.namespaces {
            // Only now: the namespace's root is the group that the process is in, and it must be the cell's.
            new_cgroup_namespace()?;
        }
        if !group.cpu && !sandbox.pinned {
            // A limit by control group was expected and could not be had, so we fall back to pinning.
            sandbox.pinned = true;
            filter = compile_filter(sockets_in(sandbox), true, false)?;
        }
        applied.push("non-dumpable first process".to_owned());
        if !sandbox.bwrap {
            // With bwrap a setuid program makes the sandbox, and it sets `no_new_privs` itself.
            no_new_privileges()?;
        }
        applied.push("no_new_privs, no capabilities".to_owned());
        if let Some(egress) = &spec.egress {
            applied.push(format!("a proxy to named hosts at {EGRESS_AT}: {}", egress.rules.words()));
        }
        applied.push(limits_words(&spec, &group, sandbox));
        if let Some(why) = &group.refused {
            applied.push(format!("no control group: {why}"));
        }
        let roots: Vec<PathBuf> = if sandbox.namespaces {
            ["/cell/project", "/cell/work", "/cell/shared", "/.homes"].map(PathBuf::from).into()
        } else {
            ["project", "work", "shared", "home"].map(|name| spec.home.join(name)).into()
        };
        let own_count = sandbox.namespaces || spec.id_base.is_some();
        let harvest_home = roots[3].join(HARVESTER);
        // Everything else is in a tmpfs that already has exactly that size.
        let roots = if spec.in_memory { vec![PathBuf::from("/cell/shared")] } else { roots };
        let watch = Watch::new(&spec, roots, spec.room, &group, own_count);
        let harvest_watch = Watch::new(&spec, vec![harvest_home], spec.harvest_room, &group, own_count);
        let signals = signal_descriptor()?;
        opened
            .control
            .set_nonblocking(true)
            .map_err(|source| StepError { step: "listening on the control socket".to_owned(), source })?;
        Ok(Self {
            spec,
            sandbox,
            opened,
            applied,
            filter,
            doorkeeper,
            agents: vec![],
            clients: vec![],
            waiting: None,
            group,
            watch,
            harvest_watch,
            met: LimitsHit::default(),
            signals,
            looked: Instant::now(),
            stopping: None,
            killed: false,
        })
    }

    /// The isolation steps that were taken, in words.
    pub fn applied(&self) -> &[String] {
        &self.applied
    }

    /// Serves the cell until it is told to end. Returns the exit status.
    pub fn run(mut self) -> i32 {
        // Drops the ties to the process that started us: its standard streams and its session.
        agent::detach_streams();
        if self.sandbox.namespaces {
            // Prewarms the first agent's init while the daemon prepares its order. If this fails, the order itself
            // will fail and report why.
            self.waiting = agent::prepare(self.in_cell()).ok();
        }
        loop {
            let mut polled = vec![poll_on(self.signals.as_raw_fd()), poll_on(self.opened.control.as_raw_fd())];
            polled.extend(self.clients.iter().map(|c| poll_on(c.stream.as_raw_fd())));
            let timeout = match self.stopping {
                Some(_) if self.killed => 20,
                Some(at) => at.saturating_duration_since(Instant::now()).as_millis() as libc::c_int,
                None => self.look_every().map_or(-1, |every| every.as_millis() as libc::c_int),
            };
            // SAFETY: the array lives through the call, and its length is passed.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
            if ready < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return 1;
            }
            if polled[0].revents != 0 {
                self.take_signals();
            }
            self.reap();
            if polled[1].revents != 0 {
                self.accept();
            }
            // New clients are appended after those that were polled.
            for (index, poll) in polled[2..].iter().enumerate() {
                if poll.revents != 0 && !self.serve(index) {
                    self.clients[index].gone = true;
                }
            }
            self.clients.retain(|client| !client.gone);
            if self.look_every().is_some_and(|every| self.looked.elapsed() >= every) {
                self.look();
            }
            if let Some(deadline) = self.stopping {
                if Instant::now() >= deadline || self.killed {
                    self.signal_all(libc::SIGKILL);
                    self.killed = true;
                }
                self.reap();
                if Self::is_empty() {
                    return self.finish();
                }
            }
        }
    }

    /// Whether a harvest is running. Agents are frozen then, or have ended.
    fn harvests(&self) -> bool {
        self.agents.iter().any(|a| a.pid > 0 && a.state.agent == HARVESTER)
    }

    /// How often to check usage; `None` if there is nothing to check.
    fn look_every(&self) -> Option<Duration> {
        if self.stopping.is_some() {
            return None;
        }
        if self.harvests() {
            return Some(self.harvest_watch.every());
        }
        // Without a PID namespace, an agent that ended may have left processes.
        let some = self.agents.iter().any(|a| a.pid > 0) || !(self.sandbox.namespaces || Self::is_empty());
        some.then(|| self.watch.every())
    }

    /// Checks whether the cell exceeds a limit, and ends the processes that do.
    fn look(&mut self) {
        let namespaces = self.sandbox.namespaces;
        let processes = || if namespaces { agent::others() } else { agent::descendants() };
        let harvests = self.harvests();
        if self.spec.in_memory
            && !harvests
            && let Some(limit) = in_memory::full()
        {
            self.note_hit(limit, "the file system in memory is full; more was refused".to_owned());
        }
        let found = if harvests { &mut self.harvest_watch } else { &mut self.watch }.look(processes);
        self.looked = Instant::now();
        let Some(LimitHit { limit, words, end }) = found else { return };
        match end {
            End::One(pid) => agent::signal(pid, libc::SIGKILL),
            // During a harvest, only the harvest ends: agents' earlier use, and what they do to the harvest, must
            // not end agents.
            End::All if harvests => {
                for running in self.agents.iter_mut().filter(|a| a.pid > 0 && a.state.agent == HARVESTER) {
                    running.state.note = Some(format!("ended by the limit of {limit}: {words}"));
                    // SAFETY: our own child, not yet reaped.
                    unsafe { libc::kill(running.pid, libc::SIGKILL) };
                }
                return;
            }
            End::All => {
                for running in self.agents.iter_mut().filter(|a| a.pid > 0) {
                    running.state.note = Some(format!("ended by the limit of {limit}: {words}"));
                }
                self.signal_all(libc::SIGKILL);
            }
            End::Nothing => {}
        }
        self.note_hit(limit, words);
    }

    fn note_hit(&mut self, limit: &str, words: String) {
        self.met.0.insert(limit.to_owned(), words);
        // If this cannot be written, the close log says less; nothing else depends on it.
        let _ = watch::write_hits(&self.opened.run_dir, &self.met);
    }

    fn take_signals(&mut self) {
        // SAFETY: signalfd_siginfo is plain data for which zero is a valid value.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of::<libc::signalfd_siginfo>();
        loop {
            // SAFETY: the buffer is `info`, with exactly that size.
            let read = unsafe { libc::read(self.signals.as_raw_fd(), (&raw mut info).cast(), size) };
            if read != size as isize {
                return;
            }
            if info.ssi_signo == libc::SIGTERM as u32 {
                self.stop(Duration::from_secs(5));
            }
        }
    }

    fn stop(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.stopping = Some(self.stopping.map_or(deadline, |now| now.min(deadline)));
        // Frozen processes receive SIGTERM only when they continue.
        self.signal_all(libc::SIGTERM);
        self.signal_all(libc::SIGCONT);
    }

    /// Signals every process of the cell except this one.
    fn signal_all(&self, signal: libc::c_int) {
        if self.sandbox.namespaces {
            // Only for the first process of a PID namespace does -1 mean the cell; elsewhere it would mean the
            // whole host.
            // SAFETY: passes only integers.
            if unsafe { libc::getpid() } == 1 {
                unsafe { libc::kill(-1, signal) };
            }
            return;
        }
        // Processes that fork meanwhile are in the next list.
        for _ in 0..ROUNDS_MAX {
            let list = agent::descendants();
            for pid in &list {
                agent::signal(*pid, signal);
            }
            // `reap` collects agents' inits, because it also reads their reports.
            let strays: Vec<_> = list.into_iter().filter(|pid| !self.agents.iter().any(|a| a.pid == *pid)).collect();
            if strays.is_empty() || signal != libc::SIGKILL {
                return;
            }
            for pid in strays {
                // SAFETY: waits for one process without blocking, and fails if it is not our child.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
            }
        }
    }

    /// Reaps ended children, and reads what they report about their programs.
    fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: waits for any child without blocking; `status` lives through the call.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            self.waiting.take_if(|waiting| waiting.pid == pid);
            let Some(running) = self.agents.iter_mut().find(|a| a.pid == pid) else { continue };
            running.pid = 0;
            let mut said = String::new();
            if let Some(mut report) = running.report.take() {
                let _ = report.read_to_string(&mut said);
            }
            let state = &mut running.state;
            state.running = false;
            let report = agent::parse_report(&said);
            let dropped = report.map_or(0, |r| r.dropped);
            if let Some(report) = report {
                (state.code, state.signal) = (report.code, report.signal);
            } else if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 0 {
                state.code = Some(libc::WEXITSTATUS(status));
            } else {
                state.signal = Some(if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { libc::SIGKILL });
            }
            // A shell reports a child that a signal ended as 128 plus the signal.
            let too_large = state.signal == Some(libc::SIGXFSZ) || state.code == Some(128 + libc::SIGXFSZ);
            if too_large && state.note.is_none() {
                state.note = Some("ended by the limit of one file's size".to_owned());
            }
            if state.signal == Some(libc::SIGKILL) && state.note.is_none() && self.stopping.is_none() {
                state.note = Some("killed".to_owned());
            }
            let (event, agent) = (Event::Ended(state.clone()), state.agent.clone());
            if too_large {
                let most = self.spec.limits.file_size >> 20;
                let words =
                    format!("a file was to become larger than {most} MiB, as much as `disk` is; that was refused");
                self.note_hit("file size", words);
            }
            if dropped > 0 {
                let words = format!("{} KiB of the log of {agent} were not kept", dropped.div_ceil(1024));
                self.note_hit("log", words);
            }
            self.tell_all(&event);
        }
    }

    fn is_empty() -> bool {
        // SAFETY: checks for children without waiting or reaping.
        let none = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
        } < 0;
        none && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD)
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.opened.control.accept() {
            // Orders carry secrets and start programs, so the peer is checked first.
            if let Err(who) = self.doorkeeper.let_in(&stream) {
                if let Some(others) = self.doorkeeper.should_say() {
                    // This goes to `keeper.log`.
                    let _ = writeln!(io::stderr(), "refused at the control socket: {who} (and {others} before)");
                }
                continue;
            }
            let Ok(reader) = stream.try_clone() else { continue };
            let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let mut client = Client { stream, reader: BufReader::new(reader), gone: false };
            let hello = Event::Hello {
                cell: self.spec.cell.clone(),
                sandboxed: self.sandbox.namespaces || self.sandbox.bwrap,
                applied: self.applied.clone(),
                agents: self.agents.iter().map(|a| a.state.clone()).collect(),
            };
            if tell(&mut client.stream, &hello) {
                self.clients.push(client);
            }
        }
    }

    /// Reads and serves a client's orders. Returns false once the client is gone.
    fn serve(&mut self, index: usize) -> bool {
        loop {
            let mut line = vec![];
            let client = &mut self.clients[index];
            let read = (&mut client.reader).take(ORDER_MAX as u64).read_until(b'\n', &mut line);
            match read {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
            let order = serde_json::from_slice::<Order>(&line);
            zeroize::Zeroize::zeroize(&mut line);
            match order {
                Ok(order) => self.obey(order),
                Err(_) => return false,
            }
            if self.clients.get(index).is_none_or(|c| c.reader.buffer().is_empty()) {
                return true;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Start(start) => {
                if let Some(known) =
                    self.agents.iter().find(|a| a.state.agent == start.agent && a.state.run >= start.run)
                {
                    // The same order came twice: answer with the present state again.
                    let state = known.state.clone();
                    let event = if state.running { Event::Started(state) } else { Event::Ended(state) };
                    self.tell_all(&event);
                    return;
                }
                self.start(&start);
            }
            Order::StopAgent { agent } => {
                for running in self.agents.iter().filter(|a| a.state.agent == agent && a.pid > 0) {
                    // Ending the agent's init ends everything below it.
                    // SAFETY: our own child, not yet reaped.
                    unsafe { libc::kill(running.pid, libc::SIGKILL) };
                }
            }
            Order::Terminate => {
                self.signal_all(libc::SIGTERM);
                self.signal_all(libc::SIGCONT);
            }
            Order::Stop { grace_ms } => self.stop(Duration::from_millis(grace_ms.min(60_000))),
            Order::Freeze => {
                if let Some(waiting) = self.waiting.take() {
                    // The prewarmed init would be frozen too, and could not start its agent.
                    // SAFETY: our own child, not yet reaped.
                    unsafe { libc::kill(waiting.pid, libc::SIGKILL) };
                }
                self.signal_all(libc::SIGSTOP);
                self.tell_all(&Event::Frozen { frozen: true });
            }
            Order::Thaw => {
                self.signal_all(libc::SIGCONT);
                self.tell_all(&Event::Frozen { frozen: false });
            }
        }
    }

    fn in_cell(&self) -> InCell<'_> {
        InCell {
            spec: &self.spec,
            sandbox: self.sandbox,
            group: &self.group,
            run_dir: &self.opened.run_dir,
            filter: &self.filter,
        }
    }

    /// Starts an agent with an init that is made now.
    fn begin(&self, start: &super::StartAgent) -> Result<Started, StepError> {
        agent::prepare(self.in_cell())?.begin(self.sandbox, start)
    }

    fn start(&mut self, start: &super::StartAgent) {
        // An older run of the same agent must end before a newer one starts.
        for running in self.agents.iter().filter(|a| a.state.agent == start.agent && a.pid > 0) {
            // SAFETY: our own child, not yet reaped.
            unsafe { libc::kill(running.pid, libc::SIGKILL) };
        }
        let mut state = AgentState {
            agent: start.agent.clone(),
            run: start.run,
            running: false,
            code: None,
            signal: None,
            note: None,
        };
        let result = if self.stopping.is_some() {
            Err(StepError { step: "starting an agent".to_owned(), source: io::Error::other("the cell is ending") })
        } else {
            match self.waiting.take().map(|waiting| waiting.begin(self.sandbox, start)) {
                Some(Err(error)) if error.source.kind() == io::ErrorKind::BrokenPipe => self.begin(start),
                None => self.begin(start),
                Some(begun) => begun,
            }
        };
        let (event, pid, report) = match result {
            Ok(Started { pid, report, applied }) => {
                for step in applied {
                    if !self.applied.contains(&step) {
                        self.applied.push(step);
                    }
                }
                state.running = true;
                (Event::Started(state.clone()), pid, Some(report))
            }
            Err(error) => {
                state.code = Some(127);
                state.note = Some(error.to_string());
                (Event::Ended(state.clone()), 0, None)
            }
        };
        self.agents.retain(|a| a.state.agent != start.agent || a.pid > 0);
        self.agents.push(Running { state, pid, report });
        self.tell_all(&event);
    }

    fn tell_all(&mut self, event: &Event) {
        for client in &mut self.clients {
            client.gone |= !tell(&mut client.stream, event);
        }
    }

    /// Nothing runs any more: writes the exit record and returns the exit status.
    fn finish(&mut self) -> i32 {
        let record = ExitRecord {
            cell: self.spec.cell.clone(),
            agents: self.agents.iter().map(|a| a.state.clone()).collect(),
            empty: true,
        };
        match write_record(&self.opened.run_dir, &record) {
            Ok(()) => 0,
            Err(_) => 1,
        }
    }
}

fn tell(stream: &mut UnixStream, event: &Event) -> bool {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    stream.write_all(&line).is_ok()
}

/// Describes, for the spawn log, what enforces each limit of the cell.
fn limits_words(spec: &LaunchSpec, group: &Group, sandbox: SandboxKind) -> String {
    let by = |enforced: bool, other: &'static str| if enforced { group.way.as_str() } else { other };
    let own_count = sandbox.namespaces || spec.id_base.is_some();
    format!(
        "limits: memory {} MiB ({}), {} processes ({}), {} processors' time ({}); disk {} MiB and {} files ({}), no file larger than that; {}{} open files a process; {} MiB of log an agent",
        spec.resources.memory >> 20,
        by(group.memory, "counted by the keeper, which ends the largest process"),
        spec.resources.processes,
        by(group.processes, if own_count { "the kernel's count of the user" } else { "counted by the keeper" }),
        spec.resources.cpu as f64 / 1000.0,
        by(group.cpu, if sandbox.pinned { "as many processors to run on" } else { "not enforced" }),
        spec.room.bytes >> 20,
        spec.room.files,
        if spec.in_memory {
            "a file system in memory of that size"
        } else if spec.quota {
            "a quota of the file system"
        } else {
            "counted by the keeper, which ends the cell's processes"
        },
        if sandbox.namespaces { format!("{} MiB in /tmp of each agent; ", spec.tmp >> 20) } else { String::new() },
        spec.limits.open_files,
        spec.log.div_ceil(1 << 20),
    )
}

fn poll_on(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

fn write_record(run_dir: &File, record: &ExitRecord) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, openat, renameat};
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd: OwnedFd = openat(run_dir, "exit.json.new", flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(fd);
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    renameat(run_dir, "exit.json.new", run_dir, "exit.json")?;
    run_dir.sync_all()
}

/// Returns a descriptor for SIGTERM and SIGCHLD, and ignores every other signal that a terminal could end the
/// keeper with.
fn signal_descriptor() -> Result<File, StepError> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: the set lives through the calls, the new descriptor is ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGCHLD] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(StepError::last("watching for signals"));
        }
        Ok(File::from_raw_fd(fd))
    }
}
