//! Random histories of one cell.
//!
//! A [`Step`] is a handful of small numbers. What input it stands for is
//! decided only against the cell as it is then, so that most inputs are
//! plausible where they come, and so that a failing history still means
//! something after proptest has made it shorter.

use lazarus_core::cell::{
    Actor, AgentRun, Approval, At, AutoRevive, BackendKind, Cell, CellId, DeadlineKind, Effect, Event, Exit, Identity,
    Input, Isolation, Network, Outcome, ParticipantState, Policy, Refusal, Role, RunState, Spec, State, Trigger,
    decide, evolve, next_deadline,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::fmt;

/// Milliseconds.
pub const SECOND: i64 = 1000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;

/// When every history begins.
pub const BEGIN: At = At(1_700_000_000_000);

/// One thing that is asked or reported.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Which of the inputs that fit; which of all where `nonsense`.
    pub which: u8,
    /// Whether to take any input whatever the state.
    pub nonsense: bool,
    /// Which name, role, run or duration.
    pub detail: u8,
    /// Whether an end is a good one, a report an old one, and so on.
    pub odd: bool,
    /// How long after the step before. Now and then negative: clocks step back.
    pub gap: i64,
    /// Whether the deadlines that passed in between are handled before it. A
    /// daemon that was down handles them late.
    pub punctual: bool,
}

/// What a cell is proposed with.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub spec: Spec,
    pub policy: Policy,
}

pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let gap = prop_oneof![
        12 => 0..5 * MINUTE,
        4 => 0..6 * HOUR,
        1 => Just(40 * 24 * HOUR),
        1 => -2 * HOUR..0,
    ];
    let step = (
        any::<u8>(),
        prop::bool::weighted(0.15),
        any::<u8>(),
        prop::bool::weighted(0.3),
        gap,
        prop::bool::weighted(0.9),
    )
        .prop_map(|(which, nonsense, detail, odd, gap, punctual)| Step {
            which,
            nonsense,
            detail,
            odd,
            gap,
            punctual,
        });
    prop::collection::vec(step, 1..most)
}

pub fn beginning() -> impl Strategy<Value = Beginning> {
    let agents = prop_oneof![
        1 => Just(0usize),
        12 => 1usize..=3,
    ];
    let revive = prop_oneof![Just(AutoRevive::Yes), prop::sample::select(AutoRevive::ALL),];
    (agents, revive, 1..=8i64, prop_oneof![Just(0u32), 0..=3u32], 3usize..=6, any::<(bool, bool)>()).prop_map(
        |(agents, auto_revive, hours, max_retries, participants_max, (guests, substitutes))| Beginning {
            spec: Spec { auto_revive, ttl: hours * HOUR, ..spec(agents) },
            policy: Policy { guests, substitutes, max_retries, participants_max, ..policy() },
        },
    )
}

/// A plain specification for that many agents.
pub fn spec(agents: usize) -> Spec {
    Spec {
        agents: AGENTS[..agents].iter().map(|a| (*a).to_owned()).collect(),
        backend: BackendKind::Process,
        isolation: Isolation::Level2,
        network: Network::None,
        hosts: vec![],
        ttl: 4 * HOUR,
        model: None,
        task: None,
        auto_revive: AutoRevive::No,
        limits: lazarus_core::cell::LimitsWanted::default(),
        base: None,
    }
}

/// Contract §5's times, with all that policy can allow.
pub fn policy() -> Policy {
    Policy {
        ttl_max: 8 * HOUR,
        invitation_ttl: 15 * MINUTE,
        closed_grace: 30 * MINUTE,
        archive_retention: 30 * 24 * HOUR,
        guests: true,
        substitutes: true,
        max_retries: 3,
        participants_max: 6,
    }
}

pub const AGENTS: [&str; 5] = ["scribe", "hermes", "claude", "codex", "goose"];
// The first two are one account; the last has the first one's number and a new name.
const PEOPLE: [(&str, i64); 5] = [("ada", 7), ("Ada", 7), ("bob", 8), ("eve", 9), ("ada-the-second", 7)];

pub fn person(n: usize) -> Actor {
    let (login, id) = PEOPLE[n % PEOPLE.len()];
    Actor::Person { id, login: login.to_owned() }
}

pub fn agent(name: &str) -> Identity {
    Identity::Agent(name.to_owned())
}

pub fn human(login: &str) -> Identity {
    Identity::Human(login.to_owned())
}

pub fn run(agent: &str, number: u32) -> AgentRun {
    AgentRun { agent: agent.to_owned(), number }
}

pub fn exit(good: bool) -> Exit {
    Exit { code: Some(i32::from(!good)), signal: None, success: good, note: None }
}

pub fn cell_id() -> CellId {
    CellId::from_random([3; 10])
}

/// One input, what it was decided to do, and the cell before and after.
#[derive(Clone)]
pub struct Moment {
    pub now: At,
    pub actor: Actor,
    pub input: Input,
    pub before: Option<Cell>,
    pub decision: Result<(Vec<Event>, Vec<Effect>), Refusal>,
    pub after: Option<Cell>,
}

impl Moment {
    /// The state before; every input but the first has one.
    pub fn from(&self) -> State {
        self.before.as_ref().map_or(State::Proposed, |c| c.state)
    }

    pub fn to(&self) -> State {
        self.after.as_ref().map_or(State::Proposed, |c| c.state)
    }

    pub fn events(&self) -> &[Event] {
        self.decision.as_ref().map_or(&[], |(events, _)| events)
    }

    pub fn effects(&self) -> &[Effect] {
        self.decision.as_ref().map_or(&[], |(_, effects)| effects)
    }

    /// The runs that its effects start.
    pub fn starts(&self) -> Vec<AgentRun> {
        self.effects().iter().flat_map(runs_of).collect()
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.now.0 - BEGIN.0;
        write!(f, "+{at} ms: {:?}: {} → {}", self.input, self.from(), self.to())?;
        match &self.decision {
            Ok((_, effects)) if effects.is_empty() => Ok(()),
            Ok((_, effects)) => write!(f, ", {effects:?}"),
            Err(refusal) => write!(f, ", refused: {refusal}"),
        }
    }
}

fn runs_of(effect: &Effect) -> Vec<AgentRun> {
    match effect {
        Effect::Prepare { runs } | Effect::Restore { runs } | Effect::StartAgents { runs, .. } => runs.clone(),
        _ => vec![],
    }
}

/// A cell, and how it came to be what it is.
#[derive(Clone, Default)]
pub struct History {
    pub cell: Option<Cell>,
    pub moments: Vec<Moment>,
    pub now: At,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.moments).finish()
    }
}

impl History {
    /// A cell that is proposed.
    pub fn of(beginning: &Beginning) -> Self {
        let mut history = Self { now: BEGIN, ..Self::default() };
        let propose = Input::Propose {
            id: cell_id(),
            mission: "acme/widget#1".to_owned(),
            spec: beginning.spec.clone(),
            policy: beginning.policy.clone(),
        };
        history.give(propose, person(0));
        history
    }

    /// The same, through all these steps.
    pub fn through(beginning: &Beginning, steps: &[Step]) -> Self {
        let mut history = Self::of(beginning);
        for step in steps {
            history.now = history.now.plus(step.gap);
            if step.punctual {
                history.meet_deadlines();
            }
            let (input, actor) = choose(history.cell(), step);
            history.give(input, actor);
        }
        history
    }

    pub fn cell(&self) -> &Cell {
        self.cell.as_ref().unwrap()
    }

    pub fn state(&self) -> State {
        self.cell().state
    }

    /// Decides one input and applies its events, as the engine does.
    pub fn give(&mut self, input: Input, actor: Actor) -> &Moment {
        let before = self.cell.clone();
        let decision = decide(before.as_ref(), &input, &actor, self.now);
        if let Ok((events, _)) = &decision {
            for event in events {
                self.cell = evolve(self.cell.take(), event, self.now);
            }
        }
        self.moments.push(Moment { now: self.now, actor, input, before, decision, after: self.cell.clone() });
        self.moments.last().unwrap()
    }

    /// The same by a director, which must not be refused.
    pub fn must(&mut self, input: Input) -> &mut Self {
        self.give(input, person(0));
        let last = self.moments.last().unwrap();
        assert!(last.decision.is_ok(), "{last:?}");
        self
    }

    /// Handles every deadline that has passed. Gives up after so many that it
    /// can only be an endless loop, and says so.
    pub fn meet_deadlines(&mut self) -> bool {
        for _ in 0..40 {
            match next_deadline(self.cell()) {
                Some((at, kind)) if at <= self.now => {
                    self.give(Input::Deadline { kind }, Actor::System);
                }
                _ => return true,
            }
        }
        false
    }

    /// The runs that were ordered last, which the backend reports as started.
    pub fn ordered(&self) -> Vec<AgentRun> {
        self.moments.iter().rev().map(Moment::starts).find(|runs| !runs.is_empty()).unwrap_or_default()
    }
}

/// The row of the table that an input goes by; none for what is no transition.
pub fn trigger(input: &Input) -> Option<Trigger> {
    Some(match input {
        Input::Propose { .. } | Input::Void => return None,
        Input::Revise { .. } => Trigger::Revise,
        Input::Approve { .. } => Trigger::Approve,
        Input::Drop { .. } => Trigger::Drop,
        Input::Invite { .. } => Trigger::Invite,
        Input::Revoke { .. } => Trigger::Revoke,
        Input::Accept { .. } => Trigger::Accept,
        Input::Started { .. } => Trigger::Started,
        Input::StartFailed { .. } => Trigger::StartFailed,
        Input::AgentEnded { .. } => Trigger::AgentEnded,
        Input::Silence { .. } => Trigger::Silence,
        Input::Work { .. } => Trigger::Work,
        Input::Pause => Trigger::Pause,
        Input::Resume => Trigger::Resume,
        Input::Checkpoint { .. } => Trigger::Checkpoint,
        Input::CheckpointTaken { .. } => Trigger::CheckpointTaken,
        Input::CheckpointFailed { .. } => Trigger::CheckpointFailed,
        Input::Revive { .. } => Trigger::Revive,
        Input::Extend { .. } => Trigger::Extend,
        Input::Close { .. } => Trigger::Close,
        Input::Ended | Input::EndedWithout { .. } => Trigger::Ended,
        Input::Resurrect => Trigger::Resurrect,
        Input::Destroy { .. } => Trigger::Destroy,
        Input::Deadline { kind } => match kind {
            DeadlineKind::Invitation => Trigger::InvitationExpired,
            DeadlineKind::TimeToLive => Trigger::Expire,
            DeadlineKind::Grace => Trigger::Archive,
            DeadlineKind::Retention => Trigger::RetentionOver,
        },
    })
}

/// What this step stands for in a cell that is as it is.
fn choose(cell: &Cell, step: &Step) -> (Input, Actor) {
    let mut fitting = if step.nonsense { vec![] } else { plausible(cell, step) };
    if fitting.is_empty() {
        fitting = everything(cell, step);
    }
    let input = fitting.swap_remove(usize::from(step.which) % fitting.len());
    let actor = match &input {
        Input::Started { .. }
        | Input::StartFailed { .. }
        | Input::AgentEnded { .. }
        | Input::Silence { .. }
        | Input::CheckpointTaken { .. }
        | Input::CheckpointFailed { .. }
        | Input::Ended
        | Input::EndedWithout { .. }
        | Input::Deadline { .. } => Actor::System,
        _ if step.odd => Actor::Operator { name: "root".to_owned() },
        _ => person(usize::from(step.detail)),
    };
    (input, actor)
}

/// What people and the backend would give a cell in this state; the most
/// likely several times.
fn plausible(cell: &Cell, step: &Step) -> Vec<Input> {
    let given = Given { cell, step };
    match cell.state {
        State::Proposed => {
            vec![given.approve(), given.approve(), given.approve(), given.approve(), given.revise(), given.drop()]
        }
        State::Invited => vec![given.invite(), given.invite(), given.accept(), given.revoke(), given.drop()],
        State::Preparing => vec![
            given.started(),
            given.started(),
            given.started(),
            Given::start_failed(),
            given.ended_run(),
            given.invite(),
            given.accept(),
            given.revoke(),
            given.close(),
            Input::Void,
        ],
        State::Active => vec![
            given.ended_run(),
            given.ended_run(),
            given.ended_run(),
            given.work(),
            given.invite(),
            given.invite(),
            given.accept(),
            given.revoke(),
            Input::Checkpoint { note: None },
            Input::Checkpoint { note: None },
            Input::Pause,
            Input::Pause,
            given.extend(),
            given.silence(),
            given.close(),
            Input::Void,
        ],
        State::Idle => vec![
            given.work(),
            given.work(),
            given.invite(),
            given.accept(),
            given.revoke(),
            given.extend(),
            given.close(),
            Input::Void,
        ],
        State::Paused => vec![
            Input::Resume,
            Input::Resume,
            given.ended_run(),
            given.ended_run(),
            given.ended_run(),
            given.invite(),
            given.accept(),
            given.revoke(),
            given.extend(),
            given.close(),
            Input::Void,
        ],
        State::Checkpointing => vec![
            Given::checkpoint_taken(),
            Given::checkpoint_failed(),
            given.ended_run(),
            given.ended_run(),
            given.close(),
            Input::Void,
        ],
        State::Downed => vec![
            given.revive(),
            given.revive(),
            given.revive(),
            given.ended_run(),
            given.invite(),
            given.accept(),
            given.revoke(),
            given.extend(),
            given.close(),
            Input::Void,
        ],
        State::Closing => {
            vec![Input::Ended, Given::ended_without(), given.ended_run(), given.started(), Given::start_failed()]
        }
        State::Closed => vec![
            Input::Resurrect,
            Input::Resurrect,
            Input::Resurrect,
            Given::deadline(DeadlineKind::Grace),
            given.ended_run(),
            Input::Ended,
            Input::Void,
        ],
        State::Archived => vec![Given::deadline(DeadlineKind::Retention), Given::destroy(), Input::Resurrect],
        State::Destroyed => vec![],
    }
}

/// Every kind of input.
fn everything(cell: &Cell, step: &Step) -> Vec<Input> {
    let given = Given { cell, step };
    vec![
        Input::Propose { id: cell_id(), mission: "acme/other#2".to_owned(), spec: spec(1), policy: policy() },
        given.revise(),
        given.approve(),
        given.drop(),
        Input::Void,
        given.invite(),
        given.revoke(),
        given.accept(),
        given.started(),
        Given::start_failed(),
        given.ended_run(),
        given.silence(),
        given.work(),
        Input::Pause,
        Input::Resume,
        Input::Checkpoint { note: Some("by hand".to_owned()) },
        Given::checkpoint_taken(),
        Given::checkpoint_failed(),
        given.revive(),
        given.extend(),
        given.close(),
        Input::Ended,
        Input::Resurrect,
        Given::deadline(DeadlineKind::Invitation),
        Given::deadline(DeadlineKind::TimeToLive),
        Given::deadline(DeadlineKind::Grace),
        Given::deadline(DeadlineKind::Retention),
        Given::destroy(),
    ]
}

struct Given<'a> {
    cell: &'a Cell,
    step: &'a Step,
}

impl Given<'_> {
    fn detail(&self) -> usize {
        usize::from(self.step.detail)
    }

    fn of<T: Copy>(&self, these: &[T]) -> T {
        these[self.detail() % these.len()]
    }

    fn approve(&self) -> Input {
        let voters = 1 + self.detail() % 2;
        let by = if self.step.odd && self.detail().is_multiple_of(3) {
            vec![Actor::Operator { name: "root".to_owned() }]
        } else {
            (0..voters).map(|n| person(self.detail() / 2 + 2 * n)).collect()
        };
        Input::Approve { approval: Approval { text: "0".repeat(64), number: 1, record: "1".repeat(64), by } }
    }

    fn revise(&self) -> Input {
        Input::Revise { spec: spec(1 + self.detail() % 3) }
    }

    fn drop(&self) -> Input {
        Input::Drop { outcome: self.of(&[Outcome::Rejected, Outcome::Abandoned]), reason: "no".to_owned() }
    }

    /// One who is there already, in two cases of three.
    fn identity(&self) -> (Identity, Option<i64>) {
        let there: Vec<_> = self.cell.participants.iter().map(|p| (p.identity.clone(), p.forge_id)).collect();
        if there.is_empty() || self.detail().is_multiple_of(3) {
            self.anybody()
        } else {
            there[self.detail() / 3 % there.len()].clone()
        }
    }

    fn anybody(&self) -> (Identity, Option<i64>) {
        let n = self.detail() / 3;
        match n % 12 {
            n @ 0..5 => (agent(AGENTS[n]), None),
            n @ 5..10 => {
                let (login, id) = PEOPLE[n - 5];
                (human(login), Some(id))
            }
            _ => (Identity::Bot("builder".to_owned()), None),
        }
    }

    fn invite(&self) -> Input {
        let (identity, forge_id) = if self.step.odd { self.identity() } else { self.anybody() };
        // Agents are mostly asked to work, and people to be anything.
        let role = match &identity {
            Identity::Agent(_) if !self.step.which.is_multiple_of(4) => Role::Executor,
            _ => Role::ALL[usize::from(self.step.which / 16) % Role::ALL.len()],
        };
        Input::Invite { identity, forge_id, role }
    }

    fn revoke(&self) -> Input {
        Input::Revoke { identity: self.identity().0 }
    }

    fn accept(&self) -> Input {
        let invited = self.cell.participants.iter().find(|p| matches!(p.state, ParticipantState::Invited { .. }));
        let (identity, forge_id) = match invited {
            Some(p) if !self.step.odd => (p.identity.clone(), p.forge_id),
            _ => self.identity(),
        };
        let forge_id = if self.step.odd { Some(9) } else { forge_id };
        Input::Accept { identity, forge_id }
    }

    /// The newest runs, each at work or over, as the backend reports them.
    fn newest(&self) -> Vec<AgentRun> {
        let number = |r: &RunState| match r {
            RunState::Running { number } | RunState::Ended { number, .. } => Some(*number),
            RunState::Waiting => None,
        };
        self.cell.participants.iter().filter_map(|p| Some(run(p.identity.name(), number(&p.run)?))).collect()
    }

    /// One of the runs, at work if there is one; an old one where it is odd.
    fn one_run(&self) -> AgentRun {
        let running: Vec<AgentRun> = self.cell.running().map(|(a, n)| run(a, n)).collect();
        let runs = if running.is_empty() { self.newest() } else { running };
        if runs.is_empty() {
            return run(AGENTS[0], 1);
        }
        let mut one = runs[self.detail() % runs.len()].clone();
        if self.step.which % 8 == 7 {
            one.number = one.number.saturating_sub(1);
        }
        one
    }

    fn started(&self) -> Input {
        let mut runs = self.newest();
        if self.step.which % 8 == 7 {
            for run in &mut runs {
                run.number = run.number.saturating_sub(1);
            }
        }
        Input::Started { runs }
    }

    fn start_failed() -> Input {
        Input::StartFailed { reason: "no namespaces here".to_owned() }
    }

    fn ended_run(&self) -> Input {
        Input::AgentEnded { run: self.one_run(), exit: exit(!self.step.odd) }
    }

    fn silence(&self) -> Input {
        Input::Silence { run: self.one_run() }
    }

    /// One of the cell's agents, now and then one that is not there; none
    /// means all.
    fn named(&self) -> Option<String> {
        let there: Vec<&str> = self.cell.workers().map(|p| p.identity.name()).collect();
        let name = match self.detail() % (there.len() + 1) {
            0 => AGENTS[self.detail() % AGENTS.len()],
            n => there[n - 1],
        };
        self.step.odd.then(|| name.to_owned())
    }

    fn work(&self) -> Input {
        Input::Work { agent: self.named(), text: "look again".to_owned() }
    }

    fn checkpoint_taken() -> Input {
        Input::CheckpointTaken { hash: "1".repeat(64) }
    }

    fn checkpoint_failed() -> Input {
        Input::CheckpointFailed { reason: "disk full".to_owned() }
    }

    fn revive(&self) -> Input {
        Input::Revive { agent: self.named() }
    }

    fn extend(&self) -> Input {
        let by = self.of(&[HOUR, 10 * MINUTE, 4 * HOUR, 100 * HOUR, 0, -HOUR, i64::MAX]);
        Input::Extend { by }
    }

    fn close(&self) -> Input {
        Input::Close {
            outcome: self.of(&[Outcome::Completed, Outcome::Failed, Outcome::Abandoned]),
            reason: self.step.odd.then(|| "enough".to_owned()),
        }
    }

    fn deadline(kind: DeadlineKind) -> Input {
        Input::Deadline { kind }
    }

    fn ended_without() -> Input {
        Input::EndedWithout { why: "nothing came out".to_owned() }
    }

    fn destroy() -> Input {
        Input::Destroy { reason: None }
    }
}

/// Where histories that failed are kept. How many are tried: `PROPTEST_CASES`,
/// 256 where it is not set.
pub fn settings(name: &'static str) -> ProptestConfig {
    ProptestConfig {
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(name))),
        ..ProptestConfig::default()
    }
}
