//! `cell_start`: from an accepted command to the agent's `exec`, everything
//! on record.

use crate::Place;
use crate::report::{Figure, Limit, Report, median, milliseconds};
use anyhow::Context as _;
use futures::StreamExt as _;
use lazarus::agents::{CommandContext, Profiles};
use lazarus::backend::{Access, AgentSpec, Backend, CellSpec, Egress, ProcessBackend, Record};
use lazarus::cell::{
    Actor, AgentRun, Approval, At, AutoRevive, BackendKind, Cell, CellId, Effect, Input, Isolation, Limits, Network,
    Policy, Spec, decide, evolve,
};
use lazarus::config::{Config, LoadOptions};
use lazarus::host::Host;
use lazarus::mission::ApprovedText;
use lazarus::sandbox::Sight;
use lazarus::store::{EffectRow, EffectState, NewEntry, Store, Tx};
use lazarus::workspace::Roots;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WARM: usize = 10;
const ROUNDS: usize = 100;
const DOCKER_ROUNDS: usize = 5;
const AGENT: &str = "true";

pub fn spec() -> Spec {
    Spec {
        agents: vec![AGENT.to_owned()],
        backend: BackendKind::Process,
        isolation: Isolation::Level2,
        network: Network::None,
        hosts: vec![],
        ttl: 14_400_000,
        model: None,
        task: None,
        auto_revive: AutoRevive::No,
        limits: lazarus::cell::LimitsWanted::default(),
        base: None,
    }
}

pub fn policy() -> Policy {
    Policy {
        ttl_max: 86_400_000,
        invitation_ttl: 900_000,
        closed_grace: 1_800_000,
        archive_retention: 2_592_000_000,
        guests: false,
        substitutes: false,
        max_retries: 3,
        participants_max: 32,
    }
}

pub fn new_cell() -> CellId {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).unwrap();
    CellId::from_random(bytes)
}

fn director() -> Actor {
    Actor::Person { id: 3, login: "director".to_owned() }
}

fn now() -> At {
    At(jiff::Timestamp::now().as_millisecond())
}

/// Decides and stores as the engine does: ledger, registry, effects.
fn apply(tx: &Tx<'_>, known: Option<Cell>, id: &CellId, input: &Input, actor: &Actor) -> Cell {
    let at = now();
    let (events, effects) = decide(known.as_ref(), input, actor, at).unwrap();
    let mut cell = known;
    for event in &events {
        tx.append(&NewEntry {
            at: at.0,
            mission: "1#1".to_owned(),
            cell: id.to_string(),
            actor: serde_json::to_string(actor).unwrap(),
            action: event.action().to_owned(),
            data: serde_json::to_string(event).unwrap(),
        })
        .unwrap();
        cell = evolve(cell, event, at);
    }
    let cell = cell.unwrap();
    tx.put_cell(&cell, at.0).unwrap();
    for (index, effect) in effects.iter().enumerate() {
        tx.queue(&effect_row(id, index, effect), at.0).unwrap();
    }
    cell
}

fn effect_row(cell: &CellId, index: usize, effect: &Effect) -> EffectRow {
    EffectRow {
        seq: 0,
        id: format!("{cell}-{index}"),
        lane: format!("cell:{cell}"),
        mission: "1#1".to_owned(),
        cell: Some(cell.to_string()),
        kind: "cell".to_owned(),
        data: serde_json::to_string(effect).unwrap(),
        attempts: 0,
        not_before: 0,
    }
}

/// A cell that was approved and started, as its row would be.
pub fn approve(tx: &Tx<'_>, id: &CellId, text: &ApprovedText, spec: Spec) -> Cell {
    let propose = Input::Propose { id: id.clone(), mission: "1#1".to_owned(), spec, policy: policy() };
    let cell = apply(tx, None, id, &propose, &director());
    let approval = Approval { text: text.hash.clone(), number: 1, record: text.hash.clone(), by: vec![director()] };
    apply(tx, Some(cell), id, &Input::Approve { approval }, &director())
}

fn cell_spec(id: &CellId) -> CellSpec {
    CellSpec {
        cell: id.clone(),
        slot: 1,
        project: 1,
        agents: vec![AGENT.to_owned()],
        isolation: Isolation::Level1,
        network: Network::None,
        egress: Egress::default(),
        limits: Limits {
            memory: 2 << 30,
            processes: 512,
            open_files: 1024,
            cpu: 2000,
            disk: 4 << 30,
            files: 200_000,
            log: 16 << 20,
            tmp: 256 << 20,
        },
        in_memory: false,
        pack_max: 512 << 20,
    }
}

/// The agent, as a configuration would have it.
fn profiles(place: &Path) -> anyhow::Result<Profiles> {
    let file = place.join("lazarus.toml");
    std::fs::write(&file, format!("[agents.{AGENT}]\nargv = [\"/bin/true\", \"{{prompt_file}}\"]\n"))?;
    Ok(Profiles::from(Config::load(&LoadOptions { file: Some(file), ..LoadOptions::default() })?.agents))
}

struct Bench {
    store: Store,
    backend: ProcessBackend,
    profiles: Profiles,
    roots: Roots,
    text: ApprovedText,
}

/// How long the parts of one start took, in milliseconds from its beginning.
struct Took {
    accepted: f64,
    cell: f64,
    exec: f64,
    recorded: f64,
}

impl Bench {
    async fn one(&self) -> anyhow::Result<Took> {
        let id = new_cell();
        let home = self.roots.home(&id);
        // The home is made beforehand, as the clone is, and given to the cell.
        home.make()?;
        std::fs::create_dir(home.path.join("project"))?;
        let uid = self.backend.agents_uid(1).await;
        home.make_agent(AGENT, uid)?;
        home.write_record("mission.md", format!("# {}\n\n{}\n", self.text.title, self.text.body).as_bytes())?;
        home.write_record("cell.json", format!("{:#}\n", json!({"cell_id": id, "agents": [AGENT]})).as_bytes())?;
        home.hand_over("none", uid)?;
        let took = self.timed(&id).await;
        // It stays on the disk as closed cells do: for seconds after files are deleted
        // ext4 makes new ones slowly, and no daemon scrubs one cell for each that it starts.
        self.backend.stop(&cell_spec(&id), None).await?;
        took
    }

    async fn timed(&self, id: &CellId) -> anyhow::Result<Took> {
        let (cell_id, text) = (id.clone(), self.text.clone());
        let start = Instant::now();
        // What the command comes to, in the ledger and the registry.
        let (cell, claimed) = self
            .store
            .transact(move |tx| {
                Ok((approve(tx, &cell_id, &text, spec()), tx.claim(now().0, 16, (&["cell", "push"], 16))?))
            })
            .await?;
        let name = id.to_string();
        self.store.read(move |tx| tx.cell(&name)).await?.context("the cell is not in the registry")?;
        let accepted = milliseconds(start);
        let spec = cell_spec(id);
        let running = self.backend.start(&spec).await?;
        let in_cell = milliseconds(start);
        let profile = self.profiles.get(AGENT).context("there is no profile")?;
        let context = CommandContext { model: None, resume: None, host_env: &BTreeMap::new(), credentials: &|_| None };
        let agent = AgentSpec {
            agent: AGENT.to_owned(),
            run: 1,
            command: profile.command(&context)?,
            prompt: format!("# {}\n\n{}\n", self.text.title, self.text.body),
            access: Access::Work,
            worktree: false,
            ptrace: false,
        };
        let record = Record::SpawnLog(running.applied.join("\n"));
        let (recorded, started) =
            tokio::join!(self.backend.deliver(id, record), self.backend.start_agent(&spec, agent));
        started?;
        recorded?;
        let exec = milliseconds(start);
        // That it runs, in the ledger and the registry.
        let runs = vec![AgentRun { agent: AGENT.to_owned(), number: 1 }];
        let (effects, facts) = (claimed, json!({"running": running}).to_string());
        let input = json!({"input": "started", "cell": id, "runs": runs}).to_string();
        let (receive, cell_id) = (format!("effect:{id}:0"), id.clone());
        self.store
            .transact(move |tx| {
                for effect in &effects {
                    tx.settle(&effect.id, EffectState::Done, None)?;
                }
                tx.receive(&receive, &input, now().0)?;
                for row in tx.waiting_inputs(32)? {
                    tx.put_facts(cell_id.as_str(), &facts)?;
                    apply(tx, Some(cell.clone()), &cell_id, &Input::Started { runs: runs.clone() }, &Actor::System);
                    tx.handled(row.seq, None)?;
                }
                Ok(())
            })
            .await?;
        Ok(Took { accepted, cell: in_cell, exec, recorded: milliseconds(start) })
    }
}

const BWRAP: [&str; 9] = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"];

/// Spawn to exit, in milliseconds.
fn run(command: &mut Command) -> anyhow::Result<f64> {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let took = milliseconds(start);
    anyhow::ensure!(status.success(), "it ended with {status}");
    Ok(took)
}

fn bwrap() -> anyhow::Result<f64> {
    run(Command::new("bwrap").args(BWRAP))
}

/// Waits until files are made as fast as ever. For a minute after many were
/// deleted, by a build, say, an ext4 without a journal looks for a number that
/// was free for long, which takes up to 0.3 ms a file; the anchor makes none.
async fn until_files_are_made_fast(roots: &Roots) -> anyhow::Result<()> {
    /// Milliseconds a file or directory.
    const FAST: f64 = 0.03;
    for _ in 0..36 {
        let mut took = vec![];
        for _ in 0..20 {
            let home = roots.home(&new_cell());
            let run = roots.run.join(new_cell().as_str());
            let start = Instant::now();
            home.make()?;
            for name in ["mission.md", "cell.json", "spawn.log"] {
                home.write_record(name, b"nothing")?;
            }
            std::fs::create_dir(&run)?;
            for name in ["lock", "keeper.pid", "group.json", "keeper.log"] {
                std::fs::File::create(run.join(name))?;
            }
            took.push(milliseconds(start) / 20.0);
        }
        if median(&took) < FAST {
            break;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    Ok(())
}

pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    println!("cell_start: {ROUNDS} starts, each beside its anchor");
    let place = Place::new("start")?;
    let at = |name: &str| place.0.join(name);
    let roots = Roots { cells: at("cells"), graveyard: at("graveyard"), archive: at("archive"), run: at("run") };
    let (profiles, host) = (profiles(&place.0)?, Arc::new(Host::default()));
    let sight = Sight::new(vec![], vec![]);
    let backend = ProcessBackend::new(roots.clone(), at("mirrors"), profiles.clone(), sight, host);
    backend.prepare()?;
    let mut events = backend.events();
    tokio::spawn(async move { while events.next().await.is_some() {} });
    until_files_are_made_fast(&roots).await?;
    let bench = Bench {
        store: Store::open(&at("registry.sqlite"))?,
        backend,
        profiles,
        roots,
        text: ApprovedText::new("[mission] tidy the parser", &"Make it faster, and say what you did.\n".repeat(20)),
    };
    let text = bench.text.clone();
    bench.store.transact(move |tx| tx.put_text(&text)).await?;
    let level = bench.backend.probe().await?;
    let mut ours: Vec<Took> = vec![];
    let mut theirs = vec![];
    let mut not_run = None;
    for round in 0..WARM + ROUNDS {
        if not_run.is_none() {
            match tokio::task::spawn_blocking(bwrap).await? {
                Ok(took) if round >= WARM => theirs.push(took),
                Ok(_) => {}
                Err(error) => not_run = Some(error.to_string()),
            }
        }
        let took = bench.one().await?;
        if round >= WARM {
            ours.push(took);
        }
    }
    let part = |pick: fn(&Took) -> f64| median(&ours.iter().map(pick).collect::<Vec<_>>());
    if level.isolation < Isolation::Level2 {
        report.note("cell_start: this host gives no level_2, so the cells had fewer walls than the anchor's");
    }
    let anchor = match &not_run {
        None => ("bwrap --unshare-all".to_owned(), Some(median(&theirs))),
        Some(why) => (format!("bwrap, not run: {why}"), None),
    };
    report.add(Figure {
        name: "cell_start",
        value: part(|t| t.recorded),
        unit: "ms",
        anchor: Some(anchor),
        limit: Limit::RatioAtMost(1.2),
    });
    report.note(format!(
        "cell_start, in parts: command on record {:.2} ms, keeper ready {:.2} ms, exec {:.2} ms, start on record {:.2} ms",
        part(|t| t.accepted),
        part(|t| t.cell),
        part(|t| t.exec),
        part(|t| t.recorded)
    ));
    report.note(tokio::task::spawn_blocking(docker).await?);
    Ok(())
}

/// `docker run`, where there is an engine and an image; nothing is fetched.
fn docker() -> String {
    let output = |args: &[&str]| {
        Command::new("docker")
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|o| o.status.success())
    };
    if output(&["info"]).is_none() {
        return "docker run, not run: there is no engine here".to_owned();
    }
    let images = output(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).map(|o| o.stdout).unwrap_or_default();
    let images = String::from_utf8_lossy(&images).into_owned();
    let small = images.lines().find(|i| ["alpine", "busybox", "debian", "ubuntu"].iter().any(|s| i.starts_with(s)));
    let Some(image) = small else { return "docker run, not run: no small image is here".to_owned() };
    let runs: anyhow::Result<Vec<f64>> = (0..DOCKER_ROUNDS)
        .map(|_| run(Command::new("docker").args(["run", "--rm", "--network", "none", image, "/bin/true"])))
        .collect();
    match runs {
        Ok(runs) => format!("docker run of {image}, spawn to exit: {:.0} ms", median(&runs)),
        Err(error) => format!("docker run, not run: {error}"),
    }
}
