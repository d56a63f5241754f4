//! What humans write, and what it means: proposals, slash commands, authority,
//! approval, council, and how work leaves a cell. As pure as [`crate::cell`]: text and facts in, decisions
//! out; no clock, file, socket, database or runtime.

mod approval;
mod command;
pub mod held;
mod hidden;
mod id;
mod misplaced;
mod proposal;
pub mod publishing;
mod quotes;
mod record;
mod text;

pub use approval::{CouncilRule, Level, Mission, OldBallot, Vote};
pub use command::{
    Argument, ArgumentForm, COMMANDS_MAX, Command, CommandSpec, Denied, Given, Line, Misplaced, On, Parsed,
    Publishable, Scope, SummonOptions, Verb, Who, grammar, parse_commands, parse_comment, suspicious,
};
pub use hidden::first_invisible;
pub use id::{InvalidMissionId, MissionId};
pub use misplaced::Place;
pub use proposal::{
    BODY_MAX, Defaults, FieldError, Proposal, TEMPLATE_MARKER, field_labels, is_proposal, parse_proposal,
    parse_titled_proposal,
};
pub use record::{
    Approving, COUNCIL_MAX, Concern, DecisionRecord, Member, Moment, OPEN_MAX, Origin, Rules, Verdict, Warned,
};
pub use text::{ApprovedText, duration, duration_words, normalise, sha256, what_changed};
