//! Starts a cell: decides which isolation this host can provide, and launches a keeper for it.

use super::ProcessBackend;
use super::launcher::{Launcher, NotLaunched};
use super::usage::{clear_up, written_in};
use crate::agents::Profile;
use crate::backend::{BackendError, CellSpec, Running};
use crate::cell::{Isolation, Network};
use crate::egress::{self, Token};
use crate::keeper::{DiskSpace, GROUP, LaunchSpec, Prewarmed, SandboxKind};
use crate::repository::mirror_of;
use crate::sandbox::{FIRST_ID, Hidden, HostReport, ProcessLimits, ResourceLimits, Sight, program, quota};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// User ids for each cell: the keeper's, the agents', the egress proxy's, and one in reserve.
const IDS_A_CELL: i64 = 4;
/// How long after a cell's start the next launcher is made. While a process enters a control group the kernel
/// delays every fork, and this cell's agents are about to fork.
const STANDBY_AFTER: Duration = Duration::from_millis(10);
/// How often a cell's start is attempted before it counts as failed.
const LAUNCHES: u32 = 3;
/// How long to wait before the last attempt.
const LAUNCH_PAUSE: Duration = Duration::from_millis(250);

/// Everything that is needed to start a cell on this host.
struct Prepared {
    level: Isolation,
    /// What is missing for stronger isolation, in words.
    missing: Vec<String>,
    prewarmed: Prewarmed,
    spec: LaunchSpec,
}

impl ProcessBackend {
    /// The first of a cell's user ids; `None` if this process is not root.
    pub(super) async fn id_base(&self, slot: i64) -> Option<u32> {
        let root = self.host.report().await.is_ok_and(|r| r.root);
        root.then_some((i64::from(FIRST_ID) + slot * IDS_A_CELL) as u32)
    }

    /// The user that a cell's agents run as if this process is root. `None` otherwise: they run as this user.
    pub async fn agents_uid(&self, slot: i64) -> Option<u32> {
        Some(self.id_base(slot).await? + 1)
    }

    /// Host paths that the profiles of a cell's agents show in addition to the usual ones.
    fn read_paths(&self, spec: &CellSpec) -> Vec<PathBuf> {
        let profiles = spec.agents.iter().filter_map(|agent| self.profiles.get(agent));
        let mut paths: Vec<PathBuf> = profiles.flat_map(Profile::shown_paths).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Decides which isolation this host provides for the requested one, or refuses. Hosts change, so it probes
    /// again before it refuses.
    async fn level_for(&self, asked: Isolation) -> Result<(Isolation, Arc<HostReport>), BackendError> {
        let report = self.host.report().await?;
        if let Ok(level) = level_of(&report, asked) {
            return Ok((level, report));
        }
        self.host.forget().await;
        let report = self.host.report().await?;
        Ok((level_of(&report, asked)?, report))
    }

    /// Collects everything that a cell's start needs, from what the host supports now.
    async fn prepared(&self, spec: &CellSpec) -> Result<Prepared, BackendError> {
        let (level, report) = self.level_for(spec.isolation).await?;
        let missing = missing_words(&report);
        let namespaces = report.namespaces && level == Isolation::Level2;
        let bwrap = report.bwrap.clone().filter(|_| level == Isolation::Level2 && !namespaces);
        if spec.network == Network::Proxy && !namespaces {
            return Err(BackendError::Start(format!(
                "named hosts need a network namespace of our own making, which this host does not give: {}; ask for \
                 no network",
                missing.join("; ")
            )));
        }
        if spec.in_memory && !namespaces {
            return Err(BackendError::Start(format!(
                "`policy.disk_in_memory` needs a mount namespace of our own making, which this host does not give: {}",
                missing.join("; ")
            )));
        }
        let id_base = self.id_base(spec.slot).await;
        let groups = report.groups.clone();
        let run_dir = self.roots.run_dir(&spec.cell);
        let pinned = !groups.limit_cpu();
        let sandbox =
            SandboxKind { namespaces, bwrap: bwrap.is_some(), host_network: spec.network == Network::Host, pinned };
        let egress = if spec.network == Network::Proxy {
            Some(egress::Spec {
                cell: spec.cell.to_string(),
                token: Token::new().map_err(|e| BackendError::Start(format!("making the proxy's token: {e}")))?,
                rules: spec.egress.rules.clone(),
                directory: run_dir.join("egress"),
                user: id_base.map(|base| egress::User { uid: base + 2, gid: base + 2 }),
                addresses: spec.egress.addresses.clone(),
            })
        } else {
            None
        };
        let limits = &spec.limits;
        let room = DiskSpace { bytes: limits.disk, files: limits.files };
        let resources = ResourceLimits { memory: limits.memory, processes: limits.processes, cpu: limits.cpu };
        let objects = mirror_of(&self.mirrors, spec.project).join("objects");
        let launch = LaunchSpec {
            cell: spec.cell.to_string(),
            home: self.roots.home(&spec.cell).path,
            run_dir,
            // Both are filled in as late as possible.
            program: PathBuf::new(),
            hidden: vec![],
            id_base,
            objects: Some(objects).filter(|objects| objects.is_dir()),
            read_paths: self.read_paths(spec),
            bwrap,
            limits: ProcessLimits {
                open_files: limits.open_files,
                file_size: room.bytes,
                // Otherwise the kernel would count all processes that the user runs.
                processes: (namespaces || id_base.is_some()).then_some(resources.processes),
                data: None,
            },
            resources,
            room,
            // A snapshot stores every file once more, and the pack needs space in addition.
            harvest_room: DiskSpace {
                bytes: limits.disk.saturating_add(spec.pack_max.saturating_mul(2)),
                files: limits.files.saturating_mul(2).saturating_add(1000),
            },
            quota: false,
            in_memory: spec.in_memory,
            tmp: limits.tmp,
            log: limits.log,
            egress,
        };
        Ok(Prepared { level, missing, prewarmed: Prewarmed { sandbox, groups }, spec: launch })
    }

    /// Starts a cell. A failed attempt is repeated before it counts as the cell's failure: first with a new
    /// launcher, because what the one on standby made may be out of date, and then after probing the host again.
    pub(super) async fn launch(&self, spec: &CellSpec) -> Result<Running, BackendError> {
        let mut prepared = self.prepared(spec).await?;
        let mut standby = self
            .standby
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_if(|standby| standby.is_for(&prepared.prewarmed));
        let mut tries = 0;
        let pid = loop {
            tries += 1;
            let failed = match self.launch_keeper(&prepared, standby.take()).await? {
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
            tracing::warn!(cell = %spec.cell, why = failed.why, "a cell's start failed; it is tried again");
            if tries > 1 {
                tokio::time::sleep(LAUNCH_PAUSE).await;
                self.host.forget().await;
                prepared = self.prepared(spec).await?;
            }
        };
        let Prepared { level, missing, prewarmed, spec: launched } = prepared;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).insert(spec.cell.clone(), pid);
        let connected = self.connect(&spec.cell, &launched.run_dir, None).await;
        self.keep_a_standby(prewarmed);
        let (_, applied, _) = connected?;
        let mut running = Running { isolation: Some(level), applied, missing: vec![], pid: Some(pid) };
        if level < Isolation::Level2 {
            running.missing = missing;
            running
                .applied
                .push("a directory and an environment of its own; the host's processes are not hidden".to_owned());
        }
        if let Some(keeper) = self.keepers.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&spec.cell)
            && let Some(keeper) = Arc::get_mut(keeper)
        {
            keeper.running = running.clone();
        }
        Ok(running)
    }

    /// Launches a keeper once: with the launcher on standby, if one is given and what it prewarmed is still good.
    async fn launch_keeper(
        &self,
        prepared: &Prepared,
        standby: Option<Launcher>,
    ) -> Result<Result<i32, NotLaunched>, BackendError> {
        let (run_root, prewarmed, spec) = (self.roots.run.clone(), prepared.prewarmed.clone(), prepared.spec.clone());
        let sight = self.sight();
        tokio::task::spawn_blocking(move || prepare_and_launch(&run_root, &sight, standby, prewarmed, spec))
            .await
            .map_err(|_| BackendError::Gone)?
    }

    /// Makes a launcher for the next cell and puts it on standby.
    fn keep_a_standby(&self, prewarmed: Prewarmed) {
        let (standby, run_root) = (Arc::clone(&self.standby), self.roots.run.clone());
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(STANDBY_AFTER);
            let mut standby = standby.lock().unwrap_or_else(PoisonError::into_inner);
            if standby.is_none() {
                // If that fails now, the next cell's start will report it.
                *standby = Launcher::spawn(&run_root, prewarmed).ok();
            }
        });
    }
}

/// Tells a launcher what to launch; it makes the run directory. Waits until the keeper listens and returns the
/// keeper's pid, which is a child of this process. The outer error is about the remains of an earlier run of the
/// cell.
fn prepare_and_launch(
    run_root: &Path,
    sight: &Sight,
    mut standby: Option<Launcher>,
    prewarmed: Prewarmed,
    mut spec: LaunchSpec,
) -> Result<Result<i32, NotLaunched>, BackendError> {
    // The cell ran before: what belonged to it outside its sandbox may still exist.
    if spec.run_dir.join(GROUP).exists() {
        clear_up(&spec.run_dir)?;
    }
    // `bwrap` is given this path for each agent, so the file must stay.
    let program = if prewarmed.sandbox.bwrap { program::copy() } else { program::path() };
    spec.program = program.map_err(BackendError::io("finding this program's file"))?;
    if let Some(base) = spec.id_base {
        let directories = written_in(&spec.home);
        let directories: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
        spec.quota = quota::limit(&directories, base, spec.room.bytes, spec.room.files).is_ok();
    }
    for left in [GROUP, "keeper/exit.json"] {
        let _ = std::fs::remove_file(spec.run_dir.join(left));
    }
    if spec.id_base.is_some() && !prewarmed.sandbox.namespaces {
        // Without a root of its own, the cell must be able to walk to its home through these directories.
        for directory in spec.home.ancestors().take(2) {
            let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711));
        }
    }
    spec.hidden = hidden(sight, &spec.read_paths).into_iter().filter_map(|hidden| hidden.in_cell).collect();
    if let Some(old) = standby.take_if(|standby| !standby.is_good()) {
        tracing::debug!("the machine changed while a launcher waited: a new one is made");
        // Cleaning up takes a while, and nobody has to wait for it.
        std::thread::spawn(move || drop(old));
    }
    let launcher = standby.map_or_else(|| Launcher::spawn(run_root, prewarmed), Ok);
    Ok(launcher.and_then(|launcher| launcher.launch(&spec)))
}

/// Finds files of the daemon that a cell would see. None were visible when the daemon started.
pub(super) fn hidden(sight: &Sight, read_paths: &[PathBuf]) -> Vec<Hidden> {
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

/// The isolation that this host provides for the requested one, or why it cannot.
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

/// Describes what is missing for stronger isolation, in words.
pub(super) fn missing_words(report: &HostReport) -> Vec<String> {
    report.missing.iter().map(|m| format!("{}: {} — {}", m.what, m.why, m.hint)).collect()
}
