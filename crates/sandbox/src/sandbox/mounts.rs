//! The cell's file system: picks trees from the host, assembles them under a new root, and drops the old root.

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
    // SAFETY: path and struct live through the call, and the size is the struct's.
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

/// A tree of the host that was picked and is not attached anywhere yet.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
    is_dir: bool,
}

/// Makes all mounts private: mounts made from here on are not seen outside, and mounts made outside are not seen
/// here.
pub fn private() -> Result<(), StepError> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(StepError::of("making the mounts the cell's own"))
}

/// Picks the tree at `path`, including whatever is mounted below it.
pub fn pick(path: &Path) -> Result<Tree, StepError> {
    let fd = open_tree(
        rustix::fs::CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
    )
    .map_err(StepError::of(format!("taking {} into the cell", path.display())))?;
    Ok(Tree { fd, is_dir: path.is_dir() })
}

/// Attaches a picked tree at `target`, creating the mount point. Setuid is always off; `devices` and `writable` say
/// what else is allowed.
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

/// Makes the mount at `path` read-only; with `recursive` also all mounts below it.
pub fn read_only(path: &Path, recursive: bool) -> Result<(), StepError> {
    set_attributes(libc::AT_FDCWD, path, recursive, ATTR_RDONLY | ATTR_NOSUID)
}

/// Mounts a tmpfs of the cell's own, of at most that many bytes.
pub fn mount_tmpfs(target: &Path, mode: &str, bytes: u64) -> Result<(), StepError> {
    mount_tmpfs_for(target, mode, bytes, (bytes / 4096).clamp(256, 200_000))
}

/// The same, with a limit on files and directories as well.
pub fn mount_tmpfs_for(target: &Path, mode: &str, bytes: u64, files: u64) -> Result<(), StepError> {
    let options = format!("mode={mode},size={bytes},nr_inodes={files}");
    let options = std::ffi::CString::new(options).unwrap_or_default();
    mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
        .map_err(StepError::of(format!("making {}", target.display())))
}

/// Mounts the `/proc` of this PID namespace.
pub fn mount_proc(target: &Path) -> Result<(), StepError> {
    mount("proc", target, "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(StepError::of("mounting the cell's own /proc"))
}

/// Files of `/proc` that reveal details of the machine, and are covered.
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
/// Covers what `/proc` reveals about the machine, for an agent.
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

/// Covers a directory with an empty read-only one. The original cannot be reached any more, because nobody in the
/// cell can unmount. (Unmounting the original instead would have to wait for every processor.)
pub fn hide(directory: &Path) -> Result<(), StepError> {
    attach_over(Path::new(EMPTY), directory)
}

fn attach_over(source: &Path, target: &Path) -> Result<(), StepError> {
    let tree = pick(source)?;
    set_attributes(tree.fd.as_raw_fd(), Path::new(""), false, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)?;
    move_mount(tree.fd.as_fd(), "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(StepError::of(format!("covering {}", target.display())))
}

/// Covers what lies at `path` below `root`, resolved as if `root` were the root: a directory is covered by an empty
/// one, anything else by a device that cannot be opened. What does not exist needs no cover. Neither does what this
/// process cannot reach, because nobody in the cell has more rights.
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

/// An empty directory of the cell that is mounted over others.
const EMPTY: &str = "/.empty";
/// Where the account files of each agent are kept: each agent sees its own at `/etc/passwd`.
const ACCOUNTS: &str = "/.accounts";
/// Parts of the system that a cell sees read-only, if the host has them. `/etc` is not one of them: the cell gets
/// one of its own. Confined programs on the host's side see these too.
pub(super) const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt"];
/// Where other package managers keep programs, also read-only. Of Nix and Guix only the store and the profiles:
/// beside them lie the sockets of their daemons, which serve whoever can connect.
pub(super) const STORES: [&str; 6] =
    ["/nix/store", "/nix/var/nix/profiles", "/gnu/store", "/var/guix/profiles", "/home/linuxbrew/.linuxbrew", "/snap"];
/// Files and directories of `/etc` that programs need, none of which holds a secret. A `*` matches any part of one
/// name.
const ETC: [&str; 63] = [
    "ImageMagick-*",
    "alpine-release",
    "alternatives",
    "arch-release",
    "bash_completion.d",
    "ca-certificates",
    "ca-certificates.conf",
    "chromium.d",
    "crypto-policies",
    "debian_version",
    "fedora-release",
    "fonts",
    "gai.conf",
    "ghostscript",
    "gss/mech.d",
    "gtk-2.0",
    "gtk-3.0",
    "gtk-4.0",
    "host.conf",
    "inputrc",
    "java",
    "java-*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "lsb-release",
    "magic",
    "magic.mime",
    "mailcap",
    "mime.types",
    "networks",
    "openal",
    "os-release",
    "papersize",
    "perl",
    "php/*/cli/conf.d",
    "php/*/mods-available",
    "pki/ca-trust",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "protocols",
    "python*",
    "redhat-release",
    "rpc",
    "services",
    "shells",
    "ssl/ca-bundle.pem",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ssl1.1/cert.pem",
    "ssl1.1/certs",
    "ssl1.1/openssl.cnf",
    "system-release",
    "terminfo",
    "timezone",
    "vulkan/icd.d",
    "xml",
];
/// Those of them that are settings and may contain a password or a token, for a registry say. Each such file is
/// read, and is shown only if it contains nothing of the kind. It is never shown in part, because half of a
/// settings file means something else.
const CHECKED: [&str; 5] = ["R", "ant", "maven", "npmrc", "pip.conf"];
/// Longest settings file that is checked, in bytes. A longer one is not shown.
const CHECKED_MAX: u64 = 64 << 10;

/// The paths of [`ETC`], with stars expanded. Some of them may not exist.
pub(super) fn etc() -> Vec<PathBuf> {
    let mut found = vec![];
    for pattern in ETC {
        let mut paths = vec![PathBuf::from("/etc")];
        for part in pattern.split('/') {
            paths = paths.iter().flat_map(|path| matching(path, part)).collect();
        }
        found.extend(paths);
    }
    for path in CHECKED.map(|name| Path::new("/etc").join(name)) {
        if !path.is_dir() {
            found.extend(Some(path).filter(|path| holds_no_secret(path)));
            continue;
        }
        let (good, bad): (Vec<_>, Vec<_>) =
            matching(&path, "*").into_iter().partition(|entry| entry.is_dir() || holds_no_secret(entry));
        found.extend(if bad.is_empty() { vec![path] } else { good });
    }
    found
}

/// Entries of a directory whose names match, sorted. A name without a star is returned as it is.
fn matching(directory: &Path, part: &str) -> Vec<PathBuf> {
    let Some((before, after)) = part.split_once('*') else { return vec![directory.join(part)] };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.len() >= part.len() - 1 && name.starts_with(before) && name.ends_with(after)
        })
        .map(|entry| entry.path())
        .collect();
    names.sort();
    names
}

/// Whether a settings file can be read completely and nothing in it looks like a password, a token or a key.
fn holds_no_secret(path: &Path) -> bool {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(CHECKED_MAX + 1).read_to_string(&mut text));
    read.is_ok_and(|bytes| bytes as u64 <= CHECKED_MAX) && !names_a_credential(&without_xml_comments(&text))
}

/// Removes comments, because they often give examples.
fn without_xml_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!--") {
        kept.push_str(before);
        rest = after.split_once("-->").map_or("", |(_, after)| after);
    }
    kept + rest
}

/// Whether the text names a credential, or has a URL with an account in it.
fn names_a_credential(text: &str) -> bool {
    const WORDS: [&str; 11] = [
        "_auth",
        "token",
        "password",
        "passwd",
        "passphrase",
        "privatekey",
        "secret",
        "credential",
        "api_key",
        "apikey",
        "_pat",
    ];
    text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])).any(|line| {
        let line = line.to_ascii_lowercase();
        // `https://user:password@host/`, also if the account is a variable.
        let account = line.split("://").skip(1).any(|rest| {
            let authority = rest.split(['/', ' ', '"', '\'', '?', '#']).next().unwrap_or_default();
            authority.contains('@')
        });
        account || WORDS.iter().any(|word| line.contains(word)) || line.contains("-----begin")
    })
}
/// Files of `/etc` that are the cell's own if it has a root of its own, and otherwise the host's.
const ETC_OF_THE_HOST: [&str; 5] = ["passwd", "group", "nsswitch.conf", "hosts", "resolv.conf"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Trees that every cell sees completely, whether they exist or not.
pub(super) fn trees() -> impl Iterator<Item = &'static Path> {
    SYSTEM.iter().chain(&STORES).map(Path::new)
}

/// Everything of the host that every cell sees, at any level. Whatever is added here is also compared with the
/// daemon's own paths ([`Sight`](super::Sight)).
pub fn shown_to_every_cell() -> Vec<PathBuf> {
    let of_the_host = ETC_OF_THE_HOST.iter().map(|name| Path::new("/etc").join(name));
    trees().map(Path::to_owned).chain(etc()).chain(of_the_host).collect()
}

/// The devices that every cell may open.
pub fn devices() -> Vec<PathBuf> {
    DEVICES.iter().map(|name| Path::new("/dev").join(name)).collect()
}

/// The files of `/etc` that are the cell's own. Its agents have user id `uid` and their home at `home`.
pub(super) fn account_files(cell: &str, home: &Path, uid: u32, gid: u32) -> [(&'static str, String); 6] {
    [
        ("passwd", passwd(home, uid, gid)),
        ("group", format!("root:x:0:\nagent:x:{gid}:\nnogroup:x:65534:\n")),
        ("hosts", "127.0.0.1 localhost cell\n::1 localhost\n".to_owned()),
        ("hostname", "cell\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
        ("machine-id", machine_id(cell)),
    ]
}

fn passwd(home: &Path, uid: u32, gid: u32) -> String {
    let home = home.display();
    format!(
        "root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{uid}:{gid}:agent:{home}:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    )
}

/// An invented machine id: always the same for one cell, different for each cell, and unrelated to the host's,
/// which machine-id(5) calls confidential.
fn machine_id(cell: &str) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(format!("lazarus machine-id of {cell}").as_bytes());
    format!("{}\n", hex::encode(&hash[..16]))
}

/// Enters the agent's home in its own view of `/etc/passwd`, for programs that look it up by user.
pub fn name_home(home: &Path) -> Result<(), StepError> {
    let name = home.file_name().unwrap_or_default();
    let own = Path::new(ACCOUNTS).join(name);
    let made = std::fs::create_dir_all(ACCOUNTS).and_then(|()| std::fs::write(&own, passwd(home, 1000, 1000)));
    made.map_err(|source| StepError { step: format!("writing {}", own.display()), source })?;
    attach_over(&own, Path::new("/etc/passwd"))
}

enum Piece {
    Tree(Tree, PathBuf, bool),
    Link(PathBuf, PathBuf),
}

/// Picks a system path, or remembers the link that it is. `None` if it does not exist.
fn pick_or_link(path: &Path) -> Result<Option<Piece>, StepError> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => {
            Ok(std::fs::read_link(path).ok().map(|target| Piece::Link(path.to_owned(), target)))
        }
        Ok(_) => Ok(Some(Piece::Tree(pick(path)?, path.to_owned(), false))),
        Err(_) => Ok(None),
    }
}

/// Everything of the system that every cell sees, picked but not attached anywhere: this can be done before the
/// cell is known.
pub struct System {
    pieces: Vec<Piece>,
    devices: Vec<(Tree, PathBuf)>,
}

/// Picks the system's trees and files.
pub fn pick_system() -> Result<System, StepError> {
    let mut pieces = vec![];
    for path in trees() {
        pieces.extend(pick_or_link(path)?);
    }
    for path in etc() {
        // Links are followed: programs only need to find the file.
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

/// A fingerprint of the system's files that every cell sees. If it changes, what was [picked](pick_system) earlier
/// is out of date: a file was replaced, a file system mounted, a link changed.
#[derive(Debug, PartialEq, Eq)]
pub struct SystemMark {
    paths: Vec<Option<PathMark>>,
    mounts: Vec<(u64, PathBuf)>,
}

/// The fingerprint of one path: which file it is, and on which mount.
#[derive(Debug, PartialEq, Eq)]
struct PathMark {
    link: Option<PathBuf>,
    file: Option<(u32, u32, u64, u64)>,
}

impl PathMark {
    /// Identifies what a path leads to; `None` if there is nothing.
    fn of(path: &Path, link: Option<PathBuf>) -> Option<Self> {
        let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::MNT_ID).ok();
        // Inode numbers are not reused while a picked tree holds them.
        let file = found.map(|f| (f.stx_dev_major, f.stx_dev_minor, f.stx_ino, f.stx_mnt_id));
        (link.is_some() || file.is_some()).then_some(Self { link, file })
    }
}

impl SystemMark {
    /// Takes the fingerprint now.
    pub fn take() -> Self {
        let system = trees().map(|path| PathMark::of(path, std::fs::read_link(path).ok()));
        // For these, cells get the files that the links lead to.
        let files = etc().into_iter().chain(devices()).map(|path| PathMark::of(&path, None));
        let paths = system.chain(files).collect();
        let below = |at: &Path| trees().any(|tree| at.starts_with(tree)) || at.starts_with("/etc");
        let mounts =
            mounts().iter().filter(|mount| below(&mount.at)).map(|mount| (mount.id, mount.at.clone())).collect();
        Self { paths, mounts }
    }
}

/// Builds the cell's root and returns its path. `before_build` runs between picking (as the launcher's user, who
/// can reach the host's paths) and building (as the keeper, which owns these files). `cell` is the cell's name.
///
/// `binds` are picked from the host: triples of source, path in the cell, and whether it is writable. `read_paths`
/// are shown read-only at the same path. Whatever lies at `hidden`, which are paths in the cell, is covered.
pub fn build_root(
    system: System,
    cell: &str,
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

    // Any directory can serve as mount point: whatever was below it was already picked.
    let root = PathBuf::from("/tmp");
    mount_tmpfs(&root, "755", 4 << 20)?;
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let make = |path: &str| {
        std::fs::create_dir_all(inside(Path::new(path)))
            .map_err(|source| StepError { step: format!("making {path} in the cell"), source })
    };
    for directory in ["/tmp", EMPTY, "/run/lazarus", "/var", "/proc", "/dev/shm", "/dev/pts", "/etc", "/cell/home"] {
        make(directory)?;
    }
    let link = |target: &Path, place: &Path| {
        let above = inside(place).parent().map_or(Ok(()), std::fs::create_dir_all);
        above
            .and_then(|()| std::os::unix::fs::symlink(target, inside(place)))
            .map_err(|source| StepError { step: format!("linking {} in the cell", place.display()), source })
    };
    for piece in &pieces {
        match piece {
            Piece::Tree(tree, place, writable) => attach(tree, &inside(place), *writable, false)?,
            Piece::Link(place, target) => link(target, place)?,
        }
    }
    for (tree, place) in &devices {
        // Mounted read-only: the node itself cannot be changed, but the device can be written to.
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
    for (file, text) in account_files(cell, Path::new("/cell/home"), 1000, 1000) {
        std::fs::write(inside(Path::new("/etc")).join(file), text)
            .map_err(|source| StepError { step: format!("writing /etc/{file} of the cell"), source })?;
    }
    mount_proc(&inside(Path::new("/proc")))?;
    Ok(root)
}

/// Makes `root` the root, and drops the old one with everything mounted below it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_may_hold_a_credential_are_not_shown() {
        for secret in [
            "//registry.example.org/:_authToken=npm_abc",
            "_auth = YWJj",
            "index-url = https://user:word@pypi.example.org/simple",
            "index-url = https://${USER}@pypi.example.org/simple",
            "<server><password>x</password></server>",
            "<!-- an example --><passphrase>x</passphrase>",
            "GITHUB_PAT=x",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert!(names_a_credential(&without_xml_comments(secret)), "{secret}");
        }
        for plain in [
            "[global]\nindex-url = https://pypi.example.org/simple\ntimeout = 60",
            "registry=https://npm.example.org/",
            "# password = x",
            "<settings><!-- <password>x</password> --><mirrors/></settings>",
            "mail = somebody@example.org",
        ] {
            assert!(!names_a_credential(&without_xml_comments(plain)), "{plain}");
        }
        let place = tempfile::tempdir().unwrap();
        let (file, large) = (place.path().join("npmrc"), place.path().join("large"));
        std::fs::write(&file, "registry=https://npm.example.org/\n").unwrap();
        std::fs::write(&large, "a\n".repeat(CHECKED_MAX as usize)).unwrap();
        assert!(holds_no_secret(&file));
        assert!(!holds_no_secret(&large) && !holds_no_secret(&place.path().join("missing")));
    }

    #[test]
    fn what_cells_see_of_etc_names_no_place_of_secrets() {
        for path in etc() {
            let path = path.to_string_lossy().into_owned();
            for secret in ["shadow", "private", "/ssh", "sudoers", "environment", "profile", "gitconfig", "credstore"] {
                assert!(!path.contains(secret), "{path}");
            }
        }
        assert_ne!(machine_id("laz-a"), machine_id("laz-b"));
        assert_eq!(machine_id("laz-a"), machine_id("laz-a"));
    }

    #[test]
    fn a_star_stands_for_a_part_of_one_name() {
        let place = tempfile::tempdir().unwrap();
        for name in ["java", "java-17", "java-8", "other"] {
            std::fs::create_dir(place.path().join(name)).unwrap();
        }
        let named = |part: &str| -> Vec<String> {
            let found = matching(place.path(), part);
            found.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(named("java-*"), ["java-17", "java-8"]);
        assert_eq!(named("java*"), ["java", "java-17", "java-8"]);
        assert_eq!(named("missing"), ["missing"]);
        assert!(named("missing*").is_empty());
    }
}
