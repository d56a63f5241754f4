//! What humans write, and what it means: proposals, slash commands, authority,
//! approval, council. As pure as [`crate::cell`]: text and facts in, decisions
//! out; no clock, file, socket, database or runtime.

mod approval;
mod command;
mod proposal;
mod text;

pub use approval::{Ballot, CouncilRule, Level, Mission, Verdict, Vote, vote};
pub use command::{Command, CommandKind, Line, Parsed, Publishable, SummonOptions, grammar, parse_comment, suspicious};
pub use proposal::{Defaults, FieldError, Proposal, TEMPLATE_MARKER, field_labels, is_proposal, parse_proposal};
pub use text::{ApprovedText, duration, duration_words, normalise, what_changed};
