//! An agent's log: what it prints, up to a limit. The agent gets a pipe instead of the file, so that it can neither
//! truncate its log nor fill the disk with it.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, statat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A log of at most `limit` bytes in two files: the one that is being written, and the previous one (`NAME.log.1`).
/// When the limit is hit, the older file is dropped.
pub struct Log<'a> {
    directory: &'a File,
    name: String,
    /// Opened at the first write.
    file: Option<File>,
    length: u64,
    older: u64,
    limit: u64,
    dropped: u64,
}

impl<'a> Log<'a> {
    /// Opens the log of an agent in the keeper's directory. It continues after what an earlier run wrote.
    pub fn new(directory: &'a File, agent: &str, limit: u64) -> Self {
        let name = format!("{agent}.log");
        Self { directory, name, file: None, length: 0, older: 0, limit, dropped: 0 }
    }

    fn older_name(&self) -> String {
        format!("{}.1", self.name)
    }

    fn open(&mut self) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(openat(self.directory, &self.name, flags, Mode::from_raw_mode(0o600))?);
        self.length = file.metadata()?.len();
        self.older = statat(self.directory, self.older_name(), AtFlags::SYMLINK_NOFOLLOW)
            .map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        self.file = Some(file);
        Ok(())
    }

    /// Appends bytes. On a full disk these bytes are lost, and nothing else happens.
    pub fn write(&mut self, bytes: &[u8]) {
        match self.try_write(bytes) {
            Ok(()) => self.length += bytes.len() as u64,
            Err(_) => self.dropped += bytes.len() as u64,
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.open()?;
        }
        if self.length + bytes.len() as u64 > self.limit / 2 && self.length > 0 {
            renameat(self.directory, &self.name, self.directory, self.older_name())?;
            self.dropped += self.older;
            self.file = None;
            self.open()?;
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    /// Bytes that were not kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Reads the last `bytes` bytes of an agent's log, across both its files, in the keeper's directory `directory`.
/// Empty if there is no log.
///
/// # Errors
/// If a file exists and cannot be read.
pub fn log_tail(directory: &Path, agent: &str, bytes: u64) -> io::Result<Vec<u8>> {
    let newer = directory.join(format!("{agent}.log"));
    let older = directory.join(format!("{agent}.log.1"));
    for _ in 0..ROTATIONS_MAX {
        let files = (open_log(&newer)?, open_log(&older)?);
        // The first file may have become the second between the two reads.
        if let (Some(first), Some(second)) = &files
            && inode(first)? == inode(second)?
        {
            continue;
        }
        let mut text = tail_of(files.0, bytes)?;
        let missing = bytes.saturating_sub(text.len() as u64);
        if missing > 0 {
            let mut whole = tail_of(files.1, missing)?;
            whole.append(&mut text);
            text = whole;
        }
        return Ok(text);
    }
    tail_of(open_log(&newer)?, bytes)
}

/// How often the log is read again if it is rotated during each read.
const ROTATIONS_MAX: usize = 10;

/// Opens a log only if it is a regular file. The keeper's directory belongs to another user when the daemon is
/// root, so it may contain anything.
fn open_log(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => {
            let file = File::from(fd);
            let plain = file.metadata()?.is_file();
            if plain { Ok(Some(file)) } else { Err(io::Error::other(format!("{} is no plain file", path.display()))) }
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

fn tail_of(file: Option<File>, bytes: u64) -> io::Result<Vec<u8>> {
    let mut text = vec![];
    if let Some(mut file) = file {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        file.take(bytes).read_to_end(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_comes_out_of_both_its_files() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap();
        assert!(log_tail(place.path(), "scribe", 100).unwrap().is_empty());
        let mut log = Log::new(&directory, "scribe", 1000);
        for line in 0..60 {
            log.write(format!("line {line:04}\n").as_bytes());
        }
        let tail = |bytes| String::from_utf8(log_tail(place.path(), "scribe", bytes).unwrap()).unwrap();
        // 600 bytes: 500 of them in the older file.
        assert_eq!(tail(10_000).lines().count(), 60);
        assert_eq!(tail(10_000).lines().next(), Some("line 0000"));
        let short = tail(150);
        assert_eq!((short.lines().next(), short.lines().last()), (Some("line 0045"), Some("line 0059")));
        assert_eq!(tail(20), "line 0058\nline 0059\n");
    }

    #[test]
    fn a_link_in_a_logs_place_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place.path().join("scribe.log")).unwrap();
        assert!(log_tail(place.path(), "scribe", 100).is_err());
    }

    #[test]
    fn a_flood_leaves_its_last_part_and_no_more_than_the_limit() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap();
        let mut log = Log::new(&directory, "scribe", 1000);
        for line in 0..500 {
            log.write(format!("line {line:04}\n").as_bytes());
        }
        let read = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap();
        let kept = read("scribe.log.1") + &read("scribe.log");
        assert!(kept.len() <= 1000 && kept.ends_with("line 0499\n"), "{}", kept.len());
        assert_eq!(log.dropped() + kept.len() as u64, 5000);
    }
}
