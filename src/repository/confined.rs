//! Git on what came out of a cell: every one confined and bounded.
//!
//! The objects are the agents': a pack that unfolds, trees without end, names of
//! megabytes. Each git that reads them runs as [`Confined`], in a process group
//! of its own that is ended as a whole, and what it prints is read up to a bound
//! and no further.

use super::git::{GitError, dress};
use crate::sandbox::{Confined, Confinement, NOT_CONFINED, TIMED_OUT};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

/// Most of what git says on its standard error that is kept, in bytes.
const WORDS_MAX: u64 = 16 << 10;
const MIB: u64 = 1 << 20;

/// Why a git did not do what was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something of this machine's: it may work later.
    Machine(GitError),
    /// What it read is at fault, or more than the bounds allow; in words.
    Work(String),
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        Self::Machine(error)
    }
}

/// What one git may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Memory that each process may write to, in bytes.
    pub memory: u64,
    /// Processor time of each process, and time: seconds.
    pub time: u64,
    /// What it prints, in bytes.
    pub output: u64,
    /// Largest file that it may write, in bytes.
    pub file: u64,
}

impl Bounds {
    /// For git that reads objects of which one has at most `file` bytes: it holds
    /// two or three at once, and its lists beside them.
    pub(super) fn reading(file: u64) -> Self {
        Self { memory: (512 * MIB).saturating_add(file.saturating_mul(3)), time: 60, output: 64 * MIB, file: MIB }
    }

    /// For git that holds a list of what differs: of 100,000 files, the most that
    /// `harvest.files_max` can be, it needs less than half of this.
    pub(super) fn listing() -> Self {
        Self { memory: 192 * MIB, ..Self::reading(0) }
    }

    /// With more time for each megabyte of a pack.
    pub(super) fn and_for(self, pack: u64) -> Self {
        Self { time: self.time.saturating_add(pack / (2 * MIB)), file: pack.saturating_mul(2).max(MIB), ..self }
    }
}

/// How this host confines a git, and by which program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfinedGit {
    program: PathBuf,
    by: Confinement,
}

impl ConfinedGit {
    /// By `program`, which is this binary. `None` is the file that this process
    /// runs, even where that was replaced.
    pub fn new(program: Option<PathBuf>, by: Confinement) -> Self {
        Self { program: program.unwrap_or_else(|| "/proc/self/exe".into()), by }
    }

    /// How, in words.
    pub const fn words(&self) -> &'static str {
        self.by.words()
    }

    /// A git in `directory` that reads those directories and writes these.
    pub(super) fn git(&self, directory: &Path, read: &[&Path], write: &[&Path], bounds: Bounds) -> Command {
        self.command(directory, read, write, bounds, false)
    }

    /// A git that talks to the forge: its limits are the same, its walls are not.
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
            // A file that is larger is never held whole, where git can help it;
            // nor are more of the packs than that mapped at once.
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

/// A git that runs. Dropped, it is ended with all that it started.
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
                // What it says beyond that is let go, so that it does not wait for us.
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

    /// Its process group, which has the number of its first process.
    pub(super) fn group(&self) -> Option<rustix::process::Pid> {
        i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
    }

    /// Ends it, with its whole process group.
    pub(super) fn end(&mut self) {
        if let Some(group) = self.group() {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// Waits for its end, which its own limits bring about in any case.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let what = self.what;
        let (code, words) = self.outcome()?;
        if code == Some(0) { Ok(()) } else { Err(failure(what, code, &words)) }
    }

    /// The same, whatever came of it: the exit status, where there is one, and the
    /// end of what it said.
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
        // What this machine lacks is no fault of the work.
        _ if words.contains("No space left on device") => Failure::Machine(GitError::Git { what, words }),
        Some(TIMED_OUT) => Failure::Work(format!("git {what} took more time than it may: {words}")),
        // Its limits end it so: of processor time, and of the stack.
        Some(code) if code > 128 && code != 255 => Failure::Work(format!(
            "git {what} was ended by signal {}: it used more processor time, memory or stack than it may",
            code - 128
        )),
        None => Failure::Work(format!("git {what} was ended from outside")),
        Some(_) => Failure::Work(format!("git {what} failed: {words}")),
    }
}

/// The end of what git said, without what looks like a secret.
fn last_words(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let start = words.trim().char_indices().rev().nth(499).map_or(0, |(at, _)| at);
    crate::publication::redaction::redact(&words.trim()[start..]).0
}

/// Runs git to its end and returns what it printed; what is more than the bound
/// ends it.
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

/// The same with a file as its input.
pub(super) fn run_on(
    what: &'static str,
    command: &mut Command,
    input: impl Into<Stdio>,
    output: u64,
) -> Result<Vec<u8>, Failure> {
    run(what, command.stdin(input), output)
}
