//! Cells as processes of this host, each under its keeper.

use super::{Adopted, Backend, BackendError, Fact, Left, Plan, Running, Usage, WorkWanted};
use crate::cell::{BackendKind, CellId, Exit, Isolation, Network};
use crate::egress::{self, Token};
use crate::keeper::{
    AgentState, Ahead, EGRESS_PID, Event, ExitRecord, GROUP, HARVESTER, KEEPER_PID, LIMITS_MET, LOCK, LaunchSpec,
    LimitsMet, Order, Ready, Room, StartAgent, View, Walls, clear_ahead, keeper_lives,
};
use crate::sandbox::{FIRST_ID, Group, HostReport, LandlockPaths, Limits, quota, settle_groups};
use crate::workspace::{HandedOut, Home, Wanted};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// Ids a cell: the keeper's, the agents', the egress proxy's, and one to spare.
const IDS_A_CELL: i64 = 4;
/// What a cell used, in its run directory, so that it is not lost when the
/// daemon dies between its end and the record of it.
const USAGE: &str = "usage.json";
/// Held while that file is read and written anew: an agent's end and a cell's may
/// do so at once.
static NOTING: Mutex<()> = Mutex::new(());
/// How long after a cell the next launcher is made: while a process enters a
/// control group the kernel lets nobody fork, and this cell's agents are to.
const SPARE_AFTER: Duration = Duration::from_millis(10);
/// How long an egress proxy may take to end after its cell.
const PROXY_END_MAX: Duration = Duration::from_secs(5);
/// How long agents may take to end by themselves.
const GRACE: Duration = Duration::from_secs(5);
/// How long the work may take to be handed out.
const HAND_OUT_MAX: Duration = Duration::from_secs(300);
/// Longest line in which it is said what was handed out, in bytes.
const HANDED_OUT_MAX: u64 = 128 << 10;

/// What is known of a keeper that lives.
struct Keeper {
    orders: mpsc::UnboundedSender<Order>,
    agents: watch::Receiver<Option<Vec<AgentState>>>,
    running: Running,
}

/// Cells as processes.
pub struct ProcessBackend {
    run_root: PathBuf,
    program: PathBuf,
    facts: mpsc::UnboundedSender<Fact>,
    keepers: Arc<Mutex<HashMap<CellId, Arc<Keeper>>>>,
    report: tokio::sync::OnceCell<HostReport>,
    /// A launcher that waits to be told what to launch.
    spare: Arc<Mutex<Option<Launcher>>>,
    /// Keepers that this process has to reap. Until then their pids are theirs.
    children: Arc<Mutex<HashMap<CellId, i32>>>,
}

/// A launcher's process. It ends by itself when its input does.
struct Launcher {
    process: Child,
    ahead: Ahead,
}

impl Launcher {
    /// Starts one and has it make those walls.
    fn spawn(program: &Path, run_root: &Path, ahead: Ahead) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("cell-launch").arg(run_root).env_clear();
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut launcher = Self { process, ahead };
        if let Some(input) = &mut launcher.process.stdin {
            input.write_all(&line_of(&launcher.ahead))?;
        }
        Ok(launcher)
    }

    /// Says what to launch and waits for the keeper's first words. Returns its
    /// pid; nothing where this launcher is not there any more.
    fn launch(mut self, spec: &LaunchSpec) -> Option<Result<i32, BackendError>> {
        self.process.stdin.take()?.write_all(&line_of(spec)).ok()?;
        let mut said = None;
        let mut keeper = None;
        for line in BufReader::new(self.process.stdout.take()?).lines().take(2) {
            match serde_json::from_str::<Ready>(&line.ok()?) {
                Ok(Ready::Launched { pid }) => {
                    keeper = Some(pid);
                    said = Some(Err(BackendError::Start("the keeper ended before it could listen".to_owned())));
                }
                Ok(Ready::Listening { .. }) => said = keeper.map(Ok),
                Ok(Ready::Failed { why }) => said = Some(Err(BackendError::Start(why))),
                Err(_) => {}
            }
        }
        if let (Some(Err(_)), Some(pid)) = (&said, keeper) {
            reap(pid);
        }
        said
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        // It was not needed, and neither is the keeper that it made.
        let said = self.process.stdout.take().and_then(|stdout| BufReader::new(stdout).lines().next()?.ok());
        if let Some(Ok(Ready::Launched { pid })) = said.map(|line| serde_json::from_str(&line)) {
            reap(pid);
        }
    }
}

fn line_of(message: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

impl ProcessBackend {
    /// A backend whose run directories lie below `run_root` and whose facts go
    /// to `facts`.
    ///
    /// # Errors
    /// Where this program's own file cannot be found.
    pub fn new(run_root: PathBuf, facts: mpsc::UnboundedSender<Fact>) -> Result<Self, BackendError> {
        let program = std::env::current_exe().map_err(BackendError::io("finding this program's file"))?;
        settle_groups();
        clear_ahead(&run_root);
        Ok(Self {
            run_root,
            program,
            facts,
            keepers: Arc::default(),
            report: tokio::sync::OnceCell::new(),
            spare: Arc::default(),
            children: Arc::default(),
        })
    }

    fn run_dir(&self, cell: &CellId) -> PathBuf {
        self.run_root.join(cell.as_str())
    }

    /// The first of a cell's ids, where this process is root.
    async fn id_base(&self, slot: i64) -> Option<u32> {
        let root = self.report().await.is_ok_and(|r| r.root);
        root.then_some((i64::from(FIRST_ID) + slot * IDS_A_CELL) as u32)
    }

    /// The user that a cell's agents run as, where this process is root; else
    /// they run as this user.
    pub async fn agents_uid(&self, slot: i64) -> Option<u32> {
        Some(self.id_base(slot).await? + 1)
    }

    /// Says that an agent could not even be started.
    pub fn report_failed_start(&self, cell: &CellId, agent: &str, run: u32, why: &str) {
        let exit = Exit { code: None, signal: None, success: false, note: Some(format!("not started: {why}")) };
        let _ = self.facts.send(Fact::AgentEnded { cell: cell.clone(), agent: agent.to_owned(), run, exit });
    }

    fn keeper(&self, cell: &CellId) -> Option<Arc<Keeper>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).get(cell).cloned()
    }

    async fn report(&self) -> Result<&HostReport, BackendError> {
        self.report
            .get_or_try_init(|| async {
                let program = self.program.clone();
                tokio::task::spawn_blocking(move || {
                    let output = Command::new(program)
                        .arg("cell-probe")
                        .stdin(Stdio::null())
                        .output()
                        .map_err(BackendError::io("probing this host"))?;
                    serde_json::from_slice(&output.stdout)
                        .map_err(|e| BackendError::Start(format!("the probe gave no answer: {e}")))
                })
                .await
                .map_err(|_| BackendError::Gone)?
            })
            .await
    }

    /// Decides what this host gives for what was asked, or refuses.
    async fn level_for(&self, asked: Isolation) -> Result<(Isolation, Vec<String>), BackendError> {
        let report = self.report().await?;
        let missing: Vec<String> =
            report.missing.iter().map(|m| format!("{}: {} — {}", m.what, m.why, m.hint)).collect();
        let best = if report.level_2() { Isolation::Level2 } else { Isolation::Level1 };
        let uid_0 = rustix::process::geteuid().is_root() && !report.root;
        if best == Isolation::Level1 && uid_0 && report.landlock.is_none() {
            return Err(BackendError::Isolation {
                asked,
                why: "agents would run as user 0 with nothing around them; run Lazarus as an ordinary user here"
                    .to_owned(),
            });
        }
        if asked > best {
            let why = if asked > Isolation::Level2 {
                "the process backend gives `level_2` at most, and there is no other yet".to_owned()
            } else {
                missing.join("; ")
            };
            return Err(BackendError::Isolation { asked, why });
        }
        Ok((best, missing))
    }

    async fn launch(&self, plan: &Plan) -> Result<Running, BackendError> {
        let (level, missing) = self.level_for(plan.isolation).await?;
        let report = self.report().await?;
        let namespaces = report.namespaces && level == Isolation::Level2;
        let bwrap = report.bwrap.clone().filter(|_| level == Isolation::Level2 && !namespaces);
        if plan.network == Network::Proxy && !namespaces {
            return Err(BackendError::Start(format!(
                "named hosts need a network namespace of our own making, which this host does not give: {}; ask for \
                 no network",
                missing.join("; ")
            )));
        }
        if plan.in_memory && !namespaces {
            return Err(BackendError::Start(format!(
                "`policy.disk_in_memory` needs a mount namespace of our own making, which this host does not give: {}",
                missing.join("; ")
            )));
        }
        let id_base = self.id_base(plan.slot).await;
        let groups = report.groups.clone();
        let run_dir = self.run_dir(&plan.cell);
        let pinned = !groups.limit_cpu();
        let walls = Walls { namespaces, bwrap: bwrap.is_some(), host_network: plan.network == Network::Host, pinned };
        let ahead = Ahead { walls, groups };
        let egress = if plan.network == Network::Proxy {
            Some(egress::Spec {
                cell: plan.cell.to_string(),
                token: Token::new().map_err(|e| BackendError::Start(format!("making the proxy's token: {e}")))?,
                rules: plan.egress.rules.clone(),
                directory: run_dir.join("egress"),
                user: id_base.map(|base| egress::User { uid: base + 2, gid: base + 2 }),
                addresses: plan.egress.addresses.clone(),
            })
        } else {
            None
        };
        let spec = LaunchSpec {
            cell: plan.cell.to_string(),
            home: plan.home.clone(),
            run_dir: run_dir.clone(),
            program: self.program.clone(),
            id_base,
            objects: plan.objects.clone(),
            read_paths: plan.read_paths.clone(),
            bwrap,
            limits: Limits {
                open_files: plan.open_files,
                file_size: plan.room.bytes,
                // Elsewhere the count would be of all that the user runs.
                processes: (namespaces || id_base.is_some()).then_some(plan.budget.processes),
                data: None,
            },
            budget: plan.budget,
            room: plan.room,
            harvest_room: plan.harvest_room,
            quota: false,
            in_memory: plan.in_memory,
            log: plan.log,
            egress,
        };
        let (program, run_root) = (self.program.clone(), self.run_root.clone());
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take_if(|spare| spare.ahead == ahead);
        let wanted = ahead.clone();
        let pid = tokio::task::spawn_blocking(move || prepare_and_launch(&program, &run_root, spare, wanted, spec))
            .await
            .map_err(|_| BackendError::Gone)??;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).insert(plan.cell.clone(), pid);
        let connected = self.connect(&plan.cell, &run_dir, None).await;
        self.keep_a_spare(ahead);
        let (_, applied, _) = connected?;
        let mut running = Running { isolation: Some(level), applied, missing: vec![], pid: Some(pid) };
        if level < Isolation::Level2 {
            running.missing = missing;
            running
                .applied
                .push("a directory and an environment of its own; the host's processes are not hidden".to_owned());
        }
        if let Some(keeper) = self.keepers.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&plan.cell)
            && let Some(keeper) = Arc::get_mut(keeper)
        {
            keeper.running = running.clone();
        }
        Ok(running)
    }

    /// Has a launcher ready for the next cell.
    fn keep_a_spare(&self, ahead: Ahead) {
        let (spare, program, run_root) = (Arc::clone(&self.spare), self.program.clone(), self.run_root.clone());
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(SPARE_AFTER);
            let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.is_none() {
                // Where it cannot be had now, the next cell will say so.
                *spare = Launcher::spawn(&program, &run_root, ahead).ok();
            }
        });
    }

    /// Connects to a keeper and listens to it from here on.
    async fn connect(
        &self,
        cell: &CellId,
        run_dir: &Path,
        known: Option<Running>,
    ) -> Result<(Vec<AgentState>, Vec<String>, Running), BackendError> {
        // A path for a socket has at most 107 bytes; through a descriptor of
        // its directory it is always short.
        let directory =
            std::fs::File::open(run_dir).map_err(BackendError::io(format!("opening {}", run_dir.display())))?;
        let short = format!("/proc/self/fd/{}/control.sock", directory.as_raw_fd());
        let stream = UnixStream::connect(&short).await.map_err(BackendError::io("connecting to the cell's keeper"))?;
        drop(directory);
        let (read, mut write) = stream.into_split();
        // Hundreds of these wait for rare, short lines.
        let mut lines = tokio::io::BufReader::with_capacity(512, read).lines();
        let first = tokio::time::timeout(Duration::from_secs(10), lines.next_line())
            .await
            .map_err(|_| BackendError::Gone)?
            .map_err(BackendError::io("listening to the cell's keeper"))?
            .ok_or(BackendError::Gone)?;
        let Ok(Event::Hello { cell: named, walled, applied, agents }) = serde_json::from_str(&first) else {
            return Err(BackendError::Start("the keeper did not say who it is".to_owned()));
        };
        if named != cell.as_str() {
            return Err(BackendError::Start(format!("the keeper there is of cell {named}")));
        }
        let (orders, mut to_send) = mpsc::unbounded_channel::<Order>();
        let (states, agents_seen) = watch::channel(Some(agents.clone()));
        let running = known.unwrap_or_default();
        // What the keeper has, not what this host gives now.
        let level = if walled { Isolation::Level2 } else { Isolation::Level1 };
        let running = Running { applied: applied.clone(), isolation: Some(level), ..running };
        let keeper = Arc::new(Keeper { orders, agents: agents_seen, running: running.clone() });
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).insert(cell.clone(), Arc::clone(&keeper));
        drop(keeper);
        for state in agents.iter().filter(|a| !a.running) {
            report(&self.facts, cell, state);
        }
        let (facts, cell, run_dir) = (self.facts.clone(), cell.clone(), run_dir.to_owned());
        let (keepers, children) = (Arc::clone(&self.keepers), Arc::clone(&self.children));
        tokio::spawn(async move {
            let mut killed_for_memory = group_of(&run_dir).killed_for_memory();
            loop {
                tokio::select! {
                    order = to_send.recv() => {
                        let Some(order) = order else { break };
                        let mut line = line_of(&order);
                        let sent = write.write_all(&line).await;
                        zeroize::Zeroize::zeroize(&mut line);
                        if sent.is_err() {
                            break;
                        }
                    }
                    line = lines.next_line() => {
                        let Ok(Some(line)) = line else { break };
                        let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
                        if let Event::Started(mut state) | Event::Ended(mut state) = event {
                            let ended = !state.running;
                            if ended {
                                // While the group is there: systemd takes its own away with
                                // the last process.
                                usage_of(&run_dir);
                            }
                            if ended && state.signal == Some(libc::SIGKILL) && state.note.as_deref() == Some("killed") {
                                let killed_now = group_of(&run_dir).killed_for_memory();
                                if killed_now > killed_for_memory {
                                    state.note = Some("ended by the limit of memory".to_owned());
                                }
                                killed_for_memory = killed_now;
                            }
                            states.send_modify(|known| {
                                let known = known.get_or_insert_default();
                                known.retain(|a| a.agent != state.agent);
                                known.push(state.clone());
                            });
                            if ended {
                                report(&facts, &cell, &state);
                            }
                        }
                    }
                }
            }
            // The keeper is gone, or about to be: what it left says how.
            let dir = run_dir.clone();
            let child = children.lock().unwrap_or_else(PoisonError::into_inner).remove(&cell);
            let _ = tokio::task::spawn_blocking(move || {
                wait_for_end(&dir);
                if let Some(child) = child {
                    reap(child);
                }
            })
            .await;
            let last = states.borrow().clone().unwrap_or_default();
            for state in settle_by_record(&run_dir, last) {
                report(&facts, &cell, &state);
            }
            keepers.lock().unwrap_or_else(PoisonError::into_inner).remove(&cell);
            states.send_replace(None);
        });
        Ok((agents, applied, running))
    }

    async fn wait_for(
        &self,
        keeper: &Keeper,
        limit: Duration,
        mut done: impl FnMut(&[AgentState]) -> bool,
    ) -> Result<Vec<AgentState>, BackendError> {
        let mut agents = keeper.agents.clone();
        let found = tokio::time::timeout(limit, agents.wait_for(|a| a.as_ref().is_none_or(|a| done(a)))).await;
        match found {
            Ok(Ok(states)) => states.clone().ok_or(BackendError::Gone),
            Ok(Err(_)) => Err(BackendError::Gone),
            Err(_) => Err(BackendError::Start("the cell's keeper did not answer in time".to_owned())),
        }
    }

    /// Has the work handed out, by running git inside the cell's own walls: the
    /// clone is the agents' and may be made to run anything.
    async fn hand_out(&self, plan: &Plan, wanted: WorkWanted, run: u32) -> HandedOut {
        let unknown = |why: String| HandedOut { unknown: Some(why), ..HandedOut::default() };
        let Some(keeper) = self.keeper(&plan.cell) else { return unknown("the cell's keeper is gone".to_owned()) };
        let walled = keeper.running.isolation.is_none_or(|l| l == Isolation::Level2);
        let home = &plan.home;
        // Only now: most cells are not looked into before their end, and a start
        // should not wait for what that takes.
        let (path, uid) = (home.clone(), self.agents_uid(plan.slot).await);
        let made = tokio::task::spawn_blocking(move || {
            Home { path: path.clone() }.make_agent(HARVESTER, uid)?;
            // Where there are quotas: reading the work is not the agents' doing.
            let _ = quota::exempt(&path.join("home").join(HARVESTER));
            Ok::<(), crate::workspace::HomeError>(())
        });
        match made.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return unknown(error.to_string()),
            Err(error) => return unknown(error.to_string()),
        }
        let place = |inside: &str| if walled { PathBuf::from("/cell").join(inside) } else { home.join(inside) };
        let own = place("home").join(HARVESTER);
        let log = self.run_dir(&plan.cell).join("keeper").join(format!("{HARVESTER}.log"));
        let program = if walled { PathBuf::from("/run/lazarus/lazarus") } else { self.program.clone() };
        let order = Wanted {
            base: wanted.base,
            pack_max: wanted.pack_max,
            branches_max: wanted.branches_max,
            commit_rest: wanted.commit_rest,
            trailers: wanted.trailers,
            snapshot: wanted.snapshot,
            into: own.clone(),
        };
        let start = StartAgent {
            agent: HARVESTER.to_owned(),
            run,
            argv: vec![
                program.display().to_string(),
                "cell-harvest".to_owned(),
                serde_json::to_string(&order).unwrap_or_default(),
            ],
            env: vec![
                ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
                ("HOME".to_owned(), "/nonexistent".to_owned()),
                ("LC_ALL".to_owned(), "C".to_owned()),
            ],
            stdin: None,
            cwd: place("project"),
            view: View::Observe,
            paths: LandlockPaths {
                read: if walled {
                    vec!["/".into()]
                } else {
                    host_read_paths(&self.program, &[place("project"), place("work"), place("shared")])
                },
                write: vec![PathBuf::from("/dev/null"), own],
            },
        };
        if keeper.orders.send(Order::Start(start)).is_err() {
            return unknown("the cell's keeper is gone".to_owned());
        }
        let ended = |agents: &[AgentState]| agents.iter().any(|a| a.agent == HARVESTER && a.run >= run && !a.running);
        if let Err(error) = self.wait_for(&keeper, HAND_OUT_MAX, ended).await {
            return unknown(error.to_string());
        }
        let text = tokio::task::spawn_blocking(move || end_of(&log)).await.unwrap_or_default();
        // The last: the log is appended to, and a harvest may be read twice.
        let line = text.split(|b| *b == b'\n').rfind(|l| l.starts_with(b"{")).unwrap_or_default();
        serde_json::from_slice(line).unwrap_or_else(|_| {
            let words: String = String::from_utf8_lossy(&text).chars().take(200).collect();
            unknown(format!("the clone could not be read: {}", words.trim()))
        })
    }
}

/// What of a harvester's log is read: its last line, of which agents may have
/// made whatever they like.
fn end_of(log: &Path) -> Vec<u8> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut text = vec![];
    if let Ok(mut file) = std::fs::File::open(log) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        if file.seek(SeekFrom::Start(length.saturating_sub(HANDED_OUT_MAX))).is_ok() {
            let _ = file.take(HANDED_OUT_MAX).read_to_end(&mut text);
        }
    }
    text
}

/// What an agent without namespaces may read: the system, and its own.
pub(crate) fn host_read_paths(program: &Path, own: &[PathBuf]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/opt",
        "/etc/ssl",
        "/etc/ca-certificates",
        "/etc/alternatives",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/passwd",
        "/etc/group",
        "/etc/nsswitch.conf",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/dev",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    paths.push(program.to_owned());
    paths.extend_from_slice(own);
    paths
}

fn report(facts: &mpsc::UnboundedSender<Fact>, cell: &CellId, state: &AgentState) {
    if state.agent == HARVESTER {
        return;
    }
    let exit =
        Exit { code: state.code, signal: state.signal, success: state.code == Some(0), note: state.note.clone() };
    let _ = facts.send(Fact::AgentEnded { cell: cell.clone(), agent: state.agent.clone(), run: state.run, exit });
}

/// The directories of a home that agents write.
fn written_in(home: &Path) -> [PathBuf; 4] {
    ["project", "work", "shared", "home"].map(|name| home.join(name))
}

/// Notes whether the agents met a quota of the file system.
fn note_quota(run_dir: &Path, home: &Path, project: u32, room: Room) {
    let [first, ..] = written_in(home);
    let Ok((bytes, files)) = quota::used(&first, project) else { return };
    // The last block that did not fit is not counted.
    let near = |used: u64, most: u64| used + most / 50 >= most;
    let _noting = NOTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut usage: Usage = read_json(run_dir.join(USAGE));
    if near(bytes, room.bytes) {
        let words = format!("{} MiB, of {} MiB; more was refused", bytes >> 20, room.bytes >> 20);
        usage.met.0.insert("disk".to_owned(), words);
    }
    if near(files, room.files) {
        let words = format!("{files} files and directories, of {}; more were refused", room.files);
        usage.met.0.insert("files".to_owned(), words);
    }
    let _ = std::fs::write(run_dir.join(USAGE), serde_json::to_vec(&usage).unwrap_or_default());
}

/// Tells a launcher, which makes the run directory, and waits for the keeper's
/// first words. Returns the keeper's pid: a child of this process.
fn prepare_and_launch(
    program: &Path,
    run_root: &Path,
    spare: Option<Launcher>,
    ahead: Ahead,
    mut spec: LaunchSpec,
) -> Result<i32, BackendError> {
    // It ran before, and what belonged to it outside its walls may still be there.
    if spec.run_dir.join(GROUP).exists() {
        clear_up(&spec.run_dir)?;
    }
    if let Some(base) = spec.id_base {
        let directories = written_in(&spec.home);
        let directories: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
        spec.quota = quota::limit(&directories, base, spec.room.bytes, spec.room.files).is_ok();
    }
    let spec = &spec;
    let run_dir = &spec.run_dir;
    for left in [GROUP, "keeper/exit.json"] {
        let _ = std::fs::remove_file(run_dir.join(left));
    }
    if spec.id_base.is_some() && !ahead.walls.namespaces {
        // Without a root of its own the cell has to walk there by itself.
        for directory in spec.home.ancestors().take(2) {
            let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711));
        }
    }
    // A launcher that waited may have ended meanwhile; a new one has not.
    if let Some(said) = spare.and_then(|launcher| launcher.launch(spec)) {
        return said;
    }
    let launcher = Launcher::spawn(program, run_root, ahead)
        .map_err(BackendError::io(format!("running {}", program.display())))?;
    launcher.launch(spec).unwrap_or_else(|| {
        Err(BackendError::Start(format!("the launcher said nothing; see keeper/keeper.log in {}", run_dir.display())))
    })
}

/// What a file of our own holds, or nothing.
fn read_json<T: serde::de::DeserializeOwned + Default>(path: PathBuf) -> T {
    std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The control group of a cell, where it has one.
fn group_of(run_dir: &Path) -> Group {
    read_json(run_dir.join(GROUP))
}

/// What the cell of a run directory used, as far as it is known now, and was
/// known when this was asked before.
fn usage_of(run_dir: &Path) -> Usage {
    let _noting = NOTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut usage: Usage = read_json(run_dir.join(USAGE));
    let kept: LimitsMet = read_json(run_dir.join("keeper").join(LIMITS_MET));
    usage.met.0.extend(kept.0);
    usage.met.0.extend(group_of(run_dir).met());
    if let Ok(Some(report)) = egress::Report::read(&run_dir.join("egress")) {
        usage.egress = Some(report);
    }
    let _ = std::fs::write(run_dir.join(USAGE), serde_json::to_vec(&usage).unwrap_or_default());
    usage
}

/// Waits for what belongs to a cell and lives outside its walls: its proxy,
/// and its control group, which has to be empty. Both are gone after this.
fn clear_up(run_dir: &Path) -> Result<Usage, BackendError> {
    let proxy = run_dir.join("egress");
    let until = std::time::Instant::now() + PROXY_END_MAX;
    while egress::lives(&proxy) && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    if egress::lives(&proxy) {
        kill_locked(&run_dir.join(EGRESS_PID), || egress::lives(&proxy));
    }
    let usage = usage_of(run_dir);
    let group = group_of(run_dir);
    group.end_all().map_err(BackendError::io("emptying the cell's control group"))?;
    group.remove();
    Ok(usage)
}

/// Waits until the keeper of a run directory is gone: it holds a lock as long
/// as it lives, in whatever way it ends.
fn wait_for_end(run_dir: &Path) {
    if let Ok(lock) = std::fs::File::open(run_dir.join(LOCK)) {
        let _ = rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared);
    }
}

/// Collects a child of this process that ended.
fn reap(pid: i32) {
    use rustix::process::{Pid, WaitOptions, waitpid};
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
}

/// Every run as it ended: by the exit record, or as killed where there is none.
fn settle_by_record(run_dir: &Path, known: Vec<AgentState>) -> Vec<AgentState> {
    let record: Option<ExitRecord> =
        std::fs::read(run_dir.join("keeper/exit.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut ended: Vec<AgentState> = record.map(|r| r.agents).unwrap_or_default();
    for state in known {
        if state.running && !ended.iter().any(|e| e.agent == state.agent && e.run >= state.run) {
            ended.push(AgentState {
                running: false,
                signal: Some(libc::SIGKILL),
                note: Some("the cell's keeper was killed".to_owned()),
                ..state
            });
        }
    }
    ended
}

impl Backend for ProcessBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Process
    }

    fn probe(&self) -> BoxFuture<'_, Result<HostReport, BackendError>> {
        async { self.report().await.cloned() }.boxed()
    }

    fn start(&self, plan: Plan) -> BoxFuture<'_, Result<Running, BackendError>> {
        async move {
            if let Some(keeper) = self.keeper(&plan.cell) {
                return Ok(keeper.running.clone());
            }
            if keeper_lives(&self.run_dir(&plan.cell))
                && let Adopted::Live(running) = self.adopt(plan.cell.clone()).await?
            {
                return Ok(running);
            }
            self.launch(&plan).await
        }
        .boxed()
    }

    fn start_agent(&self, cell: CellId, start: StartAgent) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            let keeper = self.keeper(&cell).ok_or(BackendError::Gone)?;
            let (agent, run) = (start.agent.clone(), start.run);
            keeper.orders.send(Order::Start(start)).map_err(|_| BackendError::Gone)?;
            let there = |agents: &[AgentState]| agents.iter().any(|a| a.agent == agent && a.run >= run);
            let states = self.wait_for(&keeper, Duration::from_secs(30), there).await?;
            match states.iter().find(|a| a.agent == agent && a.run == run) {
                Some(state) if state.code == Some(127) && state.note.is_some() => {
                    Err(BackendError::Start(state.note.clone().unwrap_or_default()))
                }
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn stop_agent(&self, cell: CellId, agent: String) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            let Some(keeper) = self.keeper(&cell) else { return Ok(()) };
            keeper.orders.send(Order::StopAgent { agent }).map_err(|_| BackendError::Gone)
        }
        .boxed()
    }

    fn freeze(&self, cell: CellId, frozen: bool) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            let Some(keeper) = self.keeper(&cell) else { return Ok(()) };
            let order = if frozen { Order::Freeze } else { Order::Thaw };
            keeper.orders.send(order).map_err(|_| BackendError::Gone)
        }
        .boxed()
    }

    fn snapshot(
        &self,
        plan: Plan,
        wanted: WorkWanted,
        run: u32,
    ) -> BoxFuture<'_, Result<(HandedOut, PathBuf), BackendError>> {
        async move {
            let keeper = self.keeper(&plan.cell).ok_or(BackendError::Gone)?;
            keeper.orders.send(Order::Freeze).map_err(|_| BackendError::Gone)?;
            let handed = self.hand_out(&plan, wanted, run.min(u32::MAX - 1)).await;
            keeper.orders.send(Order::Thaw).map_err(|_| BackendError::Gone)?;
            Ok((handed, plan.home.join("home").join(HARVESTER)))
        }
        .boxed()
    }

    fn stop(&self, plan: Plan, wanted: Option<WorkWanted>) -> BoxFuture<'_, Result<Left, BackendError>> {
        async move {
            let cell = &plan.cell;
            let run_dir = self.run_dir(cell);
            if self.keeper(cell).is_none() && keeper_lives(&run_dir) {
                let _ = self.adopt(cell.clone()).await;
            }
            if let Some(keeper) = self.keeper(cell) {
                let _ = keeper.orders.send(Order::Terminate);
                let quiet = |agents: &[AgentState]| agents.iter().all(|a| !a.running);
                let _ = self.wait_for(&keeper, GRACE, quiet).await;
                let left = keeper.agents.borrow().clone().unwrap_or_default();
                for state in left.into_iter().filter(|a| a.running) {
                    let _ = keeper.orders.send(Order::StopAgent { agent: state.agent });
                }
                let _ = self.wait_for(&keeper, Duration::from_secs(10), quiet).await;
            }
            if let Some(project) = self.id_base(plan.slot).await {
                let (dir, home, room) = (run_dir.clone(), plan.home.clone(), plan.room);
                let _ = tokio::task::spawn_blocking(move || note_quota(&dir, &home, project, room)).await;
            }
            let mut handed = None;
            if let Some(wanted) = wanted.filter(|_| plan.home.join("project").is_dir()) {
                if self.keeper(cell).is_none() {
                    // It died: its work is still there to be read, without a network.
                    let _ = self.launch(&Plan { network: Network::None, ..plan.clone() }).await;
                }
                handed = Some((self.hand_out(&plan, wanted, u32::MAX).await, plan.home.join("home").join(HARVESTER)));
            }
            if let Some(keeper) = self.keeper(cell) {
                let dir = run_dir.clone();
                let _ = tokio::task::spawn_blocking(move || usage_of(&dir)).await;
                let _ = keeper.orders.send(Order::Stop { grace_ms: 0 });
                let _ = self.wait_for(&keeper, Duration::from_secs(20), |_| false).await;
            }
            if keeper_lives(&run_dir) {
                kill_locked(&run_dir.join(KEEPER_PID), || keeper_lives(&run_dir));
                let dir = run_dir.clone();
                let waited = tokio::task::spawn_blocking(move || wait_for_end(&dir));
                let _ = tokio::time::timeout(Duration::from_secs(20), waited).await;
            }
            // One that never listened has nobody else to collect it.
            let child = self.children.lock().unwrap_or_else(PoisonError::into_inner).remove(cell);
            if let Some(child) = child
                && !keeper_lives(&run_dir)
            {
                let _ = tokio::task::spawn_blocking(move || reap(child)).await;
            }
            if keeper_lives(&run_dir) {
                return Err(BackendError::Start("the cell's keeper does not end, not even by SIGKILL".to_owned()));
            }
            let dir = run_dir.clone();
            let usage = tokio::task::spawn_blocking(move || clear_up(&dir)).await.map_err(|_| BackendError::Gone)??;
            let dir = run_dir.join("egress");
            let refusals = tokio::task::spawn_blocking(move || egress::refusals(&dir)).await.unwrap_or_default();
            Ok(Left { work: handed, usage, refusals })
        }
        .boxed()
    }

    fn adopt(&self, cell: CellId) -> BoxFuture<'_, Result<Adopted, BackendError>> {
        async move {
            if let Some(keeper) = self.keeper(&cell) {
                return Ok(Adopted::Live(keeper.running.clone()));
            }
            let run_dir = self.run_dir(&cell);
            // A keeper that is just starting holds the lock a moment before it
            // listens.
            for _ in 0..100 {
                if !keeper_lives(&run_dir) {
                    break;
                }
                match self.connect(&cell, &run_dir, None).await {
                    Ok((_, _, running)) => {
                        let pid =
                            std::fs::read_to_string(run_dir.join(KEEPER_PID)).ok().and_then(|t| t.trim().parse().ok());
                        return Ok(Adopted::Live(Running { pid, ..running }));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            let ended = settle_by_record(&run_dir, vec![]);
            for state in &ended {
                report(&self.facts, &cell, state);
            }
            Ok(Adopted::Over(ended.into_iter().map(|s| (s.agent, s.run)).collect()))
        }
        .boxed()
    }

    fn log(&self, cell: CellId, agent: String, bytes: u64) -> BoxFuture<'_, Result<String, BackendError>> {
        async move {
            let path = self.run_dir(&cell).join("keeper").join(format!("{agent}.log"));
            tokio::task::spawn_blocking(move || read_log(&path, bytes))
                .await
                .map_err(|_| BackendError::Gone)?
                .map_err(BackendError::io("reading the agent's log"))
        }
        .boxed()
    }
}

/// Kills a keeper or a proxy that does not end, but no stranger that got its
/// number: the descriptor is taken first, then the lock says whether it lives.
fn kill_locked(pid_file: &Path, lives: impl Fn() -> bool) {
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

/// The end of a log that lies in two files, see the keeper's.
fn read_log(path: &Path, bytes: u64) -> io::Result<String> {
    let text = read_tail(path, bytes)?;
    let missing = bytes.saturating_sub(text.len() as u64);
    if missing == 0 {
        return Ok(text);
    }
    Ok(read_tail(&path.with_extension("log.1"), missing)? + &text)
}

fn read_tail(path: &Path, bytes: u64) -> io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = match std::fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => other?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = vec![];
    file.take(bytes).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
