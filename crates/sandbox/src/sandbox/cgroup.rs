//! Limits on all processes of a cell together, by the kernel's control groups: version 2 in a subtree that was
//! delegated to us, version 2 through systemd, version 1, or none. We find out which by looking and trying. What a
//! group enforces for a cell is found by reading back what was written.

use super::StepError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The daemon's own group, in a tree where it may create others beside it: version 2 does not allow a group to have
/// both processes *and* child groups with limits. With the unit that ships with Lazarus, systemd creates it
/// (`DelegateSubgroup=daemon`).
const OWN_GROUP: &str = "daemon";
/// The period over which processor time is limited, in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;
/// How long systemd may take to create a scope.
const SCOPE_MAX: Duration = Duration::from_secs(5);
/// This directory exists if systemd started the system.
const SYSTEMD: &str = "/run/systemd/system";
/// Processor time that a cell must have lost to throttling before it is reported.
const HELD_BACK_MIN: Duration = Duration::from_secs(1);

/// How control groups can be had on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum Groups {
    /// Version 2, in a directory that is ours.
    V2 {
        /// The directory.
        base: PathBuf,
        /// Whether it can limit processor time.
        cpu: bool,
    },
    /// Version 2: systemd creates a scope for each cell.
    Systemd {
        /// Whether it is the user's own systemd.
        user: bool,
        /// Whether it can limit processor time.
        cpu: bool,
    },
    /// Version 1: one directory that is ours for each kind of limit.
    V1 {
        /// The directory of each available controller: `memory`, `pids`, `cpu`.
        bases: BTreeMap<String, PathBuf>,
    },
    /// No control groups.
    None {
        /// Why not, and what to do about it.
        why: String,
    },
}

impl Default for Groups {
    fn default() -> Self {
        Self::None { why: "they were not looked for".to_owned() }
    }
}

/// What all processes of a cell together may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Most memory, in bytes.
    pub memory: u64,
    /// Most processes and threads.
    pub processes: u64,
    /// Most processor time, in thousandths of a processor.
    pub cpu: u64,
}

/// The control group of one cell, and the limits that it enforces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// How it was created, in words; empty if there is none.
    pub way: String,
    /// Why it could not be created, although control groups are available.
    pub refused: Option<String>,
    /// Its directories: one, or with version 1 one for each controller.
    pub directories: Vec<PathBuf>,
    /// Whether it limits memory.
    pub memory: bool,
    /// Whether it limits the number of processes.
    pub processes: bool,
    /// Whether it limits processor time.
    pub cpu: bool,
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// A mounted cgroup hierarchy: its mount point, the directory of it that is mounted, and its options.
struct Hierarchy {
    at: PathBuf,
    root: PathBuf,
    version_2: bool,
    options: String,
}

fn hierarchies() -> Vec<Hierarchy> {
    let text = read("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, at) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let version_2 = match right.next()? {
                "cgroup2" => true,
                "cgroup" => false,
                _ => return None,
            };
            let options = right.nth(1).unwrap_or_default().to_owned();
            Some(Hierarchy { at: at.into(), root: root.into(), version_2, options })
        })
        .collect()
}

impl Hierarchy {
    /// The directory of this process's own group in it.
    fn own(&self, groups: &str) -> Option<PathBuf> {
        let path = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let ours = if self.version_2 {
                controllers.is_empty()
            } else {
                !controllers.is_empty() && controllers.split(',').all(|c| self.options.split(',').any(|o| o == c))
            };
            ours.then_some(path)
        })?;
        let below = Path::new(path).strip_prefix(&self.root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
        Some(self.at.join(below))
    }
}

fn words_in(path: &Path) -> Vec<String> {
    read(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// This process's own group of version 2, if it, or the group above the daemon's, has controllers to delegate.
fn own_v2() -> Option<PathBuf> {
    let groups = read("/proc/self/cgroup")?;
    let own = hierarchies().into_iter().find(|h| h.version_2)?.own(&groups)?;
    // The daemon's own group has no controllers until the group above enables them.
    let above = own.parent().filter(|_| own.file_name().is_some_and(|n| n == OWN_GROUP));
    let controllers = words_in(&above.unwrap_or(&own).join("cgroup.controllers"));
    controllers.iter().any(|c| c == "memory" || c == "pids").then_some(own)
}

/// Makes room for cells beside this process, if its group was delegated to it alone. The daemon calls this once,
/// before it starts anything.
pub fn settle() {
    let Some(own) = own_v2() else { return };
    let base = if own.file_name().is_some_and(|n| n == OWN_GROUP) {
        own.parent().map(Path::to_owned)
    } else if !Path::new(SYSTEMD).is_dir()
        && writable(&own)
        && words_in(&own.join("cgroup.procs")) == [std::process::id().to_string()]
    {
        // Not done under a systemd that does not know `DelegateSubgroup` (before 254): it could not restart the
        // daemon beside running cells.
        let daemon = own.join(OWN_GROUP);
        let moved = std::fs::create_dir(&daemon)
            .or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
            .and_then(|()| std::fs::write(daemon.join("cgroup.procs"), std::process::id().to_string()));
        moved.is_ok().then_some(own)
    } else {
        None
    };
    if let Some(base) = base {
        for controller in ["+memory", "+pids", "+cpu"] {
            // Enabling a controller that does not exist fails, and is ignored.
            let _ = std::fs::write(base.join("cgroup.subtree_control"), controller);
        }
    }
}

impl Groups {
    /// Looks for control groups without changing anything.
    pub fn detect() -> Self {
        if let Some(own) = own_v2() {
            let base = own.parent().filter(|_| own.file_name().is_some_and(|n| n == OWN_GROUP));
            if let Some(base) = base
                && writable(base)
                && words_in(&base.join("cgroup.subtree_control")).iter().any(|c| c == "memory" || c == "pids")
            {
                let cpu = words_in(&base.join("cgroup.subtree_control")).iter().any(|c| c == "cpu");
                return Self::V2 { base: base.to_owned(), cpu };
            }
            let root = rustix::process::geteuid().is_root();
            if Path::new(SYSTEMD).is_dir() && busctl().is_some() && (root || bus_of_user().is_some()) {
                // Root can limit what the kernel can; a user can limit what was delegated to the user's systemd.
                let cpu = root || words_in(&of_users_systemd().join("cgroup.controllers")).iter().any(|c| c == "cpu");
                return Self::Systemd { user: !root, cpu };
            }
            return Self::None {
                why: "this process's control group was not delegated to it; run Lazarus as the service that comes \
                      with it (systemd 254 or newer; with an older one as root), or as a user who lingers \
                      (`loginctl enable-linger`)"
                    .to_owned(),
            };
        }
        let (groups, hierarchies) = (read("/proc/self/cgroup").unwrap_or_default(), hierarchies());
        let bases: BTreeMap<String, PathBuf> = ["memory", "pids", "cpu"]
            .into_iter()
            .filter_map(|kind| {
                let found = hierarchies.iter().find(|h| !h.version_2 && h.options.split(',').any(|o| o == kind))?;
                let own = found.own(&groups).filter(|own| writable(own))?;
                Some((kind.to_owned(), own))
            })
            .collect();
        if !bases.is_empty() {
            return Self::V1 { bases };
        }
        let why = if hierarchies.is_empty() {
            "there are no control groups here: mount them at /sys/fs/cgroup"
        } else {
            "the control groups here are not ours to write: run Lazarus as root, or as a service with `Delegate=yes`"
        };
        Self::None { why: why.to_owned() }
    }

    /// Whether these groups can limit processor time.
    pub fn limit_cpu(&self) -> bool {
        match self {
            Self::V2 { cpu, .. } | Self::Systemd { cpu, .. } => *cpu,
            Self::V1 { bases } => bases.contains_key("cpu"),
            Self::None { .. } => false,
        }
    }

    /// Describes them, in words for people.
    pub fn words(&self) -> String {
        match self {
            Self::V2 { base, .. } => format!("control groups (version 2, delegated: {})", base.display()),
            Self::Systemd { user: true, .. } => "control groups (version 2, by the user's systemd)".to_owned(),
            Self::Systemd { user: false, .. } => "control groups (version 2, by systemd)".to_owned(),
            Self::V1 { bases } => {
                let kinds: Vec<&str> = bases.keys().map(String::as_str).collect();
                format!("control groups (version 1: {})", kinds.join(", "))
            }
            Self::None { why } => format!("none: {why}"),
        }
    }

    /// Puts a process, and everything that it will start, into a group of its own, if creating a directory is all
    /// that takes. Entering a group can take milliseconds, so this is done before the cell is known;
    /// [`Group::limit`] follows later.
    ///
    /// # Errors
    /// If the process cannot be put into the group. The group is removed again then.
    pub fn enter(&self, name: &str, pid: i32) -> Result<Group, StepError> {
        let directories: Vec<PathBuf> = match self {
            Self::V2 { base, .. } => vec![base.join(name)],
            Self::V1 { bases } => bases.values().map(|base| base.join(name)).collect(),
            Self::Systemd { .. } | Self::None { .. } => vec![],
        };
        let group = Group { directories, ..Group::default() };
        for directory in &group.directories {
            if let Err(error) = make(directory).and_then(|()| enter(directory, pid)) {
                group.remove();
                return Err(error);
            }
        }
        Ok(group)
    }

    /// Sets the limits of a group that a process [entered](Self::enter), or has systemd create one. A limit that
    /// cannot be enforced is not an error: the returned group says what it enforces.
    pub fn limit(&self, mut group: Group, cell: &str, pid: i32, budget: ResourceLimits) -> Group {
        match self {
            Self::V2 { .. } => {
                group.way = "control groups (version 2)".to_owned();
                if let Some(directory) = group.directories.first().cloned() {
                    let put = |file: &str, value: &str| std::fs::write(directory.join(file), value).is_ok();
                    group.memory = put("memory.max", &budget.memory.to_string());
                    let _ = put("memory.swap.max", "0");
                    group.processes = put("pids.max", &budget.processes.to_string());
                    group.cpu = put("cpu.max", &format!("{} {PERIOD}", budget.cpu * PERIOD / 1000));
                }
            }
            Self::V1 { bases } => {
                group.way = "control groups (version 1)".to_owned();
                for (kind, directory) in bases.keys().zip(&group.directories) {
                    let put = |file: &str, value: u64| std::fs::write(directory.join(file), value.to_string()).is_ok();
                    match kind.as_str() {
                        "memory" => {
                            group.memory = put("memory.limit_in_bytes", budget.memory);
                            // Also limits swap, if the kernel counts it.
                            let _ = put("memory.memsw.limit_in_bytes", budget.memory);
                        }
                        "pids" => group.processes = put("pids.max", budget.processes),
                        _ => {
                            let _ = put("cpu.cfs_period_us", PERIOD);
                            group.cpu = put("cpu.cfs_quota_us", budget.cpu * PERIOD / 1000);
                        }
                    }
                }
            }
            Self::Systemd { user, .. } => {
                match ask_systemd(*user, cell, pid, budget).and_then(|()| wait_for_scope(cell, pid)) {
                    Ok(directory) => {
                        group.way = "control groups (version 2, by systemd)".to_owned();
                        // We cannot write what systemd did not write: the group belongs to systemd.
                        let says =
                            |file: &str| read(directory.join(file)).is_some_and(|t| !t.trim().starts_with("max"));
                        (group.memory, group.processes) = (says("memory.max"), says("pids.max"));
                        group.cpu = says("cpu.max");
                        group.directories = vec![directory];
                    }
                    // systemd may refuse for reasons of its own. The cell is then no worse off than without
                    // systemd, and its log says so.
                    Err(error) => group.refused = Some(error.to_string()),
                }
            }
            Self::None { .. } => {}
        }
        group
    }
}

fn make(directory: &Path) -> Result<(), StepError> {
    match std::fs::create_dir(directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(StepError { step: format!("making the control group {}", directory.display()), source: e })
        }
        _ => Ok(()),
    }
}

fn enter(directory: &Path, pid: i32) -> Result<(), StepError> {
    std::fs::write(directory.join("cgroup.procs"), pid.to_string()).map_err(|source| StepError {
        step: format!("putting the cell's first process into the control group {}", directory.display()),
        source,
    })
}

fn busctl() -> Option<PathBuf> {
    ["/usr/bin/busctl", "/bin/busctl"].map(PathBuf::from).into_iter().find(|p| p.is_file())
}

/// The control group of this user's systemd.
fn of_users_systemd() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    PathBuf::from(format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service"))
}

/// The directory that contains the bus of this user's systemd.
fn bus_of_user() -> Option<PathBuf> {
    let directory = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    directory.join("bus").exists().then_some(directory)
}

fn scope(cell: &str) -> String {
    format!("lazarus-{cell}.scope")
}

/// Calls `StartTransientUnit` of systemd: creates a scope that contains the process. When the kernel kills one
/// process for lack of memory, the others must survive. A systemd that is too old for that setting does not kill
/// the others either.
fn ask_systemd(user: bool, cell: &str, pid: i32, budget: ResourceLimits) -> Result<(), StepError> {
    let go_on = ["OOMPolicy", "s", "continue"];
    start_scope(user, cell, pid, budget, &[&go_on]).or_else(|_| start_scope(user, cell, pid, budget, &[]))
}

fn start_scope(user: bool, cell: &str, pid: i32, budget: ResourceLimits, more: &[&[&str]]) -> Result<(), StepError> {
    let wrong =
        |why: String| StepError { step: "asking systemd for a scope".to_owned(), source: io::Error::other(why) };
    let program = busctl().ok_or_else(|| wrong("`busctl` is not there any more".to_owned()))?;
    let mut command = Command::new(program);
    if let Some(directory) = bus_of_user().filter(|_| user) {
        command.env("XDG_RUNTIME_DIR", directory);
    }
    let manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
    command.args([if user { "--user" } else { "--system" }, "--quiet", "call"]).args(manager);
    command.args(["StartTransientUnit", "ssa(sv)a(sa(sv))", &scope(cell), "fail"]).arg((7 + more.len()).to_string());
    command.args(["PIDs", "au", "1", &pid.to_string()]);
    for (name, value) in [
        ("MemoryMax", budget.memory),
        ("MemorySwapMax", 0),
        ("TasksMax", budget.processes),
        ("CPUQuotaPerSecUSec", budget.cpu * 1000),
    ] {
        command.args([name, "t", &value.to_string()]);
    }
    command.args(["Description", "s", &format!("Lazarus cell {cell}")]);
    command.args(more.iter().copied().flatten());
    command.args(["CollectMode", "s", "inactive-or-failed"]).arg("0");
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output().map_err(|e| wrong(e.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(wrong(String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect()))
    }
}

/// systemd answers before it has created the scope, so we wait for it.
fn wait_for_scope(cell: &str, pid: i32) -> Result<PathBuf, StepError> {
    let until = Instant::now() + SCOPE_MAX;
    loop {
        let groups = read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let own = hierarchies().into_iter().find(|h| h.version_2).and_then(|h| h.own(&groups));
        if let Some(own) = own.filter(|own| own.file_name().is_some_and(|n| n == scope(cell).as_str())) {
            return Ok(own);
        }
        if Instant::now() > until {
            return Err(StepError {
                step: format!("waiting for {}", scope(cell)),
                source: io::Error::other("systemd took the order and did not carry it out in 5 s"),
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The number behind a word, in a file with lines of the form `word number`.
fn number_of(path: &Path, word: &str) -> Option<u64> {
    read(path)?.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
}

impl Group {
    fn first(&self, files: &[(&str, &str)]) -> u64 {
        let mut found = self
            .directories
            .iter()
            .flat_map(|d| files.iter().filter_map(|(file, word)| number_of(&d.join(file), word)));
        found.next().unwrap_or(0)
    }

    /// How many processes the kernel killed for lack of memory.
    pub fn killed_for_memory(&self) -> u64 {
        self.first(&[("memory.events", "oom_kill "), ("memory.oom_control", "oom_kill ")])
    }

    /// Limits that were hit, and how often, in words.
    pub fn met(&self) -> BTreeMap<String, String> {
        let mut met = BTreeMap::new();
        let killed = self.killed_for_memory();
        if killed > 0 {
            met.insert("memory".to_owned(), format!("the kernel ended {killed} of its processes"));
        }
        let refused = self.first(&[("pids.events", "max ")]);
        if refused > 0 {
            met.insert("processes".to_owned(), format!("{refused} more were refused"));
        }
        let held = Duration::from_micros(self.first(&[("cpu.stat", "throttled_usec ")]))
            + Duration::from_nanos(self.first(&[("cpu.stat", "throttled_time ")]));
        if held > HELD_BACK_MIN {
            met.insert("cpu".to_owned(), format!("its processes were held back for {} s in all", held.as_secs()));
        }
        met
    }

    /// Ends all processes that are left in the group, and waits for them.
    ///
    /// # Errors
    /// If a process is left after two seconds.
    pub fn end_all(&self) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(2);
        loop {
            let mut left = false;
            for directory in &self.directories {
                let pids = words_in(&directory.join("cgroup.procs"));
                left |= !pids.is_empty();
                if !pids.is_empty() && std::fs::write(directory.join("cgroup.kill"), "1").is_err() {
                    for pid in pids.iter().filter_map(|p| rustix::process::Pid::from_raw(p.parse().ok()?)) {
                        // Version 1: a pid in this list may have been reused by now, so it is checked again through
                        // a pidfd.
                        let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
                            continue;
                        };
                        let name = pid.as_raw_nonzero().to_string();
                        if words_in(&directory.join("cgroup.procs")).contains(&name) {
                            let _ = rustix::process::pidfd_send_signal(&fd, rustix::process::Signal::KILL);
                        }
                    }
                }
            }
            if !left {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::Error::other("processes are left in the cell's control group"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Removes an empty group. systemd removes its own.
    pub fn remove(&self) {
        for directory in &self.directories {
            for _ in 0..50 {
                match std::fs::remove_dir(directory) {
                    // The last process may still be exiting.
                    Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(Duration::from_millis(2)),
                    _ => break,
                }
            }
        }
    }
}
