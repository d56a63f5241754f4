//! The pure core of one cell: its model, roles and policy, lifecycle and
//! deadlines.
//!
//! Everything here is a plain function from state and input to state and
//! output. There is no clock, file, socket, database or runtime in it (a test
//! reads the imports), because the one thing that must never depend on when
//! and where it runs is the decision who may do what.
//!
//! [`decide`] looks at a cell and an [`Input`] and answers either with
//! [`Event`]s and [`Effect`]s or with a [`Refusal`]; it changes nothing.
//! [`evolve`] applies one event. The engine stores the events in the ledger,
//! the evolved cell in the registry and the effects in their queue, all in one
//! transaction, so replaying the events always gives the stored state.

mod decide;
mod lifecycle;
mod limits;
mod model;
mod role;

pub use decide::{Effect, Event, Input, Refusal, decide, evolve, replay};
pub use lifecycle::{State, TABLE, Transition, Trigger, commands_in, mermaid, targets};
pub use limits::{LEAST, LIMITS_FORM, Limits, LimitsWanted, parse_size, show_size};
pub use model::{
    Actor, AgentRun, Approval, At, AutoRevive, BackendKind, Base, Cell, CellId, DeadlineKind, Exit, Identity,
    InvalidName, Isolation, Network, Outcome, Participant, ParticipantState, Policy, RunState, Spec, next_deadline,
};
pub use role::{Permission, Role};
