//! What may leave Lazarus for the forge: the kinds, the gate, the templates.
//!
//! The kinds are types, and there is no kind for drafts, homes, traces, raw
//! logs or credentials: what must not leave has no place to stand in. Each is
//! rendered by a template of its own (which a user may replace) out of pieces
//! that were cleaned one by one, and the whole passes the gate once more.

pub mod gate;
mod kinds;
pub mod redaction;
pub mod search;
pub mod sentences;

pub use gate::{Allowed, Removed, marker, parse_marker};
pub use kinds::{
    Answer, CloseLog, Publication, Published, PullRequest, RenderError, Request, SHOWN_BYTES_MAX, SHOWN_LINES_MAX,
    SpawnLog, StatusRow, StatusTable, Templates, TextChange, Warning, plain_title,
};
pub use redaction::Secrets;
