//! A cell whose project and homes are in memory, if policy asks for that: a tmpfs whose size is the cell's disk
//! limit. It begins as a copy of the clone and disappears with the keeper.

use super::DiskSpace;
use crate::sandbox::{StepError, attach, hide, mount_tmpfs_for, pick};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RawMode, Stat, Uid, chownat, fchmod, fchown, mkdirat, openat,
    readlinkat, statat, statvfs, symlinkat,
};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where the tmpfs is mounted for the keeper. Agents see its parts in their usual places.
pub const ROOM: &str = "/.room";
/// Where the keeper sees the clone on the disk.
pub const ON_DISK: &str = "/.disk";

/// Creates the tmpfs and copies the clone into it. Must be called before there is any agent.
pub fn fill(room: DiskSpace) -> Result<(), StepError> {
    let root = Path::new(ROOM);
    let step = |what: &str, source: io::Error| StepError { step: format!("{what} in memory"), source };
    std::fs::create_dir(root).map_err(|e| step("making a place", e))?;
    mount_tmpfs_for(root, "711", room.bytes, room.files)?;
    for name in ["project", "work"] {
        let place = root.join(name);
        std::fs::create_dir(&place).map_err(|e| step("making a directory", e))?;
        let from = open(CWD, &Path::new(ON_DISK).join(name));
        let to = open(CWD, &place);
        let copied = from.and_then(|from| to.and_then(|to| copy(&from, &to)));
        copied.map_err(|e| step(&format!("copying {name}"), e))?;
        attach(&pick(&place)?, &Path::new("/cell").join(name), true, false)?;
    }
    std::fs::create_dir(root.join("home")).map_err(|e| step("making a directory", e))?;
    hide(Path::new(ON_DISK))
}

/// Creates an agent's home in it; a home from an earlier run is kept.
pub fn make_home(agent: &str, id: u32) -> Result<std::path::PathBuf, StepError> {
    let home = Path::new(ROOM).join("home").join(agent);
    let step = |source| StepError { step: format!("making the home of {agent} in memory"), source };
    match std::fs::create_dir(&home) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(home),
        other => other.map_err(step)?,
    }
    std::fs::create_dir(home.join("tmp")).map_err(step)?;
    for own in [&home.join("tmp"), &home] {
        std::os::unix::fs::chown(own, Some(id), Some(id)).map_err(step)?;
    }
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(step)?;
    Ok(home)
}

/// Which of its limits is reached: `disk` or `files`, or `None`.
pub fn full() -> Option<&'static str> {
    let stat = statvfs(ROOM).ok()?;
    if stat.f_bavail * stat.f_frsize < 64 << 10 {
        return Some("disk");
    }
    (stat.f_ffree < 2).then_some("files")
}

fn open(at: impl std::os::fd::AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, path, flags, Mode::empty())?)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

/// Copies the contents of a directory, and the directory's own owner and mode.
fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mode = |stat: &Stat| Mode::from_raw_mode(stat.st_mode as RawMode & 0o777);
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (uid, gid) = owner(&stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
                copy(&open(from, path)?, &open(to, path)?)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let mut source = File::from(openat(from, name, flags | OFlags::RDONLY, Mode::empty())?);
                let made = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let mut copied = File::from(openat(to, name, made, Mode::RUSR | Mode::WUSR)?);
                io::copy(&mut source, &mut copied)?;
                fchown(&copied, uid, gid)?;
                fchmod(&copied, mode(&stat))?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, vec![])?, to, name)?;
                chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            // A clone has no other kinds of files.
            _ => {}
        }
    }
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = owner(&stat);
    fchown(to, uid, gid)?;
    Ok(fchmod(to, mode(&stat))?)
}
