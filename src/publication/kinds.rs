//! The kinds of comment, and how each is written.

use super::gate::{self, Allowed, CommentLimits, Removed};
use super::redaction::Secrets;
use minijinja::{Environment, UndefinedBehavior, context};
use std::path::Path;

/// Most bytes of a text that a request can show whole, on a page of the forge.
pub const SHOWN_BYTES_MAX: usize = 40 * 1024;
/// Most lines of it.
pub const SHOWN_LINES_MAX: usize = 4000;

/// A comment of Lazarus: one of these, and nothing else, can be published.
#[derive(Debug, Clone)]
pub enum Publication {
    /// A cell started.
    SpawnLog(SpawnLog),
    /// A cell ended.
    CloseLog(CloseLog),
    /// How the mission stands; edited in place.
    Status(StatusTable),
    /// The answer to commands.
    Answer(Answer),
    /// The answer where nothing was done.
    Refusal(Answer),
    /// Lazarus needs a director.
    Question(Answer),
    /// A decision record: what is before the directors.
    Request(Request),
    /// Something that people should know.
    Warning(Warning),
    /// The text of a pull request: no comment, but it leaves like one.
    PullRequest(PullRequest),
}

impl Publication {
    /// The comment that gives an answer: a refusal if nothing of what was asked was done.
    pub const fn answering(answer: Answer, done: bool) -> Self {
        if done { Self::Answer(answer) } else { Self::Refusal(answer) }
    }

    /// The word for it in the marker.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SpawnLog(_) => "spawn-log",
            Self::CloseLog(_) => "close-log",
            Self::Status(_) => "status",
            Self::Answer(_) => "answer",
            Self::Refusal(_) => "refusal",
            Self::Question(_) => "question",
            Self::Request(_) => "request",
            Self::Warning(_) => "warning",
            Self::PullRequest(_) => "pull-request",
        }
    }
}

/// What a spawn log says (contract §8).
#[derive(Debug, Clone, Default)]
pub struct SpawnLog {
    /// The cell.
    pub cell: String,
    /// Who asked.
    pub asked_by: String,
    /// Who approved.
    pub approved_by: Vec<String>,
    /// Identity, role.
    pub participants: Vec<(String, String)>,
    /// Backend.
    pub backend: String,
    /// Isolation as probed.
    pub isolation: String,
    /// Steps that were taken.
    pub applied: Vec<String>,
    /// What is missing for more.
    pub missing: Vec<String>,
    /// Network.
    pub network: String,
    /// Time to live, and when it is over.
    pub ttl: String,
    /// When it is over.
    pub until: String,
    /// The commit that was cloned, and its branch.
    pub commit: String,
    /// The branch.
    pub branch: String,
    /// Commits that the branch had beyond that one at the start.
    pub behind: u64,
    /// Hash of the approved text.
    pub text: String,
    /// The number of the approved request; 0 where there was none.
    pub request: u32,
    /// Hash of the approved request.
    pub record: String,
    /// The ledger's head.
    pub head: String,
    /// Agent configuration found in the repository, not loaded by the host's side.
    pub planted: Vec<String>,
}

/// What a close log says (contract §8).
#[derive(Debug, Clone, Default)]
pub struct CloseLog {
    /// The cell.
    pub cell: String,
    /// How it ended.
    pub outcome: String,
    /// Why, in words of people or of ours.
    pub reason: Option<String>,
    /// Who ended it.
    pub closed_by: String,
    /// How long it ran.
    pub duration: String,
    /// Hash, author, subject.
    pub commits: Vec<(String, String, String)>,
    /// How many, if more than are listed.
    pub commit_count: u64,
    /// Added, removed, path.
    pub files: Vec<(u64, u64, String)>,
    /// How many, if more than are listed.
    pub file_count: u64,
    /// Changed and not committed.
    pub uncommitted: u64,
    /// Whether the last commit is of those.
    pub rest: bool,
    /// What else people should know of the work.
    pub notes: Vec<String>,
    /// Why the work is not known.
    pub unknown: Option<String>,
    /// Limits that were met: which, what came of it.
    pub met: Vec<(String, String)>,
    /// What it reached: host, connections, bytes out, bytes in.
    pub reached: Vec<(String, u64, String, String)>,
    /// How much of it was refused: why, how often.
    pub denied: Vec<(String, u64)>,
    /// Agent, end.
    pub exits: Vec<(String, String)>,
    /// The branch that the work is on.
    pub branch: Option<String>,
    /// Whether somebody else's work was on the first choice of a name.
    pub renamed: bool,
    /// Other branches.
    pub others: Vec<String>,
    /// The pull request's number.
    pub pull: Option<i64>,
    /// Why something of these is missing, in the forge's words.
    pub refused: Option<String>,
    /// The same of other branches: name, words.
    pub others_refused: Vec<(String, String)>,
    /// What was not pushed, why, and what can be done: words of ours, with what
    /// agents named in code spans.
    pub held: Vec<String>,
    /// The ledger's head.
    pub head: String,
    /// Until when it can be resurrected, if at all.
    pub grace_until: Option<String>,
}

/// What a pull request says (contract §8).
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// The cell.
    pub cell: String,
    /// The issue's number.
    pub issue: i64,
    /// Who approved.
    pub approved_by: Vec<String>,
    /// Identity and role of who worked.
    pub participants: Vec<String>,
    /// Hash of the approved text.
    pub text: String,
    /// The commit that was cloned.
    pub base: String,
    /// Hash, author, subject.
    pub commits: Vec<(String, String, String)>,
    /// How many, if more than are listed.
    pub commit_count: u64,
    /// How many files were touched.
    pub file_count: u64,
    /// Whether the last commit is of what nobody committed.
    pub rest: bool,
    /// What a reviewer should look at.
    pub notes: Vec<String>,
    /// The ledger's head.
    pub head: String,
}

/// One cell of a status table.
#[derive(Debug, Clone, Default)]
pub struct StatusRow {
    /// The cell.
    pub cell: String,
    /// State.
    pub state: String,
    /// Who takes part, with role.
    pub participants: Vec<String>,
    /// Isolation as probed, or `not started`.
    pub isolation: String,
    /// When its time is over.
    pub until: String,
}

/// How a mission stands.
#[derive(Debug, Clone, Default)]
pub struct StatusTable {
    /// One row a cell.
    pub cells: Vec<StatusRow>,
    /// What is before the directors, in words of ours.
    pub waiting: Option<String>,
}

/// What changed in a text.
#[derive(Debug, Clone, Default)]
pub struct TextChange {
    /// `- old` and `+ new` lines.
    pub diff: String,
}

/// The answer to the commands of one comment.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// One item a command: whether it was done, and words of ours that may
    /// quote what people wrote.
    pub items: Vec<(bool, String)>,
    /// A table, where one was asked for.
    pub status: Option<StatusTable>,
    /// What changed, where that is the point.
    pub change: Option<TextChange>,
    /// A list of commands, where help was asked for.
    pub help: Vec<(String, String, String)>,
    /// People to be called: logins.
    pub mentions: Vec<String>,
}

impl Answer {
    /// An answer of one item.
    pub fn one(done: bool, words: String) -> Self {
        Self { items: vec![(done, words)], ..Self::default() }
    }
}

/// A decision record, as the directors are shown it (contract §6).
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Its number in the mission.
    pub number: u32,
    /// Who asks.
    pub asked_by: String,
    /// Where it stands, in words of ours.
    pub standing: String,
    /// Whether it is open.
    pub open: bool,
    /// Everything that was parsed: what, value.
    pub rows: Vec<(String, String)>,
    /// The task beside the issue's text, where there is one.
    pub task: Option<String>,
    /// The text that the agents are given.
    pub text: String,
    /// What of that text the page does not show, in words of ours.
    pub hidden: Vec<String>,
    /// SHA-256 of the record.
    pub sha256: String,
    /// People to be called: logins.
    pub mentions: Vec<String>,
}

/// Something that people should know.
#[derive(Debug, Clone, Default)]
pub struct Warning {
    /// Words of ours.
    pub text: String,
    /// What changed, where that is the point.
    pub change: Option<TextChange>,
}

/// A comment that passed the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The text, with its marker as the last line.
    pub body: String,
    /// What the gate took away.
    pub removed: Removed,
}

/// A template that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the template `{name}` cannot be used: {why}; correct it in `paths.templates`, or remove it to use the built-in one"
)]
pub struct RenderError {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub why: String,
}

impl RenderError {
    fn of(name: &str) -> impl Fn(minijinja::Error) -> Self {
        let name = name.to_owned();
        move |e| Self { name: name.clone(), why: format!("{e:#}") }
    }
}

const BUILT_IN: [(&str, &str); 8] = [
    ("request.md", include_str!("../../templates/comments/request.md")),
    ("pull-request.md", include_str!("../../templates/comments/pull-request.md")),
    ("spawn-log.md", include_str!("../../templates/comments/spawn-log.md")),
    ("close-log.md", include_str!("../../templates/comments/close-log.md")),
    ("status.md", include_str!("../../templates/comments/status.md")),
    ("answer.md", include_str!("../../templates/comments/answer.md")),
    ("warning.md", include_str!("../../templates/comments/warning.md")),
    ("status-table.md", include_str!("../../templates/comments/status-table.md")),
];

/// The templates, the user's over the built-in.
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// Reads the templates; those in `directory` replace built-in ones of the
    /// same name.
    ///
    /// # Errors
    /// Names the template that cannot be used.
    pub fn load(directory: Option<&Path>) -> Result<Self, RenderError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(200_000));
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(RenderError::of("syntax"))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        for (name, text) in BUILT_IN {
            let own = directory.map(|d| d.join(name)).filter(|p| p.exists());
            let text = match own {
                None => text.to_owned(),
                Some(path) => std::fs::read_to_string(&path)
                    .map_err(|e| RenderError { name: name.to_owned(), why: format!("{}: {e}", path.display()) })?,
            };
            environment.add_template_owned(name, text).map_err(RenderError::of(name))?;
        }
        Ok(Self { environment })
    }

    /// Writes a publication: cleans each piece, renders, passes the whole
    /// through the gate and appends the marker.
    ///
    /// # Errors
    /// Where the user's template does not work; the built-in ones do.
    pub fn render(
        &self,
        publication: &Publication,
        effect: &str,
        cell: Option<&str>,
        secrets: &Secrets,
    ) -> Result<Published, RenderError> {
        let mut clean = Cleaner { secrets, removed: Removed::default() };
        // The one issue or pull request that is meant to be linked.
        let references: Vec<String> = match publication {
            Publication::CloseLog(log) => log.pull.iter().map(|n| format!("#{n}")).collect(),
            Publication::PullRequest(pull) => vec![format!("#{}", pull.issue)],
            _ => vec![],
        };
        let (name, values, mentions) = match publication {
            Publication::PullRequest(pull) => ("pull-request.md", clean.pull_request(pull), vec![]),
            Publication::SpawnLog(log) => ("spawn-log.md", clean.spawn_log(log), vec![]),
            Publication::CloseLog(log) => ("close-log.md", clean.close_log(log), vec![]),
            Publication::Status(table) => ("status.md", context! { table => clean.table(table) }, vec![]),
            Publication::Answer(answer) | Publication::Refusal(answer) | Publication::Question(answer) => {
                ("answer.md", clean.answer(answer), answer.mentions.clone())
            }
            Publication::Request(request) => ("request.md", clean.request(request), request.mentions.clone()),
            Publication::Warning(warning) => (
                "warning.md",
                context! {
                    text => clean.words(&warning.text),
                    change => warning.change.as_ref().map(|c| clean.block(&c.diff)),
                },
                vec![],
            ),
        };
        let rendered =
            self.environment.get_template(name).and_then(|t| t.render(values)).map_err(RenderError::of(name))?;
        let allowed = Allowed { mentions: &mentions, references: &references };
        let (mut body, removed) = gate::comment(rendered.trim(), allowed, secrets);
        let mut total = clean.removed;
        total += removed;
        if !total.is_empty() {
            body.push_str(&format!("\n\n<sub>{total}</sub>").replace("<sub>", "").replace("</sub>", ""));
        }
        body.push_str("\n\n");
        body.push_str(&gate::marker(publication.kind(), effect, cell));
        Ok(Published { body, removed: total })
    }
}

/// Cleans piece by piece and counts.
struct Cleaner<'a> {
    secrets: &'a Secrets,
    removed: Removed,
}

impl Cleaner<'_> {
    /// Untrusted words on one line.
    fn line(&mut self, text: &str) -> String {
        let (clean, removed) = gate::inline(text, CommentLimits::default(), self.secrets);
        self.removed += removed;
        clean.as_str().to_owned()
    }

    /// Words of ours: may use code spans; what they quote stands in those.
    fn words(&mut self, text: &str) -> String {
        // Outside of code spans our words are plain; inside, whatever people
        // wrote was put between backquotes without backquotes of its own.
        let mut out = String::new();
        for (index, piece) in text.chars().take(4000).collect::<String>().split('`').enumerate() {
            if index % 2 == 1 {
                let (clean, removed) = self.secrets.redact(piece);
                self.removed.secrets += removed;
                out.push_str(&format!("`{}`", clean.replace(['\n', '\r'], " ")));
            } else {
                out.push_str(&self.plain(piece));
            }
        }
        out
    }

    fn plain(&mut self, text: &str) -> String {
        let lead: String = text.chars().take_while(|c| c.is_whitespace()).collect();
        let trail: String = if text.trim().is_empty() {
            String::new()
        } else {
            text.chars().rev().take_while(|c| c.is_whitespace()).collect()
        };
        let (clean, removed) =
            gate::inline(text.trim(), CommentLimits { chars: 4000, ..CommentLimits::default() }, self.secrets);
        self.removed += removed;
        format!("{lead}{}{trail}", clean.as_str()).replace('\n', " ")
    }

    fn block(&mut self, text: &str) -> String {
        let (clean, removed) = gate::block(text, CommentLimits::default(), self.secrets);
        self.removed += removed;
        clean.as_str().to_owned()
    }

    fn lines(&mut self, texts: &[String]) -> Vec<String> {
        texts.iter().map(|t| self.line(t)).collect()
    }

    fn spawn_log(&mut self, log: &SpawnLog) -> minijinja::Value {
        context! {
            cell => log.cell.clone(),
            asked_by => self.line(&log.asked_by),
            approved_by => self.lines(&log.approved_by),
            participants => log.participants.iter().map(|(i, r)| (self.line(i), r.clone())).collect::<Vec<_>>(),
            backend => log.backend.clone(),
            isolation => log.isolation.clone(),
            applied => log.applied.iter().map(|step| self.plain(step)).collect::<Vec<_>>(),
            missing => log.missing.iter().map(|m| self.words(m)).collect::<Vec<_>>(),
            network => self.line(&log.network),
            ttl => log.ttl.clone(),
            until => log.until.clone(),
            commit => self.line(&log.commit),
            branch => self.line(&log.branch),
            behind => log.behind,
            text => log.text.clone(),
            request => log.request,
            record => log.record.clone(),
            head => log.head.clone(),
            planted => self.lines(&log.planted),
        }
    }

    fn request(&mut self, request: &Request) -> minijinja::Value {
        // It is shown whole: what does not fit is no request (`SHOWN_BYTES_MAX`).
        let whole = CommentLimits { bytes: SHOWN_BYTES_MAX, lines: SHOWN_LINES_MAX, ..CommentLimits::default() };
        let mut block = |text: &str| {
            let (clean, removed) = gate::block(text, whole, self.secrets);
            self.removed += removed;
            clean.as_str().to_owned()
        };
        let (task, text) = (request.task.as_deref().map(&mut block), block(&request.text));
        context! {
            number => request.number,
            asked_by => self.line(&request.asked_by),
            standing => self.words(&request.standing),
            open => request.open,
            rows => request.rows.iter().map(|(what, value)| (what.clone(), self.plain(value))).collect::<Vec<_>>(),
            task => task,
            text => text,
            hidden => request.hidden.iter().map(|part| self.words(part)).collect::<Vec<_>>(),
            sha256 => request.sha256.clone(),
            mentions => request.mentions.clone(),
        }
    }

    fn close_log(&mut self, log: &CloseLog) -> minijinja::Value {
        context! {
            cell => log.cell.clone(),
            outcome => log.outcome.clone(),
            // It may say what to do, which is no use in part.
            reason => log.reason.as_deref().map(|r| self.plain(r)),
            closed_by => self.line(&log.closed_by),
            duration => log.duration.clone(),
            commits => self.commits(&log.commits),
            commit_count => log.commit_count,
            files => log.files.iter().map(|(a, r, p)| (*a, *r, self.line(p))).collect::<Vec<_>>(),
            file_count => log.file_count,
            uncommitted => log.uncommitted,
            rest => log.rest,
            notes => log.notes.iter().map(|note| self.words(note)).collect::<Vec<_>>(),
            unknown => log.unknown.as_deref().map(|u| self.line(u)),
            met => log.met.iter().map(|(l, w)| (l.clone(), self.line(w))).collect::<Vec<_>>(),
            reached => log.reached.iter().map(|(h, n, o, i)| (code(h), *n, o.clone(), i.clone())).collect::<Vec<_>>(),
            denied => log.denied.clone(),
            exits => log.exits.iter().map(|(a, e)| (self.line(a), self.line(e))).collect::<Vec<_>>(),
            branch => log.branch.as_deref().map(code),
            renamed => log.renamed,
            others => log.others.iter().map(|o| code(o)).collect::<Vec<_>>(),
            pull => log.pull.map(|n| format!("#{n}")),
            refused => log.refused.as_deref().map(|r| self.line(r)),
            others_refused => log.others_refused.iter().map(|(b, w)| (code(b), self.line(w))).collect::<Vec<_>>(),
            held => log.held.iter().map(|held| self.words(held)).collect::<Vec<_>>(),
            head => log.head.clone(),
            grace_until => log.grace_until.clone(),
        }
    }

    fn commits(&mut self, commits: &[(String, String, String)]) -> Vec<(String, String, String)> {
        let hash = |h: &str| h.chars().filter(char::is_ascii_hexdigit).take(12).collect::<String>();
        commits.iter().map(|(h, a, s)| (hash(h), self.line(a), self.line(s))).collect()
    }

    fn pull_request(&mut self, pull: &PullRequest) -> minijinja::Value {
        context! {
            cell => pull.cell.clone(),
            issue => format!("#{}", pull.issue),
            approved_by => self.lines(&pull.approved_by),
            participants => self.lines(&pull.participants),
            text => pull.text.clone(),
            base => pull.base.chars().take(12).collect::<String>(),
            commits => self.commits(&pull.commits),
            commit_count => pull.commit_count,
            file_count => pull.file_count,
            rest => pull.rest,
            notes => pull.notes.iter().map(|note| self.words(note)).collect::<Vec<_>>(),
            head => pull.head.clone(),
        }
    }

    fn table(&mut self, table: &StatusTable) -> minijinja::Value {
        context! {
            cells => table.cells.iter().map(|row| context! {
                cell => row.cell.clone(),
                state => row.state.clone(),
                participants => self.lines(&row.participants),
                isolation => row.isolation.clone(),
                until => row.until.clone(),
            }).collect::<Vec<_>>(),
            waiting => table.waiting.as_deref().map(|w| self.words(w)),
        }
    }

    fn answer(&mut self, answer: &Answer) -> minijinja::Value {
        context! {
            items => answer.items.iter().map(|(done, text)| (*done, self.words(text))).collect::<Vec<_>>(),
            status => answer.status.as_ref().map(|t| self.table(t)),
            change => answer.change.as_ref().map(|c| self.block(&c.diff)),
            help => answer.help.clone(),
            mentions => answer.mentions.clone(),
        }
    }
}

/// A name of ours within backquotes.
fn code(name: &str) -> String {
    name.replace(['`', '\n'], "")
}

/// A title for a pull request out of an issue's: the forge reads titles for
/// mentions and for words that close issues, so that letters, digits and a few
/// signs that mean nothing to it are all that is left. At most 120 characters.
pub fn plain_title(title: &str, secrets: &Secrets) -> String {
    let (title, _) = secrets.redact(title);
    let plain: String =
        title.chars().map(|c| if c.is_alphanumeric() || "-_.,()'+".contains(c) { c } else { ' ' }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_template_renders_with_its_marker_last() {
        let templates = Templates::load(None).unwrap();
        for publication in [
            Publication::SpawnLog(SpawnLog { approved_by: vec!["ada".into()], ..SpawnLog::default() }),
            Publication::CloseLog(CloseLog {
                commits: vec![("abc".into(), "a".into(), "closes #1 @ada".into())],
                ..CloseLog::default()
            }),
            Publication::CloseLog(CloseLog {
                branch: Some("lazarus/3-laz-x".into()),
                pull: Some(7),
                refused: Some("no".into()),
                ..CloseLog::default()
            }),
            Publication::PullRequest(PullRequest {
                issue: 3,
                commits: vec![("abc".into(), "a".into(), "closes #1 @ada".into())],
                ..PullRequest::default()
            }),
            Publication::Status(StatusTable { cells: vec![StatusRow::default()], waiting: None }),
            Publication::Request(Request {
                number: 2,
                rows: vec![("agents".into(), "scribe #1 @ada".into())],
                task: Some("do it".into()),
                open: true,
                ..Request::default()
            }),
            Publication::Answer(Answer { items: vec![(true, "done `x`".into())], ..Answer::default() }),
            Publication::Warning(Warning {
                text: "careful".into(),
                change: Some(TextChange { diff: "- a\n+ b".into() }),
            }),
        ] {
            let out = templates.render(&publication, "0123abcd", Some("laz-x"), &Secrets::none()).unwrap();
            let marker = parse_last(&out.body);
            assert_eq!(marker.as_deref(), Some(publication.kind()), "{}", out.body);
            assert!(!out.body.contains("#1 @ada"), "{}", out.body);
        }
    }

    #[test]
    fn a_pull_requests_title_closes_nothing_and_calls_nobody() {
        let title =
            plain_title("closes #1, fixes acme/widget!2 @ada `x` https://git.test/a/b/issues/4", &Secrets::none());
        assert_eq!(title, "closes 1, fixes acme widget 2 ada x https git.test a b issues 4");
    }

    fn parse_last(body: &str) -> Option<String> {
        gate::parse_marker(body).map(|m| m.kind.clone())
    }
}
