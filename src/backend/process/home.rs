//! A cell's home on this host: made with the project in it, and read.

use super::ProcessBackend;
use crate::backend::{BackendError, Brief, CellPath, CellSpec, Created, Record};
use crate::cell::CellId;
use crate::repository::Source;
use crate::workspace::{Home, HomeError, scrub};
use std::path::Path;

impl ProcessBackend {
    /// Makes a home and the clone in it, from nothing, unless it is made: one that was handed over may hold anything
    /// by now, and stays as it is.
    pub(super) async fn make_home(
        &self,
        spec: &CellSpec,
        source: &Source,
        brief: &Brief,
    ) -> Result<Created, BackendError> {
        let home = self.roots.home(&spec.cell);
        let project = home.path.join("project");
        let mut created = Created::default();
        if let Some(commit) = home.is_made() {
            created.commit = commit;
        } else {
            // Half a home, from before a crash, that no agent has seen.
            let place = home.clone();
            blocking(move || {
                let tried = BackendError::io(format!("removing {}", place.path.display()));
                scrub(&place.path).map_err(tried)?;
                Ok(place.make()?)
            })
            .await?;
            // Where a cell has no root of its own, it cannot be shown the mirror.
            let borrow = self.host.report().await.is_ok_and(|host| host.level_2());
            let (cloned, left_out) = source.clone_to(&project, borrow).await?;
            let uid = self.agents_uid(spec.slot).await;
            let (brief, commit) = (brief.clone(), cloned.commit.clone());
            blocking(move || {
                let mission = format!("# {}\n\n{}\n", brief.text.title, brief.text.body);
                home.write_record("mission.md", mission.as_bytes())?;
                let mut record = brief.record;
                record["commit"] = commit.clone().into();
                home.write_record("cell.json", format!("{record:#}\n").as_bytes())?;
                Ok(home.hand_over(&commit, uid)?)
            })
            .await?;
            created = Created { commit: cloned.commit, behind: cloned.behind, left_out, ..created };
        }
        created.agent_config_in_repo = agent_config_in(&project);
        Ok(created)
    }

    /// Adds to a cell's records.
    pub(super) async fn write_record(&self, cell: &CellId, record: Record) -> Result<(), BackendError> {
        let home = self.roots.home(cell);
        blocking(move || {
            let (file, line) = match record {
                Record::SpawnLog(text) => {
                    home.write_record("spawn.log", text.as_bytes())?;
                    return Ok(());
                }
                Record::Decision(line) => ("decisions.jsonl".to_owned(), line),
                Record::Message { agent, line } => (format!("messages/{agent}.jsonl"), line),
            };
            let path = home.path.join(".lazarus").join(&file);
            let there = std::fs::read_to_string(&path).is_ok_and(|text| text.lines().any(|l| l == line));
            if !there && home.path.exists() {
                home.append_record(&file, &line)?;
            }
            Ok(())
        })
        .await
    }

    /// Reads a file of a cell's home, live or in the graveyard.
    pub(super) async fn read_from(
        &self,
        cell: &CellId,
        path: &CellPath,
        most: u64,
    ) -> Result<Option<Vec<u8>>, BackendError> {
        let home = self.roots.home(cell);
        let home = if home.path.exists() { home } else { Home { path: self.roots.graveyard.join(cell.as_str()) } };
        let path = path.clone();
        blocking(move || {
            let names: Vec<&str> = path.names().collect();
            Ok(home.read_plain(&names, most)?)
        })
        .await
    }

    /// Does something with the roots that may take long.
    pub(super) async fn with_roots(
        &self,
        work: impl FnOnce(&crate::workspace::Roots) -> Result<(), HomeError> + Send + 'static,
    ) -> Result<(), BackendError> {
        let roots = self.roots.clone();
        blocking(move || Ok(work(&roots)?)).await
    }
}

/// Runs what may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BackendError::Gone)?
}

/// Configuration for agents that a repository carries: said, never loaded by
/// the host's side.
fn agent_config_in(project: &Path) -> Vec<String> {
    [
        ".claude",
        ".mcp.json",
        ".hermes",
        ".codex",
        ".gemini",
        ".opencode",
        ".goose",
        ".goosehints",
        ".aider.conf.yml",
        ".cursor",
        "AGENTS.md",
        "CLAUDE.md",
        "GEMINI.md",
        "opencode.json",
    ]
    .into_iter()
    .filter(|name| project.join(name).symlink_metadata().is_ok())
    .map(str::to_owned)
    .collect()
}
