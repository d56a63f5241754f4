//! The command line: `serve`, set-up, and the operator's verbs, which work
//! with the daemon running or not.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line's answers go to whoever ran it")]

pub mod config;
pub mod doctor;
pub mod init;
mod ledger;
mod operate;
mod serve;
mod status;
mod work;

use crate::config::{Config, LoadOptions};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

pub use serve::{install_log, serve_until};

/// Turns issues on a Gitea or Forgejo server into isolated cells in which
/// agents work.
#[derive(Debug, Parser)]
#[command(name = "lazarus", version, max_term_width = 100)]
struct Cli {
    /// Configuration file; else LAZARUS_CONFIG, the user's, the system's.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key of the configuration, as in `--set policy.ttl_max=8h`.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the main job on this machine, with a forge of its own.
    Demo(crate::demo::DemoArgs),
    /// Run the daemon.
    Serve,
    /// Prepare a repository on the forge: labels, issue template, webhook.
    #[command(after_help = init::HELP)]
    Init {
        /// OWNER/REPO
        repository: String,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Check everything that has to be right, and say what to do.
    #[command(after_help = doctor::HELP)]
    Doctor,
    /// The configuration as it is in force.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// A cell for one agent on an issue.
    Summon {
        /// The agent's name.
        agent: String,
        /// OWNER/REPO#N
        mission: String,
        #[command(flatten)]
        options: SummonArgs,
    },
    /// One cell with several executors on an issue.
    Team {
        /// Agents, joined by +.
        agents: String,
        /// OWNER/REPO#N
        mission: String,
        #[command(flatten)]
        options: SummonArgs,
    },
    /// Approve the open proposal or request of an issue.
    Approve {
        /// OWNER/REPO#N
        mission: String,
    },
    /// Reject it.
    Reject {
        /// OWNER/REPO#N
        mission: String,
        /// Why.
        reason: Vec<String>,
    },
    /// Invite somebody to a cell.
    Invite {
        /// The cell.
        cell: String,
        /// agent:NAME, bot:NAME or human:LOGIN
        identity: String,
        /// director, executor, observer, guest or substitute
        role: String,
    },
    /// Take an invitation or a participation back.
    Revoke {
        /// The cell.
        cell: String,
        /// agent:NAME, bot:NAME or human:LOGIN
        identity: String,
    },
    /// How cells stand: all live ones, one, or those of an issue.
    Status {
        /// A cell, or OWNER/REPO#N.
        target: Option<String>,
        /// Cells that are over, too.
        #[arg(long)]
        all: bool,
    },
    /// The logs of a cell's agents, as they are on disk.
    Logs {
        /// The cell.
        cell: String,
        /// One agent; else all.
        agent: Option<String>,
        /// How much of the end of each log, in bytes.
        #[arg(long, default_value_t = 65_536)]
        tail: u64,
    },
    /// Hand text to an agent.
    Tell {
        /// The cell.
        cell: String,
        /// The agent.
        agent: String,
        /// The text.
        #[arg(required = true)]
        text: Vec<String>,
    },
    /// Freeze a cell.
    Pause {
        /// The cell.
        cell: String,
    },
    /// Thaw it.
    Resume {
        /// The cell.
        cell: String,
    },
    /// Make a cell's time to live longer.
    Extend {
        /// The cell.
        cell: String,
        /// As in 2h.
        duration: String,
    },
    /// Start a cell's dead agents again.
    Revive {
        /// The cell.
        cell: String,
        /// One agent; else all that died.
        agent: Option<String>,
    },
    /// End a cell.
    Close {
        /// The cell.
        cell: String,
        /// completed, failed or abandoned
        #[arg(long, default_value = "completed")]
        outcome: String,
        /// Why.
        reason: Vec<String>,
    },
    /// Push a cell's work again, where the forge refused it or it was held.
    Publish {
        /// The cell.
        cell: String,
    },
    /// Write a cell's work into a new repository: also what is held.
    Work {
        /// The cell.
        cell: String,
        /// A directory that is not there yet.
        directory: PathBuf,
    },
    /// Bring a closed cell back within its grace period.
    Resurrect {
        /// The cell.
        cell: String,
    },
    /// Scrub a cell; the ledger remains.
    Destroy {
        /// The cell.
        cell: String,
    },
    /// The ledger.
    #[command(subcommand)]
    Ledger(ledger::LedgerVerb),
    /// Shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The manual page.
    Manual,
    /// The built-in agents; run inside cells.
    #[command(subcommand, hide = true)]
    Agent(AgentVerb),
    /// Git's credential helper; run by git.
    #[command(hide = true)]
    GitCredential {
        /// Where to ask.
        socket: PathBuf,
        /// What git wants.
        verb: String,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Every value, and where it came from.
    #[command(after_help = config::HELP)]
    Show,
}

#[derive(Debug, Subcommand)]
enum AgentVerb {
    /// Writes a summary of its mission into a file and commits it.
    Scribe {
        /// The mission.
        #[arg(long)]
        mission: PathBuf,
    },
}

/// What a cell may be asked for.
#[derive(Debug, Args)]
struct SummonArgs {
    /// process, venv, docker or remote
    #[arg(long)]
    backend: Option<String>,
    /// level_1, level_1_5, level_2 or level_3
    #[arg(long)]
    isolation: Option<String>,
    /// As in 4h.
    #[arg(long)]
    ttl: Option<String>,
    /// none, proxy or host
    #[arg(long)]
    network: Option<String>,
    /// The agents' model.
    #[arg(long)]
    model: Option<String>,
    /// What to do, beside the text.
    #[arg(long)]
    task: Option<String>,
}

/// Probes this host and prints the findings as JSON, one line.
pub fn print_probe() {
    let report = crate::sandbox::probe();
    println!("{}", serde_json::to_string(&report).unwrap_or_default());
}

/// Memory of each git that reads a clone in its cell, in bytes.
const HARVEST_MEMORY: u64 = 512 << 20;

/// Hands out what was done in the clone at the working directory and prints what
/// it was as JSON, one line. Runs inside a cell.
pub fn print_harvest(wanted: &str) {
    use crate::workspace::{HandedOut, hand_out};
    // A clone that was made to need more ends the git that reads it, and not this.
    let limits =
        crate::sandbox::Limits { open_files: 1024, file_size: u64::MAX, processes: None, data: Some(HARVEST_MEMORY) };
    let _ = crate::sandbox::set_limits(limits);
    let out = match serde_json::from_str(wanted) {
        Ok(wanted) => hand_out(&wanted),
        Err(error) => HandedOut { unknown: Some(format!("reading what is wanted: {error}")), ..HandedOut::default() },
    };
    println!("{}", serde_json::to_string(&out).unwrap_or_default());
}

/// Runs the command line.
pub fn main() -> ExitCode {
    crate::sandbox::few_heaps();
    let cli = Cli::parse();
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            let text = format!("{:#}", failure.error);
            if failure.json {
                println!("{}", serde_json::json!({"success": false, "cell_id": null, "message": text}));
            } else {
                eprintln!("lazarus: {text}");
            }
            ExitCode::FAILURE
        }
    }
}

struct Failure {
    error: anyhow::Error,
    json: bool,
}

/// A runtime for one command: no threads that it does not need.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()?)
}

fn run(cli: Cli) -> Result<bool, Failure> {
    let json = cli.json;
    try_run(cli).map_err(|error| Failure { error, json })
}

fn load(cli: &Cli) -> anyhow::Result<Config> {
    let flags = cli
        .set
        .iter()
        .map(|pair| {
            pair.split_once('=')
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .ok_or_else(|| anyhow::anyhow!("--set {pair}: the form is KEY=VALUE, as in --set policy.ttl_max=8h"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Config::load(&LoadOptions::of_process(cli.config.clone(), flags))?)
}

fn try_run(cli: Cli) -> anyhow::Result<bool> {
    use operate::Target;
    let json = cli.json;
    // What only prints ends with whoever reads it.
    if matches!(
        cli.verb,
        Verb::Status { .. }
            | Verb::Logs { .. }
            | Verb::Ledger(_)
            | Verb::Config(_)
            | Verb::Completions { .. }
            | Verb::Manual
    ) {
        crate::sandbox::default_broken_pipe();
    }
    // Verbs that need no configuration.
    match &cli.verb {
        Verb::Agent(AgentVerb::Scribe { mission }) => {
            let project = std::env::current_dir()?;
            return Ok(crate::agents::scribe::run(mission, &project)? == ExitCode::SUCCESS);
        }
        Verb::GitCredential { socket, verb } => {
            print!("{}", crate::workspace::credential_helper(socket, verb)?);
            return Ok(true);
        }
        Verb::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "lazarus", &mut std::io::stdout());
            return Ok(true);
        }
        Verb::Manual => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
            return Ok(true);
        }
        Verb::Demo(args) => return crate::demo::run(args),
        _ => {}
    }
    let config = load(&cli)?;
    let operate = |target: Target, line: String| operate::run(&config, target, &line, json);
    match cli.verb {
        Verb::Serve => serve::run(config).map(|()| true),
        Verb::Init { repository, dry_run } => {
            let report = runtime()?.block_on(init::run(&config, &repository, init::InitOptions { dry_run, json }))?;
            println!("{}", report.text());
            Ok(report.success)
        }
        Verb::Doctor => {
            let report = runtime()?.block_on(doctor::run(&config));
            println!("{}", report.text(json));
            Ok(report.success())
        }
        Verb::Config(ConfigVerb::Show) => {
            println!("{}", config::show(&config, json));
            Ok(true)
        }
        Verb::Summon { agent, mission, options } => {
            operate::summon(&config, &format!("summon {agent}"), &mission, options.pairs(), json)
        }
        Verb::Team { agents, mission, options } => {
            operate::summon(&config, &format!("team {agents}"), &mission, options.pairs(), json)
        }
        Verb::Approve { mission } => operate(Target::Mission(mission), "approve".into()),
        Verb::Reject { mission, reason } => operate(Target::Mission(mission), format!("reject {}", reason.join(" "))),
        Verb::Invite { cell, identity, role } => {
            operate(Target::Cell(cell.clone()), format!("invite {identity} {role} {cell}"))
        }
        Verb::Revoke { cell, identity } => operate(Target::Cell(cell.clone()), format!("revoke {identity} {cell}")),
        Verb::Tell { cell, agent, text } => operate(Target::Cell(cell), format!("tell {agent} {}", text.join(" "))),
        Verb::Pause { cell } => operate(Target::Cell(cell.clone()), format!("pause {cell}")),
        Verb::Resume { cell } => operate(Target::Cell(cell.clone()), format!("resume {cell}")),
        Verb::Extend { cell, duration } => operate(Target::Cell(cell.clone()), format!("extend {duration} {cell}")),
        Verb::Revive { cell, agent } => operate(Target::Cell(cell), format!("revive {}", agent.unwrap_or_default())),
        Verb::Close { cell, outcome, reason } => {
            let allowed = ["completed", "failed", "abandoned"];
            if !allowed.contains(&outcome.as_str()) {
                anyhow::bail!("--outcome {outcome}: allowed are {}", allowed.join(", "));
            }
            operate(Target::Cell(cell.clone()), format!("close {outcome} {cell} {}", reason.join(" ")))
        }
        Verb::Publish { cell } => operate(Target::Cell(cell.clone()), format!("publish work {cell}")),
        Verb::Work { cell, directory } => work::run(&config, &cell, &directory, json),
        Verb::Resurrect { cell } => operate(Target::Cell(cell.clone()), format!("resurrect {cell}")),
        Verb::Destroy { cell } => operate(Target::Cell(cell.clone()), format!("destroy {cell}")),
        Verb::Status { target, all } => status::run(&config, target.as_deref(), all, json),
        Verb::Logs { cell, agent, tail } => status::logs(&config, &cell, agent.as_deref(), tail, json),
        Verb::Ledger(verb) => ledger::run(&config, verb, json),
        Verb::Demo(_) | Verb::Agent(_) | Verb::GitCredential { .. } | Verb::Completions { .. } | Verb::Manual => {
            Ok(true)
        }
    }
}

impl SummonArgs {
    fn pairs(self) -> Vec<(&'static str, String)> {
        [
            ("backend", self.backend),
            ("isolation", self.isolation),
            ("ttl", self.ttl),
            ("network", self.network),
            ("model", self.model),
            ("task", self.task),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}
