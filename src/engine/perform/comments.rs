//! The bot's comments on the forge: posted once, found again, noted.

use super::failure::EffectError;
use crate::engine::Engine;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::lane::Lane;
use crate::gitea::Forge;
use crate::gitea::event::RepoRef;
use crate::mission::sha256;
use crate::publication::parse_marker;
use crate::store::{EffectRow, StoreError};

/// When to look again for a comment that may have been posted twice, in milliseconds.
const DEDUPLICATE_AFTER: i64 = 90_000;

/// The number of the bot's account.
pub fn bot_id(context: &Context) -> Result<i64, EffectError> {
    context.bot().map(|b| b.id).ok_or_else(|| EffectError::passing("the forge did not say yet who we are"))
}

/// The bot's comments on an issue that carry an effect's marker.
pub async fn own_comments(
    forge: &Forge,
    repo: &RepoRef,
    number: i64,
    bot: i64,
    effect: &str,
) -> Result<Vec<i64>, EffectError> {
    let comments = forge.repo_ref(repo).issue(number).comments().await?;
    Ok(comments
        .into_iter()
        // The marker is a way to find it again; the account is the proof.
        .filter(|c| c.author.id == bot && parse_marker(&c.body).is_some_and(|m| m.effect == effect))
        .map(|c| c.id)
        .collect())
}

/// Posts a comment, unless an earlier attempt did.
pub async fn post(
    engine: &Engine,
    forge: &Forge,
    row: &EffectRow,
    repo: &RepoRef,
    number: i64,
    body: &str,
) -> Result<i64, EffectError> {
    // By its number, each time: somebody else may have taken its name, and a
    // comment would be there for others to read.
    let Some(repository) = forge.repository_by_id(repo.id).await? else {
        return Err(EffectError::not_shown("the repository"));
    };
    let repo = &repository.reference();
    // A claim counts as an attempt before it is made, so a first attempt has none.
    if row.attempts > 0 {
        let bot = bot_id(&engine.context)?;
        if let Some(found) = own_comments(forge, repo, number, bot, &row.id).await?.first() {
            return Ok(*found);
        }
    }
    match forge.repo_ref(repo).issue(number).create_comment(body).await {
        Ok(comment) => Ok(comment.id),
        Err(error) => {
            if error.may_have_happened() {
                // It may still be on its way and arrive after we look: look
                // again later.
                engine.deduplicate_later(row, repo, number).await?;
            }
            Err(error.into())
        }
    }
}

impl Engine {
    /// Notes a comment of the bot's.
    pub async fn note_comment(&self, row: &EffectRow, kind: &str, comment: i64) -> Result<(), StoreError> {
        let (id, mission, cell, kind) = (row.id.clone(), row.mission.clone(), row.cell.clone(), kind.to_owned());
        self.store.transact(move |tx| tx.put_comment(&id, &mission, cell.as_deref(), &kind, comment)).await
    }

    /// Notes what a comment that is edited in place says now.
    pub async fn note_text(&self, comment: i64, body: &str) -> Result<(), StoreError> {
        let sha256 = sha256(body.trim_end());
        self.store.transact(move |tx| tx.put_comment_text(comment, &sha256)).await
    }

    /// Has somebody look later whether a comment was posted twice.
    async fn deduplicate_later(&self, row: &EffectRow, repo: &RepoRef, number: i64) -> Result<(), StoreError> {
        let effect = Effect::Deduplicate { repo: repo.clone(), number, of: row.id.clone() };
        let now = self.clock.now().0;
        let (id, lane) = (format!("{}-twice", row.id), Lane::Twice(&row.id));
        let later = effect.row(&id, lane, &row.mission, row.cell_id().as_ref(), now + DEDUPLICATE_AFTER)?;
        self.store.transact(move |tx| tx.queue(&later, now)).await
    }
}
