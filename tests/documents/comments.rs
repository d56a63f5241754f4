//! `docs/comments.md`: every sentence of Lazarus, and an example of every comment.

use super::assert_generated;
use lazarus::publication::sentences::{Sentence, all};
use lazarus::publication::{
    Answer, CloseLog, Publication, PullRequest, Request, Secrets, SpawnLog, StatusRow, StatusTable, Templates,
    TextChange, Warning,
};
use std::collections::BTreeSet;
use std::fmt::Write as _;

const CELL: &str = "laz-abcdefghijklmnop";
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const COMMIT: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec()
}

fn spawn_log() -> SpawnLog {
    SpawnLog {
        cell: CELL.to_owned(),
        asked_by: "bob".to_owned(),
        approved_by: words(["ada"]),
        participants: pairs([("agent:scribe", "executor"), ("human:ada", "director")]),
        backend: "process".to_owned(),
        isolation: "level_2".to_owned(),
        applied: words(["user, mount, PID, network and IPC namespaces of its own", "a filter for system calls"]),
        network: "none".to_owned(),
        ttl: "4h".to_owned(),
        until: "2026-01-02 15:04 UTC".to_owned(),
        commit: COMMIT.to_owned(),
        branch: "main".to_owned(),
        text: HASH.to_owned(),
        request: 1,
        record: HASH.to_owned(),
        head: format!("12:{HASH}"),
        ..SpawnLog::default()
    }
}

fn close_log() -> CloseLog {
    CloseLog {
        cell: CELL.to_owned(),
        outcome: "completed".to_owned(),
        closed_by: "ada".to_owned(),
        duration: "21m".to_owned(),
        commits: vec![(COMMIT.to_owned(), "scribe".to_owned(), "Write the summary".to_owned())],
        commit_count: 1,
        files: vec![(12, 3, "docs/summary.md".to_owned())],
        file_count: 1,
        exits: pairs([("agent:scribe", "exit 0")]),
        branch: Some(format!("lazarus/7-{CELL}")),
        pull: Some(8),
        head: format!("19:{HASH}"),
        grace_until: Some("2026-01-02 15:34 UTC".to_owned()),
        ..CloseLog::default()
    }
}

fn close_log_with_everything() -> CloseLog {
    CloseLog {
        outcome: "failed".to_owned(),
        reason: Some("agent scribe ended badly: exit 1".to_owned()),
        commit_count: 3,
        uncommitted: 2,
        rest: true,
        notes: words(["`notes/` is a repository of its own and was left out"]),
        met: pairs([("memory", "agent scribe was ended by it")]),
        reached: vec![("pypi.org".to_owned(), 3, "4 kB".to_owned(), "812 kB".to_owned())],
        denied: vec![("names that are not allowed".to_owned(), 2)],
        exits: pairs([("agent:scribe", "exit 1")]),
        pull: None,
        refused: Some("the branch is protected.".to_owned()),
        others_refused: pairs([("lazarus/7-other", "the branch is protected.")]),
        held: words([
            "`.gitea/workflows/ci.yaml` at `4b825dc642cb` would be run by the forge. A director lets exactly this commit go with `/publish work laz-abcdefghijklmnop`.",
        ]),
        ..close_log()
    }
}

fn close_log_of_unknown_work() -> CloseLog {
    CloseLog {
        outcome: "abandoned".to_owned(),
        commits: vec![],
        commit_count: 0,
        files: vec![],
        file_count: 0,
        branch: None,
        pull: None,
        unknown: Some("git says that the repository is damaged.".to_owned()),
        ..close_log()
    }
}

fn request() -> Request {
    Request {
        number: 1,
        asked_by: "bob".to_owned(),
        standing: lazarus::publication::sentences::requests::open("", 1),
        open: true,
        rows: pairs([("agents", "scribe"), ("backend", "process"), ("isolation", "level_2 or stronger")]),
        task: Some("Only the second chapter.".to_owned()),
        text: "Summarise the handbook\n\nOne page, for newcomers.".to_owned(),
        hidden: words(["a comment of HTML, which the page does not show: `x`"]),
        sha256: HASH.to_owned(),
        mentions: words(["ada"]),
    }
}

fn table() -> StatusTable {
    let row = StatusRow {
        cell: CELL.to_owned(),
        state: "active".to_owned(),
        participants: words(["agent:scribe (executor, at work)"]),
        isolation: "level_2".to_owned(),
        until: "2026-01-02 15:04 UTC".to_owned(),
    };
    StatusTable { cells: vec![row], waiting: Some(lazarus::publication::sentences::requests::waits_for_director(2)) }
}

fn answer<const N: usize>(items: [(bool, &str); N]) -> Answer {
    Answer { items: items.map(|(done, text)| (done, text.to_owned())).to_vec(), ..Answer::default() }
}

/// What each example shows, and the example.
fn examples() -> Vec<(&'static str, Publication)> {
    let change = || Some(TextChange { diff: "- one page\n+ two pages".to_owned() });
    let help = vec![(
        "/close [completed|failed|abandoned] [CELL] [reason]".replace('|', "\\|"),
        "director".to_owned(),
        "ends the cell".to_owned(),
    )];
    vec![
        ("A cell started", Publication::SpawnLog(spawn_log())),
        (
            "A cell started on a host that cannot give more, from a branch that has moved, in a repository that configures agents",
            Publication::SpawnLog(SpawnLog {
                missing: words(["control groups: `/sys/fs/cgroup` cannot be written"]),
                behind: 2,
                planted: words([".claude/settings.json"]),
                ..spawn_log()
            }),
        ),
        ("A cell ended", Publication::CloseLog(close_log())),
        ("A cell ended, and not all went well", Publication::CloseLog(close_log_with_everything())),
        ("A cell ended, and its work cannot be read", Publication::CloseLog(close_log_of_unknown_work())),
        (
            "The text of a pull request",
            Publication::PullRequest(PullRequest {
                cell: CELL.to_owned(),
                issue: 7,
                approved_by: words(["ada"]),
                participants: words(["agent:scribe (executor)"]),
                text: HASH.to_owned(),
                base: COMMIT.to_owned(),
                commits: close_log().commits,
                commit_count: 2,
                file_count: 1,
                rest: true,
                notes: words(["`notes/` is a repository of its own and was left out"]),
                head: format!("18:{HASH}"),
            }),
        ),
        ("How the mission stands; edited in place", Publication::Status(table())),
        ("How it stands before there is a cell", Publication::Status(StatusTable::default())),
        ("A request before the directors", Publication::Request(request())),
        ("The answer to one command", Publication::Answer(answer([(true, "Cell `laz-abcdefghijklmnop` is frozen.")]))),
        (
            "The answer to several",
            Publication::Answer(answer([(true, "`/pause`: done."), (false, "`/tell`: this mission has no live cell")])),
        ),
        ("The answer to `/status`", Publication::Answer(Answer { status: Some(table()), ..Answer::default() })),
        ("The answer to `/help close`", Publication::Answer(Answer { help, ..Answer::default() })),
        (
            "A refusal that shows what changed",
            Publication::Refusal(Answer { change: change(), ..answer([(false, "The text was changed.")]) }),
        ),
        (
            "A question; whoever is asked is called",
            Publication::Question(Answer {
                mentions: words(["ada", "bob"]),
                ..answer([(true, "Cell `laz-abcdefghijklmnop` is frozen.")])
            }),
        ),
        ("A warning", Publication::Warning(Warning { text: "The text was changed.".to_owned(), change: change() })),
    ]
}

#[test]
fn the_page_about_comments_has_every_sentence_and_an_example_of_every_comment() {
    let mut page = String::new();
    for (subject, sentences) in all() {
        let _ = write!(page, "\n### {subject}\n\n| said | when |\n| --- | --- |\n");
        for Sentence { when, text, .. } in sentences {
            let when: Vec<&str> = when.iter().map(|line| line.trim()).collect();
            let _ = writeln!(page, "| {} | {} |", text.trim().replace('|', "\\|"), when.join(" ").replace('|', "\\|"));
        }
    }
    assert_generated("docs/comments.md", "sentences", &page);
    let templates = Templates::load(None).unwrap();
    let mut page = String::new();
    for (what, publication) in examples() {
        let published = templates.render(&publication, "0123456789abcdef0123", Some(CELL), &Secrets::none()).unwrap();
        let _ = write!(page, "\n### {what}\n\n`````markdown\n{}\n`````\n", published.body);
    }
    assert_generated("docs/comments.md", "comments", &page);
    let shown: BTreeSet<&str> = examples().iter().map(|(_, publication)| publication.kind()).collect();
    let kinds =
        ["answer", "close-log", "pull-request", "question", "refusal", "request", "spawn-log", "status", "warning"];
    assert_eq!(shown, BTreeSet::from(kinds));
}

#[test]
fn no_two_sentences_have_one_name_and_each_is_plain() {
    let mut names = BTreeSet::new();
    for (subject, sentences) in all() {
        for Sentence { name, text, when } in sentences {
            assert!(names.insert((subject, name)), "{subject}: two sentences are called {name}");
            assert_eq!(text.matches('`').count() % 2, 0, "a code span of {name} is open: {text}");
            assert!(!text.contains('\n') && !text.contains("  "), "{name} is not one line: {text}");
            assert!(when.iter().any(|line| !line.trim().is_empty()), "{name} does not say when");
        }
    }
}

/// A sentence that nobody says any more is not kept, and nobody says one beside them: what
/// the deciding half of the engine puts together by itself has no words in it.
#[test]
fn every_sentence_is_said_somewhere() {
    let code: String = super::files("src", ".rs")
        .iter()
        .filter(|path| !path.to_string_lossy().contains("/sentences/"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let of_commands = super::read("src/publication/sentences/commands.rs");
    for (subject, sentences) in all() {
        for Sentence { name, .. } in sentences {
            // Why somebody may not give a command is chosen where the sentences stand.
            let chosen = of_commands.contains(&format!("=> {name}("));
            assert!(chosen || code.contains(&format!("::{name}")), "{subject}: nobody says `{name}`");
        }
    }
}
