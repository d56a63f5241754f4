//! Cells as processes of this host, each under a keeper of its own.
//!
//! | file | holds |
//! | --- | --- |
//! | `home` | a cell's home, with the project in it |
//! | `start`, `launcher` | starting a keeper for a cell, with what this host supports |
//! | `connection` | orders to a keeper, and its events |
//! | `place`, `agent`, `missing_program` | how an agent is started, and the paths that it sees |
//! | `harvest` | harvesting the work |
//! | `usage`, `outside` | what a cell used; how a keeper looks from outside |

mod agent;
mod connection;
mod harvest;
mod home;
mod launcher;
mod missing_program;
mod outside;
mod place;
mod start;
mod usage;

pub use outside::look;

use super::{
    Adopted, AgentSpec, Backend, BackendError, Brief, Capabilities, CellEvent, CellPath, CellSpec, Created, HandedWork,
    HarvestRequest, Record, Running, Seen, StopReport,
};
use crate::agents::Profiles;
use crate::cell::{BackendKind, CellId, Isolation, Network};
use crate::config::Config;
use crate::egress;
use crate::host::{self, Host};
use crate::keeper::{AgentState, DiskSpace, KEEPER_PID, Order, clear_prewarmed, keeper_lives, log_tail};
use crate::repository::{Source, mirrors_in};
use crate::sandbox::{Groups, Sight, program, settle_groups};
use crate::workspace::Roots;
use async_trait::async_trait;
use connection::{Keeper, report, settle_by_record};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use launcher::{Launcher, reap};
use outside::{kill_locked, pid_of, wait_for_end};
use start::missing_words;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use usage::{clear_up, note_quota, usage_of};

/// How long agents may take to end by themselves before they are killed.
const GRACE: Duration = Duration::from_secs(5);

/// The backend that runs cells as processes of this host.
pub struct ProcessBackend {
    roots: Roots,
    mirrors: PathBuf,
    profiles: Profiles,
    host: Arc<Host>,
    /// The daemon's environment: its PATH is searched for programs that a cell does not show.
    host_env: BTreeMap<String, String>,
    sight: Mutex<Arc<Sight>>,
    events: mpsc::UnboundedSender<CellEvent>,
    heard: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<CellEvent>>>,
    keepers: Arc<Mutex<HashMap<CellId, Arc<Keeper>>>>,
    /// A launcher on standby, which waits to be told what to launch.
    standby: Arc<Mutex<Option<Launcher>>>,
    /// Keepers that this process must reap. Until then the kernel does not reuse their pids.
    children: Arc<Mutex<HashMap<CellId, i32>>>,
}

impl ProcessBackend {
    /// Creates a backend whose cells lie below `roots`, borrow objects from `mirrors`, and see none of the paths in
    /// `sight`.
    pub fn new(roots: Roots, mirrors: PathBuf, profiles: Profiles, sight: Sight, host: Arc<Host>) -> Self {
        let (events, heard) = mpsc::unbounded_channel();
        Self {
            roots,
            mirrors,
            profiles,
            host,
            host_env: host::environment(),
            sight: Mutex::new(Arc::new(sight)),
            events,
            heard: Arc::new(tokio::sync::Mutex::new(heard)),
            keepers: Arc::default(),
            standby: Arc::default(),
            children: Arc::default(),
        }
    }

    /// Creates the backend of an installation. Nothing is created on disk yet.
    ///
    /// # Errors
    /// If cells would see some of the daemon's own files.
    pub fn of(config: &Config, profiles: Profiles, host: Arc<Host>) -> Result<Self, BackendError> {
        let roots = Roots {
            cells: config.paths.cells.clone(),
            graveyard: config.paths.graveyard.clone(),
            archive: config.paths.archive.clone(),
            run: config.paths.data.join("run"),
        };
        let sight = config.sight();
        nothing_in_sight(&sight)?;
        Ok(Self::new(roots, mirrors_in(&config.paths.data), profiles, sight, host))
    }

    /// The daemon's own paths, which no cell may see.
    fn sight(&self) -> Arc<Sight> {
        Arc::clone(&self.sight.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Fails if cells would see some of the daemon's own files.
fn nothing_in_sight(sight: &Sight) -> Result<(), BackendError> {
    let found: Vec<String> = sight.ours_in_sight().iter().map(ToString::to_string).collect();
    if found.is_empty() { Ok(()) } else { Err(BackendError::InSight(found.join("\n  "))) }
}

#[async_trait]
impl Backend for ProcessBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Process
    }

    fn prepare(&self) -> Result<(), BackendError> {
        self.roots.make()?;
        let mut sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked again now that all files exist: a path that did not exist could not be compared as closely.
        nothing_in_sight(&sight)?;
        if let Some(sight) = Arc::get_mut(&mut sight) {
            sight.hold();
        }
        settle_groups();
        clear_prewarmed(&self.roots.run, None);
        program::keep_copies_in(&self.roots.run);
        Ok(())
    }

    async fn probe(&self) -> Result<Capabilities, BackendError> {
        let report = self.host.report().await?;
        let mut networks = vec![Network::None];
        if report.namespaces {
            // The way out to named hosts needs a network namespace of the cell's own.
            networks.push(Network::Proxy);
        }
        networks.push(Network::Host);
        let limited = !matches!(report.groups, Groups::None { .. });
        Ok(Capabilities {
            isolation: if report.level_2() { Isolation::Level2 } else { Isolation::Level1 },
            networks,
            limits: limited.then(|| report.groups.words()).into_iter().collect(),
            missing: missing_words(&report),
        })
    }

    async fn create(&self, spec: &CellSpec, source: &Source, brief: &Brief) -> Result<Created, BackendError> {
        self.make_home(spec, source, brief).await
    }

    async fn made_from(&self, cell: &CellId) -> Result<Option<String>, BackendError> {
        Ok(self.roots.home(cell).is_made())
    }

    async fn start(&self, spec: &CellSpec) -> Result<Running, BackendError> {
        if let Some(keeper) = self.keeper(&spec.cell) {
            return Ok(keeper.running.clone());
        }
        if keeper_lives(&self.roots.run_dir(&spec.cell))
            && let Adopted::Live(running) = self.adopt(&spec.cell).await?
        {
            return Ok(running);
        }
        self.launch(spec).await
    }

    async fn start_agent(&self, spec: &CellSpec, agent: AgentSpec) -> Result<(), BackendError> {
        self.start_run(spec, agent).await
    }

    async fn deliver(&self, cell: &CellId, record: Record) -> Result<(), BackendError> {
        self.write_record(cell, record).await
    }

    async fn stop_agent(&self, cell: &CellId, agent: &str) -> Result<(), BackendError> {
        let Some(keeper) = self.keeper(cell) else { return Ok(()) };
        keeper.orders.send(Order::StopAgent { agent: agent.to_owned() }).map_err(|_| BackendError::Gone)
    }

    async fn freeze(&self, cell: &CellId, frozen: bool) -> Result<(), BackendError> {
        let Some(keeper) = self.keeper(cell) else { return Ok(()) };
        let order = if frozen { Order::Freeze } else { Order::Thaw };
        keeper.orders.send(order).map_err(|_| BackendError::Gone)
    }

    async fn snapshot(&self, spec: &CellSpec, request: HarvestRequest, run: u32) -> Result<HandedWork, BackendError> {
        let keeper = self.keeper(&spec.cell).ok_or(BackendError::Gone)?;
        keeper.orders.send(Order::Freeze).map_err(|_| BackendError::Gone)?;
        let handed = self.hand_out(spec, request, run.min(u32::MAX - 1)).await;
        keeper.orders.send(Order::Thaw).map_err(|_| BackendError::Gone)?;
        Ok(handed)
    }

    async fn stop(&self, spec: &CellSpec, harvest: Option<HarvestRequest>) -> Result<StopReport, BackendError> {
        let cell = &spec.cell;
        let (run_dir, home) = (self.roots.run_dir(cell), self.roots.home(cell));
        if self.keeper(cell).is_none() && keeper_lives(&run_dir) {
            let _ = self.adopt(cell).await;
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
        if let Some(id_base) = self.id_base(spec.slot).await {
            let room = DiskSpace { bytes: spec.limits.disk, files: spec.limits.files };
            let (dir, home) = (run_dir.clone(), home.path.clone());
            let _ = tokio::task::spawn_blocking(move || note_quota(&dir, &home, id_base, room)).await;
        }
        let mut work = None;
        if let Some(request) = harvest.filter(|_| home.path.join("project").is_dir()) {
            if self.keeper(cell).is_none() {
                // The keeper died, but its work can still be harvested, without a network.
                let _ = self.launch(&CellSpec { network: Network::None, ..spec.clone() }).await;
            }
            work = Some(self.hand_out(spec, request, u32::MAX).await);
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
        // A keeper that never listened has nobody else to reap it.
        let child = self.children.lock().unwrap_or_else(PoisonError::into_inner).remove(cell);
        if let Some(child) = child
            && !keeper_lives(&run_dir)
        {
            let _ = tokio::task::spawn_blocking(move || reap(child)).await;
        }
        if keeper_lives(&run_dir) {
            return Err(BackendError::Start("the cell's keeper did not end, not even after SIGKILL".to_owned()));
        }
        let dir = run_dir.clone();
        let usage = tokio::task::spawn_blocking(move || clear_up(&dir)).await.map_err(|_| BackendError::Gone)??;
        let dir = run_dir.join("egress");
        let refusals = tokio::task::spawn_blocking(move || egress::refusals(&dir)).await.unwrap_or_default();
        if !refusals.is_empty() && home.path.exists() {
            home.write_record("egress-refused.jsonl", &refusals)?;
        }
        Ok(StopReport { work, usage })
    }

    async fn retire(&self, cell: &CellId) -> Result<(), BackendError> {
        if self.roots.home(cell).path.exists() {
            self.roots.bury(cell)?;
        }
        Ok(())
    }

    async fn revive_home(&self, cell: &CellId) -> Result<(), BackendError> {
        if !self.roots.home(cell).path.exists() && self.roots.is_buried(cell) {
            self.roots.exhume(cell)?;
        }
        Ok(())
    }

    async fn archive(&self, cell: &CellId) -> Result<(), BackendError> {
        let (cell, date) = (cell.clone(), jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
        self.with_roots(move |roots| roots.archive(&cell, &date)).await
    }

    async fn destroy(&self, spec: &CellSpec) -> Result<(), BackendError> {
        self.stop(spec, None).await?;
        let cell = spec.cell.clone();
        self.with_roots(move |roots| roots.scrub(&cell)).await
    }

    async fn adopt(&self, cell: &CellId) -> Result<Adopted, BackendError> {
        if let Some(keeper) = self.keeper(cell) {
            return Ok(Adopted::Live(keeper.running.clone()));
        }
        let run_dir = self.roots.run_dir(cell);
        // A keeper that is starting takes its lock a moment before it listens.
        for _ in 0..100 {
            if !keeper_lives(&run_dir) {
                break;
            }
            match self.connect(cell, &run_dir, None).await {
                Ok((_, _, running)) => return Ok(Adopted::Live(Running { pid: pid_of(&run_dir), ..running })),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        let ended = settle_by_record(&run_dir, vec![]);
        for state in &ended {
            report(&self.events, cell, state);
        }
        Ok(Adopted::Over(ended.into_iter().map(|s| (s.agent, s.run)).collect()))
    }

    async fn look(&self, cell: &CellId) -> Seen {
        let (run_root, cell) = (self.roots.run.clone(), cell.clone());
        tokio::task::spawn_blocking(move || look(&run_root, &cell)).await.unwrap_or_default()
    }

    async fn logs(&self, cell: &CellId, agent: &str, bytes: u64) -> Result<String, BackendError> {
        let (keeper, agent) = (self.roots.run_dir(cell).join("keeper"), agent.to_owned());
        let tail = tokio::task::spawn_blocking(move || log_tail(&keeper, &agent, bytes));
        let tail = tail.await.map_err(|_| BackendError::Gone)?;
        let tail = tail.map_err(BackendError::io("reading the agent's log"))?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }

    async fn read_file(&self, cell: &CellId, path: &CellPath, most: u64) -> Result<Option<Vec<u8>>, BackendError> {
        self.read_from(cell, path, most).await
    }

    fn events(&self) -> BoxStream<'static, CellEvent> {
        let heard = Arc::clone(&self.heard);
        let next = |heard: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<CellEvent>>>| async move {
            let event = heard.lock().await.recv().await?;
            Some((event, heard))
        };
        futures::stream::unfold(heard, next).boxed()
    }
}
