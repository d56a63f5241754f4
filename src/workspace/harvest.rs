//! Handing out what was done in a cell's clone.
//!
//! This runs inside the cell (`lazarus cell-harvest`), because the clone is the
//! agents' and its configuration can make git run anything. What comes out is a
//! pack and a line of JSON: the cell's own word, checked by the host's side
//! before anything of it is believed; see [`super::WorkRepository`].

use super::worktree::BRANCHES;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The pack's name in the harvester's own home.
pub const PACK: &str = "work.pack";
/// Most branches besides the one that is checked out.
const BRANCHES_MAX: usize = 20;

/// What the host's side wants handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The commit that the clone was made from.
    pub base: String,
    /// Largest pack, in bytes.
    pub pack_max: u64,
    /// Whether what was not committed becomes a commit.
    pub commit_rest: bool,
    /// Lines for the end of commits that are made here.
    pub trailers: String,
    /// Whether a snapshot of everything is wanted beside the work.
    pub snapshot: bool,
    /// A directory that the harvest may write, as it sees it.
    pub into: PathBuf,
}

/// What was handed out, in the cell's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandedOut {
    /// The commit that is checked out, or the one made of what was not
    /// committed on top of it. Nothing where nothing was done.
    pub tip: Option<String>,
    /// Whether `tip` is of what was not committed.
    pub rest: bool,
    /// Changes that were not committed.
    pub uncommitted: u64,
    /// A commit of `project/` and `shared/` as they are, where it was wanted.
    pub snapshot: Option<String>,
    /// Other branches with work that `tip` does not have: name, commit.
    pub branches: Vec<(String, String)>,
    /// What was left out, in words.
    pub left_out: Vec<String>,
    /// Why nothing could be handed out.
    pub unknown: Option<String>,
}

/// Writes the pack and says what is in it.
pub fn hand_out(wanted: &Wanted) -> HandedOut {
    let mut out = HandedOut::default();
    if let Err(why) = try_hand_out(wanted, &mut out) {
        out = HandedOut { unknown: Some(why), uncommitted: out.uncommitted, ..HandedOut::default() };
    }
    out
}

#[derive(Clone)]
struct Git {
    /// Objects that are made here go into a directory of the harvest's own: the
    /// clone is read-only.
    objects: PathBuf,
    index: PathBuf,
    clone_objects: PathBuf,
    /// The work tree.
    tree: PathBuf,
}

impl Git {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "safe.directory=*"])
            .args(["-c", "log.showSignature=false", "-c", "commit.gpgSign=false", "-c", "gc.auto=0"])
            .args(["--no-pager", "--no-optional-locks"])
            .arg("-C")
            .arg(&self.tree)
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_OBJECT_DIRECTORY", &self.objects)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &self.clone_objects)
            .stdin(Stdio::null());
        for (name, value) in [("NAME", "lazarus"), ("EMAIL", "lazarus@agents.lazarus.invalid")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        command
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        finish(&mut self.command(arguments))
    }

    fn ask_with_index(&self, arguments: &[&str]) -> Result<String, String> {
        finish(self.command(arguments).env("GIT_INDEX_FILE", &self.index))
    }
}

fn finish(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("git cannot be run in the cell: {e}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(words.trim().chars().take(300).collect());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn try_hand_out(wanted: &Wanted, out: &mut HandedOut) -> Result<(), String> {
    let base = &wanted.base;
    if base.is_empty() || !base.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("the commit to start from is not known".to_owned());
    }
    let (objects, pack) = (wanted.into.join("objects"), wanted.into.join(PACK));
    // A harvest may be read twice, and what an earlier one made is not needed.
    let _ = std::fs::remove_file(&pack);
    let _ = std::fs::remove_dir_all(&objects);
    std::fs::create_dir_all(&objects).map_err(|e| format!("making {}: {e}", objects.display()))?;
    let clone = std::env::current_dir().map_err(|e| e.to_string())?;
    let git = Git { objects, index: wanted.into.join("index"), clone_objects: clone.join(".git/objects"), tree: clone };

    git.ask(&["cat-file", "-e", &format!("{base}^{{commit}}")])
        .map_err(|why| format!("the commit that it was cloned at is not in the clone any more ({why})"))?;
    let head = git
        .ask(&["rev-parse", "--verify", "HEAD^{commit}"])
        .map_err(|why| format!("there is no commit checked out ({why})"))?;
    let mut tip = head.clone();
    let rest = commit_rest(&git, &head, wanted, out)?;
    out.rest = rest.is_some();
    tip = rest.unwrap_or(tip);
    let merged = agents_branches(&git, &git.tree, wanted, out)?;
    tip = merge(&git, tip, &merged, wanted, out)?;
    let new = |commits: &[&str]| -> Result<u64, String> {
        let mut arguments = vec!["rev-list", "--count"];
        arguments.extend(commits);
        Ok(git.ask(&arguments)?.parse().unwrap_or(0))
    };
    let heads = git.ask(&["for-each-ref", "--format=%(objectname) %(refname:short)", "refs/heads"])?;
    for line in heads.lines() {
        let Some((commit, name)) = line.split_once(' ') else { continue };
        // With what was not committed on it, where there is such.
        let commit = merged.iter().find(|(branch, _)| branch == name).map_or(commit, |(_, commit)| commit);
        if new(&[commit, &format!("^{base}"), &format!("^{tip}")])? == 0 {
            continue;
        }
        if out.branches.len() == BRANCHES_MAX {
            out.left_out.push(format!("branches after the first {BRANCHES_MAX}"));
            break;
        }
        out.branches.push((name.to_owned(), commit.to_owned()));
    }
    out.tip = (new(&[&tip, &format!("^{base}")])? > 0).then_some(tip);
    if wanted.snapshot {
        out.snapshot = Some(take_snapshot(&git, &head, wanted)?);
    }
    let mut wants: Vec<&str> = out.tip.iter().chain(&out.snapshot).map(String::as_str).collect();
    wants.extend(out.branches.iter().map(|(_, commit)| commit.as_str()));
    if wants.is_empty() {
        return Ok(());
    }
    write_pack(&git, &format!("{}\n^{base}\n", wants.join("\n")), &pack, wanted.pack_max)
}

/// Makes a commit of everything that was not committed, on top of `head`.
fn commit_rest(git: &Git, head: &str, wanted: &Wanted, out: &mut HandedOut) -> Result<Option<String>, String> {
    let changed = git.ask(&["status", "--porcelain", "--untracked-files=all", "--ignore-submodules=all"])?;
    let changed = changed.lines().count() as u64;
    out.uncommitted += changed;
    if changed == 0 || !wanted.commit_rest {
        return Ok(None);
    }
    let _ = std::fs::remove_file(&git.index);
    let own = git.tree.join(git.ask(&["rev-parse", "--git-path", "index"])?);
    if own.exists() {
        std::fs::copy(&own, &git.index).map_err(|e| format!("copying the index: {e}"))?;
    }
    git.ask_with_index(&["add", "--all", "--ignore-errors", "."])?;
    let nested = git.ask_with_index(&["diff", "--cached", "--raw", "--no-renames", head])?;
    let nested = nested.lines().filter(|l| l.split(' ').nth(1) == Some("160000")).count();
    if nested > 0 {
        out.left_out.push(format!("the files of {nested} repositories within the project"));
    }
    let tree = git.ask_with_index(&["write-tree"])?;
    if tree == git.ask(&["rev-parse", &format!("{head}^{{tree}}")])? {
        return Ok(None);
    }
    let message = format!("Uncommitted work\n\n{}Lazarus-Uncommitted: true\n", wanted.trailers);
    git.ask(&["commit-tree", &tree, "-p", head, "-m", &message]).map(Some)
}

/// The branches of agents that have a work tree of their own, each with what was
/// not committed there on top.
fn agents_branches(
    git: &Git,
    clone: &Path,
    wanted: &Wanted,
    out: &mut HandedOut,
) -> Result<Vec<(String, String)>, String> {
    let mut found = vec![];
    let work = clone.parent().unwrap_or(clone).join("work");
    let mut names: Vec<_> = std::fs::read_dir(&work).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    names.sort();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let branch = format!("{BRANCHES}{name}");
        let reference = format!("refs/heads/{branch}");
        let Ok(commit) = git.ask(&["rev-parse", "-q", "--verify", &format!("{reference}^{{commit}}")]) else {
            continue;
        };
        let own = Git { tree: work.join(name), ..git.clone() };
        // Somewhere else by now: then what lies there is not of this branch.
        if own.ask(&["symbolic-ref", "-q", "HEAD"]).ok().as_deref() != Some(&reference) {
            found.push((branch, commit));
            continue;
        }
        let rest = commit_rest(&own, &commit, wanted, out)?;
        found.push((branch, rest.unwrap_or(commit)));
    }
    Ok(found)
}

/// A commit on top of `head` that holds `project/` and `shared/` as they are now.
fn take_snapshot(git: &Git, head: &str, wanted: &Wanted) -> Result<String, String> {
    let shared = git.tree.parent().unwrap_or(&git.tree).join("shared");
    let mut entries = String::new();
    for (name, tree) in [("project", &git.tree), ("shared", &shared)] {
        let _ = std::fs::remove_file(&git.index);
        let in_tree = |arguments: &[&str]| {
            let mut command = git.command(arguments);
            finish(
                command
                    .env("GIT_DIR", git.tree.join(".git"))
                    .env("GIT_WORK_TREE", tree)
                    .env("GIT_INDEX_FILE", &git.index)
                    .current_dir(tree),
            )
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
    git.ask(&["commit-tree", &tree, "-p", head, "-m", &format!("Checkpoint\n\n{}", wanted.trailers)])
}

/// Puts the agents' branches together on top of `tip`. One that does not fit
/// stays a branch of its own, and that is said.
fn merge(
    git: &Git,
    mut tip: String,
    branches: &[(String, String)],
    wanted: &Wanted,
    out: &mut HandedOut,
) -> Result<String, String> {
    for (branch, commit) in branches {
        let is_ancestor = |older: &str, newer: &str| git.ask(&["merge-base", "--is-ancestor", older, newer]).is_ok();
        if is_ancestor(commit, &tip) {
            continue;
        }
        if is_ancestor(&tip, commit) {
            tip.clone_from(commit);
            continue;
        }
        match git.ask(&["merge-tree", "--write-tree", &tip, commit]) {
            Ok(tree) => {
                let message = format!("Merge the work of {branch}\n\n{}", wanted.trailers);
                tip = git.ask(&["commit-tree", tree.trim(), "-p", &tip, "-p", commit, "-m", &message])?;
                out.rest = false;
            }
            Err(_) => {
                out.left_out.push(format!("{branch}, which does not fit with the others: it is a branch of its own"));
            }
        }
    }
    Ok(tip)
}

/// Packs what `revisions` name, and gives up above `most` bytes.
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
        String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect::<String>()
    ))
}
