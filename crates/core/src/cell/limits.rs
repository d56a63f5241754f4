//! What one cell may use: the limits, and what a proposal or a profile asks for
//! in their place.

use serde::{Deserialize, Serialize};

/// What one cell may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all its processes, in bytes.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Processor time, in thousandths of a processor.
    pub cpu: u64,
    /// Disk, in bytes.
    pub disk: u64,
    /// Files and directories.
    pub files: u64,
    /// Log of one agent, in bytes.
    pub log: u64,
    /// Each agent's own `/tmp`, in bytes, where that is in memory.
    #[serde(default = "usual_tmp")]
    pub tmp: u64,
}

/// What `/tmp` had before there was a limit to set.
fn usual_tmp() -> u64 {
    256 << 20
}

impl Limits {
    /// The larger of each.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            processes: self.processes.max(other.processes),
            open_files: self.open_files.max(other.open_files),
            cpu: self.cpu.max(other.cpu),
            disk: self.disk.max(other.disk),
            files: self.files.max(other.files),
            log: self.log.max(other.log),
            tmp: self.tmp.max(other.tmp),
        }
    }
}

/// Limits that somebody wants; those that are left out stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsWanted {
    /// As [`Limits::memory`].
    pub memory: Option<u64>,
    /// As [`Limits::processes`].
    pub processes: Option<u64>,
    /// As [`Limits::open_files`].
    pub open_files: Option<u64>,
    /// As [`Limits::cpu`].
    pub cpu: Option<u64>,
    /// As [`Limits::disk`].
    pub disk: Option<u64>,
    /// As [`Limits::files`].
    pub files: Option<u64>,
    /// As [`Limits::log`].
    pub log: Option<u64>,
    /// As [`Limits::tmp`].
    pub tmp: Option<u64>,
}

/// The least of each: below it programs do not start, or nothing of a log is left.
pub const LEAST: Limits = Limits {
    memory: 16 << 20,
    processes: 8,
    open_files: 64,
    cpu: 50,
    disk: 16 << 20,
    files: 1_000,
    log: 64 << 10,
    tmp: 1 << 20,
};

/// The form of wanted limits, for messages.
pub const LIMITS_FORM: &str = "pairs such as `memory=4GiB, cpu=1.5, processes=300`, separated by commas; known are \
                               memory, disk, tmp and log (sizes), cpu (processors), processes, open_files and files";

/// The form of [`LIMITS_FORM`]; empty where nothing is wanted.
impl std::fmt::Display for LimitsWanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut pairs = vec![];
        for (name, wanted) in [("memory", self.memory), ("disk", self.disk), ("tmp", self.tmp), ("log", self.log)] {
            pairs.extend(wanted.map(|bytes| format!("{name}={}", show_size(bytes))));
        }
        pairs.extend(self.cpu.map(|thousandths| format!("cpu={}", thousandths as f64 / 1000.0)));
        for (name, wanted) in [("processes", self.processes), ("open_files", self.open_files), ("files", self.files)] {
            pairs.extend(wanted.map(|count| format!("{name}={count}")));
        }
        f.write_str(&pairs.join(", "))
    }
}

impl LimitsWanted {
    /// Reads [`LIMITS_FORM`].
    ///
    /// # Errors
    /// What is wrong with which pair, as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        for pair in text.split([',', '\n']).map(str::trim).filter(|p| !p.is_empty()) {
            let shown: String = pair.chars().take(60).collect();
            let wrong = |why: &str| format!("`{shown}`: {why}; write {LIMITS_FORM}");
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("there is no `=` in it"))?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            let number = match name.as_str() {
                "memory" | "disk" | "tmp" | "log" => parse_size(value).ok_or_else(|| wrong("it is not a size"))?,
                "cpu" => parse_cpu(value).ok_or_else(|| wrong("it is not a number of processors"))?,
                _ => value.parse().map_err(|_| wrong("it is not a whole number"))?,
            };
            let (place, least) = match name.as_str() {
                "memory" => (&mut wanted.memory, LEAST.memory),
                "processes" => (&mut wanted.processes, LEAST.processes),
                "open_files" => (&mut wanted.open_files, LEAST.open_files),
                "cpu" => (&mut wanted.cpu, LEAST.cpu),
                "disk" => (&mut wanted.disk, LEAST.disk),
                "files" => (&mut wanted.files, LEAST.files),
                "log" => (&mut wanted.log, LEAST.log),
                "tmp" => (&mut wanted.tmp, LEAST.tmp),
                _ => return Err(wrong("there is no such limit")),
            };
            if number < least {
                return Err(wrong("it is too little for any program"));
            }
            if place.replace(number).is_some() {
                return Err(wrong("it comes twice"));
            }
        }
        Ok(wanted)
    }

    /// The limits that result.
    pub fn over(self, base: Limits) -> Limits {
        Limits {
            memory: self.memory.unwrap_or(base.memory),
            processes: self.processes.unwrap_or(base.processes),
            open_files: self.open_files.unwrap_or(base.open_files),
            cpu: self.cpu.unwrap_or(base.cpu),
            disk: self.disk.unwrap_or(base.disk),
            files: self.files.unwrap_or(base.files),
            log: self.log.unwrap_or(base.log),
            tmp: self.tmp.unwrap_or(base.tmp),
        }
    }

    /// What of it is more than those allow, in words.
    pub fn beyond(self, most: &Limits) -> Vec<String> {
        let size = |bytes: u64| show_size(bytes);
        let count = |number: u64| number.to_string();
        let cpu = |number: u64| format!("{}", number as f64 / 1000.0);
        let mut beyond = vec![];
        let mut look = |name: &str, wanted: Option<u64>, most: u64, show: &dyn Fn(u64) -> String| {
            if let Some(wanted) = wanted.filter(|wanted| *wanted > most) {
                beyond.push(format!("{name}={} is more than policy allows ({})", show(wanted), show(most)));
            }
        };
        look("memory", self.memory, most.memory, &size);
        look("processes", self.processes, most.processes, &count);
        look("open_files", self.open_files, most.open_files, &count);
        look("cpu", self.cpu, most.cpu, &cpu);
        look("disk", self.disk, most.disk, &size);
        look("files", self.files, most.files, &count);
        look("log", self.log, most.log, &size);
        look("tmp", self.tmp, most.tmp, &size);
        beyond
    }
}

/// Processors, to a thousandth: `2`, `0.5`.
fn parse_cpu(text: &str) -> Option<u64> {
    let number: f64 = text.bytes().all(|b| b.is_ascii_digit() || b == b'.').then(|| text.parse().ok())??;
    (number <= 4096.0).then_some((number * 1000.0).round() as u64)
}

const BINARY: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DECIMAL: [(&str, u64); 5] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB`, `GiB`, `TiB`
/// (powers of 1024) or `kB`, `MB`, `GB`, `TB` (powers of 1000); a bare number
/// is bytes. `None` for anything else and for what does not fit 63 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let word = text[digits..].strip_prefix(' ').unwrap_or(&text[digits..]);
    let unit = if word.is_empty() { 1 } else { BINARY.iter().chain(&DECIMAL).find(|(name, _)| *name == word)?.1 };
    number.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// Writes a size in the largest power of 1024 that divides it.
pub fn show_size(bytes: u64) -> String {
    for (name, unit) in BINARY {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_limits_are_shown_as_they_are_read() {
        let text = "memory=4GiB, disk=100MiB, cpu=1.5, processes=300, files=2000";
        assert_eq!(LimitsWanted::parse(text).unwrap().to_string(), text);
        assert_eq!(LimitsWanted::default().to_string(), "");
    }

    #[test]
    fn wanted_limits_are_read_as_people_write_them() {
        let wanted = LimitsWanted::parse("memory=4GiB, cpu = 1.5\nprocesses=300").unwrap();
        assert_eq!((wanted.memory, wanted.cpu, wanted.processes), (Some(4 << 30), Some(1500), Some(300)));
        assert_eq!(LimitsWanted::parse("").unwrap(), LimitsWanted::default());
    }

    #[test]
    fn what_is_no_limit_is_named() {
        for (text, why) in [
            ("memory", "no `=`"),
            ("memory=lots", "not a size"),
            ("memory=1KiB", "too little"),
            ("cpu=-1", "processors"),
            ("cpu=NaN", "processors"),
            ("cpu=1e9", "processors"),
            ("luck=7", "no such limit"),
            ("files=1.5", "whole number"),
            ("log=1MiB,log=2MiB", "twice"),
        ] {
            let error = LimitsWanted::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn more_than_policy_allows_is_named_with_both() {
        let most = Limits { memory: 2 << 30, ..LEAST };
        let wanted = LimitsWanted { memory: Some(4 << 30), cpu: Some(50), ..LimitsWanted::default() };
        assert_eq!(wanted.beyond(&most), ["memory=4GiB is more than policy allows (2GiB)"]);
    }
}
