//! `lazarus work CELL DIR`: the work of a cell, for the operator. Straight from
//! the registry and the work's repository, with the daemon running or not.

use super::{Said, operate};
use crate::cell::State;
use crate::config::Config;
use crate::engine::{Facts, repository_of};
use crate::host;
use crate::repository::{ConfinedGit, Held, WorkRepository, mirror_of, mirrors_in, work_in};
use crate::sandbox::Confinement;
use crate::store;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// Writes everything that was taken out of a cell into a new repository at
/// `directory`: a branch for each part, what is held among them.
pub(super) fn run(config: &Config, cell: &str, directory: &Path, as_json: bool) -> anyhow::Result<Said> {
    let id = operate::cell(cell)?;
    let row = store::look(&config.paths.registry, |tx| tx.cell(id.as_str()))?
        .ok_or_else(|| anyhow::anyhow!("there is no cell {id}; `lazarus status --all` lists them"))?;
    if row.cell.state == State::Destroyed {
        anyhow::bail!("cell {id} is destroyed, and its work with it");
    }
    let facts = Facts::of(&row)?;
    let mirror = mirror_of(&mirrors_in(&config.paths.data), repository_of(&row.cell.mission));
    let git = ConfinedGit::new(None, Confinement::of(&host::probe()?));
    let work = WorkRepository::new(work_in(&config.paths.data, &id), mirror, git);
    let parts = parts(&facts);
    if parts.is_empty() || !work.exists() {
        let clone = [&config.paths.cells, &config.paths.graveyard]
            .map(|root| root.join(id.as_str()).join("project"))
            .into_iter()
            .find(|clone| clone.exists());
        let more = match (&row.cell.state, clone) {
            (state, _) if state.is_live() => "close it first, or take a checkpoint (`/checkpoint`)".to_owned(),
            (_, Some(clone)) => format!(
                "its clone is at {}. It is the agents': look at its files, and run no git in it outside of a cell",
                clone.display()
            ),
            (_, None) => "and its clone is gone".to_owned(),
        };
        anyhow::bail!("nothing was taken out of cell {id} ({}); {more}", row.cell.state);
    }
    work.copy_to(directory, &parts)
        .map_err(|why| anyhow::anyhow!("copying the work of cell {id} to {}: {why}", directory.display()))?;
    let held: Vec<String> = facts.held().map(Held::words).map(|words| words.replace('`', "")).collect();
    let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
    let message = format!(
        "the work of cell {id} is in {}: {} branches, nothing checked out. Agents made it: look at it with git log and \
         git diff before you check anything out, and build or run it only where you would run the agents",
        directory.display(),
        names.len()
    );
    if as_json {
        let object = json!({
            "success": true, "cell_id": id, "message": message,
            "directory": directory, "branches": names, "held": held,
        });
        return Ok(Said::done(object.to_string()));
    }
    let mut out = message;
    for (name, commit) in &parts {
        let _ = write!(out, "\n  {name}  {commit}");
    }
    for words in &held {
        let _ = write!(out, "\n  {words}");
    }
    Ok(Said::done(out))
}

/// What there is of a cell, each part under a name that is ours.
fn parts(facts: &Facts) -> Vec<(String, String)> {
    let mut parts = vec![];
    if let Some(harvest) = &facts.harvest {
        parts.extend(harvest.tip.iter().map(|tip| ("work".to_owned(), tip.clone())));
        parts.extend(harvest.committed.iter().map(|commit| ("work-committed".to_owned(), commit.clone())));
        for (index, (name, commit)) in harvest.branches.iter().enumerate() {
            let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
            parts.push((format!("other-{}-{}", index + 1, word.trim_matches('-')), commit.clone()));
        }
    }
    parts.extend(facts.checkpoint.iter().map(|commit| ("checkpoint".to_owned(), commit.clone())));
    parts
}
