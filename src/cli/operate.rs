//! The operator's verbs. They are the slash commands, read by the same
//! grammar, and run by the daemon if there is one, else here.

use super::Said;
use crate::cell::CellId;
use crate::config::Config;
use crate::engine::Engine;
use crate::mission::{Command, Line, SummonOptions, parse_comment};
use crate::operations::{Answer, Form, MissionName, Request};
use crate::server::control::{self, WAIT};
use crate::store::DataLock;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// What a verb is about.
pub enum Target {
    /// OWNER/REPO#N
    Mission(String),
    /// A cell.
    Cell(String),
}

/// Reads the name of a cell.
///
/// # Errors
/// Says what the form is.
pub fn cell(text: &str) -> anyhow::Result<CellId> {
    CellId::parse(text).map_err(|error| anyhow::anyhow!("CELL: {error}"))
}

/// A summons: its options are checked one by one, so that a message names the
/// argument.
pub fn summon(config: &Config, line: &str, about: &str, pairs: Vec<(&'static str, String)>) -> anyhow::Result<Answer> {
    let mission: MissionName = about.parse()?;
    let mut command = read(line)?;
    if let Command::Summon { options, .. } = &mut command {
        let mut given = SummonOptions::default();
        for (key, value) in pairs {
            given.set(key, &value).map_err(|why| anyhow::anyhow!("--{}", why.replace('`', "")))?;
        }
        *options = given;
    }
    send(config, Request { by: operator(), command, mission: Some(mission), cell: None })
}

/// Any other verb, as a line of the slash-command grammar.
pub fn run(config: &Config, target: Target, line: &str) -> anyhow::Result<Answer> {
    let (mission, cell) = match target {
        Target::Mission(text) => (Some(text.parse()?), None),
        Target::Cell(text) => (None, Some(cell(&text)?)),
    };
    let command = read(line)?;
    send(config, Request { by: operator(), command, mission, cell })
}

fn read(line: &str) -> anyhow::Result<Command> {
    if line.contains(['\n', '\r']) {
        anyhow::bail!("an argument holds a line break; give it on one line");
    }
    match parse_comment(&format!("/{}", line.trim())).lines.into_iter().next() {
        Some(Line::Command { command, .. }) => Ok(command),
        Some(Line::Refused { why, .. }) => anyhow::bail!("{}", why.replace('`', "")),
        None => anyhow::bail!("{line} cannot be read as a command"),
    }
}

/// The system account that runs this.
pub(super) fn operator() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| format!("uid-{uid}"))
}

fn send(config: &Config, request: Request) -> anyhow::Result<Answer> {
    super::runtime()?.block_on(async {
        if DataLock::is_held(&config.paths.data) {
            return control::ask(&config.paths.data, &request).await.map_err(|e| {
                anyhow::anyhow!(
                    "a daemon holds {}, but does not answer on its control socket ({e}); try again, or see its log",
                    config.paths.data.display()
                )
            });
        }
        alone(config.clone(), request).await
    })
}

/// Without a daemon: an engine for this command, which does what it leads to
/// and ends. The cells go on.
async fn alone(config: Config, request: Request) -> anyhow::Result<Answer> {
    super::install_log("error");
    config.ready_to_serve()?;
    let engine = Engine::open(config)?;
    let running = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.run(false).await })
    };
    let known = tokio::time::timeout(Duration::from_secs(20), async {
        while !engine.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    if known.is_err() {
        engine.stop();
        let _ = running.await;
        anyhow::bail!("the forge at {} does not answer; `lazarus doctor` says more", engine.context.config.forge.url);
    }
    let answer = request.run(&engine, WAIT).await;
    // What the command leads to (a close log, say) is done before we go, as
    // far as the forge answers; the rest waits in the queue.
    engine.drain(WAIT.min(Duration::from_secs(30))).await;
    engine.stop();
    let _ = running.await;
    Ok(answer)
}

/// What to print of an answer.
///
/// # Errors
/// A refusal, for people: it goes where errors go.
pub fn said(answer: &Answer, form: Form, json: bool) -> anyhow::Result<Said> {
    if json {
        return Ok(Said { success: answer.success, text: answer.to_json(form).to_string() });
    }
    if !answer.success {
        anyhow::bail!("{}", answer.message);
    }
    let mut text = answer.message.clone();
    let mut line = |name: &str, value: &str| {
        let _ = write!(text, "\n  {name}: {value}");
    };
    if let Some(cell) = &answer.cell {
        line("cell", cell.cell_id.as_str());
        line("project", &cell.project);
        line("state", cell.state.word());
        if let Some(isolation) = cell.isolation {
            line("isolation", isolation.word());
        }
        for (name, value) in [("branch", &cell.branch), ("pull request", &cell.pull_request)] {
            if let Some(value) = value {
                line(name, value);
            }
        }
    }
    Ok(Said::done(text))
}
