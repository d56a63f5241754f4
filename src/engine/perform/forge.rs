//! Effects on the forge: reactions, comments, labels.

use super::authority::comment_now;
use super::comments::{bot_id, own_comments, post};
use super::failure::{EffectError, Performed};
use super::look;
use super::publish::publish_file;
use super::work::{Order, push};
use crate::engine::Engine;
use crate::engine::effect::Effect;
use crate::engine::input::Input;
use crate::gitea::Forge;
use crate::gitea::event::RepoRef;
use crate::store::EffectRow;

/// Runs an effect on the forge.
pub(super) async fn run(engine: &Engine, row: &EffectRow, mut effect: Effect) -> Performed {
    let (forge, context) = (&engine.forge, &engine.context);
    // Names move, the number stays: what did not work at a name may work at today's.
    if row.attempts > 0
        && let Some(repo) = effect.reference_mut()
        && let Some(found) = forge.repository_by_id(repo.id).await?
    {
        *repo = found.reference();
    }
    match effect {
        Effect::Push { repo, branch, tip, instead, others, released, base, title, body } => {
            let cell = row.cell_id().ok_or_else(|| EffectError::permanent("it names no cell"))?;
            push(engine, row, cell, Order { repo, branch, tip, instead, others, released, base, title, body }).await
        }
        Effect::PublishFile { repo, number, what, by } => publish_file(engine, row, &repo, number, what, by).await,
        Effect::React { repo, comment, content, alone: _ } => {
            match forge.repo_ref(&repo).comment(comment).react(&content).await {
                // The comment was deleted: there is nobody left to answer.
                Err(error) if error.is_not_found() && forge.repo_ref(&repo).comment(comment).get().await?.is_none() => {
                    Ok(Input::Nothing)
                }
                other => other.map(|_| Input::Nothing).map_err(Into::into),
            }
        }
        Effect::Comment { repo, number, kind, body } => {
            let posted = post(engine, forge, row, &repo, number, &body).await?;
            engine.note_comment(row, &kind, posted).await?;
            Ok(Input::Nothing)
        }
        Effect::Standing { repo, number, slot, body, only_edit } => {
            let (mission, name) = (row.mission.clone(), slot.clone());
            let known = engine.store.read(move |tx| tx.comment_of_kind(&mission, &name)).await?;
            if let Some(known) = known {
                match forge.repo_ref(&repo).comment(known.comment_id).edit(&body).await {
                    Ok(_) => {
                        engine.note_text(known.comment_id, &body).await?;
                        return Ok(Input::Nothing);
                    }
                    // Somebody deleted it: a new one is written. But a second one
                    // must not come of a forge that is confused for a moment.
                    Err(error) if error.is_not_found() => {
                        if comment_now(forge, &repo, number, known.comment_id).await?.is_some() {
                            return Err(error.into());
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if only_edit {
                return Ok(Input::Nothing);
            }
            let posted = post(engine, forge, row, &repo, number, &body).await?;
            engine.note_comment(row, &slot, posted).await?;
            engine.note_text(posted, &body).await?;
            Ok(Input::Nothing)
        }
        Effect::StateLabel { repo, number, state } => {
            let api = forge.repo_ref(&repo);
            let wanted = format!("lazarus/state/{state}");
            let labels = api.labels().await?;
            // Where `lazarus init` made none there is nothing to show.
            let Some(wanted) = labels.iter().find(|l| l.name == wanted).map(|l| l.id) else {
                return Ok(Input::Nothing);
            };
            let issue = api.issue(number);
            let Some(now) = issue.get().await? else { return Err(EffectError::not_shown("the issue")) };
            for label in now.labels.iter().filter(|l| l.name.starts_with("lazarus/state/") && l.id != wanted) {
                issue.remove_label(label.id).await?;
            }
            if !now.labels.iter().any(|l| l.id == wanted) {
                issue.add_labels(&[wanted]).await?;
            }
            Ok(Input::Nothing)
        }
        Effect::RemoveApproval { repo, number } => {
            if let Some(label) = context.repo(repo.id).and_then(|r| r.approved_label) {
                forge.repo_ref(&repo).issue(number).remove_label(label.id()).await?;
            }
            Ok(Input::Nothing)
        }
        Effect::Authorize { request } => look::authorize(engine, forge, row, request).await,
        Effect::Confirm { request, question, sha256, asked_at } => {
            look::confirm(engine, forge, row, request, question, &sha256, asked_at).await
        }
        Effect::Look { repo, number } => look::look(engine, forge, row, repo, number).await,
        Effect::LookAtProject { repo } => {
            let missing = missing_in_cell(forge, &repo, row.attempts).await?;
            Ok(if missing.is_empty() {
                Input::Nothing
            } else {
                Input::ProjectSeen { mission: row.mission.clone(), missing }
            })
        }
        Effect::Deduplicate { repo, number, of } => {
            let bot = bot_id(context)?;
            let mut ours: Vec<i64> = own_comments(forge, &repo, number, bot, &of).await?;
            ours.sort_unstable();
            for extra in ours.iter().skip(1) {
                forge.repo_ref(&repo).comment(*extra).delete().await?;
            }
            Ok(Input::Nothing)
        }
        Effect::Cell { .. } | Effect::Record { .. } => Ok(Input::Nothing),
    }
}

/// What of a project does not come into a cell, by the files that say so.
async fn missing_in_cell(forge: &Forge, repo: &RepoRef, attempts: i64) -> Result<Vec<String>, EffectError> {
    let api = forge.repo_ref(repo);
    let mut missing = vec![];
    for (file, sign, words) in [
        (
            ".gitattributes",
            "filter=lfs",
            "files in Git LFS: a cell has their pointers alone, and what agents commit in their place is no LFS file",
        ),
        (".gitmodules", "[submodule", "submodules: a cell has empty directories for them"),
    ] {
        match api.file(file).await {
            Ok(Some(found)) if String::from_utf8_lossy(&found.content).contains(sign) => missing.push(words.to_owned()),
            // It is a courtesy: nothing waits for it for long. (A directory of that
            // name is no good answer either.)
            Err(error) if attempts < 3 => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(missing)
}
