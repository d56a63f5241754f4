//! Deletes a tree permanently.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// Deletes the tree at `path`. Succeeds if it does not exist. Links are deleted and never followed; directories
/// without permissions get them first.
///
/// # Errors
/// If something cannot be deleted. Everything else is gone then.
pub fn scrub(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("this is no path below a root"));
    };
    let parent = match openat(CWD, parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
    remove(&parent, &name, 0)?;
    Ok(())
}

/// Deepest tree that is deleted by recursion. Entries of deeper ones are moved up first.
const DEPTH_MAX: usize = 200;

fn remove(parent: &OwnedFd, name: &CStr, depth: usize) -> io::Result<()> {
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(unlinkat(parent, name, AtFlags::empty())?);
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Opened by descriptor, so that no link can replace the directory in between.
    let pinned = openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
    let _ = chmodat(CWD, format!("/proc/self/fd/{}", pinned.as_raw_fd()), Mode::RWXU, AtFlags::empty());
    drop(pinned);
    let directory = openat(parent, name, flags, Mode::empty())?;
    let mut first_error = None;
    // Read again after each pass, because a directory changes while it is being emptied.
    loop {
        let mut found = vec![];
        for entry in Dir::read_from(directory.as_fd())? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                found.push(entry.file_name().to_owned());
            }
            if found.len() >= 4096 {
                break;
            }
        }
        if found.is_empty() {
            break;
        }
        let mut removed = 0;
        for entry in &found {
            let result = if depth >= DEPTH_MAX && is_directory(&directory, entry) {
                lift(parent, &directory, entry)
            } else {
                remove(&directory, entry, depth + 1)
            };
            match result {
                Ok(()) => removed += 1,
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if removed == 0 {
            break;
        }
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(first_error.unwrap_or_else(|| error.into())),
    }
}

fn is_directory(parent: &OwnedFd, name: &CStr) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Moves an entry of a very deep directory up to the level above, where that level's loop deletes it.
fn lift(parent: &OwnedFd, directory: &OwnedFd, entry: &CStr) -> io::Result<()> {
    static LIFTED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    for _ in 0..1000 {
        let name = format!("lifted-{}", LIFTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        match rustix::fs::renameat_with(directory, entry, parent, &name, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("there is no free name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_goes_and_what_its_links_point_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/b/link")).unwrap();
        std::fs::set_permissions(tree.join("a/b"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        scrub(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        scrub(&tree).unwrap();
    }

    #[test]
    fn a_very_deep_tree_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("deep");
        std::fs::create_dir(&tree).unwrap();
        let mut at = openat(CWD, &tree, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        scrub(&tree).unwrap();
        assert!(!tree.exists());
    }
}
