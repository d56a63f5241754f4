//! Launchers: the processes that make a cell's keeper, see [`crate::keeper`].
//!
//! One launcher is on standby for the next cell, with everything prewarmed that is the same for every cell. But the
//! machine changes meanwhile: packages replace files, file systems are mounted, groups are removed. So whoever
//! takes the launcher first checks whether it [is still good](Launcher::is_good), and a start that failed is
//! repeated with a new launcher.

use crate::keeper::{LaunchSpec, Prewarmed, Ready, clear_prewarmed};
use crate::sandbox::{SystemMark, is_passing, program};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a launcher and its keeper may take until the keeper listens.
const LAUNCH_MAX: Duration = Duration::from_secs(30);
/// Most bytes that both may write to their output.
const WORDS_MAX: usize = 1 << 20;

/// The process of a launcher. It ends by itself when its input closes.
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
    /// Whether a later attempt may succeed without anybody changing anything.
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
    /// Starts a launcher from the image that runs now, and has it make that sandbox.
    pub(super) fn spawn(run_root: &Path, prewarmed: Prewarmed) -> Result<Self, NotLaunched> {
        // Taken before the launcher looks at the system, so that later changes are noticed.
        let mark = SystemMark::take();
        let mut command = Command::new(program::RUNNING);
        command.arg0("lazarus").arg("cell-launch").arg(run_root).env_clear();
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let process = process.map_err(|error| NotLaunched::io("running the launcher", &error))?;
        let mut launcher = Self { process, run_root: run_root.to_owned(), prewarmed, mark };
        if let Some(input) = &mut launcher.process.stdin {
            let said = input.write_all(&super::connection::line_of(&launcher.prewarmed));
            said.map_err(|error| NotLaunched::io("telling the launcher which sandbox to make", &error))?;
        }
        Ok(launcher)
    }

    /// Whether it was made for this kind of sandbox.
    pub(super) fn is_for(&self, prewarmed: &Prewarmed) -> bool {
        self.prewarmed == *prewarmed
    }

    /// Whether what it prewarmed is still what a new launcher would make.
    pub(super) fn is_good(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None)) && self.mark == SystemMark::take()
    }

    /// Tells it which cell to launch, and waits until the keeper listens. Returns the keeper's pid.
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
                    None => break NotLaunched::passing("the keeper listens, but the launcher did not report its pid"),
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
            // Without its launcher the keeper ends by itself, unless it hangs. It is our own child and not yet
            // reaped, so its pid cannot belong to another process.
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
        // The launcher was not needed, so the keeper that it made is not needed either; it is reaped here.
        let said = self.process.stdout.take().and_then(|stdout| BufReader::new(stdout).lines().next()?.ok());
        if let Some(Ok(Ready::Launched { pid })) = said.map(|line| serde_json::from_str(&line)) {
            reap(pid);
        }
        if !ended.is_ok_and(|status| status.success()) {
            // The launcher may have been killed before it could clean up.
            clear_prewarmed(&self.run_root, Some(self.process.id()));
        }
    }
}

/// Reads messages line by line as they arrive.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    /// The next message; `None` at the end of the output.
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
                Ok(0) => {
                    return Err(io::Error::other(format!(
                        "the keeper did not listen within {} s",
                        LAUNCH_MAX.as_secs()
                    )));
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut bytes = [0; 4096];
            match from.read(&mut bytes)? {
                0 => return Ok(None),
                _ if self.0.len() > WORDS_MAX => return Err(io::Error::other("it wrote more than the limit of 1 MiB")),
                read => self.0.extend_from_slice(&bytes[..read]),
            }
        }
    }
}

/// Reaps a child of this process that ended.
pub(super) fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
}
