//! Effects on cells, by the backend that each cell runs in.

use super::failure::{EffectError, Performed};
use super::{agent, approved_text, mission_words};
use crate::backend::{Backend, BackendError, Brief, CellSpec, Created, HarvestRequest, Record, Running};
use crate::cell::{AgentRun, Cell, CellId, Effect as CellEffect, State};
use crate::config::CommitChoice;
use crate::engine::facts::Facts;
use crate::engine::input::Input;
use crate::engine::{Engine, repository_of};
use crate::failure::Failure;
use crate::gitea::Repository;
use crate::gitea::event::RepoRef;
use crate::mission::ApprovedText;
use crate::repository::Harvest;
use crate::store::EffectRow;
use std::sync::Arc;

/// Attempts at a cell's start, each of several tries, after which trouble of this host's that should have passed
/// is the cell's failure: some minutes.
const STARTS_MAX: i64 = 8;

/// Runs an effect on a cell.
pub(super) async fn run(engine: &Engine, row: &EffectRow, order: CellEffect) -> Performed {
    let id = row.cell_id().ok_or_else(|| EffectError::permanent("it names no cell"))?;
    let stored = engine.stored_cell(&id).await?.ok_or_else(|| EffectError::permanent("there is no such cell"))?;
    let facts = Facts::of(&stored)?;
    let backend = match engine.backends.get(stored.cell.spec.backend) {
        Ok(backend) => backend,
        // It must not leave the cell waiting.
        Err(error) if matches!(order, CellEffect::Prepare { .. } | CellEffect::Restore { .. }) => {
            return Ok(Input::StartFailed { cell: id, reason: error.to_string(), changed: false });
        }
        Err(error) => return Err(error.into()),
    };
    let spec = spec(engine, &stored.cell, stored.slot);
    match order {
        CellEffect::Prepare { runs } | CellEffect::Restore { runs } => {
            if stored.cell.state == State::Preparing {
                backend.revive_home(&id).await?;
            }
            let result = match start(engine, row, backend, &stored.cell, &spec, &runs).await {
                // What cannot be done for good must not leave the cell waiting.
                Err(error) => {
                    let why = engine.is_given_up(row, error).await?.why;
                    Ok(Input::StartFailed { cell: id.clone(), reason: engine.context.redact(&why), changed: false })
                }
                input => input,
            };
            if matches!(result, Ok(Input::StartFailed { .. })) {
                backend.stop(&spec, None).await?;
                backend.retire(&id).await?;
            }
            result
        }
        CellEffect::StartAgents { runs, text } => {
            // Gone by now (closed, or destroyed): nothing is started any more.
            if !stored.cell.state.has_processes() {
                return Ok(Input::Nothing);
            }
            if stored.cell.approval_void {
                for run in &runs {
                    engine.agent_did_not_start(&id, run, "the text was changed after it was approved").await?;
                }
                return Ok(Input::Nothing);
            }
            let text_of = approved_text(engine, &stored.cell).await?;
            let mission = mission_words(engine, &stored.cell.mission).await?;
            if let Err(error) = backend.start(&spec).await {
                if error.failure() != Failure::Lasting {
                    return Err(error.into());
                }
                for run in &runs {
                    engine.agent_did_not_start(&id, run, &error.to_string()).await?;
                }
                return Ok(Input::Nothing);
            }
            // Revoked, or started anew, in the meantime: not these.
            let current = |run: &&AgentRun| stored.cell.running().any(|(a, n)| a == run.agent && n == run.number);
            for run in runs.iter().filter(current) {
                let prompt = agent::prompt(&text_of, text.as_deref());
                if let Err(why) = start_agent(engine, backend, &stored.cell, &spec, run, prompt, &mission).await {
                    engine.agent_did_not_start(&id, run, &why).await?;
                }
            }
            Ok(Input::Nothing)
        }
        CellEffect::Tell { agents, text } => {
            for agent in agents {
                let line = serde_json::json!({"at": row.seq, "text": text}).to_string();
                backend.deliver(&id, Record::Message { agent, line }).await?;
            }
            Ok(Input::Nothing)
        }
        CellEffect::StopAgent { agent } => {
            backend.stop_agent(&id, &agent).await?;
            Ok(Input::Nothing)
        }
        CellEffect::Freeze | CellEffect::Thaw => {
            backend.freeze(&id, order == CellEffect::Freeze).await?;
            Ok(Input::Nothing)
        }
        CellEffect::Checkpoint { .. } => {
            if stored.cell.state != State::Checkpointing {
                return Ok(Input::Nothing);
            }
            let mission = mission_words(engine, &stored.cell.mission).await?;
            let base = base_of(&facts, backend, &id).await?.unwrap_or_default();
            // What is not committed is in the snapshot; a commit of it on the
            // branch would stand in the way of the agents' next ones.
            let wanted = HarvestRequest {
                commit_rest: false,
                snapshot: true,
                ..engine.harvest_request(&id, &mission, base.clone())
            };
            let run = u32::try_from(row.seq).unwrap_or(u32::MAX - 1);
            let harvest = match backend.snapshot(&spec, wanted, run).await {
                Ok(handed) => engine.receive_work(&stored.cell, mission, base, Some(handed)).await?,
                Err(error) => Harvest { unknown: Some(error.to_string()), ..Harvest::default() },
            };
            Ok(Input::Snapshot { cell: id, harvest })
        }
        CellEffect::Stop => {
            if stored.cell.state != State::Closing {
                // Done by an earlier one.
                return Ok(Input::Nothing);
            }
            let base = base_of(&facts, backend, &id).await.map_err(until_it_is_done)?;
            let mission = mission_words(engine, &stored.cell.mission).await?;
            let wanted = base.clone().map(|base| engine.harvest_request(&id, &mission, base));
            let left = backend.stop(&spec, wanted).await.map_err(until_it_is_done)?;
            let harvest = engine.receive_work(&stored.cell, mission, base.unwrap_or_default(), left.work).await?;
            backend.retire(&id).await?;
            Ok(Input::Stopped { cell: id, harvest, usage: left.usage })
        }
        CellEffect::Archive => {
            backend.archive(&id).await?;
            Ok(Input::Nothing)
        }
        CellEffect::Scrub => {
            backend.destroy(&spec).await.map_err(until_it_is_done)?;
            let forgotten = engine.repositories.forget(&id, spec.project).await;
            forgotten.map_err(EffectError::passing)?;
            Ok(Input::Scrubbed { cell: id })
        }
    }
}

/// What is never given up: until nothing runs, a cell is not closed.
fn until_it_is_done(error: BackendError) -> EffectError {
    EffectError::passing(error)
}

/// The commit that a cell was made from; nothing where it was not made.
async fn base_of(facts: &Facts, backend: &Arc<dyn Backend>, cell: &CellId) -> Result<Option<String>, BackendError> {
    match &facts.commit {
        Some(commit) => Ok(Some(commit.clone())),
        None => backend.made_from(cell).await,
    }
}

/// What a cell is to be, for whichever backend runs it.
fn spec(engine: &Engine, cell: &Cell, slot: i64) -> CellSpec {
    let context = &engine.context;
    let profiles = cell.workers().filter_map(|p| context.profiles.get(p.identity.name()));
    CellSpec {
        cell: cell.id.clone(),
        slot,
        project: repository_of(&cell.mission),
        agents: cell.workers().map(|p| p.identity.name().to_owned()).collect(),
        isolation: cell.spec.isolation,
        network: cell.spec.network,
        egress: context.egress(&cell.spec.hosts, profiles.flat_map(|p| &p.network_hosts)),
        limits: context.limits_of(cell),
        in_memory: context.config.policy.disk_in_memory,
        pack_max: context.config.harvest.pack_max,
    }
}

/// Everything between approval and a running cell. The last look at the issue
/// and at the cell comes after everything that takes long: what runs is what
/// was approved, or nothing.
async fn start(
    engine: &Engine,
    row: &EffectRow,
    backend: &Arc<dyn Backend>,
    cell: &Cell,
    spec: &CellSpec,
    runs: &[AgentRun],
) -> Performed {
    let failed = |reason: String, changed| Ok(Input::StartFailed { cell: cell.id.clone(), reason, changed });
    let changed = "the text was changed after it was approved".to_owned();
    if cell.state != State::Preparing {
        // Closed or destroyed while this waited: nothing is started.
        return Ok(Input::Nothing);
    }
    if cell.approval_void {
        return failed(changed, false);
    }
    let text = approved_text(engine, cell).await?;
    let Some(mission) = engine.stored_mission(&row.mission).await? else {
        return Err(EffectError::permanent("the mission is not in the registry"));
    };
    let repo = RepoRef { id: mission.repo_id, owner: mission.owner.clone(), name: mission.repo.clone() };
    let forge = &engine.forge;
    let Some(repository) = forge.repository_by_id(repo.id).await? else {
        return Err(EffectError::not_shown("the repository"));
    };
    if repository.empty {
        return failed("the repository is empty; it needs a first commit".to_owned(), false);
    }
    let base = cell.spec.base.clone();
    let branch = base.as_ref().map_or_else(|| repository.default_branch.clone(), |base| base.branch.clone());
    let Created { commit, behind, left_out, agent_config_in_repo } =
        match make(engine, backend, cell, spec, &repository, &branch, &text).await? {
            Ok(created) => created,
            Err(why) => return failed(why, false),
        };
    for branch in left_out {
        let why = engine.context.redact(&branch.why);
        tracing::warn!(
            repository = repository.reference().full_name(),
            branch = branch.name,
            why,
            "a branch cannot be fetched, and is left out of cells"
        );
    }

    let Some(issue) = forge.repo_ref(&repo).issue(mission.number).get().await? else {
        return Err(EffectError::not_shown("the issue"));
    };
    if ApprovedText::new(&issue.title, &issue.body).hash != text.hash {
        return failed(changed, true);
    }
    if !issue.open {
        return failed("the issue was closed".to_owned(), true);
    }
    match engine.stored_cell(&cell.id).await? {
        Some(now) if now.cell.state != State::Preparing => return Ok(Input::Nothing),
        Some(now) if now.cell.approval_void => return failed(changed, false),
        _ => {}
    }

    let running = match backend.start(spec).await {
        Ok(running) => running,
        // What should pass and does not.
        Err(error @ BackendError::Passing(_)) if row.attempts >= STARTS_MAX => return failed(error.to_string(), false),
        Err(error) if error.failure() == Failure::Lasting => return failed(error.to_string(), false),
        Err(error) => return Err(EffectError::passing(error)),
    };
    let words = format!("{}#{}", repository.reference().full_name(), mission.number);
    let record = Record::SpawnLog(spawn_record(cell, &words, &commit, &running));
    let agents = async {
        for run in runs {
            let prompt = agent::prompt(&text, cell.spec.task.as_deref());
            if let Err(why) = start_agent(engine, backend, cell, spec, run, prompt, &words).await {
                return Err(format!("agent {} could not be started: {why}", run.agent));
            }
        }
        Ok(())
    };
    let (recorded, started) = tokio::join!(backend.deliver(&cell.id, record), agents);
    if let Err(why) = started {
        return failed(why, false);
    }
    recorded?;
    let planted = agent_config_in_repo;
    Ok(Input::Started { cell: cell.id.clone(), runs: runs.to_vec(), running, commit, branch, behind, planted })
}

/// Starts one run. The error is for people.
async fn start_agent(
    engine: &Engine,
    backend: &Arc<dyn Backend>,
    cell: &Cell,
    spec: &CellSpec,
    run: &AgentRun,
    prompt: String,
    mission: &str,
) -> Result<(), String> {
    let agent = agent::spec(engine, cell, run, prompt, mission)?;
    backend.start_agent(spec, agent).await.map_err(|e| e.to_string())
}

/// Makes a cell's home with the project in it. The inner error is for good.
async fn make(
    engine: &Engine,
    backend: &Arc<dyn Backend>,
    cell: &Cell,
    spec: &CellSpec,
    repository: &Repository,
    branch: &str,
    text: &ApprovedText,
) -> Result<Result<Created, String>, EffectError> {
    let reference = repository.reference();
    // What was approved is that commit, unless policy wants the newest.
    let pinned = match engine.context.config.policy.commit {
        CommitChoice::Approved => cell.spec.base.as_ref().map(|base| base.commit.clone()),
        CommitChoice::Latest => None,
    };
    let source = engine.repositories.source(reference.id, engine.clone_url(&reference), branch, pinned, &cell.id);
    let project = mission_words(engine, &cell.mission).await?;
    let record = serde_json::json!({
        "cell_id": cell.id, "project": project, "repository": reference.full_name(),
        "agents": cell.spec.agents, "approved_text": text.hash,
    });
    let brief = Brief { text: text.clone(), record };
    match backend.create(spec, &source, &brief).await {
        Ok(created) => Ok(Ok(created)),
        Err(BackendError::Source(error)) => {
            let why = engine.context.redact(&error.to_string());
            match error.failure() {
                Failure::Lasting => Ok(Err(why)),
                failure => Err(EffectError::failed(failure, why)),
            }
        }
        Err(error) => Err(EffectError::passing(error)),
    }
}

/// What a cell was started as, for its own records.
fn spawn_record(cell: &Cell, mission: &str, commit: &str, running: &Running) -> String {
    let level = running.isolation.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    let (id, network) = (&cell.id, cell.spec.network);
    let mut text = format!("cell {id} of {mission}, commit {commit}\nisolation {level}, network {network}\n");
    for line in running.applied.iter().chain(running.missing.iter()) {
        text.push_str("- ");
        text.push_str(line);
        text.push('\n');
    }
    text
}
