//! `/help [COMMAND]`: what commands there are.

use super::{About, Done};

/// Shows all commands, or one.
pub fn run(command: Option<&String>) -> Done {
    Done { ok: true, help: Some(About::of(command)), ..Done::default() }
}
