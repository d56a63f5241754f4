//! Turns a profile into the command that is executed in one cell.

use super::profile::{Part, Placeholder, Profile, ProfileError, Prompt, is_word, parts};
use super::programs;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Directories in which programs are looked for in a cell. `/run/lazarus` contains Lazarus itself.
pub const PATH: &str = "/run/lazarus:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user's name inside a cell, whoever runs it on the host.
const USER: &str = "agent";

/// A path in a cell that an agent is told. The cell's backend knows which path it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The agent's own home: `{home}`.
    Home,
    /// The clone, the working directory: `{project}`.
    Project,
    /// The file with the task: `{prompt_file}`.
    PromptFile,
    /// The directories in which programs are looked for, in the form of `PATH`.
    Programs,
}

/// The actual paths of all places, as one agent sees them.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The file with the task.
    pub prompt_file: &'a Path,
    /// The agent's own home.
    pub home: &'a Path,
    /// The clone.
    pub project: &'a Path,
    /// The value of `PATH`.
    pub programs: &'a str,
}

/// What differs between runs.
pub struct CommandContext<'a> {
    /// The model that was asked for in a request, and not in the profile.
    pub model: Option<&'a str>,
    /// The id of the session to continue.
    pub resume: Option<&'a str>,
    /// The daemon's environment. Only allowed variables are taken from it.
    pub host_env: &'a BTreeMap<String, String>,
    /// Looks up a credential by its name.
    pub credentials: &'a dyn Fn(&str) -> Option<SecretString>,
}

/// A part of one word. A place stays symbolic until the backend replaces it by a path, so no text can be mistaken
/// for one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

/// One word of an argument list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word(Vec<Piece>);

/// How an agent is started, independently of a host: it contains no host path.
#[derive(Debug, Clone)]
pub struct AgentCommand {
    agent: String,
    argv: Vec<Word>,
    env: BTreeMap<String, EnvValue>,
    prompt: Prompt,
}

/// The value of an environment variable.
#[derive(Clone)]
pub enum EnvValue {
    /// A value that anybody may see.
    Plain(String),
    /// A secret. It is overwritten in memory when dropped, and not shown by `Debug`.
    Secret(SecretString),
    /// A path in the cell.
    Place(Place),
}

impl EnvValue {
    /// The value, to pass it to the process. A place without a path gives an empty text.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(value) => value.expose_secret(),
            Self::Place(_) => "",
        }
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

/// A command that is ready to execute: everything is expanded, and the environment is complete.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Program and arguments, one word each.
    pub argv: Vec<String>,
    /// The complete environment, sorted, without duplicates.
    pub env: Vec<(String, EnvValue)>,
    /// The file to open as standard input; `None` means `/dev/null`.
    pub stdin: Option<PathBuf>,
    /// The working directory.
    pub cwd: PathBuf,
}

impl Profile {
    /// Builds the command that starts this agent.
    ///
    /// # Errors
    /// If a credential is missing, or the model or session is not a valid name.
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

        // Starts empty; later values replace earlier ones.
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

    /// Paths of the host that the agent is shown in addition to the usual ones.
    pub fn shown_paths(&self) -> Vec<PathBuf> {
        [self.read_paths.clone(), programs::shown(&self.programs)].concat()
    }

    /// The value of `PATH` for this agent, on a host that shows it the program directories of its profile.
    pub fn search_path(&self) -> String {
        let mut path: Vec<String> = self.programs.iter().map(|of| programs::bin(of).display().to_string()).collect();
        path.push(PATH.to_owned());
        path.join(":")
    }
}

impl AgentCommand {
    /// Sets a variable, unless the profile sets it.
    pub fn or_env(&mut self, name: &str, value: impl Into<String>) {
        self.env.entry(name.to_owned()).or_insert_with(|| EnvValue::Plain(value.into()));
    }

    /// Whether the agent reads its task on standard input.
    pub fn reads_prompt(&self) -> bool {
        self.prompt == Prompt::Stdin
    }

    /// Fills in the paths under which the agent sees its places.
    ///
    /// # Errors
    /// If a path is not absolute or not UTF-8.
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
