//! The operator's requests: answered by the daemon if there is one, else here.

use super::Said;
use crate::cell::CellId;
use crate::config::Config;
use crate::engine::Engine;
use crate::operations::{Answer, Caller, Form, Reader, Request, perform};
use crate::server::control::{self, AskError, Call, WAIT};
use crate::store::DataLock;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Reads the name of a cell.
///
/// # Errors
/// Says what the form is.
pub fn cell(text: &str) -> anyhow::Result<CellId> {
    CellId::parse(text).map_err(|error| anyhow::anyhow!("CELL: {error}"))
}

/// Has a request answered: what only reads here, a command by the daemon that runs, or
/// by an engine for this command alone.
///
/// # Errors
/// Where nobody can answer it.
pub fn run(config: &Config, request: Request) -> anyhow::Result<Answer> {
    if !matches!(request, Request::Give { .. }) {
        return Ok(Reader::of(config)?.answer(&request)?);
    }
    super::runtime()?.block_on(async {
        if DataLock::is_held(&config.paths.data) {
            let call = Call { by: operator(), request };
            return control::ask(&config.paths.data, &call).await.map_err(|error| match error {
                AskError::Io(e) => anyhow::anyhow!(
                    "a daemon holds {}, but does not answer on its control socket ({e}); try again, or see its log",
                    config.paths.data.display()
                ),
                error @ AskError::OtherVersion { .. } => error.into(),
            });
        }
        alone(config.clone(), request).await
    })
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
    let answer = perform(&engine, &Caller::Operator { account: operator() }, request, WAIT).await;
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
        return Ok(Said { success: answer.success(), text: answer.to_json(form).to_string() });
    }
    if !answer.success() {
        anyhow::bail!("{}", answer.message());
    }
    let mut text = answer.message();
    let mut line = |name: &str, value: &str| {
        let _ = write!(text, "\n  {name}: {value}");
    };
    if let Answer::Given(given) = answer
        && let Some(cell) = &given.cell
    {
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
