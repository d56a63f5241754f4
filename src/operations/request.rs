//! What is asked, and where it is answered.

use super::cell_view::identity_of;
use super::{Answer, CellView, MissionName, Missions};
use crate::cell::{Actor, CellId};
use crate::engine::Engine;
use crate::mission::Command;
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One command of an operator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The system account.
    pub by: String,
    /// What.
    pub command: Command,
    /// The mission, for commands on one.
    pub mission: Option<MissionName>,
    /// The cell, for commands on one.
    pub cell: Option<CellId>,
}

impl Request {
    /// Runs it in an engine and waits for what comes of it, at most so long.
    pub async fn run(self, engine: &Engine, wait: Duration) -> Answer {
        let mut answer = Answer::default();
        match &self.command {
            Command::Summon { agents, .. } => answer.agents.clone_from(agents),
            Command::Invite { identity, role, .. } => {
                answer.guest = Some(identity.clone());
                answer.role = Some(role.to_string());
                answer.invited_by = Some(identity_of(&Actor::Operator { name: self.by.clone() }));
            }
            _ => {}
        }
        let mission = self.mission.map(|name| (name.owner, name.repository, name.number));
        answer.cell_id.clone_from(&self.cell);
        match engine.operate(self.by, self.command, mission, self.cell, wait).await {
            Ok(outcome) => {
                answer.success = outcome.success;
                answer.message = outcome.message;
                answer.cell_id = outcome.cell_id.and_then(|id| CellId::parse(&id).ok()).or(answer.cell_id);
            }
            Err(why) => answer.message = why,
        }
        if let Some(id) = &answer.cell_id {
            match view(engine, id).await {
                Ok(cell) => answer.cell = cell.map(Box::new),
                Err(error) => {
                    // What was done is done; how it stands now cannot be said.
                    answer.success = false;
                    answer.message = format!("{} ({error})", answer.message);
                }
            }
        }
        answer
    }
}

/// The cell as it stands now.
async fn view(engine: &Engine, id: &CellId) -> Result<Option<CellView>, StoreError> {
    let name = id.to_string();
    let found = engine
        .store
        .read(move |tx| {
            let Some(row) = tx.cell(&name)? else { return Ok(None) };
            let project = Missions::default().name(tx, &row.cell.mission)?;
            Ok(Some((row, project)))
        })
        .await?;
    let Some((row, project)) = found else { return Ok(None) };
    let seen = engine.look_at_cell(&row.cell).await;
    CellView::new(&row, project, &seen, engine.now()).map(Some)
}
