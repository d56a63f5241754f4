//! What the kernel does not count for us: files and their bytes, always; and
//! memory and processes, where there is no control group.
//!
//! To count files is dear, so it is done where it can have changed enough to
//! matter: when the file system has lost half of what the cell had left, and
//! seldom besides. A walk is never followed by another before ten times its
//! own length has passed.

use super::{LaunchSpec, Room};
use crate::sandbox::Group;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstatvfs, openat, statat};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often it is looked, while agents run; and while they write much.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_WHILE_WRITING: Duration = Duration::from_millis(100);
/// Longest time between two walks, where anything changed on the file system.
const SELDOM: Duration = Duration::from_secs(30);
/// Deepest directory. Deeper ones could not be counted; programs do not make them.
const DEPTH_MAX: usize = 200;

/// The file in the keeper's directory with [`LimitsMet`].
pub const LIMITS_MET: &str = "limits.json";

/// Limits of a cell that were met: which, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LimitsMet(pub BTreeMap<String, String>);

/// What was found to be too much.
pub struct Excess {
    /// The limit's name in the configuration.
    pub limit: &'static str,
    /// How much it is, in words.
    pub words: String,
    /// What is to be ended for it.
    pub end: End,
}

/// What is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every process of the cell's agents.
    All,
    /// One process.
    One(i32),
    /// Nothing: the kernel refuses more by itself, and only does not say so.
    Nothing,
}

/// Watches one cell.
pub struct Watch {
    roots: Vec<PathBuf>,
    room: Room,
    memory: Option<u64>,
    processes: Option<(u64, End)>,
    used: Room,
    free: Room,
    walked: Option<Instant>,
    took: Duration,
    /// Free space at the last look, and whether much of it went since.
    seen: u64,
    writing: bool,
}

impl Watch {
    /// Watches the files below those directories, and what no control group limits.
    /// With `own_count` the kernel counts the cell's processes as a user's.
    pub fn new(spec: &LaunchSpec, roots: Vec<PathBuf>, group: &Group, own_count: bool) -> Self {
        let end = if own_count { End::Nothing } else { End::All };
        Self {
            roots,
            room: spec.room,
            memory: (!group.memory).then_some(spec.budget.memory),
            processes: (!group.processes).then_some((spec.budget.processes, end)),
            used: Room { bytes: 0, files: 0 },
            free: Room { bytes: 0, files: 0 },
            walked: None,
            took: Duration::ZERO,
            seen: 0,
            writing: false,
        }
    }

    /// When to look again.
    pub fn every(&self) -> Duration {
        if self.writing { EVERY_WHILE_WRITING } else { EVERY }
    }

    /// Looks. `processes` lists every process of the cell but the keeper.
    pub fn look(&mut self, processes: impl FnOnce() -> Vec<i32>) -> Option<Excess> {
        if self.memory.is_some() || self.processes.is_some() {
            let excess = self.look_at_processes(&processes());
            if excess.is_some() {
                return excess;
            }
        }
        self.look_at_files()
    }

    fn look_at_processes(&self, processes: &[i32]) -> Option<Excess> {
        // The keeper counts as one; each agent has an init.
        if let Some((most, end)) = self.processes.filter(|(most, _)| processes.len() as u64 + 1 >= *most) {
            let words = format!("{} processes, of {most} that it may have", processes.len() + 1);
            return Some(Excess { limit: "processes", words, end });
        }
        let most = self.memory?;
        let sizes: Vec<(u64, i32)> = processes.iter().map(|pid| (memory_of(*pid), *pid)).collect();
        let all: u64 = sizes.iter().map(|(size, _)| size).sum();
        let largest = sizes.iter().max()?;
        (all > most).then(|| Excess {
            limit: "memory",
            words: format!("{} MiB in use, of {} MiB; the largest process was ended", all >> 20, most >> 20),
            end: End::One(largest.1),
        })
    }

    fn look_at_files(&mut self) -> Option<Excess> {
        let free = self.free_now()?;
        self.writing = self.seen.saturating_sub(free.bytes) > self.room.bytes / 16;
        self.seen = free.bytes;
        let lost = Room {
            bytes: self.free.bytes.saturating_sub(free.bytes),
            files: self.free.files.saturating_sub(free.files),
        };
        let near = lost.bytes > self.room.bytes.saturating_sub(self.used.bytes) / 2
            || lost.files > self.room.files.saturating_sub(self.used.files) / 2;
        let since = self.walked.map(|at| at.elapsed());
        let due = match since {
            None => true,
            Some(since) => since > self.took * 10 && (near || (since > SELDOM && free != self.free)),
        };
        if !due {
            return None;
        }
        let began = Instant::now();
        let mut count = Count { room: self.room, used: Room { bytes: 0, files: 0 }, linked: HashSet::new() };
        let mut too_deep = false;
        for root in &self.roots {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(directory) = openat(rustix::fs::CWD, root, flags, Mode::empty()) {
                too_deep |= count.below(directory, 0) == Walked::TooDeep;
            }
        }
        (self.took, self.walked) = (began.elapsed(), Some(Instant::now()));
        (self.used, self.free) = (count.used, free);
        let excess = |limit, words| Some(Excess { limit, words, end: End::All });
        if self.used.bytes > self.room.bytes {
            excess("disk", format!("{} MiB or more, of {} MiB", self.used.bytes >> 20, self.room.bytes >> 20))
        } else if self.used.files > self.room.files {
            excess("files", format!("more than the {} files and directories that it may have", self.room.files))
        } else if too_deep {
            excess("files", format!("directories in directories, more than {DEPTH_MAX} deep"))
        } else {
            None
        }
    }

    fn free_now(&self) -> Option<Room> {
        let stat = self.roots.iter().find_map(|root| {
            let directory = openat(rustix::fs::CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
            fstatvfs(directory).ok()
        })?;
        Some(Room { bytes: stat.f_bfree.saturating_mul(stat.f_frsize), files: stat.f_ffree })
    }
}

/// Memory that belongs to a process: what it wrote to, its shared memory, and
/// what of it was swapped out. Bytes; 0 where it is gone.
fn memory_of(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    ["RssAnon:", "RssShmem:", "VmSwap:"].into_iter().filter_map(kib).sum::<u64>() * 1024
}

#[derive(PartialEq, Eq)]
enum Walked {
    All,
    /// There is more than there may be: no need to go on.
    Enough,
    TooDeep,
}

struct Count {
    room: Room,
    used: Room,
    /// Files with several names, counted once.
    linked: HashSet<(u64, u64)>,
}

impl Count {
    /// Counts what is below a directory; links are counted, never followed.
    fn below(&mut self, directory: OwnedFd, depth: usize) -> Walked {
        if depth > DEPTH_MAX {
            return Walked::TooDeep;
        }
        let Ok(entries) = Dir::read_from(&directory) else { return Walked::All };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.used.files += 1;
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let several = stat.st_nlink > 1 && entry.file_type() != FileType::Directory;
            if !several || self.linked.insert((stat.st_dev, stat.st_ino)) {
                self.used.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
            if self.used.bytes > self.room.bytes || self.used.files > self.room.files {
                return Walked::Enough;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let Ok(inner) = openat(&directory, name, flags, Mode::empty()) else { continue };
                match self.below(inner, depth + 1) {
                    Walked::All => {}
                    other => return other,
                }
            }
        }
        Walked::All
    }
}

/// Writes down which limits were met, in place of what stood there.
pub fn write_met(run_dir: &std::fs::File, met: &LimitsMet) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = openat(run_dir, LIMITS_MET, flags, Mode::from_raw_mode(0o600))?;
    io::Write::write_all(&mut std::fs::File::from(fd), &serde_json::to_vec(met)?)
}
