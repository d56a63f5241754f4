//! From a profile to what is executed in one cell.

use super::profile::{Part, Placeholder, Profile, ProfileError, Prompt, is_word, parts};
use super::programs;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where programs are looked for in a cell. `/run/lazarus` holds Lazarus itself.
pub const PATH: &str = "/run/lazarus:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user's name in a cell, whoever runs it.
const USER: &str = "agent";

/// Something in a cell that an agent is told the place of. Which path that is, the cell's backend knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The agent's own home: `{home}`.
    Home,
    /// The clone, the working directory: `{project}`.
    Project,
    /// The mission as a file: `{prompt_file}`.
    PromptFile,
    /// The directories in which programs are looked for, as `PATH` has them.
    Programs,
}

/// The paths of all places, as one agent sees them.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The mission as a file.
    pub prompt_file: &'a Path,
    /// The agent's own home.
    pub home: &'a Path,
    /// The clone.
    pub project: &'a Path,
    /// The value of `PATH`.
    pub programs: &'a str,
}

/// What differs from run to run.
pub struct CommandContext<'a> {
    /// The model that was asked for, from outside.
    pub model: Option<&'a str>,
    /// The session to go on with.
    pub resume: Option<&'a str>,
    /// The daemon's environment, of which only what is allowed is taken.
    pub host_env: &'a BTreeMap<String, String>,
    /// The pool: a credential by name.
    pub credentials: &'a dyn Fn(&str) -> Option<SecretString>,
}

/// A part of one word: a place stays what it is until a backend puts a path for it, so no text is ever taken
/// for one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

/// One word of an argument list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word(Vec<Piece>);

/// How an agent is started, wherever its cell is: no path of a host is in it.
#[derive(Debug, Clone)]
pub struct AgentCommand {
    agent: String,
    argv: Vec<Word>,
    env: BTreeMap<String, EnvValue>,
    prompt: Prompt,
}

/// The value of a variable.
#[derive(Clone)]
pub enum EnvValue {
    /// Anybody may see it.
    Plain(String),
    /// Overwritten in memory when it is dropped; not shown by `Debug`.
    Secret(SecretString),
    /// A path in the cell.
    Place(Place),
}

impl EnvValue {
    /// The value, to hand it to the process. A place without a path is nothing.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(value) => value.expose_secret(),
            Self::Place(_) => "",
        }
    }

    /// Whether it is a secret.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(value) => fmt::Debug::fmt(value, f),
            Self::Secret(_) => f.write_str("[redacted]"),
            Self::Place(place) => fmt::Debug::fmt(place, f),
        }
    }
}

/// What is executed: nothing is expanded any more, and there is no other
/// environment than this.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Program and arguments, each one word.
    pub argv: Vec<String>,
    /// The whole environment, sorted, each name once.
    pub env: Vec<(String, EnvValue)>,
    /// The file to open as standard input; else `/dev/null`.
    pub stdin: Option<PathBuf>,
    /// The working directory.
    pub cwd: PathBuf,
}

impl Profile {
    /// How to start this agent.
    ///
    /// # Errors
    /// Where a credential is missing, or the model or session is not a name.
    pub fn command(&self, context: &CommandContext<'_>) -> Result<AgentCommand, ProfileError> {
        let agent = || self.name.clone();
        let model = context.model.or(self.model_default.as_deref());
        if model.is_some_and(|model| !is_word(model)) {
            return Err(ProfileError::BadModel { agent: agent() });
        }
        if context.resume.is_some_and(|id| !is_word(id)) {
            return Err(ProfileError::BadResumeId { agent: agent() });
        }

        let template = match context.resume {
            Some(_) => self.resume.as_ref().ok_or_else(|| ProfileError::CannotResume { agent: agent() })?,
            None => &self.argv,
        };
        let model_argv = if model.is_some() { &self.model_argv[..] } else { &[] };
        let mut argv = Vec::with_capacity(template.len() + model_argv.len());
        for argument in template.iter().chain(model_argv) {
            let mut word = Word::default();
            for part in parts(argument).map_err(|why| ProfileError::BadTemplate { agent: agent(), why })? {
                word.0.push(match part {
                    Part::Text(text) => Piece::Text(text),
                    Part::Value(Placeholder::PromptFile) => Piece::Place(Place::PromptFile),
                    Part::Value(Placeholder::Home) => Piece::Place(Place::Home),
                    Part::Value(Placeholder::Project) => Piece::Place(Place::Project),
                    Part::Value(Placeholder::Model) => {
                        Piece::Text(model.ok_or_else(|| ProfileError::NoModel { agent: agent() })?.to_owned())
                    }
                    Part::Value(Placeholder::ResumeId) => {
                        let id = context.resume.ok_or_else(|| ProfileError::CannotResume { agent: agent() })?;
                        Piece::Text(id.to_owned())
                    }
                });
            }
            argv.push(word);
        }

        // From nothing, and in this order: later ones outweigh earlier ones.
        let mut env: BTreeMap<String, EnvValue> = BTreeMap::new();
        let mut set = |name: &str, value: EnvValue| {
            env.insert(name.to_owned(), value);
        };
        let plain = |value: &str| EnvValue::Plain(value.to_owned());
        set("LANG", plain("C.UTF-8"));
        set("TERM", plain("dumb"));
        for name in &self.env_allow {
            if let Some(value) = context.host_env.get(name).filter(|value| !value.contains('\0')) {
                set(name, plain(value));
            }
        }
        for (name, value) in &self.env {
            set(name, plain(value));
        }
        for (variable, credential) in &self.credentials {
            let secret = (context.credentials)(credential)
                .filter(|secret| !secret.expose_secret().contains('\0'))
                .ok_or_else(|| ProfileError::NoCredential {
                    agent: agent(),
                    credential: credential.clone(),
                    variable: variable.clone(),
                })?;
            set(variable, EnvValue::Secret(secret));
        }
        if let Some(variable) = &self.home_variable {
            set(variable, EnvValue::Place(Place::Home));
        }
        set("PATH", EnvValue::Place(Place::Programs));
        set("HOME", EnvValue::Place(Place::Home));
        set("USER", plain(USER));

        Ok(AgentCommand { agent: agent(), argv, env, prompt: self.prompt })
    }

    /// The value of `PATH` for this agent, on a host that shows it the profile's directories of programs.
    pub fn search_path(&self) -> String {
        let mut path: Vec<String> = self.programs.iter().map(|of| programs::bin(of).display().to_string()).collect();
        path.push(PATH.to_owned());
        path.join(":")
    }
}

impl AgentCommand {
    /// Sets a variable, unless the profile did.
    pub fn or_env(&mut self, name: &str, value: impl Into<String>) {
        self.env.entry(name.to_owned()).or_insert_with(|| EnvValue::Plain(value.into()));
    }

    /// Whether it is the mission that the agent reads on its standard input.
    pub fn reads_prompt(&self) -> bool {
        self.prompt == Prompt::Stdin
    }

    /// What to execute where the agent sees its places under these paths.
    ///
    /// # Errors
    /// Where a path is not absolute, or no text.
    pub fn at(&self, places: &Places<'_>) -> Result<Invocation, ProfileError> {
        let path = |path: &Path, what| {
            path.to_str()
                .filter(|text| path.is_absolute() && !text.contains('\0'))
                .map(str::to_owned)
                .ok_or(ProfileError::BadPath { agent: self.agent.clone(), what })
        };
        let prompt_file = path(places.prompt_file, "prompt file")?;
        let home = path(places.home, "home")?;
        let project = path(places.project, "project")?;
        let of = |place: Place| match place {
            Place::Home => &home,
            Place::Project => &project,
            Place::PromptFile => &prompt_file,
            Place::Programs => places.programs,
        };
        let word = |Word(pieces): &Word| -> String {
            let pieces = pieces.iter().map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Place(place) => of(*place),
            });
            pieces.collect()
        };
        let value = |value: &EnvValue| match value {
            EnvValue::Place(place) => EnvValue::Plain(of(*place).to_owned()),
            value => value.clone(),
        };
        Ok(Invocation {
            argv: self.argv.iter().map(word).collect(),
            env: self.env.iter().map(|(name, v)| (name.clone(), value(v))).collect(),
            stdin: self.reads_prompt().then(|| PathBuf::from(&prompt_file)),
            cwd: PathBuf::from(&project),
        })
    }
}
