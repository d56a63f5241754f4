//! A work tree for each agent, if policy asks for that.

#![allow(clippy::print_stderr, reason = "it runs in the cell: this is the agent's log")]

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Prefix of the names of agents' own branches.
pub const BRANCHES: &str = "agent/";

/// `lazarus cell-worktree PATH PROGRAM…`: creates the work tree at PATH and the agent's branch, unless they exist,
/// and then executes the program in it. Runs in the cell, in the clone, with the agent's rights.
pub fn in_worktree(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(path), Some(program)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        eprintln!("lazarus cell-worktree: PATH and PROGRAM are wanted");
        return ExitCode::from(2);
    };
    let branch = format!("{BRANCHES}{}", path.file_name().unwrap_or_default().to_string_lossy());
    if !path.join(".git").exists() {
        let known = Command::new("git").args(["rev-parse", "-q", "--verify", &format!("refs/heads/{branch}")]).output();
        let mut add = Command::new("git");
        add.args(["worktree", "add", "--quiet", "--force"]);
        if known.is_ok_and(|known| known.status.success()) {
            add.arg(&path).arg(&branch);
        } else {
            add.args(["-b", &branch]).arg(&path);
        }
        match add.status() {
            Ok(status) if status.success() => {}
            outcome => {
                eprintln!("lazarus cell-worktree: the work tree {} could not be made: {outcome:?}", path.display());
                return ExitCode::from(126);
            }
        }
    }
    let error = Command::new(program).args(arguments).current_dir(&path).exec();
    eprintln!("lazarus cell-worktree: the agent's program could not be run: {error}");
    ExitCode::from(127)
}
