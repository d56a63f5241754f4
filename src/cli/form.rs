//! The issue form for mission proposals and its Markdown twin, as
//! `lazarus init` writes them for one installation.
//!
//! They offer what this installation's policy and build can give, and nothing
//! else. What stands in them is taken from the very [`Defaults`] that the
//! parser of proposals checks against; what an empty field means is found by
//! parsing a proposal that leaves it empty.
//!
//! Each file says in one line what its other lines are hashed to. So a copy
//! that nobody edited is told from one that somebody did, whichever version
//! wrote it, and only the former is written over.

use crate::cell::{AutoRevive, BackendKind, Isolation, Limits, Network, show_size};
use crate::config::Config;
use crate::engine::defaults;
use crate::mission::{Defaults, Proposal, TEMPLATE_MARKER, duration_words, field_labels, normalise, parse_proposal};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use sha2::{Digest as _, Sha256};

/// Where the issue form goes.
pub const FORM_PATH: &str = ".gitea/ISSUE_TEMPLATE/mission-proposal.yaml";

/// Where its Markdown twin goes.
pub const TWIN_PATH: &str = ".gitea/ISSUE_TEMPLATE/mission-proposal.md";

const FORM: &str = include_str!("../../templates/issue/mission-proposal.yaml");
const TWIN: &str = include_str!("../../templates/issue/mission-proposal.md");

/// Begins the line that says what the others are hashed to. A comment in
/// YAML, and in the front matter of the twin.
const SEAL: &str = "# lazarus init, sha256 of the other lines: ";

/// SHA-256 of files that were written before they had that line.
const UNSEALED: [&str; 4] = [
    "6582aca686ef0dddc19e8717cf2bd6da2e3084687e61df749ffe70e62d79e5b2",
    "aed026216530f6c15f99cadb2a4e6a3bd663a6305beadd26571031f3763ca22b",
    "98f4ae69333457259c2a0ec8ba211e71e8788690d361822d4240c651da717b71",
    "476f3ceb1541ae02ca9d73e86e1f8d66f0af080955d1cc84591c8bfbc1d021e0",
];

/// One file of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateText {
    /// Where it goes in a repository.
    pub path: &'static str,
    /// What is in it.
    pub text: String,
}

/// Both files for the installation with this configuration.
///
/// # Errors
/// Where the agents' profiles cannot be read.
pub fn of_installation(config: &Config) -> anyhow::Result<[TemplateText; 2]> {
    let profiles = crate::agents::Profiles::from(config.agents.clone());
    render(&defaults(config, &profiles), config.limits)
}

/// Both files for these bounds of proposals; `usual` are the limits of a cell
/// whose proposal asks for none.
///
/// # Errors
/// Where a template is broken, which a test excludes.
pub fn render(defaults: &Defaults, usual: Limits) -> anyhow::Result<[TemplateText; 2]> {
    let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let mut environment = Environment::new();
    environment.set_syntax(syntax?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // A string of JSON is one of YAML, too.
    environment.add_filter("quoted", |text: String| serde_json::Value::from(text).to_string());
    let fields: Vec<Value> = fields(defaults, usual).into_iter().map(Field::shown).collect();
    let write = |path: &'static str, template: &str, end: &str| -> anyhow::Result<TemplateText> {
        let text =
            environment.render_str(template, context! { fields => fields.clone(), marker => TEMPLATE_MARKER })?;
        Ok(TemplateText { path, text: sealed(&format!("{}{end}", text.trim_end())) })
    };
    // Somebody writes below the twin's last heading.
    Ok([write(FORM_PATH, FORM, "\n")?, write(TWIN_PATH, TWIN, "\n\n")?])
}

/// Adds the line with the hash: after the last comment of the head.
fn sealed(text: &str) -> String {
    let seal = format!("{SEAL}{}\n", hash(text));
    let at = text.find("\n# ").map_or(0, |at| at + 1);
    let mut sealed = text.to_owned();
    sealed.insert_str(at, &seal);
    sealed
}

/// Whether a file is as some version of Lazarus wrote it.
pub fn is_as_written(content: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content) else { return false };
    let mut seals = text.lines().filter_map(|line| line.strip_prefix(SEAL));
    match (seals.next(), seals.next()) {
        (Some(seal), None) => {
            let line = format!("{SEAL}{seal}\n");
            seal == hash(&text.replacen(&line, "", 1))
        }
        (None, _) => UNSEALED.contains(&hash(text).as_str()),
        _ => false,
    }
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// One field, as both templates show it.
#[derive(Debug, Clone)]
struct Field {
    label: &'static str,
    id: &'static str,
    kind: &'static str,
    description: String,
    placeholder: String,
    options: Vec<&'static str>,
    /// Whether the first option is chosen beforehand.
    chosen: bool,
    render: &'static str,
    needed: bool,
}

impl Field {
    fn new(label: &'static str, id: &'static str, kind: &'static str, description: impl Into<String>) -> Self {
        Self {
            label,
            id,
            kind,
            description: description.into(),
            placeholder: String::new(),
            options: vec![],
            chosen: false,
            render: "",
            needed: false,
        }
    }

    /// As the templates read it.
    fn shown(self) -> Value {
        let Self { label, id, kind, description, placeholder, options, chosen, render, needed } = self;
        context! { label, id, kind, description, placeholder, options, chosen, render, needed }
    }
}

fn fields(defaults: &Defaults, usual: Limits) -> Vec<Field> {
    let left_out = left_out(defaults);
    field_labels().filter_map(|label| field(label, defaults, usual, left_out.as_ref())).collect()
}

/// What becomes of a proposal that names an agent and an objective alone.
fn left_out(defaults: &Defaults) -> Option<Proposal> {
    let body = format!("### Agents\n\n{}\n\n### Objective\n\nx", defaults.agents.first()?);
    parse_proposal(&normalise(&body), defaults).ok()
}

/// The field with this label, unless policy leaves nothing to ask for.
fn field(label: &'static str, defaults: &Defaults, usual: Limits, left_out: Option<&Proposal>) -> Option<Field> {
    let policy = &defaults.policy;
    let field = match label {
        "Agents" => {
            let some = if defaults.agents_max > 1 {
                format!(
                    "Who is to work on it: names of agents, joined by plus signs, {} at most. Each is a process of its own, with a home of its own.",
                    defaults.agents_max
                )
            } else {
                "Who is to work on it: the name of one agent.".to_owned()
            };
            let first = defaults.agents.iter().find(|name| *name == "scribe").or(defaults.agents.first());
            Field {
                placeholder: first.cloned().unwrap_or_default(),
                needed: true,
                ..Field::new(label, "agents", "input", format!("{some} There are {}.", defaults.agents.join(", ")))
            }
        }
        "Backend" => Field {
            options: defaults.backends.iter().map(|backend| backend.word()).collect(),
            chosen: true,
            ..Field::new(label, "backend", "dropdown", "How the cell runs.")
        },
        "Isolation level" => {
            let levels = levels(defaults);
            let meanings: Vec<String> =
                levels.iter().map(|level| format!("{level}: {}.", meaning_of_level(*level))).collect();
            let least = left_out.map_or(defaults.isolation_min, |proposal| proposal.spec.isolation);
            Field {
                options: levels.iter().map(|level| level.word()).collect(),
                ..Field::new(
                    label,
                    "isolation",
                    "dropdown",
                    format!(
                        "{} Without a choice: {least}, the least that this installation allows. If the host cannot give it, the cell is not started.",
                        meanings.join(" ")
                    ),
                )
            }
        }
        "Base branch" => Field::new(
            label,
            "base",
            "input",
            "The branch that the work starts from and is proposed to. Empty: the repository's default branch.",
        ),
        "Time to live" => {
            let usual = left_out.map_or(defaults.ttl_default, |proposal| proposal.spec.ttl);
            let examples = [("90s", 90_000), ("15m", 900_000), ("1h30m", 5_400_000)];
            let examples: Vec<&str> =
                examples.into_iter().filter(|(_, ttl)| *ttl <= policy.ttl_max).map(|(text, _)| text).collect();
            let such_as = if examples.is_empty() { String::new() } else { format!(" such as {}", examples.join(", ")) };
            Field {
                placeholder: duration_words(usual),
                ..Field::new(
                    label,
                    "ttl",
                    "input",
                    format!(
                        "After this time the cell is closed, finished or not: a duration{such_as}; {} at most. Empty: {}.",
                        duration_words(policy.ttl_max),
                        duration_words(usual)
                    ),
                )
            }
        }
        "Network hosts" => {
            let description = match defaults.network_max {
                Network::None => return None,
                Network::Proxy => {
                    "What the cell may reach: names of hosts, separated by commas. Empty or none: nothing.".to_owned()
                }
                Network::Host => format!(
                    "What the cell may reach: names of hosts, separated by commas, or {}: all that this machine reaches. Empty or none: nothing.",
                    Network::Host
                ),
            };
            Field { placeholder: "none".to_owned(), ..Field::new(label, "hosts", "input", description) }
        }
        "Auto-revive" => {
            let choices: Vec<AutoRevive> = [AutoRevive::Ask, AutoRevive::Yes, AutoRevive::No, AutoRevive::Substitute]
                .into_iter()
                .filter(|choice| *choice != AutoRevive::Substitute || policy.substitutes)
                .collect();
            let meanings: Vec<String> =
                choices.iter().map(|choice| format!("{} ({choice})", meaning_of_revival(*choice))).collect();
            let usual = left_out.map_or(AutoRevive::Ask, |proposal| proposal.spec.auto_revive);
            Field {
                options: choices.iter().map(|choice| choice.word()).collect(),
                ..Field::new(
                    label,
                    "auto_revive",
                    "dropdown",
                    format!("When an agent dies: {}. Without a choice: {usual}.", meanings.join(", ")),
                )
            }
        }
        "Council" => Field {
            placeholder: "none".to_owned(),
            ..Field::new(
                label,
                "council",
                "input",
                "Who decides, and how many: none (one director), 2 (any two directors), or 2 of ada, bob.",
            )
        },
        "Limits" => {
            let most = &defaults.limits_max;
            let bounds = if *most == usual {
                format!("At most, and where it is empty: {}.", pairs(most))
            } else {
                format!("At most: {}. Empty: {}.", pairs(most), pairs(&usual))
            };
            Field {
                placeholder: format!("memory={}, cpu={}", show_size(most.memory), processors(most.cpu)),
                ..Field::new(label, "limits", "input", format!("What the cell may use. {bounds}"))
            }
        }
        "Success criteria" => Field {
            placeholder: "- [ ] The tests pass".to_owned(),
            render: "markdown",
            ..Field::new(label, "criteria", "textarea", "A checklist: how to see that it is done.")
        },
        "Objective" => Field {
            needed: true,
            ..Field::new(
                label,
                "objective",
                "textarea",
                "What is to be done, in your own words. The agents are given exactly this.",
            )
        },
        // A field that the parser knows and this does not is not offered; a
        // test says so.
        _ => return None,
    };
    // A choice among nothing is none, and forges refuse it.
    (field.kind != "dropdown" || !field.options.is_empty()).then_some(field)
}

/// The levels from the least that policy allows to the strongest that a
/// backend of this build can give.
fn levels(defaults: &Defaults) -> Vec<Isolation> {
    let strongest = defaults.backends.iter().map(|backend| strongest(*backend)).max().unwrap_or(Isolation::None);
    Isolation::ALL
        .iter()
        .copied()
        .filter(|level| (defaults.isolation_min..=strongest).contains(level))
        // Python's own environment is what one backend adds.
        .filter(|level| *level != Isolation::Level1_5 || defaults.backends.contains(&BackendKind::Venv))
        .collect()
}

fn strongest(backend: BackendKind) -> Isolation {
    match backend {
        BackendKind::Process | BackendKind::Venv | BackendKind::Remote => Isolation::Level2,
        BackendKind::Docker => Isolation::Level3,
    }
}

fn meaning_of_level(level: Isolation) -> &'static str {
    match level {
        Isolation::None => "nothing",
        Isolation::Level1 => "a directory and environment of its own",
        Isolation::Level1_5 => "the same, and a Python environment of its own",
        Isolation::Level2 => "namespaces, a filter for system calls, limits, named network",
        Isolation::Level3 => "a container",
    }
}

fn meaning_of_revival(choice: AutoRevive) -> &'static str {
    match choice {
        AutoRevive::Ask => "ask the directors",
        AutoRevive::Yes => "start it again",
        AutoRevive::No => "leave it",
        AutoRevive::Substitute => "let the next agent take over",
    }
}

fn processors(thousandths: u64) -> String {
    format!("{}", thousandths as f64 / 1000.0)
}

/// Limits as a proposal writes them.
fn pairs(limits: &Limits) -> String {
    format!(
        "memory={}, cpu={}, processes={}, open_files={}, disk={}, files={}, log={}",
        show_size(limits.memory),
        processors(limits.cpu),
        limits.processes,
        limits.open_files,
        show_size(limits.disk),
        limits.files,
        show_size(limits.log)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_somebody_edited_is_told_from_one_that_nobody_did() {
        let text = sealed("name: x\n# made by init\nbody:\n");
        assert!(is_as_written(text.as_bytes()), "{text}");
        for edited in [
            text.replace("name: x", "name: y"),
            text.replace('\n', "\r\n"),
            format!("{text}\n"),
            format!("{text}{SEAL}0\n"),
            text.replace(SEAL, "# "),
            String::new(),
        ] {
            assert!(!is_as_written(edited.as_bytes()), "{edited}");
        }
        assert!(!is_as_written(b"\xff"));
    }
}
