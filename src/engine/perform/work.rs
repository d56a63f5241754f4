//! The work leaves the cell: taken in at the end, then pushed and proposed.

use super::failure::{EffectError, Performed};
use crate::backend::{HandedWork, HarvestRequest};
use crate::cell::{Cell, CellId, State};
use crate::engine::facts::Facts;
use crate::engine::input::Input;
use crate::engine::{Engine, repository_of};
use crate::gitea::event::RepoRef;
use crate::gitea::{ForgeError, NewPull};
use crate::mission::publishing::PublishedWork;
use crate::repository::{GitError, Harvest, Held, Origin, PushOutcome, WorkLimits};
use crate::store::EffectRow;

impl Engine {
    /// What is wanted out of a cell that was cloned at `base`.
    pub(super) fn harvest_request(&self, cell: &CellId, mission: &str, base: String) -> HarvestRequest {
        let harvest = &self.context.config.harvest;
        HarvestRequest {
            base,
            pack_max: harvest.pack_max,
            branches_max: harvest.branches_max as usize,
            commit_rest: harvest.commit_uncommitted,
            trailers: format!("Lazarus-Mission: {mission}\nLazarus-Cell: {cell}\n"),
            snapshot: false,
        }
    }

    /// Takes in what a cell handed out.
    pub(super) async fn receive_work(
        &self,
        cell: &Cell,
        mission: String,
        base: String,
        handed: Option<HandedWork>,
    ) -> Result<Harvest, EffectError> {
        let Some(handed) = handed else { return Ok(Harvest::default()) };
        let origin = Origin { mission, cell: cell.id.to_string(), base };
        let (project, limits) = (repository_of(&cell.mission), self.work_limits());
        let taken = self.repositories.take_in(&cell.id, project, handed, limits, origin, self.context.shared_secrets());
        let again = |e: GitError| EffectError::passing(self.context.redact(&e.to_string()));
        let mut harvest = taken.await.map_err(again)?;
        harvest.unknown = harvest.unknown.map(|why| self.context.redact(&why));
        Ok(harvest)
    }

    /// What holds each of these commits, now: with the secrets that are known now.
    async fn held_now(
        &self,
        cell: &CellId,
        mission: &str,
        base: String,
        parts: Vec<(Option<String>, String)>,
        released: &[String],
    ) -> Result<Vec<Held>, EffectError> {
        let (project, limits) = (repository_of(mission), self.work_limits());
        let judged = self.repositories.judge(cell, project, base, parts, limits, self.context.shared_secrets()).await;
        let held = judged.map_err(|e| EffectError::passing(self.context.redact(&e.to_string())))?;
        let let_go = |held: &Held| held.can_be_released() && released.contains(&held.commit);
        Ok(held.into_iter().filter(|held| !let_go(held)).collect())
    }

    /// How much work is taken in.
    fn work_limits(&self) -> WorkLimits {
        let harvest = &self.context.config.harvest;
        WorkLimits {
            pack: harvest.pack_max,
            file: harvest.file_max,
            files: u64::from(harvest.files_max),
            branches: harvest.branches_max as usize,
            search: harvest.search_max,
        }
    }

    /// Where a project is cloned from and pushed to.
    pub(super) fn clone_url(&self, reference: &RepoRef) -> String {
        format!("{}/{}.git", self.context.config.forge.url.trim_end_matches('/'), reference.full_name())
    }
}

/// What a push is to do, as its effect says.
pub(super) struct Order {
    /// The repository that it goes to.
    pub repo: RepoRef,
    /// The name of the branch.
    pub branch: String,
    /// What goes on it.
    pub tip: Option<String>,
    /// What goes on it where that may not leave.
    pub instead: Option<String>,
    /// Other branches: name, commit.
    pub others: Vec<(String, String)>,
    /// Commits that a director released.
    pub released: Vec<String>,
    /// The branch that the pull request is for.
    pub base: String,
    /// The pull request's title.
    pub title: String,
    /// Its text.
    pub body: String,
}

/// Pushes a cell's work and asks for it to be pulled. What the forge refuses is
/// said, and what is held stays; nothing is lost by either.
pub(super) async fn push(engine: &Engine, row: &EffectRow, cell: CellId, order: Order) -> Performed {
    let forge = &engine.forge;
    let mut published = PublishedWork::default();
    let said = |published: PublishedWork| Ok(Input::Pushed { cell: cell.clone(), published });
    let Some(stored) = engine.stored_cell(&cell).await?.filter(|row| row.cell.state != State::Destroyed) else {
        published.refused = Some("the cell was destroyed before its work was pushed".to_owned());
        return said(published);
    };
    // What is given up leaves the work where it is, and says what came of it so far.
    let judge = async |error: EffectError| {
        engine.is_given_up(row, error).await.map(|given_up| engine.context.redact(&given_up.why))
    };
    // Names move; the number stays.
    let repository = match forge.repository_by_id(order.repo.id).await {
        Ok(Some(repository)) => Ok(repository),
        Ok(None) => Err(EffectError::not_shown("the repository")),
        Err(error) => Err(error.into()),
    };
    let repository = match repository {
        Ok(repository) => repository,
        Err(attempt) => {
            published.refused = Some(judge(attempt).await?);
            return said(published);
        }
    };
    let reference = repository.reference();

    // The gate: nothing leaves that was not looked at with the secrets of now.
    let base = Facts::of(&stored)?.commit.unwrap_or_default();
    let own = order.tip.iter().chain(&order.instead).map(|commit| (None, commit.clone()));
    let others = order.others.iter().map(|(name, commit)| (Some(name.clone()), commit.clone()));
    published.held = engine.held_now(&cell, &row.mission, base, own.chain(others).collect(), &order.released).await?;
    let is_held = |commit: &String| published.held.iter().any(|held| held.commit == *commit);
    let tip = order.tip.iter().chain(&order.instead).find(|commit| !is_held(commit)).cloned();
    let has_tip = tip.is_some();
    let mut branches: Vec<(String, String)> = tip.map(|tip| (order.branch.clone(), tip)).into_iter().collect();
    branches.extend(order.others.iter().filter(|(_, commit)| !is_held(commit)).cloned());
    if branches.is_empty() {
        return said(published);
    }

    let (project, url) = (repository_of(&row.mission), engine.clone_url(&reference));
    let outcomes = match engine.repositories.push(&cell, project, url, branches.clone()).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let why = engine.context.redact(&error.to_string());
            published.refused = Some(judge(EffectError::failed(error.failure(), why)).await?);
            return said(published);
        }
    };
    for (index, ((branch, commit), outcome)) in branches.into_iter().zip(outcomes).enumerate() {
        let is_own = has_tip && index == 0;
        match outcome {
            PushOutcome::Pushed(pushed) => {
                published.commits.push(commit);
                if is_own {
                    published.branch = Some(pushed.branch);
                    published.renamed = pushed.renamed;
                } else {
                    published.others.push(pushed.branch);
                }
            }
            PushOutcome::Refused(words) if is_own => published.refused = Some(engine.context.redact(&words)),
            PushOutcome::Refused(words) => {
                published.others_refused.push((branch, engine.context.redact(&words)));
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
        Err(error) => published.refused = Some(judge(error.into()).await?),
    }
    said(published)
}
