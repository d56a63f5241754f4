//! Cloning a project into a cell.
//!
//! A bare mirror of each project stays on the host, kept fresh. Cells borrow its
//! objects: a clone is little more than its work tree.

use super::git::{CredentialSocket, GitAccess, GitError, git, run};
use crate::failure::Failure;
use crate::keeper::OBJECTS_IN_CELL;
use crate::workspace::{make_directory, scrub};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Packs of a mirror above which they are put together.
const PACKS_MAX: usize = 40;

/// A clone that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloned {
    /// The commit that is checked out.
    pub commit: String,
    /// The branch it is on.
    pub branch: String,
    /// Commits that the branch has beyond that one.
    pub behind: u64,
}

/// Where the mirror of a project lies.
pub fn mirror_of(mirrors: &Path, repo_id: i64) -> PathBuf {
    mirrors.join(format!("{repo_id}.git"))
}

/// Clones a fresh mirror to `target`, which no agent has seen.
///
/// Where `borrow` is set the clone has no objects: it looks for them at
/// [`OBJECTS_IN_CELL`], where the cell sees the mirror's. They stay there for as
/// long as the mirror has a reference for the cell; see [`unpin`].
///
/// `commit` is the one that was approved; `None` takes the branch's newest.
///
/// # Errors
/// Where git cannot be run, there is no such branch, or the commit is not there
/// any more ([`GitError::NoCommit`]).
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
    // Cloned beside its place and moved there, so that half a clone is
    // never taken for one.
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
        // The branch went on, or was moved, since this commit was approved.
        if run("cat-file", git(Some(&new)).args(["cat-file", "-e", &commit])).is_err() {
            run("fetch", git(Some(&new)).args(["fetch", "--quiet", "--no-tags"]).arg(mirror).arg(pin(cell)))?;
        }
        run("checkout", git(Some(&new)).args(["checkout", "--quiet", "-B", branch, &commit]))?;
    }
    // Neither the mirror's path nor any remote is the cell's business. What the remote has is.
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

/// Gives a clone the project's tags, and its branches as those of a remote `origin` that it was cloned from: tools
/// ask git for them (`git describe`, `git diff origin/HEAD`). There is no such remote to speak to. Their objects are
/// there already: the clone borrows or copies all that the mirror has.
///
/// They are written as one file, as git packs references: thousands would be as many small files.
fn give_references(mirror: &Path, clone: &Path, dot_git: &Path, branch: &str) -> Result<(), GitError> {
    const FORMAT: &str = "--format=%(refname)%09%(objectname)%09%(*objectname)";
    let theirs = run("for-each-ref", git(Some(mirror)).args(["for-each-ref", FORMAT, "refs/heads", "refs/tags"]))?;
    let own = run("for-each-ref", git(Some(clone)).args(["for-each-ref", FORMAT]))?;
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    let of_remote = |name: &str| name.strip_prefix("refs/heads/").map(|name| format!("refs/remotes/origin/{name}"));
    // Sorted, as git expects it, and each once; the clone's own, which may lie in this file too, as they are.
    let mut lines: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for (list, remote) in [(&theirs, true), (&own, false)] {
        for line in list.lines() {
            let mut fields = line.split('\t');
            let (Some(name), Some(object), Some(peeled)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let name = of_remote(name).filter(|_| remote).unwrap_or_else(|| name.to_owned());
            // That one is a link, below.
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

/// Says in every commit which mission and cell it is of. A convenience of the
/// agents' clone: nothing on the host's side runs it, or believes it.
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

/// The reference that keeps what a cell was made from.
fn pin(cell: &str) -> String {
    format!("refs/lazarus/cells/{cell}")
}

/// Whether the mirror keeps what a cell was made from.
pub fn holds_base(mirror: &Path, cell: &str, base: &str) -> bool {
    std::fs::read_to_string(mirror.join(pin(cell))).is_ok_and(|kept| kept.trim() == base)
}

/// Has the mirror keep what a cell was made from.
///
/// # Errors
/// Where git cannot be run, or the mirror does not have it.
pub fn hold_base(mirror: &Path, cell: &str, base: &str) -> Result<(), GitError> {
    run("update-ref", git(Some(mirror)).args(["update-ref", &pin(cell), base])).map(|_| ())
}

/// Lets the mirror forget what a cell was made from.
///
/// # Errors
/// Where git cannot be run.
pub fn unpin(mirror: &Path, cell: &str) -> Result<(), GitError> {
    if mirror.join("HEAD").exists() {
        run("update-ref", git(Some(mirror)).args(["update-ref", "-d", &pin(cell)]))?;
    }
    Ok(())
}

/// A branch that is not fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why, in git's words.
    pub why: String,
}

/// Branches that are fetched one by one where all together cannot be, at most.
const ONE_BY_ONE_MAX: usize = 200;
/// Where a mirror keeps which branches were left out, and at which commit.
const LEFT_OUT: &str = "lazarus-left-out";

/// Brings the mirror of a project up to date, or makes it. What is on `base` is
/// needed; another branch that cannot be fetched is left out, and named.
///
/// # Errors
/// Where git cannot be run, or the forge does not give the branch `base`.
pub fn refresh_mirror(mirror: &Path, url: &str, access: &GitAccess, base: &str) -> Result<Vec<LeftOut>, GitError> {
    if !mirror.join("HEAD").exists() {
        make_directory(mirror, 0o700).map_err(|e| GitError::io(e.tried)(e.source))?;
        // Cells read the objects as users of their own; what closes the mirror
        // to others is the directory above.
        run("init", git(None).args(["init", "--quiet", "--bare", "--shared=0644", "--template="]).arg(mirror))?;
    }
    let socket = CredentialSocket::open(access, mirror)?;
    let left_out = fetch(mirror, url, &socket.settings()?, base)?;
    let packs = std::fs::read_dir(mirror.join("objects/pack")).map_or(0, Iterator::count) / 2;
    if packs > PACKS_MAX {
        // Everything that a reference names stays: the branches, and what live
        // cells and kept work were made from. And while there are cells, what they were given by another name
        // (`origin/…`, tags) stays too, though the forge may have it no more.
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
                // Old projects have old faults; what is dangerous stays refused.
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
        // All together, as it mostly goes.
        let Err(error) = fetch(&[all.clone(), tags.clone()], true) else { return Ok(vec![]) };
        // A tag may be what is wrong: no cell needs one.
        if error.failure() == Failure::Lasting && fetch(std::slice::from_ref(&all), true).is_ok() {
            tracing::warn!(%error, "the tags of a project cannot be fetched: its cells have those that came before");
            return Ok(vec![]);
        }
        // What others push must not stand in the way of the branch that is needed.
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
    // Where a branch has not moved since it could not be fetched, it is not tried.
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

/// Faults that are in the history of well-known projects and harm nobody: odd
/// names, times and modes. Not in this list, because they decide what a checkout
/// writes, and where: names of entries (`.git`, `..`, `/`, none, twice, out of
/// order), what is wrong with `.gitmodules` and `.gitattributes`, broken ids.
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

        // The branch goes on; what was approved is what is cloned.
        let next = ask(&mirror, &["commit-tree", &tree, "-p", &commit, "-m", "second"]).unwrap();
        ask(&mirror, &["update-ref", "refs/heads/main", &next]).unwrap();
        let cloned = clone_project(&mirror, "laz-x", "main", Some(&commit), &target, true).unwrap();
        assert_eq!((cloned.commit.as_str(), cloned.behind), (commit.as_str(), 1));
        let cloned = clone_project(&mirror, "laz-y", "main", None, &target, false).unwrap();
        assert_eq!((cloned.commit.as_str(), cloned.behind), (next.as_str(), 0));
        // It was moved back and aside: the approved commit is on no branch any more.
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

        // The branch is gone from the forge, and the mirror is cleaned up.
        ask(&mirror, &["update-ref", "-d", "refs/heads/main"]).unwrap();
        ask(&mirror, &["gc", "--quiet", "--prune=now"]).unwrap();
        ask(&mirror, &["cat-file", "-e", &commit]).unwrap();
        unpin(&mirror, "laz-x").unwrap();
        ask(&mirror, &["gc", "--quiet", "--prune=now"]).unwrap();
        assert!(ask(&mirror, &["cat-file", "-e", &commit]).is_err());
    }
}
