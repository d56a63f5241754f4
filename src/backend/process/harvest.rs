//! Harvests the work of a cell with git inside the cell's own sandbox, because agents control the clone and can
//! make git run anything.

use super::ProcessBackend;
use super::place::Inside;
use crate::backend::{CellSpec, HandedWork, HarvestRequest};
use crate::keeper::{AgentState, HARVESTER, Order, StartAgent, View};
use crate::sandbox::{LandlockPaths, quota};
use crate::workspace::{HarvestManifest, HarvestOrder, HomeError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a harvest may take.
const HAND_OUT_MAX: Duration = Duration::from_secs(300);
/// Longest line in which the harvester reports its result, in bytes.
const HANDED_OUT_MAX: u64 = 128 << 10;

impl ProcessBackend {
    /// Harvests the work. `run` must be larger in each call.
    pub(super) async fn hand_out(&self, spec: &CellSpec, request: HarvestRequest, run: u32) -> HandedWork {
        match self.try_to_hand_out(spec, request, run).await {
            Ok(manifest) => {
                let directory = self.roots.home(&spec.cell).path.join("home").join(HARVESTER);
                HandedWork::in_directory(manifest, &directory)
            }
            Err(why) => HandedWork::unknown(why),
        }
    }

    /// Harvests the work. The error says in words why that failed.
    async fn try_to_hand_out(
        &self,
        spec: &CellSpec,
        request: HarvestRequest,
        run: u32,
    ) -> Result<HarvestManifest, String> {
        let keeper = self.keeper(&spec.cell).ok_or("the cell's keeper is gone")?;
        let home = self.roots.home(&spec.cell);
        let inside = Inside::of(&keeper.running, &home);
        // Done only now: most cells are never harvested before their end, and a start should not wait for this.
        let (place, uid) = (home.clone(), self.agents_uid(spec.slot).await);
        let made = tokio::task::spawn_blocking(move || {
            place.make_agent(HARVESTER, uid)?;
            // With quotas, the space that the harvest uses must not count as the agents'.
            let _ = quota::exempt(&place.path.join("home").join(HARVESTER));
            Ok::<(), HomeError>(())
        });
        made.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let own = inside.home_of(HARVESTER);
        let log = self.roots.run_dir(&spec.cell).join("keeper").join(format!("{HARVESTER}.log"));
        let program = inside.program().map_err(|e| format!("finding this program's file: {e}"))?;
        let order = HarvestOrder { request, into: own.clone() };
        let start = StartAgent {
            agent: HARVESTER.to_owned(),
            run,
            argv: vec![
                program.display().to_string(),
                "cell-harvest".to_owned(),
                serde_json::to_string(&order).unwrap_or_default(),
            ],
            env: vec![
                ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
                ("HOME".to_owned(), "/nonexistent".to_owned()),
                ("LC_ALL".to_owned(), "C".to_owned()),
            ],
            stdin: None,
            cwd: inside.at("project"),
            view: View::Observe,
            paths: LandlockPaths {
                read: if inside.has_root() {
                    vec!["/".into()]
                } else {
                    let own = [program, inside.at("project"), inside.at("work"), inside.at("shared")];
                    self.read_paths_without_a_root(&[], &own)
                },
                write: vec![PathBuf::from("/dev/null"), own],
            },
            ptrace: false,
        };
        keeper.orders.send(Order::Start(start)).map_err(|_| "the cell's keeper is gone")?;
        let ended = |agents: &[AgentState]| agents.iter().any(|a| a.agent == HARVESTER && a.run >= run && !a.running);
        self.wait_for(&keeper, HAND_OUT_MAX, ended).await.map_err(|e| e.to_string())?;
        let text = tokio::task::spawn_blocking(move || end_of(&log)).await.unwrap_or_default();
        // Takes the last such line: the log is only appended to, and a harvest may be repeated.
        let line = text.split(|b| *b == b'\n').rfind(|l| l.starts_with(b"{")).unwrap_or_default();
        serde_json::from_slice(line).map_err(|_| {
            let words: String = String::from_utf8_lossy(&text).chars().take(200).collect();
            format!("the clone could not be read: {}", words.trim())
        })
    }
}

/// Reads the end of a harvester's log, for its last line. Agents may have influenced all of its content.
fn end_of(log: &Path) -> Vec<u8> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut text = vec![];
    if let Ok(mut file) = std::fs::File::open(log) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        if file.seek(SeekFrom::Start(length.saturating_sub(HANDED_OUT_MAX))).is_ok() {
            let _ = file.take(HANDED_OUT_MAX).read_to_end(&mut text);
        }
    }
    text
}
