//! The engine: the only writer. It takes what waits in the inbox, lets the
//! core decide, commits, runs effects, keeps time and reconciles.
//!
//! It has two halves. [`decide`] is synchronous, takes the transaction and asks nobody;
//! [`perform`] is asynchronous and has no transaction. The [`scheduler`] is between them, and
//! so are the types that both know: [`input`] and [`effect`] are rows, a [`lane`] is what keeps
//! its order, [`keys`] name what happened once.

mod absent;
mod clock;
mod context;
mod decide;
mod effect;
mod facts;
mod forge_identity;
mod input;
mod keys;
mod lane;
mod perform;
mod reconcile;
mod request;
mod scheduler;

pub use clock::{Clock, Mark};
pub use context::{Context, ForgeIdentity, KnownRepo, Trouble, defaults};
pub use facts::Facts;
pub use forge_identity::{APPROVED, renamed_repository};
pub use input::Outcome;

use crate::agents::Profiles;
use crate::backend::{Adopted, BackendError, Backends, CellEvent, Seen};
use crate::cell::{AgentRun, At, BackendKind, CellId, Exit, State};
use crate::config::Config;
use crate::gitea::Forge;
use crate::gitea::event::{ForgeEvent, IssueAction, Person};
use crate::host::{self, Host};
use crate::mission::{Command, Mission, MissionId};
use crate::publication::sentences::operators;
use crate::repository::{GitAccess, Repositories};
use crate::store::{CellRow, DataLock, Store, StoreError};
use futures::StreamExt as _;
use input::Input;
use keys::InboxKey;
use perform::failure::EffectError;
use perform::{authority, look};
use scheduler::Scheduler;
use secrecy::SecretString;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// What of the end of an agent's log is read for what its profile requires, in bytes.
const LOG_READ: u64 = 1 << 20;
/// How long to wait before an answer that a thing is not there is asked for once
/// more.
const LOOK_TWICE: Duration = Duration::from_millis(250);
/// Longest time until the forge is asked anew who we are and what we serve.
const REFRESH_USUAL: Duration = Duration::from_hours(1);
/// Longest time between two attempts to find out what could not be found out yet.
const REFRESH_MAX: Duration = Duration::from_mins(1);

/// The engine. One lives for each data directory.
pub struct Engine {
    /// The store.
    pub store: Store,
    /// What decisions are made with.
    pub context: Arc<Context>,
    forge: Forge,
    backends: Backends,
    repositories: Repositories,
    clock: Clock,
    host_env: BTreeMap<String, String>,
    credentials: HashMap<String, SecretString>,
    scheduler: Scheduler,
    /// A reconcile round is wanted now.
    look: Notify,
    /// A reconcile round is wanted soon, by somebody who proved nothing.
    glance: Notify,
    /// The forge is to be asked anew who we are and what we serve.
    refresh_wanted: Notify,
    absent: absent::Absent,
    identified: AtomicBool,
    /// Comments that polling found and whose deliveries may still come: by number,
    /// since when.
    undelivered: std::sync::Mutex<HashMap<i64, std::time::Instant>>,
    stop: watch::Sender<bool>,
    _lock: DataLock,
}

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret.
    #[error("{what}: {why}")]
    Secret {
        /// Which secret, in words.
        what: String,
        /// Why it cannot be read.
        why: String,
    },
    /// A backend: cells would see something of ours, say.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// The repository's number in a mission's name.
pub fn repository_of(mission: &str) -> i64 {
    MissionId::parse(mission).map_or(0, |mission| mission.repository())
}

impl Engine {
    /// Opens the data directory and gets ready, with the backends of this host. Nothing runs yet.
    ///
    /// # Errors
    /// Where another Lazarus has the directory, a secret cannot be read, or cells would see something of ours.
    pub fn open(config: Config) -> Result<Arc<Self>, StartError> {
        let host = Arc::new(Host::default());
        let profiles = Profiles::from(config.agents.clone());
        // Before anything is made.
        let backends = Backends::of_this_host(&config, &profiles, &host)?;
        Self::open_with(config, host, backends)
    }

    /// The same with these backends.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(config: Config, host: Arc<Host>, backends: Backends) -> Result<Arc<Self>, StartError> {
        let other = |e: &dyn std::fmt::Display| StartError::Other(e.to_string());
        let lock = DataLock::make_and_take(&config.paths.data)?;
        let store = Store::open(&config.paths.registry)?;
        let secret = |what: &str, source: &crate::config::SecretSource| {
            source.read().map_err(|e| StartError::Secret { what: what.to_owned(), why: e.to_string() })
        };
        let token = secret("the forge's token", &config.forge.token)?;
        let mut secrets = vec![("forge token".to_owned(), token.clone())];
        if config.webhook.secret.is_set()
            && let Ok(webhook) = config.webhook.secret.read()
        {
            secrets.push(("webhook secret".to_owned(), webhook));
        }
        let mut credentials = HashMap::new();
        for (name, source) in &config.credentials {
            // One that is missing is missed by the agent that names it.
            if let Ok(value) = source.read() {
                secrets.push((name.clone(), value.clone()));
                credentials.insert(name.clone(), value);
            }
        }
        let profiles = Profiles::from(config.agents.clone());
        let mut options = config.forge.options(token.clone());
        options.look_twice = Some(LOOK_TWICE);
        let forge = Forge::new(options).map_err(|e| other(&e))?;
        let (mark, newest) = store.read_blocking(|tx| Ok((tx.meta("clock")?, tx.last_entry_at()?)))?;
        let mark: Option<Mark> =
            mark.map(|text| serde_json::from_str(&text)).transpose().map_err(StoreError::json("mark of the clock"))?;
        let access = GitAccess {
            token,
            ca_file: config.forge.authorities(),
            proxy: config.forge.proxy(),
            program: host.program(),
        };
        let repositories = Repositories::new(&config.paths.data, access, host);
        repositories.prepare().map_err(|e| other(&e))?;
        backends.prepare()?;
        let scheduler = Scheduler::new(config.engine.effect_workers as usize);
        let context = Context::new(config, profiles, secrets).map_err(|e| other(&e))?;
        let engine = Self {
            store,
            context: Arc::new(context),
            forge,
            backends,
            repositories,
            clock: Clock::start(mark.as_ref(), newest),
            host_env: host::environment(),
            credentials,
            scheduler,
            look: Notify::new(),
            glance: Notify::new(),
            refresh_wanted: Notify::new(),
            absent: absent::Absent::default(),
            identified: AtomicBool::new(false),
            undelivered: std::sync::Mutex::default(),
            stop: watch::channel(false).0,
            _lock: lock,
        };
        engine.restore_identity()?;
        Ok(Arc::new(engine))
    }

    /// What the forge told a former daemon: enough to go on while the forge is
    /// away.
    fn restore_identity(&self) -> Result<(), StoreError> {
        let config = &self.context.config;
        let (bot, repos, looked_at) = self.store.read_blocking(|tx| {
            let bot: Option<Person> = tx
                .meta("bot")?
                .map(|text| serde_json::from_str(&text))
                .transpose()
                .map_err(StoreError::json("record of the bot's account"))?;
            let (mut repos, mut looked_at) = (vec![], true);
            for repo in &config.repositories {
                let (known, all) = forge_identity::restore(tx, repo)?;
                repos.extend(known);
                looked_at &= all;
            }
            Ok((bot, repos, looked_at))
        })?;
        self.identified.store(bot.is_some() && looked_at, Ordering::SeqCst);
        self.context.change_identity(|known| {
            known.bot = bot;
            known.repos = repos.into_iter().map(|r| (r.reference.id, r)).collect();
        });
        Ok(())
    }

    /// The bot's and the host's credential of that name.
    fn credential(&self, name: &str) -> Option<SecretString> {
        self.credentials.get(name).cloned()
    }

    /// Whether it is known who we are, and each repository was looked at: what is
    /// wrong with one does not keep the others waiting.
    pub fn is_ready(&self) -> bool {
        self.identified.load(Ordering::SeqCst)
    }

    /// The forge's client.
    pub fn forge(&self) -> &Forge {
        &self.forge
    }

    /// Stores what happened on the forge and wakes the engine. Returns once it
    /// is durable; `false` where it was known already.
    ///
    /// # Errors
    /// Where it could not be stored: then it must not be acknowledged.
    pub async fn take_in(&self, event: ForgeEvent) -> Result<bool, StoreError> {
        if matches!(event, ForgeEvent::Other { .. }) {
            return Ok(false);
        }
        // A label that is added, taken off and added within one second looks the same
        // each time. What a delivery says of an issue is only a reason to ask the forge,
        // so none of them is a repetition.
        let hint = matches!(&event, ForgeEvent::Issue { action, .. } if *action != IssueAction::Seen);
        let key = InboxKey::of_event(&event);
        let key = if hint { key.never_repeated() } else { key };
        self.put(key, &Input::Forge { happened: event }).await
    }

    async fn put(&self, key: InboxKey, input: &Input) -> Result<bool, StoreError> {
        let text = serde_json::to_string(input).map_err(StoreError::json("input"))?;
        let now = self.clock.now().0;
        let (store, wake) = (self.store.clone(), self.scheduler.waker());
        // A task of its own: a sender that hangs up between the commit and the wake-up
        // would leave the input lying until something else happens.
        let stored = tokio::spawn(async move {
            let new = store.transact(move |tx| tx.receive(key.as_str(), &text, now)).await?;
            if new {
                wake.notify_one();
            }
            Ok(new)
        });
        stored.await.map_err(|_| StoreError::Closed)?
    }

    /// A cell as the registry has it.
    async fn stored_cell(&self, cell: &CellId) -> Result<Option<CellRow>, StoreError> {
        let name = cell.to_string();
        self.store.read(move |tx| tx.cell(&name)).await
    }

    /// A mission as the registry has it, by its name there.
    async fn stored_mission(&self, mission: &str) -> Result<Option<Mission>, StoreError> {
        let name = mission.to_owned();
        self.store.read(move |tx| tx.mission(&name)).await
    }

    /// Asks for a look at the forge now: something was not heard.
    pub fn poll_now(&self) {
        self.look.notify_one();
    }

    /// Asks for a look at the forge on the word of somebody who proved nothing:
    /// a delivery that was too large or too slow to be verified. However often
    /// this is asked for, the forge is looked at a tenth of the time at most.
    pub fn look_soon(&self) {
        self.glance.notify_one();
    }

    /// Whether each of the configured repositories is known by its number: then
    /// one that is not among them is not served.
    pub fn knows_all(&self) -> bool {
        self.is_ready() && self.context.forge_identity().repos.len() >= self.context.config.repositories.len()
    }

    /// Waits until it is known whether this repository is served, at most for
    /// `wait`: right after the start the forge is still being asked.
    pub async fn serves(&self, repository: i64, wait: Duration) -> Option<KnownRepo> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let known = self.context.repo(repository);
            if known.is_some() || self.knows_all() || tokio::time::Instant::now() >= deadline {
                return known;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs until [`stop`](Self::stop): decisions, effects, time, polling.
    pub async fn run(self: &Arc<Self>, poll: bool) {
        let mut stopped = self.stop.subscribe();
        #[allow(clippy::redundant_closure_for_method_calls, reason = "the path is not general enough over lifetimes")]
        if let Err(error) = self.store.transact(|tx| tx.reclaim()).await {
            tracing::error!(%error, "what was being done could not be taken up again");
        }
        self.adopt().await;
        let mut tasks = tokio::task::JoinSet::new();
        let engine = Arc::clone(self);
        tasks.spawn(async move { engine.listen().await });
        let engine = Arc::clone(self);
        tasks.spawn(async move { engine.keep_identity_fresh().await });
        if poll {
            let engine = Arc::clone(self);
            tasks.spawn(async move { engine.poll().await });
        }
        let engine = Arc::clone(self);
        tasks.spawn(async move { engine.work().await });
        let _ = stopped.wait_for(|s| *s).await;
        tasks.shutdown().await;
        self.mark_time().await;
    }

    /// Notes what time it is, for the next start. A note that is missing is
    /// made up for by the ledger.
    async fn mark_time(&self) {
        if let Ok(mark) = serde_json::to_string(&self.clock.follow()) {
            let _ = self.store.transact(move |tx| tx.put_meta("clock", &mark)).await;
        }
    }

    /// Ends [`run`](Self::run). Cells go on.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.scheduler.wake();
    }

    /// Takes up every cell that ought to live, and reports what ended in the others.
    async fn adopt(&self) {
        let cells = match self.store.read(|tx| tx.live_cells(100_000)).await {
            Ok(cells) => cells,
            Err(error) => {
                tracing::error!(%error, "the live cells could not be read");
                return;
            }
        };
        let cells = cells.into_iter().filter_map(|row| match row {
            Ok(row) => Some(row),
            Err(damaged) => {
                tracing::error!(cell = damaged.cell, error = %damaged.error, "a cell cannot be read, so it is not adopted; its processes, if it has any, go on unwatched");
                None
            }
        });
        let mut adopted = 0;
        let started = std::time::Instant::now();
        let found: Vec<_> = futures::stream::iter(cells.filter(|r| r.cell.state.has_processes()))
            .map(|row| async move {
                let found = match self.backends.get(row.cell.spec.backend) {
                    Ok(backend) => backend.adopt(&row.cell.id).await,
                    Err(error) => Err(error),
                };
                (row, found)
            })
            .buffer_unordered(64)
            .collect()
            .await;
        for (row, found) in found {
            match found {
                Ok(Adopted::Live(_)) => adopted += 1,
                // What is being started or ended is done again by its effect.
                Ok(Adopted::Over(_)) if matches!(row.cell.state, State::Preparing | State::Closing) => {}
                Ok(Adopted::Over(known)) => {
                    for (agent, number) in row.cell.running() {
                        if known.iter().any(|(a, n)| a == agent && *n == number) {
                            continue;
                        }
                        let exit = Exit {
                            code: None,
                            signal: None,
                            success: false,
                            note: Some("gone while the daemon was away, without a record".to_owned()),
                        };
                        let run = AgentRun { agent: agent.to_owned(), number };
                        let _ = self.agent_ended(&row.cell.id, Some(row.cell.spec.backend), run, exit).await;
                    }
                }
                Err(error) => tracing::error!(cell = %row.cell.id, %error, "a cell could not be adopted"),
            }
        }
        tracing::info!(adopted, milliseconds = started.elapsed().as_millis() as u64, "live cells adopted");
    }

    /// Puts the end of an agent's run into the inbox, judged by the profile's rule.
    async fn agent_ended(
        &self,
        cell: &CellId,
        backend: Option<BackendKind>,
        run: AgentRun,
        mut exit: Exit,
    ) -> Result<(), StoreError> {
        if let Some(profile) = self.context.profiles.get(&run.agent) {
            exit.success =
                exit.code.is_some_and(|c| u8::try_from(c).is_ok_and(|c| profile.success.exit_codes.contains(&c)));
            if let (true, Some(wanted)) = (exit.success, &profile.success.require_output) {
                let log = self.log_of(cell, backend, &run.agent).await?;
                if !log.contains(wanted.as_str()) {
                    exit.success = false;
                    exit.note = Some("its output does not hold what its profile requires".to_owned());
                }
            }
        }
        let key = InboxKey::agent_ended(cell, &run);
        let input = Input::AgentEnded { cell: cell.clone(), run, exit };
        self.put(key, &input).await?;
        Ok(())
    }

    /// The end of what an agent printed; nothing where it cannot be read.
    async fn log_of(&self, cell: &CellId, backend: Option<BackendKind>, agent: &str) -> Result<String, StoreError> {
        let kind = match backend {
            Some(kind) => Some(kind),
            None => self.stored_cell(cell).await?.map(|row| row.cell.spec.backend),
        };
        let Some(Ok(backend)) = kind.map(|kind| self.backends.get(kind)) else { return Ok(String::new()) };
        Ok(backend.logs(cell, agent, LOG_READ).await.unwrap_or_default())
    }

    /// Puts on record that an agent could not even be started.
    async fn agent_did_not_start(&self, cell: &CellId, run: &AgentRun, why: &str) -> Result<(), StoreError> {
        let note = format!("not started: {}", self.context.redact(why));
        let exit = Exit { code: None, signal: None, success: false, note: Some(note) };
        self.agent_ended(cell, None, run.clone(), exit).await
    }

    /// What backends report becomes inputs.
    async fn listen(self: Arc<Self>) {
        let mut events = self.backends.events();
        while let Some(CellEvent::AgentEnded { cell, agent, run, exit }) = events.next().await {
            loop {
                let run = AgentRun { agent: agent.clone(), number: run };
                match self.agent_ended(&cell, None, run, exit.clone()).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::error!(%error, "the end of an agent could not be stored yet");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
    }

    /// Asks the forge who we are and what we serve; then, now and then, again: soon where
    /// something could not be found out, or an operator changed what names mean.
    async fn keep_identity_fresh(self: Arc<Self>) {
        let forge = self.forge.clone();
        let usual = self.context.config.reconcile.interval.saturating_mul(10).min(REFRESH_USUAL);
        let mut soon = Duration::from_millis(500);
        loop {
            let complete = match forge_identity::refresh(&self, &forge).await {
                Ok(complete) => {
                    if !self.identified.swap(true, Ordering::SeqCst) {
                        self.scheduler.wake();
                    }
                    complete
                }
                Err(error) => {
                    tracing::warn!(%error, "the forge does not say who we are; trying again");
                    false
                }
            };
            let wait = if complete { usual } else { soon };
            soon = if complete { Duration::from_millis(500) } else { (soon * 2).min(REFRESH_MAX) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.refresh_wanted.notified() => {}
            }
        }
    }

    /// The time by which things are decided.
    pub fn now(&self) -> At {
        self.clock.now()
    }

    /// What is to be seen of a cell now.
    pub async fn look_at_cell(&self, cell: &crate::cell::Cell) -> Seen {
        match self.backends.get(cell.spec.backend) {
            Ok(backend) if cell.state.has_processes() => backend.look(&cell.id).await,
            _ => Seen::default(),
        }
    }

    /// Runs an operator's command and waits for what comes of it.
    ///
    /// # Errors
    /// Where the forge or the store does not answer.
    pub async fn operate(
        &self,
        by: String,
        command: Command,
        issue: Option<(String, String, i64)>,
        cell: Option<CellId>,
        wait: Duration,
    ) -> Result<Outcome, String> {
        let forge = &self.forge;
        let mut accounts = BTreeMap::new();
        if let Command::Invite { identity, .. } = &command
            && let Some(login) = identity.strip_prefix("human:")
            && let Some(user) = authority::account(forge, login).await.map_err(|e| e.to_string())?
        {
            accounts.insert(login.to_lowercase(), user.id);
        }
        let issue = match issue {
            None => None,
            Some((owner, name, number)) => {
                let known = self.context.forge_identity();
                let repo = known
                    .repos
                    .values()
                    .find(|r| {
                        r.config.name.eq_ignore_ascii_case(&format!("{owner}/{name}"))
                            || (r.reference.owner.eq_ignore_ascii_case(&owner)
                                && r.reference.name.eq_ignore_ascii_case(&name))
                    })
                    .map(|r| r.reference.clone())
                    .ok_or_else(|| {
                        let served: Vec<String> = known.repos.values().map(|r| r.reference.full_name()).collect();
                        operators::not_configured(&owner, &name, &served.join(", "))
                    })?;
                let served = self.context.repo(repo.id).ok_or_else(operators::not_served)?;
                let summons = matches!(command, Command::Summon { .. });
                let mission = MissionId::new(repo.id, number);
                let found = look::look_at(self, forge, &served, mission.as_str(), number, summons, false)
                    .await
                    .map_err(EffectError::words)?;
                let found = found.ok_or_else(|| operators::no_such_issue(&owner, &name, number))?;
                if let (true, Some(why)) = (summons, &found.no_base) {
                    return Err(why.clone());
                }
                Some(Box::new((repo, found)))
            }
        };
        let operation = uuid::Uuid::now_v7().to_string();
        let mut commits = self.scheduler.commits();
        let input = Input::Operated { operation: operation.clone(), by, command, issue, cell, accounts };
        self.put(InboxKey::operation(&operation), &input).await.map_err(|e| e.to_string())?;
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let name = operation.clone();
            if let Some(text) = self.store.read(move |tx| tx.operation(&name)).await.map_err(|e| e.to_string())? {
                return serde_json::from_str(&text).map_err(|e| e.to_string());
            }
            // A commit between the look and here is seen: it counts from before the input.
            if tokio::time::timeout_at(deadline, commits.changed()).await.is_err() {
                return Err(operators::under_way(wait.as_secs()));
            }
        }
    }

    /// Waits until nothing waits any more, or the time is over: for an engine
    /// that runs for one command alone.
    pub async fn drain(&self, wait: Duration) {
        let deadline = tokio::time::Instant::now() + wait;
        let mut commits = self.scheduler.commits();
        loop {
            let now = self.clock.now().0;
            let idle = self
                .store
                .read(move |tx| {
                    let due = tx.next_effect_at()?.is_some_and(|at| at <= now + 1000);
                    Ok(tx.count_waiting_inputs()? == 0 && !due)
                })
                .await
                .unwrap_or(false);
            if idle && self.scheduler.is_idle() {
                return;
            }
            // An effect that ends, and one that becomes due, wake the loop, which commits.
            if tokio::time::timeout_at(deadline, commits.changed()).await.is_err() {
                return;
            }
        }
    }
}
