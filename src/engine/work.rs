//! The work leaves the cell: taken in at the end, then pushed and proposed.

use super::Engine;
use super::input::{Input, PublishedWork};
use super::run::{Attempt, Ran, blocking};
use crate::backend::{Harvest, WorkWanted};
use crate::cell::{Cell, CellId};
use crate::gitea::event::RepoRef;
use crate::gitea::{Forge, ForgeError, NewPull};
use crate::store::EffectRow;
use crate::workspace::{HandedOut, OwnCommit, PushError, WorkLimits, WorkRepository, mirror_of};
use std::path::PathBuf;

/// Attempts at a push or a pull request after which the close log says why there
/// is none: the work is kept, and `lazarus publish` tries again. With the waits
/// between them about a minute.
const ATTEMPTS_MAX: i64 = 7;

/// The repository's number in a mission's name.
pub fn repository_of(mission: &str) -> i64 {
    mission.split_once('#').and_then(|(id, _)| id.parse().ok()).unwrap_or(0)
}

impl Engine {
    /// What is wanted out of a cell that was cloned at `base`.
    pub(super) fn work_wanted(&self, base: Option<String>) -> Option<WorkWanted> {
        let harvest = &self.context.config.harvest;
        base.map(|base| WorkWanted { base, pack_max: harvest.pack_max, commit_rest: harvest.commit_uncommitted })
    }

    fn work_of(&self, cell: &CellId, mission: &str) -> WorkRepository {
        let mirror = mirror_of(&self.roots.mirrors, repository_of(mission));
        WorkRepository::new(self.roots.work_of(cell), mirror)
    }

    /// Takes in what a cell handed out.
    pub(super) async fn receive_work(
        &self,
        cell: &Cell,
        mission: String,
        base: String,
        handed: Option<(HandedOut, PathBuf)>,
    ) -> Result<Harvest, Attempt> {
        let Some((handed, directory)) = handed else { return Ok(Harvest::default()) };
        let config = self.context.config.harvest.clone();
        let limits = WorkLimits { pack: config.pack_max, file: config.file_max, files: u64::from(config.files_max) };
        let own = OwnCommit { mission, cell: cell.id.to_string(), signing_key: config.signing_key };
        let work = self.work_of(&cell.id, &cell.mission);
        let mirror = self.mirror(repository_of(&cell.mission));
        let _one_at_a_time = mirror.lock().await;
        blocking(move || work.take_in(&directory, &base, &handed, &limits, &own))
            .await?
            .map_err(|e| Attempt::Again { why: self.context.redact(&e.to_string()), after: None })
    }
}

/// What a push is to do, as its effect says.
pub struct Order {
    /// Where.
    pub repo: RepoRef,
    /// The name of the branch.
    pub branch: String,
    /// What goes on it.
    pub tip: Option<String>,
    /// Other branches: name, commit.
    pub others: Vec<(String, String)>,
    /// The branch that the pull request is for.
    pub base: String,
    /// The pull request's title.
    pub title: String,
    /// Its text.
    pub body: String,
}

/// Pushes a cell's work and asks for it to be pulled. What the forge refuses is
/// said; nothing is lost by it.
pub async fn push(engine: &Engine, forge: &Forge, row: &EffectRow, cell: CellId, order: Order) -> Ran {
    let mut published = PublishedWork::default();
    let said = |published: PublishedWork| Ok(Input::Pushed { cell: cell.clone(), published });
    // Names move; the number stays.
    let repository = match forge.repository_by_id(order.repo.id).await {
        Ok(Some(repository)) => repository,
        Ok(None) => {
            published.refused = Some("the repository is not there any more".to_owned());
            return said(published);
        }
        Err(error) => return Err(error.into()),
    };
    let reference = repository.reference();
    let url = format!("{}/{}.git", engine.context.config.forge.url.trim_end_matches('/'), reference.full_name());
    let last = row.attempts + 1 >= ATTEMPTS_MAX;
    let pushes = order.tip.iter().map(|tip| (order.branch.clone(), tip.clone())).chain(order.others.iter().cloned());
    for (index, (branch, commit)) in pushes.enumerate() {
        let work = engine.work_of(&cell, &row.mission);
        let (url, token) = (url.clone(), engine.token.clone());
        let outcome = blocking(move || work.push(&url, &token, &commit, &branch)).await?;
        match outcome {
            Ok(pushed) if index == 0 && order.tip.is_some() => {
                published.branch = Some(pushed.branch);
                published.renamed = pushed.renamed;
            }
            Ok(pushed) => published.others.push(pushed.branch),
            Err(PushError::Later(error)) if !last => {
                return Err(Attempt::Again { why: engine.context.redact(&error.to_string()), after: None });
            }
            Err(error) => {
                published.refused = Some(engine.context.redact(&error.to_string()));
                return said(published);
            }
        }
    }
    let Some(head) = published.branch.clone() else { return said(published) };
    let api = forge.repo_ref(&reference);
    let pull = NewPull { head: head.clone(), base: order.base.clone(), title: order.title, body: order.body };
    let made = match api.create_pull(pull).await {
        // One that was made before, perhaps by the attempt whose answer was lost.
        Err(ForgeError::Conflict { .. }) => match api.pull_by_branches(&order.base, &head).await {
            Ok(Some(pull)) => Ok(pull),
            Ok(None) => {
                published.refused = Some("the forge says that there is a pull request, and names none".to_owned());
                return said(published);
            }
            Err(error) => Err(error),
        },
        other => other,
    };
    match made {
        Ok(pull) => published.pull = Some((pull.number, pull.html_url)),
        Err(error) if (error.is_transient() || error.may_have_happened()) && !last => return Err(error.into()),
        Err(error) => published.refused = Some(engine.context.redact(&error.to_string())),
    }
    said(published)
}
