//! A cell as others see it.

use crate::backend::{Running, Seen};
use crate::cell::{
    Actor, At, BackendKind, Cell, CellId, Identity, Isolation, Network, Outcome, Participant, ParticipantState, Role,
    RunState, State,
};
use crate::egress;
use crate::engine::Facts;
use crate::store::{CellRow, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A point in time as programs read it: RFC 3339, UTC, whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub At);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_millisecond(self.0.0).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{}", time.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}
impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}
impl TryFrom<String> for Time {
    type Error = jiff::Error;
    fn try_from(text: String) -> Result<Self, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|time| Self(At(time.as_millisecond())))
    }
}

/// One who takes part in a cell, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Who.
    pub identity: Identity,
    /// As what.
    pub role: Role,
    /// `invited`, `joined` or `gone`.
    pub state: String,
    /// When they joined.
    pub joined_at: Option<Time>,
    /// The newest run of an agent; none for people and for agents that were
    /// never started.
    pub run: Option<RunView>,
}

/// One run of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its number in the cell, from 1.
    pub number: u32,
    /// `running` or `ended`.
    pub state: String,
    /// When it began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// The exit status, where it exited.
    pub exit_code: Option<i32>,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// Whether it ended well, by its profile's rule. `None` while it runs.
    pub success: Option<bool>,
    /// What else is known of its end, in a few words.
    pub note: Option<String>,
}

/// What a cell used, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// The limits that it met, by name, and what came of it.
    pub limits_met: BTreeMap<String, String>,
    /// What went through its proxy and what was refused, where it had one.
    pub egress: Option<egress::Report>,
}

/// A cell as others see it (`docs/specification.md` §7): the same for the
/// command line, the control socket and whatever else asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellView {
    /// Its name.
    pub cell_id: CellId,
    /// Its mission, as `OWNER/REPO#N`.
    pub project: String,
    /// Who asked for it, as an identity. An operator stands here by the name of
    /// the system's account, Lazarus itself as `bot:lazarus`.
    pub owner: String,
    /// How it runs.
    pub backend: BackendKind,
    /// Where it stands.
    pub state: State,
    /// How it ended, from `closing` on.
    pub outcome: Option<Outcome>,
    /// Why it ended, in words.
    pub reason: Option<String>,
    /// When it was proposed.
    pub created_at: Time,
    /// When it first became active.
    pub started_at: Option<Time>,
    /// When its time to live is over.
    pub expires_at: Option<Time>,
    /// When it was closed.
    pub closed_at: Option<Time>,
    /// When it was archived.
    pub archived_at: Option<Time>,
    /// When it was destroyed.
    pub destroyed_at: Option<Time>,
    /// Its time to live in minutes, rounded up: from its first start to
    /// [`expires_at`](Self::expires_at), so extensions count; before it was
    /// started, what was asked for.
    pub ttl_minutes: u64,
    /// Who takes part, and who did.
    pub members: Vec<MemberView>,
    /// The isolation that was found when it started; never what was asked.
    pub isolation: Option<Isolation>,
    /// The steps of isolation that were taken, in words.
    pub isolation_steps: Vec<String>,
    /// What is missing for more isolation, in words.
    pub isolation_missing: Vec<String>,
    /// What of the network it may reach.
    pub network: Network,
    /// Names of hosts that it may reach, where `network` is `proxy`.
    pub hosts: Vec<String>,
    /// The commit that was cloned.
    pub commit: Option<String>,
    /// The branch that its work is on, once it was pushed.
    pub branch: Option<String>,
    /// The address of the pull request, once there is one.
    pub pull_request: Option<String>,
    /// Who approved it, as identities.
    pub approved_by: Vec<String>,
    /// The SHA-256 of the decision record that was approved; of the text alone in cells
    /// of a Lazarus without records.
    pub approved_sha256: Option<String>,
    /// Whether it runs and what was found, as a sentence.
    pub probe: String,
    /// Whether its time to live is over.
    pub expired: bool,
    /// The process that owns all others of the cell, while it lives.
    pub pid: Option<i32>,
    /// What it used.
    pub usage: UsageView,
    /// Since when it is in its state, for people; where that is known.
    #[serde(skip)]
    pub since: Option<At>,
}

impl CellView {
    /// A cell as it stands in the registry. `project` is its mission's name,
    /// `seen` what the backend sees of it now, `now` the time by which it has
    /// expired or not.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where what is stored of it cannot be read.
    pub fn new(row: &CellRow, project: String, seen: &Seen, now: At) -> Result<Self, StoreError> {
        let facts = Facts::of(row)?;
        let cell = &row.cell;
        let running = facts.running.unwrap_or_default();
        let published = facts.publishing.published().cloned().unwrap_or_default();
        let time = |at: Option<At>| at.map(Time);
        let approval = cell.approval.as_ref();
        Ok(Self {
            cell_id: cell.id.clone(),
            project,
            owner: identity_of(&cell.proposed_by),
            backend: cell.spec.backend,
            state: cell.state,
            outcome: cell.outcome,
            reason: cell.reason.clone(),
            created_at: Time(cell.created_at),
            started_at: time(cell.started_at),
            expires_at: time(cell.expires_at),
            closed_at: time(cell.closed_at),
            archived_at: time(cell.archived_at),
            destroyed_at: time(cell.destroyed_at),
            ttl_minutes: ttl_minutes(cell),
            members: cell.participants.iter().map(MemberView::new).collect(),
            probe: probe_words(cell, &running, seen),
            isolation: running.isolation,
            isolation_steps: running.applied,
            isolation_missing: running.missing,
            network: cell.spec.network,
            hosts: cell.spec.hosts.clone(),
            commit: facts.commit,
            branch: published.branch,
            pull_request: published.pull.map(|(_, address)| address),
            approved_by: approval.iter().flat_map(|a| a.by.iter().map(identity_of)).collect(),
            approved_sha256: approval.map(|a| if a.record.is_empty() { &a.text } else { &a.record }.clone()),
            expired: has_expired(cell, now),
            pid: seen.pid,
            usage: UsageView { limits_met: facts.usage.met.0, egress: facts.usage.egress },
            since: cell.state_since,
        })
    }
}

impl MemberView {
    fn new(participant: &Participant) -> Self {
        let (started_at, ended_at) = (participant.run_started_at.map(Time), participant.run_ended_at.map(Time));
        let run = |number: u32, state: &str| RunView {
            number,
            state: state.to_owned(),
            started_at,
            ended_at,
            exit_code: None,
            signal: None,
            success: None,
            note: None,
        };
        Self {
            identity: participant.identity.clone(),
            role: participant.role,
            state: match participant.state {
                ParticipantState::Invited { .. } => "invited",
                ParticipantState::Joined => "joined",
                ParticipantState::Gone => "gone",
            }
            .to_owned(),
            joined_at: participant.joined_at.map(Time),
            run: match &participant.run {
                RunState::Waiting => None,
                RunState::Running { number } => Some(run(*number, "running")),
                RunState::Ended { number, exit } => Some(RunView {
                    exit_code: exit.code,
                    signal: exit.signal,
                    success: Some(exit.success),
                    note: exit.note.clone(),
                    ..run(*number, "ended")
                }),
            },
        }
    }
}

/// Who caused something, as an identity.
pub fn identity_of(actor: &Actor) -> String {
    match actor {
        Actor::Person { login, .. } => format!("human:{login}"),
        Actor::Operator { name } => format!("human:{name}"),
        Actor::System => "bot:lazarus".to_owned(),
    }
}

fn ttl_minutes(cell: &Cell) -> u64 {
    let milliseconds = match (cell.started_at, cell.expires_at) {
        (Some(start), Some(end)) => end.0.saturating_sub(start.0),
        _ => cell.spec.ttl,
    };
    u64::try_from(milliseconds).unwrap_or(0).div_ceil(60_000)
}

fn has_expired(cell: &Cell, now: At) -> bool {
    cell.outcome == Some(Outcome::Expired) || (cell.state.is_live() && cell.expires_at.is_some_and(|at| at <= now))
}

/// Whether it runs and what was found, as a sentence.
fn probe_words(cell: &Cell, running: &Running, seen: &Seen) -> String {
    let found = match running.isolation {
        Some(isolation) if running.missing.is_empty() => {
            format!("{isolation} was found when it started ({} steps)", running.applied.len())
        }
        Some(isolation) => format!(
            "{isolation} was found when it started ({} steps; not there: {})",
            running.applied.len(),
            running.missing.join(", ")
        ),
        None => "what isolation it has is not known yet".to_owned(),
    };
    let keeper = seen.pid.map_or_else(String::new, |pid| format!(" (keeper: process {pid})"));
    match cell.state {
        State::Proposed => "It does not run: it is not approved yet.".to_owned(),
        State::Invited => "It does not run: nobody who is to work has accepted yet.".to_owned(),
        State::Preparing => "It does not run yet: its home and its isolation are being made.".to_owned(),
        State::Closing if seen.lives => format!("It is being ended{keeper}."),
        State::Closing => "Its processes have ended; its work is being read.".to_owned(),
        State::Closed => "It does not run; its files lie whole in the graveyard.".to_owned(),
        State::Archived => "It does not run; what the archive keeps of it is there.".to_owned(),
        State::Destroyed => "It does not run; nothing of it is on disk.".to_owned(),
        State::Downed if !seen.lives => {
            "It does not run: its processes are gone. Reviving it starts its agents again.".to_owned()
        }
        _ if !seen.lives => {
            "It does not run: its keeper is gone. The daemon, when it runs, finds out what became of its agents."
                .to_owned()
        }
        State::Paused | State::Downed | State::Checkpointing => format!("It is there, frozen{keeper}; {found}."),
        State::Active | State::Idle => format!("It runs{keeper}; {found}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_to_the_second() {
        let time = Time(At(1_764_208_860_999));
        assert_eq!(time.to_string(), "2025-11-27T02:01:00Z");
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2025-11-27T02:01:00Z\"");
        assert_eq!(Time(At(i64::MAX)).to_string(), "9999-12-30T22:00:00Z", "what no calendar has is the last day");
    }
}
