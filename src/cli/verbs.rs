//! The verbs of the command line: those that are commands come from the table of
//! commands ([`crate::mission::grammar`]), the others are [`OwnVerb`].
//!
//! A command's arguments are its texts with names, as a comment's are once its line is
//! split. So both mean the same, and no line is put together to be taken apart again.

use super::OwnVerb;
use super::operate::cell;
use crate::mission::{Argument, ArgumentForm, Command, CommandSpec, Given, On, Verb as Row, grammar};
use crate::operations::{Form, Request, Target};
use clap::{Arg, ArgMatches, FromArgMatches, Subcommand, value_parser};

/// In which order the verbs are shown. A command that is not named here comes last.
const ORDER: [&str; 35] = [
    "demo",
    "serve",
    "init",
    "doctor",
    "config",
    "pins",
    "summon",
    "team",
    "approve",
    "reject",
    "invite",
    "revoke",
    "status",
    "logs",
    "accept",
    "tell",
    "pause",
    "resume",
    "extend",
    "checkpoint",
    "revive",
    "substitute",
    "handoff",
    "decide",
    "vote",
    "close",
    "publish",
    "work",
    "resurrect",
    "destroy",
    "ledger",
    "completions",
    "manual",
    "agent",
    "git-credential",
];

/// A verb that was typed.
#[derive(Debug)]
pub(super) enum Verb {
    /// A command of the table.
    Command(TypedCommand),
    /// Another.
    Own(OwnVerb),
}

impl Verb {
    /// What keys its answer has.
    pub(super) fn form(&self) -> Form {
        match self {
            Self::Command(typed) => Form::of_command(typed.spec.name),
            Self::Own(own) => own.form(),
        }
    }
}

/// A command of the table, as it was typed.
#[derive(Debug)]
pub(super) struct TypedCommand {
    spec: &'static CommandSpec,
    verb: Row,
    matches: ArgMatches,
}

/// The commands that have a verb.
fn commands() -> impl Iterator<Item = (&'static CommandSpec, Row)> {
    grammar().iter().filter_map(|spec| Some((spec, spec.verb?)))
}

impl Subcommand for Verb {
    fn augment_subcommands(line: clap::Command) -> clap::Command {
        let own = OwnVerb::augment_subcommands(clap::Command::new("own"));
        let mut all: Vec<clap::Command> = own.get_subcommands().cloned().collect();
        all.extend(commands().map(|(spec, verb)| shown(spec, verb)));
        let place = |name: &str| ORDER.iter().position(|other| *other == name).unwrap_or(ORDER.len());
        all.sort_by_key(|command| place(command.get_name()));
        line.subcommands(all.into_iter().enumerate().map(|(index, command)| command.display_order(index)))
    }

    fn augment_subcommands_for_update(line: clap::Command) -> clap::Command {
        Self::augment_subcommands(line)
    }

    fn has_subcommand(name: &str) -> bool {
        OwnVerb::has_subcommand(name) || commands().any(|(spec, _)| spec.name == name)
    }
}

impl FromArgMatches for Verb {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        if let Some((name, given)) = matches.subcommand()
            && let Some((spec, verb)) = commands().find(|(spec, _)| spec.name == name)
        {
            return Ok(Self::Command(TypedCommand { spec, verb, matches: given.clone() }));
        }
        OwnVerb::from_arg_matches(matches).map(Self::Own)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A command's verb, as clap reads and shows it.
fn shown(spec: &'static CommandSpec, verb: Row) -> clap::Command {
    clap::Command::new(spec.name).about(verb.about).args(verb.arguments.iter().map(argument))
}

fn argument(argument: &Argument) -> Arg {
    let arg = Arg::new(argument.name).value_name(argument.shown).help(argument.help);
    match argument.form {
        ArgumentForm::Word => arg.required(true),
        ArgumentForm::OptionalWord => arg,
        ArgumentForm::OptionalNumber => arg.value_parser(value_parser!(u32)),
        ArgumentForm::Default(word) => arg.default_value(word),
        ArgumentForm::Text => arg.required(true).num_args(1..),
        ArgumentForm::OptionalText => arg.num_args(1..),
        ArgumentForm::Flag { long, required } => arg.long(long).required(required),
        ArgumentForm::Key => arg.long(argument.name),
    }
}

impl TypedCommand {
    /// What was asked.
    ///
    /// # Errors
    /// Names the argument, and what is allowed.
    pub(super) fn request(&self) -> anyhow::Result<Request> {
        self.check_allowed()?;
        let on = match self.verb.on {
            On::Mission => Target::Mission(self.text("mission").unwrap_or_default().parse()?),
            On::Cell => Target::Cell(cell(&self.text("cell").unwrap_or_default())?),
        };
        let mut given = Given::default();
        let mut keys = vec![];
        for argument in self.verb.arguments.iter().filter(|argument| argument.name != "mission") {
            let Some(text) = self.text(argument.name) else { continue };
            let is_free = matches!(argument.form, ArgumentForm::Text | ArgumentForm::OptionalText);
            if argument.form == ArgumentForm::Key {
                keys.push((argument.name, text));
                continue;
            }
            if text.contains(['\n', '\r']) {
                anyhow::bail!("an argument holds a line break; give it on one line");
            }
            if is_free {
                given.put_free(argument.name, text);
            } else {
                given.put(argument.name, text);
            }
        }
        // What is said of commands names them as comments do, in Markdown.
        let plain = |why: String| anyhow::anyhow!(why.replace('`', ""));
        let mut command = self.spec.with(&given).map_err(plain)?;
        if let Command::Summon { options, .. } = &mut command {
            for (key, text) in keys {
                options.set(key, &text).map_err(|why| plain(format!("--{why}")))?;
            }
        }
        Ok(Request::Give { on, command })
    }

    /// The text of an argument; several words are one text.
    fn text(&self, name: &str) -> Option<String> {
        if let Ok(Some(number)) = self.matches.try_get_one::<u32>(name) {
            return Some(number.to_string());
        }
        let words: Vec<&str> = self.matches.get_many::<String>(name)?.map(String::as_str).collect();
        Some(words.join(" "))
    }

    /// What the command line has few words for, and what goes with what.
    fn check_allowed(&self) -> anyhow::Result<()> {
        for argument in self.verb.arguments.iter().filter(|argument| !argument.allowed.is_empty()) {
            let Some(text) = self.text(argument.name).filter(|text| !text.is_empty()) else { continue };
            if !argument.allowed.contains(&text.as_str()) {
                let name = match argument.form {
                    ArgumentForm::Flag { long, .. } => format!("--{long}"),
                    _ => argument.shown.to_owned(),
                };
                anyhow::bail!("{name} {text}: allowed are {}", argument.allowed.join(", "));
            }
        }
        if self.spec.name == "publish" {
            match (self.text("what").as_deref() == Some("artifact"), self.text("name")) {
                (true, None) => anyhow::bail!("NAME is missing: which file of shared/artifacts"),
                (false, Some(name)) => anyhow::bail!("NAME {name}: only an artifact has a name"),
                _ => {}
            }
        }
        Ok(())
    }
}
