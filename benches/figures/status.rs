//! `status`: `lazarus status` as a process, beside a long past.

use crate::Place;
use crate::cell_start::{approve, new_cell, spec};
use crate::daemon::Installation;
use crate::report::{Figure, Limit, Report, median, milliseconds, quantile};
use lazarus::cell::{At, Cell, Outcome, State};
use lazarus::mission::ApprovedText;
use lazarus::store::{NewEntry, Store};
use std::fs::File;
use std::process::Stdio;
use std::time::Instant;

const LIVE: usize = 1_000;
const CLOSED: usize = 100_000;
const RUNS: usize = 60;
const WARM: usize = 5;
/// Cells that one transaction takes.
const AT_ONCE: usize = 1_000;

/// What the registry keeps beside a cell that runs.
const FACTS: &str = r#"{"running":{"isolation":"level_2","applied":["non-dumpable first process","user, mount, PID, IPC, UTS and cgroup namespaces; a root of its own","a network namespace with loopback alone","no_new_privs, no capabilities, resource limits for agents","a system call allow-list for agents","Landlock (full)"],"missing":[],"pid":4711},"commit":"0123456789abcdef0123456789abcdef01234567","branch":"main"}"#;

async fn fill(store: &Store) -> anyhow::Result<()> {
    let text = ApprovedText::new("[mission] tidy the parser", "Make it faster.");
    let copy = text.clone();
    let model: Cell = store.transact(move |tx| Ok(approve(tx, &new_cell(), &copy, spec()))).await?;
    for first in (0..CLOSED + LIVE).step_by(AT_ONCE) {
        let model = model.clone();
        store
            .transact(move |tx| {
                for index in first..first + AT_ONCE {
                    let closed = index < CLOSED;
                    let mut cell = model.clone();
                    cell.id = new_cell();
                    cell.mission = format!("1#{}", index / 4);
                    cell.state = if closed { State::Destroyed } else { State::Active };
                    if closed {
                        cell.outcome = Some(Outcome::Completed);
                        cell.closed_at = Some(At(cell.created_at.0 + 1));
                    } else {
                        cell.expires_at = Some(At(cell.created_at.0 + 14_400_000));
                    }
                    tx.put_cell(&cell, cell.created_at.0)?;
                    tx.put_facts(cell.id.as_str(), FACTS)?;
                    for action in ["proposed", "approved", "started"] {
                        tx.append(&NewEntry {
                            at: cell.created_at.0,
                            mission: cell.mission.clone(),
                            cell: cell.id.to_string(),
                            actor: r#"{"kind":"system"}"#.to_owned(),
                            action: action.to_owned(),
                            data: "{}".to_owned(),
                        })?;
                    }
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}

pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    println!("status: {CLOSED} cells are put on record first");
    let place = Place::new("status")?;
    let installation = Installation::new(&place.0, "http://127.0.0.1:9")?;
    let store = Store::open(&installation.registry())?;
    fill(&store).await?;
    // The writer is gone when its last words are in the file.
    drop(store);
    let mut length = std::fs::metadata(installation.registry())?.len();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = std::fs::metadata(installation.registry())?.len();
        let log = installation.registry().with_extension("sqlite-wal");
        if now == length && std::fs::metadata(&log).map_or(0, |m| m.len()) == 0 {
            break;
        }
        length = now;
    }
    let out = place.0.join("status.txt");
    let run = |arguments: &[&str]| -> anyhow::Result<f64> {
        let mut command = installation.command();
        command.args(arguments).stdout(File::create(&out)?).stderr(Stdio::inherit());
        let begun = Instant::now();
        let status = command.status()?;
        let took = milliseconds(begun);
        anyhow::ensure!(status.success(), "`lazarus status` ended with {status}");
        Ok(took)
    };
    let (mut plain, mut as_json, mut version) = (vec![], vec![], vec![]);
    for round in 0..WARM + RUNS {
        let took = (run(&["status"])?, run(&["--json", "status"])?, run(&["--version"])?);
        if round >= WARM {
            plain.push(took.0);
            as_json.push(took.1);
            version.push(took.2);
        }
    }
    run(&["status"])?;
    let lines = std::fs::read_to_string(&out)?.lines().count();
    anyhow::ensure!(lines >= LIVE, "`lazarus status` printed {lines} lines for {LIVE} live cells");
    report.add(Figure { name: "status", value: median(&plain), unit: "ms", anchor: None, limit: Limit::Value(15.0) });
    report.note(format!(
        "status: p99 {:.2} ms; as JSON {:.2} ms; `lazarus --version`, which reads nothing, {:.2} ms; registry of {} MB",
        quantile(&plain, 0.99),
        median(&as_json),
        median(&version),
        length >> 20
    ));
    Ok(())
}
