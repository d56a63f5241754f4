//! The command line: `serve`, set-up, and the operator's verbs, which work
//! with the daemon running or not.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line's answers go to whoever ran it")]

pub mod config;
pub mod doctor;
pub mod form;
pub(crate) mod hooks;
pub mod init;
mod ledger;
mod operate;
mod pins;
mod serve;
mod status;
mod waiting;
mod work;

use crate::config::{Config, LoadOptions};
use crate::operations::{Answer, Form};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

pub use serve::{install_log, serve_engine, serve_until};

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
        /// The repository.
        #[arg(value_name = "OWNER/REPO", required_unless_present_any = ["organisation", "write_templates"])]
        repository: Option<String>,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Replace templates that somebody edited, too.
        #[arg(long)]
        force: bool,
        /// Make one webhook for all repositories of this organisation instead.
        #[arg(long, value_name = "ORG", conflicts_with_all = ["repository", "force"])]
        organisation: Option<String>,
        /// Print what to enter in the forge's page to make that webhook by
        /// hand, with its secret.
        #[arg(long, requires = "organisation")]
        show_secret: bool,
        /// Only write the two issue templates below this directory.
        #[arg(long, value_name = "DIR", conflicts_with_all = ["repository", "organisation", "force", "dry_run"])]
        write_templates: Option<std::path::PathBuf>,
    },
    /// Check everything that has to be right, and say what to do.
    #[command(after_help = doctor::HELP)]
    Doctor,
    /// The configuration as it is in force.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// What the configuration's names mean on the forge.
    #[command(after_help = pins::HELP)]
    Pins {
        #[command(subcommand)]
        verb: Option<pins::PinsVerb>,
    },
    /// A cell for one agent on an issue.
    Summon {
        /// The agent's name.
        agent: String,
        /// The issue.
        #[arg(value_name = "OWNER/REPO#N")]
        mission: String,
        #[command(flatten)]
        options: SummonArgs,
    },
    /// One cell with several executors on an issue.
    Team {
        /// Agents, joined by +.
        #[arg(value_name = "A+B")]
        agents: String,
        /// The issue.
        #[arg(value_name = "OWNER/REPO#N")]
        mission: String,
        #[command(flatten)]
        options: SummonArgs,
    },
    /// Approve the open proposal or request of an issue.
    Approve {
        /// The issue.
        #[arg(value_name = "OWNER/REPO#N")]
        mission: String,
        /// The request's number, where several are open.
        number: Option<u32>,
    },
    /// Reject it.
    Reject {
        /// The issue.
        #[arg(value_name = "OWNER/REPO#N")]
        mission: String,
        /// The request's number, where several are open; then why.
        #[arg(value_name = "[NUMBER] REASON")]
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
        #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
        tail: u64,
    },
    /// Accept an invitation. Only the invited person can, in a comment.
    Accept {
        /// The cell.
        cell: String,
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
    /// Take a snapshot of a cell.
    Checkpoint {
        /// The cell.
        cell: String,
        /// A word for it.
        note: Vec<String>,
    },
    /// Start a cell's dead agents again.
    Revive {
        /// The cell.
        cell: String,
        /// One agent; else all that died.
        agent: Option<String>,
    },
    /// Have another agent take over in a cell.
    Substitute {
        /// The cell.
        cell: String,
        /// The agent that takes over.
        agent: String,
        /// From whom.
        #[arg(long = "for", value_name = "AGENT")]
        instead_of: Option<String>,
    },
    /// Hand a task of a cell over.
    Handoff {
        /// The cell.
        cell: String,
        /// The task.
        task: String,
        /// The agent that has it.
        #[arg(long, value_name = "AGENT")]
        from: String,
        /// The agent that gets it.
        #[arg(long, value_name = "AGENT")]
        to: String,
    },
    /// Put a decision on record.
    Decide {
        /// The cell.
        cell: String,
        /// The decision.
        #[arg(required = true)]
        text: Vec<String>,
    },
    /// Vote on a decision.
    Vote {
        /// The cell.
        cell: String,
        /// yes or no
        vote: String,
        /// The decision's number; else the newest.
        #[arg(long, value_name = "ID")]
        on: Option<String>,
    },
    /// End a cell.
    Close {
        /// The cell.
        cell: String,
        /// completed, failed or abandoned; without it the work says which
        #[arg(long)]
        outcome: Option<String>,
        /// Why.
        reason: Vec<String>,
    },
    /// Let something optional out of a cell, or push its work again.
    Publish {
        /// The cell.
        cell: String,
        /// work, notes, decisions, checkpoint or artifact
        #[arg(default_value = "work")]
        what: String,
        /// The artifact's name.
        name: Option<String>,
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
    /// What happened, entry by entry.
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
    use crate::workspace::{HarvestManifest, hand_out};
    // A clone that was made to need more ends the git that reads it, and not this.
    let limits = crate::sandbox::ProcessLimits {
        open_files: 1024,
        file_size: u64::MAX,
        processes: None,
        data: Some(HARVEST_MEMORY),
    };
    let _ = crate::sandbox::set_limits(limits);
    let out = match serde_json::from_str(wanted) {
        Ok(wanted) => hand_out(&wanted),
        Err(error) => {
            let unknown = Some(format!("reading what is wanted: {error}"));
            HarvestManifest { unknown, ..HarvestManifest::default() }
        }
    };
    println!("{}", serde_json::to_string(&out).unwrap_or_default());
}

/// What a verb has to say, and whether it did what was asked.
pub(crate) struct Said {
    /// Then the exit status is 0.
    success: bool,
    /// Without a newline at its end. With `--json`, one object.
    text: String,
}

impl Said {
    fn done(text: impl Into<String>) -> Self {
        Self { success: true, text: text.into() }
    }
}

/// The command line's grammar: its verbs and their arguments.
pub fn grammar() -> clap::Command {
    Cli::command()
}

/// Runs the command line.
pub fn main() -> ExitCode {
    crate::sandbox::few_heaps();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let (json, form) = (cli.json, cli.verb.form());
    match try_run(cli) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(said)) => match print_line(&said.text) {
            Ok(()) if said.success => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        Err(error) => {
            let message = format!("{error:#}");
            if json {
                let mut object = Answer::refused(message).to_json(form.unwrap_or(Form::Plain));
                if let (None, Some(object)) = (form, object.as_object_mut()) {
                    object.insert("active_cells".to_owned(), json!([]));
                }
                let _ = print_line(&object.to_string());
            } else {
                complain(&message);
            }
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with a command line that cannot be read; or help and
/// version, which clap has as errors too.
fn not_understood(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // The arguments could not be read, so this is as near as it gets.
    let wants_json = std::env::args_os().skip(1).take_while(|a| a != "--").any(|a| a == "--json");
    if wants_json {
        let text = error.render().to_string();
        let text = text.trim().trim_start_matches("error: ");
        let _ = print_line(&json!({"success": asked_for, "message": text}).to_string());
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Prints a line. Whoever reads it may have gone: that is no panic.
fn print_line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "{text}").and_then(|()| out.flush());
    if let Err(error) = &printed
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        complain(&format!("the answer could not be written to standard output: {error}"));
    }
    printed
}

/// Says what went wrong. Words of others may be in it: they do not steer the
/// terminal.
fn complain(message: &str) {
    let message = message.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}");
    let _ = writeln!(std::io::stderr(), "lazarus: {message}");
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

/// Runs a verb. `None` where it has said all that there is to say.
fn try_run(cli: Cli) -> anyhow::Result<Option<Said>> {
    use operate::Target;
    let json = cli.json;
    let form = cli.verb.form().unwrap_or(Form::Plain);
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
            let ended = crate::agents::scribe::run(mission, &project)?;
            anyhow::ensure!(ended == ExitCode::SUCCESS, "the mission is not done");
            return Ok(None);
        }
        Verb::GitCredential { socket, verb } => {
            let mut out = std::io::stdout().lock();
            write!(out, "{}", crate::repository::credential_helper(socket, verb)?)?;
            return Ok(None);
        }
        Verb::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(*shell, &mut Cli::command(), "lazarus", &mut script);
            return Ok(Some(document("script", &format!("completions for {shell}"), &script, json)));
        }
        Verb::Manual => {
            let mut page = vec![];
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            return Ok(Some(document("page", "the manual page", &page, json)));
        }
        Verb::Demo(_) if json => anyhow::bail!("demo is a play in the terminal; it has no JSON"),
        Verb::Demo(args) => return crate::demo::run(args).map(|()| None),
        _ => {}
    }
    let config = load(&cli)?;
    let operate = |target: Target, line: String| {
        let answer = operate::run(&config, target, &line)?;
        operate::said(&answer, form, json).map(Some)
    };
    let on_cell = |cell: String, line: String| operate(Target::Cell(cell), line);
    let summon = |line: String, mission: &str, options: SummonArgs| {
        let answer = operate::summon(&config, &line, mission, options.pairs())?;
        operate::said(&answer, form, json).map(Some)
    };
    match cli.verb {
        Verb::Serve => {
            serve::run(config)?;
            Ok(json.then(|| Said::done(json!({"success": true, "message": "stopped; cells go on"}).to_string())))
        }
        Verb::Init { write_templates: Some(directory), .. } => {
            let written = init::write_templates(&config, &directory)?;
            let paths: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
            Ok(Some(document("templates", "the issue templates are written", paths.join("\n").as_bytes(), json)))
        }
        Verb::Init { organisation: Some(organisation), show_secret: true, .. } => {
            let text = runtime()?.block_on(init::organisation_by_hand(&config, &organisation))?;
            Ok(Some(document("by_hand", "enter this on the organisation's page", text.as_bytes(), json)))
        }
        Verb::Init { repository, dry_run, force, organisation, .. } => {
            let options = init::InitOptions { dry_run, force, json };
            let report = match organisation {
                Some(organisation) => {
                    runtime()?.block_on(init::run_for_organisation(&config, &organisation, options))?
                }
                None => runtime()?.block_on(init::run(&config, &repository.unwrap_or_default(), options))?,
            };
            Ok(Some(Said { success: report.success, text: report.text() }))
        }
        Verb::Doctor => {
            let report = runtime()?.block_on(doctor::run(&config));
            Ok(Some(Said { success: report.success(), text: report.text(json) }))
        }
        Verb::Config(ConfigVerb::Show) => Ok(Some(Said::done(config::show(&config, json)))),
        Verb::Summon { agent, mission, options } => summon(format!("summon {agent}"), &mission, options),
        Verb::Team { agents, mission, options } => summon(format!("team {agents}"), &mission, options),
        Verb::Approve { mission, number } => {
            let number = number.map(|n| format!(" {n}")).unwrap_or_default();
            operate(Target::Mission(mission), format!("approve{number}"))
        }
        Verb::Pins { verb } => pins::run(&config, verb, json).map(Some),
        Verb::Reject { mission, reason } => operate(Target::Mission(mission), format!("reject {}", reason.join(" "))),
        Verb::Invite { cell, identity, role } => on_cell(cell.clone(), format!("invite {identity} {role} {cell}")),
        Verb::Revoke { cell, identity } => on_cell(cell.clone(), format!("revoke {identity} {cell}")),
        Verb::Accept { cell } => on_cell(cell.clone(), format!("accept {cell}")),
        Verb::Tell { cell, agent, text } => on_cell(cell, format!("tell {agent} {}", text.join(" "))),
        Verb::Pause { cell } => on_cell(cell.clone(), format!("pause {cell}")),
        Verb::Resume { cell } => on_cell(cell.clone(), format!("resume {cell}")),
        Verb::Extend { cell, duration } => on_cell(cell.clone(), format!("extend {duration} {cell}")),
        Verb::Checkpoint { cell, note } => on_cell(cell, format!("checkpoint {}", note.join(" "))),
        Verb::Revive { cell, agent } => on_cell(cell, format!("revive {}", agent.unwrap_or_default())),
        Verb::Substitute { cell, agent, instead_of } => {
            let whom = instead_of.map(|agent| format!(" for {agent}")).unwrap_or_default();
            on_cell(cell, format!("substitute {agent}{whom}"))
        }
        Verb::Handoff { cell, task, from, to } => on_cell(cell, format!("handoff {task} from {from} to {to}")),
        Verb::Decide { cell, text } => on_cell(cell, format!("decide {}", text.join(" "))),
        Verb::Vote { cell, vote, on } => {
            let on = on.map(|id| format!(" on {id}")).unwrap_or_default();
            on_cell(cell, format!("vote {vote}{on}"))
        }
        Verb::Close { cell, outcome, reason } => {
            let allowed = ["completed", "failed", "abandoned"];
            let outcome = outcome.unwrap_or_default();
            if !outcome.is_empty() && !allowed.contains(&outcome.as_str()) {
                anyhow::bail!("--outcome {outcome}: allowed are {}", allowed.join(", "));
            }
            on_cell(cell.clone(), format!("close {outcome} {cell} {}", reason.join(" ")))
        }
        Verb::Publish { cell, what, name } => {
            let allowed = ["work", "notes", "decisions", "checkpoint", "artifact"];
            if !allowed.contains(&what.as_str()) {
                anyhow::bail!("WHAT {what}: allowed are {}", allowed.join(", "));
            }
            match (what == "artifact", &name) {
                (true, None) => anyhow::bail!("NAME is missing: which file of shared/artifacts"),
                (false, Some(name)) => anyhow::bail!("NAME {name}: only an artifact has a name"),
                _ => {}
            }
            on_cell(cell.clone(), format!("publish {what} {} {cell}", name.unwrap_or_default()))
        }
        Verb::Work { cell, directory } => work::run(&config, &cell, &directory, json).map(Some),
        Verb::Resurrect { cell } => on_cell(cell.clone(), format!("resurrect {cell}")),
        Verb::Destroy { cell } => on_cell(cell.clone(), format!("destroy {cell}")),
        Verb::Status { target, all } => status::run(&config, target.as_deref(), all, json).map(Some),
        Verb::Logs { cell, agent, tail } => status::logs(&config, &cell, agent.as_deref(), tail, json).map(Some),
        Verb::Ledger(verb) => ledger::run(&config, verb, json).map(Some),
        Verb::Demo(_) | Verb::Agent(_) | Verb::GitCredential { .. } | Verb::Completions { .. } | Verb::Manual => {
            Ok(None)
        }
    }
}

/// A text that is not about any cell, as it is or as JSON.
fn document(key: &str, message: &str, text: &[u8], json: bool) -> Said {
    let text = String::from_utf8_lossy(text);
    Said::done(if json {
        json!({"success": true, "message": message, key: text}).to_string()
    } else {
        text.trim_end_matches('\n').to_owned()
    })
}

impl Verb {
    /// What keys its answer has. `None` for a list of cells.
    fn form(&self) -> Option<Form> {
        Some(match self {
            Self::Status { target, .. } => match target {
                Some(target) if !target.contains('#') => Form::OneCell,
                _ => return None,
            },
            Self::Summon { .. } => Form::Summon,
            Self::Team { .. } => Form::Team,
            Self::Invite { .. } => Form::Invite,
            Self::Approve { .. }
            | Self::Reject { .. }
            | Self::Revoke { .. }
            | Self::Accept { .. }
            | Self::Logs { .. }
            | Self::Tell { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Extend { .. }
            | Self::Checkpoint { .. }
            | Self::Revive { .. }
            | Self::Substitute { .. }
            | Self::Handoff { .. }
            | Self::Decide { .. }
            | Self::Vote { .. }
            | Self::Close { .. }
            | Self::Publish { .. }
            | Self::Resurrect { .. }
            | Self::Destroy { .. } => Form::OneCell,
            Self::Demo(_)
            | Self::Serve
            | Self::Init { .. }
            | Self::Doctor
            | Self::Config(_)
            | Self::Ledger(_)
            | Self::Pins { .. }
            | Self::Work { .. }
            | Self::Completions { .. }
            | Self::Manual
            | Self::Agent(_)
            | Self::GitCredential { .. } => Form::Plain,
        })
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
