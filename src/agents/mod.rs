//! Agent profiles as data, and the built-in `scribe`.
//!
//! A [`Profile`] says how an agent is started: an argv template, how it gets its prompt, and which variables and
//! credentials it gets. For one cell it becomes an [`Invocation`], which the keeper executes. Nothing that a person
//! wrote on the forge reaches an argument list or a variable: the prompt is passed in a file or on standard input,
//! and the few values that do appear in an argv (paths, a model's name, a session's id) are checked and never split
//! into words.

mod invocation;
mod profile;
pub(crate) mod programs;
pub mod scribe;

pub use invocation::{AgentCommand, CommandContext, EnvValue, Invocation, PATH, Place, Places, Word};
pub use profile::{Profile, ProfileError, Prompt, Success};

use std::collections::BTreeMap;
use std::sync::Arc;

/// The profiles that ship with Lazarus: name and TOML.
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

/// What [`is_name`] accepts, for messages.
pub const NAME_FORM: &str = "not a name; it must be 1 to 32 of a–z, 0–9, `-` and `_`, and begin with a letter";

/// Whether this can be the name of an agent or of a credential: `[a-z][a-z0-9_-]{0,31}`. Such a name is safe in a
/// path, a branch, a label and the name of an environment variable.
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

/// The profiles that can be summoned.
#[derive(Debug, Clone, PartialEq)]
pub struct Profiles(Arc<BTreeMap<String, Profile>>);

/// Takes the agents of a configuration: [`Config::agents`](crate::config::Config) already contains the built-in
/// profiles, merged key by key.
impl From<BTreeMap<String, Profile>> for Profiles {
    fn from(agents: BTreeMap<String, Profile>) -> Self {
        Self(Arc::new(agents))
    }
}

impl Profiles {
    /// The profile with this name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// The name that was probably meant by one that does not exist, if it differs by a single typing error.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        self.names()
            .into_iter()
            .map(|known| (strsim::damerau_levenshtein(name, known), known))
            .filter(|(distance, _)| *distance <= 2)
            .min()
            .map(|(_, known)| known)
    }
}
