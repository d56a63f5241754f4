//! What this host can give, asked once of a process of its own.
//!
//! Backends and whatever runs git on the work of cells need the same answer, and it takes a process to find it out:
//! the probe makes namespaces, which a program with threads may not.

use crate::sandbox::{HostReport, program};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Why this host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The probe could not be run.
    #[error("probing this host: {0}")]
    NotRun(std::io::Error),
    /// It ended and said nothing that can be read.
    #[error("the probe gave no answer: {0}")]
    NoAnswer(serde_json::Error),
    /// It did not end by itself.
    #[error("the probe of this host was stopped")]
    Stopped,
}

/// This host, as it was found to be.
#[derive(Debug, Default)]
pub struct Host {
    program: Option<PathBuf>,
    report: tokio::sync::Mutex<Option<Arc<HostReport>>>,
}

impl Host {
    /// A host on which this program's file is `program`, for processes that run another: tests.
    pub fn with_program(program: PathBuf) -> Self {
        Self { program: Some(program), ..Self::default() }
    }

    /// This program's file, where it is not the one that runs now.
    pub fn program(&self) -> Option<PathBuf> {
        self.program.clone()
    }

    /// What it gives. It is probed the first time, and after each [`forget`](Self::forget).
    ///
    /// # Errors
    /// Where the probe could not be run, or gave no answer.
    pub async fn report(&self) -> Result<Arc<HostReport>, HostError> {
        let mut report = self.report.lock().await;
        if let Some(known) = &*report {
            return Ok(Arc::clone(known));
        }
        let program = self.program();
        let probed = tokio::task::spawn_blocking(move || probe_by(program)).await;
        let probed = Arc::new(probed.map_err(|_| HostError::Stopped)??);
        *report = Some(Arc::clone(&probed));
        Ok(probed)
    }

    /// Has the host looked at anew the next time: hosts change.
    pub async fn forget(&self) {
        *self.report.lock().await = None;
    }
}

/// Probes this host once. Blocks for some milliseconds.
///
/// # Errors
/// As [`Host::report`].
pub fn probe() -> Result<HostReport, HostError> {
    probe_by(None)
}

fn probe_by(program: Option<PathBuf>) -> Result<HostReport, HostError> {
    let program = program.unwrap_or_else(|| program::RUNNING.into());
    let mut probe = Command::new(program);
    std::os::unix::process::CommandExt::arg0(&mut probe, "lazarus");
    let output = probe.arg("cell-probe").stdin(Stdio::null()).output().map_err(HostError::NotRun)?;
    serde_json::from_slice(&output.stdout).map_err(HostError::NoAnswer)
}

/// What the kernel calls this run of the machine; nothing where it does not say.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Time since the machine started, in milliseconds, with the time that it slept.
pub fn since_boot() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}
