//! Harvests the work in a cell's clone.
//!
//! This runs inside the cell (`lazarus cell-harvest`), because agents control the clone, and its configuration can
//! make git run anything. The result is a pack and a line of JSON. Both are the cell's own claims, and must be
//! treated as a request by somebody hostile. The limits here only save work: the ones that count are enforced on
//! the host's side, which also words everything that people read; see [`crate::repository`].
//!
//! Committed work is read through a repository of the harvest's own, which has the clone's references and objects,
//! but not its configuration, index or attributes. Only uncommitted changes need those. If they are broken, the
//! commits are handed out without the uncommitted changes.

use super::worktree::BRANCHES;
use crate::keeper::OBJECTS_IN_CELL;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Name of the pack in the harvester's own home.
pub const PACK: &str = "work.pack";
/// Most branches that are named although they are not handed out.
const NAMED: usize = 100;
/// Most references that are checked one by one if git cannot list what is new.
const LOOKED_AT: usize = 200;
/// Longest text of git's that is handed out, in characters.
pub const QUOTED_MAX: usize = 300;
/// Longest time to commit everything that is uncommitted.
const REST_TIME: Duration = Duration::from_secs(120);
/// How long a program that git started may hold git's output open after git ended.
const HELD_OPEN: Duration = Duration::from_secs(2);
/// How many more files and directories a tree may have than the index has files.
const UNFOLDED_MORE: u64 = 100_000;
/// Largest of git's own small files (such as `HEAD`) that is read, in bytes.
const SMALL: u64 = 4096;

/// Which work of a cell is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarvestRequest {
    /// The commit that the clone was made from.
    pub base: String,
    /// Largest pack, in bytes.
    pub pack_max: u64,
    /// Most branches besides the one that is checked out.
    pub branches_max: usize,
    /// Whether uncommitted changes become a commit.
    pub commit_rest: bool,
    /// Trailers for the commits that the harvest makes, one on each line.
    pub trailers: String,
    /// Whether a snapshot of everything is wanted in addition.
    pub snapshot: bool,
}

/// A harvest request as it reaches the harvester inside the cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarvestOrder {
    /// What is wanted.
    #[serde(flatten)]
    pub request: HarvestRequest,
    /// A directory that the harvester may write, as it sees it.
    pub into: PathBuf,
}

/// What was handed out, as the cell claims: facts that must be checked, and words that may only be quoted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HarvestManifest {
    /// The commit that is checked out, or the commit of uncommitted changes on top of it. `None` if nothing was
    /// done.
    pub tip: Option<String>,
    /// Whether `tip` is the commit of uncommitted changes.
    pub rest: bool,
    /// Number of uncommitted changes.
    pub uncommitted: u64,
    /// A commit with the present state of `project/` and `shared/`, if it was wanted.
    pub snapshot: Option<String>,
    /// Other branches with work that `tip` does not contain: name and commit.
    pub branches: Vec<(String, String)>,
    /// Names of branches that were not handed out: the first [`NAMED`] of them.
    pub beyond: Vec<String>,
    /// Number of branches that were not handed out.
    pub beyond_count: u64,
    /// Agents' branches that conflict with the others.
    pub apart: Vec<String>,
    /// Why uncommitted changes are missing, if they are.
    pub rest_unread: Option<String>,
    /// Why the checked-out commit is missing, if it is.
    pub head_unread: Option<String>,
    /// Why nothing could be handed out, if so.
    pub unknown: Option<String>,
}

/// The work that a cell handed out. Agents may have influenced every byte of it.
#[derive(Debug)]
pub struct HandedWork {
    /// The cell's claims about its content.
    pub manifest: HarvestManifest,
    /// The pack, open at its beginning, or the reason why it cannot be opened.
    pub pack: io::Result<File>,
}

impl HandedWork {
    /// Opens the work in a directory that agents may have written: no link in it is followed, and only a regular
    /// file is opened.
    pub fn in_directory(manifest: HarvestManifest, directory: &Path) -> Self {
        Self { manifest, pack: open_pack(directory) }
    }

    /// A harvest that failed.
    pub fn unknown(why: String) -> Self {
        let manifest = HarvestManifest { unknown: Some(why), ..HarvestManifest::default() };
        Self { manifest, pack: Err(io::ErrorKind::NotFound.into()) }
    }
}

fn open_pack(directory: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The parent directory is the home, which agents cannot write.
    let directory = openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    let pack = File::from(openat(&directory, PACK, flags | OFlags::NONBLOCK, Mode::empty())?);
    if !pack.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    Ok(pack)
}

/// Writes the pack and returns what it contains.
pub fn hand_out(wanted: &HarvestOrder) -> HarvestManifest {
    let mut out = HarvestManifest::default();
    if let Err(why) = try_hand_out(wanted, &mut out) {
        out = HarvestManifest { unknown: Some(why), uncommitted: out.uncommitted, ..HarvestManifest::default() };
    }
    out
}

#[derive(Clone)]
struct Git {
    /// The repository, if it is not the work tree's own.
    repository: Option<PathBuf>,
    /// Objects that the harvest creates go into a directory of its own, because the clone is read-only.
    objects: PathBuf,
    index: PathBuf,
    /// The paths of the clone's objects.
    alternates: String,
    /// The work tree.
    tree: PathBuf,
}

impl Git {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "safe.directory=*"])
            .args(["-c", "log.showSignature=false", "-c", "commit.gpgSign=false", "-c", "gc.auto=0"])
            // Small values, because the cell's memory limit applies to this git too.
            .args(["-c", "pack.windowMemory=64m", "-c", "pack.deltaCacheSize=64m", "-c", "core.bigFileThreshold=16m"])
            .args(["-c", "core.commitGraph=false", "--no-pager", "--no-optional-locks"])
            .arg("-C")
            .arg(&self.tree)
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_OBJECT_DIRECTORY", &self.objects)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &self.alternates)
            .stdin(Stdio::null());
        if let Some(repository) = &self.repository {
            command.env("GIT_DIR", repository);
        }
        for (name, value) in [("NAME", "lazarus"), ("EMAIL", "lazarus@agents.lazarus.invalid")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        command
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        finish(&mut self.command(arguments))
    }

    fn ask_in_time(&self, arguments: &[&str], until: Instant) -> Result<String, String> {
        finish_in_time(&mut self.command(arguments), until)
    }

    fn ask_with_index(&self, arguments: &[&str], until: Instant) -> Result<String, String> {
        finish_in_time(self.command(arguments).env("GIT_INDEX_FILE", &self.index), until)
    }

    fn is_ancestor(&self, older: &str, newer: &str) -> bool {
        self.ask(&["merge-base", "--is-ancestor", older, newer]).is_ok()
    }
}

fn finish(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("git cannot be run in the cell: {e}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words: String = words.trim().chars().take(QUOTED_MAX).collect();
        return Err(if words.is_empty() { output.status.to_string() } else { words });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Does the same for a git that reads the work tree and runs agents' programs (filters). It is killed when its time
/// is over, so that committed work is handed out in any case.
fn finish_in_time(command: &mut Command, until: Instant) -> Result<String, String> {
    let cannot = |e: io::Error| format!("git cannot be run in the cell: {e}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // A process group of its own, so that everything it starts can be killed with it.
    let mut child = std::os::unix::process::CommandExt::process_group(command, 0).spawn().map_err(cannot)?;
    let (answer, words) = (read_beside(child.stdout.take()), read_beside(child.stderr.take()));
    let mut status = None;
    while status.is_none() && Instant::now() < until {
        status = child.try_wait().map_err(cannot)?;
        std::thread::sleep(Duration::from_millis(u64::from(status.is_none())));
    }
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let Some(status) = status else {
        let _ = child.wait();
        return Err(format!("it took longer than the {} s that there are for it", REST_TIME.as_secs()));
    };
    // A process that left the group may hold these pipes open for ever.
    let text = |from: &Receiver<Vec<u8>>| from.recv_timeout(HELD_OPEN).ok();
    if !status.success() {
        let words = String::from_utf8_lossy(&text(&words).unwrap_or_default()).trim().to_owned();
        let words: String = words.chars().take(QUOTED_MAX).collect();
        return Err(if words.is_empty() { status.to_string() } else { words });
    }
    let answer = text(&answer).ok_or("a program that it started does not let go of its output")?;
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

/// Reads a stream to its end on a thread that nobody has to wait for.
fn read_beside(stream: Option<impl io::Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut text = vec![];
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut text);
        }
        let _ = send.send(text);
    });
    receive
}

fn try_hand_out(wanted: &HarvestOrder, out: &mut HarvestManifest) -> Result<(), String> {
    let base = &wanted.request.base;
    if base.is_empty() || !base.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("the commit to start from is not known".to_owned());
    }
    let (objects, pack) = (wanted.into.join("objects"), wanted.into.join(PACK));
    let own = wanted.into.join("repository");
    // A harvest may be repeated, and the result of an earlier one is not needed.
    let _ = std::fs::remove_file(&pack);
    for directory in [&objects, &own] {
        let _ = std::fs::remove_dir_all(directory);
        std::fs::create_dir_all(directory).map_err(|e| format!("making {}: {e}", directory.display()))?;
    }
    let clone = std::env::current_dir().map_err(|e| e.to_string())?;
    let git_directory = git_directory(&clone);
    // The borrowed objects are also given by their own path, in case the clone does not name it.
    let alternates = format!("{}:{}", git_directory.join("objects").display(), OBJECTS_IN_CELL);
    let theirs = Git { repository: None, objects, index: wanted.into.join("index"), alternates, tree: clone };
    let has_base = |git: &Git| git.ask(&["cat-file", "-e", &format!("{base}^{{commit}}")]);
    let mut git = Git { repository: Some(own.clone()), ..theirs.clone() };
    if make_own(&own, &git_directory, base).is_err() || has_base(&git).is_err() {
        // The clone's storage format is described only in its own configuration, so that must be used.
        git = theirs.clone();
        has_base(&git)
            .map_err(|why| format!("the commit that it was cloned at is not in the clone any more ({why})"))?;
    }
    let until = Instant::now() + REST_TIME;
    let mut tip = None;
    match git.ask(&["rev-parse", "--verify", "HEAD^{commit}"]) {
        Ok(head) => tip = Some(head),
        Err(why) => out.head_unread = Some(format!("there is no commit checked out ({why})")),
    }
    if let Some(head) = tip.clone() {
        match commit_rest(&theirs, &head, wanted, until, out) {
            Ok(rest) => {
                out.rest = rest.is_some();
                tip = rest.or(tip);
            }
            Err(why) => out.rest_unread = Some(why),
        }
    }
    let merged = agents_branches(&git, &theirs, wanted, until, out);
    if let Some(merged_tip) = merge(&git, tip.as_ref().unwrap_or(base), &merged, wanted, out) {
        tip = Some(merged_tip);
    }
    let fallback = tip.clone().unwrap_or_else(|| base.clone());
    out.tip = tip.filter(|tip| !git.is_ancestor(tip, base));
    other_branches(&git, base, &fallback, &merged, wanted, out);
    if wanted.request.snapshot {
        let head = git.ask(&["rev-parse", "--verify", "HEAD^{commit}"]).unwrap_or_else(|_| base.clone());
        out.snapshot = Some(take_snapshot(&theirs, &git_directory, &head, wanted, until)?);
    }
    write_what_fits(&git, base, &pack, wanted, out)
}

/// The repository of a work tree. `.git` may be a link, or a file that names it.
fn git_directory(tree: &Path) -> PathBuf {
    let place = tree.join(".git");
    let said = read_small(&place).and_then(|text| Some(tree.join(text.strip_prefix("gitdir:")?.trim())));
    said.unwrap_or(place)
}

fn read_small(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
    file.take(SMALL).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Makes a repository with the clone's references and nothing else.
fn make_own(own: &Path, clone: &Path, base: &str) -> io::Result<()> {
    let format = if base.len() == 64 {
        "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
    } else {
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
    };
    std::fs::write(own.join("config"), format)?;
    // If `HEAD` cannot be read, nothing is checked out.
    let head = read_small(&clone.join("HEAD")).unwrap_or_else(|| "ref: refs/heads/.none".to_owned());
    std::fs::write(own.join("HEAD"), head)?;
    std::os::unix::fs::symlink(clone.join("refs"), own.join("refs"))?;
    std::fs::create_dir_all(own.join("objects"))?;
    if clone.join("packed-refs").exists() {
        std::os::unix::fs::symlink(clone.join("packed-refs"), own.join("packed-refs"))?;
    }
    Ok(())
}

/// Finds branches with work that neither base nor tip contains, newest first.
fn other_branches(
    git: &Git,
    base: &str,
    tip: &str,
    merged: &[(String, String)],
    wanted: &HarvestOrder,
    out: &mut HarvestManifest,
) {
    let format = "--format=%(objectname) %(refname:short)";
    let (not_base, not_tip) = (format!("--no-merged={base}"), format!("--no-merged={tip}"));
    let list = git.ask(&["for-each-ref", "--sort=-committerdate", &not_base, &not_tip, format, "refs/heads"]);
    let (list, one_by_one) = match list {
        Ok(list) => (list, false),
        // A single dangling reference makes git fail here.
        Err(_) => (git.ask(&["for-each-ref", format, "refs/heads"]).unwrap_or_default(), true),
    };
    let mut known: HashSet<&str> = HashSet::new();
    for (index, line) in list.lines().enumerate() {
        let Some((commit, name)) = line.split_once(' ') else { continue };
        if one_by_one {
            let is_new = index < LOOKED_AT
                && git.ask(&["rev-parse", "-q", "--verify", &format!("{commit}^{{commit}}")]).is_ok()
                && !git.is_ancestor(commit, base)
                && !git.is_ancestor(commit, tip);
            if !is_new {
                continue;
            }
        }
        // If there are uncommitted changes of that branch, takes the commit that includes them.
        let commit = merged.iter().find(|(branch, _)| branch == name).map_or(commit, |(_, commit)| commit);
        if !known.insert(commit) || git.is_ancestor(commit, tip) {
            continue;
        }
        if out.branches.len() < wanted.request.branches_max {
            out.branches.push((name.to_owned(), commit.to_owned()));
            continue;
        }
        out.beyond_count += 1;
        if out.beyond.len() < NAMED {
            out.beyond.push(name.chars().take(200).collect());
        } else {
            let all = list.lines().count() as u64;
            out.beyond_count = all.saturating_sub(out.branches.len() as u64);
            break;
        }
    }
}

/// Packs everything. If that is too large, it packs only committed work.
fn write_what_fits(
    git: &Git,
    base: &str,
    pack: &Path,
    wanted: &HarvestOrder,
    out: &mut HarvestManifest,
) -> Result<(), String> {
    let wants = |out: &HarvestManifest| -> Vec<String> {
        let others = out.branches.iter().map(|(_, commit)| commit);
        out.tip.iter().chain(&out.snapshot).chain(others).cloned().collect()
    };
    let write =
        |wants: &[String]| write_pack(git, &format!("{}\n^{base}\n", wants.join("\n")), pack, wanted.request.pack_max);
    let all = wants(out);
    if all.is_empty() {
        return Ok(());
    }
    let Err(why) = write(&all) else { return Ok(()) };
    let Some(tip) = out.tip.clone().filter(|_| out.rest) else { return Err(why) };
    let below = git.ask(&["rev-parse", "--verify", &format!("{tip}^1")])?;
    out.tip = Some(below).filter(|below| !git.is_ancestor(below, base));
    out.rest = false;
    out.rest_unread = Some(why);
    let rest = wants(out);
    if rest.is_empty() { Ok(()) } else { write(&rest) }
}

/// Checks that the checked-out tree has about as many files as the index: a small tree can expand endlessly, and
/// git would hold all of it to compare the two.
fn unfolds_to_an_end(git: &Git, head: &str, index: &Path, until: Instant) -> Result<(), String> {
    let mut counted = [0; 12];
    let read = File::open(index).and_then(|mut file| file.read_exact(&mut counted));
    let known = read.map_or(0, |()| u32::from_be_bytes([counted[8], counted[9], counted[10], counted[11]]));
    let most = u64::from(known).saturating_add(UNFOLDED_MORE);
    let tried = |e: io::Error| format!("git cannot be run in the cell: {e}");
    let mut list = git.command(&["ls-tree", "-r", "-t", "--name-only", "-z", head]);
    let mut child = list.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(tried)?;
    let mut count = 0;
    if let Some(names) = child.stdout.take() {
        let mut names = io::BufReader::with_capacity(1 << 16, names);
        loop {
            let piece = io::BufRead::fill_buf(&mut names).map_err(tried)?;
            let length = piece.len();
            count += piece.iter().map(|byte| u64::from(*byte == 0)).sum::<u64>();
            if length == 0 || count > most || Instant::now() > until {
                break;
            }
            io::BufRead::consume(&mut names, length);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    if count > most { Err(format!("what is checked out unfolds to more than {most} files")) } else { Ok(()) }
}

/// Commits all uncommitted changes on top of `head`.
fn commit_rest(
    git: &Git,
    head: &str,
    wanted: &HarvestOrder,
    until: Instant,
    out: &mut HarvestManifest,
) -> Result<Option<String>, String> {
    let index = git.tree.join(git.ask(&["rev-parse", "--git-path", "index"])?);
    unfolds_to_an_end(git, head, &index, until)?;
    let changed =
        git.ask_in_time(&["status", "--porcelain", "--untracked-files=all", "--ignore-submodules=all"], until)?;
    let changed = changed.lines().count() as u64;
    out.uncommitted += changed;
    if changed == 0 || !wanted.request.commit_rest {
        return Ok(None);
    }
    let _ = std::fs::remove_file(&git.index);
    if index.exists() {
        std::fs::copy(&index, &git.index).map_err(|e| format!("copying the index: {e}"))?;
    }
    git.ask_with_index(&["add", "--all", "--ignore-errors", "."], until)?;
    let tree = git.ask_with_index(&["write-tree"], until)?;
    if tree == git.ask(&["rev-parse", &format!("{head}^{{tree}}")])? {
        return Ok(None);
    }
    let message = format!("Uncommitted work\n\n{}Lazarus-Uncommitted: true\n", wanted.request.trailers);
    git.ask(&["commit-tree", &tree, "-p", head, "-m", &message]).map(Some)
}

/// The branches of agents with a work tree of their own, each with its uncommitted changes committed on top.
fn agents_branches(
    git: &Git,
    theirs: &Git,
    wanted: &HarvestOrder,
    until: Instant,
    out: &mut HarvestManifest,
) -> Vec<(String, String)> {
    let mut found = vec![];
    let work = git.tree.parent().unwrap_or(&git.tree).join("work");
    let mut names: Vec<_> = std::fs::read_dir(&work).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    names.sort();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let branch = format!("{BRANCHES}{name}");
        let reference = format!("refs/heads/{branch}");
        let Ok(commit) = git.ask(&["rev-parse", "-q", "--verify", &format!("{reference}^{{commit}}")]) else {
            continue;
        };
        let own = Git { tree: work.join(name), ..theirs.clone() };
        // The work tree is on another branch by now, so what it contains does not belong to this one.
        if own.ask(&["symbolic-ref", "-q", "HEAD"]).ok().as_deref() != Some(&reference) {
            found.push((branch, commit));
            continue;
        }
        let rest = commit_rest(&own, &commit, wanted, until, out).unwrap_or_else(|why| {
            out.rest_unread = Some(format!("{name}: {why}"));
            None
        });
        found.push((branch, rest.unwrap_or(commit)));
    }
    found
}

/// Makes a commit on top of `head` with the present state of `project/` and `shared/`.
fn take_snapshot(
    git: &Git,
    repository: &Path,
    head: &str,
    wanted: &HarvestOrder,
    until: Instant,
) -> Result<String, String> {
    let shared = git.tree.parent().unwrap_or(&git.tree).join("shared");
    let mut entries = String::new();
    for (name, tree) in [("project", &git.tree), ("shared", &shared)] {
        let _ = std::fs::remove_file(&git.index);
        let in_tree = |arguments: &[&str]| {
            let mut command = git.command(arguments);
            command.env("GIT_DIR", repository).env("GIT_WORK_TREE", tree);
            finish_in_time(command.env("GIT_INDEX_FILE", &git.index).current_dir(tree), until)
        };
        in_tree(&["-C", &tree.to_string_lossy(), "add", "--all", "--force", "."])?;
        entries.push_str(&format!("040000 tree {}\t{name}\n", in_tree(&["write-tree"])?));
    }
    let mut child = git
        .command(&["mktree"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("git cannot be run in the cell: {e}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(entries.as_bytes()).map_err(|e| format!("writing a tree: {e}"))?;
    }
    let output = child.wait_with_output().map_err(|e| format!("writing a tree: {e}"))?;
    let tree = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    git.ask(&["commit-tree", &tree, "-p", head, "-m", &format!("Checkpoint\n\n{}", wanted.request.trailers)])
}

/// Merges the agents' branches on top of `tip`. A branch that conflicts stays separate, and is reported. `None` if
/// there are no such branches.
fn merge(
    git: &Git,
    tip: &str,
    branches: &[(String, String)],
    wanted: &HarvestOrder,
    out: &mut HarvestManifest,
) -> Option<String> {
    let mut merged = None;
    for (branch, commit) in branches {
        let tip = merged.as_deref().unwrap_or(tip);
        if git.is_ancestor(commit, tip) {
            continue;
        }
        if git.is_ancestor(tip, commit) {
            merged = Some(commit.clone());
            continue;
        }
        let together = git.ask(&["merge-tree", "--write-tree", tip, commit]).and_then(|tree| {
            let message = format!("Merge the work of {branch}\n\n{}", wanted.request.trailers);
            git.ask(&["commit-tree", tree.trim(), "-p", tip, "-p", commit, "-m", &message])
        });
        match together {
            Ok(commit) => {
                merged = Some(commit);
                out.rest = false;
            }
            Err(_) => out.apart.push(branch.clone()),
        }
    }
    merged
}

/// Packs the given `revisions`. Fails if the pack exceeds `most` bytes.
fn write_pack(git: &Git, revisions: &str, to: &Path, most: u64) -> Result<(), String> {
    let tried = |e: io::Error| format!("packing the work: {e}");
    let mut child = git
        .command(&["pack-objects", "--revs", "--stdout", "-q", "--delta-base-offset", "--threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(tried)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(revisions.as_bytes()).map_err(tried)?;
    }
    // Removes whatever somebody put there: opening a pipe would block for ever.
    let _ = std::fs::remove_file(to);
    let mut file = File::options().create_new(true).write(true).open(to).map_err(tried)?;
    let mut packed = child.stdout.take().map(|out| out.take(most + 1));
    let size = packed.as_mut().map_or(Ok(0), |packed| io::copy(packed, &mut file)).map_err(tried)?;
    if size > most {
        let _ = child.kill();
        let _ = child.wait();
        let _ = std::fs::remove_file(to);
        return Err(format!("the work is larger than `harvest.pack_max` allows ({most} bytes)"));
    }
    drop(packed);
    let output = child.wait_with_output().map_err(tried)?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "packing the work: {}",
        String::from_utf8_lossy(&output.stderr).trim().chars().take(QUOTED_MAX).collect::<String>()
    ))
}
