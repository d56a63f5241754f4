//! The work leaves the cell: taken in at the end, then pushed and proposed.

use super::Engine;
use super::facts::Facts;
use super::input::Input;
use super::perform::comments::post;
use super::perform::failure::{Attempt, Ran};
use super::run::blocking;
use crate::backend::{Backend as _, Harvest, WorkWanted};
use crate::cell::{Actor, Cell, CellId, State};
use crate::gitea::event::RepoRef;
use crate::gitea::{Forge, ForgeError, NewPull};
use crate::mission::Publishable;
use crate::mission::publishing::PublishedWork;
use crate::publication::{Answer, Publication};
use crate::sandbox::Confinement;
use crate::store::EffectRow;
use crate::workspace::{
    ConfinedGit, GitError, HandedOut, Held, Home, Origin, PushOutcome, WorkLimits, WorkRepository, hold_base,
    holds_base, mirror_of,
};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use tokio::sync::SemaphorePermit;

/// Commits that are remembered as searched; after that many it begins anew.
const SEARCHED_MAX: usize = 10_000;

/// The repository's number in a mission's name.
pub fn repository_of(mission: &str) -> i64 {
    mission.split_once('#').and_then(|(id, _)| id.parse().ok()).unwrap_or(0)
}

impl Engine {
    /// What is wanted out of a cell that was cloned at `base`.
    pub(super) fn work_wanted(&self, cell: &CellId, mission: &str, base: Option<String>) -> Option<WorkWanted> {
        let harvest = &self.context.config.harvest;
        base.map(|base| WorkWanted {
            base,
            pack_max: harvest.pack_max,
            branches_max: harvest.branches_max as usize,
            commit_rest: harvest.commit_uncommitted,
            trailers: format!("Lazarus-Mission: {mission}\nLazarus-Cell: {cell}\n"),
            snapshot: false,
        })
    }

    /// Where a cell's work is, and how it is read on this host.
    async fn work_of(&self, cell: &CellId, mission: &str) -> Result<WorkRepository, Attempt> {
        let host = self.backend.probe().await.map_err(|e| Attempt::Again { why: e.to_string(), after: None })?;
        let git = ConfinedGit::new(None, Confinement::of(&host));
        let mirror = mirror_of(&self.roots.mirrors, repository_of(mission));
        Ok(WorkRepository::new(self.roots.work_of(cell), mirror, git))
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
        let again = |e: GitError| Attempt::Again { why: self.context.redact(&e.to_string()), after: None };
        let work = self.work_of(&cell.id, &cell.mission).await?;
        self.keep_base(cell, &base).await?.map_err(again)?;
        let _turn = self.turn_to_read().await?;
        tracing::info!(cell = %cell.id, confined = work.confinement(), "the work of a cell is looked at");
        let (context, limits) = (Arc::clone(&self.context), WorkLimits::of(&self.context.config.harvest));
        let origin = Origin { mission, cell: cell.id.to_string(), base };
        let taken = blocking(move || {
            let harvest = work.take_in(&directory, &handed, &limits, &origin, context.secrets())?;
            Ok::<_, GitError>((harvest, work.confinement()))
        });
        let (mut harvest, confinement) = taken.await?.map_err(again)?;
        harvest.unknown = harvest.unknown.map(|why| self.context.redact(&why));
        harvest.read_by = Some(confinement.to_owned());
        let free = harvest.parts().filter(|commit| !harvest.is_held(commit));
        let mut searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
        if searched.len() > SEARCHED_MAX {
            searched.clear();
        }
        searched.extend(free.map(|commit| (cell.id.clone(), commit.to_owned())));
        Ok(harvest)
    }

    /// Has the mirror keep what a cell was made from. It does already, unless
    /// somebody took it away; nothing waits for the mirror then.
    async fn keep_base(&self, cell: &Cell, base: &str) -> Result<Result<(), GitError>, Attempt> {
        let repo = repository_of(&cell.mission);
        let (place, name, base) = (mirror_of(&self.roots.mirrors, repo), cell.id.to_string(), base.to_owned());
        if holds_base(&place, &name, &base) {
            return Ok(Ok(()));
        }
        let mirror = self.mirror(repo);
        let _one_at_a_time = mirror.lock().await;
        blocking(move || hold_base(&place, &name, &base)).await
    }

    /// Waits until few enough others read work: each may need as much memory and
    /// time as the limits allow, and the rest of the daemon needs some too.
    async fn turn_to_read(&self) -> Result<SemaphorePermit<'_>, Attempt> {
        self.reading.acquire().await.map_err(|e| Attempt::Again { why: e.to_string(), after: None })
    }

    /// What holds each of these commits, now: with the secrets that are known now.
    /// What this process has searched already is not searched again.
    async fn held_now(
        &self,
        cell: &CellId,
        work: &WorkRepository,
        base: String,
        parts: Vec<(Option<String>, String)>,
        released: &[String],
    ) -> Result<Vec<Held>, Attempt> {
        let parts: Vec<(Option<String>, String)> = {
            let searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
            parts.into_iter().filter(|(_, commit)| !searched.contains(&(cell.clone(), commit.clone()))).collect()
        };
        if parts.is_empty() {
            return Ok(vec![]);
        }
        let _turn = self.turn_to_read().await?;
        let (work, context) = (work.clone(), Arc::clone(&self.context));
        let limits = WorkLimits::of(&self.context.config.harvest);
        let held = blocking(move || work.judge(&parts, &base, &limits, context.secrets()))
            .await?
            .map_err(|e| Attempt::Again { why: self.context.redact(&e.to_string()), after: None })?;
        let let_go = |held: &Held| held.can_be_released() && released.contains(&held.commit);
        Ok(held.into_iter().filter(|held| !let_go(held)).collect())
    }
}

impl WorkLimits {
    fn of(harvest: &crate::config::Harvest) -> Self {
        Self {
            pack: harvest.pack_max,
            file: harvest.file_max,
            files: u64::from(harvest.files_max),
            branches: harvest.branches_max as usize,
            search: harvest.search_max,
        }
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
pub async fn push(engine: &Engine, forge: &Forge, row: &EffectRow, cell: CellId, order: Order) -> Ran {
    let mut published = PublishedWork::default();
    let said = |published: PublishedWork| Ok(Input::Pushed { cell: cell.clone(), published });
    let name = cell.to_string();
    let stored = engine.store.read(move |tx| tx.cell(&name)).await?;
    let Some(stored) = stored.filter(|row| row.cell.state != State::Destroyed) else {
        published.refused = Some("the cell was destroyed before its work was pushed".to_owned());
        return said(published);
    };
    // What is given up leaves the work where it is, and says what came of it so far.
    let judge = async |attempt: Attempt| match engine.judge_by_patience(row, attempt).await {
        Attempt::Never { why, .. } => Ok(engine.context.redact(&why)),
        attempt => Err(attempt),
    };
    // Names move; the number stays.
    let repository = match forge.repository_by_id(order.repo.id).await {
        Ok(Some(repository)) => Ok(repository),
        Ok(None) => Err(Attempt::not_shown("the repository")),
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
    let url = format!("{}/{}.git", engine.context.config.forge.url.trim_end_matches('/'), reference.full_name());
    let work = engine.work_of(&cell, &row.mission).await?;

    // The gate: nothing leaves that was not looked at with the secrets of now.
    let base = Facts::of(&stored)?.commit.unwrap_or_default();
    let own = order.tip.iter().chain(&order.instead).map(|commit| (None, commit.clone()));
    let others = order.others.iter().map(|(name, commit)| (Some(name.clone()), commit.clone()));
    published.held = engine.held_now(&cell, &work, base, own.chain(others).collect(), &order.released).await?;
    let is_held = |commit: &String| published.held.iter().any(|held| held.commit == *commit);
    let tip = order.tip.iter().chain(&order.instead).find(|commit| !is_held(commit)).cloned();
    let has_tip = tip.is_some();
    let mut branches: Vec<(String, String)> = tip.map(|tip| (order.branch.clone(), tip)).into_iter().collect();
    branches.extend(order.others.iter().filter(|(_, commit)| !is_held(commit)).cloned());
    if branches.is_empty() {
        return said(published);
    }

    let (access, asked) = (engine.access.clone(), branches.clone());
    let outcomes = match blocking(move || work.push(&url, &access, &asked)).await? {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let why = engine.context.redact(&error.to_string());
            published.refused = Some(judge(Attempt::failed(error.failure(), why)).await?);
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

/// Largest file that is let out, in bytes.
const FILE_MAX: u64 = 10 << 20;
/// Endings that a forge takes for attachments, unless it was told otherwise.
const ENDINGS: [&str; 10] = ["md", "txt", "json", "csv", "log", "patch", "zip", "gz", "tgz", "pdf"];

/// Lets something optional out of a cell, as a file on a comment of its own.
pub async fn publish_file(
    engine: &Engine,
    forge: &Forge,
    row: &EffectRow,
    repo: &RepoRef,
    number: i64,
    what: Publishable,
    by: Actor,
) -> Ran {
    let cell = row.cell.as_deref().and_then(|c| CellId::parse(c).ok());
    let cell = cell.ok_or_else(|| Attempt::Never { why: "it names no cell".to_owned(), input: None })?;
    let home = engine.roots.home(&cell);
    let home = if home.path.exists() { home } else { Home { path: engine.roots.graveyard.join(cell.as_str()) } };
    let asked = what.clone();
    let name = cell.to_string();
    let stored = engine.store.read(move |tx| tx.cell(&name)).await?;
    let facts = stored.map(|row| Facts::of(&row)).transpose()?.unwrap_or_default();
    let work = engine.work_of(&cell, &row.mission).await?;
    let context = Arc::clone(&engine.context);
    let read = blocking(move || match (&asked, facts.checkpoint) {
        (Publishable::Checkpoint, Some(hash)) => work
            .archive(&hash, FILE_MAX, context.secrets())
            .map(|bytes| (format!("checkpoint-{}.tgz", hash.chars().take(12).collect::<String>()), bytes)),
        (Publishable::Checkpoint, None) => Err("there is no checkpoint of it (`/checkpoint`)".to_owned()),
        _ => read_publishable(&home, &asked),
    })
    .await?;
    let (name, bytes, words) = match read.and_then(|(name, bytes)| engine.pass_file(&name, bytes)) {
        Ok(file) => file,
        Err(why) => {
            let refused = Some(engine.context.redact(&why));
            return Ok(Input::FilePublished { cell, what, by, left: None, refused });
        }
    };
    let text = format!("Published by `{}`: `{name}` of cell `{cell}`, attached.{words}", by.name());
    let answer = Answer { items: vec![(true, text)], ..Answer::default() };
    let body = engine.context.render(&Publication::Answer(answer), &row.id, Some(cell.as_str())).body;
    let posted = post(engine, forge, row, repo, number, &body).await?;
    let comment = forge.repo_ref(repo).comment(posted);
    let left = Some((name.clone(), hex::encode(Sha256::digest(&bytes))));
    // An attempt before this one may have come so far.
    if row.attempts == 0 || !comment.attachments().await?.iter().any(|a| a.name == name) {
        match comment.attach(&name, bytes).await {
            Ok(_) => {}
            Err(error) => {
                let why = match engine.judge_by_patience(row, error.into()).await {
                    Attempt::Never { why, .. } => why,
                    attempt => return Err(attempt),
                };
                // It says that something is attached, and nothing is.
                if let Err(error) = comment.delete().await {
                    tracing::warn!(%error, comment = posted, "a comment without its attachment could not be deleted");
                }
                let refused = Some(engine.context.redact(&why));
                return Ok(Input::FilePublished { cell, what, by, left: None, refused });
            }
        }
    }
    engine.note_comment(row, "answer", posted).await?;
    Ok(Input::FilePublished { cell, what, by, left, refused: None })
}

fn read_publishable(home: &Home, what: &Publishable) -> Result<(String, Vec<u8>), String> {
    let read = |parts: &[&str]| home.read_plain(parts, FILE_MAX).map_err(|e| e.to_string());
    match what {
        Publishable::Notes => {
            let notes = match read(&["shared", "notes.md"])? {
                Some(notes) => notes,
                None => read(&["shared", "scratchpad.md"])?.ok_or("there are no shared notes")?,
            };
            // Drafts stay: what may leave says so in its first line.
            let notes = String::from_utf8_lossy(&notes).into_owned();
            match notes.trim_start().split_once('\n') {
                Some((first, rest)) if first.trim() == "PUBLISH" => {
                    Ok(("notes.md".to_owned(), rest.as_bytes().to_vec()))
                }
                _ => Err("the shared notes are not marked: their first line has to be `PUBLISH`".to_owned()),
            }
        }
        Publishable::Decisions => read(&[".lazarus", "decisions.jsonl"])?
            .map(|bytes| ("decisions.jsonl.txt".to_owned(), bytes))
            .ok_or_else(|| "nothing was decided on record (`/decide`)".to_owned()),
        Publishable::Artifact(name) => {
            let good = !name.starts_with('.') && name.len() <= 100 && !name.contains(['/', '\0']);
            if !good {
                return Err("NAME is a file of `shared/artifacts`, without `/` and with no leading dot".to_owned());
            }
            read(&["shared", "artifacts", name])?
                .map(|bytes| (name.clone(), bytes))
                .ok_or_else(|| "there is no such file in `shared/artifacts`".to_owned())
        }
        Publishable::Checkpoint | Publishable::Work => Err("this cannot leave as a file".to_owned()),
    }
}

impl Engine {
    /// The gate for files. Of text, known secrets and what looks like one are taken
    /// out. What is no text is searched byte by byte, and refused where a known
    /// secret is in it; nothing can be taken out of it. The name gets an ending that
    /// forges take.
    fn pass_file(&self, name: &str, bytes: Vec<u8>) -> Result<(String, Vec<u8>, &'static str), String> {
        let secrets = self.context.secrets();
        if let Some(secret) = secrets.found_in(name.as_bytes()) {
            return Err(format!("a known secret (`{secret}`) is in its name"));
        }
        let plain: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
        let ending = plain.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase()).unwrap_or_default();
        let taken = ENDINGS.contains(&ending.as_str());
        let (name, bytes, words) = match String::from_utf8(bytes) {
            Ok(text) => {
                let clean = self.context.redact(&text);
                let words = if clean == text { "" } else { " What looked like a secret was taken out of it." };
                (if taken { plain } else { format!("{plain}.txt") }, clean.into_bytes(), words)
            }
            Err(error) if taken => {
                (plain, error.into_bytes(), " It is no text: nobody looked into what is packed or enciphered in it.")
            }
            Err(_) => {
                return Err(format!("forges take no such file; pack it as one that ends in {}", ENDINGS.join(", ")));
            }
        };
        // Whatever it is by now: of this nothing leaves in which one is found.
        match secrets.found_in(&bytes) {
            Some(secret) => {
                Err(format!("a known secret (`{secret}`) is in `{name}`, in a place from which it cannot be taken out"))
            }
            None => Ok((name, bytes, words)),
        }
    }
}
