//! Requests that an engine answers.

use super::cell_view::identity_of;
use super::{Answer, Caller, CellView, CommandAnswer, Missions, Reader, Request, Target};
use crate::cell::CellId;
use crate::engine::Engine;
use crate::mission::Command;
use crate::store::StoreError;
use std::time::Duration;

/// Answers a request with an engine that runs: what only reads at once, a command once
/// something came of it, or after `wait`.
pub async fn perform(engine: &Engine, caller: &Caller, request: Request, wait: Duration) -> Answer {
    if let Err(not_permitted) = caller.may(&request) {
        return Answer::refused(not_permitted.to_string());
    }
    match request {
        Request::Give { on, command } => Answer::Given(Box::new(give(engine, caller, on, command, wait).await)),
        request => {
            let config = engine.context.config.clone();
            let read = tokio::task::spawn_blocking(move || Reader::of(&config)?.answer(&request));
            match read.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => Answer::refused(error.to_string()),
                Err(error) => Answer::refused(format!("reading failed inside: {error}")),
            }
        }
    }
}

/// Has an engine carry out a command and waits for what comes of it, at most so long.
pub async fn give(engine: &Engine, caller: &Caller, on: Target, command: Command, wait: Duration) -> CommandAnswer {
    let mut answer = CommandAnswer::default();
    match &command {
        Command::Summon { agents, .. } => answer.agents.clone_from(agents),
        Command::Invite { identity, role, .. } => {
            answer.guest = Some(identity.clone());
            answer.role = Some(role.to_string());
            answer.invited_by = Some(identity_of(&caller.actor()));
        }
        _ => {}
    }
    let Caller::Operator { account } = caller else {
        // Their commands are comments, which the forge vouches for.
        answer.message = "people give commands in comments".to_owned();
        return answer;
    };
    let (mission, cell) = match on {
        Target::Mission(name) => (Some((name.owner, name.repository, name.number)), None),
        Target::Cell(cell) => (None, Some(cell)),
    };
    answer.cell_id.clone_from(&cell);
    match engine.operate(account.clone(), command, mission, cell, wait).await {
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
