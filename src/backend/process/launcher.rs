//! Launchers: the processes that make a cell's first one, see [`crate::keeper`].
//!
//! One waits for the next cell, with everything made that is the same for every cell. What it made was true
//! when it was made, and the machine goes on meanwhile: packages replace files, file systems are mounted, groups
//! are removed. So whoever takes it asks first whether it [is still good](Launcher::is_good), and a start that failed is
//! made again with a new one.

use crate::keeper::{LaunchSpec, Prewarmed, Ready, clear_prewarmed};
use crate::sandbox::{SystemMark, is_passing, program};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a launcher and the keeper that it makes may take until that listens.
const LAUNCH_MAX: Duration = Duration::from_secs(30);
/// Most that both say, in bytes.
const WORDS_MAX: usize = 1 << 20;

/// A launcher's process. It ends by itself when its input does.
pub(super) struct Launcher {
    process: Child,
    run_root: PathBuf,
    prewarmed: Prewarmed,
    mark: SystemMark,
}

/// Why a keeper does not run.
#[derive(Debug, Clone)]
pub(super) struct NotLaunched {
    /// Which step failed, and why.
    pub why: String,
    /// Whether it may well go later, with nobody changing anything.
    pub passing: bool,
}

impl NotLaunched {
    fn io(tried: &str, error: &io::Error) -> Self {
        Self { why: format!("{tried}: {error}"), passing: is_passing(error) }
    }

    fn passing(why: &str) -> Self {
        Self { why: why.to_owned(), passing: true }
    }
}

impl Launcher {
    /// Starts one, of the image that runs now, and has it make those walls.
    pub(super) fn spawn(run_root: &Path, prewarmed: Prewarmed) -> Result<Self, NotLaunched> {
        // Before it looks: what changes from here on is found to be different.
        let mark = SystemMark::take();
        let mut command = Command::new(program::RUNNING);
        command.arg0("lazarus").arg("cell-launch").arg(run_root).env_clear();
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let process = process.map_err(|error| NotLaunched::io("running the launcher", &error))?;
        let mut launcher = Self { process, run_root: run_root.to_owned(), prewarmed, mark };
        if let Some(input) = &mut launcher.process.stdin {
            let said = input.write_all(&super::connection::line_of(&launcher.prewarmed));
            said.map_err(|error| NotLaunched::io("telling the launcher which walls to make", &error))?;
        }
        Ok(launcher)
    }

    /// Whether it was made for those walls.
    pub(super) fn is_for(&self, prewarmed: &Prewarmed) -> bool {
        self.prewarmed == *prewarmed
    }

    /// Whether what it made is still what one would make now.
    pub(super) fn is_good(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None)) && self.mark == SystemMark::take()
    }

    /// Says what to launch and waits for the keeper's first words. Returns its pid.
    pub(super) fn launch(mut self, spec: &LaunchSpec) -> Result<i32, NotLaunched> {
        let gone = || NotLaunched::passing("the launcher ended before it could be told what to launch");
        let sent = self.process.stdin.take().map(|mut input| input.write_all(&super::connection::line_of(spec)));
        let (Some(Ok(())), Some(mut output)) = (sent, self.process.stdout.take()) else { return Err(gone()) };
        let until = Instant::now() + LAUNCH_MAX;
        let mut said = Words::default();
        let (mut keeper, mut hangs) = (None, false);
        let failed = loop {
            match said.next(&mut output, until) {
                Ok(Some(Ready::Launched { pid })) => keeper = Some(pid),
                Ok(Some(Ready::Listening { .. })) => match keeper {
                    Some(pid) => return Ok(pid),
                    None => break NotLaunched::passing("a keeper listens that has no number"),
                },
                Ok(Some(Ready::Failed { why, passing })) => break NotLaunched { why, passing },
                Ok(None) if keeper.is_none() => break gone(),
                Ok(None) => break NotLaunched::passing("the keeper ended before it could listen"),
                Err(error) => {
                    hangs = true;
                    let _ = self.process.kill();
                    break NotLaunched { passing: true, ..NotLaunched::io("waiting for the keeper", &error) };
                }
            }
        };
        if let Some(pid) = keeper {
            // Without its launcher it ends by itself, unless it hangs. A child of ours that was not collected:
            // nobody else has its number.
            if let Some(pid) = Pid::from_raw(pid).filter(|_| hangs) {
                let _ = kill_process(pid, Signal::KILL);
            }
            reap(pid);
        }
        Err(failed)
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let ended = self.process.wait();
        // It was not needed, and neither is the keeper that it made.
        let said = self.process.stdout.take().and_then(|stdout| BufReader::new(stdout).lines().next()?.ok());
        if let Some(Ok(Ready::Launched { pid })) = said.map(|line| serde_json::from_str(&line)) {
            reap(pid);
        }
        if !ended.is_ok_and(|status| status.success()) {
            // It may have been killed, and not have tidied up.
            clear_prewarmed(&self.run_root, Some(self.process.id()));
        }
    }
}

/// Lines as they come.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    /// The next line; nothing where there is no more.
    fn next(&mut self, from: &mut ChildStdout, until: Instant) -> io::Result<Option<Ready>> {
        loop {
            if let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.0.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(io::Error::other);
            }
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut polled = [PollFd::new(&*from, PollFlags::IN)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Err(io::Error::other(format!("it did not listen within {} s", LAUNCH_MAX.as_secs()))),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut bytes = [0; 4096];
            match from.read(&mut bytes)? {
                0 => return Ok(None),
                _ if self.0.len() > WORDS_MAX => return Err(io::Error::other("it says too much")),
                read => self.0.extend_from_slice(&bytes[..read]),
            }
        }
    }
}

/// Collects a child of this process that ended.
pub(super) fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
}
