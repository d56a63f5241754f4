//! What an agent is started as: its profile's command, what it is told, and what it may do.

use crate::agents::CommandContext;
use crate::backend::{Access, AgentSpec};
use crate::cell::{AgentRun, Cell, Identity, Limits, Role};
use crate::engine::Engine;
use crate::mission::ApprovedText;

/// The mission as an agent gets it: the approved title and body, byte for
/// byte, and what it was told beside it.
pub(super) fn prompt(text: &ApprovedText, told: Option<&str>) -> String {
    let mut prompt = format!("# {}\n\n{}\n", text.title, text.body);
    if let Some(told) = told.filter(|t| !t.is_empty()) {
        prompt.push_str(&format!("\n## Also\n\n{told}\n"));
    }
    prompt
}

/// How to start one run of a cell. The error is for people.
pub(super) fn spec(
    engine: &Engine,
    cell: &Cell,
    run: &AgentRun,
    prompt: String,
    mission: &str,
) -> Result<AgentSpec, String> {
    let profile = engine.context.profiles.get(&run.agent).ok_or("there is no such agent profile any more")?;
    let credentials = |name: &str| engine.credential(name);
    let mut command = profile
        .command(&CommandContext {
            model: cell.spec.model.as_deref(),
            resume: None,
            host_env: &engine.host_env,
            credentials: &credentials,
        })
        .map_err(|e| e.to_string())?;
    let mail = format!("{}@agents.lazarus.invalid", run.agent);
    let identity = format!("agent:{}", run.agent);
    for (name, value) in [
        ("LAZARUS_CELL", cell.id.as_str()),
        ("LAZARUS_MISSION", mission),
        ("GIT_AUTHOR_NAME", &identity),
        ("GIT_AUTHOR_EMAIL", &mail),
        ("GIT_COMMITTER_NAME", &identity),
        ("GIT_COMMITTER_EMAIL", &mail),
    ] {
        command.or_env(name, value);
    }
    for (name, value) in limits_for_runtimes(&engine.context.limits_of(cell)) {
        command.or_env(name, value);
    }
    let role = cell
        .participants
        .iter()
        .find(|p| p.identity.name() == run.agent && matches!(p.identity, Identity::Agent(_)))
        .map_or(Role::Executor, |p| p.role);
    Ok(AgentSpec {
        agent: run.agent.clone(),
        run: run.number,
        command,
        prompt,
        access: if role.works() { Access::Work } else { Access::Observe },
        worktree: engine.context.config.policy.worktrees,
        ptrace: profile.ptrace,
    })
}

/// A cell's limits in the words of runtimes that would plan for the whole machine's memory and processors otherwise:
/// they cannot see the limits from inside. `JDK_JAVA_OPTIONS` is read by `java` alone, which says so in one line on
/// its standard error; the other variable for it is louder.
fn limits_for_runtimes(limits: &Limits) -> [(&'static str, String); 4] {
    let mib = limits.memory >> 20;
    let processors = limits.cpu.div_ceil(1000).max(1);
    [
        // Of what a program uses beside its heap (code, stacks, buffers) something is left.
        ("GOMEMLIMIT", format!("{}MiB", (mib * 9 / 10).max(1))),
        ("GOMAXPROCS", processors.to_string()),
        // What node takes by itself where there is plenty is not raised.
        ("NODE_OPTIONS", format!("--max-old-space-size={}", (mib * 3 / 4).clamp(16, 4096))),
        ("JDK_JAVA_OPTIONS", format!("-XX:MaxRAM={mib}m -XX:ActiveProcessorCount={processors}")),
    ]
}
