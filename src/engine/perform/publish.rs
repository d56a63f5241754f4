//! Something optional leaves a cell: a file, on a comment of its own.

use super::comments::post;
use super::failure::{EffectError, Performed};
use crate::backend::{Backend, CellPath};
use crate::cell::{Actor, CellId};
use crate::engine::facts::Facts;
use crate::engine::input::Input;
use crate::engine::{Engine, repository_of};
use crate::gitea::event::RepoRef;
use crate::mission::Publishable;
use crate::publication::{Answer, Publication};
use crate::store::EffectRow;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// Largest file that is let out, in bytes.
const FILE_MAX: u64 = 10 << 20;
/// Endings that a forge takes for attachments, unless it was told otherwise.
const ENDINGS: [&str; 10] = ["md", "txt", "json", "csv", "log", "patch", "zip", "gz", "tgz", "pdf"];

/// Lets something optional out of a cell, as a file on a comment of its own.
pub(super) async fn publish_file(
    engine: &Engine,
    row: &EffectRow,
    repo: &RepoRef,
    number: i64,
    what: Publishable,
    by: Actor,
) -> Performed {
    let cell = row.cell_id().ok_or_else(|| EffectError::permanent("it names no cell"))?;
    let stored = engine.stored_cell(&cell).await?;
    let facts = stored.as_ref().map(Facts::of).transpose()?.unwrap_or_default();
    let read = match (&what, facts.checkpoint) {
        (Publishable::Checkpoint, Some(hash)) => {
            let name = format!("checkpoint-{}.tgz", hash.chars().take(12).collect::<String>());
            let project = repository_of(&row.mission);
            let archive = engine.repositories.archive(&cell, project, hash, FILE_MAX, engine.context.shared_secrets());
            archive.await?.map(|bytes| (name, bytes))
        }
        (Publishable::Checkpoint, None) => Err("there is no checkpoint of it (`/checkpoint`)".to_owned()),
        _ => match &stored {
            Some(stored) => {
                let backend = engine.backends.get(stored.cell.spec.backend)?;
                read_publishable(backend, &cell, &what).await
            }
            None => Err("there is no such cell".to_owned()),
        },
    };
    let (name, bytes, words) = match read.and_then(|(name, bytes)| engine.pass_file(&name, bytes)) {
        Ok(file) => file,
        Err(why) => {
            let refused = Some(engine.context.redact(&why));
            return Ok(Input::FilePublished { cell, what, by, left: None, refused });
        }
    };
    let text = format!("Published by `{}`: `{name}` of cell `{cell}`, attached.{words}", by.name());
    let answer = Answer::one(true, text);
    let body = engine.context.render(&Publication::Answer(answer), &row.id, Some(cell.as_str())).body;
    let posted = post(engine, &engine.forge, row, repo, number, &body).await?;
    let comment = engine.forge.repo_ref(repo).comment(posted);
    let left = Some((name.clone(), hex::encode(Sha256::digest(&bytes))));
    // An attempt before this one may have come so far.
    if row.attempts == 0 || !comment.attachments().await?.iter().any(|a| a.name == name) {
        match comment.attach(&name, bytes).await {
            Ok(_) => {}
            Err(error) => {
                let why = engine.is_given_up(row, error.into()).await?.why;
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

async fn read_publishable(
    backend: &Arc<dyn Backend>,
    cell: &CellId,
    what: &Publishable,
) -> Result<(String, Vec<u8>), String> {
    let read = async |names: &[&str]| -> Result<Option<Vec<u8>>, String> {
        let path = CellPath::new(names).ok_or("this is no path in a cell")?;
        backend.read_file(cell, &path, FILE_MAX).await.map_err(|e| e.to_string())
    };
    match what {
        Publishable::Notes => {
            let notes = match read(&["shared", "notes.md"]).await? {
                Some(notes) => notes,
                None => read(&["shared", "scratchpad.md"]).await?.ok_or("there are no shared notes")?,
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
        Publishable::Decisions => read(&[".lazarus", "decisions.jsonl"])
            .await?
            .map(|bytes| ("decisions.jsonl.txt".to_owned(), bytes))
            .ok_or_else(|| "nothing was decided on record (`/decide`)".to_owned()),
        Publishable::Artifact(name) => {
            let good = !name.starts_with('.') && name.len() <= 100 && !name.contains(['/', '\0']);
            if !good {
                return Err("NAME is a file of `shared/artifacts`, without `/` and with no leading dot".to_owned());
            }
            read(&["shared", "artifacts", name])
                .await?
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
