//! Reading what was done in a cell's clone.
//!
//! This runs inside the cell (`lazarus cell-harvest BASE`), because the clone
//! is the agents' and its configuration can make git run anything. What it
//! says is therefore the cell's own word, and is treated as untrusted text.

use crate::backend::Harvest;
use std::process::{Command, Stdio};

/// Most commits that are listed.
const COMMITS_LISTED: usize = 50;
/// Most files that are listed.
const FILES_LISTED: usize = 100;

fn git(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "safe.directory=*"])
        .args(["-c", "log.showSignature=false", "-c", "core.quotePath=true", "--no-pager", "--no-optional-locks"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("git cannot be run in the cell: {e}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(words.trim().chars().take(300).collect());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What was done since `base`, a commit.
pub fn read_work(base: &str) -> Harvest {
    match try_read(base) {
        Ok(harvest) => harvest,
        Err(why) => Harvest { unknown: Some(why), ..Harvest::default() },
    }
}

fn try_read(base: &str) -> Result<Harvest, String> {
    if base.is_empty() || !base.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("the commit to start from is not known".to_owned());
    }
    let range = format!("{base}..HEAD");
    let count = git(&["rev-list", "--count", &range])?.trim().parse().unwrap_or(0);
    let listed = format!("--max-count={COMMITS_LISTED}");
    let log = git(&["log", "--no-show-signature", "--no-color", &listed, "--format=%H%x00%an%x00%s", &range])?;
    let commits = log
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '\0').map(|p| p.chars().take(200).collect::<String>());
            Some((parts.next()?, parts.next()?, parts.next()?))
        })
        .collect();
    let numbers =
        git(&["diff", "--no-ext-diff", "--no-textconv", "--no-color", "--numstat", "--no-renames", base, "HEAD"])?;
    let files: Vec<(u64, u64, String)> = numbers
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '\t');
            // Binary files have `-` for both numbers.
            let added = parts.next()?.parse().unwrap_or(0);
            let removed = parts.next()?.parse().unwrap_or(0);
            Some((added, removed, parts.next()?.chars().take(300).collect()))
        })
        .collect();
    let status = git(&["status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=all"])?;
    Ok(Harvest {
        commits,
        commit_count: count,
        file_count: files.len() as u64,
        files: files.into_iter().take(FILES_LISTED).collect(),
        uncommitted: status.lines().count() as u64,
        unknown: None,
    })
}
