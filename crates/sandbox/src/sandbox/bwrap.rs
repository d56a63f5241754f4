//! The second rung of the isolation ladder: sandboxes that `bwrap` makes. It serves hosts on which this program may
//! not create namespaces but `bwrap` may, because it is setuid there or has an AppArmor profile.

use super::StepError;
use super::mounts::{HIDDEN_DIRECTORIES, HIDDEN_FILES, STORES, SYSTEM, account_files, etc};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `bwrap` is looked for. PATH is not used, because whoever starts us controls it.
const PLACES: [&str; 3] = ["/usr/bin/bwrap", "/bin/bwrap", "/usr/local/bin/bwrap"];
/// Arguments that are the same for every cell: the namespaces, and the rest.
const FIXED_ARGUMENTS: [&str; 10] = [
    "--unshare-user-try",
    "--unshare-ipc",
    "--unshare-pid",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "ALL",
    "--hostname",
];

/// Checks that `bwrap` is installed and can make a sandbox for this user. Not tried as root: what root may not do
/// here itself, `bwrap` may not do for root either.
///
/// # Errors
/// Why it cannot be used, in words.
pub fn probe() -> Result<PathBuf, String> {
    let program = PLACES.map(PathBuf::from).into_iter().find(|p| p.is_file()).ok_or("bwrap is not installed")?;
    if rustix::process::geteuid().is_root() {
        return Err("bwrap is not tried as root".to_owned());
    }
    let output = Command::new(&program)
        .args(FIXED_ARGUMENTS)
        .args(["cell", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(program)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().chars().take(200).collect())
    }
}

/// Builds the arguments that describe what one agent sees. Also returns descriptors that must stay open until
/// `bwrap` runs.
///
/// `cell` is the cell's name; `home` is the agent's home as the agent sees it. `binds` are triples of source, path
/// in the cell, and whether it is writable; `read_paths` are shown read-only at the same path; whatever lies at
/// `hidden` is covered.
///
/// # Errors
/// If a file of the cell's own cannot be created.
pub fn arguments(
    cell: &str,
    home: &Path,
    binds: &[(PathBuf, PathBuf, bool)],
    read_paths: &[PathBuf],
    hidden: &[PathBuf],
    host_network: bool,
) -> Result<(Vec<String>, Vec<OwnedFd>), StepError> {
    let mut words: Vec<String> = FIXED_ARGUMENTS.map(str::to_owned).into();
    words.push("cell".to_owned());
    if !host_network {
        words.push("--unshare-net".to_owned());
    }
    let mut add = |option: &str, source: &str, place: &Path| {
        words.extend([option.to_owned(), source.to_owned(), place.display().to_string()]);
    };
    for path in SYSTEM.iter().chain(&STORES).map(Path::new).chain(read_paths.iter().map(PathBuf::as_path)) {
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => {
                if let Ok(target) = std::fs::read_link(path) {
                    add("--symlink", &target.display().to_string(), path);
                }
            }
            Ok(_) => add("--ro-bind", &path.display().to_string(), path),
            Err(_) => {}
        }
    }
    for path in etc() {
        if let Ok(source) = path.canonicalize() {
            add("--ro-bind", &source.display().to_string(), &path);
        }
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut open = vec![];
    for (name, text) in account_files(cell, home, uid, gid) {
        let file = in_memory(&text)?;
        add("--ro-bind-data", &file.as_raw_fd().to_string(), &Path::new("/etc").join(name));
        open.push(file);
    }
    add("--symlink", "/tmp", Path::new("/var/tmp"));
    add("--symlink", "/run", Path::new("/var/run"));
    words.extend(["--proc", "/proc", "--dev", "/dev"].map(str::to_owned));
    for (source, place, writable) in binds {
        let option = if *writable { "--bind" } else { "--ro-bind" };
        words.extend([option.to_owned(), source.display().to_string(), place.display().to_string()]);
    }
    for path in hidden {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                let path = path.display().to_string();
                words.extend(["--tmpfs".to_owned(), path.clone(), "--remount-ro".to_owned(), path]);
            }
            Ok(_) => words.extend(["--ro-bind".to_owned(), "/dev/null".to_owned(), path.display().to_string()]),
            Err(_) => {}
        }
    }
    for file in HIDDEN_FILES.map(|name| format!("/proc/{name}")) {
        if Path::new(&file).exists() {
            words.extend(["--ro-bind".to_owned(), "/dev/null".to_owned(), file]);
        }
    }
    for directory in HIDDEN_DIRECTORIES.map(|name| format!("/proc/{name}")) {
        if Path::new(&directory).is_dir() {
            words.extend(["--tmpfs".to_owned(), directory.clone(), "--remount-ro".to_owned(), directory]);
        }
    }
    words.extend(["--remount-ro", "/"].map(str::to_owned));
    Ok((words, open))
}

/// Creates a file without a name whose descriptor survives `exec`, so that the next program can read it from the
/// start.
///
/// # Errors
/// If the kernel cannot create it.
pub fn in_memory(text: &str) -> Result<OwnedFd, StepError> {
    let wrong = |source: io::Error| StepError { step: "making a file in memory".to_owned(), source };
    let name = CString::default();
    // SAFETY: the name lives through the call; the descriptor is ours, and is meant to stay open across `exec`.
    let fd = unsafe {
        let fd = libc::memfd_create(name.as_ptr(), 0);
        if fd < 0 {
            return Err(StepError::last("making a file in memory"));
        }
        OwnedFd::from_raw_fd(fd)
    };
    let mut file = File::from(fd);
    file.write_all(text.as_bytes()).map_err(wrong)?;
    io::Seek::rewind(&mut file).map_err(wrong)?;
    Ok(file.into())
}
