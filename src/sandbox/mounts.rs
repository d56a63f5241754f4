//! The cell's file system: trees picked from the host, put together under a
//! new root, and the old root dropped.

use super::sight::mounts;
use super::steps::{StepError, c_path};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, move_mount,
    open_tree, unmount,
};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn set_attributes(fd: libc::c_int, path: &Path, recursive: bool, set: u64) -> Result<(), StepError> {
    let attr = MountAttr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let path = c_path(path)?;
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: path and struct live through the call; the size is the struct's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            path.as_ptr(),
            flags,
            &raw const attr,
            std::mem::size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(StepError::last("setting the flags of a mount")) } else { Ok(()) }
}

/// A tree of the host, picked and not yet put anywhere.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
    is_dir: bool,
}

/// Nothing that is mounted from here on is seen outside, nor the other way.
pub fn private() -> Result<(), StepError> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(StepError::of("making the mounts the cell's own"))
}

/// Picks the tree at `path`, with what is mounted below it.
pub fn pick(path: &Path) -> Result<Tree, StepError> {
    let fd = open_tree(
        rustix::fs::CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
    )
    .map_err(StepError::of(format!("taking {} into the cell", path.display())))?;
    Ok(Tree { fd, is_dir: path.is_dir() })
}

/// Puts a picked tree at `target`, making the place for it. Nothing in it is
/// setuid; `devices` and `writable` say what else it may have.
pub fn attach(tree: &Tree, target: &Path, writable: bool, devices: bool) -> Result<(), StepError> {
    let step = || format!("putting {} into the cell", target.display());
    let io_error = |source: io::Error| StepError { step: step(), source };
    if tree.is_dir {
        std::fs::create_dir_all(target).map_err(io_error)?;
    } else {
        let made = std::fs::File::create(target).or_else(|error| match target.parent() {
            Some(parent) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(parent)?;
                std::fs::File::create(target)
            }
            _ => Err(error),
        });
        made.map_err(io_error)?;
    }
    let mut set = ATTR_NOSUID;
    if !writable {
        set |= ATTR_RDONLY;
    }
    if !devices {
        set |= ATTR_NODEV;
    }
    set_attributes(tree.fd.as_raw_fd(), Path::new(""), true, set)?;
    move_mount(tree.fd.as_fd(), "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(StepError::of(step()))
}

/// Makes the mount at `path` (alone, or with all below) read-only.
pub fn read_only(path: &Path, recursive: bool) -> Result<(), StepError> {
    set_attributes(libc::AT_FDCWD, path, recursive, ATTR_RDONLY | ATTR_NOSUID)
}

/// A small file system of the cell's own.
pub fn mount_tmpfs(target: &Path, mode: &str, bytes: u64) -> Result<(), StepError> {
    mount_tmpfs_for(target, mode, bytes, (bytes / 4096).clamp(256, 200_000))
}

/// The same for that many files and directories.
pub fn mount_tmpfs_for(target: &Path, mode: &str, bytes: u64, files: u64) -> Result<(), StepError> {
    let options = format!("mode={mode},size={bytes},nr_inodes={files}");
    let options = std::ffi::CString::new(options).unwrap_or_default();
    mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
        .map_err(StepError::of(format!("making {}", target.display())))
}

/// The process view of this PID namespace.
pub fn mount_proc(target: &Path) -> Result<(), StepError> {
    mount("proc", target, "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(StepError::of("mounting the cell's own /proc"))
}

/// What of `/proc` tells of the machine and is covered.
pub(super) const HIDDEN_FILES: [&str; 11] = [
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "kallsyms",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
    "latency_stats",
    "interrupts",
    "cmdline",
];
pub(super) const HIDDEN_DIRECTORIES: [&str; 5] = ["acpi", "scsi", "bus", "irq", "asound"];
/// File systems in memory that each agent has of its own, and their sizes in bytes.
pub const IN_MEMORY: [(&str, u64); 2] = [("/tmp", 256 << 20), ("/dev/shm", 64 << 20)];

/// Hides what `/proc` tells of the machine, for an agent.
pub fn hide_proc() -> Result<(), StepError> {
    for file in HIDDEN_FILES {
        let path = Path::new("/proc").join(file);
        if path.exists() {
            attach_over(Path::new("/dev/null"), &path)?;
        }
    }
    for directory in HIDDEN_DIRECTORIES {
        let path = Path::new("/proc").join(directory);
        if path.is_dir() {
            hide(&path)?;
        }
    }
    let sys = Path::new("/proc/sys");
    attach_over(sys, sys)
}

/// Covers a directory with an empty one that cannot be written. What was there
/// cannot be reached any more: nobody in the cell can take a mount away. (To
/// take it away ourselves would make us wait for every processor.)
pub fn hide(directory: &Path) -> Result<(), StepError> {
    attach_over(Path::new(EMPTY), directory)
}

fn attach_over(source: &Path, target: &Path) -> Result<(), StepError> {
    let tree = pick(source)?;
    set_attributes(tree.fd.as_raw_fd(), Path::new(""), false, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)?;
    move_mount(tree.fd.as_fd(), "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(StepError::of(format!("covering {}", target.display())))
}

/// Covers what lies at `path` below `root`, as it would be found if `root` were the root: a directory with an
/// empty one, anything else with a device that cannot be opened. What is not there needs no cover, and what
/// this process cannot reach nobody in the cell can, who has no more rights.
fn cover(root: &Path, path: &Path) -> Result<(), StepError> {
    let step = || format!("covering {} in the cell", path.display());
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let standing = rustix::fs::open(root, flags, Mode::empty()).map_err(StepError::of(step()))?;
    let below = path.strip_prefix("/").unwrap_or(path);
    let found = openat2(&standing, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    let target = match found {
        Ok(target) => target,
        Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(StepError::of(step())(error)),
    };
    let stat = rustix::fs::fstat(&target).map_err(StepError::of(step()))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let tree = pick(&root.join(if directory { &EMPTY[1..] } else { "dev/null" }))?;
    set_attributes(tree.fd.as_raw_fd(), Path::new(""), false, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)?;
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree.fd.as_fd(), "", target.as_fd(), "", how).map_err(StepError::of(step()))
}

/// An empty directory of the cell, with which others are covered.
const EMPTY: &str = "/run/empty";
/// What a cell sees of the system, read-only, where the host has it. `/etc`
/// is not among them: the cell gets one of its own.
pub(super) const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt"];
/// Files and directories of `/etc` without which programs do not run, none of
/// which holds a secret.
pub(super) const ETC: [&str; 14] = [
    "alternatives",
    "ca-certificates",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "pki/ca-trust",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "timezone",
    "mime.types",
    "protocols",
    "services",
];
/// Files of `/etc` that are the cell's own where it has a root of its own, and the host's where it has not.
const ETC_OF_THE_HOST: [&str; 5] = ["passwd", "group", "nsswitch.conf", "hosts", "resolv.conf"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

fn in_etc(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| Path::new("/etc").join(name)).collect()
}

/// What every cell sees of the host, at whatever level: what is added here is also compared with the places
/// of ours ([`Sight`](super::Sight)).
pub fn shown_to_every_cell() -> Vec<PathBuf> {
    SYSTEM.iter().map(PathBuf::from).chain(in_etc(&ETC)).chain(in_etc(&ETC_OF_THE_HOST)).collect()
}

/// The devices that every cell may open.
pub fn devices() -> Vec<PathBuf> {
    DEVICES.iter().map(|name| Path::new("/dev").join(name)).collect()
}

/// Files of `/etc` that are the cell's own; its agents are user `uid` in it.
pub(super) fn account_files(uid: u32, gid: u32) -> [(&'static str, String); 5] {
    [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{uid}:{gid}:agent:/cell/home:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
            ),
        ),
        ("group", format!("root:x:0:\nagent:x:{gid}:\nnogroup:x:65534:\n")),
        ("hosts", "127.0.0.1 localhost cell\n::1 localhost\n".to_owned()),
        ("hostname", "cell\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ]
}

enum Piece {
    Tree(Tree, PathBuf, bool),
    Link(PathBuf, PathBuf),
}

/// Picks a path of the system, or remembers the link that it is, where it is there.
fn pick_or_link(path: &Path) -> Result<Option<Piece>, StepError> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => {
            Ok(std::fs::read_link(path).ok().map(|target| Piece::Link(path.to_owned(), target)))
        }
        Ok(_) => Ok(Some(Piece::Tree(pick(path)?, path.to_owned(), false))),
        Err(_) => Ok(None),
    }
}

/// What every cell sees of the system, picked and not yet put anywhere: that can
/// be done before it is known for which cell.
pub struct System {
    pieces: Vec<Piece>,
    devices: Vec<(Tree, PathBuf)>,
}

/// Picks it.
pub fn pick_system() -> Result<System, StepError> {
    let mut pieces = vec![];
    for path in SYSTEM {
        pieces.extend(pick_or_link(Path::new(path))?);
    }
    for name in ETC {
        let path = Path::new("/etc").join(name);
        // A link is followed: what counts is that programs find the file.
        if path.exists() {
            pieces.push(Piece::Tree(pick(&path.canonicalize().unwrap_or(path.clone()))?, path, false));
        }
    }
    let devices: Vec<(Tree, PathBuf)> = devices()
        .into_iter()
        .filter(|path| path.exists())
        .map(|path| Ok((pick(&path)?, path)))
        .collect::<Result<_, StepError>>()?;
    Ok(System { pieces, devices })
}

/// What every cell sees of the system, as it is now. Where it is another one later, what was
/// [picked](pick_system) before is out of date: a file was replaced, a file system mounted, a link changed.
#[derive(Debug, PartialEq, Eq)]
pub struct SystemMark {
    paths: Vec<Option<PathMark>>,
    mounts: Vec<(u64, PathBuf)>,
}

/// One path: what it is, and on which mount.
#[derive(Debug, PartialEq, Eq)]
struct PathMark {
    link: Option<PathBuf>,
    file: Option<(u32, u32, u64, u64)>,
}

impl PathMark {
    /// What it leads to; nothing where there is nothing.
    fn of(path: &Path, link: Option<PathBuf>) -> Option<Self> {
        let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).ok();
        // Inode numbers are not given again while a tree that was picked holds them.
        let file = found.map(|f| (f.stx_dev_major, f.stx_dev_minor, f.stx_ino, f.stx_mnt_id));
        (link.is_some() || file.is_some()).then_some(Self { link, file })
    }
}

impl SystemMark {
    /// Looks.
    pub fn take() -> Self {
        let system = SYSTEM.iter().map(|path| PathMark::of(Path::new(path), std::fs::read_link(path).ok()));
        // Of these, cells get what they lead to.
        let files = in_etc(&ETC).into_iter().chain(devices()).map(|path| PathMark::of(&path, None));
        let paths = system.chain(files).collect();
        let below = |at: &Path| SYSTEM.iter().any(|tree| at.starts_with(tree)) || at.starts_with("/etc");
        let mounts =
            mounts().iter().filter(|mount| below(&mount.at)).map(|mount| (mount.id, mount.at.clone())).collect();
        Self { paths, mounts }
    }
}

/// Builds the cell's root and returns where it stands. `before_build` runs
/// between picking (as the launcher's user, who can walk the host's paths) and
/// building (as the keeper, whose files these are).
///
/// `binds` are picked from the host: source, place in the cell, writable.
/// `read_paths` are shown read-only at the same place. `hidden` are places in the cell
/// that are covered, whatever lies there.
pub fn build_root(
    system: System,
    binds: &[(PathBuf, PathBuf, bool)],
    read_paths: &[PathBuf],
    hidden: &[PathBuf],
    before_build: impl FnOnce() -> Result<(), StepError>,
) -> Result<PathBuf, StepError> {
    let System { mut pieces, devices } = system;
    for path in read_paths {
        pieces.extend(pick_or_link(path)?);
    }
    for (source, place, writable) in binds {
        pieces.push(Piece::Tree(pick(source)?, place.clone(), *writable));
    }
    before_build()?;

    // Any directory will do to stand on; what was under it was picked already.
    let root = PathBuf::from("/tmp");
    mount_tmpfs(&root, "755", 4 << 20)?;
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let make = |path: &str| {
        std::fs::create_dir_all(inside(Path::new(path)))
            .map_err(|source| StepError { step: format!("making {path} in the cell"), source })
    };
    for directory in ["/tmp", EMPTY, "/var", "/proc", "/dev/shm", "/dev/pts", "/etc", "/cell/home"] {
        make(directory)?;
    }
    let link = |target: &Path, place: &Path| {
        std::os::unix::fs::symlink(target, inside(place))
            .map_err(|source| StepError { step: format!("linking {} in the cell", place.display()), source })
    };
    for piece in &pieces {
        match piece {
            Piece::Tree(tree, place, writable) => attach(tree, &inside(place), *writable, false)?,
            Piece::Link(place, target) => link(target, place)?,
        }
    }
    for (tree, place) in &devices {
        // Read-only: the node cannot be changed, what is behind it can be written.
        attach(tree, &inside(place), false, true)?;
    }
    for path in hidden {
        cover(&root, path)?;
    }
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
        ("/var/tmp", "/tmp"),
        ("/var/run", "/run"),
    ] {
        link(Path::new(target), Path::new(name))?;
    }
    let options = c"newinstance,ptmxmode=0666,mode=620";
    mount("devpts", inside(Path::new("/dev/pts")), "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, Some(options))
        .map_err(StepError::of("making the cell's own terminals"))?;
    for (file, text) in account_files(1000, 1000) {
        std::fs::write(inside(Path::new("/etc")).join(file), text)
            .map_err(|source| StepError { step: format!("writing /etc/{file} of the cell"), source })?;
    }
    mount_proc(&inside(Path::new("/proc")))?;
    Ok(root)
}

/// Makes `root` the root and drops the old one with all that hung from it.
pub fn pivot(root: &Path) -> Result<(), StepError> {
    let change = |path: &Path| {
        std::env::set_current_dir(path)
            .map_err(|source| StepError { step: format!("entering {}", path.display()), source })
    };
    change(root)?;
    rustix::process::pivot_root(".", ".").map_err(StepError::of("taking the cell's root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(StepError::of("dropping the host's root"))?;
    change(Path::new("/"))
}
