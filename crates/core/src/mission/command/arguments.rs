//! The arguments of commands: as texts with names, wherever they were given, and what
//! they mean.
//!
//! A comment's line is split into [`Given`] by the shape that the command's row has; the
//! command line fills it from its own arguments. From there on both are the same.

#![allow(clippy::unnecessary_wraps, reason = "the functions of all rows of the table have one form")]

use super::parse::LINE_MAX;
use super::table::{Shape, Slot};
use super::{Command, CommandSpec, Publishable, SummonOptions, grammar, outcome, suspicious};
use crate::cell::{CellId, Identity, Role};
use crate::mission::hidden::first_invisible;
use crate::mission::quotes::{is_quoted, unquoted};
use crate::mission::text::duration;
use std::borrow::Cow;

/// The arguments of one command, each a text with a name.
#[derive(Debug, Clone, Default)]
pub struct Given<'a> {
    values: Vec<Value<'a>>,
    /// What is wrong behind the last argument that could be read. What is wrong with one
    /// of those is said first.
    wrong: Option<String>,
}

#[derive(Debug, Clone)]
struct Value<'a> {
    name: &'a str,
    text: Cow<'a, str>,
    /// Whether any script may stand in it.
    is_free: bool,
}

impl<'a> Given<'a> {
    /// Adds a name, a number or a word of ours. Nothing where it is empty.
    pub fn put(&mut self, name: &'a str, text: impl Into<Cow<'a, str>>) {
        self.add(name, text.into(), false);
    }

    /// Adds what somebody says in words of their own. Nothing where it is empty.
    pub fn put_free(&mut self, name: &'a str, text: impl Into<Cow<'a, str>>) {
        self.add(name, text.into(), true);
    }

    fn add(&mut self, name: &'a str, text: Cow<'a, str>, is_free: bool) {
        if !text.trim().is_empty() {
            self.values.push(Value { name, text, is_free });
        }
    }

    fn one(name: &'a str, text: &'a str) -> Self {
        let mut given = Self::default();
        given.put_free(name, text);
        given
    }

    /// The argument of that name, without white space around it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|value| value.name == name).map(|value| value.text.trim())
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    fn need(&self, name: &str, missing: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| missing.to_owned())
    }

    fn cell(&self) -> Result<Option<CellId>, String> {
        self.get("cell").map(|text| CellId::parse(text).map_err(|error| error.to_string())).transpose()
    }

    fn agent(&self, name: &str) -> Result<Option<String>, String> {
        self.get(name).map(agent_name).transpose()
    }
}

impl CommandSpec {
    /// The command with these arguments, which stood in no comment: they are checked as
    /// strictly as if they had.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn with(&self, given: &Given<'_>) -> Result<Command, String> {
        let length = given.values.iter().fold(1 + self.name.len(), |sum, value| sum + 1 + value.text.trim().len());
        if length > LINE_MAX {
            return Err(self.too_long(length));
        }
        let odd = given
            .values
            .iter()
            .find_map(|value| if value.is_free { first_invisible(&value.text) } else { odd_in(&value.text) });
        if let Some(odd) = odd {
            return Err(self.not_what_it_looks_like(odd));
        }
        self.build(given)
    }

    /// The command that a line of a comment gives: `rest` is what stands behind the name.
    pub(super) fn read(&self, rest: &str) -> Result<Command, String> {
        match self.split(rest) {
            Ok(given) => self.build(&given),
            Err(why) => Err(self.refusal(&why)),
        }
    }

    fn build(&self, given: &Given<'_>) -> Result<Command, String> {
        let command = (self.build)(given).map_err(|why| self.refusal(&why))?;
        given.wrong.as_deref().map_or(Ok(command), |why| Err(self.refusal(why)))
    }

    fn refusal(&self, why: &str) -> String {
        format!("`/{}`: {why}. Usage: `{}`", self.name, self.usage)
    }

    pub(super) fn too_long(&self, length: usize) -> String {
        format!("`/{}`: a command may be {LINE_MAX} bytes long; this one has {length}", self.name)
    }

    pub(super) fn not_what_it_looks_like(&self, odd: char) -> String {
        format!(
            "`/{}` holds a character that cannot be seen or is not what it looks like (U+{:04X}); type the line again by hand",
            self.name, odd as u32
        )
    }

    /// The arguments that stand behind the command's name on a line.
    fn split<'a>(&self, rest: &'a str) -> Result<Given<'a>, String> {
        match self.shape {
            Shape::Text(name) => Ok(Given::one(name, rest)),
            Shape::Words(slots) => Ok(words(slots, rest)),
            Shape::Special(split) => split(rest),
        }
    }
}

/// The first character of a name or key that a reader could take for something else.
pub(super) fn odd_in(strict: &str) -> Option<char> {
    // The space of Japanese and Chinese keyboards is wide: nobody overlooks it.
    strict.chars().find(|c| suspicious(*c) && *c != '\u{3000}')
}

/// What was given, short enough to repeat in an answer.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(40).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out.replace('`', "'")
}

// ── From a line to its arguments ─────────────────────────────────────────────

fn words<'a>(slots: &[Slot], rest: &'a str) -> Given<'a> {
    let mut given = Given::default();
    let mut words = rest.split_whitespace();
    for slot in slots {
        let Some(word) = words.next() else { return given };
        match *slot {
            Slot::Word(name) => given.put(name, word),
            Slot::Behind { keyword, name, missing } if word == keyword => match words.next() {
                Some(word) => given.put(name, word),
                None => given.wrong = Some(missing.to_owned()),
            },
            Slot::Behind { keyword, .. } => {
                given.wrong = Some(format!("`{}` is not `{keyword}`", shown(word)));
                return given;
            }
        }
    }
    if let Some(extra) = words.next() {
        given.wrong = Some(one_too_many(extra));
    }
    given
}

fn one_too_many(word: &str) -> String {
    format!("`{}` is one word too many", shown(word))
}

/// `AGENT text`
pub(super) fn split_tell(rest: &str) -> Result<Given<'_>, String> {
    let mut given = Given::default();
    if let Some((agent, text)) = rest.split_once(char::is_whitespace) {
        given.put("agent", agent);
        given.put_free("text", text);
    }
    Ok(given)
}

/// `TASK from A to B`
pub(super) fn split_handoff(rest: &str) -> Result<Given<'_>, String> {
    let parts: Vec<&str> = rest.split_whitespace().collect();
    let [task, "from", from, "to", to] = parts.as_slice() else {
        return Err("the form is TASK from A to B".to_owned());
    };
    let mut given = Given::default();
    given.put("task", *task);
    given.put("from", *from);
    given.put("to", *to);
    Ok(given)
}

/// `WHAT [NAME] [CELL]`: an artifact has a name, which may be quoted.
pub(super) fn split_publish(rest: &str) -> Result<Given<'_>, String> {
    let mut given = Given::default();
    let mut words = rest.split_whitespace();
    let Some(what) = words.next() else { return Ok(given) };
    given.put("what", what);
    if what == "artifact" {
        let after = rest.split_once(char::is_whitespace).map_or("", |(_, after)| after.trim_start());
        if is_quoted(after) {
            let (name, after) = unquoted("artifact", after)?;
            given.values.push(Value { name: "name", text: name.into(), is_free: false });
            words = after.split_whitespace();
        } else if let Some(name) = words.next() {
            given.put("name", name);
        }
    }
    if let Some(cell) = words.next() {
        given.put("cell", cell);
    }
    given.wrong = words.next().map(one_too_many);
    Ok(given)
}

/// `AGENT [key=value…]`
pub(super) fn split_summon(rest: &str) -> Result<Given<'_>, String> {
    split_agents("summon", "agent", rest)
}

/// `A+B [key=value…]`
pub(super) fn split_team(rest: &str) -> Result<Given<'_>, String> {
    split_agents("team", "agents", rest)
}

fn split_agents<'a>(verb: &str, name: &'static str, rest: &'a str) -> Result<Given<'a>, String> {
    let (agents, mut rest) = if is_quoted(rest) {
        unquoted(verb, rest)?
    } else {
        rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
    };
    let mut given = Given::default();
    // Also where it is empty: a key is never taken for it.
    given.values.push(Value { name, text: agents.into(), is_free: false });
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(given);
        }
        let pair = rest.split_once('=').filter(|(key, _)| !key.contains(char::is_whitespace));
        let Some((key, after)) = pair else {
            given.wrong = Some(format!("`{}` is not of the form key=value", shown(rest)));
            return Ok(given);
        };
        // `task` is free text: quoted, or all that is left of the line.
        let (value, next) = if is_quoted(after) {
            match unquoted(&format!("{}=", shown(key)), after) {
                Ok(read) => read,
                Err(why) => {
                    given.wrong = Some(why);
                    return Ok(given);
                }
            }
        } else if key == "task" {
            (after, "")
        } else {
            after.split_once(char::is_whitespace).unwrap_or((after, ""))
        };
        rest = next;
        // Also what is empty, which its key says something about.
        given.values.push(Value { name: key, text: value.into(), is_free: key == "task" });
    }
}

// ── From arguments to a command ──────────────────────────────────────────────

pub(super) fn summon(given: &Given<'_>) -> Result<Command, String> {
    cell_for(given, 1)
}

pub(super) fn team(given: &Given<'_>) -> Result<Command, String> {
    cell_for(given, usize::MAX)
}

fn cell_for(given: &Given<'_>, most: usize) -> Result<Command, String> {
    let Some((agents, keys)) = given.values.split_first().filter(|(first, _)| !first.text.is_empty()) else {
        return Err("AGENT is missing".to_owned());
    };
    let agents = agent_names(&agents.text)?;
    if agents.len() > most {
        return Err("a summons is for one agent; for several use `/team A+B`".to_owned());
    }
    let mut options = SummonOptions::default();
    for key in keys {
        options.set(key.name, &key.text)?;
    }
    Ok(Command::Summon { agents, options })
}

pub(super) fn approve(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Approve { number: given.get("number").map(record_number).transpose()? })
}

pub(super) fn reject(given: &Given<'_>) -> Result<Command, String> {
    let Some(text) = given.get("reason") else { return Ok(Command::Reject { number: None, reason: None }) };
    // A reason may begin with any word; only a bare number is a number.
    let (first, after) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(match record_number(first) {
        Ok(number) => Command::Reject { number: Some(number), reason: some(after.trim()) },
        Err(_) => Command::Reject { number: None, reason: some(text) },
    })
}

pub(super) fn invite(given: &Given<'_>) -> Result<Command, String> {
    let identity = given.need("identity", "IDENTITY is missing")?;
    let role = given.get("role").ok_or_else(|| format!("ROLE is missing; allowed are {}", roles()))?;
    let role = Role::parse(role).ok_or_else(|| format!("`{}` is not a role; allowed are {}", shown(role), roles()))?;
    let cell = given.cell()?;
    Ok(Command::Invite { identity: identity_word(identity)?, role, cell })
}

pub(super) fn revoke(given: &Given<'_>) -> Result<Command, String> {
    let identity = given.need("identity", "IDENTITY is missing")?;
    let cell = given.cell()?;
    Ok(Command::Revoke { identity: identity_word(identity)?, cell })
}

pub(super) fn accept(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Accept { cell: given.cell()? })
}

pub(super) fn tell(given: &Given<'_>) -> Result<Command, String> {
    let (Some(agent), Some(text)) = (given.get("agent"), given.get("text")) else {
        return Err("AGENT or the text is missing".to_owned());
    };
    Ok(Command::Tell { agent: agent_name(agent)?, text: text.to_owned() })
}

pub(super) fn status(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Status { cell: given.cell()? })
}

pub(super) fn help(given: &Given<'_>) -> Result<Command, String> {
    let command = given.get("command").map(|word| word.trim_start_matches('/').to_ascii_lowercase());
    if let Some(name) = &command
        && !grammar().iter().any(|c| c.name == name)
    {
        let all: Vec<&str> = grammar().iter().map(|c| c.name).collect();
        return Err(format!("there is no command `{}`; there are {}", shown(name), all.join(", ")));
    }
    Ok(Command::Help { command })
}

pub(super) fn extend(given: &Given<'_>) -> Result<Command, String> {
    let by = duration(given.need("duration", "DURATION is missing, as in `2h`")?)?;
    Ok(Command::Extend { by, cell: given.cell()? })
}

pub(super) fn pause(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Pause { cell: given.cell()? })
}

pub(super) fn resume(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Resume { cell: given.cell()? })
}

pub(super) fn checkpoint(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Checkpoint { note: given.owned("note") })
}

pub(super) fn revive(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Revive { agent: given.agent("agent")? })
}

pub(super) fn substitute(given: &Given<'_>) -> Result<Command, String> {
    let agent = agent_name(given.need("agent", "AGENT is missing")?)?;
    Ok(Command::Substitute { agent, instead_of: given.agent("instead_of")? })
}

pub(super) fn handoff(given: &Given<'_>) -> Result<Command, String> {
    let part = |name| given.need(name, "the form is TASK from A to B");
    let (task, from, to) = (part("task")?, part("from")?, part("to")?);
    Ok(Command::Handoff { task: task.to_owned(), from: agent_name(from)?, to: agent_name(to)? })
}

pub(super) fn decide(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Decide { text: given.need("text", "TEXT is missing")?.to_owned() })
}

pub(super) fn vote(given: &Given<'_>) -> Result<Command, String> {
    let yes = match given.get("vote").map(str::to_ascii_lowercase).as_deref() {
        Some("yes") => true,
        Some("no") => false,
        _ => return Err("say `yes` or `no`".to_owned()),
    };
    Ok(Command::Vote { yes, on: given.owned("on") })
}

pub(super) fn publish(given: &Given<'_>) -> Result<Command, String> {
    let what = match given.get("what").unwrap_or_default() {
        "work" => Publishable::Work,
        "notes" => Publishable::Notes,
        "decisions" => Publishable::Decisions,
        "checkpoint" => Publishable::Checkpoint,
        "artifact" => {
            let name = given.values.iter().find(|value| value.name == "name");
            Publishable::Artifact(name.ok_or("NAME after `artifact` is missing")?.text.clone().into_owned())
        }
        other => {
            return Err(format!(
                "`{}` cannot be published; allowed are notes, decisions, checkpoint, artifact NAME, work",
                shown(other)
            ));
        }
    };
    Ok(Command::Publish { what, cell: given.cell()? })
}

pub(super) fn close(given: &Given<'_>) -> Result<Command, String> {
    let (outcome, cell) = (given.get("outcome").and_then(outcome::outcome_word), given.cell()?);
    outcome::close(given.get("reason").unwrap_or_default(), outcome, cell)
}

pub(super) fn resurrect(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Resurrect { cell: given.cell()? })
}

pub(super) fn destroy(given: &Given<'_>) -> Result<Command, String> {
    Ok(Command::Destroy { cell: given.cell()?.ok_or("CELL is missing; destroying is never guessed")? })
}

// ── What one word means ──────────────────────────────────────────────────────

/// The number of a request: `2` or `#2`.
fn record_number(word: &str) -> Result<u32, String> {
    let digits = word.strip_prefix('#').unwrap_or(word);
    digits
        .parse()
        .ok()
        .filter(|number| *number > 0 && digits.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| format!("`{}` is not the number of a request, such as `2`", shown(word)))
}

fn roles() -> String {
    Role::ALL.map(Role::word).join(", ")
}

fn identity_word(word: &str) -> Result<String, String> {
    // `@login` is how people write a person.
    if let Some(login) = word.strip_prefix('@') {
        return Identity::parse(&format!("human:{login}")).map(|i| i.to_string()).map_err(|e| e.to_string());
    }
    if word.contains(':') {
        return Identity::parse(word).map(|i| i.to_string()).map_err(|e| e.to_string());
    }
    Identity::parse(&format!("agent:{word}"))
        .map(|i| i.to_string())
        .map_err(|_| format!("`{}` is not an identity: `agent:NAME`, `bot:NAME` or `human:LOGIN`", shown(word)))
}

fn agent_name(word: &str) -> Result<String, String> {
    let good = word.len() <= 32
        && word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if good {
        Ok(word.to_owned())
    } else {
        Err(format!(
            "`{}` is not an agent's name; a name has 1 to 32 lower-case letters, digits, - and _, and begins with a letter",
            shown(word)
        ))
    }
}

/// `A+B` to names, each once.
pub(in super::super) fn agent_names(text: &str) -> Result<Vec<String>, String> {
    let mut names = vec![];
    for word in text.split(['+', ',']).map(str::trim) {
        let name = agent_name(word)?;
        if names.contains(&name) {
            return Err(format!("agent `{name}` is named twice"));
        }
        names.push(name);
    }
    Ok(names)
}
