//! `lazarus status` and `lazarus logs`: straight from the registry and the
//! log files, with the daemon running or not.

use super::waiting::waiting;
use crate::cell::{CellId, Identity, ParticipantState, RunState};
use crate::config::Config;
use crate::engine::Facts;
use crate::store::{self, CellRow, DataLock, Tx};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Most live cells that are listed.
const LISTED: i64 = 100_000;

/// Prints how cells stand.
pub fn run(config: &Config, target: Option<&str>, all: bool, as_json: bool) -> anyhow::Result<bool> {
    let registry = &config.paths.registry;
    if !registry.exists() {
        anyhow::bail!("there is no registry at {} yet; `lazarus serve` makes it", registry.display());
    }
    let (rows, live, over, inputs, effects, heads, waiting) = store::look(registry, |tx| {
        let (live, over) = tx.count_cells()?;
        let rows = rows(tx, target, all)?;
        Ok((rows, live, over, tx.count_waiting_inputs()?, tx.count_open_effects()?, tx.head()?, waiting(tx)?))
    })?;
    let rows = rows.map_err(|why| anyhow::anyhow!(why))?;
    let daemon = DataLock::is_held(&config.paths.data);
    if as_json {
        let cells: Vec<Value> = rows.iter().map(cell_json).collect();
        let active: Vec<&str> = rows.iter().filter(|r| r.cell.state.is_active()).map(|r| r.cell.id.as_str()).collect();
        println!(
            "{}",
            json!({
                "success": true,
                "cell_id": (rows.len() == 1).then(|| rows[0].cell.id.as_str()),
                "message": format!("{live} live, {over} over"),
                "cells": cells,
                "active_cells": active,
                "pending_inputs": inputs,
                "pending_effects": effects,
                "waiting": waiting,
                "daemon": daemon,
                "ledger": heads.to_string(),
            })
        );
        return Ok(true);
    }
    let mut out = String::new();
    for row in &rows {
        let facts: Facts = serde_json::from_str(&row.facts).unwrap_or_default();
        let isolation = facts.running.and_then(|r| r.isolation).map_or("not started", |i| i.word());
        let who: Vec<String> = row
            .cell
            .participants
            .iter()
            .filter(|p| p.state != ParticipantState::Gone)
            .map(|p| format!("{} ({})", p.identity, p.role))
            .collect();
        let _ = writeln!(out, "{}  {:<13}  {:<11}  {}", row.cell.id, row.cell.state, isolation, who.join(", "));
    }
    let _ = writeln!(
        out,
        "{live} live, {over} over; {inputs} inputs and {effects} effects wait; the daemon {}; ledger at {}",
        if daemon { "runs" } else { "does not run" },
        heads.seq
    );
    for waits in &waiting {
        let _ = writeln!(out, "tried again: {waits}");
    }
    print!("{out}");
    Ok(true)
}

type Rows = Result<Vec<CellRow>, String>;

fn rows(tx: &Tx<'_>, target: Option<&str>, all: bool) -> store::Result<Rows> {
    match target {
        None if all => {
            // The newest that are over, beside all that live.
            tx.all_cells(LISTED).map(Ok)
        }
        None => tx.live_cells(LISTED).map(Ok),
        Some(text) if text.contains('#') => {
            let Ok((owner, name, number)) = super::operate::mission(text) else {
                return Ok(Err(format!("TARGET `{text}`: a cell, or OWNER/REPO#N")));
            };
            let Some(repo) = tx.repository_named(&format!("{owner}/{name}"))? else {
                return Ok(Err(format!("{owner}/{name} is not a repository that this Lazarus has served")));
            };
            match tx.mission_by_number(repo, number)? {
                None => Ok(Err(format!("nothing is known of {text}"))),
                Some(_) => tx.cells_of(&format!("{repo}#{number}")).map(Ok),
            }
        }
        Some(text) => match CellId::parse(text) {
            Err(error) => Ok(Err(format!("CELL: {error}"))),
            Ok(id) => Ok(match tx.cell(id.as_str())? {
                Some(row) => Ok(vec![row]),
                None => Err(format!("there is no cell {id}; `lazarus status --all` lists them")),
            }),
        },
    }
}

fn cell_json(row: &CellRow) -> Value {
    let cell = &row.cell;
    let facts: Facts = serde_json::from_str(&row.facts).unwrap_or_default();
    let participants: Vec<Value> = cell
        .participants
        .iter()
        .map(|p| {
            json!({
                "identity": p.identity, "role": p.role, "state": p.state, "run": p.run,
            })
        })
        .collect();
    let agents: Vec<&str> = cell
        .participants
        .iter()
        .filter(|p| matches!(p.identity, Identity::Agent(_)) && p.state == ParticipantState::Joined)
        .map(|p| p.identity.name())
        .collect();
    let expired = cell
        .participants
        .iter()
        .filter(|p| p.state == ParticipantState::Gone && matches!(p.run, RunState::Waiting))
        .count();
    json!({
        "cell_id": cell.id, "mission": cell.mission, "state": cell.state, "outcome": cell.outcome,
        "reason": cell.reason, "agent": cell.spec.agents.first(), "agents": agents, "backend": cell.spec.backend,
        "network": cell.spec.network, "participants": participants, "expires_at": cell.expires_at,
        "created_at": cell.created_at, "started_at": cell.started_at, "closed_at": cell.closed_at,
        "approval": cell.approval, "approval_void": cell.approval_void,
        "pid": facts.running.as_ref().and_then(|r| r.pid), "probe": facts.running, "commit": facts.commit,
        "expired": expired,
    })
}

/// Prints the logs of a cell's agents.
pub fn logs(config: &Config, cell: &str, agent: Option<&str>, tail: u64, as_json: bool) -> anyhow::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let id = CellId::parse(cell).map_err(|e| anyhow::anyhow!("CELL: {e}"))?;
    let row = store::look(&config.paths.registry, |tx| tx.cell(id.as_str()))?
        .ok_or_else(|| anyhow::anyhow!("there is no cell {id}; `lazarus status --all` lists them"))?;
    let names: Vec<String> = row
        .cell
        .participants
        .iter()
        .filter(|p| matches!(p.identity, Identity::Agent(_)))
        .map(|p| p.identity.name().to_owned())
        .collect();
    if let Some(agent) = agent
        && !names.iter().any(|n| n == agent)
    {
        anyhow::bail!("AGENT {agent}: not in this cell; there are {}", names.join(", "));
    }
    let mut found = serde_json::Map::new();
    for name in names.iter().filter(|n| agent.is_none_or(|a| a == n.as_str())) {
        let path = config.paths.data.join("run").join(id.as_str()).join("keeper").join(format!("{name}.log"));
        let mut text = vec![];
        if let Ok(mut file) = std::fs::File::open(&path) {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(tail)))?;
            file.take(tail).read_to_end(&mut text)?;
        }
        // What an agent wrote must not steer the operator's terminal.
        let clean: String = String::from_utf8_lossy(&text)
            .chars()
            .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        if as_json {
            found.insert(name.clone(), Value::String(clean));
        } else {
            println!("==> {name} ({})", path.display());
            print!("{clean}");
            if !clean.ends_with('\n') {
                println!();
            }
        }
    }
    if as_json {
        println!("{}", json!({"success": true, "cell_id": id, "message": "logs", "logs": found}));
    }
    Ok(true)
}
