//! What this host supports, found out once by a process of its own.
//!
//! Backends, and everything that runs git on the work of cells, need the same answer. It takes a separate process,
//! because the probe makes namespaces, which a program with threads may not do.

use crate::sandbox::{HostReport, program};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Why this host could not be probed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The probe could not be run.
    #[error("probing this host: {0}")]
    NotRun(std::io::Error),
    /// The probe ended without a readable answer.
    #[error("the probe gave no answer: {0}")]
    NoAnswer(serde_json::Error),
    /// The probe did not end by itself.
    #[error("the probe of this host was stopped")]
    Stopped,
}

/// The host and the result of its probe.
#[derive(Debug, Default)]
pub struct Host {
    program: Option<PathBuf>,
    report: tokio::sync::Mutex<Option<Arc<HostReport>>>,
}

impl Host {
    /// A host on which this program's file is `program`. Only tests, which run another program, use it.
    pub fn with_program(program: PathBuf) -> Self {
        Self { program: Some(program), ..Self::default() }
    }

    /// This program's file; `None` if it is the one that runs now.
    pub fn program(&self) -> Option<PathBuf> {
        self.program.clone()
    }

    /// The result of the probe. It runs at the first call, and again after each [`forget`](Self::forget).
    ///
    /// # Errors
    /// If the probe could not be run, or gave no answer.
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

    /// Makes the next call of [`report`](Self::report) probe again, because hosts change.
    pub async fn forget(&self) {
        *self.report.lock().await = None;
    }
}

/// Probes this host once. Blocks for some milliseconds.
///
/// # Errors
/// As for [`Host::report`].
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

/// The environment of this process. Variables that are not UTF-8 are left out.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The kernel's id of this boot; empty if the kernel does not provide one.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Time since the machine started, in milliseconds, including the time that it was suspended.
pub fn since_boot() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}
