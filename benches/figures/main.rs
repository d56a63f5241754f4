//! The figures of `docs/figures.md`, ours and their anchors side by side in one
//! run: `make bench`, or `make bench ONLY="cell_start status"` for some alone.
//!
//! Everything runs on loopback and below the target directory. The daemon is
//! the real binary as a process; a small forge that answers at once is in this
//! one. Cells and processes that were started are ended, also after a failure.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unused_self,
    missing_docs
)]
#![allow(clippy::unnecessary_debug_formatting, clippy::map_unwrap_or, clippy::redundant_closure_for_method_calls)]

mod cell_start;
mod daemon;
mod egress;
mod forge;
mod idle_cell;
mod ingest;
mod report;
mod status;
mod work;

use anyhow::Context as _;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The binary that is measured.
const LAZARUS: &str = env!("CARGO_BIN_EXE_lazarus");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments.first().map(String::as_str) {
        // What `ProcessBackend` asks of the program that it is in.
        Some("cell-launch") => {
            let run_root = rest.first().map_or("", String::as_str);
            return ExitCode::from(lazarus::keeper::launch(Path::new(run_root)) as u8);
        }
        Some("cell-probe") => {
            lazarus::cli::print_probe();
            return ExitCode::SUCCESS;
        }
        // What git on the host's side asks of it.
        Some("git-credential") => {
            let verb = rest.get(1).map_or("", String::as_str);
            let answer = lazarus::repository::credential_helper(Path::new(&rest[0]), verb);
            print!("{}", answer.unwrap_or_default());
            return ExitCode::SUCCESS;
        }
        Some("anchor-door") => return ended(ingest::anchor_door()),
        Some("egress-host") => return ended(egress::host()),
        Some("load") => return ended(ingest::load(rest)),
        _ => {}
    }
    if !arguments.iter().any(|a| a == "--bench") {
        // `cargo test --all-targets` runs this too; it is not a test.
        println!("the figures are measured by `make bench`");
        return ExitCode::SUCCESS;
    }
    let only: Vec<&str> = arguments.iter().map(String::as_str).filter(|a| !a.starts_with("--")).collect();
    ended(measure(&only))
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As many threads as the daemon has.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(16).enable_all().build()?)
}

/// A fresh directory below the target directory, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("figures-{}-{name}", std::process::id()));
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn measure(only: &[&str]) -> anyhow::Result<()> {
    let names = [
        "cell_start",
        "command_to_comment_p50",
        "command_to_comment_p99",
        "ingest",
        "idle_cell",
        "daemon_memory",
        "adopt",
        "status",
        "clone_1gb",
        "harvest_1000",
        "egress_throughput",
        "egress_latency",
    ];
    if let Some(unknown) = only.iter().find(|o| !names.iter().any(|n| n.starts_with(**o))) {
        anyhow::bail!("`{unknown}` is no figure; there are {}", names.join(", "));
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| name.starts_with(o));
    let mut report = Report::default();
    if wanted("cell_start") {
        runtime()?.block_on(cell_start::measure(&mut report)).context("cell_start")?;
    }
    if wanted("command_to_comment_p50") || wanted("daemon_memory") || wanted("adopt") {
        runtime()?.block_on(daemon::measure(&mut report)).context("command_to_comment, daemon_memory, adopt")?;
    }
    if wanted("ingest") {
        runtime()?.block_on(ingest::measure(&mut report)).context("ingest")?;
    }
    if wanted("idle_cell") {
        idle_cell::measure(&mut report).context("idle_cell")?;
    }
    if wanted("status") {
        runtime()?.block_on(status::measure(&mut report)).context("status")?;
    }
    if wanted("clone_1gb") {
        work::clone(&mut report).context("clone_1gb")?;
    }
    if wanted("harvest_1000") {
        runtime()?.block_on(work::harvest(&mut report)).context("harvest_1000")?;
    }
    if wanted("egress_throughput") || wanted("egress_latency") {
        egress::measure(&mut report).context("egress_throughput, egress_latency")?;
    }
    report.finish()
}
