//! Turns an agent's description into the order that starts it in a cell of this host.

use super::ProcessBackend;
use super::connection::Keeper;
use super::missing_program::where_it_is;
use super::place::Inside;
use crate::agents::{Places, Profile};
use crate::backend::{Access, AgentSpec, BackendError, CellSpec};
use crate::keeper::{AGENT_ID, AgentState, NOT_IN_CELL, Order, StartAgent, View};
use crate::sandbox::LandlockPaths;
use crate::workspace::HomeError;
use std::path::PathBuf;
use std::time::Duration;

/// How long an agent's program may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// Paths that an agent with a root of its own may write, in addition to the cell's own.
const WRITABLE: [&str; 9] =
    ["/tmp", "/run", "/dev/shm", "/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/pts", "/dev/ptmx"];

impl ProcessBackend {
    /// Starts an agent, unless that run was already started. Returns once its program runs.
    pub(super) async fn start_run(&self, spec: &CellSpec, agent: AgentSpec) -> Result<(), BackendError> {
        let keeper = self.keeper(&spec.cell).ok_or(BackendError::Gone)?;
        let order = self.order_for(spec, agent, &keeper).await?;
        let (agent, run) = (order.agent.clone(), order.run);
        keeper.orders.send(Order::Start(order)).map_err(|_| BackendError::Gone)?;
        let there = |agents: &[AgentState]| agents.iter().any(|a| a.agent == agent && a.run >= run);
        let states = self.wait_for(&keeper, START_MAX, there).await?;
        match states.iter().find(|a| a.agent == agent && a.run == run) {
            Some(state) if state.code == Some(127) && state.note.is_some() => {
                let why = state.note.clone().unwrap_or_default();
                Err(BackendError::Start(if why.contains(NOT_IN_CELL) {
                    format!("{why}; {}", where_it_is(&why, &agent, &self.host_env))
                } else {
                    why
                }))
            }
            _ => Ok(()),
        }
    }

    /// Makes what the agent needs in its cell, and replaces symbolic paths in its command by real ones.
    async fn order_for(&self, spec: &CellSpec, agent: AgentSpec, keeper: &Keeper) -> Result<StartAgent, BackendError> {
        let AgentSpec { agent, run, mut command, prompt, access, worktree, ptrace } = agent;
        let home = self.roots.home(&spec.cell);
        let (place, name, uid) = (home.clone(), agent.clone(), self.agents_uid(spec.slot).await);
        let prompt = tokio::task::spawn_blocking(move || {
            place.make_agent(&name, uid)?;
            place.write_prompt(&name, run, &prompt)
        });
        let prompt: Result<String, HomeError> = prompt.await.map_err(|_| BackendError::Gone)?;
        let inside = Inside::of(&keeper.running, &home);
        let (prompt, own_home, project) =
            (inside.at(".lazarus").join(prompt?), inside.home_of(&agent), inside.at("project"));
        let profile = self.profiles.get(&agent);
        let search_path = profile.map_or_else(|| crate::agents::PATH.to_owned(), Profile::search_path);
        let messages = inside.at(".lazarus/messages").join(format!("{agent}.jsonl"));
        for (name, path) in [
            ("CELL_HOME", inside.at("")),
            ("LAZARUS_MESSAGES", messages),
            // Files in this directory count towards the cell's disk limit; `/tmp` is in memory.
            ("TMPDIR", own_home.join("tmp")),
        ] {
            command.or_env(name, path.display().to_string());
        }
        if inside.has_root() {
            command.or_env("XDG_RUNTIME_DIR", format!("/run/user/{}", self.uid_inside().await));
        }
        if !(ptrace && inside.has_root()) {
            // The leak check of a sanitizer stops a program's threads by tracing them. If tracing is not allowed,
            // the program would end with an error of that check instead of its own status.
            for name in ["ASAN_OPTIONS", "LSAN_OPTIONS"] {
                command.or_env(name, "detect_leaks=0");
            }
        }
        let places = Places { prompt_file: &prompt, home: &own_home, project: &project, programs: &search_path };
        let invocation = command.at(&places).map_err(|e| BackendError::Start(e.to_string()))?;
        let mut env: Vec<(String, String)> =
            invocation.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        let mut argv = invocation.argv.clone();
        let program = inside.program().map_err(BackendError::io("finding this program's file"))?;
        let mut write = vec![own_home];
        let view = match access {
            Access::Work => View::Work,
            Access::Observe => View::Observe,
        };
        if view == View::Work {
            write.extend([inside.at("shared"), project, inside.at("work")]);
            if worktree {
                // The agent makes its own work tree, with its own rights, and continues there.
                let own = [program.clone(), "cell-worktree".into(), inside.at("work").join(&agent)];
                argv.splice(0..0, own.map(|part| part.display().to_string()));
            }
        }
        let mut read = vec![];
        if inside.has_root() {
            read.push(PathBuf::from("/"));
            write.extend(WRITABLE.map(PathBuf::from));
        } else {
            // Without a root of its own it has no `/run/lazarus` in which to find the program.
            for word in argv.iter_mut().filter(|word| *word == "lazarus").take(1) {
                *word = program.display().to_string();
            }
            // Landlock denies access to the host's configuration. For git a denied file is an error, but a missing
            // one is not.
            env.push(("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()));
            let own = [inside.at(".lazarus"), inside.at("project"), inside.at("work"), inside.at("shared")];
            let shown = profile.map(Profile::shown_paths).unwrap_or_default();
            read = self.read_paths_without_a_root(&shown, &own);
            read.extend([program, PathBuf::from("/proc")]);
            write.push(PathBuf::from("/dev/null"));
        }
        Ok(StartAgent {
            agent,
            run,
            argv,
            env,
            stdin: invocation.stdin,
            cwd: invocation.cwd,
            view,
            paths: LandlockPaths { read, write },
            ptrace,
        })
    }

    /// The user id that agents at `level_2` see as their own.
    async fn uid_inside(&self) -> u32 {
        match self.host.report().await {
            // `bwrap` can map only the one id that exists.
            Ok(report) if !report.namespaces => rustix::process::geteuid().as_raw(),
            _ => AGENT_ID,
        }
    }
}
