//! `idle_cell`: what one cell without agents takes, of its keeper and of the
//! kernel together.

use crate::daemon::kilobytes;
use crate::report::{Figure, Limit, Report, median};
use crate::{LAZARUS, Place};
use anyhow::Context as _;
use lazarus::cell::CellId;
use lazarus::keeper::{DiskSpace, LaunchSpec, Prewarmed, Ready, SandboxKind};
use lazarus::sandbox::{Group, Groups, ProcessLimits, ResourceLimits};
use lazarus::workspace::Home;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const CELLS: usize = 100;
const ROUNDS: usize = 3;
/// What the kernel holds for cells besides the pages that are mapped.
const KERNEL: [&str; 5] = ["Slab", "KernelStack", "PageTables", "Percpu", "Shmem"];

struct Keeper(i32);

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0) {
            // The first process of its namespace: everything goes with it.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

/// Starts a keeper as the process backend does, from the real binary.
fn launch(place: &Path, cell: &CellId, slot: u32, namespaces: bool) -> anyhow::Result<Keeper> {
    let (home, runs) = (Home { path: place.join("cells").join(cell.as_str()) }, place.join("run"));
    let root = rustix::process::geteuid().is_root();
    let id_base = root.then_some(1_900_000_000 + 2 * slot);
    let spec = LaunchSpec {
        cell: cell.to_string(),
        home: home.path,
        run_dir: runs.join(cell.as_str()),
        program: LAZARUS.into(),
        id_base,
        objects: None,
        read_paths: vec![],
        hidden: vec![],
        bwrap: None,
        limits: ProcessLimits { open_files: 1024, file_size: 4 << 30, processes: None, data: None },
        resources: ResourceLimits { memory: 2 << 30, processes: 512, cpu: 2000 },
        room: DiskSpace { bytes: 4 << 30, files: 200_000 },
        harvest_room: DiskSpace { bytes: 4 << 30, files: 200_000 },
        quota: false,
        in_memory: false,
        tmp: 256 << 20,
        log: 16 << 20,
        egress: None,
    };
    let mut launcher = Command::new(LAZARUS)
        .arg("cell-launch")
        .arg(runs)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let sandbox = SandboxKind { namespaces, bwrap: false, host_network: !namespaces, pinned: false };
    let prewarmed = Prewarmed { sandbox, groups: Groups::detect() };
    let order = format!("{}\n{}\n", serde_json::to_string(&prewarmed)?, serde_json::to_string(&spec)?);
    launcher.stdin.take().context("the launcher has no input")?.write_all(order.as_bytes())?;
    let stdout = launcher.stdout.take().context("the launcher has no output")?;
    let mut keeper = None;
    let mut listening = false;
    for line in BufReader::new(stdout).lines().take(2) {
        match serde_json::from_str(&line?)? {
            Ready::Launched { pid } => keeper = Some(Keeper(pid)),
            Ready::Listening { .. } => listening = true,
            Ready::Failed { why, .. } => anyhow::bail!("the keeper did not start: {why}"),
        }
    }
    launcher.wait()?;
    anyhow::ensure!(listening, "the keeper did not say that it listens");
    keeper.context("the launcher named no keeper")
}

/// `/proc/meminfo`, in kB.
fn memory() -> anyhow::Result<BTreeMap<String, f64>> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
        })
        .collect())
}

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    println!("idle_cell: {ROUNDS} times {CELLS} cells");
    let namespaces = lazarus_gives_level_2()?;
    let (mut all, mut own, mut kernel, mut available) = (vec![], vec![], vec![], vec![]);
    let mut parts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        let place = Place::new(&format!("idle-{round}"))?;
        // Files are there before: what they take is not the cell's memory.
        let cells: Vec<CellId> = (0..CELLS).map(|_| crate::cell_start::new_cell()).collect();
        for cell in &cells {
            let home = Home { path: place.0.join("cells").join(cell.as_str()) };
            home.make()?;
            std::fs::create_dir_all(home.path.join("project"))?;
        }
        std::fs::create_dir_all(place.0.join("run"))?;
        std::thread::sleep(Duration::from_secs(1));
        let before = memory()?;
        let mut keepers = vec![];
        for (slot, cell) in cells.iter().enumerate() {
            keepers.push(launch(&place.0, cell, slot as u32, namespaces)?);
        }
        std::thread::sleep(Duration::from_secs(1));
        let after = memory()?;
        let grown = |name: &str| (after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0)) / CELLS as f64;
        let pss: anyhow::Result<Vec<f64>> =
            keepers.iter().map(|k| kilobytes(k.0 as u32, "smaps_rollup", "Pss:")).collect();
        drop(keepers);
        for cell in &cells {
            // Keepers that were killed leave their control groups behind.
            let group = std::fs::read(place.0.join("run").join(cell.as_str()).join(lazarus::keeper::GROUP))?;
            serde_json::from_slice::<Group>(&group)?.remove();
        }
        // The namespaces are taken down after their processes are gone.
        std::thread::sleep(Duration::from_secs(2));
        // The first round fills the kernel's caches.
        if round == 0 {
            continue;
        }
        // Another user's eye may not look into a keeper: then what the system
        // as a whole has less is all there is.
        let pss = pss.map(|p| p.iter().sum::<f64>() / CELLS as f64).unwrap_or_else(|_| grown("AnonPages"));
        let held: f64 = KERNEL.iter().map(|name| grown(name)).sum();
        for name in KERNEL {
            parts.entry(name).or_default().push(grown(name));
        }
        own.push(pss);
        kernel.push(held);
        all.push(pss + held);
        available.push(-grown("MemAvailable"));
    }
    report.add(Figure {
        name: "idle_cell",
        value: median(&all) / 1024.0,
        unit: "MB",
        anchor: None,
        limit: Limit::Value(0.8),
    });
    let named: Vec<String> = parts.iter().map(|(name, values)| format!("{name} {:.0}", median(values))).collect();
    report.note(format!(
        "idle_cell: keeper {:.0} kB, kernel {:.0} kB ({}); the system has {:.0} kB less available for each",
        median(&own),
        median(&kernel),
        named.join(", "),
        median(&available)
    ));
    if !namespaces {
        report.note("idle_cell: this host gives no level_2; there were no namespaces to measure");
    }
    Ok(())
}

fn lazarus_gives_level_2() -> anyhow::Result<bool> {
    let output = Command::new(LAZARUS).arg("cell-probe").stdin(Stdio::null()).output()?;
    let report: lazarus::sandbox::HostReport = serde_json::from_slice(&output.stdout)?;
    Ok(report.level_2())
}
