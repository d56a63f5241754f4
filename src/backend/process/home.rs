//! A cell's home on this host: makes it with the project in it, and reads from it.

use super::ProcessBackend;
use crate::backend::{BackendError, Brief, CellPath, CellSpec, Created, Record};
use crate::cell::CellId;
use crate::repository::Source;
use crate::workspace::{Home, HomeError, scrub};
use std::path::Path;

impl ProcessBackend {
    /// Makes a home with the clone in it, unless it exists. A home that agents were given may contain anything by
    /// now, so it is not changed.
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
            // An incomplete home from before a crash, which no agent has seen.
            let place = home.clone();
            blocking(move || {
                let tried = BackendError::io(format!("removing {}", place.path.display()));
                scrub(&place.path).map_err(tried)?;
                Ok(place.make()?)
            })
            .await?;
            // A cell without a root of its own cannot be shown the mirror.
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

    /// Adds an entry to a cell's records.
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
        let home = if home.path.exists() { home } else { Home { path: self.roots.grave(cell) } };
        let path = path.clone();
        blocking(move || {
            let names: Vec<&str> = path.names().collect();
            Ok(home.read_plain(&names, most)?)
        })
        .await
    }

    /// Runs something that may take long with the roots, on a blocking thread.
    pub(super) async fn with_roots(
        &self,
        work: impl FnOnce(&crate::workspace::Roots) -> Result<(), HomeError> + Send + 'static,
    ) -> Result<(), BackendError> {
        let roots = self.roots.clone();
        blocking(move || Ok(work(&roots)?)).await
    }
}

/// Runs something that may block, on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BackendError::Gone)?
}

/// Lists the configuration files for agents that a repository contains. They are reported, and never loaded on the
/// host's side.
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
