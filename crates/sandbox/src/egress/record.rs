//! The record of what the proxy carried and refused: counters in a file that is always replaced as
//! a whole, and refusals as lines of JSON in a file that grows up to a limit. Both hold only hosts
//! and numbers: no paths, queries, headers or tokens.

use lazarus_core::hosts::Asked;
use rustix::fs::{Mode, OFlags, openat, renameat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counters' file, in the proxy's directory.
pub const REPORT: &str = "egress.json";
/// The file of refusals, in the proxy's directory.
pub const REFUSALS: &str = "refusals.jsonl";
/// Longest line of a refusal, in bytes, with its newline.
pub const LINE_MAX: usize = 512;
/// Most bytes of refusals that are written. Later refusals are only counted.
pub const LOG_MAX: u64 = 1 << 20;
/// Most hosts that are counted by name; a wildcard rule can match any number. The rest are counted
/// together.
const HOSTS_MAX: usize = 256;
/// Largest counters' file that is read back, in bytes.
const REPORT_MAX: u64 = 1 << 20;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No rule names the host and port.
    NotNamed,
    /// The request does not name a valid host and port.
    BadName,
    /// The name resolves to an address that is not public.
    Address,
    /// The request carries a wrong token.
    Token,
    /// The request is not one for a proxy: it has no absolute `http:` URI.
    NotAbsolute,
    /// The `Host` header names another host than the URI.
    HostHeader,
    /// The tunnel does not begin with TLS.
    NotTls,
    /// The ClientHello cannot be read.
    BadHello,
    /// The ClientHello has no server name.
    NoServerName,
    /// The ClientHello names another host than CONNECT did.
    ServerName,
    /// The ClientHello may contain an encrypted name.
    EncryptedName,
    /// The request asks for another protocol on the connection.
    Upgrade,
    /// The request is ambiguous or invalid.
    Malformed,
    /// The head has more than 8 KiB.
    HeadTooLarge,
}

impl Reason {
    /// What was refused, in words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotNamed => "a host or port that is not named",
            Self::BadName => "what is no name of a host",
            Self::Address => "a name that leads to an address that is not everybody's",
            Self::Token => "a wrong token",
            Self::NotAbsolute => "a request that is not a proxy's",
            Self::HostHeader => "a Host header for another host",
            Self::NotTls => "a tunnel without TLS",
            Self::BadHello => "a TLS greeting that cannot be read",
            Self::NoServerName => "a TLS greeting without a name",
            Self::ServerName => "a TLS greeting for another host",
            Self::EncryptedName => "a TLS greeting with a hidden name",
            Self::Upgrade => "a change of protocol",
            Self::Malformed => "a request that is none, or more than one",
            Self::HeadTooLarge => "a request with a head that is too large",
        }
    }

    /// The word that files and headers use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotNamed => "not_named",
            Self::BadName => "bad_name",
            Self::Address => "address",
            Self::Token => "token",
            Self::NotAbsolute => "not_absolute",
            Self::HostHeader => "host_header",
            Self::NotTls => "not_tls",
            Self::BadHello => "bad_hello",
            Self::NoServerName => "no_server_name",
            Self::ServerName => "server_name",
            Self::EncryptedName => "encrypted_name",
            Self::Upgrade => "upgrade",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
        }
    }
}

/// One line of [`REFUSALS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When the request was refused.
    pub at: jiff::Timestamp,
    /// Why it was refused.
    pub reason: Reason,
    /// The host that was asked for; `None` if the request named no valid host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port that was asked for, under the same condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The address that the name resolved to, if the address is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The kind of address, or what is wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Counts for one host and port, or for several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// Connections that were made.
    pub connections: u64,
    /// Bytes that the cell sent.
    pub bytes_out: u64,
    /// Bytes that the cell received.
    pub bytes_in: u64,
}

/// The content of [`REPORT`], which the close log uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Counts by `host:port`, at most 256 of them.
    pub hosts: BTreeMap<String, Count>,
    /// Counts of all other hosts together.
    pub other_hosts: Count,
    /// Number of refusals, by reason.
    pub refused: BTreeMap<Reason, u64>,
    /// Refusals without a line in [`REFUSALS`], because that file was full.
    pub refused_without_line: u64,
    /// Requests without a token, which were answered by asking for it; `git` always begins that
    /// way.
    pub asked_for_token: u64,
    /// Connections that were allowed but failed: the host could not be resolved or reached.
    pub failed: u64,
    /// Whether the proxy has ended in order. If false, it still runs or it died.
    pub ended: bool,
}

impl Report {
    /// Number of all refusals.
    pub fn refused_in_all(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Reads the counters of a proxy, while it runs or afterwards. `None` if it has written none
    /// yet.
    ///
    /// # Errors
    /// If the file cannot be read or is not a report.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        read_report(rustix::fs::open(directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?.as_fd())
    }
}

/// Reads what a proxy refused: lines of [`Refusal`], at most [`LOG_MAX`] bytes. Empty if there is
/// no such file. The directory belongs to the proxy, so no link in it is followed.
pub fn refusals(directory: &Path) -> Vec<u8> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let read = || -> io::Result<Vec<u8>> {
        let directory = rustix::fs::open(directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let file = File::from(openat(&directory, REFUSALS, flags, Mode::empty())?);
        let mut text = vec![];
        if file.metadata()?.is_file() {
            file.take(LOG_MAX).read_to_end(&mut text)?;
        }
        Ok(text)
    };
    read().unwrap_or_default()
}

fn read_report(directory: impl std::os::fd::AsFd) -> io::Result<Option<Report>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat(directory, REPORT, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => File::from(other?),
    };
    let mut text = vec![];
    file.take(REPORT_MAX).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map(Some).map_err(io::Error::other)
}

/// Live counters of one host.
#[derive(Debug, Default)]
pub struct Live {
    connections: AtomicU64,
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
}

impl Live {
    fn of(count: Count) -> Self {
        Self {
            connections: count.connections.into(),
            bytes_out: count.bytes_out.into(),
            bytes_in: count.bytes_in.into(),
        }
    }

    fn now(&self) -> Count {
        Count {
            connections: self.connections.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
        }
    }

    /// Counts bytes that were forwarded from the cell.
    pub fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that arrived for the cell.
    pub fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct State {
    hosts: BTreeMap<String, Arc<Live>>,
    other_hosts: Arc<Live>,
    refused: BTreeMap<Reason, u64>,
    refused_without_line: u64,
    asked_for_token: u64,
    failed: u64,
    log: Option<File>,
    log_length: u64,
    written: Report,
}

/// The record of one proxy.
#[derive(Debug, Default)]
pub struct Record {
    directory: Option<OwnedFd>,
    state: Mutex<State>,
}

impl Record {
    /// Creates a record in a directory that only the proxy uses. It continues from what an earlier
    /// proxy of the same cell left there. (`Record::default()` only counts in memory.)
    ///
    /// # Errors
    /// If its files cannot be created.
    pub fn in_directory(directory: OwnedFd) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let log = File::from(openat(&directory, REFUSALS, flags, Mode::from_raw_mode(0o600))?);
        let log_length = log.metadata()?.len();
        // A damaged report must not keep a cell from its network, so we start again at zero.
        let before = read_report(&directory).ok().flatten().unwrap_or_default();
        let state = State {
            hosts: before.hosts.into_iter().map(|(host, count)| (host, Arc::new(Live::of(count)))).collect(),
            other_hosts: Arc::new(Live::of(before.other_hosts)),
            refused: before.refused,
            refused_without_line: before.refused_without_line,
            asked_for_token: before.asked_for_token,
            failed: before.failed,
            log: Some(log),
            log_length,
            written: Report::default(),
        };
        Ok(Self { directory: Some(directory), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new connection to a host. The caller adds its traffic to what this returns.
    pub fn connected(&self, asked: &Asked) -> Arc<Live> {
        let mut state = self.state();
        let known = state.hosts.len();
        let live = match state.hosts.entry(asked.to_string()) {
            std::collections::btree_map::Entry::Occupied(entry) => Arc::clone(entry.get()),
            std::collections::btree_map::Entry::Vacant(entry) if known < HOSTS_MAX => {
                Arc::clone(entry.insert(Arc::default()))
            }
            std::collections::btree_map::Entry::Vacant(_) => Arc::clone(&state.other_hosts),
        };
        live.connections.fetch_add(1, Ordering::Relaxed);
        live
    }

    /// Counts a request without a token, as a program's first request often is.
    pub fn asked_for_token(&self) {
        self.state().asked_for_token += 1;
    }

    /// Counts an allowed host that could not be resolved or reached.
    pub fn failed(&self) {
        self.state().failed += 1;
    }

    /// Records a refusal.
    pub fn refused(&self, reason: Reason, asked: Option<&Asked>, address: Option<IpAddr>, detail: Option<String>) {
        let refusal = Refusal {
            at: jiff::Timestamp::now(),
            reason,
            host: asked.map(|a| a.host.to_string()),
            port: asked.map(|a| a.port),
            address,
            // Shortened so that the line stays below its limit even with the longest name and
            // address.
            detail: detail
                .map(|d| d.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).take(80).collect()),
        };
        let mut line = serde_json::to_vec(&refusal).unwrap_or_default();
        line.push(b'\n');
        let mut state = self.state();
        *state.refused.entry(reason).or_default() += 1;
        let room = state.log_length + line.len() as u64 <= LOG_MAX && line.len() <= LINE_MAX;
        // One write, so that a line is there completely or not at all.
        let written = room && state.log.as_mut().is_some_and(|log| log.write_all(&line).is_ok());
        if written {
            state.log_length += line.len() as u64;
        } else {
            state.refused_without_line += 1;
        }
    }

    /// The current counters.
    pub fn report(&self) -> Report {
        let state = self.state();
        Report {
            hosts: state.hosts.iter().map(|(host, live)| (host.clone(), live.now())).collect(),
            other_hosts: state.other_hosts.now(),
            refused: state.refused.clone(),
            refused_without_line: state.refused_without_line,
            asked_for_token: state.asked_for_token,
            failed: state.failed,
            ended: false,
        }
    }

    /// Writes the counters, if they changed since the last time.
    ///
    /// # Errors
    /// If the file cannot be replaced.
    pub fn write(&self, ended: bool) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let report = Report { ended, ..self.report() };
        if self.state().written == report {
            return Ok(());
        }
        let new = "egress.json.new";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(directory, new, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(&serde_json::to_vec(&report)?)?;
        if ended {
            file.sync_all()?;
        }
        renameat(directory, new, directory, REPORT)?;
        self.state().written = report;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn the_longest_refusal_is_a_line_of_at_most_512_bytes() {
        let place = tempfile::tempdir().unwrap();
        let record = Record::in_directory(directory(place.path())).unwrap();
        let asked = Asked::parse(&format!("{}{}:65535", "a.".repeat(126), "b"), None).unwrap();
        let address = "1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap();
        record.refused(Reason::NoServerName, Some(&asked), Some(address), Some("\"x\n\u{1b}é".repeat(60)));
        let text = std::fs::read_to_string(place.path().join(REFUSALS)).unwrap();
        assert!(text.len() <= LINE_MAX, "{}", text.len());
        assert_eq!(text.lines().count(), 1);
        let refusal: Refusal = serde_json::from_str(&text).unwrap();
        assert_eq!((refusal.port, refusal.address), (Some(65535), Some(address)));
    }

    #[test]
    fn refusals_beyond_the_files_limit_are_counted_and_a_successor_goes_on() {
        let place = tempfile::tempdir().unwrap();
        let record = Record::in_directory(directory(place.path())).unwrap();
        let asked = Asked::parse("a.example.org:443", None).unwrap();
        for _ in 0..20_000 {
            record.refused(Reason::NotNamed, Some(&asked), None, None);
        }
        record.connected(&asked).sent(7);
        record.write(true).unwrap();
        let length = std::fs::metadata(place.path().join(REFUSALS)).unwrap().len();
        assert!(length <= LOG_MAX, "{length}");
        drop(record);

        let record = Record::in_directory(directory(place.path())).unwrap();
        record.connected(&asked).received(5);
        record.refused(Reason::NotNamed, Some(&asked), None, None);
        record.write(false).unwrap();
        let report = Report::read(place.path()).unwrap().unwrap();
        assert_eq!(report.refused_in_all(), 20_001);
        assert!(report.refused_without_line > 0 && !report.ended);
        assert_eq!(report.hosts["a.example.org:443"], Count { connections: 2, bytes_out: 7, bytes_in: 5 });
    }

    #[test]
    fn however_many_hosts_a_wildcard_makes_256_are_named() {
        let record = Record::default();
        for host in 0..1_000 {
            record.connected(&Asked::parse(&format!("h{host}.example.org:443"), None).unwrap());
        }
        let report = record.report();
        assert_eq!((report.hosts.len(), report.other_hosts.connections), (256, 744));
    }
}
