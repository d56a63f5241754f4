//! The host's git: a mirror of each project, the work that came out of cells, and the push.
//!
//! What agents wrote reaches it only as a [`HandedWork`]: a pack and a list, both hostile. Every git that reads
//! them is [confined](ConfinedGit), and nothing here runs in a directory that agents can write.

mod clone;
mod confined;
mod git;
mod harvest;
mod held;
mod inspect;
mod parts;
mod push;
mod work;

pub use clone::{Cloned, LeftOut, clone_project, hold_base, holds_base, left_out_of, mirror_of, refresh_mirror, unpin};
pub use confined::ConfinedGit;
pub use git::{GitAccess, GitError, credential_helper};
pub use harvest::Harvest;
pub use held::{Finding, Held, Place};
pub use push::{PushOutcome, Pushed};
pub use work::{Origin, WorkLimits, WorkRepository};

use crate::cell::CellId;
use crate::host::Host;
use crate::publication::Secrets;
use crate::sandbox::Confinement;
use crate::workspace::{HandedWork, HomeError, make_directory, scrub};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};

/// How many cells' work is read at once: each may need as much memory and time as the limits allow.
const READERS: usize = 3;
/// Most commits that are remembered as searched. When there are more, the list is emptied.
const SEARCHED_MAX: usize = 10_000;

/// The directory of an installation's mirrors.
pub fn mirrors_in(data: &Path) -> PathBuf {
    data.join("mirrors")
}

/// The directory in which an installation keeps the work of a cell.
pub fn work_in(data: &Path, cell: &CellId) -> PathBuf {
    data.join("work").join(format!("{cell}.git"))
}

/// All repositories of an installation: the mirrors of its projects and the work of its cells.
pub struct Repositories {
    data: PathBuf,
    access: GitAccess,
    host: Arc<Host>,
    /// A lock for each project's mirror, by the project's number.
    turns: Mutex<HashMap<i64, Arc<AsyncMutex<()>>>>,
    reading: Semaphore,
    /// Commits of cells in which this process found nothing that may not leave.
    searched: Mutex<HashSet<(CellId, String)>>,
}

/// A project from which a cell is made. Nothing is fetched until it is cloned.
#[derive(Clone)]
pub struct Source {
    mirror: PathBuf,
    turn: Arc<AsyncMutex<()>>,
    access: GitAccess,
    url: String,
    cell: String,
    branch: String,
    commit: Option<String>,
}

impl Source {
    /// The branch that is cloned.
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// Updates the mirror and clones it to `target`, which no agent has seen; see [`clone_project`] for `borrow`.
    /// Also returns the branches that could not be fetched. Only one caller at a time works on a mirror.
    ///
    /// # Errors
    /// If git cannot be run, or the forge lacks the branch or the commit.
    pub async fn clone_to(&self, target: &Path, borrow: bool) -> Result<(Cloned, Vec<LeftOut>), GitError> {
        let (source, target) = (self.clone(), target.to_owned());
        let _one_at_a_time = self.turn.lock().await;
        blocking("cloning", move || {
            let Source { mirror, access, url, cell, branch, commit, .. } = &source;
            let left_out = refresh_mirror(mirror, url, access, branch)?;
            let cloned = clone_project(mirror, cell, branch, commit.as_deref(), &target, borrow)?;
            Ok((cloned, left_out))
        })
        .await
    }
}

impl Repositories {
    /// The repositories below a data directory. Nothing is created on disk yet.
    pub fn new(data: &Path, access: GitAccess, host: Arc<Host>) -> Self {
        Self {
            data: data.to_owned(),
            access,
            host,
            turns: Mutex::default(),
            reading: Semaphore::new(READERS),
            searched: Mutex::default(),
        }
    }

    /// Creates their directories, and removes what killed git commands left there.
    ///
    /// # Errors
    /// If a directory cannot be created.
    pub fn prepare(&self) -> Result<(), HomeError> {
        for root in [mirrors_in(&self.data), self.data.join("work")] {
            make_directory(&root, 0o700)?;
            git::clear_credentials(&root);
        }
        Ok(())
    }

    fn mirror(&self, project: i64) -> PathBuf {
        mirror_of(&mirrors_in(&self.data), project)
    }

    /// The lock of a project's mirror.
    fn turn(&self, project: i64) -> Arc<AsyncMutex<()>> {
        Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(project).or_default())
    }

    /// The project with this number, which is at `url` now, as the source of one cell. `commit` is the approved
    /// one; `None` takes the newest one of the branch.
    pub fn source(&self, project: i64, url: String, branch: &str, commit: Option<String>, cell: &CellId) -> Source {
        Source {
            mirror: self.mirror(project),
            turn: self.turn(project),
            access: self.access.clone(),
            url,
            cell: cell.to_string(),
            branch: branch.to_owned(),
            commit,
        }
    }

    /// The repository with a cell's work, and how it is read on this host.
    async fn work(&self, cell: &CellId, project: i64) -> Result<WorkRepository, GitError> {
        let by = Confinement::of(&*self.host.report().await?);
        let git = ConfinedGit::new(self.host.program(), by);
        Ok(WorkRepository::new(work_in(&self.data, cell), self.mirror(project), git))
    }

    /// Takes in what a cell handed out.
    ///
    /// # Errors
    /// If git cannot be run or one of our own files cannot be used.
    pub async fn take_in(
        &self,
        cell: &CellId,
        project: i64,
        handed: HandedWork,
        limits: WorkLimits,
        origin: Origin,
        secrets: Arc<Secrets>,
    ) -> Result<Harvest, GitError> {
        let work = self.work(cell, project).await?;
        self.keep_base(cell, project, &origin.base).await?;
        let _turn = self.turn_to_read().await?;
        let confinement = work.confinement();
        tracing::info!(%cell, confined = confinement, "the work of a cell is looked at");
        let taken = blocking("taking work in", move || work.take_in(handed, &limits, &origin, &secrets));
        let mut harvest = taken.await?;
        harvest.read_by = Some(confinement.to_owned());
        let free = harvest.parts().filter(|commit| !harvest.is_held(commit));
        let mut searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
        if searched.len() > SEARCHED_MAX {
            searched.clear();
        }
        searched.extend(free.map(|commit| (cell.clone(), commit.to_owned())));
        Ok(harvest)
    }

    /// Makes the mirror keep the commit that a cell was made from. Usually it does already, and then this does not
    /// wait for the mirror's lock.
    async fn keep_base(&self, cell: &CellId, project: i64, base: &str) -> Result<(), GitError> {
        let (place, name, base) = (self.mirror(project), cell.to_string(), base.to_owned());
        if holds_base(&place, &name, &base) {
            return Ok(());
        }
        let turn = self.turn(project);
        let _one_at_a_time = turn.lock().await;
        blocking("keeping a commit", move || hold_base(&place, &name, &base)).await
    }

    /// Waits until few enough others read work, so that the rest of the daemon keeps some memory and time.
    async fn turn_to_read(&self) -> Result<SemaphorePermit<'_>, GitError> {
        let tried = |e: tokio::sync::AcquireError| GitError::io("waiting to read work")(std::io::Error::other(e));
        self.reading.acquire().await.map_err(tried)
    }

    /// Finds what holds each of these commits back, with the secrets that are known now. Commits that this process
    /// already searched are not searched again.
    ///
    /// # Errors
    /// If git cannot be run.
    pub async fn judge(
        &self,
        cell: &CellId,
        project: i64,
        base: String,
        parts: Vec<(Option<String>, String)>,
        limits: WorkLimits,
        secrets: Arc<Secrets>,
    ) -> Result<Vec<Held>, GitError> {
        let parts: Vec<(Option<String>, String)> = {
            let searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
            parts.into_iter().filter(|(_, commit)| !searched.contains(&(cell.clone(), commit.clone()))).collect()
        };
        if parts.is_empty() {
            return Ok(vec![]);
        }
        let work = self.work(cell, project).await?;
        let _turn = self.turn_to_read().await?;
        blocking("looking at work", move || work.judge(&parts, &base, &limits, &secrets)).await
    }

    /// Pushes commits of a cell's work to the project, which is at `url` now; see [`WorkRepository::push`].
    ///
    /// # Errors
    /// If it may work later.
    pub async fn push(
        &self,
        cell: &CellId,
        project: i64,
        url: String,
        branches: Vec<(String, String)>,
    ) -> Result<Vec<PushOutcome>, GitError> {
        let (work, access) = (self.work(cell, project).await?, self.access.clone());
        blocking("pushing", move || work.push(&url, &access, &branches)).await
    }

    /// Packs a checkpoint of a cell as an archive of at most `most` bytes; see [`WorkRepository::archive`].
    ///
    /// # Errors
    /// The inner error says in words why the archive cannot be made or may not leave. The outer one means that git
    /// cannot be run.
    pub async fn archive(
        &self,
        cell: &CellId,
        project: i64,
        checkpoint: String,
        most: u64,
        secrets: Arc<Secrets>,
    ) -> Result<Result<Vec<u8>, String>, GitError> {
        let work = self.work(cell, project).await?;
        blocking("archiving", move || Ok(work.archive(&checkpoint, most, &secrets))).await
    }

    /// Removes a cell's work, and the mirror's reference to the commit that the cell was made from.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub async fn forget(&self, cell: &CellId, project: i64) -> Result<(), GitError> {
        let (work, mirror, name) = (work_in(&self.data, cell), self.mirror(project), cell.to_string());
        blocking("removing work", move || {
            let tried = || GitError::io(format!("removing {}", work.display()));
            scrub(&work).map_err(tried())?;
            if work.symlink_metadata().is_ok() {
                return Err(tried()(std::io::Error::other("it is still there")));
            }
            unpin(&mirror, &name)
        })
        .await
    }
}

/// Runs git on a thread that may block.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| GitError::io(what)(std::io::Error::other(e)))?
}
