//! An agent's log: what it prints, up to a limit. The agent has a pipe and not
//! the file, so that it can neither cut its log nor fill the disk with it.

use rustix::fs::{Mode, OFlags, openat, renameat};
use std::fs::File;
use std::io::{self, Write as _};

/// A log of at most `limit` bytes in two files: the one that is written to, and
/// the one before it (`NAME.log.1`). The older half goes when the limit is met.
pub struct Log {
    directory: File,
    name: String,
    file: File,
    length: u64,
    older: u64,
    limit: u64,
    dropped: u64,
}

fn open(directory: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(openat(directory, name, flags, Mode::from_raw_mode(0o600))?))
}

impl Log {
    /// The log of an agent, in the keeper's directory; goes on where an earlier
    /// run of it left off.
    pub fn open(directory: &File, agent: &str, limit: u64) -> io::Result<Self> {
        let name = format!("{agent}.log");
        let file = open(directory, &name)?;
        let older = rustix::fs::statat(directory, format!("{name}.1"), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let length = file.metadata()?.len();
        Ok(Self { directory: directory.try_clone()?, name, file, length, older, limit, dropped: 0 })
    }

    /// Writes; a full disk loses these bytes and nothing else.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.length + bytes.len() as u64 > self.limit / 2 && self.length > 0 {
            let older = format!("{}.1", self.name);
            if renameat(&self.directory, &self.name, &self.directory, &older).is_ok()
                && let Ok(file) = open(&self.directory, &self.name)
            {
                self.dropped += self.older;
                (self.older, self.length, self.file) = (self.length, 0, file);
            } else {
                self.dropped += bytes.len() as u64;
                return;
            }
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.length += bytes.len() as u64,
            Err(_) => self.dropped += bytes.len() as u64,
        }
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
        let mut log = Log::open(&directory, "scribe", 1000).unwrap();
        for line in 0..500 {
            log.write(format!("line {line:04}\n").as_bytes());
        }
        let read = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap();
        let kept = read("scribe.log.1") + &read("scribe.log");
        assert!(kept.len() <= 1000 && kept.ends_with("line 0499\n"), "{}", kept.len());
        assert_eq!(log.dropped() + kept.len() as u64, 5000);
    }
}
