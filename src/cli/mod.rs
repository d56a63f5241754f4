//! The command line.

pub mod config;
pub mod doctor;
pub mod init;

use std::process::ExitCode;

/// Probes this host and prints the findings as JSON, one line.
#[allow(clippy::print_stdout, reason = "this is the answer to whoever ran it")]
pub fn print_probe() {
    let report = crate::sandbox::probe();
    println!("{}", serde_json::to_string(&report).unwrap_or_default());
}

/// Reads what was done in the clone at the working directory since `base` and
/// prints it as JSON, one line. Runs inside a cell.
#[allow(clippy::print_stdout, reason = "this is the answer to whoever ran it")]
pub fn print_harvest(base: &str) {
    println!("{}", serde_json::to_string(&crate::workspace::read_work(base)).unwrap_or_default());
}

/// Runs the command line.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
