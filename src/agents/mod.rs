//! Agent profiles as data, and the built-in `scribe`.
//!
//! A [`Profile`] says how an agent is started: an argv template, how it is
//! handed its prompt, which variables and credentials it gets. It becomes an
//! [`Invocation`] for one cell, which is what the keeper executes. Nothing
//! that a person wrote on the forge reaches an argument list or a variable:
//! the prompt goes through a file or standard input, and the few values that
//! do stand in an argv (paths, a model's name, a session's id) are checked
//! and never split into words.

mod invocation;
mod profile;
pub(crate) mod programs;
pub mod scribe;

pub use invocation::{AgentCommand, CommandContext, EnvValue, Invocation, PATH, Place, Places, Word};
pub use profile::{Profile, ProfileError, Prompt, Success};

use std::collections::BTreeMap;
use std::sync::Arc;

/// The profiles that come with Lazarus: name and TOML.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("aider", include_str!("../../config/agents/aider.toml")),
    ("claude", include_str!("../../config/agents/claude.toml")),
    ("codex", include_str!("../../config/agents/codex.toml")),
    ("gemini", include_str!("../../config/agents/gemini.toml")),
    ("goose", include_str!("../../config/agents/goose.toml")),
    ("hermes", include_str!("../../config/agents/hermes.toml")),
    ("opencode", include_str!("../../config/agents/opencode.toml")),
    ("scribe", include_str!("../../config/agents/scribe.toml")),
];

/// What [`is_name`] takes, for messages.
pub const NAME_FORM: &str = "not a name; it must be 1 to 32 of a–z, 0–9, `-` and `_`, and begin with a letter";

/// Whether this can be the name of an agent or of a credential:
/// `[a-z][a-z0-9_-]{0,31}`, so that it is safe in a path, a branch, a label
/// and a key of the environment.
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

/// The profiles that can be summoned.
#[derive(Debug, Clone, PartialEq)]
pub struct Profiles(Arc<BTreeMap<String, Profile>>);

/// The agents of a configuration: [`Config::agents`](crate::config::Config) has the built-in profiles already, merged
/// key by key.
impl From<BTreeMap<String, Profile>> for Profiles {
    fn from(agents: BTreeMap<String, Profile>) -> Self {
        Self(Arc::new(agents))
    }
}

impl Profiles {
    /// The profile of this name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// The name nearest to one that is not there, if it is one slip away.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        self.names()
            .into_iter()
            .map(|known| (strsim::damerau_levenshtein(name, known), known))
            .filter(|(distance, _)| *distance <= 2)
            .min()
            .map(|(_, known)| known)
    }
}
