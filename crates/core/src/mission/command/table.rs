//! The table of commands: one row for each, and everything that is known of it.

#![allow(clippy::unnecessary_wraps, reason = "a row has a verb or none")]

use super::Command;
use super::arguments::{self as read, Given};
use super::guard::{Scope, Who};

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct CommandSpec {
    /// The word behind the slash, and the verb on the command line.
    pub name: &'static str,
    /// How a person writes it in a comment.
    pub usage: &'static str,
    /// Who may give it.
    pub who: Who,
    /// The same, for people.
    pub who_words: &'static str,
    /// What it does, for people.
    pub does: &'static str,
    /// On which issues it means something.
    pub scope: Scope,
    /// Whether a director who gives it has to confirm it where only polling found the
    /// comment: because only a director can do it, or because it is an approval where
    /// a director gives it.
    pub is_confirmed: bool,
    /// Whether this version can carry it out. Else it is read, and answered so.
    pub is_built: bool,
    /// How its arguments stand on a line.
    pub(super) shape: Shape,
    /// Where on the line free text begins: there any script may stand.
    pub(super) free: Free,
    /// What its arguments mean.
    pub(super) build: fn(&Given<'_>) -> Result<Command, String>,
    /// Its verb on the command line, where it has one.
    pub verb: Option<Verb>,
}

/// How the arguments of a command stand on a line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Words, in this order.
    Words(&'static [Slot]),
    /// One text to the end of the line, under this name.
    Text(&'static str),
    /// In a way of its own.
    Special(for<'a> fn(&'a str) -> Result<Given<'a>, String>),
}

/// One place on a line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    /// A word.
    Word(&'static str),
    /// A word behind a keyword.
    Behind {
        keyword: &'static str,
        name: &'static str,
        /// What is said where the line ends behind the keyword.
        missing: &'static str,
    },
}

/// Where free text begins on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Free {
    /// There is none.
    Nothing,
    /// All arguments are free text.
    All,
    /// All but the first.
    BehindFirstWord,
    /// What stands behind `task=`.
    Task,
}

/// A command on the command line.
#[derive(Debug, Clone, Copy)]
pub struct Verb {
    /// What it does, for the help.
    pub about: &'static str,
    /// What it is given for.
    pub on: On,
    /// Its arguments, in their order.
    pub arguments: &'static [Argument],
}

/// What a verb is given for: its first target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The argument `mission`.
    Mission,
    /// The argument `cell`.
    Cell,
}

/// An argument on the command line.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    /// Its name in [`Given`].
    pub name: &'static str,
    /// The name that people read.
    pub shown: &'static str,
    /// What it is, for the help.
    pub help: &'static str,
    /// How it is written.
    pub form: ArgumentForm,
    /// What it can be, where the command line has few words for it; else empty.
    pub allowed: &'static [&'static str],
}

/// How an argument is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentForm {
    /// A word at its place.
    Word,
    /// A word at its place, which may be left out.
    OptionalWord,
    /// The same for a whole number.
    OptionalNumber,
    /// A word at its place; without it this one.
    Default(&'static str),
    /// All words from here on: free text.
    Text,
    /// The same, which may be left out.
    OptionalText,
    /// `--LONG VALUE`.
    Flag {
        /// The word behind the two dashes.
        long: &'static str,
        /// Whether it has to be there.
        required: bool,
    },
    /// `--KEY VALUE`, a key of `/summon`.
    Key,
}

/// Every command of contract §7, in its order.
pub const fn grammar() -> &'static [CommandSpec] {
    TABLE
}

impl CommandSpec {
    /// The row of the command with that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|spec| spec.name == name)
    }
}

/// The row of a command that there is.
pub(super) fn row(verb: &str) -> &'static CommandSpec {
    // A test sees that each has one.
    CommandSpec::named(verb).unwrap_or(&TABLE[0])
}

const fn argument(name: &'static str, shown: &'static str, help: &'static str, form: ArgumentForm) -> Argument {
    Argument { name, shown, help, form, allowed: &[] }
}

const fn key(name: &'static str, shown: &'static str, help: &'static str) -> Argument {
    argument(name, shown, help, ArgumentForm::Key)
}

const fn on_cell(about: &'static str, arguments: &'static [Argument]) -> Option<Verb> {
    Some(Verb { about, on: On::Cell, arguments })
}

const fn on_mission(about: &'static str, arguments: &'static [Argument]) -> Option<Verb> {
    Some(Verb { about, on: On::Mission, arguments })
}

use ArgumentForm::{Default, Flag, OptionalNumber, OptionalText, OptionalWord, Text, Word};

const MISSION: Argument = argument("mission", "OWNER/REPO#N", "The issue", Word);
const CELL: Argument = argument("cell", "CELL", "The cell", Word);
const IDENTITY: Argument = argument("identity", "IDENTITY", "agent:NAME, bot:NAME or human:LOGIN", Word);
const BACKEND: Argument = key("backend", "BACKEND", "process, venv, docker or remote");
const ISOLATION: Argument = key("isolation", "ISOLATION", "level_1, level_1_5, level_2 or level_3");
const TTL: Argument = key("ttl", "TTL", "As in 4h");
const NETWORK: Argument = key("network", "NETWORK", "none, proxy or host");
const MODEL: Argument = key("model", "MODEL", "The agents' model");
const TASK: Argument = key("task", "TASK", "What to do, beside the issue's text");

/// `[CELL]`.
const CELL_ALONE: Shape = Shape::Words(&[Slot::Word("cell")]);

/// What most commands are: for directors, on missions, confirmed where only polling
/// found them.
const DIRECTORS: CommandSpec = CommandSpec {
    name: "",
    usage: "",
    who: Who::Directors,
    who_words: "director",
    does: "",
    scope: Scope::Mission,
    is_confirmed: true,
    is_built: true,
    shape: CELL_ALONE,
    free: Free::Nothing,
    build: read::status,
    verb: None,
};

const TABLE: &[CommandSpec] = &[
    CommandSpec {
        name: "summon",
        usage: "/summon AGENT [backend= isolation= ttl= network= model= task=]",
        who: Who::Writers,
        who_words: "director; write access asks",
        does: "a cell for one agent",
        scope: Scope::AnyIssue,
        shape: Shape::Special(read::split_summon),
        free: Free::Task,
        build: read::summon,
        verb: on_mission(
            "A cell for one agent on an issue",
            &[
                argument("agent", "AGENT", "The agent's name", Word),
                MISSION,
                BACKEND,
                ISOLATION,
                TTL,
                NETWORK,
                MODEL,
                TASK,
            ],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "team",
        usage: "/team A+B[+C…] [key=value…]",
        who: Who::Writers,
        who_words: "director; write access asks",
        does: "one cell, several executors",
        scope: Scope::AnyIssue,
        shape: Shape::Special(read::split_team),
        free: Free::Task,
        build: read::team,
        verb: on_mission(
            "One cell with several executors on an issue",
            &[
                argument("agents", "A+B", "Agents, joined by +", Word),
                MISSION,
                BACKEND,
                ISOLATION,
                TTL,
                NETWORK,
                MODEL,
                TASK,
            ],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "approve",
        usage: "/approve [NUMBER]",
        does: "approves the open proposal or request",
        shape: Shape::Words(&[Slot::Word("number")]),
        build: read::approve,
        verb: on_mission(
            "Approve the open proposal or request of an issue",
            &[MISSION, argument("number", "NUMBER", "The request's number, where several are open", OptionalNumber)],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "reject",
        usage: "/reject [NUMBER] [reason]",
        does: "rejects it",
        shape: Shape::Text("reason"),
        free: Free::All,
        build: read::reject,
        verb: on_mission(
            "Reject it",
            &[
                MISSION,
                argument(
                    "reason",
                    "[NUMBER] REASON",
                    "The request's number, where several are open; then why",
                    OptionalText,
                ),
            ],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "invite",
        usage: "/invite IDENTITY ROLE [CELL]",
        does: "invites `agent:NAME`, `bot:NAME` or `human:LOGIN`",
        shape: Shape::Words(&[Slot::Word("identity"), Slot::Word("role"), Slot::Word("cell")]),
        build: read::invite,
        verb: on_cell(
            "Invite somebody to a cell",
            &[CELL, IDENTITY, argument("role", "ROLE", "director, executor, observer, guest or substitute", Word)],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "revoke",
        usage: "/revoke IDENTITY [CELL]",
        does: "takes an invitation or a participation back",
        shape: Shape::Words(&[Slot::Word("identity"), Slot::Word("cell")]),
        build: read::revoke,
        verb: on_cell("Take an invitation or a participation back", &[CELL, IDENTITY]),
        ..DIRECTORS
    },
    CommandSpec {
        name: "accept",
        usage: "/accept [CELL]",
        who: Who::Invited,
        who_words: "the invited human",
        does: "accepts an invitation",
        is_confirmed: false,
        build: read::accept,
        verb: on_cell("Accept an invitation. Only the invited person can, in a comment", &[CELL]),
        ..DIRECTORS
    },
    CommandSpec {
        name: "tell",
        usage: "/tell AGENT text",
        who: Who::Writers,
        who_words: "director, write access",
        does: "hands text to an agent",
        is_confirmed: false,
        shape: Shape::Special(read::split_tell),
        free: Free::BehindFirstWord,
        build: read::tell,
        verb: on_cell(
            "Hand text to an agent",
            &[CELL, argument("agent", "AGENT", "The agent", Word), argument("text", "TEXT", "The text", Text)],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "status",
        usage: "/status [CELL]",
        who: Who::Everyone,
        who_words: "everyone",
        does: "how the cells of this mission stand",
        scope: Scope::AnyIssue,
        is_confirmed: false,
        build: read::status,
        ..DIRECTORS
    },
    CommandSpec {
        name: "help",
        usage: "/help [COMMAND]",
        who: Who::Everyone,
        who_words: "everyone",
        does: "this list",
        scope: Scope::AnyIssue,
        is_confirmed: false,
        shape: Shape::Words(&[Slot::Word("command")]),
        build: read::help,
        ..DIRECTORS
    },
    CommandSpec {
        name: "extend",
        usage: "/extend DURATION [CELL]",
        does: "makes the time to live longer",
        shape: Shape::Words(&[Slot::Word("duration"), Slot::Word("cell")]),
        build: read::extend,
        verb: on_cell("Make a cell's time to live longer", &[CELL, argument("duration", "DURATION", "As in 2h", Word)]),
        ..DIRECTORS
    },
    CommandSpec {
        name: "pause",
        usage: "/pause [CELL]",
        does: "freezes the cell",
        build: read::pause,
        verb: on_cell("Freeze a cell", &[CELL]),
        ..DIRECTORS
    },
    CommandSpec {
        name: "resume",
        usage: "/resume [CELL]",
        does: "thaws it",
        build: read::resume,
        verb: on_cell("Thaw it", &[CELL]),
        ..DIRECTORS
    },
    CommandSpec {
        name: "checkpoint",
        usage: "/checkpoint [note]",
        does: "takes a snapshot",
        shape: Shape::Text("note"),
        free: Free::All,
        build: read::checkpoint,
        verb: on_cell("Take a snapshot of a cell", &[CELL, argument("note", "NOTE", "A word for it", OptionalText)]),
        ..DIRECTORS
    },
    CommandSpec {
        name: "revive",
        usage: "/revive [AGENT]",
        does: "starts dead agents again",
        shape: Shape::Words(&[Slot::Word("agent")]),
        build: read::revive,
        verb: on_cell(
            "Start a cell's dead agents again",
            &[CELL, argument("agent", "AGENT", "One agent; else all that died", OptionalWord)],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "substitute",
        usage: "/substitute AGENT [for AGENT]",
        does: "another agent takes over",
        is_built: false,
        shape: Shape::Words(&[
            Slot::Word("agent"),
            Slot::Behind { keyword: "for", name: "instead_of", missing: "AGENT after `for` is missing" },
        ]),
        build: read::substitute,
        verb: on_cell(
            "Have another agent take over in a cell",
            &[
                CELL,
                argument("agent", "AGENT", "The agent that takes over", Word),
                argument("instead_of", "AGENT", "From whom", Flag { long: "for", required: false }),
            ],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "handoff",
        usage: "/handoff TASK from A to B",
        does: "hands a task over",
        is_built: false,
        shape: Shape::Special(read::split_handoff),
        build: read::handoff,
        verb: on_cell(
            "Hand a task of a cell over",
            &[
                CELL,
                argument("task", "TASK", "The task", Word),
                argument("from", "AGENT", "The agent that has it", Flag { long: "from", required: true }),
                argument("to", "AGENT", "The agent that gets it", Flag { long: "to", required: true }),
            ],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "decide",
        usage: "/decide TEXT",
        who_words: "director; council",
        does: "records a decision",
        shape: Shape::Text("text"),
        free: Free::All,
        build: read::decide,
        verb: on_cell("Put a decision on record", &[CELL, argument("text", "TEXT", "The decision", Text)]),
        ..DIRECTORS
    },
    CommandSpec {
        name: "vote",
        usage: "/vote yes|no [on ID]",
        who_words: "director; council",
        does: "votes on a decision",
        is_built: false,
        shape: Shape::Words(&[
            Slot::Word("vote"),
            Slot::Behind { keyword: "on", name: "on", missing: "ID after `on` is missing" },
        ]),
        build: read::vote,
        verb: on_cell(
            "Vote on a decision",
            &[
                CELL,
                argument("vote", "VOTE", "yes or no", Word),
                argument("on", "ID", "The decision's number; else the newest", Flag { long: "on", required: false }),
            ],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "publish",
        usage: "/publish notes|decisions|checkpoint|artifact NAME|work [CELL]",
        does: "lets something optional out, or tries the work again",
        shape: Shape::Special(read::split_publish),
        build: read::publish,
        verb: on_cell(
            "Let something optional out of a cell, or push its work again",
            &[
                CELL,
                Argument {
                    allowed: &["work", "notes", "decisions", "checkpoint", "artifact"],
                    ..argument("what", "WHAT", "work, notes, decisions, checkpoint or artifact", Default("work"))
                },
                argument("name", "NAME", "The artifact's name", OptionalWord),
            ],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "close",
        usage: "/close [completed|failed|abandoned] [CELL] [reason]",
        does: "ends the cell",
        shape: Shape::Text("reason"),
        free: Free::All,
        build: read::close,
        verb: on_cell(
            "End a cell",
            &[
                CELL,
                Argument {
                    allowed: &["completed", "failed", "abandoned"],
                    ..argument(
                        "outcome",
                        "OUTCOME",
                        "completed, failed or abandoned; without it the work says which",
                        Flag { long: "outcome", required: false },
                    )
                },
                argument("reason", "REASON", "Why", OptionalText),
            ],
        ),
        ..DIRECTORS
    },
    CommandSpec {
        name: "resurrect",
        usage: "/resurrect [CELL]",
        does: "brings a closed cell back within its grace period",
        build: read::resurrect,
        verb: on_cell("Bring a closed cell back within its grace period", &[CELL]),
        ..DIRECTORS
    },
    CommandSpec {
        name: "destroy",
        usage: "/destroy CELL",
        does: "scrubs a cell",
        build: read::destroy,
        verb: on_cell("Scrub a cell; the ledger remains", &[CELL]),
        ..DIRECTORS
    },
];
