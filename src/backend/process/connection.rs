//! The connection to a keeper: the daemon sends orders and receives events about agents.

use super::ProcessBackend;
use super::launcher::reap;
use super::outside::wait_for_end;
use super::usage::{group_of, read_json, usage_of};
use crate::backend::{BackendError, CellEvent, Running};
use crate::cell::{CellId, Exit, Isolation};
use crate::keeper::{AgentState, Event, ExitRecord, HARVESTER, Order};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// What is known about a keeper that is alive.
pub(super) struct Keeper {
    pub orders: mpsc::UnboundedSender<Order>,
    pub agents: watch::Receiver<Option<Vec<AgentState>>>,
    pub running: Running,
}

/// Encodes a message as one line of JSON.
pub(super) fn line_of(message: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

impl ProcessBackend {
    /// The keeper of a cell; `None` if there is no connection to it.
    pub(super) fn keeper(&self, cell: &CellId) -> Option<Arc<Keeper>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).get(cell).cloned()
    }

    /// Connects to a keeper and starts listening to it.
    pub(super) async fn connect(
        &self,
        cell: &CellId,
        run_dir: &Path,
        known: Option<Running>,
    ) -> Result<(Vec<AgentState>, Vec<String>, Running), BackendError> {
        // A socket's path may have at most 107 bytes. Through a descriptor of its directory the path is always
        // short.
        let directory =
            std::fs::File::open(run_dir).map_err(BackendError::io(format!("opening {}", run_dir.display())))?;
        let short = format!("/proc/self/fd/{}/control.sock", directory.as_raw_fd());
        let stream = UnixStream::connect(&short).await.map_err(BackendError::io("connecting to the cell's keeper"))?;
        drop(directory);
        let (read, mut write) = stream.into_split();
        // A small buffer: hundreds of these connections wait for rare, short lines.
        let mut lines = tokio::io::BufReader::with_capacity(512, read).lines();
        let first = tokio::time::timeout(Duration::from_secs(10), lines.next_line())
            .await
            .map_err(|_| BackendError::Gone)?
            .map_err(BackendError::io("listening to the cell's keeper"))?
            .ok_or(BackendError::Gone)?;
        let Ok(Event::Hello { cell: named, sandboxed, applied, agents }) = serde_json::from_str(&first) else {
            return Err(BackendError::Start(
                "the keeper did not send its greeting first; look into keeper.log in the cell's run directory"
                    .to_owned(),
            ));
        };
        if named != cell.as_str() {
            return Err(BackendError::Start(format!(
                "the control socket belongs to the keeper of another cell, {named}"
            )));
        }
        let (orders, mut to_send) = mpsc::unbounded_channel::<Order>();
        let (states, agents_seen) = watch::channel(Some(agents.clone()));
        let running = known.unwrap_or_default();
        // What the keeper has set up, which may differ from what this host supports now.
        let level = if sandboxed { Isolation::Level2 } else { Isolation::Level1 };
        let running = Running { applied: applied.clone(), isolation: Some(level), ..running };
        let keeper = Arc::new(Keeper { orders, agents: agents_seen, running: running.clone() });
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).insert(cell.clone(), Arc::clone(&keeper));
        drop(keeper);
        for state in agents.iter().filter(|a| !a.running) {
            report(&self.events, cell, state);
        }
        let (events, cell, run_dir) = (self.events.clone(), cell.clone(), run_dir.to_owned());
        let (keepers, children) = (Arc::clone(&self.keepers), Arc::clone(&self.children));
        tokio::spawn(async move {
            let mut killed_for_memory = group_of(&run_dir).killed_for_memory();
            loop {
                tokio::select! {
                    order = to_send.recv() => {
                        let Some(order) = order else { break };
                        let mut line = line_of(&order);
                        let sent = write.write_all(&line).await;
                        zeroize::Zeroize::zeroize(&mut line);
                        if sent.is_err() {
                            break;
                        }
                    }
                    line = lines.next_line() => {
                        let Ok(Some(line)) = line else { break };
                        let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
                        if let Event::Started(mut state) | Event::Ended(mut state) = event {
                            let ended = !state.running;
                            if ended {
                                // Read while the control group exists: systemd removes it together with the last
                                // process.
                                usage_of(&run_dir);
                            }
                            if ended && state.signal == Some(libc::SIGKILL) && state.note.as_deref() == Some("killed") {
                                let killed_now = group_of(&run_dir).killed_for_memory();
                                if killed_now > killed_for_memory {
                                    state.note = Some("ended by the limit of memory".to_owned());
                                }
                                killed_for_memory = killed_now;
                            }
                            states.send_modify(|known| {
                                let known = known.get_or_insert_default();
                                known.retain(|a| a.agent != state.agent);
                                known.push(state.clone());
                            });
                            if ended {
                                report(&events, &cell, &state);
                            }
                        }
                    }
                }
            }
            // The keeper has ended, or is about to. The files that it left say how.
            let dir = run_dir.clone();
            let child = children.lock().unwrap_or_else(PoisonError::into_inner).remove(&cell);
            let _ = tokio::task::spawn_blocking(move || {
                wait_for_end(&dir);
                if let Some(child) = child {
                    reap(child);
                }
            })
            .await;
            let last = states.borrow().clone().unwrap_or_default();
            for state in settle_by_record(&run_dir, last) {
                report(&events, &cell, &state);
            }
            keepers.lock().unwrap_or_else(PoisonError::into_inner).remove(&cell);
            states.send_replace(None);
        });
        Ok((agents, applied, running))
    }

    /// Waits until `wanted` holds for the states of a keeper's agents.
    pub(super) async fn wait_for(
        &self,
        keeper: &Keeper,
        limit: Duration,
        mut done: impl FnMut(&[AgentState]) -> bool,
    ) -> Result<Vec<AgentState>, BackendError> {
        let mut agents = keeper.agents.clone();
        let found = tokio::time::timeout(limit, agents.wait_for(|a| a.as_ref().is_none_or(|a| done(a)))).await;
        match found {
            Ok(Ok(states)) => states.clone().ok_or(BackendError::Gone),
            Ok(Err(_)) => Err(BackendError::Gone),
            Err(_) => Err(BackendError::Start("the cell's keeper did not answer in time".to_owned())),
        }
    }
}

/// Reports the end of an agent's run as an event. A harvest is not an agent, so it is not reported.
pub(super) fn report(events: &mpsc::UnboundedSender<CellEvent>, cell: &CellId, state: &AgentState) {
    if state.agent == HARVESTER {
        return;
    }
    let exit =
        Exit { code: state.code, signal: state.signal, success: state.code == Some(0), note: state.note.clone() };
    let _ = events.send(CellEvent::AgentEnded { cell: cell.clone(), agent: state.agent.clone(), run: state.run, exit });
}

/// The final state of every run: from the exit record, or as killed if there is none.
pub(super) fn settle_by_record(run_dir: &Path, known: Vec<AgentState>) -> Vec<AgentState> {
    let record: Option<ExitRecord> = read_json(run_dir.join("keeper/exit.json"));
    let mut ended: Vec<AgentState> = record.map(|r| r.agents).unwrap_or_default();
    for state in known {
        if state.running && !ended.iter().any(|e| e.agent == state.agent && e.run >= state.run) {
            ended.push(AgentState {
                running: false,
                signal: Some(libc::SIGKILL),
                note: Some("the cell's keeper was killed".to_owned()),
                ..state
            });
        }
    }
    ended
}
