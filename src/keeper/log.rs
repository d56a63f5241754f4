//! An agent's log: what it prints, up to a limit. The agent has a pipe and not
//! the file, so that it can neither cut its log nor fill the disk with it.

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, statat};
use std::fs::File;
use std::io::{self, Write as _};

/// A log of at most `limit` bytes in two files: the one that is written to, and
/// the one before it (`NAME.log.1`). The older half goes when the limit is met.
pub struct Log<'a> {
    directory: &'a File,
    name: String,
    /// Opened when there is something to write.
    file: Option<File>,
    length: u64,
    older: u64,
    limit: u64,
    dropped: u64,
}

impl<'a> Log<'a> {
    /// The log of an agent, in the keeper's directory; goes on where an earlier
    /// run of it left off.
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

    /// Writes; a full disk loses these bytes and nothing else.
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

    /// Bytes that are not kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
