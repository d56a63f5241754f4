//! Polling: webhooks are lost, so the forge is asked, and what it says goes
//! into the same inbox under the same keys.

use super::Engine;
use super::context::KnownRepo;
use super::forge_identity::{APPROVED, ReconcileError, serving_since};
use super::keys::{InboxKey, Pace, label_told_key};
use crate::cell::Actor;
use crate::config::PolledCommands;
use crate::gitea::event::{CommentAction, ForgeEvent, IssueAction, IssueSnapshot, RepoRef};
use crate::gitea::{Forge, ForgeError, IssueQuery, IssueState};
use crate::mission::{Mission, MissionId};
use crate::store::StoreError;
use futures::StreamExt as _;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How long after an issue was taken for deleted it is looked for again, in
/// milliseconds; later it has to be heard of.
const UNDO_WITHIN: i64 = 24 * 3_600_000;
/// Such issues of one repository that are looked for in one round.
const UNDO_MOST: i64 = 20;

/// Least time from one look at the forge to one that [`Engine::look_soon`]
/// asked for.
const GLANCES_APART: Duration = Duration::from_secs(10);

impl Engine {
    /// Asks the forge from time to time, and at once when something was missed.
    pub(super) async fn poll(self: Arc<Self>) {
        let forge = self.forge.clone();
        let interval = self.context.config.reconcile.interval;
        let mut rounds = 0u32;
        let mut pins = None;
        while !self.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loop {
            let begun = tokio::time::Instant::now();
            if let Err(error) = round(&self, &forge).await {
                tracing::warn!(%error, "a look at the forge was not finished; the next one starts at the same place");
                // A repository that has moved is found again by its number.
                if matches!(error, ReconcileError::Forge(ForgeError::Moved { .. })) {
                    self.refresh_wanted.notify_one();
                }
            }
            rounds += 1;
            // `lazarus init` and `lazarus pins` write into the registry beside us.
            #[allow(
                clippy::redundant_closure_for_method_calls,
                reason = "the path is not general enough over lifetimes"
            )]
            let now = self.store.read(|tx| tx.pins()).await.ok();
            if pins.is_some() && now.is_some() && pins != now {
                self.refresh_wanted.notify_one();
            }
            pins = now.or(pins);
            let jitter = interval / 10;
            let mut wait = interval.saturating_sub(jitter) + jitter.mul_f64(f64::from(rounds % 7) / 3.5);
            if self.a_delivery_may_come() {
                wait = wait.min(self.context.config.reconcile.grace + Duration::from_millis(100));
            }
            let apart = GLANCES_APART.max(begun.elapsed() * 10);
            let glance = async {
                self.glance.notified().await;
                tokio::time::sleep_until(begun + apart).await;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.look.notified() => {}
                () = glance => {}
            }
        }
    }

    /// Whether a comment that polling found is left to its delivery for a while.
    fn waits_for_delivery(&self, comment: i64) -> bool {
        let config = &self.context.config;
        if config.policy.polled_commands == PolledCommands::Run {
            return false;
        }
        let grace = config.reconcile.grace;
        let mut undelivered = self.undelivered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        undelivered.retain(|_, since| since.elapsed() < grace * 4 + Duration::from_secs(3600));
        undelivered.entry(comment).or_insert_with(std::time::Instant::now).elapsed() < grace
    }

    /// Whether some comment is left to its delivery now.
    fn a_delivery_may_come(&self) -> bool {
        let grace = self.context.config.reconcile.grace;
        let undelivered = self.undelivered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        undelivered.values().any(|since| since.elapsed() < grace)
    }
}

/// One round over every repository.
pub async fn round(engine: &Engine, forge: &Forge) -> Result<(), ReconcileError> {
    let now = engine.clock.now().0;
    engine.store.transact(move |tx| tx.forget_old_texts(now)).await?;
    let mut first_error = None;
    for repo in engine.context.forge_identity().repos.into_values() {
        // One that cannot be read does not hide the others.
        if let Err(error) = look_at(engine, forge, &repo).await {
            tracing::warn!(%error, repository = repo.config.name, "a repository could not be looked at to the end");
            first_error = first_error.or(Some(error));
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn look_at(engine: &Engine, forge: &Forge, known: &KnownRepo) -> Result<(), ReconcileError> {
    let (repo, configured) = (&known.reference, known.config.name.as_str());
    let id = repo.id;
    let overlap = i64::try_from(engine.context.config.reconcile.overlap.as_secs()).unwrap_or(120);
    let now = Timestamp::now().as_second();
    let name = configured.to_owned();
    let (mark, since) =
        engine.store.transact(move |tx| Ok((tx.watermark(id)?, serving_since(tx, &name, now)?))).await?;
    let first = mark.is_none();
    let mut newest = mark.unwrap_or(since.min(now) - overlap);
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
        engine.take_in(polled(repo, issue.clone(), IssueAction::Seen)).await?;
        issues.insert(issue.number, issue);
    }
    drop(stream);
    // Comments from then on are looked at again the next time.
    let mut held = i64::MAX;
    let mut postponed: HashSet<i64> = HashSet::new();
    let mut comments = api.comments_since(since);
    while let Some(comment) = comments.next().await {
        let (number, comment) = comment?;
        newest = newest.max(comment.updated_at.as_second());
        // An edited comment may be somebody else's words by now; one that is older
        // than the repository, or was migrated, is nobody's here.
        if comment.updated_at != comment.created_at || comment.migrated || known.is_older(comment.created_at) {
            continue;
        }
        let ours = engine.context.bot().is_some_and(|bot| bot.id == comment.author.id);
        let commands = engine.context.commands_in(&comment.body).lines.len() as i64;
        if ours || commands == 0 {
            continue;
        }
        let written = comment.id;
        let any = InboxKey::comment_created(id, written);
        let same = InboxKey::comment_created_as(id, number, &comment);
        let (acted, delivered, as_it_is) = engine
            .store
            .read(move |tx| {
                Ok((tx.has_acted_on(id, written)?, tx.was_delivered(any.as_str())?, tx.was_delivered(same.as_str())?))
            })
            .await?;
        if acted || as_it_is {
            continue;
        }
        if delivered {
            // Its delivery came, with other words: somebody edited it within its first second.
            edited_at_once(engine, MissionId::new(id, number), id, written).await?;
            continue;
        }
        // Its delivery may be on its way: who is asked to confirm what was delivered a
        // moment later is asked for nothing.
        if engine.waits_for_delivery(comment.id) {
            held = held.min(comment.updated_at.as_second());
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
        let (author, updated_at) = (sender.id, comment.updated_at.as_second());
        let event = ForgeEvent::Comment {
            repo: repo.clone(),
            action: CommentAction::Created,
            // As it is now, which is what the person who wrote it may not have seen.
            issue,
            comment,
            sender,
            sender_can_push: None,
        };
        // Who said much while nobody listened is answered at the usual pace, in the
        // order of what they said.
        if postponed.contains(&author) || !has_room(engine, &event, author, commands).await? {
            postponed.insert(author);
            held = held.min(updated_at);
            continue;
        }
        engine.take_in(event).await?;
    }
    // Forgejo says nothing of a deleted issue: only asking tells. And one that was
    // taken for deleted may show again.
    let recently = engine.clock.now().0 - UNDO_WITHIN;
    let (live, deleted) =
        engine.store.read(move |tx| Ok((tx.missions_of(id)?, tx.deleted_missions(id, recently, UNDO_MOST)?))).await?;
    for mission in live.into_iter().chain(deleted) {
        let mission = match mission {
            Ok(mission) => mission,
            Err(error) => {
                // Nothing can be decided about it; the others are looked at.
                tracing::error!(%error, "a mission cannot be read, so it is not looked at");
                continue;
            }
        };
        let shown = match issues.get(&mission.number) {
            Some(issue) => Some(issue.clone()),
            None => api.issue(mission.number).get().await?,
        };
        let name = mission.id();
        match shown {
            Some(issue) if mission.deleted => engine.issue_shown(repo, issue, &name).await?,
            Some(issue) => {
                engine.absent.shown(name.as_str());
                let waits = waits_for_a_word(engine, known, &mission, &issue).await?;
                if waits || !issues.contains_key(&mission.number) {
                    let action = if waits { IssueAction::LabelsChanged } else { IssueAction::Seen };
                    engine.take_in(polled(repo, issue, action)).await?;
                }
            }
            None if mission.deleted => {}
            None => engine.issue_not_shown(forge, repo, &name).await?,
        }
    }
    // Not further than our own clock: a forge that is ahead must not make us
    // skip what comes after.
    let newest = newest.min(now).min(held);
    engine.store.transact(move |tx| tx.put_watermark(id, newest)).await?;
    Ok(())
}

/// An issue as polling found it.
fn polled(repo: &RepoRef, issue: IssueSnapshot, action: IssueAction) -> ForgeEvent {
    let (repo, sender) = (repo.clone(), issue.author.clone());
    ForgeEvent::Issue { repo, action, sender, issue, previous_title: None, previous_body: None }
}

/// Whether the running minute has room for a comment that polling found; then its
/// commands are counted. One that was taken in before is not counted again, and one
/// that no minute has room for is taken in, to be refused.
async fn has_room(engine: &Engine, event: &ForgeEvent, author: i64, commands: i64) -> Result<bool, StoreError> {
    let key = InboxKey::of_event(event);
    let limit = i64::from(engine.context.config.policy.commands_per_minute);
    let now = engine.clock.now().0;
    let pace = Pace::Commands(author).to_string();
    let counted = move |tx: &crate::store::Tx<'_>| {
        if commands > limit || tx.knows(key.as_str())? {
            return Ok(true);
        }
        let room = tx.pace_of(&pace, now, commands)? <= limit;
        if !room {
            tx.pace_of(&pace, now, -commands)?;
        }
        Ok(room)
    };
    engine.store.transact(counted).await
}

/// Whether somebody put a label on an issue that is named like the approval label,
/// and was not told that it does not count: that approval by label is off may be
/// learned after the issue was looked at.
async fn waits_for_a_word(
    engine: &Engine,
    known: &KnownRepo,
    mission: &Mission,
    issue: &IssueSnapshot,
) -> Result<bool, StoreError> {
    if known.label_off.is_none() || mission.records.is_empty() {
        return Ok(false);
    }
    let name = mission.id();
    for label in issue.labels.iter().filter(|label| label.name == APPROVED) {
        let key = label_told_key(&name, label.id);
        if engine.store.read(move |tx| tx.meta(&key)).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A comment does not say what its delivery said, and the forge shows no edit:
/// nothing of it counts, and that is on record, once.
async fn edited_at_once(engine: &Engine, mission: MissionId, repo: i64, comment: i64) -> Result<(), StoreError> {
    let now = engine.clock.now().0;
    engine
        .store
        .transact(move |tx| {
            if !tx.act_on(repo, comment, now)? {
                return Ok(());
            }
            let data = serde_json::json!({"comment": comment, "why": "edited within its first second"});
            let action = "security_not_what_was_delivered";
            tx.record(now, &Actor::System, mission.as_str(), None, action, &data).map(drop)
        })
        .await
}
