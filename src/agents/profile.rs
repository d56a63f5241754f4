//! A profile: how one kind of agent is started.

use super::{NAME_FORM, programs};
use crate::cell::{LIMITS_FORM, LimitsWanted};
use crate::config::section::{Section, is_env_name};
use crate::egress::HostRule;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How an agent gets its prompt. Never in argv: every process on the host can read that, and a prompt that begins
/// with a dash would be an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// In a file whose path appears in argv (`{prompt_file}`).
    File,
    /// On standard input.
    Stdin,
}

/// When a run counts as successful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Success {
    /// Exit codes, 0 by default.
    pub exit_codes: Vec<u8>,
    /// Text that its standard output must also contain; `None` if any will do.
    pub require_output: Option<String>,
}

/// How an agent is started. Only created by reading and checking a configuration (`[agents.NAME]`).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Profile {
    /// Name, `[a-z][a-z0-9_-]{0,31}`.
    pub name: String,
    /// Its description, in one line.
    pub description: String,
    /// Program and arguments, with placeholders.
    pub argv: Vec<String>,
    /// Arguments that are appended if a model was chosen (`{model}`).
    pub model_argv: Vec<String>,
    /// Replaces `argv` to continue an earlier session (`{resume_id}`); `None` if the agent cannot do that.
    pub resume: Option<Vec<String>>,
    /// How it gets its prompt.
    pub prompt: Prompt,
    /// Variables that are passed on from the daemon's environment. A variable whose name suggests a secret is never
    /// passed on.
    pub env_allow: Vec<String>,
    /// Variables with fixed values.
    pub env: BTreeMap<String, String>,
    /// Variables that hold credentials: variable name to credential name.
    pub credentials: BTreeMap<String, String>,
    /// Another variable that is set to the agent's home, in addition to `HOME`.
    pub home_variable: Option<String>,
    /// When a run counts as successful.
    pub success: Success,
    /// Whether it promises heartbeats on the cell's API.
    pub heartbeats: bool,
    /// How long its log may stay silent before the agent counts as stalled.
    pub stall: Option<Duration>,
    /// Whether it can continue from a checkpoint.
    pub checkpoint: bool,
    /// The model that is used if none is chosen.
    pub model_default: Option<String>,
    /// Host paths that are shown read-only, in addition to the system's.
    pub read_paths: Vec<PathBuf>,
    /// Absolute host directories that contain programs. They are shown read-only, and come first on `PATH` (their
    /// `bin` if they have one).
    pub programs: Vec<PathBuf>,
    /// Whether it may trace its own processes, if it has a PID namespace of its own.
    pub ptrace: bool,
    /// Limits that differ from the usual ones, for cells in which it works.
    pub limits: LimitsWanted,
    /// Hosts that it needs. A mission must still be allowed to reach them.
    pub network_hosts: Vec<String>,
}

/// Why an agent cannot be started this way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A credential is not configured.
    #[error(
        "agent `{agent}` needs the credential `{credential}` (as {variable}), which is not there; \
         set {credential}_file or {credential}_env under [credentials]"
    )]
    NoCredential {
        /// The profile.
        agent: String,
        /// The name of the credential.
        credential: String,
        /// The variable that should hold it.
        variable: String,
    },
    /// The model's name could be mistaken for something else, such as an option.
    #[error(
        "the model given for agent `{agent}` is not a model's name; \
         it must be at most 128 letters, digits and `. _ : / @ + -`, not beginning with a dash, dot or slash"
    )]
    BadModel {
        /// The profile.
        agent: String,
    },
    /// The session's id could be mistaken for something else, such as an option.
    #[error(
        "the session id for agent `{agent}` is not one; \
         it must be at most 128 letters, digits and `. _ : / @ + -`, not beginning with a dash, dot or slash"
    )]
    BadResumeId {
        /// The profile.
        agent: String,
    },
    /// `argv` contains `{model}`, but no model was chosen.
    #[error("agent `{agent}` needs a model; say model=NAME, or set agents.{agent}.model_default")]
    NoModel {
        /// The profile.
        agent: String,
    },
    /// The agent cannot continue an earlier session.
    #[error("agent `{agent}` has no resume form; start it anew, or set agents.{agent}.resume")]
    CannotResume {
        /// The profile.
        agent: String,
    },
    /// A path in the cell is not an absolute path in UTF-8.
    #[error("the {what} for agent `{agent}` is not an absolute path in UTF-8")]
    BadPath {
        /// The profile.
        agent: String,
        /// Which path.
        what: &'static str,
    },
    /// A template is not valid. Profiles from a configuration are always checked.
    #[error("agent `{agent}` has an unusable argument template: {why}")]
    BadTemplate {
        /// The profile.
        agent: String,
        /// What is wrong.
        why: String,
    },
}

/// The values that an argument can contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placeholder {
    PromptFile,
    Model,
    Home,
    Project,
    ResumeId,
}

/// A part of an argument: text or a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Value(Placeholder),
}

/// Splits one argument into text and placeholders. `{{` and `}}` stand for braces.
pub(crate) fn parts(argument: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = argument;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{") {
            text.push('{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            text.push('}');
            rest = after;
        } else {
            let (name, after) = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'))
                .ok_or_else(|| "a brace that belongs to no placeholder; write {{ or }} for the character".to_owned())?;
            let value = match name {
                "prompt_file" => Placeholder::PromptFile,
                "model" => Placeholder::Model,
                "home" => Placeholder::Home,
                "project" => Placeholder::Project,
                "resume_id" => Placeholder::ResumeId,
                "prompt" | "prompt_text" | "mission" | "objective" | "task" | "text" => {
                    return Err(format!(
                        "{{{name}}} asks for the prompt's text in argv, where it could be taken for an option and \
                         be read by others; use {{prompt_file}}, or prompt = \"stdin\""
                    ));
                }
                _ => {
                    return Err("an unknown placeholder; known are {prompt_file}, {model}, {home}, {project} and \
                                {resume_id} (write {{ or }} for a brace)"
                        .to_owned());
                }
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Value(value));
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// Variables that Lazarus itself sets; see [`Profile::command`](super::Profile::command).
const OURS: [&str; 3] = ["PATH", "HOME", "USER"];

/// Whether a variable's name suggests that it holds a secret. Compares whole words, so that `GIT_AUTHOR_NAME` and
/// `MAX_OUTPUT_TOKENS` do not count.
fn names_a_secret(variable: &str) -> bool {
    const ENDINGS: [&str; 7] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "APIKEY"];
    const WORDS: [&str; 6] = ["AUTH", "KEY", "KEYS", "PASS", "PAT", "SECRETS"];
    variable.starts_with("LAZARUS_")
        || variable.split('_').any(|word| WORDS.contains(&word) || ENDINGS.iter().any(|ending| word.ends_with(ending)))
}

impl Profile {
    /// Reads `[agents.NAME]`. Problems go to the section's report. `home` is what `~` stands for.
    pub(crate) fn read(mut section: Section<'_>, name: &str, home: Option<&Path>) -> Self {
        let argument = "text";
        let argv: Vec<String> = section.list("argv", Vec::new(), argument, |_| true);
        let model_argv: Vec<String> = section.list("model_argv", Vec::new(), argument, |_| true);
        let resume: Vec<String> = section.list("resume", Vec::new(), argument, |_| true);
        let resume = (!resume.is_empty()).then_some(resume);
        let prompt = section.get_if("prompt", "file".to_owned(), "\"file\" or \"stdin\"", |word: &String| {
            word == "file" || word == "stdin"
        });
        let prompt = if prompt == "stdin" { Prompt::Stdin } else { Prompt::File };

        if argv.is_empty() {
            section.problem(
                "argv",
                "missing; name the program and its arguments, such as [\"my-agent\", \"--file\", \"{prompt_file}\"]",
            );
        }
        check_command(&section, "argv", &argv, prompt, &[Placeholder::ResumeId]);
        check_arguments(&section, "model_argv", &model_argv, &[Placeholder::ResumeId, Placeholder::PromptFile]);
        if let Some(resume) = &resume {
            check_command(&section, "resume", resume, prompt, &[]);
            if !uses(resume, Placeholder::ResumeId) {
                section.problem("resume", "{resume_id} is missing: it would go on with some other session");
            }
        }
        if !model_argv.is_empty() && !uses(&model_argv, Placeholder::Model) {
            section.problem("model_argv", "{model} is missing");
        }

        let variable = "the name of a variable, in capitals, digits and _";
        let env_allow: Vec<String> = section.list("env_allow", Vec::new(), variable, |name: &String| is_env_name(name));
        for variable in &env_allow {
            if names_a_secret(variable) {
                let text = format!(
                    "{variable} looks like a secret, and the environment is no way for one; \
                     put it into [credentials] and name it under credentials"
                );
                section.problem("env_allow", &text);
            }
            refuse_ours(&section, "env_allow", variable);
        }

        let mut table = section.section("env");
        let mut env = BTreeMap::new();
        for variable in table.keys() {
            if !is_env_name(&variable) {
                table.refuse(&variable, "not the name of a variable (capitals, digits and _)");
            } else if names_a_secret(&variable) {
                table.refuse(&variable, "a secret never stands in the configuration; put it into [credentials] and name it under credentials");
            } else if let Some(value) = table.optional::<String>(&variable) {
                refuse_ours(&table, &variable, &variable);
                env.insert(variable, value);
            }
        }
        table.finish();

        let mut table = section.section("credentials");
        let mut credentials = BTreeMap::new();
        for variable in table.keys() {
            if !is_env_name(&variable) {
                table.refuse(&variable, "not the name of a variable (capitals, digits and _)");
                continue;
            }
            // An empty value removes a built-in profile's credential.
            let wanted = "the name of a credential under [credentials] (not the secret itself)";
            let good = |name: &String| name.is_empty() || super::is_name(name);
            if let Some(credential) = table.optional_if(&variable, wanted, good)
                && !credential.is_empty()
            {
                refuse_ours(&table, &variable, &variable);
                credentials.insert(variable, credential);
            }
        }
        table.finish();
        for variable in env.keys().filter(|variable| credentials.contains_key(*variable)) {
            section.problem("env", &format!("{variable} is given under credentials too; keep one of the two"));
        }

        let mut table = section.section("success");
        let code = "an exit code from 0 to 255";
        let success = Success {
            exit_codes: table
                .list("exit_codes", vec![0_i64], code, |code| (0..=255).contains(code))
                .into_iter()
                .filter_map(|code| u8::try_from(code).ok())
                .collect(),
            require_output: table
                .optional_if("require_output", "text that is not empty", |text: &String| !text.is_empty()),
        };
        table.finish();
        if success.exit_codes.is_empty() {
            section.problem("success", "exit_codes is empty: no run could ever count as done well");
        }

        let named: Vec<String> = section.list("programs", Vec::new(), programs::FORM, |path: &String| {
            path.starts_with('~') && !path.split('/').any(|part| part == "..") || is_read_path(path)
        });
        let mut directories = vec![];
        for text in named {
            match programs::read(&text, home) {
                Ok(path) => directories.push(path),
                Err(why) => section.problem("programs", &why),
            }
        }

        let profile = Self {
            name: name.to_owned(),
            programs: directories,
            ptrace: section.get("ptrace", false),
            description: section.get("description", String::new()),
            home_variable: section.optional_if("home_variable", variable, |name: &String| {
                is_env_name(name) && !OURS.contains(&name.as_str()) && !names_a_secret(name)
            }),
            heartbeats: section.get("heartbeats", false),
            stall: section.optional_if("stall", "a duration from 10s to 7d", |stall: &Duration| {
                (10..=7 * 24 * 3600).contains(&stall.as_secs())
            }),
            checkpoint: section.get("checkpoint", false),
            model_default: section.optional_if("model_default", "a model's name", |name: &String| is_word(name)),
            read_paths: section
                .list(
                    "read_paths",
                    Vec::new(),
                    "an absolute path without `..`, not / itself, and not in /tmp, /proc, /dev or /cell",
                    |path: &String| is_read_path(path),
                )
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            limits: section
                .optional_if("limits", LIMITS_FORM, |text: &String| LimitsWanted::parse(text).is_ok())
                .and_then(|text| LimitsWanted::parse(&text).ok())
                .unwrap_or_default(),
            network_hosts: section.list(
                "network_hosts",
                Vec::new(),
                "a host such as \"api.example.org\", \"*.example.org\" or \"git.example.org:22 plain\"",
                |host: &String| host.parse::<HostRule>().is_ok(),
            ),
            argv,
            model_argv,
            resume,
            prompt,
            env_allow,
            env,
            credentials,
            success,
        };
        // If these were accepted silently, users would rely on them.
        for (key, given, what) in [
            ("stall", profile.stall.is_some(), "watch for silent agents"),
            ("heartbeats", profile.heartbeats, "hear heartbeats"),
            ("checkpoint", profile.checkpoint, "start an agent from a checkpoint"),
        ] {
            if given {
                let text =
                    format!("this version of Lazarus does not {what} yet, so the key would do nothing; take it out");
                section.problem(key, &text);
            }
        }
        if let Some(named) = section.optional::<String>("name")
            && named != name
        {
            section.problem("name", &format!("must be the profile's own name; {NAME_FORM}"));
        }
        section.finish();
        profile
    }
}

fn refuse_ours(section: &Section<'_>, key: &str, variable: &str) {
    if OURS.contains(&variable) {
        section.problem(
            key,
            "PATH, HOME and USER are the cell's own; for a program elsewhere, name its directory in programs",
        );
    }
}

fn uses(argv: &[String], placeholder: Placeholder) -> bool {
    argv.iter().filter_map(|argument| parts(argument).ok()).flatten().any(|part| part == Part::Value(placeholder))
}

fn check_arguments(section: &Section<'_>, key: &str, argv: &[String], not_here: &[Placeholder]) {
    if argv.len() > 64 {
        section.problem(key, "more than 64 arguments");
    }
    for argument in argv {
        match parts(argument) {
            Err(why) => section.problem(key, &why),
            Ok(parts) => {
                if parts.iter().any(|part| matches!(part, Part::Value(value) if not_here.contains(value))) {
                    section.problem(key, "a placeholder that has no value here; {resume_id} stands in resume only, {prompt_file} in argv and resume");
                }
            }
        }
    }
}

fn check_command(section: &Section<'_>, key: &str, argv: &[String], prompt: Prompt, not_here: &[Placeholder]) {
    check_arguments(section, key, argv, not_here);
    let Some((program, arguments)) = argv.split_first() else {
        return;
    };
    let plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with('-')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-'))
    };
    if !(plain(program) || is_absolute(program)) {
        section.problem(key, "the program must be a plain name that is looked for on PATH, or an absolute path");
    }
    // A shell would split the value into words and expand it.
    let shell = program.rsplit('/').next().is_some_and(|name| {
        ["sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox", "env", "xargs", "eval"].contains(&name)
    });
    if shell && arguments.iter().any(|argument| parts(argument).is_ok_and(|parts| parts.len() > 1)) {
        section.problem(
            key,
            "a placeholder within a shell's words, where its value would be split and expanded; \
             give it as an argument of its own and use \"$1\"",
        );
    }
    match prompt {
        Prompt::File if !uses(argv, Placeholder::PromptFile) => section.problem(
            key,
            "{prompt_file} is missing: the agent would not get its prompt; add it, or set prompt = \"stdin\"",
        ),
        _ => {}
    }
}

/// Whether this may be the name of a model or the id of a session: no leading dash, and nothing that a program
/// could take for an option, a path to a parent directory, or several words.
pub(crate) fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || matches!(first, '@' | '_'))
        && !text.contains("..")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'@' | b'+' | b'-'))
}

fn is_read_path(text: &str) -> bool {
    is_absolute(text)
        // A cell has its own version of these, which would cover the path.
        && !["/tmp", "/var/tmp", "/var/run", "/run", "/proc", "/dev", "/cell"]
            .iter()
            .any(|own| std::path::Path::new(text).starts_with(own))
}

fn is_absolute(text: &str) -> bool {
    text.len() > 1
        && text.starts_with('/')
        && !text.contains(['$', '{', '}'])
        && text.split('/').skip(1).all(|part| part != ".." && part != ".")
        && text.bytes().any(|b| b != b'/')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_argument_is_text_and_known_placeholders() {
        assert_eq!(parts("--x").unwrap(), [Part::Text("--x".into())]);
        assert_eq!(parts("{home}").unwrap(), [Part::Value(Placeholder::Home)]);
        assert_eq!(
            parts("--m={model}/x").unwrap(),
            [Part::Text("--m=".into()), Part::Value(Placeholder::Model), Part::Text("/x".into())]
        );
        assert_eq!(parts(r#"{{"a": 1}}"#).unwrap(), [Part::Text(r#"{"a": 1}"#.into())]);
    }

    #[test]
    fn whoever_asks_for_the_prompt_in_argv_is_told_how_to_do_it() {
        for argument in ["{prompt}", "-p={objective}"] {
            assert!(parts(argument).unwrap_err().contains("prompt_file"), "{argument}");
        }
        for argument in ["{", "}", "{}", "{Model}", "{prompt_file", "{ model }", "{{model}"] {
            assert!(parts(argument).is_err(), "{argument}");
        }
    }

    #[test]
    fn a_word_cannot_be_an_option_or_several_words() {
        for word in ["opus", "anthropic/claude-sonnet-4", "a:b@1.2+x", "7b"] {
            assert!(is_word(word), "{word}");
        }
        for word in ["", "-x", "--dangerously", "a b", "a\nb", "$HOME", "`x`", "a;b", "../x", "a/../b", "é"] {
            assert!(!is_word(word), "{word}");
        }
    }

    proptest! {
        #[test]
        fn no_template_makes_it_panic(argument in r"[{}a-z_\PC]{0,40}") {
            let _ = parts(&argument);
        }
    }
}
