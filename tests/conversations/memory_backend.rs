//! The seam, shown: a backend without a keeper, a sandbox or a home plays the main job through the real engine.
//!
//! [`Memory`] keeps what it knows of cells in a map. An agent is a function that commits a file to the clone, which is
//! the one thing that lies on a disk: git wants it there.

use crate::world::{Kind, Proposal, World, WorldOptions};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use lazarus::agents::Places;
use lazarus::backend::{
    Adopted, AgentSpec, Backend, BackendError, Backends, Brief, Capabilities, CellEvent, CellPath, CellSpec, Created,
    HandedWork, HarvestManifest, HarvestRequest, Record, Running, Seen, StopReport,
};
use lazarus::cell::{BackendKind, CellId, Exit, Isolation, Network};
use lazarus::cli::serve_engine;
use lazarus::config::{Config, LoadOptions};
use lazarus::engine::Engine;
use lazarus::host::Host;
use lazarus::repository::Source;
use lazarus::server::Keys;
use std::collections::HashMap;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

/// One cell.
struct InMemory {
    place: tempfile::TempDir,
    commit: String,
    lives: bool,
    retired: bool,
    logs: HashMap<String, String>,
    decisions: String,
}

/// Cells that are entries of a map.
struct Memory {
    cells: Mutex<HashMap<CellId, InMemory>>,
    events: mpsc::UnboundedSender<CellEvent>,
    heard: Mutex<Option<mpsc::UnboundedReceiver<CellEvent>>>,
    /// What was asked, in order.
    asked: Mutex<Vec<&'static str>>,
    /// What no word of an agent's command may hold: where the installation lies.
    installation: String,
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(["-c", "user.name=agent:scribe", "-c", "user.email=scribe@example.invalid"]);
    let output = command.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Memory {
    fn new(installation: &Path) -> Self {
        let (events, heard) = mpsc::unbounded_channel();
        let installation = installation.display().to_string();
        Self { cells: Mutex::default(), events, heard: Mutex::new(Some(heard)), asked: Mutex::default(), installation }
    }

    fn cells(&self, asked: &'static str) -> MutexGuard<'_, HashMap<CellId, InMemory>> {
        self.asked.lock().unwrap().push(asked);
        self.cells.lock().unwrap()
    }
}

#[async_trait]
impl Backend for Memory {
    fn kind(&self) -> BackendKind {
        BackendKind::Process
    }

    fn prepare(&self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn probe(&self) -> Result<Capabilities, BackendError> {
        Ok(Capabilities {
            isolation: Isolation::Level2,
            networks: vec![Network::None],
            limits: vec![],
            missing: vec![],
        })
    }

    async fn create(&self, spec: &CellSpec, source: &Source, _: &Brief) -> Result<Created, BackendError> {
        if let Some(cell) = self.cells("create").get(&spec.cell) {
            return Ok(Created { commit: cell.commit.clone(), ..Created::default() });
        }
        let place = tempfile::tempdir().unwrap();
        let (cloned, left_out) = source.clone_to(&place.path().join("project"), false).await?;
        let (logs, decisions, commit) = (HashMap::new(), String::new(), cloned.commit.clone());
        let cell = InMemory { place, commit, lives: false, retired: false, logs, decisions };
        self.cells.lock().unwrap().insert(spec.cell.clone(), cell);
        Ok(Created { commit: cloned.commit, behind: cloned.behind, left_out, ..Created::default() })
    }

    async fn made_from(&self, cell: &CellId) -> Result<Option<String>, BackendError> {
        Ok(self.cells("made_from").get(cell).map(|cell| cell.commit.clone()))
    }

    async fn start(&self, spec: &CellSpec) -> Result<Running, BackendError> {
        self.cells("start").get_mut(&spec.cell).ok_or(BackendError::Gone)?.lives = true;
        let applied = vec!["an entry of a map".to_owned()];
        Ok(Running { isolation: Some(spec.isolation), applied, ..Running::default() })
    }

    async fn start_agent(&self, spec: &CellSpec, agent: AgentSpec) -> Result<(), BackendError> {
        let [prompt_file, home, project] = ["/memory/prompt", "/memory/home", "/memory/project"].map(Path::new);
        let places = Places { prompt_file, home, project, programs: "/memory/bin" };
        let invocation = agent.command.at(&places).map_err(|e| BackendError::Start(e.to_string()))?;
        let words = invocation.argv.iter().map(String::as_str).chain(invocation.env.iter().map(|(_, v)| v.expose()));
        for word in words {
            assert!(!word.contains(&self.installation), "a path of the host is in `{word}`");
        }
        let mut cells = self.cells("start_agent");
        let cell = cells.get_mut(&spec.cell).ok_or(BackendError::Gone)?;
        let project = cell.place.path().join("project");
        std::fs::create_dir_all(project.join("notes")).unwrap();
        std::fs::write(project.join("notes/why.md"), &agent.prompt).unwrap();
        git(&project, &["add", "."]);
        git(&project, &["commit", "-qm", "Say what the widget is for"]);
        cell.logs.insert(agent.agent.clone(), "wrote notes/why.md\n".to_owned());
        let exit = Exit { code: Some(0), signal: None, success: false, note: None };
        let (cell, run) = (spec.cell.clone(), agent.run);
        let _ = self.events.send(CellEvent::AgentEnded { cell, agent: agent.agent, run, exit });
        Ok(())
    }

    async fn deliver(&self, cell: &CellId, record: Record) -> Result<(), BackendError> {
        if let (Some(cell), Record::Decision(line)) = (self.cells("deliver").get_mut(cell), record) {
            cell.decisions.push_str(&format!("{line}\n"));
        }
        Ok(())
    }

    async fn stop_agent(&self, _: &CellId, _: &str) -> Result<(), BackendError> {
        Ok(())
    }

    async fn freeze(&self, _: &CellId, _: bool) -> Result<(), BackendError> {
        Ok(())
    }

    async fn snapshot(&self, _: &CellSpec, _: HarvestRequest, _: u32) -> Result<HandedWork, BackendError> {
        let why = "nothing of a cell but its clone is kept";
        Err(BackendError::Unsupported { backend: self.kind(), what: "take a snapshot", why })
    }

    async fn stop(&self, spec: &CellSpec, harvest: Option<HarvestRequest>) -> Result<StopReport, BackendError> {
        let mut cells = self.cells("stop");
        let Some(cell) = cells.get_mut(&spec.cell) else { return Ok(StopReport::default()) };
        cell.lives = false;
        let work = harvest.map(|request| {
            let project = cell.place.path().join("project");
            let tip = git(&project, &["rev-parse", "HEAD"]);
            let mut pack = tempfile::tempfile().unwrap();
            let mut packing = Command::new("git");
            packing.arg("-C").arg(&project).args(["pack-objects", "--revs", "--stdout", "-q"]);
            packing.stdin(Stdio::piped()).stdout(pack.try_clone().unwrap());
            let mut packing = packing.spawn().unwrap();
            writeln!(packing.stdin.take().unwrap(), "{tip}\n^{}", request.base).unwrap();
            assert!(packing.wait().unwrap().success());
            pack.rewind().unwrap();
            let manifest = HarvestManifest { tip: Some(tip), ..HarvestManifest::default() };
            HandedWork { manifest, pack: Ok(pack) }
        });
        Ok(StopReport { work, ..StopReport::default() })
    }

    async fn retire(&self, cell: &CellId) -> Result<(), BackendError> {
        self.cells("retire").entry(cell.clone()).and_modify(|cell| cell.retired = true);
        Ok(())
    }

    async fn revive_home(&self, cell: &CellId) -> Result<(), BackendError> {
        self.cells("revive_home").entry(cell.clone()).and_modify(|cell| cell.retired = false);
        Ok(())
    }

    async fn archive(&self, cell: &CellId) -> Result<(), BackendError> {
        self.cells("archive").remove(cell);
        Ok(())
    }

    async fn destroy(&self, spec: &CellSpec) -> Result<(), BackendError> {
        self.cells("destroy").remove(&spec.cell);
        Ok(())
    }

    async fn adopt(&self, cell: &CellId) -> Result<Adopted, BackendError> {
        let lives = self.cells("adopt").get(cell).is_some_and(|cell| cell.lives);
        Ok(if lives { Adopted::Live(Running::default()) } else { Adopted::Over(vec![]) })
    }

    async fn look(&self, cell: &CellId) -> Seen {
        Seen { lives: self.cells("look").get(cell).is_some_and(|cell| cell.lives), pid: None }
    }

    async fn logs(&self, cell: &CellId, agent: &str, _: u64) -> Result<String, BackendError> {
        Ok(self.cells("logs").get(cell).and_then(|cell| cell.logs.get(agent).cloned()).unwrap_or_default())
    }

    async fn read_file(&self, cell: &CellId, path: &CellPath, _: u64) -> Result<Option<Vec<u8>>, BackendError> {
        let wanted = path.names().eq([".lazarus", "decisions.jsonl"]);
        let cells = self.cells("read_file");
        let decisions = cells.get(cell).map(|cell| cell.decisions.clone()).filter(|text| wanted && !text.is_empty());
        Ok(decisions.map(String::into_bytes))
    }

    fn events(&self) -> BoxStream<'static, CellEvent> {
        let heard = self.heard.lock().unwrap().take();
        futures::stream::iter(heard)
            .flat_map(|heard| futures::stream::unfold(heard, |mut heard| async { Some((heard.recv().await?, heard)) }))
            .boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_job_is_played_through_any_backend() {
    let world = World::with("memory", WorldOptions { start: false, ..WorldOptions::default() }).await;
    let init = world.init();
    assert!(init.status.success(), "{}", init.all());
    let (director, reader) = (world.director(), world.reader());

    // The daemon, in this process, with another backend in it.
    let file = Some(world.installation().config.clone());
    let config = Config::load(&LoadOptions { file, ..LoadOptions::default() }).unwrap();
    let keys = Keys::read(config.webhook.secret.clone()).unwrap();
    let listener = tokio::net::TcpListener::bind(config.webhook.listen).await.unwrap();
    let memory = Arc::new(Memory::new(world.place()));
    let backends = Backends::default().with(Arc::clone(&memory) as Arc<dyn Backend>);
    let host = Arc::new(Host::with_program(env!("CARGO_BIN_EXE_lazarus").into()));
    let engine = Engine::open_with(config, host, backends).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let daemon = tokio::spawn(serve_engine(engine, keys, listener, async move {
        let _ = stopped.await;
    }));

    let issue = reader.open_proposal(&Proposal::for_agents("scribe").objective("Write `notes/why.md`.")).await;
    world.wait_for_comment(issue, Kind::Status, |_| true).await;
    let approval = director.comment(issue, "/approve").await;
    world.wait_for_reaction(issue, approval, "+1").await;
    let spawned = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await;
    let cell = spawned.cell();
    assert!(spawned.says(&["an entry of a map", "scribe"]), "the log says what was found:\n{}", spawned.body);
    world.wait_for_state(issue, &cell, &["idle"]).await;

    let decided = director.comment(issue, "/decide keep it short").await;
    world.wait_for_reaction(issue, decided, "+1").await;
    let wanted = director.comment(issue, "/publish decisions").await;
    world.wait_for_reaction(issue, wanted, "+1").await;
    world.wait_for_comment(issue, Kind::Answer, |answer| answer.says(&["Published by", "decisions.jsonl.txt"])).await;

    let closed = director.comment(issue, "/close completed the note is written").await;
    world.wait_for_reaction(issue, closed, "+1").await;
    let close_log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(close_log.says(&["completed", "notes/why.md", "Pull request"]), "{}", close_log.body);
    let pulls = world.pulls().await;
    let [pull] = pulls.as_slice() else { panic!("one pull request: {pulls:#?}") };
    let branch = pull["head"]["ref"].as_str().unwrap();
    let note = world.file_on(branch, "notes/why.md").await.expect("the agent's file is on the branch");
    assert!(note.contains("Write `notes/why.md`."), "it read its mission:\n{note}");

    world.assert_settled(issue).await;
    world.ledger_verify();
    // Nothing of the process backend was needed: it makes these at its start.
    for directory in ["cells", "graveyard", "run"] {
        assert!(!world.data().join(directory).exists(), "{directory} was made");
    }
    let retired = memory.cells("").values().all(|cell| cell.retired && !cell.lives);
    assert!(retired, "the cell was stopped and retired");
    let asked = memory.asked.lock().unwrap().join(" ");
    assert!(
        asked.contains("create start deliver start_agent") || asked.contains("create start start_agent"),
        "{asked}"
    );
    stop.send(()).unwrap();
    daemon.await.unwrap().unwrap();
    world.finish().await;
}
