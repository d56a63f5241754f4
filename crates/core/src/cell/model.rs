//! What a cell is.

use super::{LimitsWanted, Role, State};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A point in time, in milliseconds since the Unix epoch. A number and not a
/// clock: the core is told what time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct At(pub i64);

impl At {
    /// This point, that many milliseconds later; stops at the ends.
    pub const fn plus(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }
}

/// A name that does not have the form that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {wanted}")]
pub struct InvalidName {
    /// What was given, cut to 80 characters.
    pub given: String,
    /// What is allowed, as the end of a sentence.
    pub wanted: &'static str,
}

impl InvalidName {
    fn new(given: &str, wanted: &'static str) -> Self {
        Self { given: given.chars().take(80).collect(), wanted }
    }
}

/// A cell's name: `laz-` and 16 characters of base 32 (80 random bits), so it
/// cannot collide in practice, and is safe as a path, a branch and a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CellId(String);

impl CellId {
    const ALPHABET: &'static [u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

    /// The name for these random bytes.
    pub fn from_random(bytes: [u8; 10]) -> Self {
        let mut id = String::from("laz-");
        let mut bits = 0u32;
        let mut held = 0;
        for byte in bytes {
            bits = (bits << 8) | u32::from(byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                id.push(char::from(Self::ALPHABET[(bits >> held & 31) as usize]));
            }
        }
        Self(id)
    }

    /// Reads a name that came from outside.
    ///
    /// # Errors
    /// Where it is not of the form above.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let wanted = "a cell: `laz-` and 16 of the characters a–z and 2–7";
        let rest = text.strip_prefix("laz-").ok_or_else(|| InvalidName::new(text, wanted))?;
        if rest.len() == 16 && rest.bytes().all(|b| Self::ALPHABET.contains(&b)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::new(text, wanted))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CellId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}
impl From<CellId> for String {
    fn from(id: CellId) -> Self {
        id.0
    }
}
impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who takes part: `agent:NAME`, `bot:NAME` or `human:LOGIN`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Identity {
    /// An agent that Lazarus starts, by its profile's name.
    Agent(String),
    /// Another program.
    Bot(String),
    /// A person on the forge, by login (for display; rights go by number).
    Human(String),
}

impl Identity {
    /// Reads `agent:NAME`, `bot:NAME` or `human:LOGIN`.
    ///
    /// # Errors
    /// Where the kind or the name is not of that form.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let wanted = "an identity: `agent:NAME`, `bot:NAME` or `human:LOGIN`";
        let (kind, name) = text.split_once(':').ok_or_else(|| InvalidName::new(text, wanted))?;
        // What Gitea allows in a login, and what a path and a header survive.
        let good = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && name.as_bytes()[0].is_ascii_alphanumeric();
        match kind {
            "agent" if good => Ok(Self::Agent(name.to_owned())),
            "bot" if good => Ok(Self::Bot(name.to_owned())),
            "human" if good => Ok(Self::Human(name.to_owned())),
            _ => Err(InvalidName::new(text, wanted)),
        }
    }

    /// The name without the kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Agent(name) | Self::Bot(name) | Self::Human(name) => name,
        }
    }

    /// Whether two identities are the same participant. Logins differ in case
    /// only by accident.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Human(a), Self::Human(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Agent(_) => "agent",
            Self::Bot(_) => "bot",
            Self::Human(_) => "human",
        };
        write!(f, "{kind}:{}", self.name())
    }
}
impl TryFrom<String> for Identity {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}
impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.to_string()
    }
}

/// Who caused something, for the ledger and for permission.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// A person on the forge.
    Person {
        /// The account's number.
        id: i64,
        /// Its name then.
        login: String,
    },
    /// Whoever has the machine's command line.
    Operator {
        /// The name of the system's account.
        name: String,
    },
    /// Lazarus itself: a deadline, a result of an effect.
    System,
}

impl Actor {
    /// Who, for people: without numbers.
    pub fn name(&self) -> String {
        match self {
            Self::Person { login, .. } => login.clone(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { id, login } => write!(f, "{login} (#{id})"),
            Self::Operator { name } => write!(f, "operator {name}"),
            Self::System => f.write_str("lazarus"),
        }
    }
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it in configuration, proposals and JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value with that word, in any case.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.word().eq_ignore_ascii_case(text.trim()))
            }

            /// The allowed words, for a message.
            pub fn words() -> String {
                Self::ALL.iter().map(|v| v.word()).collect::<Vec<_>>().join(", ")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// How strongly a cell is shut in, weakest first (contract §3).
    Isolation {
        /// Nothing. Never chosen unless policy says so in as many words.
        None = "none",
        /// Own directory and environment.
        Level1 = "level_1",
        /// The same and an own Python environment.
        Level1_5 = "level_1_5",
        /// Namespaces, seccomp, Landlock, resource limits, named egress.
        Level2 = "level_2",
        /// A container.
        Level3 = "level_3",
    }
}
words! {
    /// What of the network a cell may reach, least first.
    Network {
        /// Its own loopback alone.
        None = "none",
        /// Named hosts through the egress proxy.
        Proxy = "proxy",
        /// The host's network; explicit in policy.
        Host = "host",
    }
}
words! {
    /// How a cell runs.
    BackendKind {
        /// Processes of this host.
        Process = "process",
        /// The same with a Python environment.
        Venv = "venv",
        /// A rootless container.
        Docker = "docker",
        /// Another host over SSH.
        Remote = "remote",
    }
}
words! {
    /// What happens when an executor dies.
    AutoRevive {
        /// It is started again.
        Yes = "yes",
        /// The cell stays downed.
        No = "no",
        /// The directors are asked.
        Ask = "ask",
        /// The next agent takes over.
        Substitute = "substitute",
    }
}
words! {
    /// How a cell ended.
    Outcome {
        /// The work is done.
        Completed = "completed",
        /// It could not be done.
        Failed = "failed",
        /// Somebody stopped it.
        Abandoned = "abandoned",
        /// The time was over.
        Expired = "expired",
        /// It was never approved.
        Rejected = "rejected",
    }
}

/// What was asked for and, once approved, what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Names of agent profiles, each once, at least one.
    pub agents: Vec<String>,
    /// How it runs.
    pub backend: BackendKind,
    /// The weakest isolation that is acceptable.
    pub isolation: Isolation,
    /// What it may reach.
    pub network: Network,
    /// Names of hosts, with `network = proxy`.
    pub hosts: Vec<String>,
    /// Time to live from the first start, in milliseconds.
    pub ttl: i64,
    /// Model for the agents, where one was named.
    pub model: Option<String>,
    /// The task, where the summons gave one beside the text.
    pub task: Option<String>,
    /// What happens when an executor dies.
    pub auto_revive: AutoRevive,
    /// Limits other than the usual.
    #[serde(default)]
    pub limits: LimitsWanted,
    /// Where the clone begins; `None` only in cells of a Lazarus that took the
    /// default branch as it was at the start.
    #[serde(default)]
    pub base: Option<Base>,
}

/// The branch that a cell starts from, and the commit that it pointed to when the
/// request was made: what is approved is that commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The branch's name.
    pub branch: String,
    /// The commit, in hex.
    pub commit: String,
}

/// The limits that hold for one cell, fixed when it is proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Longest time to live in all, in milliseconds.
    pub ttl_max: i64,
    /// How long an invitation is good, in milliseconds.
    pub invitation_ttl: i64,
    /// How long a closed cell lies whole, in milliseconds.
    pub closed_grace: i64,
    /// How long the archive is kept, in milliseconds.
    pub archive_retention: i64,
    /// Whether guests may be invited.
    pub guests: bool,
    /// Whether substitutes may be invited.
    pub substitutes: bool,
    /// How often dead agents are revived in all.
    pub max_retries: u32,
    /// Most participants of a cell.
    pub participants_max: usize,
}

/// An approval, bound to the decision record that was approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// SHA-256 of the normalised title and body, hex.
    pub text: String,
    /// The record's number in its mission; 0 in cells of a Lazarus without records.
    #[serde(default)]
    pub number: u32,
    /// SHA-256 of the record, hex; empty in cells of a Lazarus without records.
    #[serde(default)]
    pub record: String,
    /// Who approved; several with a council.
    pub by: Vec<Actor>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, where it exited.
    pub code: Option<i32>,
    /// Signal, where one ended it.
    pub signal: Option<i32>,
    /// Whether it counts as well done by the profile's success rule.
    pub success: bool,
    /// What else is known (a limit that was hit), in a few words.
    pub note: Option<String>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit {code}")?,
            (None, Some(signal)) => write!(f, "signal {signal}")?,
            (None, None) => f.write_str("unknown end")?,
        }
        match &self.note {
            Some(note) => write!(f, " ({note})"),
            None => Ok(()),
        }
    }
}

/// Where an agent's process stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "run", rename_all = "snake_case")]
pub enum RunState {
    /// Not started.
    Waiting,
    /// Started; `run` fences older runs of the same agent.
    Running {
        /// The run's number, from 1.
        number: u32,
    },
    /// Ended.
    Ended {
        /// The run's number.
        number: u32,
        /// How.
        exit: Exit,
    },
}

/// What the backend says about one agent that it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRun {
    /// The profile's name.
    pub agent: String,
    /// The run's number.
    pub number: u32,
}

/// Where a participation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ParticipantState {
    /// Invited, until then.
    Invited {
        /// When the invitation runs out.
        until: At,
    },
    /// Takes part.
    Joined,
    /// Revoked, or the invitation ran out.
    Gone,
}

/// One who takes part, with exactly one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Who.
    pub identity: Identity,
    /// The account's number, for people whose number is known.
    pub forge_id: Option<i64>,
    /// As what.
    pub role: Role,
    /// Invited, joined or gone.
    pub state: ParticipantState,
    /// Another role that is offered, and until when: the present one is kept
    /// until it is accepted.
    #[serde(default)]
    pub offered: Option<(Role, At)>,
    /// The process, for agents.
    pub run: RunState,
    /// When they joined. `None` before that, and for those who joined before
    /// this was kept.
    #[serde(default)]
    pub joined_at: Option<At>,
    /// When the newest run began: when its program ran, or until then when it
    /// was ordered.
    #[serde(default)]
    pub run_started_at: Option<At>,
    /// When the newest run ended. `None` while it goes on.
    #[serde(default)]
    pub run_ended_at: Option<At>,
}

impl Participant {
    /// When this participant's open invitation runs out, where there is one.
    pub fn open_invitation(&self) -> Option<At> {
        match (self.state, self.offered) {
            (ParticipantState::Invited { until }, _) | (ParticipantState::Joined, Some((_, until))) => Some(until),
            _ => None,
        }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Its name.
    pub id: CellId,
    /// The mission it belongs to, as the registry names it.
    pub mission: String,
    /// Where it stands.
    pub state: State,
    /// What was asked for.
    pub spec: Spec,
    /// Its limits.
    pub policy: Policy,
    /// Who asked for it.
    pub proposed_by: Actor,
    /// The approval, once there is one.
    pub approval: Option<Approval>,
    /// Set when the approved text changed: nothing is started or revived any more.
    pub approval_void: bool,
    /// Who takes part, in the order of joining.
    pub participants: Vec<Participant>,
    /// When it was proposed.
    pub created_at: At,
    /// When it first became active.
    pub started_at: Option<At>,
    /// When its time to live is over, once it was active.
    pub expires_at: Option<At>,
    /// When it was closed.
    pub closed_at: Option<At>,
    /// When it was archived.
    pub archived_at: Option<At>,
    /// When it was destroyed.
    #[serde(default)]
    pub destroyed_at: Option<At>,
    /// Since when it is in its state. `None` for cells that have not moved since
    /// this is kept.
    #[serde(default)]
    pub state_since: Option<At>,
    /// How it ended, from `closing` on.
    pub outcome: Option<Outcome>,
    /// Why it ended, in words.
    pub reason: Option<String>,
    /// Number of the last run of any agent, so that each has its own.
    pub last_run: u32,
    /// Revivals so far.
    pub revivals: u32,
}

impl Cell {
    /// The participant with that identity who is not gone.
    pub fn participant(&self, identity: &Identity) -> Option<&Participant> {
        self.participants.iter().find(|p| p.identity.same(identity) && p.state != ParticipantState::Gone)
    }

    /// The participant with that account who is not gone: names can change.
    pub fn participant_by_account(&self, forge_id: Option<i64>) -> Option<&Participant> {
        let id = forge_id?;
        self.participants.iter().find(|p| p.forge_id == Some(id) && p.state != ParticipantState::Gone)
    }

    /// Agents that run now.
    pub fn running(&self) -> impl Iterator<Item = (&str, u32)> {
        self.participants.iter().filter_map(|p| match (&p.identity, &p.run) {
            (Identity::Agent(name), RunState::Running { number }) => Some((name.as_str(), *number)),
            _ => None,
        })
    }

    /// Agents that have joined and do the mission's work.
    pub fn workers(&self) -> impl Iterator<Item = &Participant> {
        self.participants.iter().filter(|p| {
            p.role.works() && p.state == ParticipantState::Joined && matches!(p.identity, Identity::Agent(_))
        })
    }
}

/// What is due when a deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadlineKind {
    /// An invitation runs out.
    Invitation,
    /// The time to live is over.
    TimeToLive,
    /// The grace period of a closed cell is over.
    Grace,
    /// The archive's retention is over.
    Retention,
}

/// The next deadline of a cell, the earliest first.
pub fn next_deadline(cell: &Cell) -> Option<(At, DeadlineKind)> {
    let invitation = cell
        .participants
        .iter()
        .filter_map(|p| p.open_invitation().map(|until| (until, DeadlineKind::Invitation)))
        .min_by_key(|(at, _)| *at);
    match cell.state {
        State::Invited | State::Preparing => invitation,
        State::Active | State::Idle | State::Paused | State::Downed => {
            let end = cell.expires_at.map(|at| (at, DeadlineKind::TimeToLive));
            invitation.into_iter().chain(end).min_by_key(|(at, _)| *at)
        }
        State::Checkpointing => cell.expires_at.map(|at| (at, DeadlineKind::TimeToLive)),
        State::Closed => cell.closed_at.map(|at| (at.plus(cell.policy.closed_grace), DeadlineKind::Grace)),
        State::Archived => cell.archived_at.map(|at| (at.plus(cell.policy.archive_retention), DeadlineKind::Retention)),
        State::Proposed | State::Closing | State::Destroyed => None,
    }
}
