//! Runs git on what came out of a cell, always confined and bounded.
//!
//! Agents control these objects: they may be a pack that unpacks to a huge size, endless trees, or names of
//! megabytes. Each git that reads them runs as [`Confined`], in a process group of its own that is ended as a
//! whole, and its output is read only up to a bound.

use super::git::{GitError, dress};
use crate::sandbox::{Confined, Confinement, NOT_CONFINED, TIMED_OUT};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

/// Most bytes of git's standard error that are kept.
const WORDS_MAX: u64 = 16 << 10;
const MIB: u64 = 1 << 20;

/// Why a git command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Because of this machine; it may work later.
    Machine(GitError),
    /// Because of the work that it read, which is invalid or exceeds the bounds; in words.
    Work(String),
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        Self::Machine(error)
    }
}

/// Resources that one git command may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Memory that each process may write to, in bytes.
    pub memory: u64,
    /// Processor time of each process, and total time, both in seconds.
    pub time: u64,
    /// Bytes that it may print.
    pub output: u64,
    /// Largest file that it may write, in bytes.
    pub file: u64,
}

impl Bounds {
    /// Bounds for git that reads objects of at most `file` bytes: it holds two or three of them at once, and its
    /// lists in addition.
    pub(super) fn reading(file: u64) -> Self {
        Self { memory: (512 * MIB).saturating_add(file.saturating_mul(3)), time: 60, output: 64 * MIB, file: MIB }
    }

    /// Bounds for git that holds a list of differences: for 100,000 files, the most that `harvest.files_max` can
    /// be, it needs less than half of this.
    pub(super) fn listing() -> Self {
        Self { memory: 192 * MIB, ..Self::reading(0) }
    }

    /// The same bounds with more time for each megabyte of a pack.
    pub(super) fn and_for(self, pack: u64) -> Self {
        Self { time: self.time.saturating_add(pack / (2 * MIB)), file: pack.saturating_mul(2).max(MIB), ..self }
    }
}

/// How this host confines git, and which program does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfinedGit {
    program: PathBuf,
    by: Confinement,
}

impl ConfinedGit {
    /// Confines by `program`, which is this binary. `None` means the file that this process runs, even if that was
    /// replaced.
    pub fn new(program: Option<PathBuf>, by: Confinement) -> Self {
        Self { program: program.unwrap_or_else(|| "/proc/self/exe".into()), by }
    }

    /// Describes the confinement, in words.
    pub const fn words(&self) -> &'static str {
        self.by.words()
    }

    /// A git command in `directory` that may read and write only the given directories.
    pub(super) fn git(&self, directory: &Path, read: &[&Path], write: &[&Path], bounds: Bounds) -> Command {
        self.command(directory, read, write, bounds, false)
    }

    /// A git command that talks to the forge. It has the same limits, but it is not kept in namespaces.
    pub(super) fn git_with_network(&self, directory: &Path, bounds: Bounds) -> Command {
        self.command(directory, &[], &[], bounds, true)
    }

    fn command(&self, directory: &Path, read: &[&Path], write: &[&Path], bounds: Bounds, network: bool) -> Command {
        let owned = |paths: &[&Path]| paths.iter().map(|path| path.to_path_buf()).collect();
        let spec = Confined {
            by: self.by,
            network,
            read: owned(read),
            write: owned(write),
            memory: bounds.memory,
            cpu: bounds.time,
            time: bounds.time,
            file: bounds.file,
        };
        let mut command = Command::new(&self.program);
        command.arg("confined").arg(serde_json::to_string(&spec).unwrap_or_default()).arg("git");
        let mut command = dress(command, Some(directory));
        command.args([
            // Git does not hold larger files in memory if it can avoid that, and maps no more of the packs than
            // this at once.
            "-c",
            "core.bigFileThreshold=16m",
            "-c",
            "core.packedGitWindowSize=16m",
            "-c",
            "core.packedGitLimit=256m",
            "-c",
            "core.deltaBaseCacheLimit=64m",
            "-c",
            "pack.threads=1",
            "-c",
            "pack.windowMemory=64m",
            "-c",
            "core.commitGraph=false",
            "-c",
            "log.showSignature=false",
        ]);
        command.env("GIT_NO_REPLACE_OBJECTS", "1").env("GIT_NO_LAZY_FETCH", "1");
        command
    }
}

/// A running git. Dropping it ends it together with everything that it started.
pub(super) struct Running {
    child: Child,
    what: &'static str,
    words: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    pub(super) fn start(what: &'static str, command: &mut Command) -> Result<Self, Failure> {
        let mut child = command.spawn().map_err(|e| Failure::Machine(GitError::NoGit(e)))?;
        let words = child.stderr.take().map(|mut stream| {
            std::thread::spawn(move || {
                let mut words = vec![];
                let _ = (&mut stream).take(WORDS_MAX).read_to_end(&mut words);
                // Further output is discarded, so that git does not block on a full pipe.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
                words
            })
        });
        Ok(Self { child, what, words })
    }

    pub(super) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its process group, whose id is the pid of its first process.
    pub(super) fn group(&self) -> Option<rustix::process::Pid> {
        i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
    }

    /// Kills it with its whole process group.
    pub(super) fn end(&mut self) {
        if let Some(group) = self.group() {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// Waits until it ends; its own limits make sure that it does.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let what = self.what;
        let (code, words) = self.outcome()?;
        if code == Some(0) { Ok(()) } else { Err(failure(what, code, &words)) }
    }

    /// Does the same, but returns its exit status, if it has one, and the end of its standard error instead of
    /// failing.
    pub(super) fn outcome(mut self) -> Result<(Option<i32>, String), Failure> {
        let tried = GitError::io(format!("waiting for git {}", self.what));
        let status = self.child.wait().map_err(|e| Failure::Machine(tried(e)))?;
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        Ok((status.code(), last_words(&words)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}

fn failure(what: &'static str, code: Option<i32>, words: &str) -> Failure {
    let words = words.to_owned();
    match code {
        Some(NOT_CONFINED) => Failure::Machine(GitError::Git { what, words }),
        // A lack of space on this machine is not the work's fault.
        _ if words.contains("No space left on device") => Failure::Machine(GitError::Git { what, words }),
        Some(TIMED_OUT) => Failure::Work(format!("git {what} took more time than it may: {words}")),
        // The kernel ends it this way when it exceeds its limit of processor time or stack.
        Some(code) if code > 128 && code != 255 => Failure::Work(format!(
            "git {what} was ended by signal {}: it used more processor time, memory or stack than it may",
            code - 128
        )),
        None => Failure::Work(format!("git {what} was ended from outside")),
        Some(_) => Failure::Work(format!("git {what} failed: {words}")),
    }
}

/// The end of what git printed, without anything that looks like a secret.
fn last_words(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let start = words.trim().char_indices().rev().nth(499).map_or(0, |(at, _)| at);
    crate::publication::redaction::redact(&words.trim()[start..]).0
}

/// Runs git until it ends and returns its output. Output beyond the bound ends it.
pub(super) fn run(what: &'static str, command: &mut Command, output: u64) -> Result<Vec<u8>, Failure> {
    let mut running = Running::start(what, command)?;
    let mut text = vec![];
    if let Some(stream) = running.stdout() {
        let read = stream.take(output.saturating_add(1)).read_to_end(&mut text);
        read.map_err(|e| Failure::Machine(GitError::io(format!("reading from git {what}"))(e)))?;
    }
    if text.len() as u64 > output {
        running.end();
        return Err(Failure::Work(format!("git {what} has more to say than the {output} bytes that are read")));
    }
    running.finish()?;
    Ok(text)
}

/// Does the same with a file as git's standard input.
pub(super) fn run_on(
    what: &'static str,
    command: &mut Command,
    input: impl Into<Stdio>,
    output: u64,
) -> Result<Vec<u8>, Failure> {
    run(what, command.stdin(input), output)
}
