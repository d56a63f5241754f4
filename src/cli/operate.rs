//! The operator's verbs. They are the slash commands, read by the same
//! grammar, and run by the daemon if there is one, else here.

use crate::cell::CellId;
use crate::config::Config;
use crate::engine::{Engine, Outcome};
use crate::mission::{Command, Line, SummonOptions, parse_comment};
use crate::server::control::{self, Request, WAIT};
use crate::store::DataLock;
use std::sync::Arc;
use std::time::Duration;

/// What a verb is about.
pub enum Target {
    /// OWNER/REPO#N
    Mission(String),
    /// A cell.
    Cell(String),
}

/// Reads `OWNER/REPO#N`.
///
/// # Errors
/// Says what the form is.
pub fn mission(text: &str) -> anyhow::Result<(String, String, i64)> {
    let wrong = || anyhow::anyhow!("MISSION `{text}`: the form is OWNER/REPO#N, as in acme/widget#7");
    let (repo, number) = text.rsplit_once('#').ok_or_else(wrong)?;
    let (owner, name) = repo.split_once('/').ok_or_else(wrong)?;
    let number: i64 = number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    let good = |part: &str| {
        !part.is_empty() && part.len() <= 100 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !good(owner) || !good(name) || name.contains("..") {
        return Err(wrong());
    }
    Ok((owner.to_owned(), name.to_owned(), number))
}

/// A summons: its options are checked one by one, so that a message names the
/// argument.
pub fn summon(
    config: &Config,
    line: &str,
    about: &str,
    pairs: Vec<(&'static str, String)>,
    json: bool,
) -> anyhow::Result<bool> {
    let issue = mission(about)?;
    let mut command = read(line)?;
    if let Command::Summon { options, .. } = &mut command {
        let mut given = SummonOptions::default();
        for (key, value) in pairs {
            given.set(key, &value).map_err(|why| anyhow::anyhow!("--{why}"))?;
        }
        *options = given;
    }
    send(config, Request { by: operator(), command, issue: Some(issue), cell: None }, json)
}

/// Any other verb, as a line of the slash-command grammar.
pub fn run(config: &Config, target: Target, line: &str, json: bool) -> anyhow::Result<bool> {
    let (issue, cell) = match target {
        Target::Mission(text) => (Some(mission(&text)?), None),
        Target::Cell(text) => (None, Some(CellId::parse(&text).map_err(|e| anyhow::anyhow!("CELL: {e}"))?)),
    };
    let command = read(line)?;
    send(config, Request { by: operator(), command, issue, cell }, json)
}

fn read(line: &str) -> anyhow::Result<Command> {
    if line.contains('\n') {
        anyhow::bail!("an argument holds a line break; give it on one line");
    }
    match parse_comment(&format!("/{}", line.trim())).lines.into_iter().next() {
        Some(Line::Command { command, .. }) => Ok(command),
        Some(Line::Refused { why, .. }) => anyhow::bail!("{}", why.replace('`', "")),
        None => anyhow::bail!("`{line}` cannot be read as a command"),
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

fn send(config: &Config, request: Request, json: bool) -> anyhow::Result<bool> {
    let outcome = super::runtime()?.block_on(async {
        if DataLock::is_held(&config.paths.data) {
            return control::ask(&config.paths.data, &request).await.map_err(|e| {
                anyhow::anyhow!(
                    "a daemon holds {}, but does not answer on its control socket ({e}); try again, or see its log",
                    config.paths.data.display()
                )
            });
        }
        alone(config.clone(), request).await
    })?;
    print(&outcome, json);
    Ok(outcome.success)
}

/// Without a daemon: an engine for this command, which does what it leads to
/// and ends. The cells go on.
async fn alone(config: Config, request: Request) -> anyhow::Result<Outcome> {
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
    let outcome = request.run(&engine).await;
    // What the command leads to (a close log, say) is done before we go, as
    // far as the forge answers; the rest waits in the queue.
    engine.settle(WAIT.min(Duration::from_secs(30))).await;
    engine.stop();
    let _ = running.await;
    Ok(outcome)
}

fn print(outcome: &Outcome, json: bool) {
    if json {
        println!("{}", serde_json::to_string(outcome).unwrap_or_default());
        return;
    }
    println!("{}", outcome.message);
    for (name, value) in &outcome.more {
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => println!("  {name}: {text}"),
            serde_json::Value::Object(object) if name == "probe" => {
                println!("  isolation: {}", object.get("isolation").and_then(|i| i.as_str()).unwrap_or("unknown"));
            }
            other => println!("  {name}: {other}"),
        }
    }
}
