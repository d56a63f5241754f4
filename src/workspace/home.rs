//! The paths of a cell's files, and what the host's side writes there.

use super::scrub;
use crate::cell::CellId;
use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// An operation on a cell's files that failed.
#[derive(Debug, thiserror::Error)]
#[error("{tried} {}: {source}", path.display())]
pub struct HomeError {
    /// What was tried.
    pub tried: &'static str,
    /// The path on which it was tried.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

fn on(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    move |source| HomeError { tried, path, source }
}

/// The directories below which all files of cells lie.
#[derive(Debug, Clone)]
pub struct Roots {
    /// Homes of live cells.
    pub cells: PathBuf,
    /// Homes of closed cells.
    pub graveyard: PathBuf,
    /// What is kept of closed cells after their grace period.
    pub archive: PathBuf,
    /// Run directories: control sockets, logs, exit records.
    pub run: PathBuf,
}

impl Roots {
    /// Creates them, accessible only to this user.
    ///
    /// # Errors
    /// If one cannot be created.
    pub fn make(&self) -> Result<(), HomeError> {
        for root in [&self.cells, &self.graveyard, &self.archive, &self.run] {
            make_directory(root, 0o700)?;
        }
        Ok(())
    }

    /// A live cell's home.
    pub fn home(&self, cell: &CellId) -> Home {
        Home { path: self.cells.join(cell.as_str()) }
    }

    /// Where a closed cell's home lies.
    pub fn grave(&self, cell: &CellId) -> PathBuf {
        self.graveyard.join(cell.as_str())
    }

    /// A cell's run directory.
    pub fn run_dir(&self, cell: &CellId) -> PathBuf {
        self.run.join(cell.as_str())
    }

    /// Moves a cell's home to the graveyard. Does nothing if it is already there.
    ///
    /// # Errors
    /// If it cannot be moved, for example to another file system.
    pub fn bury(&self, cell: &CellId) -> Result<(), HomeError> {
        move_directory(&self.home(cell).path, &self.grave(cell))
    }

    /// Whether a cell is in the graveyard.
    pub fn is_buried(&self, cell: &CellId) -> bool {
        self.grave(cell).exists()
    }

    /// Moves a cell's home back from the graveyard.
    ///
    /// # Errors
    /// If it is no longer there.
    pub fn exhume(&self, cell: &CellId) -> Result<(), HomeError> {
        move_directory(&self.grave(cell), &self.home(cell).path)
    }

    /// Reduces a cell in the graveyard to what the archive keeps: its record, its decisions and shared artifacts.
    /// Homes, clone and logs are removed.
    ///
    /// # Errors
    /// If something cannot be moved or removed.
    pub fn archive(&self, cell: &CellId, date: &str) -> Result<(), HomeError> {
        let grave = self.grave(cell);
        if grave.exists() {
            let place = self.archive.join(date);
            make_directory(&place, 0o700)?;
            for gone in ["project", "work", "home"] {
                let path = grave.join(gone);
                scrub(&path).map_err(on("removing", &path))?;
            }
            move_directory(&grave, &place.join(cell.as_str()))?;
        }
        let run = self.run_dir(cell);
        scrub(&run).map_err(on("removing", &run))
    }

    /// Removes all files of a cell, wherever they lie.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn scrub(&self, cell: &CellId) -> Result<(), HomeError> {
        let mut places = vec![self.home(cell).path, self.grave(cell), self.run_dir(cell)];
        if let Ok(dates) = std::fs::read_dir(&self.archive) {
            places.extend(dates.flatten().map(|d| d.path().join(cell.as_str())));
        }
        for place in places {
            scrub(&place).map_err(on("removing", &place))?;
            if place.symlink_metadata().is_ok() {
                return Err(on("removing", &place)(io::Error::other("it is still there")));
            }
        }
        Ok(())
    }
}

fn move_directory(from: &Path, to: &Path) -> Result<(), HomeError> {
    match std::fs::rename(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
        Err(e) => Err(on("moving", from)(e)),
    }
}

/// Creates a directory with exactly that mode, whatever the umask is.
///
/// # Errors
/// If it cannot be created.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), HomeError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(on("making", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(on("making", path))
}

/// A cell's home (contract §9).
#[derive(Debug, Clone)]
pub struct Home {
    /// Its path on the host.
    pub path: PathBuf,
}

impl Home {
    /// The commit that the home was made from, once it is complete and was given to its agents; `None` before. From
    /// then on the host's side does not touch anything that agents can write, because they could put links there.
    pub fn is_made(&self) -> Option<String> {
        std::fs::read_to_string(self.path.join(".lazarus/commit")).ok().map(|t| t.trim().to_owned())
    }

    /// Creates the directories of a home, before any agent runs in it.
    ///
    /// # Errors
    /// If one cannot be created.
    pub fn make(&self) -> Result<(), HomeError> {
        make_directory(&self.path, 0o700)?;
        for directory in
            [".lazarus", ".lazarus/prompts", ".lazarus/messages", "shared", "shared/artifacts", "home", "work"]
        {
            make_directory(&self.path.join(directory), 0o755)?;
        }
        let pad = self.path.join("shared/scratchpad.md");
        File::create(&pad).map_err(on("making", &pad))?;
        Ok(())
    }

    /// Gives the clone and the shared files to the agents' user, if that is not this user, and records the commit
    /// that was cloned. The home is complete then.
    ///
    /// # Errors
    /// If something cannot be given or written.
    pub fn hand_over(&self, commit: &str, uid: Option<u32>) -> Result<(), HomeError> {
        if let Some(uid) = uid {
            for directory in ["project", "shared", "work"] {
                give(&self.path.join(directory), uid)?;
            }
        }
        // Written to the disk first: after a power failure the record must not exist without the files that it
        // vouches for.
        let all = File::open(&self.path).map_err(on("opening", &self.path))?;
        rustix::fs::syncfs(&all).map_err(|e| on("writing to the disk", &self.path)(e.into()))?;
        let marker = self.write_record("commit", commit.as_bytes())?;
        File::open(&marker).and_then(|file| file.sync_all()).map_err(on("writing", &marker))
    }

    /// Creates one agent's own home, unless it exists. No agent can write the directory that contains it.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn make_agent(&self, agent: &str, uid: Option<u32>) -> Result<(), HomeError> {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let path = self.path.join("home").join(agent);
        let tried = |e: rustix::io::Errno| on("making", &path)(e.into());
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let homes = openat(CWD, self.path.join("home"), flags, Mode::empty()).map_err(tried)?;
        match mkdirat(&homes, agent, Mode::RWXU) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            Err(error) => return Err(tried(error)),
        }
        let own = openat(&homes, agent, flags, Mode::empty()).map_err(tried)?;
        // Serves as `/tmp` if the agent has no private one.
        mkdirat(&own, "tmp", Mode::RWXU).map_err(tried)?;
        if let Some(uid) = uid {
            let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
            chownat(&own, "tmp", owner, group, AtFlags::SYMLINK_NOFOLLOW).map_err(tried)?;
            rustix::fs::fchown(&own, owner, group).map_err(tried)?;
        }
        Ok(())
    }

    /// Writes a file that agents can read but not write. It is replaced as a whole. It can be rewritten from the
    /// registry whenever it is needed, so this does not wait for the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_record(&self, name: &str, text: &[u8]) -> Result<PathBuf, HomeError> {
        let path = self.path.join(".lazarus").join(name);
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(text)?;
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
            std::fs::rename(&new, &path)
        };
        write().map_err(on("writing", &path))?;
        Ok(path)
    }

    /// Reads a file below the home that agents may have written. No link is followed on the way, and only a regular
    /// file of at most `most` bytes is read. `None` if it does not exist.
    ///
    /// # Errors
    /// If it is not a regular file, is too large, or cannot be read.
    pub fn read_plain(&self, parts: &[&str], most: u64) -> Result<Option<Vec<u8>>, HomeError> {
        use io::Read as _;
        use rustix::fs::{Mode, OFlags, openat};
        let path = parts.iter().fold(self.path.clone(), |path, part| path.join(part));
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut at = rustix::fd::OwnedFd::from(File::open(&self.path).map_err(on("opening", &self.path))?);
        for part in parts {
            at = match openat(&at, *part, flags, Mode::empty()) {
                Ok(next) => next,
                Err(rustix::io::Errno::NOENT) => return Ok(None),
                Err(error) => return Err(on("opening", &path)(error.into())),
            };
        }
        let file = File::from(at);
        let meta = file.metadata().map_err(on("looking at", &path))?;
        if !meta.is_file() {
            return Err(on("reading", &path)(io::Error::other("it is no plain file")));
        }
        let mut bytes = vec![];
        file.take(most + 1).read_to_end(&mut bytes).map_err(on("reading", &path))?;
        if bytes.len() as u64 > most {
            return Err(on("reading", &path)(io::Error::other(format!("it is larger than {most} bytes"))));
        }
        Ok(Some(bytes))
    }

    /// Appends a line to a file that agents can read but not write.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append_record(&self, name: &str, line: &str) -> Result<(), HomeError> {
        let path = self.path.join(".lazarus").join(name);
        let write = || -> io::Result<()> {
            let mut file = File::options().create(true).append(true).open(&path)?;
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_data()
        };
        write().map_err(on("writing", &path))
    }

    /// Writes the prompt of one run of an agent, and returns its file name among the records.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_prompt(&self, agent: &str, run: u32, prompt: &str) -> Result<String, HomeError> {
        let name = format!("prompts/{agent}-{run}.md");
        self.write_record(&name, prompt.as_bytes())?;
        Ok(name)
    }
}

/// Gives a tree that no agent has seen yet to the agents' user. Links themselves are given, not their targets.
fn give(path: &Path, uid: u32) -> Result<(), HomeError> {
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    chownat(CWD, path, owner, group, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| on("giving to the cell", path)(e.into()))?;
    let meta = path.symlink_metadata().map_err(on("looking at", path))?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path).map_err(on("reading", path))? {
            give(&entry.map_err(on("reading", path))?.path(), uid)?;
        }
    }
    Ok(())
}
