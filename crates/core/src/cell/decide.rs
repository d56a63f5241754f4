//! The decisions: what an input does to a cell, or why it is refused.

use super::lifecycle::{commands_in, targets};
use super::{
    Actor, AgentRun, Approval, At, AutoRevive, Cell, CellId, DeadlineKind, Exit, Identity, Outcome, Participant,
    ParticipantState, Policy, Role, RunState, Spec, State, Trigger,
};
use serde::{Deserialize, Serialize};

/// Something that is asked of a cell, or that happened to it. Whether the
/// actor may ask is decided before, by authority; what the lifecycle and the
/// cell's policy allow is decided here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A proposal becomes known. Only for a cell that does not exist yet.
    Propose {
        /// The new cell's name.
        id: CellId,
        /// The mission.
        mission: String,
        /// What is asked for; within the policy's limits already.
        spec: Spec,
        /// The cell's limits.
        policy: Policy,
    },
    /// The proposal's text changed before it was approved.
    Revise {
        /// What is asked for now.
        spec: Spec,
    },
    /// A director, or enough of the council, approved.
    Approve {
        /// The text and who approved it.
        approval: Approval,
    },
    /// Rejected, withdrawn, edited after approval, issue closed or deleted.
    Drop {
        /// `rejected` or `abandoned`.
        outcome: Outcome,
        /// Why, in words.
        reason: String,
    },
    /// The approved text changed while the cell runs.
    Void,
    /// Somebody is invited.
    Invite {
        /// Who.
        identity: Identity,
        /// The account's number, for people.
        forge_id: Option<i64>,
        /// As what.
        role: Role,
    },
    /// An invitation or a participation is taken back.
    Revoke {
        /// Whose.
        identity: Identity,
    },
    /// An invited person accepts.
    Accept {
        /// Who.
        identity: Identity,
        /// The account's number.
        forge_id: Option<i64>,
    },
    /// The backend runs these agents.
    Started {
        /// Which, with their run numbers.
        runs: Vec<AgentRun>,
    },
    /// The backend could not be started.
    StartFailed {
        /// Why.
        reason: String,
    },
    /// An agent's process ended.
    AgentEnded {
        /// Which run.
        run: AgentRun,
        /// How.
        exit: Exit,
    },
    /// An agent was silent for too long.
    Silence {
        /// Which run.
        run: AgentRun,
    },
    /// Work is given to an agent.
    Work {
        /// Which; all workers if not said.
        agent: Option<String>,
        /// The text.
        text: String,
    },
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Take a snapshot.
    Checkpoint {
        /// A word for it.
        note: Option<String>,
    },
    /// The snapshot is there.
    CheckpointTaken {
        /// Its hash.
        hash: String,
    },
    /// The snapshot failed.
    CheckpointFailed {
        /// Why.
        reason: String,
    },
    /// Start dead agents again.
    Revive {
        /// Which; all dead ones if not said.
        agent: Option<String>,
    },
    /// Make the time to live longer.
    Extend {
        /// By how much, in milliseconds.
        by: i64,
    },
    /// End it.
    Close {
        /// How it ended.
        outcome: Outcome,
        /// Why, in words.
        reason: Option<String>,
    },
    /// Every process is gone and the work is harvested.
    Ended,
    /// The same, and there is no work. Only where nobody said how the cell ended:
    /// ending without work is not success.
    EndedWithout {
        /// What is missing, in words.
        why: String,
    },
    /// Bring a closed cell back.
    Resurrect,
    /// A deadline passed.
    Deadline {
        /// Which.
        kind: DeadlineKind,
    },
    /// Scrub everything.
    Destroy {
        /// Why, in words.
        reason: Option<String>,
    },
}

/// What changed. The ledger holds these; applied in order they give the cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each field is the input's of the same name")]
pub enum Event {
    Proposed { id: CellId, mission: String, spec: Spec, policy: Policy, by: Actor },
    Revised { spec: Spec },
    Approved { approval: Approval },
    ApprovalVoided,
    Invited { identity: Identity, forge_id: Option<i64>, role: Role, until: At },
    Accepted { identity: Identity, forge_id: Option<i64> },
    Revoked { identity: Identity },
    InvitationExpired { identity: Identity },
    Preparing,
    Started { runs: Vec<AgentRun>, expires_at: At },
    AgentEnded { run: AgentRun, exit: Exit },
    Idle,
    Downed { agent: String },
    WorkGiven { agents: Vec<AgentRun>, text: String },
    Paused,
    Resumed,
    // `last` is false in every ledger so far.
    CheckpointStarted { note: Option<String>, last: bool },
    CheckpointTaken { hash: String },
    CheckpointFailed { reason: String },
    Revived { runs: Vec<AgentRun> },
    Extended { expires_at: At },
    Closing { outcome: Outcome, reason: Option<String> },
    Closed { outcome: Outcome, reason: Option<String> },
    Resurrected,
    Archived,
    Destroyed { reason: Option<String> },
}

impl Event {
    /// The ledger's word for it.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Proposed { .. } => "proposed",
            Self::Revised { .. } => "revised",
            Self::Approved { .. } => "approved",
            Self::ApprovalVoided => "approval_voided",
            Self::Invited { .. } => "invited",
            Self::Accepted { .. } => "accepted",
            Self::Revoked { .. } => "revoked",
            Self::InvitationExpired { .. } => "invitation_expired",
            Self::Preparing => "preparing",
            Self::Started { .. } => "started",
            Self::AgentEnded { .. } => "agent_ended",
            Self::Idle => "idle",
            Self::Downed { .. } => "downed",
            Self::WorkGiven { .. } => "work_given",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::CheckpointStarted { .. } => "checkpoint_started",
            Self::CheckpointTaken { .. } => "checkpoint_taken",
            Self::CheckpointFailed { .. } => "checkpoint_failed",
            Self::Revived { .. } => "revived",
            Self::Extended { .. } => "extended",
            Self::Closing { .. } => "closing",
            Self::Closed { .. } => "closed",
            Self::Resurrected => "resurrected",
            Self::Archived => "archived",
            Self::Destroyed { .. } => "destroyed",
        }
    }
}

/// What is to be done outside. Each may be done twice without harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Check that the approved text still stands, make the home, clone, start.
    Prepare {
        /// The runs to start.
        runs: Vec<AgentRun>,
    },
    /// Start more agents in the running cell.
    StartAgents {
        /// The runs to start.
        runs: Vec<AgentRun>,
        /// What they are told beside the mission.
        text: Option<String>,
    },
    /// Hand text to agents that run.
    Tell {
        /// To whom.
        agents: Vec<String>,
        /// What.
        text: String,
    },
    /// End one agent's processes.
    StopAgent {
        /// Whose.
        agent: String,
    },
    /// Freeze every process.
    Freeze,
    /// Thaw every process.
    Thaw,
    /// Take a snapshot.
    Checkpoint {
        /// A word for it.
        note: Option<String>,
    },
    /// End every process, prove it, harvest the work, move to the graveyard.
    Stop,
    /// Bring the home back from the graveyard, then start.
    Restore {
        /// The runs to start.
        runs: Vec<AgentRun>,
    },
    /// Reduce the closed cell to what the archive keeps.
    Archive,
    /// End every process and remove everything.
    Scrub,
}

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The lifecycle does not allow it.
    #[error("cell {cell} is {state}: {asked} is not possible; possible now: {allowed}")]
    NotInThisState {
        /// The cell.
        cell: CellId,
        /// Its state.
        state: State,
        /// What was asked.
        asked: &'static str,
        /// The commands that are allowed.
        allowed: String,
    },
    /// There is no such cell yet, or one too many.
    #[error("there is no such cell")]
    NoCell,
    /// The policy does not allow it.
    #[error("{0}")]
    Policy(String),
    /// The identity takes part already.
    #[error("{identity} is in this cell already, as {role}; a role is fixed for the session, so revoke first")]
    AlreadyIn {
        /// Who.
        identity: Identity,
        /// As what.
        role: Role,
    },
    /// The identity does not take part, or was not invited.
    #[error("{0} has no invitation to this cell")]
    NotInvited(Identity),
    /// A report of a run that is over: harmless, and not news.
    #[error("run {number} of agent {agent} is not the current one")]
    StaleRun {
        /// The agent.
        agent: String,
        /// The run's number.
        number: u32,
    },
    /// The approval does not hold any more.
    #[error(
        "the text was changed after it was approved; a director's `/summon`, or `/approve` of the new proposal, starts a new cell"
    )]
    ApprovalVoid,
    /// It was never approved.
    #[error("this cell was never approved; a director's `/summon`, or `/approve` of a new proposal, starts one")]
    NotApproved,
}

type Decision = Result<(Vec<Event>, Vec<Effect>), Refusal>;

/// Decides what `input` by `actor` does to `cell` at `now`.
///
/// # Errors
/// A [`Refusal`], which changes nothing.
pub fn decide(cell: Option<&Cell>, input: &Input, actor: &Actor, now: At) -> Decision {
    let Some(cell) = cell else {
        return match input {
            Input::Propose { id, mission, spec, policy } => Ok((
                vec![Event::Proposed {
                    id: id.clone(),
                    mission: mission.clone(),
                    spec: spec.clone(),
                    policy: policy.clone(),
                    by: actor.clone(),
                }],
                vec![],
            )),
            _ => Err(Refusal::NoCell),
        };
    };
    let allow = |trigger: Trigger| -> Result<(), Refusal> {
        if targets(cell.state, trigger).is_empty() {
            Err(Refusal::NotInThisState {
                cell: cell.id.clone(),
                state: cell.state,
                asked: trigger.word(),
                allowed: match commands_in(cell.state) {
                    none if none.is_empty() => "nothing".to_owned(),
                    some => some.join(", "),
                },
            })
        } else {
            Ok(())
        }
    };
    match input {
        Input::Propose { .. } => Err(Refusal::Policy(format!("cell {} exists already", cell.id))),
        Input::Revise { spec } => {
            allow(Trigger::Revise)?;
            Ok((vec![Event::Revised { spec: spec.clone() }], vec![]))
        }
        Input::Approve { approval } => {
            allow(Trigger::Approve)?;
            let mut events = vec![Event::Approved { approval: approval.clone() }];
            let until = now.plus(cell.policy.invitation_ttl);
            let mut joined = 0;
            for agent in &cell.spec.agents {
                let identity = Identity::Agent(agent.clone());
                if cell.participant(&identity).is_some() {
                    continue;
                }
                events.push(Event::Invited { identity: identity.clone(), forge_id: None, role: Role::Executor, until });
                // Fleet agents accept at once.
                events.push(Event::Accepted { identity, forge_id: None });
                joined += 1;
            }
            for by in &approval.by {
                if let Actor::Person { id, login } = by
                    && let Ok(identity) = Identity::parse(&format!("human:{login}"))
                    && cell.participant(&identity).is_none()
                    && cell.participant_by_account(Some(*id)).is_none()
                    && !events.iter().any(|e| {
                        matches!(e, Event::Invited { identity: i, forge_id, .. } if i.same(&identity) || *forge_id == Some(*id))
                    })
                {
                    events.push(Event::Invited {
                        identity: identity.clone(),
                        forge_id: Some(*id),
                        role: Role::Director,
                        until,
                    });
                    events.push(Event::Accepted { identity, forge_id: Some(*id) });
                }
            }
            if joined == 0 {
                return Ok((events, vec![]));
            }
            events.push(Event::Preparing);
            let effects = vec![Effect::Prepare { runs: runs_after(cell, &events) }];
            Ok((events, effects))
        }
        Input::Drop { outcome, reason } => {
            allow(Trigger::Drop)?;
            Ok((vec![Event::Closed { outcome: *outcome, reason: Some(reason.clone()) }], vec![]))
        }
        Input::Void => {
            // A closed cell can be resurrected, so what voids its approval counts.
            let over = matches!(cell.state, State::Archived | State::Destroyed);
            if cell.approval.is_none() || cell.approval_void || over {
                return Ok((vec![], vec![]));
            }
            Ok((vec![Event::ApprovalVoided], vec![]))
        }
        Input::Invite { identity, forge_id, role } => {
            allow(Trigger::Invite)?;
            invite(cell, identity, *forge_id, *role, now)
        }
        Input::Revoke { identity } => {
            allow(Trigger::Revoke)?;
            let participant = cell.participant(identity).ok_or_else(|| Refusal::NotInvited(identity.clone()))?;
            let mut events = vec![Event::Revoked { identity: participant.identity.clone() }];
            let mut effects = vec![];
            if let (Identity::Agent(agent), RunState::Running { .. }) = (&participant.identity, &participant.run) {
                effects.push(Effect::StopAgent { agent: agent.clone() });
            }
            close_if_nobody_is_left(cell, &mut events);
            let after = replay_onto(cell, &events);
            match cell.state {
                State::Active => settle(cell, &mut events, &mut effects),
                // Nobody would ever be started.
                State::Preparing if after.workers().next().is_none() => {
                    events.push(Event::Closing {
                        outcome: Outcome::Abandoned,
                        reason: Some("everybody who was to work was revoked".into()),
                    });
                    effects.push(Effect::Stop);
                }
                // The dead one is gone: the others go on.
                State::Downed if !after.workers().any(is_dead) => {
                    events.push(Event::Resumed);
                    effects.push(Effect::Thaw);
                    settle(cell, &mut events, &mut effects);
                }
                _ => {}
            }
            Ok((events, effects))
        }
        Input::Accept { identity, forge_id } => {
            allow(Trigger::Accept)?;
            let participant = cell
                .participant_by_account(*forge_id)
                .or_else(|| cell.participant(identity))
                .ok_or_else(|| Refusal::NotInvited(identity.clone()))?;
            // The invitation names an account, not a name that can change hands.
            if participant.forge_id.is_some() && participant.forge_id != *forge_id {
                return Err(Refusal::NotInvited(identity.clone()));
            }
            match participant.open_invitation() {
                None => Err(Refusal::AlreadyIn { identity: identity.clone(), role: participant.role }),
                Some(until) if until <= now => Err(Refusal::NotInvited(identity.clone())),
                Some(_) => {
                    Ok((vec![Event::Accepted { identity: participant.identity.clone(), forge_id: *forge_id }], vec![]))
                }
            }
        }
        Input::Started { runs } => {
            allow(Trigger::Started)?;
            if cell.state == State::Closing {
                // Closed while it was starting: it starts, then it is stopped again.
                return Ok((vec![], vec![Effect::Stop]));
            }
            let current: Vec<AgentRun> = runs.iter().filter(|r| is_latest(cell, r)).cloned().collect();
            if current.is_empty() {
                let run = runs.first();
                return Err(Refusal::StaleRun {
                    agent: run.map_or_else(String::new, |r| r.agent.clone()),
                    number: run.map_or(0, |r| r.number),
                });
            }
            if cell.state == State::Active {
                return Ok((vec![], vec![]));
            }
            // However often it is resurrected: the longest life counts from the first start.
            let latest = cell.started_at.unwrap_or(now).plus(cell.policy.ttl_max);
            let expires_at = cell.expires_at.unwrap_or_else(|| now.plus(cell.spec.ttl).min(latest));
            let mut events = vec![Event::Started { runs: current, expires_at }];
            let mut effects = vec![];
            // Somebody may have ended before all ran.
            settle(cell, &mut events, &mut effects);
            Ok((events, effects))
        }
        Input::StartFailed { reason } => {
            allow(Trigger::StartFailed)?;
            let outcome = cell.outcome.unwrap_or(Outcome::Failed);
            Ok((vec![Event::Closed { outcome, reason: Some(reason.clone()) }], vec![]))
        }
        Input::AgentEnded { run, exit } => {
            allow(Trigger::AgentEnded)?;
            if !is_current(cell, run) {
                return Err(Refusal::StaleRun { agent: run.agent.clone(), number: run.number });
            }
            let mut events = vec![Event::AgentEnded { run: run.clone(), exit: exit.clone() }];
            let mut effects = vec![];
            if cell.state == State::Active {
                settle(cell, &mut events, &mut effects);
            }
            Ok((events, effects))
        }
        Input::Silence { run } => {
            allow(Trigger::Silence)?;
            if !is_current(cell, run) {
                return Err(Refusal::StaleRun { agent: run.agent.clone(), number: run.number });
            }
            // Silent for too long is as good as dead, and must not wake up again.
            let exit = Exit { code: None, signal: None, success: false, note: Some("silent for too long".into()) };
            let mut events = vec![Event::AgentEnded { run: run.clone(), exit }];
            let mut effects = vec![Effect::StopAgent { agent: run.agent.clone() }];
            settle(cell, &mut events, &mut effects);
            Ok((events, effects))
        }
        Input::Work { agent, text } => {
            allow(Trigger::Work)?;
            work(cell, agent.as_deref(), text)
        }
        Input::Pause => {
            allow(Trigger::Pause)?;
            Ok((vec![Event::Paused], vec![Effect::Freeze]))
        }
        Input::Resume => {
            allow(Trigger::Resume)?;
            let mut events = vec![Event::Resumed];
            let mut effects = vec![Effect::Thaw];
            // Somebody may have ended while the cell was frozen.
            settle(cell, &mut events, &mut effects);
            Ok((events, effects))
        }
        Input::Checkpoint { note } => {
            allow(Trigger::Checkpoint)?;
            Ok((
                vec![Event::CheckpointStarted { note: note.clone(), last: false }],
                vec![Effect::Checkpoint { note: note.clone() }],
            ))
        }
        Input::CheckpointTaken { hash } => {
            allow(Trigger::CheckpointTaken)?;
            let mut events = vec![Event::CheckpointTaken { hash: hash.clone() }];
            let mut effects = vec![];
            settle(cell, &mut events, &mut effects);
            Ok((events, effects))
        }
        Input::CheckpointFailed { reason } => {
            allow(Trigger::CheckpointFailed)?;
            let mut events = vec![Event::CheckpointFailed { reason: reason.clone() }];
            let mut effects = vec![];
            settle(cell, &mut events, &mut effects);
            Ok((events, effects))
        }
        Input::Revive { agent } => {
            allow(Trigger::Revive)?;
            revive(cell, agent.as_deref())
        }
        Input::Extend { by } => {
            allow(Trigger::Extend)?;
            let (Some(start), Some(end)) = (cell.started_at, cell.expires_at) else {
                return Err(Refusal::Policy("the cell has not started, so there is no time to extend".into()));
            };
            if *by <= 0 {
                return Err(Refusal::Policy("a duration to extend by must be longer than nothing".into()));
            }
            let latest = start.plus(cell.policy.ttl_max);
            let expires_at = end.max(now).plus(*by);
            if expires_at > latest {
                return Err(Refusal::Policy(format!(
                    "the time to live may be {} in all; {} are left to extend by",
                    duration_words(cell.policy.ttl_max),
                    duration_words((latest.0 - end.0.max(now.0)).max(0)),
                )));
            }
            Ok((vec![Event::Extended { expires_at }], vec![]))
        }
        Input::Close { outcome, reason } => {
            allow(Trigger::Close)?;
            Ok(close(cell, *outcome, reason.clone()))
        }
        Input::Ended => {
            allow(Trigger::Ended)?;
            Ok((
                vec![Event::Closed {
                    outcome: cell.outcome.unwrap_or(Outcome::Completed),
                    reason: cell.reason.clone(),
                }],
                vec![],
            ))
        }
        Input::EndedWithout { why } => {
            allow(Trigger::Ended)?;
            let outcome = match cell.outcome {
                None | Some(Outcome::Completed) => Outcome::Failed,
                Some(other) => other,
            };
            let reason = match &cell.reason {
                Some(reason) => format!("{reason} ({why})"),
                None => why.clone(),
            };
            Ok((vec![Event::Closed { outcome, reason: Some(reason) }], vec![]))
        }
        Input::Resurrect => {
            allow(Trigger::Resurrect)?;
            if cell.approval.is_none() {
                return Err(Refusal::NotApproved);
            }
            if cell.approval_void {
                return Err(Refusal::ApprovalVoid);
            }
            if cell.started_at.is_some_and(|at| at.plus(cell.policy.ttl_max) <= now) {
                return Err(Refusal::Policy(format!(
                    "a cell may live {} in all, and that is over",
                    duration_words(cell.policy.ttl_max)
                )));
            }
            if cell.workers().next().is_none() {
                return Err(Refusal::Policy("no agent ever joined this cell; summon one instead".into()));
            }
            if cell.closed_at.is_some_and(|at| at.plus(cell.policy.closed_grace) <= now) {
                return Err(Refusal::Policy(format!(
                    "the grace period of {} is over",
                    duration_words(cell.policy.closed_grace)
                )));
            }
            let events = vec![Event::Resurrected];
            let effects = vec![Effect::Restore { runs: runs_after(cell, &events) }];
            Ok((events, effects))
        }
        Input::Deadline { kind } => deadline(cell, *kind, now),
        Input::Destroy { reason } => {
            allow(Trigger::Destroy)?;
            Ok((vec![Event::Destroyed { reason: reason.clone() }], vec![Effect::Scrub]))
        }
    }
}

fn invite(cell: &Cell, identity: &Identity, forge_id: Option<i64>, role: Role, now: At) -> Decision {
    let known = cell.participant(identity).or_else(|| cell.participant_by_account(forge_id));
    if let Some(participant) = known {
        // A director may step down, or work too by a second, explicit invitation.
        let other_role = participant.role == Role::Director
            && matches!(role, Role::Executor | Role::Observer)
            && participant.identity.same(identity);
        if !other_role || participant.open_invitation().is_some() {
            return Err(Refusal::AlreadyIn { identity: participant.identity.clone(), role: participant.role });
        }
    }
    if role == Role::Guest && !cell.policy.guests {
        return Err(Refusal::Policy("this cell's policy does not allow guests (`policy.guests`)".into()));
    }
    if role == Role::Substitute && !cell.policy.substitutes {
        return Err(Refusal::Policy("this cell's policy does not allow substitutes (`policy.substitutes`)".into()));
    }
    let present = cell.participants.iter().filter(|p| p.state != ParticipantState::Gone).count();
    if known.is_none() && present >= cell.policy.participants_max {
        return Err(Refusal::Policy(format!("a cell has at most {} participants", cell.policy.participants_max)));
    }
    if !matches!(identity, Identity::Human(_)) && role == Role::Director {
        return Err(Refusal::Policy("a director is a person: `human:LOGIN`".into()));
    }
    let until = now.plus(cell.policy.invitation_ttl);
    let identity = known.map_or(identity, |p| &p.identity);
    let mut events = vec![Event::Invited { identity: identity.clone(), forge_id, role, until }];
    let mut effects = vec![];
    if let Identity::Agent(agent) = identity {
        events.push(Event::Accepted { identity: identity.clone(), forge_id: None });
        if role.works() {
            if cell.approval.is_none() || cell.approval_void {
                return Err(Refusal::ApprovalVoid);
            }
            match cell.state {
                State::Invited => {
                    events.push(Event::Preparing);
                    effects.push(Effect::Prepare { runs: runs_after(cell, &events) });
                }
                State::Active | State::Idle => {
                    let run = AgentRun { agent: agent.clone(), number: cell.last_run + 1 };
                    events.push(Event::WorkGiven { agents: vec![run.clone()], text: String::new() });
                    effects.push(Effect::StartAgents { runs: vec![run], text: None });
                }
                _ => {
                    return Err(Refusal::Policy(format!(
                        "an agent can join a cell that is invited, active or idle; this one is {}",
                        cell.state
                    )));
                }
            }
        }
    }
    Ok((events, effects))
}

fn work(cell: &Cell, agent: Option<&str>, text: &str) -> Decision {
    let mut told = vec![];
    let mut started = vec![];
    let mut number = cell.last_run;
    for worker in cell.workers().filter(|p| agent.is_none_or(|a| a == p.identity.name())) {
        let name = worker.identity.name().to_owned();
        if matches!(worker.run, RunState::Running { .. }) {
            told.push(name);
        } else {
            number += 1;
            started.push(AgentRun { agent: name, number });
        }
    }
    if told.is_empty() && started.is_empty() {
        let there: Vec<&str> = cell.workers().map(|p| p.identity.name()).collect();
        return Err(Refusal::Policy(format!(
            "no such agent works in this cell; there: {}",
            if there.is_empty() { "none".to_owned() } else { there.join(", ") }
        )));
    }
    if !started.is_empty() && cell.approval_void {
        return Err(Refusal::ApprovalVoid);
    }
    let mut effects = vec![];
    if !told.is_empty() {
        effects.push(Effect::Tell { agents: told, text: text.to_owned() });
    }
    if !started.is_empty() {
        effects.push(Effect::StartAgents { runs: started.clone(), text: Some(text.to_owned()) });
    }
    Ok((vec![Event::WorkGiven { agents: started, text: text.to_owned() }], effects))
}

fn revive(cell: &Cell, agent: Option<&str>) -> Decision {
    if cell.approval.is_none() || cell.approval_void {
        return Err(Refusal::ApprovalVoid);
    }
    if cell.revivals >= cell.policy.max_retries {
        return Err(Refusal::Policy(format!(
            "this cell was revived {} times already, the most that policy allows",
            cell.revivals
        )));
    }
    let mut runs = vec![];
    let mut number = cell.last_run;
    for worker in cell.workers() {
        if is_dead(worker) && agent.is_none_or(|a| a == worker.identity.name()) {
            number += 1;
            runs.push(AgentRun { agent: worker.identity.name().to_owned(), number });
        }
    }
    if runs.is_empty() {
        return Err(Refusal::Policy("no such agent of this cell is dead".into()));
    }
    Ok((vec![Event::Revived { runs: runs.clone() }], vec![Effect::Thaw, Effect::StartAgents { runs, text: None }]))
}

fn close(cell: &Cell, outcome: Outcome, reason: Option<String>) -> (Vec<Event>, Vec<Effect>) {
    if matches!(cell.state, State::Proposed | State::Invited) {
        return (vec![Event::Closed { outcome, reason }], vec![]);
    }
    (vec![Event::Closing { outcome, reason }], vec![Effect::Stop])
}

fn deadline(cell: &Cell, kind: DeadlineKind, now: At) -> Decision {
    let nothing = Ok((vec![], vec![]));
    match kind {
        DeadlineKind::Invitation => {
            let mut events: Vec<Event> = cell
                .participants
                .iter()
                .filter(|p| p.open_invitation().is_some_and(|until| until <= now))
                .map(|p| Event::InvitationExpired { identity: p.identity.clone() })
                .collect();
            if events.is_empty() || targets(cell.state, Trigger::InvitationExpired).is_empty() {
                return nothing;
            }
            close_if_nobody_is_left(cell, &mut events);
            Ok((events, vec![]))
        }
        DeadlineKind::TimeToLive => {
            if targets(cell.state, Trigger::Expire).is_empty() || cell.expires_at.is_none_or(|at| at > now) {
                return nothing;
            }
            Ok(close(cell, Outcome::Expired, Some("its time to live was over".into())))
        }
        DeadlineKind::Grace => {
            let due = cell.closed_at.is_some_and(|at| at.plus(cell.policy.closed_grace) <= now);
            if cell.state != State::Closed || !due {
                return nothing;
            }
            Ok((vec![Event::Archived], vec![Effect::Archive]))
        }
        DeadlineKind::Retention => {
            let due = cell.archived_at.is_some_and(|at| at.plus(cell.policy.archive_retention) <= now);
            if cell.state != State::Archived || !due {
                return nothing;
            }
            Ok((vec![Event::Destroyed { reason: Some("its retention was over".into()) }], vec![Effect::Scrub]))
        }
    }
}

/// In `invited`, with everybody expired or revoked, there is nothing to wait for.
fn close_if_nobody_is_left(cell: &Cell, events: &mut Vec<Event>) {
    let after = replay_onto(cell, events);
    // People who joined start nothing by themselves.
    let waits_for = after.participants.iter().any(|p| {
        p.role.works()
            && (matches!(p.state, ParticipantState::Invited { .. })
                || (p.state == ParticipantState::Joined && !matches!(p.identity, Identity::Human(_))))
    });
    if after.state == State::Invited && !waits_for {
        events.push(Event::Closed {
            outcome: Outcome::Abandoned,
            reason: Some("every invitation expired or was revoked".into()),
        });
    }
}

/// After somebody ended: idle when all ended well, downed when one died.
fn settle(cell: &Cell, events: &mut Vec<Event>, effects: &mut Vec<Effect>) {
    let after = replay_onto(cell, events);
    if after.state != State::Active {
        return;
    }
    let dead = after.workers().find(|p| is_dead(p)).map(|p| &p.identity);
    if let Some(identity) = dead {
        events.push(Event::Downed { agent: identity.name().to_owned() });
        let retries_left = after.revivals < after.policy.max_retries;
        if after.spec.auto_revive == AutoRevive::Yes && retries_left && !after.approval_void {
            let down = replay_onto(cell, events);
            if let Ok((more, then)) = revive(&down, None) {
                events.extend(more);
                effects.extend(then);
                return;
            }
        }
        if after.spec.auto_revive == AutoRevive::Yes && !retries_left {
            events.push(Event::Closing {
                outcome: Outcome::Failed,
                reason: Some(format!("agent {} died and its retries are used up", identity.name())),
            });
            effects.push(Effect::Stop);
            return;
        }
        effects.push(Effect::Freeze);
    } else if after.running().next().is_none() {
        events.push(Event::Idle);
    }
}

fn is_dead(participant: &Participant) -> bool {
    matches!(&participant.run, RunState::Ended { exit, .. } if !exit.success)
}

fn is_current(cell: &Cell, run: &AgentRun) -> bool {
    cell.running().any(|(agent, number)| agent == run.agent && number == run.number)
}

/// Whether that is the newest run of the agent, at work or over.
fn is_latest(cell: &Cell, run: &AgentRun) -> bool {
    cell.workers().any(|p| {
        p.identity.name() == run.agent
            && match &p.run {
                RunState::Running { number } | RunState::Ended { number, .. } => *number == run.number,
                RunState::Waiting => false,
            }
    })
}

/// The runs that a cell has to start once these events are applied.
fn runs_after(cell: &Cell, events: &[Event]) -> Vec<AgentRun> {
    let after = replay_onto(cell, events);
    after.running().map(|(agent, number)| AgentRun { agent: agent.to_owned(), number }).collect()
}

fn replay_onto(cell: &Cell, events: &[Event]) -> Cell {
    events.iter().fold(cell.clone(), |cell, event| evolve(Some(cell.clone()), event, At(0)).unwrap_or(cell))
}

/// Milliseconds in words, in the largest unit that fits.
pub(super) fn duration_words(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        s if s >= 86_400 && s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s >= 3600 && s % 3600 == 0 => format!("{} h", s / 3600),
        s if s >= 60 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// Applies one event that happened at `at`. `None` is "no cell yet"; an event
/// that fits no cell leaves things as they are.
pub fn evolve(cell: Option<Cell>, event: &Event, at: At) -> Option<Cell> {
    let before = cell.as_ref().map(|cell| cell.state);
    let mut cell = applied(cell, event, at)?;
    if before.is_some_and(|before| before != cell.state) {
        cell.state_since = Some(at);
    }
    Some(cell)
}

fn applied(cell: Option<Cell>, event: &Event, at: At) -> Option<Cell> {
    if let Event::Proposed { id, mission, spec, policy, by } = event {
        return Some(cell.unwrap_or_else(|| Cell {
            id: id.clone(),
            mission: mission.clone(),
            state: State::Proposed,
            spec: spec.clone(),
            policy: policy.clone(),
            proposed_by: by.clone(),
            approval: None,
            approval_void: false,
            participants: vec![],
            created_at: at,
            started_at: None,
            expires_at: None,
            closed_at: None,
            archived_at: None,
            destroyed_at: None,
            state_since: Some(at),
            outcome: None,
            reason: None,
            last_run: 0,
            revivals: 0,
        }));
    }
    let mut cell = cell?;
    match event {
        Event::Proposed { .. } => {}
        Event::Revised { spec } => cell.spec = spec.clone(),
        Event::Approved { approval } => {
            cell.approval = Some(approval.clone());
            cell.state = State::Invited;
        }
        Event::ApprovalVoided => cell.approval_void = true,
        Event::Invited { identity, forge_id, role, until } => {
            if let Some(known) = find(&mut cell, identity) {
                known.offered = Some((*role, *until));
                return Some(cell);
            }
            cell.participants.retain(|p| !p.identity.same(identity));
            cell.participants.push(Participant {
                identity: identity.clone(),
                forge_id: *forge_id,
                role: *role,
                state: ParticipantState::Invited { until: *until },
                offered: None,
                run: RunState::Waiting,
                joined_at: None,
                run_started_at: None,
                run_ended_at: None,
            });
        }
        Event::Accepted { identity, forge_id } => {
            if let Some(p) = find(&mut cell, identity) {
                if p.state != ParticipantState::Joined {
                    p.joined_at = Some(at);
                }
                p.state = ParticipantState::Joined;
                if let Some((role, _)) = p.offered.take() {
                    p.role = role;
                }
                p.forge_id = p.forge_id.or(*forge_id);
            }
        }
        Event::InvitationExpired { identity } if find(&mut cell, identity).is_some_and(|p| p.offered.is_some()) => {
            if let Some(p) = find(&mut cell, identity) {
                p.offered = None;
            }
        }
        Event::Revoked { identity } | Event::InvitationExpired { identity } => {
            if let Some(p) = find(&mut cell, identity) {
                p.offered = None;
                p.state = ParticipantState::Gone;
                if let RunState::Running { number } = p.run {
                    p.run = RunState::Ended { number, exit: revoked() };
                    p.run_ended_at = Some(at);
                }
            }
        }
        Event::Preparing | Event::Resurrected => {
            cell.state = State::Preparing;
            cell.outcome = None;
            cell.reason = None;
            cell.closed_at = None;
            if matches!(event, Event::Resurrected) {
                cell.expires_at = None;
            }
            let agents: Vec<String> = cell.workers().map(|p| p.identity.name().to_owned()).collect();
            for agent in agents {
                cell.last_run += 1;
                let number = cell.last_run;
                set_run(&mut cell, &agent, RunState::Running { number }, at);
            }
        }
        Event::Started { runs, expires_at } => {
            for p in &mut cell.participants {
                if matches!(&p.run, RunState::Running { number } if runs.iter().any(|r| r.number == *number)) {
                    p.run_started_at = Some(at);
                }
            }
            cell.state = State::Active;
            cell.started_at.get_or_insert(at);
            cell.expires_at = Some(*expires_at);
        }
        Event::AgentEnded { run, exit } => {
            set_run(&mut cell, &run.agent, RunState::Ended { number: run.number, exit: exit.clone() }, at);
        }
        Event::Idle => cell.state = State::Idle,
        Event::Downed { .. } => cell.state = State::Downed,
        Event::WorkGiven { agents, .. } => {
            for run in agents {
                set_run(&mut cell, &run.agent, RunState::Running { number: run.number }, at);
                cell.last_run = cell.last_run.max(run.number);
            }
            cell.state = State::Active;
        }
        Event::Paused => cell.state = State::Paused,
        Event::Resumed | Event::CheckpointFailed { .. } | Event::CheckpointTaken { .. } => {
            cell.state = State::Active;
        }
        Event::CheckpointStarted { .. } => cell.state = State::Checkpointing,
        Event::Revived { runs } => {
            for run in runs {
                set_run(&mut cell, &run.agent, RunState::Running { number: run.number }, at);
                cell.last_run = cell.last_run.max(run.number);
            }
            cell.revivals += 1;
            cell.state = State::Active;
        }
        Event::Extended { expires_at } => cell.expires_at = Some(*expires_at),
        Event::Closing { outcome, reason } => {
            cell.state = State::Closing;
            cell.outcome = Some(*outcome);
            cell.reason = reason.clone();
        }
        Event::Closed { outcome, reason } => {
            cell.state = State::Closed;
            cell.outcome = Some(*outcome);
            cell.reason = reason.clone();
            cell.closed_at = Some(at);
            end_everything(&mut cell, at);
        }
        Event::Archived => {
            cell.state = State::Archived;
            cell.archived_at = Some(at);
        }
        Event::Destroyed { reason } => {
            cell.state = State::Destroyed;
            if cell.outcome.is_none() {
                cell.outcome = Some(Outcome::Abandoned);
                cell.reason = reason.clone();
            }
            cell.closed_at.get_or_insert(at);
            cell.destroyed_at = Some(at);
            end_everything(&mut cell, at);
        }
    }
    Some(cell)
}

/// Applies a whole history.
pub fn replay<'a>(events: impl IntoIterator<Item = &'a (Event, At)>) -> Option<Cell> {
    events.into_iter().fold(None, |cell, (event, at)| evolve(cell, event, *at))
}

fn end_everything(cell: &mut Cell, at: At) {
    for p in &mut cell.participants {
        if let RunState::Running { number } = p.run {
            p.run = RunState::Ended { number, exit: stopped() };
            p.run_ended_at = Some(at);
        }
        p.offered = None;
        if matches!(p.state, ParticipantState::Invited { .. }) {
            p.state = ParticipantState::Gone;
        }
    }
}

fn stopped() -> Exit {
    Exit { code: None, signal: None, success: true, note: Some("stopped with the cell".into()) }
}

fn revoked() -> Exit {
    Exit { code: None, signal: None, success: true, note: Some("revoked".into()) }
}

fn find<'a>(cell: &'a mut Cell, identity: &Identity) -> Option<&'a mut Participant> {
    cell.participants.iter_mut().find(|p| p.identity.same(identity) && p.state != ParticipantState::Gone)
}

fn set_run(cell: &mut Cell, agent: &str, run: RunState, at: At) {
    for p in &mut cell.participants {
        if matches!(&p.identity, Identity::Agent(name) if name == agent) && p.state == ParticipantState::Joined {
            match run {
                RunState::Running { .. } => (p.run_started_at, p.run_ended_at) = (Some(at), None),
                _ => p.run_ended_at = Some(at),
            }
            p.run = run.clone();
        }
    }
}
