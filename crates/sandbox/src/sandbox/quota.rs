//! Disk limits enforced by the file system: project quotas, which ext4, XFS and others support if they are mounted
//! with `prjquota`. Setting them requires root.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct if_dqblk` of `linux/quota.h`. Space limits are in blocks of 1 KiB; space in use is in bytes.
#[repr(C)]
#[derive(Default)]
struct Quota {
    blocks_hard: u64,
    blocks_soft: u64,
    space: u64,
    files_hard: u64,
    files_soft: u64,
    files: u64,
    blocks_time: u64,
    files_time: u64,
    valid: u32,
}

const GET_ATTRIBUTES: libc::c_ulong = 0x801c_581f;
const SET_ATTRIBUTES: libc::c_ulong = 0x401c_5820;
/// Flag of a directory: whatever is created in it belongs to its project.
const INHERIT: u32 = 0x200;
const GET_QUOTA: u32 = 0x80_0007;
const SET_QUOTA: u32 = 0x80_0008;
const PROJECT: u32 = 2;
/// Says that the limits of blocks and of files are valid.
const LIMITS: u32 = 1 | 4;

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn call(directory: BorrowedFd<'_>, command: u32, project: u32, quota: &mut Quota) -> io::Result<()> {
    let command = (command << 8) | PROJECT;
    // SAFETY: the struct lives through the call and has the kernel's layout.
    check(unsafe { libc::syscall(libc::SYS_quotactl_fd, directory.as_raw_fd(), command, project, &raw mut *quota) })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(rustix::fs::CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn assign(file: BorrowedFd<'_>, project: u32, directory: bool) -> io::Result<()> {
    let mut attributes = Attributes::default();
    // SAFETY: the struct lives through both calls and has the kernel's layout.
    unsafe {
        check(libc::c_long::from(libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES, &raw mut attributes)))?;
        attributes.project = project;
        if directory {
            attributes.flags |= INHERIT;
        }
        check(libc::c_long::from(libc::ioctl(file.as_raw_fd(), SET_ATTRIBUTES, &raw const attributes)))
    }
}

/// Deepest directory that is assigned: each level needs stack, and programs do not make deeper ones.
const DEPTH_MAX: usize = 200;

/// Assigns everything below a directory to the project. What is neither file nor directory has no content.
fn assign_all(directory: &OwnedFd, project: u32, depth: usize) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("directories in directories, more than {DEPTH_MAX} deep")));
    }
    assign(directory.as_fd(), project, true)?;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                assign_all(&openat(directory, name, flags | OFlags::DIRECTORY, Mode::empty())?, project, depth + 1)?;
            }
            FileType::RegularFile => assign(openat(directory, name, flags, Mode::empty())?.as_fd(), project, false)?,
            _ => {}
        }
    }
    Ok(())
}

/// Limits everything that lies below those directories, now or later, to that many bytes and files together. Must
/// be called before anybody else can write there.
///
/// # Errors
/// If the file system has no project quotas, or this process is not root.
pub fn limit(directories: &[&Path], project: u32, bytes: u64, files: u64) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    let first = open(directories.first().ok_or(io::ErrorKind::InvalidInput)?)?;
    let mut quota = Quota {
        blocks_hard: bytes.div_ceil(1024),
        blocks_soft: bytes.div_ceil(1024),
        files_hard: files,
        files_soft: files,
        valid: LIMITS,
        ..Quota::default()
    };
    // First, because this call fails if there are no quotas.
    call(first.as_fd(), SET_QUOTA, project, &mut quota)?;
    for directory in directories {
        assign_all(&open(directory)?, project, 0)?;
    }
    Ok(())
}

/// Removes a directory, and everything below it, from its project.
///
/// # Errors
/// As for [`limit`].
pub fn exempt(directory: &Path) -> io::Result<()> {
    assign_all(&open(directory)?, 0, 0)
}

/// What a project uses: bytes and number of files.
///
/// # Errors
/// As for [`limit`].
pub fn used(directory: &Path, project: u32) -> io::Result<(u64, u64)> {
    use std::os::fd::AsFd as _;
    let mut quota = Quota::default();
    call(open(directory)?.as_fd(), GET_QUOTA, project, &mut quota)?;
    Ok((quota.space, quota.files))
}
