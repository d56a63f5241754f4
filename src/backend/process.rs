//! Cells as processes of this host, each under its keeper.

use super::launcher::{Launcher, NotLaunched, reap};
use super::{Adopted, Backend, BackendError, Fact, Left, Plan, Running, Seen, Usage, WorkWanted};
use crate::cell::{BackendKind, CellId, Exit, Isolation, Network};
use crate::egress::{self, Token};
use crate::keeper::{
    AGENT_ID, AgentState, Ahead, EGRESS_PID, Event, ExitRecord, GROUP, HARVESTER, KEEPER_PID, LIMITS_MET, LOCK,
    LaunchSpec, LimitsMet, Order, Room, StartAgent, View, Walls, clear_ahead, keeper_lives, log_tail,
};
use crate::sandbox::{
    FIRST_ID, Group, Hidden, HostReport, LandlockPaths, Limits, Sight, devices, program, quota, settle_groups,
    shown_to_every_cell, without,
};
use crate::workspace::{HandedOut, Home, Wanted};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
/// Longest record of a keeper that is read, in bytes.
const RECORD_MAX: u64 = 4 << 20;
/// How often a cell's start is tried before it has failed.
const LAUNCHES: u32 = 3;
/// How long to wait before the last of them.
const LAUNCH_PAUSE: Duration = Duration::from_millis(250);
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

/// What a cell is to be started as, on this host.
struct Prepared {
    level: Isolation,
    /// What is missing for more, in words.
    missing: Vec<String>,
    ahead: Ahead,
    spec: LaunchSpec,
}

/// Cells as processes.
pub struct ProcessBackend {
    run_root: PathBuf,
    facts: mpsc::UnboundedSender<Fact>,
    sight: Arc<Sight>,
    keepers: Arc<Mutex<HashMap<CellId, Arc<Keeper>>>>,
    /// What this host was found to give. Found anew where it refuses what was asked for, or a start failed.
    report: tokio::sync::Mutex<Option<Arc<HostReport>>>,
    /// A launcher that waits to be told what to launch.
    spare: Arc<Mutex<Option<Launcher>>>,
    /// Keepers that this process has to reap. Until then their pids are theirs.
    children: Arc<Mutex<HashMap<CellId, i32>>>,
}

pub(super) fn line_of(message: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

impl ProcessBackend {
    /// A backend whose run directories lie below `run_root` and whose facts go
    /// to `facts`.
    ///
    /// # Errors
    /// None today.
    pub fn new(run_root: PathBuf, facts: mpsc::UnboundedSender<Fact>) -> Result<Self, BackendError> {
        settle_groups();
        clear_ahead(&run_root, None);
        program::keep_copies_in(&run_root);
        Ok(Self {
            run_root,
            facts,
            sight: Arc::new(Sight::new(vec![], vec![])),
            keepers: Arc::default(),
            report: tokio::sync::Mutex::default(),
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

    /// The user id that agents at `level_2` see themselves as.
    pub async fn uid_inside(&self) -> u32 {
        match self.report().await {
            // `bwrap` maps no other id than the one there is.
            Ok(report) if !report.namespaces => rustix::process::geteuid().as_raw(),
            _ => AGENT_ID,
        }
    }

    /// The same backend, which keeps those places of ours out of every cell's view.
    pub fn hiding(mut self, sight: Sight) -> Self {
        self.sight = Arc::new(sight);
        self
    }

    /// What an agent may read that has no root of its own: the system, its profile's paths and its own.
    /// Nothing of ours that lies in the first two, wherever it was moved to.
    pub fn read_paths_without_a_root(&self, of_profile: &[PathBuf], own: &[PathBuf]) -> Vec<PathBuf> {
        let hidden = hidden(&self.sight, of_profile);
        let system = shown_to_every_cell();
        let shown = system.iter().chain(of_profile).flat_map(|tree| without(tree, &hidden));
        shown.chain(devices()).chain(own.iter().cloned()).collect()
    }

    /// Says that an agent could not even be started.
    pub fn report_failed_start(&self, cell: &CellId, agent: &str, run: u32, why: &str) {
        let exit = Exit { code: None, signal: None, success: false, note: Some(format!("not started: {why}")) };
        let _ = self.facts.send(Fact::AgentEnded { cell: cell.clone(), agent: agent.to_owned(), run, exit });
    }

    fn keeper(&self, cell: &CellId) -> Option<Arc<Keeper>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).get(cell).cloned()
    }

    async fn report(&self) -> Result<Arc<HostReport>, BackendError> {
        let mut report = self.report.lock().await;
        if let Some(known) = &*report {
            return Ok(Arc::clone(known));
        }
        let probed = tokio::task::spawn_blocking(|| {
            let output = Command::new(program::RUNNING)
                .arg0("lazarus")
                .arg("cell-probe")
                .stdin(Stdio::null())
                .output()
                .map_err(BackendError::io("probing this host"))?;
            serde_json::from_slice::<HostReport>(&output.stdout)
                .map_err(|e| BackendError::Passing(format!("the probe gave no answer: {e}")))
        });
        let probed = Arc::new(probed.await.map_err(|_| BackendError::Gone)??);
        *report = Some(Arc::clone(&probed));
        Ok(probed)
    }

    /// Has this host looked at anew the next time.
    async fn forget_report(&self) {
        *self.report.lock().await = None;
    }

    /// Decides what this host gives for what was asked, or refuses. Hosts change: before it refuses it looks again.
    async fn level_for(&self, asked: Isolation) -> Result<(Isolation, Arc<HostReport>), BackendError> {
        let report = self.report().await?;
        if let Ok(level) = level_of(&report, asked) {
            return Ok((level, report));
        }
        self.forget_report().await;
        let report = self.report().await?;
        Ok((level_of(&report, asked)?, report))
    }

    /// Everything that is to be known for a cell's start, by what the host gives now.
    async fn prepared(&self, plan: &Plan) -> Result<Prepared, BackendError> {
        let (level, report) = self.level_for(plan.isolation).await?;
        let missing = missing_words(&report);
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
            run_dir,
            // Both are asked for as late as can be.
            program: PathBuf::new(),
            hidden: vec![],
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
            tmp: plan.tmp,
            log: plan.log,
            egress,
        };
        Ok(Prepared { level, missing, ahead: Ahead { walls, groups }, spec })
    }

    /// Starts a cell. What fails is tried again before it is the cell's failure: with a new launcher, because
    /// what the waiting one made may have been overtaken, and then by what the host gives now.
    async fn launch(&self, plan: &Plan) -> Result<Running, BackendError> {
        let mut prepared = self.prepared(plan).await?;
        let mut spare =
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).take_if(|spare| spare.is_for(&prepared.ahead));
        let mut tries = 0;
        let pid = loop {
            tries += 1;
            let failed = match self.launch_keeper(&prepared, spare.take()).await? {
                Ok(pid) => break pid,
                Err(failed) => failed,
            };
            if tries == LAUNCHES {
                return Err(if failed.passing {
                    BackendError::Passing(failed.why)
                } else {
                    BackendError::Start(failed.why)
                });
            }
            tracing::warn!(cell = %plan.cell, why = failed.why, "a cell's start failed; it is tried again");
            if tries > 1 {
                tokio::time::sleep(LAUNCH_PAUSE).await;
                self.forget_report().await;
                prepared = self.prepared(plan).await?;
            }
        };
        let Prepared { level, missing, ahead, spec } = prepared;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).insert(plan.cell.clone(), pid);
        let connected = self.connect(&plan.cell, &spec.run_dir, None).await;
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

    /// Has a keeper launched, once: by the launcher that waits, where one is given and what it made is still good.
    async fn launch_keeper(
        &self,
        prepared: &Prepared,
        spare: Option<Launcher>,
    ) -> Result<Result<i32, NotLaunched>, BackendError> {
        let (run_root, ahead, spec) = (self.run_root.clone(), prepared.ahead.clone(), prepared.spec.clone());
        let sight = Arc::clone(&self.sight);
        tokio::task::spawn_blocking(move || prepare_and_launch(&run_root, &sight, spare, ahead, spec))
            .await
            .map_err(|_| BackendError::Gone)?
    }

    /// Has a launcher ready for the next cell.
    fn keep_a_spare(&self, ahead: Ahead) {
        let (spare, run_root) = (Arc::clone(&self.spare), self.run_root.clone());
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(SPARE_AFTER);
            let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.is_none() {
                // Where it cannot be had now, the next cell will say so.
                *spare = Launcher::spawn(&run_root, ahead).ok();
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
        let program = if walled { Ok(PathBuf::from("/run/lazarus/lazarus")) } else { program::path() };
        let program = match program {
            Ok(program) => program,
            Err(error) => return unknown(format!("finding this program's file: {error}")),
        };
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
                    let own = [program, place("project"), place("work"), place("shared")];
                    self.read_paths_without_a_root(&[], &own)
                },
                write: vec![PathBuf::from("/dev/null"), own],
            },
            ptrace: false,
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
/// first words. Returns the keeper's pid: a child of this process. The outer error is
/// of what a former run of the cell left.
fn prepare_and_launch(
    run_root: &Path,
    sight: &Sight,
    mut spare: Option<Launcher>,
    ahead: Ahead,
    mut spec: LaunchSpec,
) -> Result<Result<i32, NotLaunched>, BackendError> {
    // It ran before, and what belonged to it outside its walls may still be there.
    if spec.run_dir.join(GROUP).exists() {
        clear_up(&spec.run_dir)?;
    }
    // `bwrap` is given its path for each agent anew: that file must stay.
    let program = if ahead.walls.bwrap { program::copy() } else { program::path() };
    spec.program = program.map_err(BackendError::io("finding this program's file"))?;
    if let Some(base) = spec.id_base {
        let directories = written_in(&spec.home);
        let directories: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
        spec.quota = quota::limit(&directories, base, spec.room.bytes, spec.room.files).is_ok();
    }
    for left in [GROUP, "keeper/exit.json"] {
        let _ = std::fs::remove_file(spec.run_dir.join(left));
    }
    if spec.id_base.is_some() && !ahead.walls.namespaces {
        // Without a root of its own the cell has to walk there by itself.
        for directory in spec.home.ancestors().take(2) {
            let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711));
        }
    }
    spec.hidden = hidden(sight, &spec.read_paths).into_iter().filter_map(|hidden| hidden.in_cell).collect();
    if let Some(old) = spare.take_if(|spare| !spare.is_good()) {
        tracing::debug!("the machine changed while a launcher waited: a new one is made");
        // It takes a while to tidy up, and nobody has to wait for it.
        std::thread::spawn(move || drop(old));
    }
    let launcher = spare.map_or_else(|| Launcher::spawn(run_root, ahead), Ok);
    Ok(launcher.and_then(|launcher| launcher.launch(&spec)))
}

/// What is of ours in what a cell sees. It was not there when the daemon started.
fn hidden(sight: &Sight, read_paths: &[PathBuf]) -> Vec<Hidden> {
    let hidden = sight.hidden(read_paths);
    for place in &hidden {
        tracing::error!(
            place = %place.on_host.display(),
            "this is ours, and was moved to where cells look: it is covered in new cells, and not in those that run; \
             move it elsewhere and start the daemon again"
        );
    }
    hidden
}

/// What this host gives for what was asked, or why not.
fn level_of(report: &HostReport, asked: Isolation) -> Result<Isolation, BackendError> {
    let best = if report.level_2() { Isolation::Level2 } else { Isolation::Level1 };
    let uid_0 = rustix::process::geteuid().is_root() && !report.root;
    if best == Isolation::Level1 && uid_0 && report.landlock.is_none() {
        return Err(BackendError::Isolation {
            asked,
            why: "agents would run as user 0 with nothing around them; run Lazarus as an ordinary user here".to_owned(),
        });
    }
    if asked > best {
        let why = if asked > Isolation::Level2 {
            "the process backend gives `level_2` at most, and there is no other yet".to_owned()
        } else {
            missing_words(report).join("; ")
        };
        return Err(BackendError::Isolation { asked, why });
    }
    Ok(best)
}

fn missing_words(report: &HostReport) -> Vec<String> {
    report.missing.iter().map(|m| format!("{}: {} — {}", m.what, m.why, m.hint)).collect()
}

/// What a record holds, or nothing. Some lie in the keeper's directory, which as root belongs to another user: no
/// link is followed, nothing but a plain file read, and of that no more than a record can have.
fn read_json<T: serde::de::DeserializeOwned + Default>(path: PathBuf) -> T {
    use std::io::Read as _;
    let read = || -> std::io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = std::fs::File::from(openat(CWD, &path, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut text = vec![];
        file.take(RECORD_MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    read().ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
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

/// Every run as it ended: by the exit record, or as killed where there is none.
fn settle_by_record(run_dir: &Path, known: Vec<AgentState>) -> Vec<AgentState> {
    let record: Option<ExitRecord> = read_json(run_dir.join("keeper/exit.json"));
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
        async { Ok(self.report().await?.as_ref().clone()) }.boxed()
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

    fn look(&self, cell: CellId) -> BoxFuture<'_, Seen> {
        let run_root = self.run_root.clone();
        async move { tokio::task::spawn_blocking(move || look(&run_root, &cell)).await.unwrap_or_default() }.boxed()
    }

    fn log(&self, cell: CellId, agent: String, bytes: u64) -> BoxFuture<'_, Result<String, BackendError>> {
        async move {
            let keeper = self.run_dir(&cell).join("keeper");
            let tail = tokio::task::spawn_blocking(move || log_tail(&keeper, &agent, bytes));
            let tail = tail.await.map_err(|_| BackendError::Gone)?;
            let tail = tail.map_err(BackendError::io("reading the agent's log"))?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
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

/// What is to be seen of a cell whose run directory lies below `run_root`, with
/// a daemon or without one. Blocks for a file or two.
pub fn look(run_root: &Path, cell: &CellId) -> Seen {
    let run_dir = run_root.join(cell.as_str());
    let lives = keeper_lives(&run_dir);
    let pid = || std::fs::read_to_string(run_dir.join(KEEPER_PID)).ok()?.trim().parse().ok();
    Seen { lives, pid: if lives { pid() } else { None } }
}
