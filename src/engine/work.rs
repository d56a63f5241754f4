//! The work leaves the cell: taken in at the end, then pushed and proposed.

use super::Engine;
use super::attempt::{Attempt, Ran};
use super::desk::{facts_of, name_of};
use super::input::{Input, PublishedWork};
use super::run::{blocking, post};
use crate::backend::{Harvest, WorkWanted};
use crate::cell::{Actor, Cell, CellId, State};
use crate::gitea::event::RepoRef;
use crate::gitea::{Forge, ForgeError, NewPull};
use crate::mission::Publishable;
use crate::publication::{Answer, Publication};
use crate::store::EffectRow;
use crate::workspace::{HandedOut, Home, OwnCommit, PushError, WorkLimits, WorkRepository, mirror_of};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;

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
            commit_rest: harvest.commit_uncommitted,
            trailers: format!("Lazarus-Mission: {mission}\nLazarus-Cell: {cell}\n"),
            snapshot: false,
        })
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
    let name = cell.to_string();
    if engine.store.read(move |tx| tx.cell(&name)).await?.is_none_or(|row| row.cell.state == State::Destroyed) {
        published.refused = Some("the cell was destroyed before its work was pushed".to_owned());
        return said(published);
    }
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
            Err(error) => {
                let why = engine.context.redact(&error.to_string());
                published.refused = Some(match error {
                    PushError::Refused(_) => why,
                    PushError::Later(error) => judge(Attempt::failed(error.failure(), why)).await?,
                });
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
    let facts = engine.store.read(move |tx| tx.cell(&name)).await?.map(|row| facts_of(&row.facts)).unwrap_or_default();
    let work = engine.work_of(&cell, &row.mission);
    let read = blocking(move || match (&asked, facts.checkpoint) {
        (Publishable::Checkpoint, Some(hash)) => work
            .archive(&hash, FILE_MAX)
            .map(|bytes| (format!("checkpoint-{}.tgz", hash.chars().take(12).collect::<String>()), bytes))
            .map_err(|e| e.to_string()),
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
    let text = format!("Published by `{}`: `{name}` of cell `{cell}`, attached.{words}", name_of(&by));
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
    /// The gate for files: known secrets and what looks like one are taken out
    /// of text; what is no text leaves as it is and is said to be so. The name
    /// gets an ending that forges take.
    fn pass_file(&self, name: &str, bytes: Vec<u8>) -> Result<(String, Vec<u8>, &'static str), String> {
        let plain: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
        let ending = plain.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase()).unwrap_or_default();
        let taken = ENDINGS.contains(&ending.as_str());
        match String::from_utf8(bytes) {
            Ok(text) => {
                let clean = self.context.redact(&text);
                let words = if clean == text { "" } else { " What looked like a secret was taken out of it." };
                Ok((if taken { plain } else { format!("{plain}.txt") }, clean.into_bytes(), words))
            }
            Err(error) if taken => {
                Ok((plain, error.into_bytes(), " It is no text, so nobody looked for secrets in it."))
            }
            Err(_) => Err(format!("forges take no such file; pack it as one that ends in {}", ENDINGS.join(", "))),
        }
    }
}
