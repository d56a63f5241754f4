//! What a comment says to Lazarus: its lines that are commands, and those that were
//! meant to be.

use super::arguments::{odd_in, shown};
use super::lines::plain_lines;
use super::table::Free;
use super::{Command, CommandSpec, grammar};
use crate::mission::hidden::first_invisible;
use crate::mission::misplaced::{Place, misplaced};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Most commands that are read from one comment; the rest is refused.
pub const COMMANDS_MAX: usize = 10;
/// Longest line that is read as a command, in bytes.
pub const LINE_MAX: usize = 4096;
/// Longest comment that is searched for commands, in bytes.
pub const COMMENT_MAX: usize = 64 * 1024;

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
            CommandSpec::named(&word).is_some()
        })
    })
}

/// What stands behind the prefix of commands, if a text begins with it; the whole where
/// there is no prefix.
pub(in super::super) fn behind_prefix<'a>(text: &'a str, prefix: Option<&str>) -> Option<&'a str> {
    let Some(prefix) = prefix else { return Some(text) };
    let (word, behind) = text.split_at_checked(prefix.len())?;
    (word.eq_ignore_ascii_case(prefix) && behind.starts_with([' ', '\t']))
        .then(|| behind.trim_start_matches([' ', '\t']))
}

/// A command's name, where that is written out, and what the line says.
pub(in super::super) type Read = (Option<&'static str>, Result<Command, String>);

/// Reads one plain line, as [`read_line`], behind the prefix where there is one.
pub(in super::super) fn read_prefixed(line: &str, prefix: Option<&str>) -> Option<Read> {
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
    let known = CommandSpec::named(&word.to_ascii_lowercase());
    if after.is_some_and(is_slash_like) && known.is_none() {
        return None;
    }
    let Some(spec) = known else {
        let lower = word.to_ascii_lowercase();
        let near = (lower.len() >= 3)
            .then(|| grammar().iter().find(|c| strsim::damerau_levenshtein(c.name, &lower) == 1))
            .flatten()?;
        return Some((None, Err(format!("there is no command `/{lower}`; did you mean `/{}`?", near.name))));
    };
    Some((Some(spec.name), read_known(spec, &word, line)))
}

/// Reads a line that begins with the name of a command.
fn read_known(spec: &CommandSpec, word: &str, line: &str) -> Result<Command, String> {
    if line.len() > LINE_MAX {
        return Err(spec.too_long(line.len()));
    }
    // What stands before the name, in it, or right behind it, must be what it looks like.
    let rest = line.strip_prefix('/').and_then(|rest| rest.strip_prefix(word));
    let odd = match rest {
        Some(rest) => odd_character(spec.free, rest),
        None => line.chars().find(|c| suspicious(*c)),
    };
    match odd {
        Some(odd) => Err(spec.not_what_it_looks_like(odd)),
        None => spec.read(rest.unwrap_or_default().trim()),
    }
}

/// The first character of a command's arguments that is not what it looks like.
/// Free text may be in any script, with whatever that script needs (contract §7);
/// in names and keys nothing may stand that a reader could take for something else.
fn odd_character(free: Free, rest: &str) -> Option<char> {
    let (strict, free) = rest.split_at(free_text_from(free, rest));
    odd_in(strict).or_else(|| first_invisible(free))
}

/// Where the free text of a command's arguments begins; their end where there is none.
fn free_text_from(free: Free, rest: &str) -> usize {
    match free {
        Free::Nothing => rest.len(),
        // The character between the name and what follows belongs to the name.
        Free::All => rest.chars().next().map_or(0, char::len_utf8),
        Free::BehindFirstWord => {
            let word = rest.len() - rest.trim_start().len();
            rest[word..].find(char::is_whitespace).map_or(rest.len(), |end| word + end)
        }
        Free::Task => rest
            .match_indices("task=")
            .find(|(at, _)| rest[..*at].ends_with(char::is_whitespace))
            .map_or(rest.len(), |(at, key)| at + key.len()),
    }
}

fn suspicious_not_slash(c: char) -> bool {
    suspicious(c) && !is_slash_like(c)
}
