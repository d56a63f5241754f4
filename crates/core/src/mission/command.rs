//! Slash commands in comments: where one may stand, and what it says.
//!
//! A command is a line of ordinary text that begins with `/`. Ordinary means:
//! in a paragraph at the top level of the comment, outside of code, quotes,
//! lists, links, tables, HTML and `<details>`. Arguments are literal strings;
//! nothing is expanded.

use super::hidden::first_invisible;
use super::misplaced::{Place, misplaced};
use super::quotes::{in_quotes, is_quoted, unquoted};
use super::text::{duration, duration_words};
use crate::cell::{BackendKind, CellId, Identity, Isolation, Network, Outcome, Role};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Most commands that are read from one comment; the rest is refused.
pub const COMMANDS_MAX: usize = 10;
/// Longest line that is read as a command, in bytes.
pub const LINE_MAX: usize = 4096;
/// Longest comment that is searched for commands, in bytes.
pub const COMMENT_MAX: usize = 64 * 1024;

/// What one command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the arguments of contract §7")]
pub enum Command {
    Summon {
        agents: Vec<String>,
        options: SummonOptions,
    },
    Approve {
        #[serde(default)]
        number: Option<u32>,
    },
    Reject {
        #[serde(default)]
        number: Option<u32>,
        reason: Option<String>,
    },
    Invite {
        identity: String,
        role: Role,
        cell: Option<CellId>,
    },
    Revoke {
        identity: String,
        cell: Option<CellId>,
    },
    Accept {
        cell: Option<CellId>,
    },
    Tell {
        agent: String,
        text: String,
    },
    Status {
        cell: Option<CellId>,
    },
    Help {
        command: Option<String>,
    },
    Extend {
        by: i64,
        cell: Option<CellId>,
    },
    Pause {
        cell: Option<CellId>,
    },
    Resume {
        cell: Option<CellId>,
    },
    Checkpoint {
        note: Option<String>,
    },
    Revive {
        agent: Option<String>,
    },
    Substitute {
        agent: String,
        instead_of: Option<String>,
    },
    Handoff {
        task: String,
        from: String,
        to: String,
    },
    Decide {
        text: String,
    },
    Vote {
        yes: bool,
        on: Option<String>,
    },
    Publish {
        what: Publishable,
        cell: Option<CellId>,
    },
    Close {
        /// What the director said; `None` where nothing was said of it.
        #[serde(default)]
        outcome: Option<Outcome>,
        reason: Option<String>,
        cell: Option<CellId>,
    },
    Resurrect {
        cell: Option<CellId>,
    },
    Destroy {
        cell: CellId,
    },
}

/// What leaves a cell only if a director says so (contract §8), and its work,
/// where the forge refused it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Publishable {
    /// The commits: branch and pull request.
    Work,
    /// The shared notes, if they are marked `PUBLISH`.
    Notes,
    /// The record of decisions.
    Decisions,
    /// A checkpoint.
    Checkpoint,
    /// A file of `shared/artifacts`, by name.
    Artifact(String),
}

/// The keys of `/summon` and `/team`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SummonOptions {
    /// How it runs.
    pub backend: Option<BackendKind>,
    /// The weakest isolation that is acceptable.
    pub isolation: Option<Isolation>,
    /// Time to live, in milliseconds.
    pub ttl: Option<i64>,
    /// What it may reach.
    pub network: Option<Network>,
    /// The model.
    pub model: Option<String>,
    /// The task beside the issue's text.
    pub task: Option<String>,
}

/// A command's name and one line on it, for `/help` and "did you mean".
#[derive(Debug, Clone, Copy)]
pub struct CommandKind {
    /// The word after the slash.
    pub name: &'static str,
    /// Arguments, as a person would write them.
    pub usage: &'static str,
    /// Who may.
    pub who: &'static str,
    /// What it does.
    pub does: &'static str,
}

const fn c(name: &'static str, usage: &'static str, who: &'static str, does: &'static str) -> CommandKind {
    CommandKind { name, usage, who, does }
}

/// Every command of contract §7, in its order.
pub const fn grammar() -> &'static [CommandKind] {
    GRAMMAR
}

const GRAMMAR: &[CommandKind] = &[
    c(
        "summon",
        "/summon AGENT [backend= isolation= ttl= network= model= task=]",
        "director; write access asks",
        "a cell for one agent",
    ),
    c("team", "/team A+B[+C…] [key=value…]", "director; write access asks", "one cell, several executors"),
    c("approve", "/approve [NUMBER]", "director", "approves the open proposal or request"),
    c("reject", "/reject [NUMBER] [reason]", "director", "rejects it"),
    c("invite", "/invite IDENTITY ROLE [CELL]", "director", "invites `agent:NAME`, `bot:NAME` or `human:LOGIN`"),
    c("revoke", "/revoke IDENTITY [CELL]", "director", "takes an invitation or a participation back"),
    c("accept", "/accept [CELL]", "the invited human", "accepts an invitation"),
    c("tell", "/tell AGENT text", "director, write access", "hands text to an agent"),
    c("status", "/status [CELL]", "everyone", "how the cells of this mission stand"),
    c("help", "/help [COMMAND]", "everyone", "this list"),
    c("extend", "/extend DURATION [CELL]", "director", "makes the time to live longer"),
    c("pause", "/pause [CELL]", "director", "freezes the cell"),
    c("resume", "/resume [CELL]", "director", "thaws it"),
    c("checkpoint", "/checkpoint [note]", "director", "takes a snapshot"),
    c("revive", "/revive [AGENT]", "director", "starts dead agents again"),
    c("substitute", "/substitute AGENT [for AGENT]", "director", "another agent takes over"),
    c("handoff", "/handoff TASK from A to B", "director", "hands a task over"),
    c("decide", "/decide TEXT", "director; council", "records a decision"),
    c("vote", "/vote yes|no [on ID]", "director; council", "votes on a decision"),
    c(
        "publish",
        "/publish notes|decisions|checkpoint|artifact NAME|work [CELL]",
        "director",
        "lets something optional out, or tries the work again",
    ),
    c("close", "/close [completed|failed|abandoned] [CELL] [reason]", "director", "ends the cell"),
    c("resurrect", "/resurrect [CELL]", "director", "brings a closed cell back within its grace period"),
    c("destroy", "/destroy CELL", "director", "scrubs a cell"),
];

/// One line of a comment that looked like a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// A command.
    Command {
        /// Byte range of the line in the comment.
        at: Range<usize>,
        /// What it says.
        command: Command,
    },
    /// Meant as a command, but not one: answered with the reason.
    Refused {
        /// Byte range of the line in the comment.
        at: Range<usize>,
        /// What is wrong, and what is allowed. Our words; what was given is
        /// quoted in it, so it goes through the gate like everything else.
        why: String,
        /// The command that is meant, where its name is written out; `None` for what
        /// is one slip away from one, and for what is said of a whole comment.
        #[serde(default)]
        of: Option<String>,
    },
}

impl Line {
    /// Whether it is only one slip away from a command.
    pub fn is_slip(&self) -> bool {
        matches!(self, Self::Refused { at, of: None, .. } if !at.is_empty())
    }
}

/// A command in a place where none counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misplaced {
    /// The command's name, as [`grammar`] has it.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// What a comment says to Lazarus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parsed {
    /// Its commands and refusals, in order, at most [`COMMANDS_MAX`] and one
    /// more that says how many were left out.
    pub lines: Vec<Line>,
    /// Commands that stand where none counts, each name once. They are never
    /// carried out.
    pub misplaced: Vec<Misplaced>,
}

impl Parsed {
    /// Whether it says nothing at all to Lazarus.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.misplaced.is_empty()
    }
}

/// Characters that make a line look like what it is not: zero width and bidi
/// controls, NBSP and its like, other slashes, NUL and other controls.
pub fn suspicious(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}'
        | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{1680}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
        | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2044}' | '\u{205f}'..='\u{206f}' | '\u{2215}'
        | '\u{29f8}' | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ff0f}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffd}' | '\u{e0000}'..='\u{e0fff}')
}

fn is_slash_like(c: char) -> bool {
    matches!(c, '/' | '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{ff0f}')
}

/// Reads the commands of a comment, at most [`COMMANDS_MAX`].
pub fn parse_comment(body: &str) -> Parsed {
    parse_commands(body, COMMANDS_MAX, None)
}

/// Reads the commands of a comment, at most so many, and never more than
/// [`COMMANDS_MAX`]. With a prefix each is written behind it, as in `/lazarus summon`,
/// and nothing else is one.
pub fn parse_commands(body: &str, most: usize, prefix: Option<&str>) -> Parsed {
    let most = most.min(COMMANDS_MAX);
    let mut parsed = Parsed::default();
    if body.len() > COMMENT_MAX {
        if mentions_command(body, prefix) {
            parsed.lines.push(Line::Refused {
                at: 0..0,
                why: format!(
                    "comments over {} KiB are not searched for commands; send them in a short one",
                    COMMENT_MAX / 1024
                ),
                of: None,
            });
        }
        return parsed;
    }
    let mut left_out = 0;
    let plain = plain_lines(body);
    let mut given: Vec<&str> = vec![];
    for range in &plain {
        let line = &body[range.clone()];
        let Some((of, result)) = read_prefixed(line, prefix) else { continue };
        given.extend(of);
        if parsed.lines.len() >= most {
            left_out += 1;
            continue;
        }
        let at = range.clone();
        parsed.lines.push(match result {
            Ok(command) => Line::Command { at, command },
            Err(why) => Line::Refused { at, why, of: of.map(str::to_owned) },
        });
    }
    parsed.misplaced = misplaced(body, &plain, &given, prefix);
    if left_out > 0 {
        parsed.lines.push(Line::Refused {
            at: 0..0,
            why: format!("a comment may hold at most {most} commands; {left_out} more were not read"),
            of: None,
        });
    }
    parsed
}

/// Whether an over-long text has a line that begins with a known command.
fn mentions_command(body: &str, prefix: Option<&str>) -> bool {
    body.lines().any(|line| {
        line.strip_prefix('/').and_then(|rest| behind_prefix(rest, prefix)).is_some_and(|rest| {
            let word: String = rest.chars().take(16).take_while(char::is_ascii_alphabetic).collect();
            grammar().iter().any(|c| c.name == word)
        })
    })
}

/// Markdown as the forge reads it.
pub(super) fn markdown() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_MATH
}

/// The lines of ordinary text: byte ranges in `body`, without line ends.
fn plain_lines(body: &str) -> Vec<Range<usize>> {
    // What stands between two lines of `---` at the top is front matter: the
    // forge shows it as a table, or folded.
    let text_from = front_matter(body);
    let mut depth = 0usize;
    let mut paragraph: Option<Range<usize>> = None;
    let mut texts: Vec<Range<usize>> = vec![];
    let mut html = OpenHtml::default();
    let mut block = String::new();
    let mut lines = vec![];
    for (event, range) in Parser::new_ext(body, markdown()).into_offset_iter() {
        match event {
            Event::Start(Tag::Paragraph) if depth == 0 => {
                depth = 1;
                texts.clear();
                paragraph = (html.is_closed() && range.start >= text_from).then_some(range);
            }
            Event::End(TagEnd::Paragraph) if depth == 1 => {
                depth = 0;
                if let Some(paragraph) = paragraph.take() {
                    lines.extend(lines_in(body, paragraph, &texts));
                }
            }
            Event::End(TagEnd::HtmlBlock) => {
                depth = depth.saturating_sub(1);
                html.read(&std::mem::take(&mut block));
            }
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(_) if depth == 1 && html.is_closed() => texts.push(range),
            Event::Html(piece) => block.push_str(&piece),
            Event::InlineHtml(piece) => html.read(&piece),
            _ => {}
        }
    }
    lines
}

/// Where the text begins behind front matter; the end where it is not closed.
pub(super) fn front_matter(body: &str) -> usize {
    let mut lines = body.split_inclusive('\n');
    let Some(first) = lines.next().filter(|l| l.trim_end() == "---") else { return 0 };
    let mut at = first.len();
    for line in lines {
        at += line.len();
        if line.trim_end() == "---" {
            return at;
        }
    }
    body.len()
}

/// Which HTML elements are open. A reader sees nothing of what is folded away
/// in one, so inside of one nothing is a command; and where it is not plain
/// which are open, nothing that follows is one either.
#[derive(Default)]
pub(super) struct OpenHtml {
    open: Vec<String>,
    unclear: bool,
}

impl OpenHtml {
    pub(super) fn is_closed(&self) -> bool {
        self.open.is_empty() && !self.unclear
    }

    /// Whether all that is open only changes how words look.
    pub(super) fn is_print(&self) -> bool {
        const PRINT: [&str; 15] =
            ["a", "b", "code", "del", "em", "font", "i", "ins", "kbd", "mark", "s", "span", "strong", "sub", "u"];
        !self.unclear && self.open.iter().all(|name| PRINT.contains(&name.as_str()))
    }

    pub(super) fn read(&mut self, html: &str) {
        const VOID: [&str; 14] = [
            "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track",
            "wbr",
        ];
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            rest = &rest[at + 1..];
            if let Some(comment) = rest.strip_prefix("!--") {
                match comment.find("-->") {
                    Some(end) => rest = &comment[end + 3..],
                    None => return self.unclear = true,
                }
                continue;
            }
            let Some((tag, after)) = rest.split_once('>') else { return self.unclear = true };
            rest = after;
            let closing = tag.starts_with('/');
            let name: String = tag
                .trim_start_matches('/')
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect::<String>()
                .to_ascii_lowercase();
            // Attributes can hold what looks like tags, `/>` closes nothing.
            if name.is_empty()
                || tag.contains(['<', '"', '\'', '`'])
                || (tag.contains('/') && !closing && !VOID.contains(&name.as_str()))
            {
                return self.unclear = true;
            }
            if VOID.contains(&name.as_str()) {
                continue;
            }
            if !closing {
                self.open.push(name);
            } else if self.open.last() == Some(&name) {
                self.open.pop();
            } else {
                return self.unclear = true;
            }
        }
    }
}

fn lines_in(body: &str, paragraph: Range<usize>, texts: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut out = vec![];
    let mut start = paragraph.start;
    let mut texts = texts.iter().peekable();
    for line in body[paragraph].split_inclusive('\n') {
        let end = start + line.trim_end_matches(['\n', '\r']).len();
        let indent = line.len() - line.trim_start_matches(' ').len();
        let first = start + indent;
        // Both are in order, so each text is looked at once.
        while texts.next_if(|t| t.end <= first).is_some() {}
        // The first character has to be plain text, not part of code, a link or HTML.
        if first < end && texts.peek().is_some_and(|t| t.start <= first) {
            out.push(first..end);
        }
        start += line.len();
    }
    out
}

/// What stands behind the prefix of commands, if a text begins with it; the whole where
/// there is no prefix.
pub(super) fn behind_prefix<'a>(text: &'a str, prefix: Option<&str>) -> Option<&'a str> {
    let Some(prefix) = prefix else { return Some(text) };
    let (word, behind) = text.split_at_checked(prefix.len())?;
    (word.eq_ignore_ascii_case(prefix) && behind.starts_with([' ', '\t']))
        .then(|| behind.trim_start_matches([' ', '\t']))
}

/// A command's name, where that is written out, and what the line says.
pub(super) type Read = (Option<&'static str>, Result<Command, String>);

/// Reads one plain line, as [`read_line`], behind the prefix where there is one.
pub(super) fn read_prefixed(line: &str, prefix: Option<&str>) -> Option<Read> {
    let Some(prefix) = prefix else { return read_line(line) };
    let looks = line.trim_start_matches(suspicious_not_slash);
    let mut chars = looks.chars();
    if !chars.next().is_some_and(is_slash_like) {
        return None;
    }
    let word: String = chars.take_while(|c| !c.is_whitespace()).filter(|c| !suspicious(*c)).take(40).collect();
    if !word.eq_ignore_ascii_case(prefix) {
        return None;
    }
    // From here on it is meant for us, so whatever it is, it is answered.
    let Some(behind) = line.strip_prefix('/').and_then(|rest| behind_prefix(rest, Some(prefix))) else {
        let why = match line.chars().find(|c| suspicious(*c)) {
            Some(odd) => format!(
                "`/{prefix}` holds a character that cannot be seen or is not what it looks like (U+{:04X}); type the line again by hand",
                odd as u32
            ),
            None => "a command is missing; `/help` lists them".to_owned(),
        };
        return Some((None, Err(why)));
    };
    let command = format!("/{}", behind.strip_prefix('/').unwrap_or(behind));
    Some(read_line(&command).unwrap_or_else(|| {
        let word = behind.split_whitespace().next().unwrap_or_default();
        (None, Err(format!("there is no command `{}`; `/help` lists them", shown(word))))
    }))
}

/// Reads one plain line: `None` where it is not meant for us. The first value is the
/// command's name, where that is written out.
fn read_line(line: &str) -> Option<Read> {
    let looks = line.trim_start_matches(suspicious_not_slash);
    let first = looks.chars().next()?;
    if !is_slash_like(first) {
        return None;
    }
    let word: String = looks
        .chars()
        .skip(1)
        .take_while(|c| !c.is_whitespace() && !is_slash_like(*c))
        .filter(|c| !suspicious(*c))
        .take(24)
        .collect();
    // A path such as `/usr/bin` is no command.
    let after = looks.chars().skip(1).find(|c| !c.is_alphanumeric());
    let known = grammar().iter().find(|c| c.name == word.to_ascii_lowercase());
    if after.is_some_and(is_slash_like) && known.is_none() {
        return None;
    }
    let Some(kind) = known else {
        let lower = word.to_ascii_lowercase();
        let near = (lower.len() >= 3)
            .then(|| grammar().iter().find(|c| strsim::damerau_levenshtein(c.name, &lower) == 1))
            .flatten()?;
        return Some((None, Err(format!("there is no command `/{lower}`; did you mean `/{}`?", near.name))));
    };
    Some((Some(kind.name), read_known(kind, &word, line)))
}

/// Reads a line that begins with the name of a command.
fn read_known(kind: &CommandKind, word: &str, line: &str) -> Result<Command, String> {
    if line.len() > LINE_MAX {
        return Err(format!("`/{}`: a command may be {LINE_MAX} bytes long; this one has {}", kind.name, line.len()));
    }
    // What stands before the name, in it, or right behind it, must be what it looks like.
    let rest = line.strip_prefix('/').and_then(|rest| rest.strip_prefix(word));
    let odd = match rest {
        Some(rest) => odd_character(kind, rest),
        None => line.chars().find(|c| suspicious(*c)),
    };
    if let Some(odd) = odd {
        return Err(format!(
            "`/{}` holds a character that cannot be seen or is not what it looks like (U+{:04X}); type the line again by hand",
            kind.name, odd as u32
        ));
    }
    let rest = rest.unwrap_or_default().trim();
    read_arguments(kind, rest).map_err(|why| format!("`/{}`: {why}. Usage: `{}`", kind.name, kind.usage))
}

/// The first character of a command's arguments that is not what it looks like.
/// Free text may be in any script, with whatever that script needs (contract §7);
/// in names and keys nothing may stand that a reader could take for something else.
fn odd_character(kind: &CommandKind, rest: &str) -> Option<char> {
    let (strict, free) = rest.split_at(free_text_from(kind.name, rest));
    // The space of Japanese and Chinese keyboards is wide: nobody overlooks it.
    strict.chars().find(|c| suspicious(*c) && *c != '\u{3000}').or_else(|| first_invisible(free))
}

/// Where the free text of a command's arguments begins; their end where there is none.
fn free_text_from(name: &str, rest: &str) -> usize {
    // The character between the name and what follows belongs to the name.
    let first = rest.chars().next().map_or(0, char::len_utf8);
    match name {
        "decide" | "checkpoint" | "reject" | "close" => first,
        "tell" => {
            let agent = rest.len() - rest.trim_start().len();
            rest[agent..].find(char::is_whitespace).map_or(rest.len(), |end| agent + end)
        }
        "summon" | "team" => rest
            .match_indices("task=")
            .find(|(at, _)| rest[..*at].ends_with(char::is_whitespace))
            .map_or(rest.len(), |(at, key)| at + key.len()),
        _ => rest.len(),
    }
}

fn suspicious_not_slash(c: char) -> bool {
    suspicious(c) && !is_slash_like(c)
}

fn read_arguments(kind: &CommandKind, rest: &str) -> Result<Command, String> {
    let mut words = rest.split_whitespace();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let cell = |word: Option<&str>| word.map(|w| CellId::parse(w).map_err(|e| e.to_string())).transpose();
    let nothing_more = |command: Command, mut words: std::str::SplitWhitespace<'_>| match words.next() {
        None => Ok(command),
        Some(extra) => Err(format!("`{}` is one word too many", shown(extra))),
    };
    match kind.name {
        "summon" | "team" => summon(kind.name, rest),
        "approve" => {
            let number = words.next().map(record_number).transpose()?;
            nothing_more(Command::Approve { number }, words)
        }
        "reject" => {
            // A reason may begin with any word; only a bare number is a number.
            let (first, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            match record_number(first) {
                Ok(number) => Ok(Command::Reject { number: Some(number), reason: some(after.trim()) }),
                Err(_) => Ok(Command::Reject { number: None, reason: some(rest) }),
            }
        }
        "invite" => {
            let identity = words.next().ok_or("IDENTITY is missing")?;
            let role = words.next().ok_or_else(|| format!("ROLE is missing; allowed are {}", roles()))?;
            let role =
                Role::parse(role).ok_or_else(|| format!("`{}` is not a role; allowed are {}", shown(role), roles()))?;
            let cell = cell(words.next())?;
            nothing_more(Command::Invite { identity: identity_word(identity)?, role, cell }, words)
        }
        "revoke" => {
            let identity = words.next().ok_or("IDENTITY is missing")?;
            let cell = cell(words.next())?;
            nothing_more(Command::Revoke { identity: identity_word(identity)?, cell }, words)
        }
        "accept" => {
            let cell = cell(words.next())?;
            nothing_more(Command::Accept { cell }, words)
        }
        "tell" => {
            let (agent, text) = rest.split_once(char::is_whitespace).ok_or("AGENT or the text is missing")?;
            Ok(Command::Tell { agent: agent_name(agent)?, text: text.trim().to_owned() })
        }
        "status" => {
            let cell = cell(words.next())?;
            nothing_more(Command::Status { cell }, words)
        }
        "help" => {
            let command = words.next().map(|w| w.trim_start_matches('/').to_ascii_lowercase());
            if let Some(name) = &command
                && !grammar().iter().any(|c| c.name == name)
            {
                let all: Vec<&str> = grammar().iter().map(|c| c.name).collect();
                return Err(format!("there is no command `{}`; there are {}", shown(name), all.join(", ")));
            }
            nothing_more(Command::Help { command }, words)
        }
        "extend" => {
            let by = duration(words.next().ok_or("DURATION is missing, as in `2h`")?)?;
            let cell = cell(words.next())?;
            nothing_more(Command::Extend { by, cell }, words)
        }
        "pause" => {
            let cell = cell(words.next())?;
            nothing_more(Command::Pause { cell }, words)
        }
        "resume" => {
            let cell = cell(words.next())?;
            nothing_more(Command::Resume { cell }, words)
        }
        "checkpoint" => Ok(Command::Checkpoint { note: some(rest) }),
        "revive" => {
            let agent = words.next().map(agent_name).transpose()?;
            nothing_more(Command::Revive { agent }, words)
        }
        "substitute" => {
            let agent = agent_name(words.next().ok_or("AGENT is missing")?)?;
            let instead_of = match words.next() {
                None => None,
                Some("for") => Some(agent_name(words.next().ok_or("AGENT after `for` is missing")?)?),
                Some(other) => return Err(format!("`{}` is not `for`", shown(other))),
            };
            nothing_more(Command::Substitute { agent, instead_of }, words)
        }
        "handoff" => {
            let parts: Vec<&str> = words.collect();
            match parts.as_slice() {
                [task, "from", from, "to", to] => {
                    Ok(Command::Handoff { task: (*task).to_owned(), from: agent_name(from)?, to: agent_name(to)? })
                }
                _ => Err("the form is TASK from A to B".to_owned()),
            }
        }
        "decide" => Ok(Command::Decide { text: some(rest).ok_or("TEXT is missing")? }),
        "vote" => {
            let yes = match words.next().map(str::to_ascii_lowercase).as_deref() {
                Some("yes") => true,
                Some("no") => false,
                _ => return Err("say `yes` or `no`".to_owned()),
            };
            let on = match words.next() {
                None => None,
                Some("on") => Some(words.next().ok_or("ID after `on` is missing")?.to_owned()),
                Some(other) => return Err(format!("`{}` is not `on`", shown(other))),
            };
            nothing_more(Command::Vote { yes, on }, words)
        }
        "publish" => {
            let what = match words.next() {
                Some("work") => Publishable::Work,
                Some("notes") => Publishable::Notes,
                Some("decisions") => Publishable::Decisions,
                Some("checkpoint") => Publishable::Checkpoint,
                Some("artifact") => {
                    let after = rest.split_once(char::is_whitespace).map_or("", |(_, after)| after.trim_start());
                    if is_quoted(after) {
                        let (name, after) = unquoted("artifact", after)?;
                        words = after.split_whitespace();
                        Publishable::Artifact(name.to_owned())
                    } else {
                        Publishable::Artifact(words.next().ok_or("NAME after `artifact` is missing")?.to_owned())
                    }
                }
                other => {
                    return Err(format!(
                        "`{}` cannot be published; allowed are notes, decisions, checkpoint, artifact NAME, work",
                        shown(other.unwrap_or_default())
                    ));
                }
            };
            let cell = cell(words.next())?;
            nothing_more(Command::Publish { what, cell }, words)
        }
        "close" => close(rest),
        "resurrect" => {
            let cell = cell(words.next())?;
            nothing_more(Command::Resurrect { cell }, words)
        }
        "destroy" => {
            let cell = cell(words.next())?.ok_or("CELL is missing; destroying is never guessed")?;
            nothing_more(Command::Destroy { cell }, words)
        }
        other => Err(format!("`{other}` has no grammar")),
    }
}

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

/// What was given, short enough to repeat in an answer.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(40).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out.replace('`', "'")
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

pub(super) fn agent_name(word: &str) -> Result<String, String> {
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
pub(super) fn agent_names(text: &str) -> Result<Vec<String>, String> {
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

fn summon(verb: &str, rest: &str) -> Result<Command, String> {
    let (who, mut rest) = if is_quoted(rest) {
        unquoted(verb, rest)?
    } else {
        rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
    };
    if who.is_empty() {
        return Err("AGENT is missing".to_owned());
    }
    let agents = agent_names(who)?;
    if verb == "summon" && agents.len() > 1 {
        return Err("a summons is for one agent; for several use `/team A+B`".to_owned());
    }
    let mut options = SummonOptions::default();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        let (key, after) = rest
            .split_once('=')
            .filter(|(k, _)| !k.contains(char::is_whitespace))
            .ok_or_else(|| format!("`{}` is not of the form key=value", shown(rest)))?;
        // `task` is free text: quoted, or all that is left of the line.
        let (value, next) = if is_quoted(after) {
            unquoted(&format!("{}=", shown(key)), after)?
        } else if key == "task" {
            (after, "")
        } else {
            after.split_once(char::is_whitespace).unwrap_or((after, ""))
        };
        rest = next;
        options.set(key, value)?;
    }
    Ok(Command::Summon { agents, options })
}

/// Words that say an outcome, as people write them.
fn outcome_word(word: &str) -> Option<Outcome> {
    Some(match word {
        "completed" | "complete" | "done" | "finished" => Outcome::Completed,
        "failed" | "fail" | "failure" | "unsuccessful" => Outcome::Failed,
        "abandoned" | "abandon" => Outcome::Abandoned,
        _ => return None,
    })
}

/// Words that say that something was not done.
const UNDONE: [&str; 6] = ["incomplete", "incompleted", "unfinished", "undone", "uncompleted", "unresolved"];

/// `/close [as] [OUTCOME] [CELL] [reason]`, outcome and cell in either order.
///
/// What denies is never taken for `completed`: `not done` and the like are `failed`,
/// and where it is not plain what is meant, the director is asked.
fn close(rest: &str) -> Result<Command, String> {
    let (mut outcome, mut named) = (None, None);
    let mut left = rest;
    while outcome.is_none() || named.is_none() {
        let (word, after) = left.split_once(char::is_whitespace).unwrap_or((left, ""));
        let bare = bare_word(word);
        if outcome.is_none()
            && let Some((found, behind)) = outcome_at_start(left)
        {
            if behind.starts_with('?') {
                return Err("it is a question how it ended; say `completed`, `failed` or `abandoned`".to_owned());
            }
            outcome = Some(found);
            left = behind.trim_start_matches(is_closing).trim_start();
            // `complete failure` is not `completed`.
            if found == Outcome::Completed && bare != "completed" {
                outcome_of(left)?.map_or(Ok(()), |_| Err(NOT_PLAIN.to_owned()))?;
            }
            continue;
        } else if named.is_none()
            && let Ok(found) = CellId::parse(&bare)
        {
            named = Some(found);
        } else if outcome.is_none() && bare == "as" {
            // `as failed`; what follows says the outcome.
            let next = bare_word(after.split_whitespace().next().unwrap_or_default());
            if outcome_word(&next).is_none() && next != "not" && !UNDONE.contains(&next.as_str()) {
                break;
            }
        } else {
            break;
        }
        left = after.trim_start();
    }
    let (first, after) = left.split_once(char::is_whitespace).unwrap_or((left, ""));
    let reason = if first.chars().all(is_closing) { after.trim() } else { left.trim() };
    let outcome = match outcome {
        Some(outcome) => Some(outcome),
        None => outcome_of(reason)?,
    };
    Ok(Command::Close { outcome, reason: (!reason.is_empty()).then(|| reason.to_owned()), cell: named })
}

const NOT_PLAIN: &str = "it is not plain how it ended; say `completed`, `failed` or `abandoned` before the reason";

/// A word without signs around it, in lower case.
fn bare_word(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

/// An outcome at the beginning, and what stands behind its word: `failed: because`,
/// `*Failed*, because`. A part of a longer word (`failed-over`) is none.
fn outcome_at_start(text: &str) -> Option<(Outcome, &str)> {
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric() && !c.is_whitespace());
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    let (word, behind) = text.split_at(end);
    let mut signs = behind.chars();
    let joined =
        matches!(signs.next(), Some('-' | '_' | '/' | '\'')) && signs.next().is_some_and(char::is_alphanumeric);
    outcome_word(&word.to_lowercase()).filter(|_| !joined).map(|outcome| (outcome, behind))
}

/// Signs that end a word or stand between an outcome and its reason.
fn is_closing(c: char) -> bool {
    matches!(c, '.' | ',' | ':' | ';' | '!' | '-' | '*' | '_' | '`' | ')' | ']' | '"' | '\'')
        || matches!(
            c,
            '\u{2013}' | '\u{2014}' | '\u{2026}' | '\u{2019}' | '\u{201d}' | '\u{ff1a}' | '\u{3002}' | '\u{3001}'
        )
}

/// What a reason without an outcome says of it.
///
/// # Errors
/// Where it denies something, and it is not plain what: then it is asked for.
fn outcome_of(reason: &str) -> Result<Option<Outcome>, String> {
    let words: Vec<String> = reason
        .to_lowercase()
        .replace('\u{2019}', "'")
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned())
        .filter(|word| !word.is_empty())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = |word: &str| outcome_word(word) == Some(Outcome::Completed) || word == "working" || word == "ready";
    match words.as_slice() {
        [first, ..] if UNDONE.contains(first) => return Ok(Some(Outcome::Failed)),
        // `not done`, `not yet done`, `never finished`.
        ["not" | "never", second, ..] if done(second) => return Ok(Some(Outcome::Failed)),
        ["not" | "never", _, third, ..] if done(third) => return Ok(Some(Outcome::Failed)),
        _ => {}
    }
    let denies = |word: &&str| {
        matches!(*word, "not" | "never" | "cannot" | "fails" | "broken" | "aborted")
            || word.ends_with("n't")
            || outcome_word(word).is_some_and(|outcome| outcome != Outcome::Completed)
            || UNDONE.contains(word)
    };
    if let Some(word) = words.iter().find(|word| denies(word)) {
        return Err(format!("{NOT_PLAIN} (it has the word `{}`)", shown(word)));
    }
    Ok(None)
}

impl SummonOptions {
    /// Sets one key from its text, as `/summon` and the command line give it.
    ///
    /// # Errors
    /// Names the key and what is allowed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |allowed: String| format!("{key}=`{}`: allowed are {allowed}", shown(value));
        match key {
            "backend" => {
                self.backend = Some(BackendKind::parse(value).ok_or_else(|| wrong(BackendKind::words()))?);
            }
            "isolation" => {
                self.isolation = Some(Isolation::parse(value).ok_or_else(|| wrong(Isolation::words()))?);
            }
            "network" => self.network = Some(Network::parse(value).ok_or_else(|| wrong(Network::words()))?),
            "ttl" => self.ttl = Some(duration(value).map_err(|e| format!("ttl: {e}"))?),
            "model" => {
                let good = !value.is_empty()
                    && value.len() <= 100
                    && !value.starts_with('-')
                    && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b));
                if !good {
                    return Err(wrong("up to 100 letters, digits and - _ . / : @, not beginning with -".to_owned()));
                }
                self.model = Some(value.to_owned());
            }
            "task" => {
                if value.trim().is_empty() {
                    return Err("task is empty".to_owned());
                }
                self.task = Some(value.trim().to_owned());
            }
            _ => {
                return Err(format!(
                    "`{}` is not a key; allowed are backend, isolation, ttl, network, model, task",
                    shown(key)
                ));
            }
        }
        Ok(())
    }
}

/// The command as a person would write it: what is repeated to people before it
/// counts is exactly what was read.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |f: &mut fmt::Formatter<'_>, word: Option<&dyn fmt::Display>| match word {
            Some(word) => write!(f, " {word}"),
            None => Ok(()),
        };
        macro_rules! line {
            ($name:literal $(, $word:expr)*) => {{
                f.write_str(concat!("/", $name))?;
                $(optional(f, $word)?;)*
                Ok(())
            }};
        }
        fn some<T: fmt::Display>(word: Option<&T>) -> Option<&dyn fmt::Display> {
            word.map(|w| w as &dyn fmt::Display)
        }
        match self {
            Self::Summon { agents, options } => {
                let verb = if agents.len() > 1 { "team" } else { "summon" };
                write!(f, "/{verb} {}{options}", agents.join("+"))
            }
            Self::Approve { number } => line!("approve", some(number.as_ref())),
            Self::Reject { number, reason } => line!("reject", some(number.as_ref()), some(reason.as_ref())),
            Self::Invite { identity, role, cell } => line!("invite", Some(identity), Some(role), some(cell.as_ref())),
            Self::Revoke { identity, cell } => line!("revoke", Some(identity), some(cell.as_ref())),
            Self::Accept { cell } => line!("accept", some(cell.as_ref())),
            Self::Tell { agent, text } => line!("tell", Some(agent), Some(text)),
            Self::Status { cell } => line!("status", some(cell.as_ref())),
            Self::Help { command } => line!("help", some(command.as_ref())),
            Self::Extend { by, cell } => line!("extend", Some(&duration_words(*by)), some(cell.as_ref())),
            Self::Pause { cell } => line!("pause", some(cell.as_ref())),
            Self::Resume { cell } => line!("resume", some(cell.as_ref())),
            Self::Checkpoint { note } => line!("checkpoint", some(note.as_ref())),
            Self::Revive { agent } => line!("revive", some(agent.as_ref())),
            Self::Substitute { agent, instead_of } => {
                line!("substitute", Some(agent))?;
                instead_of.as_ref().map_or(Ok(()), |agent| write!(f, " for {agent}"))
            }
            Self::Handoff { task, from, to } => write!(f, "/handoff {task} from {from} to {to}"),
            Self::Decide { text } => line!("decide", Some(text)),
            Self::Vote { yes, on } => {
                write!(f, "/vote {}", if *yes { "yes" } else { "no" })?;
                on.as_ref().map_or(Ok(()), |id| write!(f, " on {id}"))
            }
            Self::Publish { what, cell } => {
                f.write_str("/publish ")?;
                match what {
                    Publishable::Work => f.write_str("work"),
                    Publishable::Notes => f.write_str("notes"),
                    Publishable::Decisions => f.write_str("decisions"),
                    Publishable::Checkpoint => f.write_str("checkpoint"),
                    Publishable::Artifact(name) if name.contains(char::is_whitespace) || is_quoted(name) => {
                        write!(f, "artifact {}", in_quotes(name))
                    }
                    Publishable::Artifact(name) => write!(f, "artifact {name}"),
                }?;
                optional(f, some(cell.as_ref()))
            }
            Self::Close { outcome, reason, cell } => {
                line!("close", some(outcome.as_ref()), some(cell.as_ref()), some(reason.as_ref()))
            }
            Self::Resurrect { cell } => line!("resurrect", some(cell.as_ref())),
            Self::Destroy { cell } => line!("destroy", Some(cell)),
        }
    }
}

impl fmt::Display for SummonOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backend) = self.backend {
            write!(f, " backend={backend}")?;
        }
        if let Some(isolation) = self.isolation {
            write!(f, " isolation={isolation}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, " ttl={}", duration_words(ttl))?;
        }
        if let Some(network) = self.network {
            write!(f, " network={network}")?;
        }
        if let Some(model) = &self.model {
            write!(f, " model={model}")?;
        }
        // Last, since it may go on to the end of the line.
        match &self.task {
            Some(task) if is_quoted(task) => write!(f, " task={}", in_quotes(task)),
            Some(task) => write!(f, " task={task}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn commands(body: &str) -> Vec<Command> {
        parse_comment(body)
            .lines
            .into_iter()
            .filter_map(|l| match l {
                Line::Command { command, .. } => Some(command),
                Line::Refused { .. } => None,
            })
            .collect()
    }
    fn misplaced_names(body: &str) -> Vec<String> {
        parse_comment(body).misplaced.into_iter().map(|m| m.name).collect()
    }
    fn refusals(body: &str) -> Vec<String> {
        parse_comment(body)
            .lines
            .into_iter()
            .filter_map(|l| match l {
                Line::Refused { why, .. } => Some(why),
                Line::Command { .. } => None,
            })
            .collect()
    }

    #[test]
    fn a_command_stands_at_the_start_of_a_line_of_ordinary_text() {
        assert_eq!(commands("/approve"), [Command::Approve { number: None }]);
        assert_eq!(commands("Good.\r\n/approve\r\nthanks"), [Command::Approve { number: None }]);
        assert_eq!(commands("please /approve"), []);
        assert_eq!(commands("/pause\n\n/resume").len(), 2);
    }

    #[test]
    fn threat_08_commands_in_code_quotes_links_tables_html_and_details_are_never_executed() {
        for body in [
            "```\n/close\n```",
            "~~~\n/close\n~~~",
            "    /close",
            "`\n/close\n`",
            "`a\n/close`",
            "> /close",
            "> quoted\n/close",
            "- item\n  /close",
            "- /close",
            "1. /close",
            "[text\n/close](http://x)",
            "![\n/close](x.png)",
            "| a |\n|---|\n| /close |",
            "<!-- \n/close\n-->",
            "<!-- a\n\n/close\n\n-->",
            "<details>\n\n/close\n\n</details>",
            "<details><summary>x</summary>\n\n/close\n\n</details>",
            "<div>\n/close\n</div>",
            "<div>\n\n/close\n\n</div>",
            "a <b>\n/close</b>",
            "# /close",
            "[^1]: /close",
            "\\/close",
            "**/close**",
            "$$\n/close\n$$",
            "</p>\n\n<details>\n\n/close\n\n</details>",
            "<details>\n<!-- </details> -->\n\n/close\n\n</details>",
            "<details title=\"</details>\">\n\n/close\n\n</details>",
            "<details title=\"/>\">\n\n/close\n\n</details>",
            "<details/>\n\n/close",
            "<details>\n\n</b>\n\n/close\n\n</details>",
            "---\ntitle: x\n\n/close\n\n---\n\nHello",
            "---\n\n/close",
        ] {
            assert_eq!(commands(body), [], "executed: {body:?}");
        }
        assert_eq!(
            commands("<details>\n\nx\n\n</details>\n\n/pause"),
            [Command::Pause { cell: None }],
            "after the end it is text again"
        );
    }

    #[test]
    fn threat_08_lookalikes_and_invisible_characters_are_refused_visibly() {
        for body in [
            "\u{ff0f}close",
            "\u{200b}/close",
            "/cl\u{200b}ose",
            "/close\u{a0}completed",
            "\u{202e}/close",
            "/close \0",
            "\u{2215}close",
            "\u{feff}/close",
        ] {
            assert_eq!(commands(body), [], "executed: {body:?}");
            assert_eq!(refusals(body).len(), 1, "not refused: {body:?}");
        }
    }

    #[test]
    fn a_command_where_none_counts_is_found_once_with_its_place() {
        for (body, place) in [
            ("- /approve", Place::List),
            ("- item\n/approve", Place::List),
            ("1. item\n   /approve", Place::List),
            ("- [ ] /approve", Place::List),
            ("> /approve", Place::Quote),
            ("> quoted\n/approve", Place::Quote),
            ("`/approve`", Place::Code),
            ("```\n/approve\n```", Place::Code),
            ("text\n\n    /approve", Place::Code),
            ("\t/approve", Place::Code),
            ("**/approve**", Place::Print),
            ("*/approve*", Place::Print),
            ("<b>/approve</b>", Place::Html),
            ("# /approve", Place::Heading),
            ("/approve\n---", Place::Underlined),
            ("| a |\n|---|\n| /approve |", Place::Table),
            ("| a |\n|---|\n/approve", Place::Table),
            ("[/approve](http://x)", Place::Link),
            ("<details>\n\n/approve", Place::Html),
            ("<details>\n/approve", Place::Html),
            ("---\n\n/approve", Place::FrontMatter),
            ("[^1]: /approve", Place::Footnote),
        ] {
            let parsed = parse_comment(body);
            assert_eq!(parsed.lines, [], "{body:?}");
            assert_eq!(parsed.misplaced, [Misplaced { name: "approve".into(), place }], "{body:?}");
        }
        assert_eq!(misplaced_names("> /approve\n\n- /approve\n- /close failed"), ["approve", "close"]);
    }

    #[test]
    fn what_is_not_meant_as_a_command_is_no_misplaced_one() {
        for body in [
            "please /approve",
            "> please /approve",
            "\\/approve",
            "- /usr/bin/env",
            "- /status/foo",
            "- /status.json",
            "/approvers are in the file",
            "<!-- \n/approve\n-->",
            "<details><summary>x</summary>\n\n/approve\n\n</details>",
            "<pre>\n/approve\n</pre>",
            // What the bot writes, quoted.
            "> - `/approve`",
            "> `/approve` goes on from here",
            "> | command | who |\n> | --- | --- |\n> | `/approve [NUMBER]` | director |",
            "> > /approve",
            "| command | who |\n| --- | --- |\n| `/approve [NUMBER]` | director |",
            // Lines of a log.
            "```\n/status 200 12ms\n/close 404\n```",
            // Quoted, and given.
            "> /approve\n\n/approve",
        ] {
            assert_eq!(misplaced_names(body), Vec::<String>::new(), "{body:?}");
        }
    }

    #[test]
    fn how_a_cell_ended_is_read_as_people_write_it() {
        let close = |line: &str| match &commands(line)[..] {
            [Command::Close { outcome, reason, .. }] => (*outcome, reason.clone()),
            other => panic!("{line}: {other:?} {:?}", refusals(line)),
        };
        for (line, outcome, reason) in [
            ("/close", None, None),
            ("/close that is all", None, Some("that is all")),
            ("/close completed", Some(Outcome::Completed), None),
            ("/close Completed.", Some(Outcome::Completed), None),
            ("/close done", Some(Outcome::Completed), None),
            ("/close failed.", Some(Outcome::Failed), None),
            ("/close failed!", Some(Outcome::Failed), None),
            ("/close as failed", Some(Outcome::Failed), None),
            ("/close as failed.", Some(Outcome::Failed), None),
            ("/close Failed: because of rain", Some(Outcome::Failed), Some("because of rain")),
            ("/close FAILED - rain", Some(Outcome::Failed), Some("rain")),
            ("/close **failed**", Some(Outcome::Failed), None),
            ("/close failed:rain", Some(Outcome::Failed), Some("rain")),
            ("/close not done", Some(Outcome::Failed), Some("not done")),
            ("/close not completed", Some(Outcome::Failed), Some("not completed")),
            ("/close Not yet done.", Some(Outcome::Failed), Some("Not yet done.")),
            ("/close as not done", Some(Outcome::Failed), Some("not done")),
            ("/close incomplete", Some(Outcome::Failed), Some("incomplete")),
            ("/close unfinished, sadly", Some(Outcome::Failed), Some("unfinished, sadly")),
            ("/close abandoned, no time", Some(Outcome::Abandoned), Some("no time")),
            ("/close as discussed", None, Some("as discussed")),
            ("/close completed $X `id`", Some(Outcome::Completed), Some("$X `id`")),
        ] {
            assert_eq!(close(line), (outcome, reason.map(str::to_owned)), "{line}");
        }
        for line in [
            "/close it is not done",
            "/close it didn\u{2019}t work",
            "/close complete failure",
            "/close completed?",
            "/close the agent failed",
        ] {
            assert!(refusals(line)[0].contains("completed`, `failed` or `abandoned"), "{line}: {:?}", commands(line));
        }
    }

    #[test]
    fn quotes_of_every_kind_quote() {
        let options = |line: &str| match &commands(line)[..] {
            [Command::Summon { options, .. }] => options.clone(),
            other => panic!("{line}: {other:?} {:?}", refusals(line)),
        };
        for (open, end) in [
            ('"', '"'),
            ('\'', '\''),
            ('‘', '’'),
            ('“', '”'),
            ('«', '»'),
            ('»', '«'),
            ('„', '“'),
            ('„', '”'),
            ('‚', '‘'),
            ('‹', '›'),
            ('”', '”'),
            ('’', '’'),
            ('「', '」'),
            ('『', '』'),
        ] {
            let read = options(&format!("/summon scribe task={open}fix the login{end} ttl=15m"));
            assert_eq!((read.task.as_deref(), read.ttl), (Some("fix the login"), Some(900_000)), "{open}{end}");
            let read = options(&format!("/summon scribe ttl={open}15m{end} task=x"));
            assert_eq!((read.task.as_deref(), read.ttl), (Some("x"), Some(900_000)), "{open}{end}");
            let why = refusals(&format!("/summon scribe task={open}fix the login ttl=15m")).join("");
            assert!(why.contains(&format!("the quote {open}")) && why.contains("task="), "{open}: {why}");
        }
        let read = options("/summon scribe task='don't touch it' ttl=15m");
        assert_eq!((read.task.as_deref(), read.ttl), (Some("don't touch it"), Some(900_000)));
        assert_eq!(options("/summon scribe task=don't stop").task.as_deref(), Some("don't stop"));
        assert_eq!(
            commands("/publish artifact 'my report.md'"),
            [Command::Publish { what: Publishable::Artifact("my report.md".into()), cell: None }]
        );
    }

    #[test]
    fn free_text_may_be_in_any_script_and_names_may_not() {
        for text in
            ["add a ❤️", "a\u{a0}b", "a\u{3000}b", "می‌خواهم", "क्‍ष", "👩‍💻 1️⃣", "1\u{2044}2 \u{ff0f}", "שלום\u{200f}!"]
        {
            assert_eq!(
                commands(&format!("/tell scribe {text}")),
                [Command::Tell { agent: "scribe".into(), text: text.into() }],
                "{text}"
            );
            for line in ["/summon scribe task=", "/decide ", "/close failed ", "/reject ", "/checkpoint "] {
                assert_eq!(
                    commands(&format!("{line}{text}")).len(),
                    1,
                    "{line}{text}: {:?}",
                    refusals(&format!("{line}{text}"))
                );
            }
        }
        assert_eq!(commands("/tell\u{3000}scribe\u{3000}はい").len(), 1);
        for line in [
            "/tell scribe a\u{202e}b",
            "/tell scribe a\u{200b}b",
            "/tell scribe a\u{2066}b",
            "/tell scr\u{200d}ibe x",
            "/tell\u{a0}scribe x",
            "/summon scribe ta\u{ad}sk=x",
            "/summon scribe\u{fe0f} task=x",
            "/close fai\u{200b}led",
            "/invite agent:scribe\u{200c} executor",
            "/handoff 1\u{202e} from a to b",
        ] {
            assert_eq!(commands(line), [], "accepted: {line:?}");
            assert_eq!(refusals(line).len(), 1, "not refused: {line:?}");
        }
    }

    #[test]
    fn with_a_prefix_nothing_else_is_a_command() {
        let parse = |body: &str| parse_commands(body, COMMANDS_MAX, Some("lazarus"));
        for body in ["/lazarus approve", "/Lazarus  approve", "/lazarus /approve", "x\n/lazarus\tapprove"] {
            let parsed = parse(body);
            assert!(
                matches!(&parsed.lines[..], [Line::Command { command: Command::Approve { number: None }, .. }]),
                "{body}: {parsed:?}"
            );
        }
        for body in [
            "/approve",
            "- /approve",
            "/aprove",
            "/lazarusapprove",
            "/lazarus-x approve",
            "/other approve",
            "> /lazarus",
        ] {
            assert_eq!(parse(body), Parsed::default(), "{body}");
        }
        for (body, word) in [
            ("/lazarus", "a command is missing"),
            ("/lazarus aprove", "did you mean `/approve`"),
            ("/lazarus dance", "no command `dance`"),
            ("/laz\u{200b}arus approve", "U+200B"),
            ("/lazarus\u{a0}approve", "U+00A0"),
            ("/lazarus tell scribe", "`/tell`"),
        ] {
            assert!(matches!(&parse(body).lines[..], [Line::Refused { why, .. }] if why.contains(word)), "{body}");
        }
        let misplaced = parse("- /lazarus approve\n\n`/lazarus close`").misplaced;
        assert_eq!(misplaced.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["approve", "close"]);
    }

    #[test]
    fn unknown_words_are_left_alone_unless_one_slip_away() {
        assert_eq!(parse_comment("/shrug"), Parsed::default());
        assert_eq!(parse_comment("/usr/bin/env"), Parsed::default());
        assert_eq!(parse_comment("/close/d is a path"), parse_comment("/close/d is a path"));
        assert!(refusals("/aprove")[0].contains("did you mean `/approve`"));
        assert!(refusals("/staus")[0].contains("/status"));
    }

    #[test]
    fn threat_10_arguments_are_literal() {
        assert_eq!(
            commands("/tell scribe $HOME `id` && rm -rf ~ ../.. -x"),
            [Command::Tell { agent: "scribe".into(), text: "$HOME `id` && rm -rf ~ ../.. -x".into() }]
        );
        for body in [
            "/summon ../../etc",
            "/summon -rf",
            "/summon $HOME",
            "/summon scribe model=--dangerous",
            "/summon scribe backend=$(id)",
            "/summon scribe FORGE_TOKEN=x",
            "/destroy ../../x",
            "/invite agent:../x executor",
        ] {
            assert_eq!(commands(body), [], "accepted: {body:?}");
            assert_eq!(refusals(body).len(), 1, "not refused: {body:?}");
        }
        assert!(refusals(&format!("/tell scribe {}", "x".repeat(10_000)))[0].contains("4096"));
    }

    #[test]
    fn bad_arguments_are_answered_with_what_is_allowed() {
        assert!(refusals("/invite agent:x boss")[0].contains("director, executor, observer, guest, substitute"));
        assert!(refusals("/extend soon")[0].contains("`15m`"));
        assert!(refusals("/summon scribe backend=vm")[0].contains("process, venv, docker, remote"));
        assert!(refusals("/summon scribe isolation=9")[0].contains("level_2"));
        assert!(refusals("/status laz-x")[0].contains("16 of the characters"));
    }

    #[test]
    fn a_summons_takes_keys_and_a_task_to_the_end_of_the_line() {
        let [Command::Summon { agents, options }] = &commands("/team scribe+critic ttl=2h task=fix the = parser")[..]
        else {
            panic!("not a summons")
        };
        assert_eq!(agents, &["scribe", "critic"]);
        assert_eq!(options.ttl, Some(7_200_000));
        assert_eq!(options.task.as_deref(), Some("fix the = parser"));
    }

    #[test]
    fn a_command_repeated_to_people_reads_as_the_same_command() {
        for line in [
            "/summon scribe ttl=2h isolation=level_2 network=proxy model=a/b task=do it \"well\" = now",
            "/team scribe+critic backend=process",
            "/approve",
            "/approve 3",
            "/reject",
            "/reject 3 too costly",
            "/reject too costly",
            "/invite agent:scribe executor laz-aaaaaaaaaaaaaaaa",
            "/invite @ada director",
            "/revoke human:ada",
            "/accept",
            "/tell scribe hello there",
            "/status laz-aaaaaaaaaaaaaaaa",
            "/help close",
            "/extend 1h30m laz-aaaaaaaaaaaaaaaa",
            "/pause",
            "/resume",
            "/checkpoint before lunch",
            "/revive scribe",
            "/substitute critic for scribe",
            "/handoff 3 from scribe to critic",
            "/decide use tabs",
            "/vote no on 4",
            "/publish artifact report.md",
            "/publish artifact \"my report.md\"",
            "/close",
            "/close that is all",
            "/close laz-aaaaaaaaaaaaaaaa that is all",
            "/summon scribe task='\"quoted\" and more'",
            "/publish work laz-aaaaaaaaaaaaaaaa",
            "/close failed laz-aaaaaaaaaaaaaaaa it broke",
            "/close abandoned",
            "/resurrect",
            "/destroy laz-aaaaaaaaaaaaaaaa",
        ] {
            let read = commands(line);
            assert_eq!(read.len(), 1, "{line}");
            assert_eq!(commands(&read[0].to_string()), read, "{line} became {}", read[0]);
        }
    }

    #[test]
    fn a_thousand_commands_in_a_comment_are_ten_and_a_word() {
        let parsed = parse_comment(&"/status\n".repeat(1000));
        assert_eq!(parsed.lines.len(), COMMANDS_MAX + 1);
        assert!(matches!(&parsed.lines[COMMANDS_MAX], Line::Refused { why, .. } if why.contains("990")));
    }

    #[test]
    fn policy_may_allow_fewer_commands_and_never_more() {
        let body = "/status\n".repeat(12);
        let counted = |most| match parse_commands(&body, most, None).lines.as_slice() {
            [commands @ .., Line::Refused { why, .. }] => (commands.len(), why.clone()),
            other => panic!("{other:?}"),
        };
        let (read, why) = counted(3);
        assert!(read == 3 && why.contains("at most 3 commands; 9 more"), "{read}: {why}");
        assert_eq!(counted(100).0, COMMANDS_MAX);
    }

    #[test]
    fn a_comment_of_many_lines_is_read_in_time_that_grows_with_it() {
        for piece in ["a\n", "a\n`", "<a\n", "[a\n", "*a\n"] {
            let body = piece.repeat(COMMENT_MAX / piece.len());
            assert_eq!(commands(&body), [], "{piece:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_person_writes_makes_it_panic(body in "\\PC{0,200}|[/a-z <>`\\n\\[\\]()|>*_\\-#\\\\]{0,200}") {
            for line in parse_comment(&body).lines {
                let (Line::Command { at, .. } | Line::Refused { at, .. }) = line;
                prop_assert!(body.get(at).is_some());
            }
        }

        #[test]
        fn whatever_stands_in_a_fence_is_not_executed(inner in "[/a-z \\n]{0,80}") {
            prop_assert_eq!(commands(&format!("````\n{inner}\n````")), []);
        }
    }
}
