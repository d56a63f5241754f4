//! Running effects. Each may run twice: once before a crash and once after.

use super::Engine;
use super::effect::Effect;
use super::facts::Facts;
use super::input::Input;
use super::perform::authority::comment_now;
use super::perform::comments::{bot_id, own_comments, post};
use super::perform::failure::{Attempt, Ran};
use super::perform::look;
use super::work::{Order, publish_file, push, repository_of};
use crate::agents::{InvocationContext, programs};
use crate::backend::{Backend as _, BackendError, Harvest, Plan, Running, WorkWanted};
use crate::cell::{AgentRun, Cell, CellId, Effect as CellEffect, Isolation, Limits, Role, State};
use crate::config::CommitChoice;
use crate::failure::Failure;
use crate::gitea::event::RepoRef;
use crate::gitea::{Forge, Repository};
use crate::keeper::{NOT_IN_CELL, Room, StartAgent, View};
use crate::mission::ApprovedText;
use crate::sandbox::{Budget, LandlockPaths};
use crate::store::EffectRow;
use crate::workspace::{Cloned, GitError, Home, clone_project, mirror_of, refresh_mirror, scrub, unpin};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Attempts at a cell's start, each of several tries, after which trouble of this host's that should have passed
/// is the cell's failure: some minutes.
const STARTS_MAX: i64 = 8;

/// Runs one effect.
pub async fn run(engine: &Engine, row: &EffectRow) -> Attempt {
    let effect: Effect = match serde_json::from_str(&row.data) {
        Ok(effect) => effect,
        Err(error) => return Attempt::Never { why: format!("it cannot be read: {error}"), input: None },
    };
    let result = match effect {
        Effect::Cell { order } => cell_effect(engine, row, order).await,
        Effect::Record { file, line } => record(engine, row, &file, &line),
        effect => forge_effect(engine, row, effect).await,
    };
    match result {
        Ok(input) => Attempt::Done(input),
        Err(attempt) => engine.judge(row, attempt).await,
    }
}

async fn forge_effect(engine: &Engine, row: &EffectRow, mut effect: Effect) -> Ran {
    let forge =
        engine.forge.as_ref().ok_or_else(|| Attempt::Again { why: "there is no forge".to_owned(), after: None })?;
    let context = &engine.context;
    // Names move, the number stays: what did not work at a name may work at today's.
    if row.attempts > 0
        && let Some(repo) = effect.reference_mut()
        && let Some(found) = forge.repository_by_id(repo.id).await?
    {
        *repo = found.reference();
    }
    match effect {
        Effect::Push { repo, branch, tip, instead, others, released, base, title, body } => {
            let cell = row.cell.as_deref().and_then(|c| CellId::parse(c).ok());
            let cell = cell.ok_or_else(|| Attempt::Never { why: "it names no cell".to_owned(), input: None })?;
            push(engine, forge, row, cell, Order { repo, branch, tip, instead, others, released, base, title, body })
                .await
        }
        Effect::PublishFile { repo, number, what, by } => {
            publish_file(engine, forge, row, &repo, number, what, by).await
        }
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
            let Some(now) = issue.get().await? else { return Err(Attempt::not_shown("the issue")) };
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

fn record(engine: &Engine, row: &EffectRow, file: &str, line: &str) -> Ran {
    let Some(cell) = row.cell.as_deref().and_then(|c| CellId::parse(c).ok()) else { return Ok(Input::Nothing) };
    let home = engine.roots.home(&cell);
    // Run twice, the line must not stand there twice.
    let path = home.path.join(".lazarus").join(file);
    let there = std::fs::read_to_string(&path).is_ok_and(|t| t.lines().any(|l| l == line));
    if !there && home.path.exists() {
        home.append_record(file, line)?;
    }
    Ok(Input::Nothing)
}

async fn cell_effect(engine: &Engine, row: &EffectRow, order: CellEffect) -> Ran {
    let never = |why: String| Attempt::Never { why, input: None };
    let id =
        row.cell.as_deref().and_then(|c| CellId::parse(c).ok()).ok_or_else(|| never("it names no cell".to_owned()))?;
    let name = id.to_string();
    let stored =
        engine.store.read(move |tx| tx.cell(&name)).await?.ok_or_else(|| never("there is no such cell".to_owned()))?;
    let facts = Facts::of(&stored)?;
    let home = engine.roots.home(&id);
    let backend = &engine.backend;
    match order {
        CellEffect::Prepare { runs } | CellEffect::Restore { runs } => {
            if stored.cell.state == State::Preparing && !home.path.exists() && engine.roots.is_buried(&id) {
                engine.roots.exhume(&id)?;
            }
            let result = match start(engine, row, &stored.cell, stored.slot, &runs, &home).await {
                // What cannot be done for good must not leave the cell waiting.
                Err(attempt) => match engine.judge_by_patience(row, attempt).await {
                    Attempt::Never { why, .. } => {
                        Ok(Input::StartFailed { cell: id.clone(), reason: engine.context.redact(&why), changed: false })
                    }
                    Attempt::Done(input) => Ok(input),
                    attempt => Err(attempt),
                },
                input => input,
            };
            if matches!(result, Ok(Input::StartFailed { .. })) {
                let plan = plan(engine, &stored.cell, stored.slot, &home);
                backend.stop(plan, None).await.map_err(|e| Attempt::from(&e))?;
                if home.path.exists() {
                    engine.roots.bury(&id)?;
                }
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
                    engine.agent_did_not_start(&id, run, "the text was changed after it was approved");
                }
                return Ok(Input::Nothing);
            }
            let text_of = approved_text(engine, &stored.cell).await?;
            let mission = mission_words(engine, &stored.cell.mission).await?;
            let plan = plan(engine, &stored.cell, stored.slot, &home);
            if let Err(error) = backend.start(plan).await {
                let attempt = Attempt::from(&error);
                if attempt.is_again() {
                    return Err(attempt);
                }
                for run in &runs {
                    engine.agent_did_not_start(&id, run, &error.to_string());
                }
                return Ok(Input::Nothing);
            }
            // Revoked, or started anew, in the meantime: not these.
            let current = |run: &&AgentRun| stored.cell.running().any(|(a, n)| a == run.agent && n == run.number);
            for run in runs.iter().filter(current) {
                let result = match home.write_prompt(&run.agent, run.number, &text_of, text.as_deref()) {
                    Ok(prompt) => {
                        start_agent(engine, &stored.cell, stored.slot, &facts, run, &home, &prompt, &mission).await
                    }
                    Err(error) => Err(error.to_string()),
                };
                if let Err(why) = result {
                    engine.agent_did_not_start(&id, run, &why);
                }
            }
            Ok(Input::Nothing)
        }
        CellEffect::Tell { agents, text } => {
            for agent in agents {
                let line = serde_json::json!({"at": row.seq, "text": text}).to_string();
                record(engine, row, &format!("messages/{agent}.jsonl"), &line)?;
            }
            Ok(Input::Nothing)
        }
        CellEffect::StopAgent { agent } => {
            backend.stop_agent(id, agent).await.map_err(|e| Attempt::from(&e))?;
            Ok(Input::Nothing)
        }
        CellEffect::Freeze | CellEffect::Thaw => {
            backend.freeze(id, order == CellEffect::Freeze).await.map_err(|e| Attempt::from(&e))?;
            Ok(Input::Nothing)
        }
        CellEffect::Checkpoint { .. } => {
            if stored.cell.state != State::Checkpointing {
                return Ok(Input::Nothing);
            }
            let plan = plan(engine, &stored.cell, stored.slot, &home);
            let mission = mission_words(engine, &stored.cell.mission).await?;
            let base = facts.commit.clone().or_else(|| home.is_made()).unwrap_or_default();
            let Some(wanted) = engine.work_wanted(&id, &mission, Some(base.clone())) else { return Ok(Input::Nothing) };
            // What is not committed is in the snapshot; a commit of it on the
            // branch would stand in the way of the agents' next ones.
            let wanted = WorkWanted { commit_rest: false, snapshot: true, ..wanted };
            let run = u32::try_from(row.seq).unwrap_or(u32::MAX - 1);
            let harvest = match backend.snapshot(plan, wanted, run).await {
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
            let plan = plan(engine, &stored.cell, stored.slot, &home);
            let base = facts.commit.clone().or_else(|| home.is_made());
            // Never given up: until nothing runs, the cell is not closed.
            let again = |e: BackendError| Attempt::Again { why: e.to_string(), after: None };
            let mission = mission_words(engine, &stored.cell.mission).await?;
            let wanted = engine.work_wanted(&id, &mission, base.clone());
            let left = backend.stop(plan, wanted).await.map_err(again)?;
            let harvest = engine.receive_work(&stored.cell, mission, base.unwrap_or_default(), left.work).await?;
            if home.path.exists() {
                if !left.refusals.is_empty() {
                    home.write_record("egress-refused.jsonl", &left.refusals)?;
                }
                engine.roots.bury(&id)?;
            }
            Ok(Input::Stopped { cell: id, harvest, usage: left.usage })
        }
        CellEffect::Archive => {
            let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
            let roots = engine.roots.clone();
            let cell = id.clone();
            blocking(move || roots.archive(&cell, &date)).await??;
            Ok(Input::Nothing)
        }
        CellEffect::Scrub => {
            let plan = plan(engine, &stored.cell, stored.slot, &home);
            let again = |e: BackendError| Attempt::Again { why: e.to_string(), after: None };
            backend.stop(plan, None).await.map_err(again)?;
            let (roots, cell) = (engine.roots.clone(), id.clone());
            let mirror = mirror_of(&roots.mirrors, repository_of(&stored.cell.mission));
            blocking(move || roots.scrub(&cell).map(|()| unpin(&mirror, cell.as_str())))
                .await??
                .map_err(|e| Attempt::Again { why: e.to_string(), after: None })?;
            Ok(Input::Scrubbed { cell: id })
        }
    }
}

/// A mission as people and trailers name it: `owner/repo#12`.
async fn mission_words(engine: &Engine, id: &str) -> Result<String, Attempt> {
    let id = id.to_owned();
    let mission = engine.store.read(move |tx| tx.mission(&id)).await?;
    Ok(mission.map_or_else(String::new, |m| format!("{}/{}#{}", m.owner, m.repo, m.number)))
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Attempt> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Attempt::Again { why: e.to_string(), after: None })
}

fn plan(engine: &Engine, cell: &Cell, slot: i64, home: &Home) -> Plan {
    let limits = engine.context.limits_of(cell);
    let mut read_paths: Vec<PathBuf> = cell
        .workers()
        .filter_map(|p| engine.context.profiles.get(p.identity.name()))
        .flat_map(|p| [p.read_paths.clone(), programs::shown(&p.programs)].concat())
        .collect();
    read_paths.sort();
    read_paths.dedup();
    let profiles = || cell.workers().filter_map(|p| engine.context.profiles.get(p.identity.name()));
    Plan {
        cell: cell.id.clone(),
        home: home.path.clone(),
        slot,
        isolation: cell.spec.isolation,
        network: cell.spec.network,
        objects: Some(mirror_of(&engine.roots.mirrors, repository_of(&cell.mission)).join("objects"))
            .filter(|o| o.is_dir()),
        read_paths,
        egress: engine.context.egress(&cell.spec.hosts, profiles().flat_map(|p| &p.network_hosts)),
        open_files: limits.open_files,
        budget: Budget { memory: limits.memory, processes: limits.processes, cpu: limits.cpu },
        room: Room { bytes: limits.disk, files: limits.files },
        in_memory: engine.context.config.policy.disk_in_memory,
        // A snapshot holds every file once more, and the pack comes beside it.
        harvest_room: Room {
            bytes: limits.disk.saturating_add(engine.context.config.harvest.pack_max.saturating_mul(2)),
            files: limits.files.saturating_mul(2).saturating_add(1000),
        },
        log: limits.log,
        tmp: limits.tmp,
    }
}

async fn approved_text(engine: &Engine, cell: &Cell) -> Result<ApprovedText, Attempt> {
    let hash = cell.approval.as_ref().map(|a| a.text.clone()).unwrap_or_default();
    engine
        .store
        .read(move |tx| tx.text(&hash))
        .await?
        .ok_or_else(|| Attempt::Never { why: "the approved text is not in the registry".to_owned(), input: None })
}

/// Everything between approval and a running cell. The last look at the issue
/// and at the cell comes after everything that takes long: what runs is what
/// was approved, or nothing.
async fn start(engine: &Engine, row: &EffectRow, cell: &Cell, slot: i64, runs: &[AgentRun], home: &Home) -> Ran {
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
    let mission_name = row.mission.clone();
    let Some(mission) = engine.store.read(move |tx| tx.mission(&mission_name)).await? else {
        return Err(Attempt::Never { why: "the mission is not in the registry".to_owned(), input: None });
    };
    let repo = RepoRef { id: mission.repo_id, owner: mission.owner.clone(), name: mission.repo.clone() };
    let forge =
        engine.forge.as_ref().ok_or_else(|| Attempt::Again { why: "there is no forge".to_owned(), after: None })?;
    let Some(repository) = forge.repository_by_id(repo.id).await? else {
        return Err(Attempt::not_shown("the repository"));
    };
    if repository.empty {
        return failed("the repository is empty; it needs a first commit".to_owned(), false);
    }
    let base = cell.spec.base.clone();
    let branch = base.as_ref().map_or_else(|| repository.default_branch.clone(), |base| base.branch.clone());
    // A home that was handed over may hold anything by now: it stays as it is.
    let (commit, behind) = match home.is_made() {
        Some(commit) => (commit, 0),
        None => match make_home(engine, row, cell, slot, home, &repository, &branch, &text).await? {
            Ok(cloned) => (cloned.commit, cloned.behind),
            Err(why) => return failed(why, false),
        },
    };
    let planted = planted_configuration(&home.path.join("project"));

    let Some(issue) = forge.repo_ref(&repo).issue(mission.number).get().await? else {
        return Err(Attempt::not_shown("the issue"));
    };
    if ApprovedText::new(&issue.title, &issue.body).hash != text.hash {
        return failed(changed, true);
    }
    if !issue.open {
        return failed("the issue was closed".to_owned(), true);
    }
    let name = cell.id.to_string();
    match engine.store.read(move |tx| tx.cell(&name)).await? {
        Some(now) if now.cell.state != State::Preparing => return Ok(Input::Nothing),
        Some(now) if now.cell.approval_void => return failed(changed, false),
        _ => {}
    }

    let plan = plan(engine, cell, slot, home);
    // What agents are told is written while the walls are made.
    let (place, their_runs, task) = (home.clone(), runs.to_vec(), cell.spec.task.clone());
    let prompts = blocking(move || {
        their_runs
            .iter()
            .map(|run| place.write_prompt(&run.agent, run.number, &text, task.as_deref()))
            .collect::<Result<Vec<String>, _>>()
    });
    let (started, prompts) = tokio::join!(engine.backend.start(plan), prompts);
    let running = match started {
        Ok(running) => running,
        Err(error @ (BackendError::Isolation { .. } | BackendError::Start(_))) => {
            return failed(error.to_string(), false);
        }
        // What should pass and does not.
        Err(error @ BackendError::Passing(_)) if row.attempts >= STARTS_MAX => return failed(error.to_string(), false),
        Err(error) => return Err(Attempt::Again { why: error.to_string(), after: None }),
    };
    let words = format!("{}#{}", repository.reference().full_name(), mission.number);
    let (place, record) = (home.clone(), spawn_record(cell, &words, &commit, &running));
    let recorded = tokio::task::spawn_blocking(move || place.write_record("spawn.log", record.as_bytes()));
    let facts = Facts { commit: Some(commit.clone()), running: Some(running.clone()), ..Facts::default() };
    for (run, prompt) in runs.iter().zip(prompts??) {
        if let Err(why) = start_agent(engine, cell, slot, &facts, run, home, &prompt, &words).await {
            return failed(format!("agent {} could not be started: {why}", run.agent), false);
        }
    }
    recorded.await.map_err(|e| Attempt::Again { why: e.to_string(), after: None })??;
    Ok(Input::Started { cell: cell.id.clone(), runs: runs.to_vec(), running, commit, branch, behind, planted })
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

/// Makes a cell's home and the clone in it, from nothing. The inner error is
/// for good.
#[allow(clippy::too_many_arguments, reason = "the parts of one home")]
async fn make_home(
    engine: &Engine,
    row: &EffectRow,
    cell: &Cell,
    slot: i64,
    home: &Home,
    repository: &Repository,
    branch: &str,
    text: &ApprovedText,
) -> Result<Result<Cloned, String>, Attempt> {
    // Half a home, from before a crash, that no agent has seen.
    let path = home.path.clone();
    blocking(move || scrub(&path)).await?.map_err(|e| Attempt::Again { why: e.to_string(), after: None })?;
    home.make()?;
    let reference = repository.reference();
    let url = format!("{}/{}.git", engine.context.config.forge.url.trim_end_matches('/'), reference.full_name());
    let (place, target, access) =
        (mirror_of(&engine.roots.mirrors, reference.id), home.path.join("project"), engine.access.clone());
    let (branch, name) = (branch.to_owned(), cell.id.to_string());
    // What was approved is that commit, unless policy wants the newest.
    let pinned = match engine.context.config.policy.commit {
        CommitChoice::Approved => cell.spec.base.as_ref().map(|base| base.commit.clone()),
        CommitChoice::Latest => None,
    };
    // Where a cell has no root of its own, it cannot be shown the mirror.
    let borrow = engine.backend.probe().await.is_ok_and(|host| host.level_2());
    let mirror = engine.mirror(reference.id);
    let cloned = {
        let _one_at_a_time = mirror.lock().await;
        blocking(move || {
            let left_out = refresh_mirror(&place, &url, &access, &branch)?;
            let cloned = clone_project(&place, &name, &branch, pinned.as_deref(), &target, borrow)?;
            Ok::<_, GitError>((cloned, left_out))
        })
        .await?
    };
    let (cloned, left_out) = match cloned {
        Ok(cloned) => cloned,
        Err(error) => {
            let why = engine.context.redact(&error.to_string());
            return match error.failure() {
                Failure::Lasting => Ok(Err(why)),
                failure => Err(Attempt::failed(failure, why)),
            };
        }
    };
    for branch in left_out {
        let why = engine.context.redact(&branch.why);
        tracing::warn!(
            repository = reference.full_name(),
            branch = branch.name,
            why,
            "a branch cannot be fetched, and is left out of cells"
        );
    }
    home.write_record("mission.md", format!("# {}\n\n{}\n", text.title, text.body).as_bytes())?;
    let project = mission_words(engine, &row.mission).await?;
    let record = serde_json::json!({
        "cell_id": cell.id, "project": project, "repository": repository.reference().full_name(),
        "agents": cell.spec.agents, "commit": cloned.commit, "approved_text": text.hash,
    });
    home.write_record("cell.json", format!("{record:#}\n").as_bytes())?;
    let uid = engine.backend.agents_uid(slot).await;
    let (home, commit) = (home.clone(), cloned.commit.clone());
    blocking(move || home.hand_over(&commit, uid)).await??;
    Ok(Ok(cloned))
}

#[allow(clippy::too_many_arguments, reason = "the parts of one start")]
async fn start_agent(
    engine: &Engine,
    cell: &Cell,
    slot: i64,
    facts: &Facts,
    run: &AgentRun,
    home: &Home,
    prompt: &str,
    mission: &str,
) -> Result<(), String> {
    let profile = engine.context.profiles.get(&run.agent).ok_or("there is no such agent profile any more")?;
    home.make_agent(&run.agent, engine.backend.agents_uid(slot).await).map_err(|e| e.to_string())?;
    let walled = facts.running.as_ref().and_then(|r| r.isolation).is_none_or(|l| l >= Isolation::Level2);
    let place = |inside: &str| if walled { Path::new("/cell").join(inside) } else { home.path.join(inside) };
    let (prompt_file, own_home, project) =
        (place(".lazarus").join(prompt), place("home").join(&run.agent), place("project"));
    let credentials = |name: &str| engine.credential(name);
    let invocation = profile
        .invocation(&InvocationContext {
            prompt_file: &prompt_file,
            home: &own_home,
            project: &project,
            model: cell.spec.model.as_deref(),
            resume: None,
            host_env: &engine.host_env,
            credentials: &credentials,
        })
        .map_err(|e| e.to_string())?;
    let mut env: Vec<(String, String)> =
        invocation.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let mail = format!("{}@agents.lazarus.invalid", run.agent);
    let identity = format!("agent:{}", run.agent);
    for (name, value) in [
        ("LAZARUS_CELL", cell.id.as_str()),
        ("LAZARUS_MISSION", mission),
        ("CELL_HOME", &place("").display().to_string()),
        ("LAZARUS_MESSAGES", &place(".lazarus/messages").join(format!("{}.jsonl", run.agent)).display().to_string()),
        ("GIT_AUTHOR_NAME", &identity),
        ("GIT_AUTHOR_EMAIL", &mail),
        ("GIT_COMMITTER_NAME", &identity),
        ("GIT_COMMITTER_EMAIL", &mail),
        // What is left there counts as the agent's disk; `/tmp` is memory.
        ("TMPDIR", &own_home.join("tmp").display().to_string()),
    ] {
        if !env.iter().any(|(n, _)| n == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    for (name, value) in limits_for_runtimes(&engine.context.limits_of(cell)) {
        if !env.iter().any(|(n, _)| n == name) {
            env.push((name.to_owned(), value));
        }
    }
    if !(profile.ptrace && walled) {
        // The search for leaks stops a program's threads by tracing them. Where it may not, a sanitized program would
        // end with an error of the search's instead of its own status.
        for name in ["ASAN_OPTIONS", "LSAN_OPTIONS"] {
            if !env.iter().any(|(n, _)| n == name) {
                env.push((name.to_owned(), "detect_leaks=0".to_owned()));
            }
        }
    }
    let mut argv = invocation.argv.clone();
    // Where the cell finds this program.
    let program = if walled {
        PathBuf::from("/run/lazarus/lazarus")
    } else {
        crate::sandbox::program::path().map_err(|e| format!("finding this program's file: {e}"))?
    };
    let mut write = vec![place("shared"), own_home.clone()];
    let mut read = vec![];
    let role = cell
        .participants
        .iter()
        .find(|p| p.identity.name() == run.agent && matches!(p.identity, crate::cell::Identity::Agent(_)))
        .map_or(Role::Executor, |p| p.role);
    let view = if role.works() { View::Work } else { View::Observe };
    if view == View::Work {
        write.extend([place("project"), place("work")]);
        if engine.context.config.policy.worktrees {
            // It makes its own work tree, with its own rights, and goes on there.
            let own = [program.clone(), "cell-worktree".into(), place("work").join(&run.agent)];
            argv.splice(0..0, own.map(|part| part.display().to_string()));
        }
    } else {
        write.retain(|p| *p != place("shared"));
    }
    if walled {
        if !env.iter().any(|(name, _)| name == "XDG_RUNTIME_DIR") {
            env.push(("XDG_RUNTIME_DIR".to_owned(), format!("/run/user/{}", engine.backend.uid_inside().await)));
        }
        read.push(PathBuf::from("/"));
        write.extend(
            ["/tmp", "/run", "/dev/shm", "/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/pts", "/dev/ptmx"]
                .map(PathBuf::from),
        );
    } else {
        // Without a root of its own there is no `/run/lazarus` to find it in.
        for word in argv.iter_mut().filter(|word| *word == "lazarus").take(1) {
            *word = program.display().to_string();
        }
        // Landlock denies the host's, and to git a denied file is an error
        // where a missing one is not.
        env.push(("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()));
        let own = [place(".lazarus"), place("project"), place("work"), place("shared")];
        let shown = [profile.read_paths.clone(), programs::shown(&profile.programs)].concat();
        read = engine.backend.read_paths_without_a_root(&shown, &own);
        read.extend([program, PathBuf::from("/proc")]);
        write.push(PathBuf::from("/dev/null"));
    }
    let start = StartAgent {
        agent: run.agent.clone(),
        run: run.number,
        argv,
        env,
        stdin: invocation.stdin.clone(),
        cwd: invocation.cwd.clone(),
        view,
        paths: LandlockPaths { read, write },
        ptrace: profile.ptrace,
    };
    let started = engine.backend.start_agent(cell.id.clone(), start).await.map_err(|e| e.to_string());
    started.map_err(|why| {
        if why.contains(NOT_IN_CELL) {
            format!("{why}; {}", where_it_is(&why, &run.agent, &engine.host_env))
        } else {
            why
        }
    })
}

/// What to do about a program that a cell does not see: it may be on this machine all the same.
fn where_it_is(why: &str, agent: &str, host_env: &BTreeMap<String, String>) -> String {
    // The word before those is what is missing, but for a loader, which is not named.
    let before = why.split(NOT_IN_CELL).next().unwrap_or_default().trim_end();
    let missing =
        before.rsplit(' ').next().filter(|_| !before.ends_with("the loader that it names")).unwrap_or_default();
    let name = Path::new(missing).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let set = |directory: &Path| {
        let is_bin = directory.file_name().is_some_and(|name| name == "bin");
        let shown = directory.parent().filter(|above| is_bin && above.parent().is_some()).unwrap_or(directory);
        let shown = if programs::read(&shown.display().to_string(), None).is_ok() { shown } else { directory };
        format!("agents.{agent}.programs = [\"{}\"]", shown.display())
    };
    match programs::on_the_host(&name, missing, host_env) {
        Some(file) => {
            let directory = file.parent().unwrap_or(Path::new("/"));
            format!(
                "on this machine it is {}, which cells do not see; to show it, set {}, with every directory that it \
                 needs besides",
                file.display(),
                set(directory)
            )
        }
        None if name.is_empty() => format!("show what it needs with agents.{agent}.programs or read_paths"),
        None => format!(
            "it was not found on this machine either; install it, below /usr/local say, or name its directory in \
             agents.{agent}.programs"
        ),
    }
}

/// A cell's limits in the words of runtimes that would plan for the whole machine's memory and processors otherwise:
/// they cannot see the limits from inside. `JDK_JAVA_OPTIONS` is read by `java` alone, which says so in one line on
/// its standard error; the other variable for it is louder.
fn limits_for_runtimes(limits: &Limits) -> [(&'static str, String); 4] {
    let mib = limits.memory >> 20;
    let processors = limits.cpu.div_ceil(1000).max(1);
    [
        // Of what a program uses beside its heap (code, stacks, buffers) something is left.
        ("GOMEMLIMIT", format!("{}MiB", (mib * 9 / 10).max(1))),
        ("GOMAXPROCS", processors.to_string()),
        // What node takes by itself where there is plenty is not raised.
        ("NODE_OPTIONS", format!("--max-old-space-size={}", (mib * 3 / 4).clamp(16, 4096))),
        ("JDK_JAVA_OPTIONS", format!("-XX:MaxRAM={mib}m -XX:ActiveProcessorCount={processors}")),
    ]
}

/// What of a project does not come into a cell, by the files that say so.
async fn missing_in_cell(forge: &Forge, repo: &RepoRef, attempts: i64) -> Result<Vec<String>, Attempt> {
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

/// Configuration for agents that a repository carries: said, never loaded by
/// the host's side.
fn planted_configuration(project: &Path) -> Vec<String> {
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
