//! Having the work of a cell handed out: by git inside the cell's own walls, because the clone is the agents' and may
//! be made to run anything.

use super::ProcessBackend;
use super::place::Inside;
use crate::backend::{CellSpec, HandedWork, HarvestRequest};
use crate::keeper::{AgentState, HARVESTER, Order, StartAgent, View};
use crate::sandbox::{LandlockPaths, quota};
use crate::workspace::{HarvestManifest, HarvestOrder, HomeError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the work may take to be handed out.
const HAND_OUT_MAX: Duration = Duration::from_secs(300);
/// Longest line in which it is said what was handed out, in bytes.
const HANDED_OUT_MAX: u64 = 128 << 10;

impl ProcessBackend {
    /// Has the work handed out. `run` is larger each time.
    pub(super) async fn hand_out(&self, spec: &CellSpec, request: HarvestRequest, run: u32) -> HandedWork {
        match self.try_to_hand_out(spec, request, run).await {
            Ok(manifest) => {
                let directory = self.roots.home(&spec.cell).path.join("home").join(HARVESTER);
                HandedWork::in_directory(manifest, &directory)
            }
            Err(why) => HandedWork::unknown(why),
        }
    }

    /// The error is why it could not, in words.
    async fn try_to_hand_out(
        &self,
        spec: &CellSpec,
        request: HarvestRequest,
        run: u32,
    ) -> Result<HarvestManifest, String> {
        let keeper = self.keeper(&spec.cell).ok_or("the cell's keeper is gone")?;
        let home = self.roots.home(&spec.cell);
        let inside = Inside::of(&keeper.running, &home);
        // Only now: most cells are not looked into before their end, and a start
        // should not wait for what that takes.
        let (place, uid) = (home.clone(), self.agents_uid(spec.slot).await);
        let made = tokio::task::spawn_blocking(move || {
            place.make_agent(HARVESTER, uid)?;
            // Where there are quotas: reading the work is not the agents' doing.
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
        // The last: the log is appended to, and a harvest may be read twice.
        let line = text.split(|b| *b == b'\n').rfind(|l| l.starts_with(b"{")).unwrap_or_default();
        serde_json::from_slice(line).map_err(|_| {
            let words: String = String::from_utf8_lossy(&text).chars().take(200).collect();
            format!("the clone could not be read: {}", words.trim())
        })
    }
}

/// What of a harvester's log is read: its last line, of which agents may have
/// made whatever they like.
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
