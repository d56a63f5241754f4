//! The built-in agent: reads its mission, writes one small file, commits it, and reports in one line of JSON. It
//! needs neither network nor credentials, so everything around an agent can be tried without a model.
//!
//! It runs inside the cell (`lazarus agent scribe --mission FILE`, in the project), but trusts the project no more
//! for that: it follows no link on the way to the file, replaces files instead of writing through them, and runs
//! git without hooks and with no configuration except the clone's.

use anyhow::{Context, bail};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde_json::json;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The file that it writes if the objective names none.
const DEFAULT_FILE: &str = "notes/lazarus-mission.md";
/// Largest mission that is read, and largest file that is added to, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// Most characters of the objective in the summary.
const MAX_OBJECTIVE: usize = 16 * 1024;
/// Most criteria in the summary.
const MAX_CRITERIA: usize = 100;
/// Author of the commits. The domain can never exist (RFC 2606).
const AUTHOR: &str = "agent:scribe";
const EMAIL: &str = "scribe@agents.lazarus.invalid";

/// The content of a mission file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Mission {
    title: String,
    objective: String,
    /// Each criterion, and whether it is ticked.
    criteria: Vec<(bool, String)>,
}

/// Carries out the mission of this file in this project, and prints the report.
///
/// # Errors
/// If the mission cannot be read, the file cannot be written without following a link, or git fails.
pub fn run(mission: &Path, project: &Path) -> anyhow::Result<ExitCode> {
    let report = perform(mission, project)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{report}").and_then(|()| out.flush()).context("cannot print the report")?;
    Ok(ExitCode::SUCCESS)
}

/// Does the same without printing. The report is JSON with `agent`, `status` (`committed` or `unchanged`), `file`,
/// `commit` and `criteria`.
///
/// # Errors
/// As for [`run`].
pub fn perform(mission: &Path, project: &Path) -> anyhow::Result<serde_json::Value> {
    let text = read_mission(mission)?;
    let mission = Mission::parse(&text);
    let project = std::fs::canonicalize(project)
        .with_context(|| format!("cannot find the project {}; run scribe inside the clone", project.display()))?;
    let root = rustix::fs::open(&project, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open the project {}", project.display()))?;

    let summary = mission.summary();
    let file = choose_file(&mission.objective, &root)?;
    write_summary(&root, &file, &summary)?;

    git(&project, &["add", "--force", "--", &file], None)?;
    let changed = || -> anyhow::Result<bool> {
        let arguments = ["status", "--porcelain", "--untracked-files=no", "--", &file];
        Ok(!git(&project, &arguments, None)?.trim().is_empty())
    };
    let status = if changed()? {
        let message =
            format!("Note the mission: {}\n\nWritten by scribe, Lazarus' built-in agent.\n", inert(&mission.title));
        let commit = ["commit", "--quiet", "--no-verify", "--cleanup=whitespace", "--file=-", "--only", "--", &file];
        match git(&project, &commit, Some(&message)) {
            // Another agent may have committed the same text meanwhile.
            Err(error) if changed()? => return Err(error),
            Err(_) => "unchanged",
            Ok(_) => "committed",
        }
    } else {
        "unchanged"
    };
    let commit = git(&project, &["rev-parse", "--verify", "HEAD"], None)?;
    Ok(json!({
        "agent": "scribe",
        "status": status,
        "file": file,
        "commit": commit.trim(),
        "criteria": mission.criteria.len(),
    }))
}

fn read_mission(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read the mission {}; give it as --mission FILE", path.display()))?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("the mission {} is larger than 1 MiB; scribe does not take it", path.display());
    }
    // People write anything into an issue; bytes that are not text are replaced.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Mission {
    /// Parses a mission: the first heading is its title, the section `Objective` (or `Task`) is its objective, and
    /// the list below `Success criteria` is its criteria. A text without such headings is all objective.
    fn parse(text: &str) -> Self {
        let mut mission = Self::default();
        let mut body = String::new();
        let mut objective = String::new();
        let mut within = "";
        let mut fence: Option<String> = None;
        for line in text.lines() {
            let trimmed = line.trim();
            if let Some(open) = &fence {
                if trimmed.starts_with(open.as_str()) && trimmed.trim_start_matches(['`', '~']).is_empty() {
                    fence = None;
                }
            } else if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
                let mark = trimmed.chars().next().unwrap_or('`');
                fence = Some(trimmed.chars().take_while(|c| *c == mark).collect());
            } else if let Some(heading) = heading(trimmed) {
                if mission.title.is_empty() {
                    mission.title = one_line(heading, 72);
                    continue;
                }
                let heading = heading.to_lowercase();
                within = if heading.contains("criteria") {
                    "criteria"
                } else if heading.contains("objective") || heading == "task" {
                    "objective"
                } else {
                    "other"
                };
                continue;
            }
            match within {
                "criteria" => mission.criterion(trimmed),
                "objective" => objective.extend([line, "\n"]),
                "" => body.extend([line, "\n"]),
                _ => {}
            }
        }
        let objective = if objective.trim().is_empty() { body } else { objective };
        mission.objective = objective
            .trim()
            .chars()
            .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
            .take(MAX_OBJECTIVE)
            .collect();
        if mission.title.is_empty() {
            let first = mission.objective.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
            mission.title = one_line(first, 72);
        }
        if mission.title.is_empty() {
            "a mission without a title".clone_into(&mut mission.title);
        }
        mission
    }

    fn criterion(&mut self, line: &str) {
        let Some(item) = ["- ", "* ", "+ "].iter().find_map(|bullet| line.strip_prefix(bullet)) else {
            return;
        };
        let ticked = ["[x]", "[X]"].iter().find_map(|tick| item.strip_prefix(tick));
        let text = one_line(ticked.or_else(|| item.strip_prefix("[ ]")).unwrap_or(item), 300);
        if !text.is_empty() && self.criteria.len() < MAX_CRITERIA {
            self.criteria.push((ticked.is_some(), text));
        }
    }

    /// The text of the file.
    fn summary(&self) -> String {
        let mut text = format!("# {}\n\n## Objective\n\n", self.title);
        text.push_str(if self.objective.is_empty() { "(none given)" } else { &self.objective });
        text.push_str("\n\n## Success criteria\n\n");
        if self.criteria.is_empty() {
            text.push_str("(none given)\n");
        }
        for (ticked, criterion) in &self.criteria {
            let _ = writeln!(text, "- [{}] {criterion}", if *ticked { 'x' } else { ' ' });
        }
        text
    }
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    let depth = line.len() - text.len();
    ((1..=6).contains(&depth) && text.starts_with(' ')).then(|| text.trim().trim_end_matches('#').trim_end())
}

/// Shortens text to one line of at most so many characters, without control characters.
fn one_line(text: &str, most: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(most).collect::<String>().trim_end().to_owned()
}

/// Removes from a title whatever the forge would take for a mention or a reference: it also reads commit messages,
/// and would act on "closes #1".
fn inert(title: &str) -> String {
    one_line(&title.replace(['#', '@', '!'], " ").replace("://", ": "), 72)
}

/// Chooses the file that the objective names in backquotes, if scribe may write it: it must not exist yet, or be
/// prose that can be added to. Code that a mission merely mentions is not overwritten.
fn choose_file(objective: &str, root: &OwnedFd) -> anyhow::Result<String> {
    for named in objective.split('`').skip(1).step_by(2).take(64) {
        if !is_plain_path(named) {
            continue;
        }
        let prose = [".md", ".markdown", ".txt"].iter().any(|ending| named.to_lowercase().ends_with(ending));
        match kind(root, named)? {
            None => return Ok(named.to_owned()),
            Some(FileType::RegularFile) if prose => return Ok(named.to_owned()),
            Some(FileType::Symlink) => {
                bail!("`{named}` leads through a symbolic link, which scribe does not follow; name a plain file")
            }
            Some(_) => {}
        }
    }
    Ok(DEFAULT_FILE.to_owned())
}

/// Whether this is a relative path of plain names that contains a dot or a slash. Hidden names are not allowed, so
/// it is never `.git`.
fn is_plain_path(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text.contains(['.', '/'])
        && text.split('/').all(|name| {
            name.len() <= 100
                && name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
                && !name.ends_with('.')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        })
        && !text.split('/').any(|name| name.eq_ignore_ascii_case("git~1"))
}

/// The type of what lies at a path; a link on the way counts as a link. `None` if nothing is there yet.
fn kind(root: &OwnedFd, path: &str) -> anyhow::Result<Option<FileType>> {
    let mut at = root.try_clone().context("out of file descriptors")?;
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        let found = match rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {path} in the project"));
            }
        };
        if names.peek().is_none() || found != FileType::Directory {
            return Ok(Some(found));
        }
        at = open_directory(&at, name).with_context(|| format!("cannot enter {path} in the project"))?;
    }
    Ok(None)
}

fn open_directory(at: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Writes the summary, or adds it to a file that has other text. The file is replaced by a new one with its name,
/// so that nothing is ever written through a link, symbolic or hard.
fn write_summary(root: &OwnedFd, path: &str, summary: &str) -> anyhow::Result<()> {
    let refuse = || format!("cannot write {path}: a symbolic link or a file is in its way, and scribe follows none");
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at = root.try_clone().context("out of file descriptors")?;
    for directory in directories.split('/').filter(|directory| !directory.is_empty()) {
        match rustix::fs::mkdirat(&at, directory, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make the directory of {path}"));
            }
        }
        at = open_directory(&at, directory).with_context(refuse)?;
    }

    let text = match read_existing(&at, name).with_context(refuse)? {
        // A revived scribe finds its own work and adds nothing.
        Some(existing) if existing.contains(summary) => return Ok(()),
        Some(existing) if !existing.trim().is_empty() => {
            format!("{}\n\n{summary}", existing.trim_end())
        }
        _ => summary.to_owned(),
    };
    let temporary = format!(".lazarus-scribe-{}", uuid::Uuid::now_v7());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&at, &temporary, flags, Mode::from_raw_mode(0o666))
        .with_context(|| format!("cannot make a file beside {path}"))?;
    let written = File::from(file)
        .write_all(text.as_bytes())
        .and_then(|()| rustix::fs::renameat(&at, &temporary, &at, name).map_err(Into::into));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(&at, &temporary, AtFlags::empty());
    }
    written.with_context(|| format!("cannot write {path}"))
}

fn read_existing(at: &OwnedFd, name: &str) -> anyhow::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        bail!("what is there is no plain file of at most 1 MiB");
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8(bytes).context("what is there is not text")?))
}

/// Runs git in the project and returns its output. If another agent of the cell holds the index, it waits for up to
/// ten seconds.
fn git(project: &Path, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    const TRIES: u32 = 40;
    for attempt in 1.. {
        let output = git_once(project, arguments, input)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let error = String::from_utf8_lossy(&output.stderr);
        if attempt >= TRIES || !(error.contains("index.lock") || error.contains("cannot lock ref")) {
            bail!("git {} failed in {}: {}", arguments[0], project.display(), one_line(&error, 500));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    unreachable!("the loop above ends by returning")
}

fn git_once(project: &Path, arguments: &[&str], input: Option<&str>) -> anyhow::Result<std::process::Output> {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", super::PATH)
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_ATTR_NOSYSTEM", "1")])
        .envs([("GIT_TERMINAL_PROMPT", "0"), ("GIT_OPTIONAL_LOCKS", "0"), ("GIT_LITERAL_PATHSPECS", "1")])
        .envs([("GIT_AUTHOR_NAME", AUTHOR), ("GIT_COMMITTER_NAME", AUTHOR)])
        .envs([("GIT_AUTHOR_EMAIL", EMAIL), ("GIT_COMMITTER_EMAIL", EMAIL)])
        .arg("-C")
        .arg(project)
        .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "commit.gpgSign=false"])
        .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.attributesFile=/dev/null"])
        // The clone may belong to another user id inside the cell's user namespace.
        .arg("-c")
        .arg(format!("safe.directory={}", project.display()))
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start git; is it installed in the cell's system?")?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // If git ends early, it says why on its standard error.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output().context("git did not end")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const MISSION: &str = "# Greet the world\n\nMission acme/widget#7\n\n## Agents\n\nscribe\n\n## Success criteria\n\n\
        - [ ] The file is there\n- [x] It is `Markdown`\n* plain\n\n## Objective\n\nWrite `docs/hello.md`.\n\n\
        ```\n# not a heading\n```\n";

    #[test]
    fn a_mission_is_read_by_its_headings() {
        let mission = Mission::parse(MISSION);
        assert_eq!(mission.title, "Greet the world");
        assert_eq!(mission.objective, "Write `docs/hello.md`.\n\n```\n# not a heading\n```");
        let want = [(false, "The file is there"), (true, "It is `Markdown`"), (false, "plain")];
        assert_eq!(mission.criteria, want.map(|(ticked, text)| (ticked, text.to_owned())));
    }

    #[test]
    fn a_mission_without_headings_is_all_objective() {
        let mission = Mission::parse("\nfix the\tbug\r\nplease\n");
        assert_eq!(mission.title, "fix the bug");
        assert_eq!(mission.objective, "fix the\tbug\nplease");
        assert_eq!(Mission::parse("").title, "a mission without a title");
    }

    #[test]
    fn a_title_in_a_commit_message_refers_to_nothing_and_nobody() {
        assert_eq!(
            inert("closes #1 and a/b!2, @alice https://x/a/b/issues/3"),
            "closes 1 and a/b 2, alice https: x/a/b/issues/3"
        );
    }

    #[test]
    fn only_plain_relative_paths_are_taken() {
        for path in ["hello.md", "docs/hello", "a/b_c/d-e.txt", "_x.md"] {
            assert!(is_plain_path(path), "{path}");
        }
        for path in [
            "",
            "make",
            "/etc/passwd",
            "../x.md",
            "a/../b.md",
            "a//b",
            "a/",
            ".git/config",
            "a/.git/x",
            ".gitattributes",
            "-x.md",
            "a/-b.md",
            "x y.md",
            "$HOME/x",
            "~/x",
            "a\\b.md",
            "x.md\n",
            "é.md",
            "./x.md",
            "x.",
            "git~1/config",
        ] {
            assert!(!is_plain_path(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_mission_makes_it_panic(text in r"[#`~\-\[\] xa\n\PC]{0,200}") {
            let mission = Mission::parse(&text);
            prop_assert!(!mission.title.is_empty() && !mission.title.contains('\n'));
            let _ = mission.summary();
        }
    }
}
