//! The binary image that runs now.
//!
//! The program's file can be replaced or deleted while the daemon runs. But whatever the daemon starts of itself
//! (launchers, probes, git's credential helper, the program in a cell) must be the same image: a newer one need not
//! understand what this one says. The kernel keeps the running image as `/proc/self/exe`, whatever happened to the
//! file. If a real path is needed and the file is no longer that image, a copy is made once.

use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The path with which this process starts itself. It is valid only in this process: in another one it leads to
/// that process's image.
pub const RUNNING: &str = "/proc/self/exe";
/// Prefix of the copies' names.
const COPY: &str = "program-";
/// The suffix that the kernel adds to the path of a deleted file.
const DELETED: &[u8] = b" (deleted)";

/// The directory for copies.
static COPIES: OnceLock<PathBuf> = OnceLock::new();
/// Held while a copy is made.
static COPYING: Mutex<()> = Mutex::new(());

/// Sets the directory for copies, which nobody else can write, and removes copies of other images from it. Only the
/// first call has an effect.
pub fn keep_copies_in(directory: &Path) {
    let directory = COPIES.get_or_init(|| directory.to_owned());
    let current = copy_name().unwrap_or_default();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(COPY) && name.to_string_lossy() != current {
            // A cell that was shown the file keeps it.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A path under which any process of this user finds the running image: the program's file, or a copy if the file
/// is another image by now.
///
/// # Errors
/// If the file is another image and no copy can be made.
pub fn path() -> io::Result<PathBuf> {
    let running = std::fs::metadata(RUNNING)?;
    let file = named()?;
    let same = std::fs::metadata(&file).is_ok_and(|there| (there.dev(), there.ino()) == (running.dev(), running.ino()));
    if same { Ok(file) } else { copy() }
}

/// A copy of the running image that is independent of the program's file.
///
/// # Errors
/// If it cannot be made.
pub fn copy() -> io::Result<PathBuf> {
    let Some(directory) = COPIES.get() else {
        return Err(io::Error::other("this program's file was replaced while it runs; start it again"));
    };
    let _one_at_a_time = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = directory.join(copy_name()?);
    let whole = std::fs::metadata(RUNNING)?.len();
    if std::fs::symlink_metadata(&path).is_ok_and(|there| there.is_file() && there.len() == whole) {
        return Ok(path);
    }
    // Written under another name and then renamed, so that an incomplete copy is never run.
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let mut file = File::options().write(true).create_new(true).mode(0o755).open(&new)?;
    io::copy(&mut File::open(RUNNING)?, &mut file)?;
    // Set explicitly, whatever the umask is, because agents run it too.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    drop(file);
    std::fs::rename(&new, &path)?;
    Ok(path)
}

/// The path of the program's file, as the kernel knows it, whether or not it exists.
fn named() -> io::Result<PathBuf> {
    let path = std::fs::read_link(RUNNING)?;
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(DELETED).filter(|_| !path.exists()).unwrap_or(bytes);
    Ok(std::ffi::OsString::from_vec(bytes.to_vec()).into())
}

/// No two images that were ever at one path have the same name.
fn copy_name() -> io::Result<String> {
    let running = std::fs::metadata(RUNNING)?;
    Ok(format!(
        "{COPY}{:x}-{:x}-{:x}-{:x}",
        running.dev(),
        running.ino(),
        running.size(),
        running.mtime_nsec().unsigned_abs() ^ running.mtime().unsigned_abs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_image_has_a_path_and_a_copy_that_runs() {
        assert_eq!(path().unwrap(), std::env::current_exe().unwrap());
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("program-of-another-image"), "old").unwrap();
        keep_copies_in(place.path());
        let copied = copy().unwrap();
        assert_eq!(copy().unwrap(), copied);
        let names: Vec<_> = std::fs::read_dir(place.path()).unwrap().flatten().map(|e| e.path()).collect();
        assert_eq!(names, std::slice::from_ref(&copied));
        let listed = std::process::Command::new(&copied).arg("--list").output().unwrap();
        assert!(listed.status.success() && !listed.stdout.is_empty());
    }
}
