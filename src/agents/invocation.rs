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

/// What differs from cell to cell. Paths are as the agent sees them.
pub struct InvocationContext<'a> {
    /// The mission as a file.
    pub prompt_file: &'a Path,
    /// The agent's own home.
    pub home: &'a Path,
    /// The clone; the working directory.
    pub project: &'a Path,
    /// The model that was asked for, from outside.
    pub model: Option<&'a str>,
    /// The session to go on with.
    pub resume: Option<&'a str>,
    /// The daemon's environment, of which only what is allowed is taken.
    pub host_env: &'a BTreeMap<String, String>,
    /// The pool: a credential by name.
    pub credentials: &'a dyn Fn(&str) -> Option<SecretString>,
}

/// The value of a variable.
#[derive(Clone)]
pub enum EnvValue {
    /// Anybody may see it.
    Plain(String),
    /// Overwritten in memory when it is dropped; not shown by `Debug`.
    Secret(SecretString),
}

impl EnvValue {
    /// The value, to hand it to the process.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(value) => value.expose_secret(),
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
    /// What to execute for this agent in this cell.
    ///
    /// # Errors
    /// Where a credential is missing, the model or session is not a name, or
    /// a path is not absolute.
    pub fn invocation(&self, context: &InvocationContext<'_>) -> Result<Invocation, ProfileError> {
        let agent = || self.name.clone();
        let path = |path: &Path, what| {
            path.to_str()
                .filter(|text| path.is_absolute() && !text.contains('\0'))
                .map(str::to_owned)
                .ok_or(ProfileError::BadPath { agent: self.name.clone(), what })
        };
        let prompt_file = path(context.prompt_file, "prompt file")?;
        let home = path(context.home, "home")?;
        let project = path(context.project, "project")?;
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
            let mut word = String::new();
            for part in parts(argument).map_err(|why| ProfileError::BadTemplate { agent: agent(), why })? {
                word.push_str(match &part {
                    Part::Text(text) => text,
                    Part::Value(Placeholder::PromptFile) => &prompt_file,
                    Part::Value(Placeholder::Home) => &home,
                    Part::Value(Placeholder::Project) => &project,
                    Part::Value(Placeholder::Model) => model.ok_or_else(|| ProfileError::NoModel { agent: agent() })?,
                    Part::Value(Placeholder::ResumeId) => {
                        context.resume.ok_or_else(|| ProfileError::CannotResume { agent: agent() })?
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
            set(variable, plain(&home));
        }
        let mut path: Vec<String> = self.programs.iter().map(|of| programs::bin(of).display().to_string()).collect();
        path.push(PATH.to_owned());
        set("PATH", plain(&path.join(":")));
        set("HOME", plain(&home));
        set("USER", plain(USER));

        Ok(Invocation {
            argv,
            env: env.into_iter().collect(),
            stdin: (self.prompt == Prompt::Stdin).then(|| PathBuf::from(prompt_file)),
            cwd: PathBuf::from(project),
        })
    }
}
