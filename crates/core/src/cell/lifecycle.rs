//! The lifecycle as one table (contract §5). What is not in it is refused.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// The twelve states of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A proposal is known, not approved.
    Proposed,
    /// Approved; invitations are out.
    Invited,
    /// Home made, project cloned, backend starting.
    Preparing,
    /// At least one participant runs.
    Active,
    /// Every executor finished well; the cell waits for the next instruction.
    Idle,
    /// Frozen by a director.
    Paused,
    /// A snapshot is being taken.
    Checkpointing,
    /// An executor died or missed its heartbeats; the cell is frozen.
    Downed,
    /// Processes are ending, work is being harvested.
    Closing,
    /// In the graveyard, whole.
    Closed,
    /// Only what the archive keeps exists.
    Archived,
    /// Scrubbed; the ledger remains.
    Destroyed,
}

impl State {
    /// Every state, in the order of a cell's life.
    pub const ALL: [Self; 12] = [
        Self::Proposed,
        Self::Invited,
        Self::Preparing,
        Self::Active,
        Self::Idle,
        Self::Paused,
        Self::Checkpointing,
        Self::Downed,
        Self::Closing,
        Self::Closed,
        Self::Archived,
        Self::Destroyed,
    ];

    /// The word for it in messages, labels and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Invited => "invited",
            Self::Preparing => "preparing",
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Paused => "paused",
            Self::Checkpointing => "checkpointing",
            Self::Downed => "downed",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Archived => "archived",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether a command without CELL may mean a cell in this state.
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Closed | Self::Archived | Self::Destroyed)
    }

    /// Whether the cell was approved and is not over.
    pub const fn is_active(self) -> bool {
        self.is_live() && !matches!(self, Self::Proposed)
    }

    /// Whether processes of the cell may exist in this state.
    pub const fn has_processes(self) -> bool {
        matches!(
            self,
            Self::Preparing
                | Self::Active
                | Self::Idle
                | Self::Paused
                | Self::Checkpointing
                | Self::Downed
                | Self::Closing
        )
    }

    /// The mission status that readers of `/var/missions` know.
    pub const fn mission_status(self) -> &'static str {
        match self {
            Self::Paused | Self::Proposed | Self::Invited => "paused",
            Self::Closed | Self::Archived | Self::Destroyed => "completed",
            _ => "active",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// What may move a cell, as the rows of the table name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The proposal's text changed before approval.
    Revise,
    /// A director (or the council) approved.
    Approve,
    /// Rejected, withdrawn, issue closed or deleted.
    Drop,
    /// Somebody is invited.
    Invite,
    /// An invitation or a participation is taken back.
    Revoke,
    /// An invitation is accepted.
    Accept,
    /// An invitation ran out.
    InvitationExpired,
    /// The backend runs.
    Started,
    /// The backend could not be started, or may not be any more.
    StartFailed,
    /// An agent's process ended.
    AgentEnded,
    /// An agent was silent for too long.
    Silence,
    /// Work is given.
    Work,
    /// A director freezes the cell.
    Pause,
    /// A director thaws it.
    Resume,
    /// A snapshot is asked for.
    Checkpoint,
    /// The snapshot is there.
    CheckpointTaken,
    /// The snapshot failed.
    CheckpointFailed,
    /// A dead agent is started again, or replaced.
    Revive,
    /// The time to live is made longer.
    Extend,
    /// A director closes, the issue closes, retries are used up.
    Close,
    /// The time to live is over.
    Expire,
    /// Every process is gone and the work is harvested.
    Ended,
    /// A director brings a closed cell back.
    Resurrect,
    /// The grace period is over.
    Archive,
    /// Retention is over.
    RetentionOver,
    /// A director destroys it.
    Destroy,
}

impl Trigger {
    /// The word for it in messages: what a person would type, where there is
    /// such a thing.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Revise => "revise",
            Self::Approve => "approve",
            Self::Drop => "reject",
            Self::Invite => "invite",
            Self::Revoke => "revoke",
            Self::Accept => "accept",
            Self::InvitationExpired => "expiry of invitations",
            Self::Started => "start",
            Self::StartFailed => "failed start",
            Self::AgentEnded => "end of an agent",
            Self::Silence => "silence",
            Self::Work => "tell",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Checkpoint => "checkpoint",
            Self::CheckpointTaken => "snapshot taken",
            Self::CheckpointFailed => "snapshot failed",
            Self::Revive => "revive",
            Self::Extend => "extend",
            Self::Close => "close",
            Self::Expire => "end of the time to live",
            Self::Ended => "end of all processes",
            Self::Resurrect => "resurrect",
            Self::Archive => "archive",
            Self::RetentionOver => "end of retention",
            Self::Destroy => "destroy",
        }
    }

    /// Whether a person can ask for it, so that a refusal may name it.
    const fn is_command(self) -> bool {
        matches!(
            self,
            Self::Approve
                | Self::Drop
                | Self::Invite
                | Self::Revoke
                | Self::Accept
                | Self::Work
                | Self::Pause
                | Self::Resume
                | Self::Checkpoint
                | Self::Revive
                | Self::Extend
                | Self::Close
                | Self::Resurrect
                | Self::Destroy
        )
    }
}

/// One row: in `from`, `trigger` may lead to each of `to`.
#[derive(Debug, Clone, Copy)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// What happens.
    pub trigger: Trigger,
    /// The states it may lead to; the same state where it only changes the cell.
    pub to: &'static [State],
}

const fn row(from: State, trigger: Trigger, to: &'static [State]) -> Transition {
    Transition { from, trigger, to }
}

/// The whole lifecycle. `Destroy` is allowed from every state but
/// `destroyed` and stands here once a state, so that nothing is allowed by
/// anything but this table.
pub const TABLE: &[Transition] = {
    #[allow(clippy::enum_glob_use, reason = "the table is read as a table")]
    use State::*;
    use Trigger as T;
    &[
        row(Proposed, T::Revise, &[Proposed]),
        row(Proposed, T::Approve, &[Invited, Preparing]),
        row(Proposed, T::Drop, &[Closed]),
        row(Proposed, T::Close, &[Closed]),
        row(Proposed, T::Destroy, &[Destroyed]),
        row(Invited, T::Invite, &[Invited, Preparing]),
        row(Invited, T::Accept, &[Invited]),
        row(Invited, T::Revoke, &[Invited, Closed]),
        row(Invited, T::InvitationExpired, &[Invited, Closed]),
        row(Invited, T::Drop, &[Closed]),
        row(Invited, T::Close, &[Closed]),
        row(Invited, T::Destroy, &[Destroyed]),
        row(Preparing, T::Started, &[Active, Idle, Downed, Closing]),
        row(Preparing, T::StartFailed, &[Closed]),
        // A quick agent can end before all of its cell runs.
        row(Preparing, T::AgentEnded, &[Preparing]),
        row(Preparing, T::Invite, &[Preparing]),
        row(Preparing, T::Accept, &[Preparing]),
        row(Preparing, T::Revoke, &[Preparing, Closing]),
        row(Preparing, T::InvitationExpired, &[Preparing]),
        row(Preparing, T::Close, &[Closing]),
        row(Preparing, T::Destroy, &[Destroyed]),
        row(Active, T::AgentEnded, &[Active, Idle, Downed, Closing]),
        row(Active, T::Silence, &[Active, Downed, Closing]),
        row(Active, T::Started, &[Active]),
        row(Active, T::Work, &[Active]),
        row(Active, T::Invite, &[Active]),
        row(Active, T::Accept, &[Active]),
        row(Active, T::Revoke, &[Active, Idle, Downed, Closing]),
        row(Active, T::InvitationExpired, &[Active]),
        row(Active, T::Checkpoint, &[Checkpointing]),
        row(Active, T::Pause, &[Paused]),
        row(Active, T::Extend, &[Active]),
        row(Active, T::Close, &[Closing]),
        row(Active, T::Expire, &[Closing]),
        row(Active, T::Destroy, &[Destroyed]),
        row(Idle, T::Work, &[Active]),
        row(Idle, T::AgentEnded, &[Idle]),
        row(Idle, T::Invite, &[Idle, Active]),
        row(Idle, T::Accept, &[Idle]),
        row(Idle, T::Revoke, &[Idle]),
        row(Idle, T::InvitationExpired, &[Idle]),
        row(Idle, T::Extend, &[Idle]),
        row(Idle, T::Close, &[Closing]),
        row(Idle, T::Expire, &[Closing]),
        row(Idle, T::Destroy, &[Destroyed]),
        row(Paused, T::Resume, &[Active, Idle, Downed, Closing]),
        row(Paused, T::AgentEnded, &[Paused]),
        row(Paused, T::Invite, &[Paused]),
        row(Paused, T::Accept, &[Paused]),
        row(Paused, T::Revoke, &[Paused]),
        row(Paused, T::InvitationExpired, &[Paused]),
        row(Paused, T::Extend, &[Paused]),
        row(Paused, T::Close, &[Closing]),
        row(Paused, T::Expire, &[Closing]),
        row(Paused, T::Destroy, &[Destroyed]),
        row(Checkpointing, T::CheckpointTaken, &[Active, Idle, Downed, Closing]),
        row(Checkpointing, T::CheckpointFailed, &[Active, Idle, Downed, Closing]),
        row(Checkpointing, T::AgentEnded, &[Checkpointing]),
        row(Checkpointing, T::Close, &[Closing]),
        row(Checkpointing, T::Expire, &[Closing]),
        row(Checkpointing, T::Destroy, &[Destroyed]),
        row(Downed, T::Revive, &[Active]),
        row(Downed, T::AgentEnded, &[Downed]),
        row(Downed, T::Invite, &[Downed]),
        row(Downed, T::Accept, &[Downed]),
        row(Downed, T::Revoke, &[Downed, Active, Idle]),
        row(Downed, T::InvitationExpired, &[Downed]),
        row(Downed, T::Extend, &[Downed]),
        row(Downed, T::Close, &[Closing]),
        row(Downed, T::Expire, &[Closing]),
        row(Downed, T::Destroy, &[Destroyed]),
        row(Closing, T::Started, &[Closing]),
        row(Closing, T::StartFailed, &[Closed]),
        row(Closing, T::AgentEnded, &[Closing]),
        row(Closing, T::Ended, &[Closed]),
        row(Closing, T::Destroy, &[Destroyed]),
        row(Closed, T::Resurrect, &[Preparing]),
        row(Closed, T::Archive, &[Archived]),
        row(Closed, T::Destroy, &[Destroyed]),
        row(Archived, T::RetentionOver, &[Destroyed]),
        row(Archived, T::Destroy, &[Destroyed]),
    ]
};

/// Where `trigger` may lead from `from`; empty where it is not allowed.
pub fn targets(from: State, trigger: Trigger) -> &'static [State] {
    TABLE.iter().find(|t| t.from == from && t.trigger == trigger).map_or(&[], |t| t.to)
}

/// The commands that are allowed in a state, for a refusal's words.
pub fn commands_in(state: State) -> Vec<&'static str> {
    TABLE.iter().filter(|t| t.from == state && t.trigger.is_command()).map(|t| t.trigger.word()).collect()
}

/// The table as a Mermaid state diagram, checked in as `docs/lifecycle.md`.
pub fn mermaid() -> String {
    let mut out = String::from("stateDiagram-v2\n    [*] --> proposed\n");
    for from in State::ALL {
        for to in State::ALL {
            if from == to {
                continue;
            }
            let words: Vec<&str> =
                TABLE.iter().filter(|t| t.from == from && t.to.contains(&to)).map(|t| t.trigger.word()).collect();
            if !words.is_empty() {
                let _ = writeln!(out, "    {from} --> {to}: {}", words.join(", "));
            }
        }
    }
    out.push_str("    destroyed --> [*]\n");
    out
}
