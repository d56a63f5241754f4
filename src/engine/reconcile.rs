//! Polling: webhooks are lost, so the forge is asked, and what it says goes
//! into the same inbox under the same keys.

use super::Engine;
use super::context::KnownRepo;
use super::input::Input;
use crate::gitea::event::{CommentAction, ForgeEvent, IssueAction, IssueSnapshot, Person, RepoRef};
use crate::gitea::{Forge, ForgeError, IssueQuery, IssueState};
use crate::store::StoreError;
use futures::StreamExt as _;
use jiff::Timestamp;
use std::collections::HashMap;

/// Why a round was not finished. The next one starts where this one did.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The forge.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Learns who we are, which repositories we serve and who directs them. Names
/// are pinned to the number that they first meant.
pub async fn learn(engine: &Engine, forge: &Forge) -> Result<(), ReconcileError> {
    let me = forge.current_user().await?;
    let bot = Person { id: me.id, login: me.login };
    let text = serde_json::to_string(&bot).unwrap_or_default();
    engine.store.transact(move |tx| tx.put_meta("bot", &text)).await?;
    engine.context.learn(|known| known.bot = Some(bot));
    for config in engine.context.config.repositories.clone() {
        let (owner, name) = config.owner_and_name();
        let (owner, name) = (owner.to_owned(), name.to_owned());
        let full = config.name.clone();
        let pinned = engine.store.read(move |tx| tx.pin("repository", &full)).await?;
        // By number where it is known: somebody else may have the name by now.
        let found = match pinned {
            Some(id) => forge.repository_by_id(id).await?,
            None => forge.repo(&owner, &name).get().await?,
        };
        let Some(found) = found else {
            tracing::error!(
                repository = config.name,
                "the forge does not show this repository; check its name and the bot's rights"
            );
            continue;
        };
        let reference = found.reference();
        let labels = forge.repo_ref(&reference).labels().await?;
        let mut directors = vec![];
        for login in &config.directors {
            let name = login.clone();
            let pinned = engine.store.read(move |tx| tx.pin("director", &name)).await?;
            let id = match pinned {
                Some(id) => Some(id),
                None => forge.user(login).await?.map(|u| u.id),
            };
            match id {
                Some(id) => {
                    directors.push(id);
                    let name = login.clone();
                    engine.store.transact(move |tx| tx.put_pin("director", &name, id)).await?;
                }
                None => tracing::error!(login, "the forge knows no such account; it directs nothing"),
            }
        }
        let label_key = format!("label:{}", reference.id);
        let key = label_key.clone();
        let pinned = engine.store.read(move |tx| tx.pin(&key, "lazarus/approved")).await?;
        // A pinned label may have been deleted and made again by `init`.
        let approved = pinned
            .filter(|id| labels.iter().any(|l| l.id == *id))
            // Names are not unique: of several the oldest, as `init` says.
            .or_else(|| labels.iter().filter(|l| l.name == "lazarus/approved").map(|l| l.id).min());
        let (full, id, owner) = (config.name.clone(), reference.id, found.owner.id);
        engine
            .store
            .transact(move |tx| {
                tx.put_pin("repository", &full, id)?;
                // Not a pin: a repository can be transferred.
                tx.put_meta(&owner_key(id), &owner.to_string())?;
                approved.map_or(Ok(()), |label| tx.put_pin(&label_key, "lazarus/approved", label))
            })
            .await?;
        engine.context.learn(|known| {
            known
                .repos
                .insert(id, KnownRepo { reference, owner: Some(owner), config, directors, approved_label: approved });
        });
    }
    Ok(())
}

/// Where it is kept who owns a repository.
pub fn owner_key(repository: i64) -> String {
    format!("owner:{repository}")
}

/// One round over every repository.
pub async fn round(engine: &Engine, forge: &Forge) -> Result<(), ReconcileError> {
    let mut first_error = None;
    for repo in engine.context.known().repos.into_values() {
        // One that cannot be read does not hide the others.
        if let Err(error) = look_at(engine, forge, &repo.reference).await {
            tracing::warn!(%error, repository = repo.config.name, "a repository could not be looked at to the end");
            first_error = first_error.or(Some(error));
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn look_at(engine: &Engine, forge: &Forge, repo: &RepoRef) -> Result<(), ReconcileError> {
    let id = repo.id;
    let overlap = i64::try_from(engine.context.config.reconcile.overlap.as_secs()).unwrap_or(120);
    let now = Timestamp::now().as_second();
    let mark = engine.store.read(move |tx| tx.watermark(id)).await?;
    let first = mark.is_none();
    let mut newest = mark.unwrap_or(now - overlap);
    let since = Timestamp::from_second(newest - overlap).ok();
    let api = forge.repo_ref(repo);
    let mut issues: HashMap<i64, IssueSnapshot> = HashMap::new();
    // The first time there may be proposals that were filed before us.
    let query = IssueQuery {
        since: if first { None } else { since },
        state: if first { IssueState::Open } else { IssueState::All },
    };
    let mut stream = api.issues(query);
    while let Some(issue) = stream.next().await {
        let issue = issue?;
        newest = newest.max(issue.updated_at.as_second());
        engine
            .take_in(ForgeEvent::Issue {
                repo: repo.clone(),
                action: IssueAction::Seen,
                sender: issue.author.clone(),
                issue: issue.clone(),
                previous_title: None,
                previous_body: None,
            })
            .await?;
        issues.insert(issue.number, issue);
    }
    drop(stream);
    let mut comments = api.comments_since(since);
    while let Some(comment) = comments.next().await {
        let (number, comment) = comment?;
        newest = newest.max(comment.updated_at.as_second());
        let key = format!("comment:{}:{}:created", repo.id, comment.id);
        // An edited comment may be somebody else's words by now.
        if comment.updated_at != comment.created_at || engine.store.read(move |tx| tx.knows(&key)).await? {
            continue;
        }
        let issue = match issues.get(&number) {
            Some(issue) => issue.clone(),
            None => match api.issue(number).get().await? {
                Some(issue) => {
                    issues.insert(number, issue.clone());
                    issue
                }
                None => continue,
            },
        };
        let sender = comment.author.clone();
        engine
            .take_in(ForgeEvent::Comment {
                repo: repo.clone(),
                action: CommentAction::Created,
                issue,
                comment,
                sender,
                sender_can_push: None,
            })
            .await?;
    }
    // Forgejo says nothing of a deleted issue: only asking tells.
    for mission in engine.store.read(move |tx| tx.missions_of(id)).await? {
        if mission.deleted || issues.contains_key(&mission.number) {
            continue;
        }
        match api.issue(mission.number).get().await? {
            Some(issue) => {
                engine
                    .take_in(ForgeEvent::Issue {
                        repo: repo.clone(),
                        action: IssueAction::Seen,
                        sender: issue.author.clone(),
                        issue,
                        previous_title: None,
                        previous_body: None,
                    })
                    .await?;
            }
            None => engine.gone(repo, &mission).await?,
        }
    }
    // Not further than our own clock: a forge that is ahead must not make us
    // skip what comes after.
    let newest = newest.min(now);
    engine.store.transact(move |tx| tx.put_watermark(id, newest)).await?;
    Ok(())
}

/// What a poll or a delivery becomes in the inbox.
pub fn as_input(event: ForgeEvent) -> (String, String, Input) {
    let key = event.semantic_key();
    let lane = format!("{}", event.repo().id);
    (key, lane, Input::Forge { happened: event })
}
