//! Measures what the kernel does not count for us: always the number and size of files, and also memory and
//! processes if there is no control group.
//!
//! Counting files is expensive, so we walk the tree only when it can have changed enough to matter: after the file
//! system has lost half of the space that the cell had left, and otherwise rarely. The walk runs in a process of
//! its own, so that orders do not wait for it.

use super::{DiskSpace, LaunchSpec};
use crate::sandbox::{Group, clone_process};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstatvfs, openat, statat};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often usage is checked while agents run, or while they write much.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_WHILE_WRITING: Duration = Duration::from_millis(100);
/// How often memory is checked if only the keeper enforces its limit, because a process can fill gigabytes in a
/// second. The shorter time applies while half of the memory or more is in use.
const EVERY_FOR_MEMORY: Duration = Duration::from_millis(250);
const EVERY_NEAR_MEMORY: Duration = Duration::from_millis(20);
/// Longest time between two walks, if anything changed on the file system.
const SELDOM: Duration = Duration::from_secs(30);
/// Deepest directory that is walked. Programs do not make deeper ones, and those could not be counted.
const DEPTH_MAX: usize = 200;

/// The file in the keeper's directory that contains [`LimitsHit`].
pub const LIMITS_HIT: &str = "limits.json";
/// The name of the program that harvests, and of its home. No agent can have this name.
pub const HARVESTER: &str = "_harvest";

/// The limits that a cell hit: for each one, what followed from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LimitsHit(pub BTreeMap<String, String>);

/// A limit that was found to be exceeded.
pub struct LimitHit {
    /// The limit's name in the configuration.
    pub limit: &'static str,
    /// How much is in use, in words.
    pub words: String,
    /// What must end because of it.
    pub end: End,
}

/// What must end because of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All processes that are watched.
    All,
    /// One process, by its pid.
    One(i32),
    /// Nothing: the kernel refuses more by itself, but does not report it.
    Nothing,
}

/// Watches what a cell's agents use, or what a harvest uses.
pub struct Watch {
    roots: Vec<PathBuf>,
    room: DiskSpace,
    memory: Option<u64>,
    processes: Option<(u64, End)>,
    used: DiskSpace,
    free: DiskSpace,
    walked: Option<Instant>,
    took: Duration,
    walk: Option<Walk>,
    /// Free space at the last check, and whether much of it was used since.
    seen: u64,
    writing: bool,
    /// Whether much of the memory was in use at the last check.
    near_memory: bool,
}

/// A walk that goes on in a process of its own.
struct Walk {
    result: File,
    began: Instant,
    free: DiskSpace,
}

impl Watch {
    /// Watches the files below `roots`, and whatever no control group limits. With `own_count` the kernel counts
    /// the cell's processes, by its user.
    pub fn new(spec: &LaunchSpec, roots: Vec<PathBuf>, room: DiskSpace, group: &Group, own_count: bool) -> Self {
        let end = if own_count { End::Nothing } else { End::All };
        Self {
            roots,
            room,
            memory: (!group.memory).then_some(spec.resources.memory),
            processes: (!group.processes).then_some((spec.resources.processes, end)),
            used: DiskSpace { bytes: 0, files: 0 },
            free: DiskSpace { bytes: 0, files: 0 },
            walked: None,
            took: Duration::ZERO,
            walk: None,
            seen: 0,
            writing: false,
            near_memory: false,
        }
    }

    /// How long to wait until the next check.
    pub fn every(&self) -> Duration {
        match self {
            Self { near_memory: true, .. } => EVERY_NEAR_MEMORY,
            Self { writing: true, .. } | Self { walk: Some(_), .. } => EVERY_WHILE_WRITING,
            Self { memory: Some(_), .. } => EVERY_FOR_MEMORY,
            _ => EVERY,
        }
    }

    /// Checks once. `processes` lists every process of the cell except the keeper.
    pub fn look(&mut self, processes: impl Fn() -> Vec<i32>) -> Option<LimitHit> {
        if self.memory.is_some() || self.processes.is_some() {
            let excess = self.look_at_processes(&processes());
            if excess.is_some() {
                return excess;
            }
        }
        self.look_at_files(processes)
    }

    fn look_at_processes(&mut self, processes: &[i32]) -> Option<LimitHit> {
        let states: Vec<(State, i32)> = processes.iter().map(|pid| (State::of(*pid), *pid)).collect();
        // The keeper counts as one process, and each agent has an init.
        let threads: u64 = states.iter().map(|(state, _)| state.threads).sum::<u64>() + 1;
        if let Some((most, end)) = self.processes.filter(|(most, _)| threads >= *most) {
            let words = format!("{threads} processes and threads, of {most} that it may have");
            return Some(LimitHit { limit: "processes", words, end });
        }
        let most = self.memory?;
        let (_, nameless) = nameless_files(processes);
        let all: u64 = states.iter().map(|(state, _)| state.memory).sum::<u64>() + nameless;
        self.near_memory = all > most / 2;
        let largest = states.iter().max_by_key(|(state, _)| state.memory)?;
        (all > most).then(|| LimitHit {
            limit: "memory",
            words: format!("{} MiB in use, of {} MiB", all >> 20, most >> 20),
            // Files in memory do not belong to any one process.
            end: if nameless > most / 2 { End::All } else { End::One(largest.1) },
        })
    }

    fn look_at_files(&mut self, processes: impl Fn() -> Vec<i32>) -> Option<LimitHit> {
        let free = self.free_now()?;
        self.writing = self.seen.saturating_sub(free.bytes) > self.room.bytes / 16;
        self.seen = free.bytes;
        if let Some(walk) = &mut self.walk {
            let mut text = vec![];
            let ended = match walk.result.read_to_end(&mut text) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                other => other.is_ok(),
            };
            (self.took, self.walked) = (walk.began.elapsed(), Some(Instant::now()));
            self.free = walk.free;
            self.walk = None;
            return serde_json::from_slice(&text).ok().filter(|_| ended).and_then(|found| self.judge(&found));
        }
        let lost = DiskSpace {
            bytes: self.free.bytes.saturating_sub(free.bytes),
            files: self.free.files.saturating_sub(free.files),
        };
        let left = DiskSpace {
            bytes: self.room.bytes.saturating_sub(self.used.bytes),
            files: self.room.files.saturating_sub(self.used.files),
        };
        let near = lost.bytes > left.bytes / 2 || lost.files > left.files / 2;
        let due = match self.walked.map(|at| at.elapsed()) {
            None => true,
            // So much space is gone that the limit may already be exceeded.
            Some(_) if lost.bytes > left.bytes => true,
            Some(since) => since > self.took * 10 && (near || (since > SELDOM && free != self.free)),
        };
        if due {
            self.walk = self.begin(free, &processes());
        }
        None
    }

    /// Starts a walk. Returns `None` if no process can be made for it; it is tried again later.
    fn begin(&self, free: DiskSpace, processes: &[i32]) -> Option<Walk> {
        let (result, mut end) = io::pipe().ok()?;
        rustix::io::ioctl_fionbio(&result, true).ok()?;
        let began = Instant::now();
        if clone_process(0).ok()? == 0 {
            let text = serde_json::to_vec(&self.count(processes)).unwrap_or_default();
            let _ = end.write_all(&text);
            // SAFETY: ends this process at once; its destructors belong to the keeper.
            unsafe { libc::_exit(0) };
        }
        Some(Walk { result: File::from(OwnedFd::from(result)), began, free })
    }

    fn count(&self, processes: &[i32]) -> Count {
        let mut count = Count { room: Some(self.room), ..Count::default() };
        for root in &self.roots {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(directory) = openat(rustix::fs::CWD, root, flags, Mode::empty()) {
                count.below(directory, 0);
            }
        }
        // Deleted files that are still open use space, too.
        count.bytes += nameless_files(processes).0;
        count
    }

    fn judge(&mut self, found: &Count) -> Option<LimitHit> {
        let lost = self.free.bytes;
        self.used = DiskSpace { bytes: found.bytes, files: found.files };
        let excess = |limit, words| Some(LimitHit { limit, words, end: End::All });
        if self.used.bytes > self.room.bytes {
            excess("disk", format!("{} MiB or more, of {} MiB", self.used.bytes >> 20, self.room.bytes >> 20))
        } else if self.used.files > self.room.files {
            excess("files", format!("more than the {} files and directories that it may have", self.room.files))
        } else if found.too_deep {
            excess("files", format!("directories in directories, more than {DEPTH_MAX} deep"))
        } else if found.closed && self.seen.abs_diff(lost) > self.room.bytes {
            excess("disk", "directories that cannot be counted, while the disk fills".to_owned())
        } else {
            None
        }
    }

    fn free_now(&self) -> Option<DiskSpace> {
        let stat = self.roots.iter().find_map(|root| {
            let directory = openat(rustix::fs::CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
            fstatvfs(directory).ok()
        })?;
        Some(DiskSpace { bytes: stat.f_bfree.saturating_mul(stat.f_frsize), files: stat.f_ffree })
    }
}

/// What one process uses; zero once it has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    /// Bytes of memory that it wrote to, of its shared memory, and of what was swapped out.
    memory: u64,
    threads: u64,
}

impl State {
    fn of(pid: i32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name))?;
            line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
        };
        let memory = ["RssAnon:", "RssShmem:", "VmSwap:"].into_iter().filter_map(number).sum::<u64>() * 1024;
        Self { memory, threads: number("Threads:").unwrap_or(0) }
    }
}

/// Bytes of open files without a name, on the disk and in memory. Each file is counted once.
fn nameless_files(processes: &[i32]) -> (u64, u64) {
    let (mut on_disk, mut in_memory, mut seen) = (0, 0, HashSet::new());
    for pid in processes {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(file) = std::fs::metadata(&path) else { continue };
            if !file.is_file() || file.nlink() > 0 || !seen.insert((file.dev(), file.ino())) {
                continue;
            }
            let memory = std::fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"));
            *(if memory { &mut in_memory } else { &mut on_disk }) += file.blocks() * 512;
        }
    }
    (on_disk, in_memory)
}

/// The result of a walk.
#[derive(Default, Serialize, Deserialize)]
struct Count {
    bytes: u64,
    files: u64,
    too_deep: bool,
    /// Whether there are directories that we may not read.
    closed: bool,
    /// The walk stops once this is exceeded.
    #[serde(skip)]
    room: Option<DiskSpace>,
    /// Files with several names, which are counted once.
    #[serde(skip)]
    linked: HashSet<(u64, u64)>,
}

impl Count {
    fn is_enough(&self) -> bool {
        self.too_deep || self.room.is_some_and(|room| self.bytes > room.bytes || self.files > room.files)
    }

    /// Counts what is below a directory. Links are counted and never followed.
    fn below(&mut self, directory: OwnedFd, depth: usize) {
        self.too_deep |= depth > DEPTH_MAX;
        if self.is_enough() {
            return;
        }
        let Ok(entries) = Dir::read_from(&directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || (depth == 0 && name.to_bytes() == HARVESTER.as_bytes()) {
                continue;
            }
            self.files += 1;
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let several = stat.st_nlink > 1 && kind != FileType::Directory;
            if !several || self.linked.insert((stat.st_dev, stat.st_ino)) {
                self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
            if kind == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(&directory, name, flags, Mode::empty()) {
                    Ok(inner) => self.below(inner, depth + 1),
                    Err(error) => self.closed |= error == rustix::io::Errno::ACCESS,
                }
            }
            if self.is_enough() {
                return;
            }
        }
    }
}

/// Writes which limits were hit, in place of the earlier file.
pub fn write_hits(run_dir: &File, met: &LimitsHit) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = openat(run_dir, LIMITS_HIT, flags, Mode::from_raw_mode(0o600))?;
    File::from(fd).write_all(&serde_json::to_vec(met)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(root: &std::path::Path) -> Count {
        let mut count = Count::default();
        count.below(openat(rustix::fs::CWD, root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap(), 0);
        count
    }

    #[test]
    fn files_with_several_names_count_once_links_are_not_followed_and_our_own_home_is_left_out() {
        let place = tempfile::tempdir().unwrap();
        let (at, elsewhere) = (place.path(), tempfile::tempdir().unwrap());
        let big = vec![7; 1 << 20];
        std::fs::write(at.join("big"), &big).unwrap();
        std::fs::hard_link(at.join("big"), at.join("again")).unwrap();
        std::fs::write(elsewhere.path().join("other"), &big).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), at.join("link")).unwrap();
        std::fs::create_dir(at.join(HARVESTER)).unwrap();
        std::fs::write(at.join(HARVESTER).join("pack"), &big).unwrap();
        let count = counted(at);
        assert_eq!(count.files, 3);
        assert!((1 << 20..3 << 19).contains(&count.bytes), "{}", count.bytes);
    }

    #[test]
    fn a_file_that_was_deleted_and_is_open_still_counts() {
        let place = tempfile::tempdir().unwrap();
        let mut file = File::create(place.path().join("gone")).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let before = nameless_files(&[own]).0;
        std::fs::remove_file(place.path().join("gone")).unwrap();
        file.write_all(&vec![7; 3 << 20]).unwrap();
        file.sync_all().unwrap();
        assert!(nameless_files(&[own, own]).0 >= before + (3 << 20));
    }

    #[test]
    fn what_is_deeper_than_anybody_needs_is_not_walked_to_its_end() {
        let place = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", DEPTH_MAX + 5).collect();
        std::fs::create_dir_all(place.path().join(deep)).unwrap();
        assert!(counted(place.path()).too_deep);
    }
}
