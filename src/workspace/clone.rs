//! Cloning a project into a cell.
//!
//! A bare mirror of each project stays on the host, kept fresh. Cells borrow its
//! objects: a clone is little more than its work tree.

use super::git::{CredentialSocket, GitError, git, run};
use super::home::make_directory;
use secrecy::SecretString;
use std::path::{Path, PathBuf};

/// Where a walled cell sees the objects of its project's mirror, read-only.
pub const OBJECTS_IN_CELL: &str = "/run/lazarus/objects";
/// Packs of a mirror above which they are put together.
const PACKS_MAX: usize = 40;

/// A clone that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloned {
    /// The commit that is checked out.
    pub commit: String,
    /// The branch it is on.
    pub branch: String,
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
/// # Errors
/// Where git cannot be run, or there is no such branch.
pub fn clone_project(mirror: &Path, cell: &str, branch: &str, target: &Path, borrow: bool) -> Result<Cloned, GitError> {
    super::scrub(target).map_err(GitError::io(format!("removing {}", target.display())))?;
    let commit = run(
        "rev-parse",
        git(Some(mirror)).args(["rev-parse", "--verify", &format!("refs/heads/{branch}^{{commit}}")]),
    )?;
    let commit = commit.trim().to_owned();
    run("update-ref", git(Some(mirror)).args(["update-ref", &pin(cell), &commit]))?;
    // Cloned beside its place and moved there, so that half a clone is
    // never taken for one.
    let new = target.with_extension("new");
    super::scrub(&new).map_err(GitError::io(format!("removing {}", new.display())))?;
    run(
        "clone",
        git(None)
            .args(["-c", "protocol.file.allow=always", "clone", "--quiet", "--single-branch", "--no-tags"])
            .arg(if borrow { "--shared" } else { "--no-hardlinks" })
            .args(["--no-recurse-submodules", "--template=", "--branch"])
            .arg(branch)
            .arg("--")
            .arg(mirror)
            .arg(&new),
    )?;
    // Neither the mirror's path nor any remote is the cell's business.
    run("remote", git(Some(&new)).args(["remote", "remove", "origin"]))?;
    let dot_git = new.join(".git");
    if borrow {
        std::fs::write(dot_git.join("objects/info/alternates"), format!("{OBJECTS_IN_CELL}\n"))
            .map_err(GitError::io("pointing the clone to the mirror's objects"))?;
    }
    write_hook(&dot_git).map_err(GitError::io("writing the clone's hook"))?;
    std::fs::rename(&new, target).map_err(GitError::io(format!("moving the clone to {}", target.display())))?;
    Ok(Cloned { commit, branch: branch.to_owned() })
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

/// Brings the mirror of a project up to date, or makes it.
///
/// # Errors
/// Where git cannot be run, or the forge does not give the project.
pub fn refresh_mirror(mirror: &Path, url: &str, token: &SecretString) -> Result<(), GitError> {
    if !mirror.join("HEAD").exists() {
        make_directory(mirror, 0o700).map_err(|e| GitError::io(e.tried)(e.source))?;
        // Cells read the objects as users of their own; what closes the mirror
        // to others is the directory above.
        run("init", git(None).args(["init", "--quiet", "--bare", "--shared=0644", "--template="]).arg(mirror))?;
    }
    let socket = CredentialSocket::open(token)?;
    run(
        "fetch",
        git(Some(mirror))
            .args(["-c", &socket.setting(), "-c", "fetch.fsckObjects=true"])
            // Old projects have old faults; what is dangerous stays refused.
            .args(LENIENT.iter().flat_map(|fault| ["-c".to_owned(), format!("fetch.fsck.{fault}=ignore")]))
            .args(["fetch", "--quiet", "--prune", "--no-tags", "--force", "--no-write-fetch-head"])
            .arg("--")
            .arg(url)
            .arg("+refs/heads/*:refs/heads/*"),
    )?;
    let packs = std::fs::read_dir(mirror.join("objects/pack")).map_or(0, Iterator::count) / 2;
    if packs > PACKS_MAX {
        // Everything that a reference names stays: the branches, and what live
        // cells and kept work were made from.
        run("repack", git(Some(mirror)).args(["repack", "-a", "-d", "--quiet"]))?;
    }
    Ok(())
}

/// Faults that are in the history of well-known projects and harm nobody.
const LENIENT: [&str; 6] = [
    "zeroPaddedFilemode",
    "missingSpaceBeforeDate",
    "badTimezone",
    "badDateOverflow",
    "missingSpaceBeforeEmail",
    "missingNameBeforeEmail",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(directory: &Path, arguments: &[&str]) -> Result<String, GitError> {
        run("git", git(Some(directory)).args(["-c", "user.name=t", "-c", "user.email=t@t.invalid"]).args(arguments))
            .map(|answer| answer.trim().to_owned())
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
        let cloned = clone_project(&mirror, "laz-x", "main", &target, true).unwrap();
        assert_eq!(cloned.commit, commit);
        assert!(std::fs::read_dir(target.join(".git/objects/pack")).unwrap().next().is_none(), "it has objects");

        // The branch is gone from the forge, and the mirror is cleaned up.
        ask(&mirror, &["update-ref", "-d", "refs/heads/main"]).unwrap();
        ask(&mirror, &["gc", "--quiet", "--prune=now"]).unwrap();
        ask(&mirror, &["cat-file", "-e", &commit]).unwrap();
        unpin(&mirror, "laz-x").unwrap();
        ask(&mirror, &["gc", "--quiet", "--prune=now"]).unwrap();
        assert!(ask(&mirror, &["cat-file", "-e", &commit]).is_err());
    }
}
