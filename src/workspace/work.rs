//! The work of a cell on the host's side: taken in, checked, pushed.
//!
//! Each cell that did something gets a bare repository of its own, which borrows
//! the mirror's objects. Nothing in it was written by an agent but the objects of
//! one pack, and those were checked by git before they were let in. It is kept
//! until the cell is destroyed, so that a refused push can be tried again.

use super::clone::pin;
use super::git::{CredentialSocket, GitError, git, run, run_with_input};
use super::harvest::{HandedOut, PACK};
use super::home::make_directory;
use crate::backend::Harvest;
use crate::failure::Failure;
use secrecy::SecretString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Most commits that are listed.
const COMMITS_LISTED: usize = 50;
/// Most files that are listed.
const FILES_LISTED: usize = 100;
/// Branches that are tried where somebody else's work is on the first.
const NAMES_MAX: usize = 9;
/// The reference of what is published.
const TIP: &str = "refs/heads/work";

/// How much work is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkLimits {
    /// Bytes of the pack.
    pub pack: u64,
    /// Bytes of one file.
    pub file: u64,
    /// Files touched.
    pub files: u64,
}

/// Where a push went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The branch.
    pub branch: String,
    /// Whether the first choice of a name was somebody else's.
    pub renamed: bool,
}

/// Why nothing was pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The forge refused, for good.
    #[error("{0}")]
    Refused(String),
    /// It may work later: [`GitError::failure`] says what it waits for.
    #[error(transparent)]
    Later(GitError),
}

/// What the host's own commit says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCommit {
    /// The mission, as the trailer names it.
    pub mission: String,
    /// The cell.
    pub cell: String,
    /// A file with an SSH key to sign with.
    pub signing_key: Option<PathBuf>,
}

/// A cell's work.
#[derive(Debug, Clone)]
pub struct WorkRepository {
    path: PathBuf,
    mirror: PathBuf,
}

impl WorkRepository {
    /// The repository at `path`, which borrows from `mirror`.
    pub fn new(path: PathBuf, mirror: PathBuf) -> Self {
        Self { path, mirror }
    }

    fn git(&self) -> std::process::Command {
        let mut command = git(Some(&self.path));
        // A file that is larger is never read whole, whatever it unpacks to.
        command.args(["-c", "core.bigFileThreshold=16m", "-c", "core.quotePath=true", "-c", "log.showSignature=false"]);
        command
    }

    fn ask(&self, what: &'static str, arguments: &[&str]) -> Result<String, GitError> {
        run(what, self.git().args(arguments)).map(|answer| answer.trim_end().to_owned())
    }

    /// Takes in what a cell handed out into `directory`, of which every byte is
    /// the agents'. What is wrong with it is said in the harvest.
    ///
    /// # Errors
    /// Where git cannot be run or a file of ours cannot be used.
    pub fn take_in(
        &self,
        directory: &Path,
        base: &str,
        handed: &HandedOut,
        limits: &WorkLimits,
        own: &OwnCommit,
    ) -> Result<Harvest, GitError> {
        let mut harvest = Harvest { uncommitted: handed.uncommitted, ..Harvest::default() };
        harvest.notes = handed.left_out.iter().map(|l| format!("left out: {l}")).collect();
        if let Some(why) = &handed.unknown {
            harvest.unknown = Some(why.clone());
            return Ok(harvest);
        }
        if handed.tip.is_none() && handed.branches.is_empty() && handed.snapshot.is_none() {
            return Ok(harvest);
        }
        match self.check(directory, base, handed, limits, own, &mut harvest) {
            // What this machine lacks is no fault of the work: later, then.
            Err(GitError::Git { words, .. }) if words.contains("No space left on device") => {
                return Err(GitError::io("taking the work in")(io::Error::other(words)));
            }
            // Its own commits are wrong; that is for people to hear.
            Err(error @ (GitError::Git { .. } | GitError::Timeout { .. })) => {
                harvest = Harvest {
                    unknown: Some(error.to_string()),
                    uncommitted: harvest.uncommitted,
                    ..Harvest::default()
                };
            }
            other => other?,
        }
        Ok(harvest)
    }

    fn check(
        &self,
        directory: &Path,
        base: &str,
        handed: &HandedOut,
        limits: &WorkLimits,
        own: &OwnCommit,
        harvest: &mut Harvest,
    ) -> Result<(), GitError> {
        let refuse = |why: String| GitError::Git { what: "taking the work in", words: why };
        // A link or a pipe in its place is the cell's doing: it would be there again.
        let pack =
            open_pack(directory).map_err(|e| refuse(format!("what the cell handed out cannot be opened: {e}")))?;
        if pack.metadata().map_or(u64::MAX, |m| m.len()) > limits.pack {
            return Err(refuse(format!("it is larger than `harvest.pack_max` allows ({} bytes)", limits.pack)));
        }
        self.make()?;
        run("update-ref", git(Some(&self.mirror)).args(["update-ref", &pin(&own.cell), base]))?;
        run_with_input(
            "index-pack",
            self.git().args(["index-pack", "--stdin", "--strict"]).arg(format!("--max-input-size={}", limits.pack)),
            pack,
        )?;
        let is_commit = |id: &str| id.len() >= 40 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let others = handed.branches.iter().filter(|(_, commit)| is_commit(commit));
        let mut tip = match &handed.tip {
            Some(tip) if is_commit(tip) => tip.clone(),
            Some(_) => return Err(refuse("the cell named no commit".to_owned())),
            None => base.to_owned(),
        };
        let without = format!("^{base}");
        let filter = format!("--filter=blob:limit={}", limits.file + 1);
        // What they name is all there: `--strict` saw to that. Is it too large?
        let mut walk = vec!["rev-list", "--objects", "--filter-print-omitted", &filter, &tip, &without];
        walk.extend(others.clone().map(|(_, commit)| commit.as_str()));
        let omitted = self.ask("rev-list", &walk)?.lines().filter(|l| l.starts_with('~')).count();
        if omitted > 0 {
            return Err(refuse(format!(
                "{omitted} files are larger than `harvest.file_max` allows ({} bytes)",
                limits.file
            )));
        }
        if handed.rest {
            tip = self.own_commit(&tip, own)?;
        }
        let mut diff =
            vec!["diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--raw", "--numstat"];
        diff.extend([base, &tip]);
        let changes = self.ask("diff", &diff)?;
        let (raw, numbers): (Vec<&str>, Vec<&str>) = changes.lines().partition(|line| line.starts_with(':'));
        harvest.file_count = numbers.len() as u64;
        if harvest.file_count > limits.files {
            return Err(refuse(format!(
                "{} files were touched; `harvest.files_max` allows {}",
                harvest.file_count, limits.files
            )));
        }
        harvest.files = numbers.into_iter().filter_map(numbered_file).take(FILES_LISTED).collect();
        let log = self.ask("log", &["log", "--no-color", "--format=%H%x00%an%x00%s", &tip, &without])?;
        harvest.commit_count = log.lines().count() as u64;
        harvest.commits = log
            .lines()
            .take(COMMITS_LISTED)
            .filter_map(|line| {
                let mut parts = line.splitn(3, '\0').map(|p| p.chars().take(200).collect::<String>());
                Some((parts.next()?, parts.next()?, parts.next()?))
            })
            .collect();
        // Added, or changed into one: what it points to is the reviewer's to judge.
        let symlinks = raw.into_iter().filter(|l| l.split(' ').nth(1) == Some("120000")).count();
        if symlinks > 0 {
            harvest.notes.push(format!("{symlinks} symbolic links were added or changed: look where they lead"));
        }
        if let Some(snapshot) = handed.snapshot.as_ref().filter(|s| is_commit(s)) {
            self.ask("update-ref", &["update-ref", &format!("refs/lazarus/checkpoints/{snapshot}"), snapshot])?;
            harvest.snapshot = Some(snapshot.clone());
        }
        for (index, (name, commit)) in others.enumerate() {
            self.ask("update-ref", &["update-ref", &format!("refs/heads/other-{index}"), commit])?;
            harvest.branches.push((name.chars().take(100).collect(), commit.clone()));
        }
        if harvest.commit_count > 0 {
            self.ask("update-ref", &["update-ref", TIP, &tip])?;
            harvest.tip = Some(tip);
        }
        harvest.rest = handed.rest;
        Ok(())
    }

    fn make(&self) -> Result<(), GitError> {
        if self.path.join("HEAD").exists() {
            return Ok(());
        }
        make_directory(&self.path, 0o700).map_err(|e| GitError::io(e.tried)(e.source))?;
        run("init", git(None).args(["init", "--quiet", "--bare", "--template="]).arg(&self.path))?;
        let alternates = self.path.join("objects/info");
        make_directory(&alternates, 0o700).map_err(|e| GitError::io(e.tried)(e.source))?;
        let objects = self.mirror.join("objects");
        std::fs::write(alternates.join("alternates"), format!("{}\n", objects.display()))
            .map_err(GitError::io("pointing the work to the mirror's objects"))
    }

    /// The same tree and parent as the cell's last commit, which is of what
    /// was not committed there, as a commit of ours.
    fn own_commit(&self, theirs: &str, own: &OwnCommit) -> Result<String, GitError> {
        let parent = self.ask("rev-parse", &["rev-parse", "--verify", &format!("{theirs}^1")])?;
        let message = format!(
            "Uncommitted work of cell {cell}\n\nIt was there when the cell was closed; nobody committed it.\n\n\
             Lazarus-Mission: {mission}\nLazarus-Cell: {cell}\nLazarus-Uncommitted: true\n",
            cell = own.cell,
            mission = own.mission,
        );
        let mut command = self.git();
        if let Some(key) = &own.signing_key {
            command.args(["-c", "gpg.format=ssh", "-c"]).arg(format!("user.signingKey={}", key.display()));
        }
        command.args(["commit-tree", &format!("{theirs}^{{tree}}"), "-p", &parent, "-m", &message]);
        if own.signing_key.is_some() {
            command.arg("-S");
        }
        // The time of the cell's commit, so that twice gives the same.
        let when = self.ask("log", &["log", "-1", "--format=%ct +0000", theirs])?;
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "lazarus")
                .env(format!("GIT_{who}_EMAIL"), "lazarus@agents.lazarus.invalid")
                .env(format!("GIT_{who}_DATE"), &when);
        }
        run("commit-tree", &mut command).map(|commit| commit.trim().to_owned())
    }

    /// A checkpoint as a packed archive, of at most `most` bytes.
    ///
    /// # Errors
    /// Where there is no such checkpoint, or it is larger.
    pub fn archive(&self, checkpoint: &str, most: u64) -> Result<Vec<u8>, GitError> {
        let known = format!("refs/lazarus/checkpoints/{checkpoint}");
        let file = self.path.join("checkpoint.tgz");
        let made = run("archive", self.git().args(["archive", "--format=tgz", "-o"]).arg(&file).arg(&known))
            .and_then(|_| std::fs::metadata(&file).map_err(GitError::io("looking at the archive")))
            .and_then(|meta| {
                if meta.len() > most {
                    let words = format!("the archive is larger than {most} bytes");
                    return Err(GitError::Git { what: "archive", words });
                }
                std::fs::read(&file).map_err(GitError::io("reading the archive"))
            });
        let _ = std::fs::remove_file(&file);
        made
    }

    /// Pushes `commit` to the branch `name` of the project, or to a name with
    /// a suffix where somebody else's work is on that. Nothing is ever forced;
    /// done already, nothing happens.
    ///
    /// # Errors
    /// [`PushError::Refused`] with the forge's words, where trying again would
    /// change nothing.
    pub fn push(&self, url: &str, token: &SecretString, commit: &str, name: &str) -> Result<Pushed, PushError> {
        let sort = |error: GitError| match error {
            GitError::Git { words, what } => {
                let error = GitError::Git { words: words.clone(), what };
                if error.failure() == Failure::Lasting { PushError::Refused(words) } else { PushError::Later(error) }
            }
            error => PushError::Later(error),
        };
        let socket = CredentialSocket::open(token).map_err(PushError::Later)?;
        let setting = socket.setting();
        let push = |branch: &str, known: &str| {
            // Only if it is still what was seen: nobody's work is pushed over.
            let lease = format!("--force-with-lease=refs/heads/{branch}:{known}");
            run(
                "push",
                self.git()
                    .args([
                        "-c",
                        &setting,
                        "-c",
                        "push.followTags=false",
                        "push",
                        "--quiet",
                        "--no-verify",
                        &lease,
                        "--",
                    ])
                    .arg(url)
                    .arg(format!("{commit}:refs/heads/{branch}")),
            )
        };
        // Mostly there is no such branch yet, and one call is all.
        match push(name, "") {
            Ok(_) => return Ok(Pushed { branch: name.to_owned(), renamed: false }),
            Err(GitError::Git { words, .. }) if words.contains("stale info") => {}
            Err(error) => return Err(sort(error)),
        }
        let remote = run(
            "ls-remote",
            self.git().args(["-c", &setting, "ls-remote", "--heads", "--"]).arg(url).arg(format!("refs/heads/{name}*")),
        )
        .map_err(sort)?;
        let there = |branch: &str| {
            remote.lines().find_map(|line| {
                let (commit, reference) = line.split_once('\t')?;
                (reference.strip_prefix("refs/heads/") == Some(branch)).then(|| commit.to_owned())
            })
        };
        for number in 1..=NAMES_MAX {
            let branch = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            let known = there(&branch);
            let pushed = Pushed { branch: branch.clone(), renamed: number > 1 };
            match &known {
                Some(known) if known == commit => return Ok(pushed),
                Some(known) if !self.is_ancestor(known, commit) => continue,
                _ => {}
            }
            push(&branch, &known.unwrap_or_default()).map_err(sort)?;
            return Ok(pushed);
        }
        Err(PushError::Refused(format!("there is other work on `{name}` and on {} names after it", NAMES_MAX - 1)))
    }

    fn is_ancestor(&self, older: &str, newer: &str) -> bool {
        self.ask("merge-base", &["merge-base", "--is-ancestor", older, newer]).is_ok()
    }
}

/// `added TAB removed TAB path`; binary files have `-` for both numbers.
fn numbered_file(line: &str) -> Option<(u64, u64, String)> {
    let mut parts = line.splitn(3, '\t');
    let mut number = || parts.next().map(|n| n.parse().unwrap_or(0));
    let (added, removed) = (number()?, number()?);
    Some((added, removed, parts.next()?.chars().take(300).collect()))
}

/// Opens the pack in a directory that agents may have written: no link is
/// followed, and nothing but a plain file is opened.
fn open_pack(directory: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The parent is the home's, which agents cannot write.
    let directory = openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    let pack = File::from(openat(&directory, PACK, flags | OFlags::NONBLOCK, Mode::empty())?);
    if !pack.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    Ok(pack)
}
