//! Clones a project into a cell.
//!
//! The host keeps an up-to-date bare mirror of each project. Cells borrow the mirror's objects, so a clone is
//! little more than its work tree.

use super::git::{CredentialSocket, GitAccess, GitError, git, run};
use crate::failure::Failure;
use crate::keeper::OBJECTS_IN_CELL;
use crate::workspace::{make_directory, scrub};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Number of packs in a mirror above which they are combined.
const PACKS_MAX: usize = 40;

/// A clone that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloned {
    /// The commit that is checked out.
    pub commit: String,
    /// The branch that it is on.
    pub branch: String,
    /// How many commits the branch has beyond that one.
    pub behind: u64,
}

/// The path of a project's mirror.
pub fn mirror_of(mirrors: &Path, repo_id: i64) -> PathBuf {
    mirrors.join(format!("{repo_id}.git"))
}

/// Clones an up-to-date mirror to `target`, which no agent has seen.
///
/// With `borrow` the clone has no objects of its own: it looks for them at [`OBJECTS_IN_CELL`], where the cell sees
/// the mirror's. They stay there while the mirror has a reference for the cell; see [`unpin`].
///
/// `commit` is the approved commit; `None` takes the newest one of the branch.
///
/// # Errors
/// If git cannot be run, the branch does not exist, or the commit does not exist any more ([`GitError::NoCommit`]).
pub fn clone_project(
    mirror: &Path,
    cell: &str,
    branch: &str,
    commit: Option<&str>,
    target: &Path,
    borrow: bool,
) -> Result<Cloned, GitError> {
    scrub(target).map_err(GitError::io(format!("removing {}", target.display())))?;
    let head = run(
        "rev-parse",
        git(Some(mirror)).args(["rev-parse", "--verify", &format!("refs/heads/{branch}^{{commit}}")]),
    )?;
    let head = head.trim().to_owned();
    let commit = match commit {
        Some(commit) if commit != head => {
            let there = commit.bytes().all(|b| b.is_ascii_hexdigit())
                && run("cat-file", git(Some(mirror)).args(["cat-file", "-e", &format!("{commit}^{{commit}}")])).is_ok();
            if !there {
                return Err(GitError::NoCommit { commit: commit.to_owned(), branch: branch.to_owned() });
            }
            commit.to_owned()
        }
        _ => head.clone(),
    };
    let behind = if commit == head {
        0
    } else {
        let range = format!("{commit}..{head}");
        let counted = run("rev-list", git(Some(mirror)).args(["rev-list", "--count", &range]))?;
        counted.trim().parse().unwrap_or(0)
    };
    run("update-ref", git(Some(mirror)).args(["update-ref", &pin(cell), &commit]))?;
    // Cloned under another name and then renamed, so that an incomplete clone is never mistaken for a complete one.
    let new = target.with_extension("new");
    scrub(&new).map_err(GitError::io(format!("removing {}", new.display())))?;
    run(
        "clone",
        git(None)
            .args(["-c", "protocol.file.allow=always", "clone", "--quiet", "--single-branch", "--no-tags"])
            .arg(if borrow { "--shared" } else { "--no-hardlinks" })
            .args(if commit == head { &[][..] } else { &["--no-checkout"][..] })
            .args(["--no-recurse-submodules", "--template=", "--branch"])
            .arg(branch)
            .arg("--")
            .arg(mirror)
            .arg(&new),
    )?;
    if commit != head {
        // The branch has moved on, or was reset, since this commit was approved.
        if run("cat-file", git(Some(&new)).args(["cat-file", "-e", &commit])).is_err() {
            run("fetch", git(Some(&new)).args(["fetch", "--quiet", "--no-tags"]).arg(mirror).arg(pin(cell)))?;
        }
        run("checkout", git(Some(&new)).args(["checkout", "--quiet", "-B", branch, &commit]))?;
    }
    // The cell must learn neither the mirror's path nor a remote. The remote's references are added below.
    run("remote", git(Some(&new)).args(["remote", "remove", "origin"]))?;
    let dot_git = new.join(".git");
    give_references(mirror, &new, &dot_git, branch)?;
    if borrow {
        std::fs::write(dot_git.join("objects/info/alternates"), format!("{OBJECTS_IN_CELL}\n"))
            .map_err(GitError::io("pointing the clone to the mirror's objects"))?;
    }
    write_hook(&dot_git).map_err(GitError::io("writing the clone's hook"))?;
    std::fs::rename(&new, target).map_err(GitError::io(format!("moving the clone to {}", target.display())))?;
    Ok(Cloned { commit, branch: branch.to_owned(), behind })
}

/// Gives a clone the project's tags, and its branches as if they came from a remote `origin`: tools ask git for
/// them (`git describe`, `git diff origin/HEAD`). There is no such remote to connect to. The objects exist already,
/// because the clone borrows or copies everything that the mirror has.
///
/// They are written into one packed file: thousands of them would otherwise be thousands of small files.
fn give_references(mirror: &Path, clone: &Path, dot_git: &Path, branch: &str) -> Result<(), GitError> {
    const FORMAT: &str = "--format=%(refname)%09%(objectname)%09%(*objectname)";
    let theirs = run("for-each-ref", git(Some(mirror)).args(["for-each-ref", FORMAT, "refs/heads", "refs/tags"]))?;
    let own = run("for-each-ref", git(Some(clone)).args(["for-each-ref", FORMAT]))?;
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    let of_remote = |name: &str| name.strip_prefix("refs/heads/").map(|name| format!("refs/remotes/origin/{name}"));
    // Sorted, as git expects, and without duplicates. The clone's own references, which may be in this file too,
    // are kept.
    let mut lines: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for (list, remote) in [(&theirs, true), (&own, false)] {
        for line in list.lines() {
            let mut fields = line.split('\t');
            let (Some(name), Some(object), Some(peeled)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let name = of_remote(name).filter(|_| remote).unwrap_or_else(|| name.to_owned());
            // This one is a symbolic reference, written below.
            if name != "refs/remotes/origin/HEAD" {
                lines.insert(name, (object, peeled));
            }
        }
    }
    for (name, (object, peeled)) in &lines {
        let _ = writeln!(text, "{object} {name}");
        if !peeled.is_empty() {
            let _ = writeln!(text, "^{peeled}");
        }
    }
    std::fs::write(dot_git.join("packed-refs"), text).map_err(GitError::io("writing the clone's references"))?;
    let head = ["symbolic-ref", "refs/remotes/origin/HEAD", &format!("refs/remotes/origin/{branch}")];
    run("symbolic-ref", git(Some(clone)).args(head)).map(|_| ())
}

/// Writes a hook that adds the mission and the cell to each commit message. It is only a convenience in the agents'
/// clone: nothing on the host's side runs it or trusts it.
fn write_hook(dot_git: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let hooks = dot_git.join("hooks");
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&hooks)?;
    let mut hook = std::fs::File::options().create_new(true).write(true).mode(0o755).open(hooks.join("commit-msg"))?;
    std::io::Write::write_all(
        &mut hook,
        b"#!/bin/sh\n\
          exec git interpret-trailers --in-place --if-exists doNothing \\\n  \
          --trailer \"Lazarus-Mission: $LAZARUS_MISSION\" --trailer \"Lazarus-Cell: $LAZARUS_CELL\" \"$1\"\n",
    )
}

/// The reference that keeps the commit that a cell was made from.
fn pin(cell: &str) -> String {
    format!("refs/lazarus/cells/{cell}")
}

/// Whether the mirror keeps the commit that a cell was made from.
pub fn holds_base(mirror: &Path, cell: &str, base: &str) -> bool {
    std::fs::read_to_string(mirror.join(pin(cell))).is_ok_and(|kept| kept.trim() == base)
}

/// Makes the mirror keep the commit that a cell was made from.
///
/// # Errors
/// If git cannot be run, or the mirror does not have the commit.
pub fn hold_base(mirror: &Path, cell: &str, base: &str) -> Result<(), GitError> {
    run("update-ref", git(Some(mirror)).args(["update-ref", &pin(cell), base])).map(|_| ())
}

/// Removes the mirror's reference to the commit that a cell was made from, so that it may be deleted.
///
/// # Errors
/// If git cannot be run.
pub fn unpin(mirror: &Path, cell: &str) -> Result<(), GitError> {
    if mirror.join("HEAD").exists() {
        run("update-ref", git(Some(mirror)).args(["update-ref", "-d", &pin(cell)]))?;
    }
    Ok(())
}

/// A branch that could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why, in git's words.
    pub why: String,
}

/// Most branches that are fetched one by one when fetching them together failed.
const ONE_BY_ONE_MAX: usize = 200;
/// The file in a mirror that lists which branches were left out, and at which commit.
const LEFT_OUT: &str = "lazarus-left-out";

/// Updates the mirror of a project, or creates it. The branch `base` is required; any other branch that cannot be
/// fetched is left out and returned.
///
/// # Errors
/// If git cannot be run, or the forge does not provide the branch `base`.
pub fn refresh_mirror(mirror: &Path, url: &str, access: &GitAccess, base: &str) -> Result<Vec<LeftOut>, GitError> {
    if !mirror.join("HEAD").exists() {
        make_directory(mirror, 0o700).map_err(|e| GitError::io(e.tried)(e.source))?;
        // Cells read the objects as other users; the directory above closes the mirror to everybody else.
        run("init", git(None).args(["init", "--quiet", "--bare", "--shared=0644", "--template="]).arg(mirror))?;
    }
    let socket = CredentialSocket::open(access, mirror)?;
    let left_out = fetch(mirror, url, &socket.settings()?, base)?;
    let packs = std::fs::read_dir(mirror.join("objects/pack")).map_or(0, Iterator::count) / 2;
    if packs > PACKS_MAX {
        // Everything that has a reference is kept: the branches, and the commits that live cells and kept work were
        // made from. While there are cells, whatever else they were given (`origin/…`, tags) is kept too, even if
        // the forge no longer has it.
        let cells = run("for-each-ref", git(Some(mirror)).args(["for-each-ref", "--count=1", "refs/lazarus/cells"]))?;
        let keep = if cells.trim().is_empty() { &[][..] } else { &["--keep-unreachable"] };
        run("repack", git(Some(mirror)).args(["repack", "-a", "-d", "--quiet"]).args(keep))?;
    }
    Ok(left_out)
}

/// The branches that the last refresh of a mirror left out.
pub fn left_out_of(mirror: &Path) -> Vec<LeftOut> {
    let text = std::fs::read_to_string(mirror.join(LEFT_OUT)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, '\t');
        let (_, name) = (parts.next()?, parts.next()?);
        Some(LeftOut { name: name.to_owned(), why: parts.next()?.to_owned() })
    });
    lines.collect()
}

fn fetch(mirror: &Path, url: &str, credentials: &[String], base: &str) -> Result<Vec<LeftOut>, GitError> {
    let fetch = |specs: &[String], prune: bool| {
        run(
            "fetch",
            git(Some(mirror))
                .args(credentials)
                .args(["-c", "fetch.fsckObjects=true"])
                // Old projects contain old faults. Dangerous ones are still refused.
                .args(LENIENT.iter().flat_map(|fault| ["-c".to_owned(), format!("fetch.fsck.{fault}=ignore")]))
                .args(["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head"])
                .args(prune.then_some("--prune"))
                .arg("--")
                .arg(url)
                .args(specs),
        )
    };
    let branch = |name: &str| format!("+refs/heads/{name}:refs/heads/{name}");
    let all = "+refs/heads/*:refs/heads/*".to_owned();
    let tags = "+refs/tags/*:refs/tags/*".to_owned();
    let known = left_out_of(mirror);
    if known.is_empty() {
        // All branches together, which usually works.
        let Err(error) = fetch(&[all.clone(), tags.clone()], true) else { return Ok(vec![]) };
        // A tag may be the fault, and no cell needs tags.
        if error.failure() == Failure::Lasting && fetch(std::slice::from_ref(&all), true).is_ok() {
            tracing::warn!(%error, "the tags of a project cannot be fetched: its cells have those that came before");
            return Ok(vec![]);
        }
        // What others push must not prevent fetching the branch that is needed.
        fetch(&[branch(base)], false)?;
        if error.failure() != Failure::Lasting {
            tracing::info!(%error, "of a project only the base branch could be fetched; the others come next time");
            return Ok(vec![]);
        }
    } else {
        fetch(&[branch(base)], false)?;
    }
    let remote = run("ls-remote", git(Some(mirror)).args(credentials).args(["ls-remote", "--heads", "--"]).arg(url))?;
    let there: Vec<(&str, &str)> = remote
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(commit, reference)| Some((commit, reference.strip_prefix("refs/heads/")?)))
        .collect();
    let before = std::fs::read_to_string(mirror.join(LEFT_OUT)).unwrap_or_default();
    // A branch that has not moved since it could not be fetched is not tried again.
    let mut left: Vec<(String, LeftOut)> = vec![];
    let mut wanted = vec![all];
    for (commit, name) in &there {
        let same = before.lines().find(|line| line.starts_with(&format!("{commit}\t{name}\t")));
        if let Some(why) = same.and_then(|line| line.splitn(3, '\t').nth(2)).filter(|_| *name != base) {
            wanted.push(format!("^refs/heads/{name}"));
            left.push(((*commit).to_owned(), LeftOut { name: (*name).to_owned(), why: why.to_owned() }));
        }
    }
    if known.is_empty() || fetch(&wanted, true).is_err() {
        let skipped: Vec<String> = left.iter().map(|(_, left)| left.name.clone()).collect();
        let others = there.iter().filter(|(_, name)| *name != base && !skipped.iter().any(|left| left == name));
        for (commit, name) in others.take(ONE_BY_ONE_MAX) {
            if let Err(error) = fetch(&[branch(name)], false)
                && error.failure() == Failure::Lasting
            {
                let why = error.to_string().replace(['\n', '\t'], " ");
                left.push(((*commit).to_owned(), LeftOut { name: (*name).to_owned(), why }));
            }
        }
    }
    let mut noted = String::new();
    for (commit, branch) in &left {
        let _ = writeln!(noted, "{commit}\t{}\t{}", branch.name, branch.why);
    }
    if let Err(error) = fetch(std::slice::from_ref(&tags), true) {
        tracing::warn!(%error, "the tags of a project cannot be fetched: its cells have those that came before");
    }
    std::fs::write(mirror.join(LEFT_OUT), noted).map_err(GitError::io("noting the branches that were left out"))?;
    Ok(left.into_iter().map(|(_, left)| left).collect())
}

/// Faults that occur in the history of well-known projects and harm nobody: odd names, times and modes. Faults that
/// decide what a checkout writes, and where, are not in this list: entry names (`.git`, `..`, `/`, empty,
/// duplicate, unsorted), defects of `.gitmodules` and `.gitattributes`, broken ids.
const LENIENT: [&str; 17] = [
    "zeroPaddedFilemode",
    "badFilemode",
    "missingSpaceBeforeDate",
    "badTimezone",
    "badDate",
    "badDateOverflow",
    "zeroPaddedDate",
    "missingSpaceBeforeEmail",
    "missingNameBeforeEmail",
    "missingEmail",
    "badEmail",
    "badName",
    "multipleAuthors",
    "nulInCommit",
    "missingTaggerEntry",
    "badTagName",
    "extraHeaderEntry",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(directory: &Path, arguments: &[&str]) -> Result<String, GitError> {
        run("git", git(Some(directory)).args(["-c", "user.name=t", "-c", "user.email=t@t.invalid"]).args(arguments))
            .map(|answer| answer.trim().to_owned())
    }

    #[test]
    fn a_clone_has_the_tags_and_the_branches_of_its_origin_and_no_remote() {
        let place = tempfile::tempdir().unwrap();
        let mirror = place.path().join("1.git");
        run("init", git(None).args(["init", "--quiet", "--bare", "--shared=0644"]).arg(&mirror)).unwrap();
        let tree = ask(&mirror, &["mktree"]).unwrap();
        let first = ask(&mirror, &["commit-tree", &tree, "-m", "first"]).unwrap();
        let second = ask(&mirror, &["commit-tree", &tree, "-p", &first, "-m", "second"]).unwrap();
        let aside = ask(&mirror, &["commit-tree", &tree, "-p", &first, "-m", "aside"]).unwrap();
        ask(&mirror, &["update-ref", "refs/heads/main", &second]).unwrap();
        ask(&mirror, &["update-ref", "refs/heads/release/1", &aside]).unwrap();
        ask(&mirror, &["tag", "-a", "-m", "one", "v1", &first]).unwrap();
        ask(&mirror, &["update-ref", "refs/tags/light", &aside]).unwrap();
        for (borrow, commit) in [(false, None), (false, Some(first.as_str()))] {
            let target = place.path().join("project");
            clone_project(&mirror, "laz-x", "main", commit, &target, borrow).unwrap();
            let own = commit.map_or(&second, |_| &first);
            for (name, wanted) in [
                ("HEAD", own),
                ("main", own),
                ("origin/HEAD", &second),
                ("origin/main", &second),
                ("origin/release/1", &aside),
                ("v1^{commit}", &first),
                ("light", &aside),
            ] {
                assert_eq!(&ask(&target, &["rev-parse", "--verify", name]).unwrap(), wanted, "{name}");
            }
            assert!(ask(&target, &["describe"]).unwrap().starts_with("v1"));
            assert_eq!(ask(&target, &["remote"]).unwrap(), "");
            assert_eq!(ask(&target, &["for-each-ref", "refs/lazarus"]).unwrap(), "");
            assert_eq!(ask(&target, &["status", "--short"]).unwrap(), "");
            ask(&target, &["fsck", "--strict"]).unwrap();
            ask(&target, &["pack-refs", "--all"]).unwrap();
        }
    }

    #[test]
    fn what_a_cell_was_made_from_stays_in_the_mirror_until_it_is_let_go() {
        let place = tempfile::tempdir().unwrap();
        let mirror = place.path().join("1.git");
        run("init", git(None).args(["init", "--quiet", "--bare", "--shared=0644"]).arg(&mirror)).unwrap();
        let tree = ask(&mirror, &["mktree"]).unwrap();
        let commit = ask(&mirror, &["commit-tree", &tree, "-m", "first"]).unwrap();
        ask(&mirror, &["update-ref", "refs/heads/main", &commit]).unwrap();
        let target = place.path().join("project");
        let cloned = clone_project(&mirror, "laz-x", "main", None, &target, true).unwrap();
        assert_eq!(cloned.commit, commit);
        assert!(std::fs::read_dir(target.join(".git/objects/pack")).unwrap().next().is_none(), "it has objects");

        // The branch moves on, but the approved commit is cloned.
        let next = ask(&mirror, &["commit-tree", &tree, "-p", &commit, "-m", "second"]).unwrap();
        ask(&mirror, &["update-ref", "refs/heads/main", &next]).unwrap();
        let cloned = clone_project(&mirror, "laz-x", "main", Some(&commit), &target, true).unwrap();
        assert_eq!((cloned.commit.as_str(), cloned.behind), (commit.as_str(), 1));
        let cloned = clone_project(&mirror, "laz-y", "main", None, &target, false).unwrap();
        assert_eq!((cloned.commit.as_str(), cloned.behind), (next.as_str(), 0));
        // The branch was reset to another commit: the approved commit is on no branch any more.
        let aside = ask(&mirror, &["commit-tree", &tree, "-m", "another first"]).unwrap();
        ask(&mirror, &["update-ref", "refs/heads/main", &aside]).unwrap();
        let cloned = clone_project(&mirror, "laz-z", "main", Some(&next), &target, false).unwrap();
        assert_eq!(cloned.commit, next);
        assert_eq!(ask(&target, &["rev-parse", "main"]).unwrap(), next);
        let missing = clone_project(&mirror, "laz-q", "main", Some(&"1".repeat(40)), &target, true);
        assert!(matches!(missing, Err(GitError::NoCommit { .. })), "{missing:?}");
        for cell in ["laz-y", "laz-z"] {
            unpin(&mirror, cell).unwrap();
        }
        let _ = clone_project(&mirror, "laz-x", "main", Some(&commit), &target, true).unwrap();

        // The branch was deleted on the forge, and the mirror is pruned.
        ask(&mirror, &["update-ref", "-d", "refs/heads/main"]).unwrap();
        ask(&mirror, &["gc", "--quiet", "--prune=now"]).unwrap();
        ask(&mirror, &["cat-file", "-e", &commit]).unwrap();
        unpin(&mirror, "laz-x").unwrap();
        ask(&mirror, &["gc", "--quiet", "--prune=now"]).unwrap();
        assert!(ask(&mirror, &["cat-file", "-e", &commit]).is_err());
    }
}
