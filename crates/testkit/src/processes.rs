//! What still runs on this machine in the name of a world: the proof that a
//! closed cell leaves nothing behind (I3), read from `/proc` and not asked of
//! Lazarus.

use std::fs;

/// A process that belongs to a world.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its number.
    pub pid: i32,
    /// Its command line, blanks between the arguments.
    pub command: String,
    /// In which of its files under `/proc/PID` the world was named.
    pub named_in: &'static str,
}

/// All processes that name `needle` (a unique part of the world's path) in
/// their command line, environment, directory or mounts, except `except`.
/// A cell's processes see the world's directory at best as the root of one of
/// their mounts: hence `mountinfo`. Zombies do not count: they run nothing.
pub fn naming(needle: &str, except: &[i32]) -> Vec<Found> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if pid == own || except.contains(&pid) || is_zombie(pid) {
            continue;
        }
        let read = |file: &str| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned()
        };
        let link = |file: &str| {
            fs::read_link(format!("/proc/{pid}/{file}")).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let named_in = if read("cmdline").contains(needle) {
            "cmdline"
        } else if read("environ").contains(needle) {
            "environ"
        } else if link("cwd").contains(needle) {
            "cwd"
        } else if link("exe").contains(needle) {
            "exe"
        } else if read("mountinfo").contains(needle) {
            "mountinfo"
        } else {
            continue;
        };
        found.push(Found { pid, command: read("cmdline").replace('\0', " "), named_in });
    }
    found
}

/// Whether a mount of the host itself names `needle`: a cell's mounts must not
/// leak into the namespace that started it.
pub fn host_mounts_naming(needle: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter(|line| line.contains(needle)).map(str::to_owned).collect()
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command's name, which may itself hold brackets.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

/// Kills one process by number, for cleaning up after a failed test.
pub fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
