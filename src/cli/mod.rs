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
mod verbs;
mod work;

use crate::config::{Config, LoadOptions};
use crate::operations::{Answer, Form};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

pub use serve::{install_log, serve_engine, serve_until};
use verbs::Verb;

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

/// The verbs that are no commands of the table.
#[derive(Debug, Subcommand)]
enum OwnVerb {
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
    /// Write a cell's work into a new repository: also what is held.
    Work {
        /// The cell.
        cell: String,
        /// A directory that is not there yet.
        directory: PathBuf,
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
                let _ = print_line(&Answer::refused(message).to_json(form).to_string());
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
    let json = cli.json;
    let verb = match &cli.verb {
        Verb::Command(command) => {
            let config = load(&cli)?;
            let answer = operate::run(&config, command.request()?)?;
            return operate::said(&answer, cli.verb.form(), json).map(Some);
        }
        Verb::Own(verb) => verb,
    };
    // What only prints ends with whoever reads it.
    if matches!(
        verb,
        OwnVerb::Status { .. }
            | OwnVerb::Logs { .. }
            | OwnVerb::Ledger(_)
            | OwnVerb::Config(_)
            | OwnVerb::Completions { .. }
            | OwnVerb::Manual
    ) {
        crate::sandbox::default_broken_pipe();
    }
    // Verbs that need no configuration.
    match verb {
        OwnVerb::Agent(AgentVerb::Scribe { mission }) => {
            let project = std::env::current_dir()?;
            let ended = crate::agents::scribe::run(mission, &project)?;
            anyhow::ensure!(ended == ExitCode::SUCCESS, "the mission is not done");
            return Ok(None);
        }
        OwnVerb::GitCredential { socket, verb } => {
            let mut out = std::io::stdout().lock();
            write!(out, "{}", crate::repository::credential_helper(socket, verb)?)?;
            return Ok(None);
        }
        OwnVerb::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(*shell, &mut Cli::command(), "lazarus", &mut script);
            return Ok(Some(document("script", &format!("completions for {shell}"), &script, json)));
        }
        OwnVerb::Manual => {
            let mut page = vec![];
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            return Ok(Some(document("page", "the manual page", &page, json)));
        }
        OwnVerb::Demo(_) if json => anyhow::bail!("demo is a play in the terminal; it has no JSON"),
        OwnVerb::Demo(args) => return crate::demo::run(args).map(|()| None),
        _ => {}
    }
    let config = load(&cli)?;
    let Verb::Own(verb) = cli.verb else { return Ok(None) };
    match verb {
        OwnVerb::Serve => {
            serve::run(config)?;
            Ok(json.then(|| Said::done(json!({"success": true, "message": "stopped; cells go on"}).to_string())))
        }
        OwnVerb::Init { write_templates: Some(directory), .. } => {
            let written = init::write_templates(&config, &directory)?;
            let paths: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
            Ok(Some(document("templates", "the issue templates are written", paths.join("\n").as_bytes(), json)))
        }
        OwnVerb::Init { organisation: Some(organisation), show_secret: true, .. } => {
            let text = runtime()?.block_on(init::organisation_by_hand(&config, &organisation))?;
            Ok(Some(document("by_hand", "enter this on the organisation's page", text.as_bytes(), json)))
        }
        OwnVerb::Init { repository, dry_run, force, organisation, .. } => {
            let options = init::InitOptions { dry_run, force, json };
            let report = match organisation {
                Some(organisation) => {
                    runtime()?.block_on(init::run_for_organisation(&config, &organisation, options))?
                }
                None => runtime()?.block_on(init::run(&config, &repository.unwrap_or_default(), options))?,
            };
            Ok(Some(Said { success: report.success, text: report.text() }))
        }
        OwnVerb::Doctor => {
            let report = runtime()?.block_on(doctor::run(&config));
            Ok(Some(Said { success: report.success(), text: report.text(json) }))
        }
        OwnVerb::Config(ConfigVerb::Show) => Ok(Some(Said::done(config::show(&config, json)))),
        OwnVerb::Pins { verb } => pins::run(&config, verb, json).map(Some),
        OwnVerb::Work { cell, directory } => work::run(&config, &cell, &directory, json).map(Some),
        OwnVerb::Status { target, all } => status::run(&config, target.as_deref(), all, json).map(Some),
        OwnVerb::Logs { cell, agent, tail } => status::logs(&config, &cell, agent.as_deref(), tail, json).map(Some),
        OwnVerb::Ledger(verb) => ledger::run(&config, verb, json).map(Some),
        OwnVerb::Demo(_)
        | OwnVerb::Agent(_)
        | OwnVerb::GitCredential { .. }
        | OwnVerb::Completions { .. }
        | OwnVerb::Manual => Ok(None),
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

impl OwnVerb {
    /// What keys its answer has.
    fn form(&self) -> Form {
        match self {
            Self::Status { target: Some(target), .. } if !target.contains('#') => Form::OneCell,
            Self::Status { .. } => Form::Cells,
            Self::Logs { .. } => Form::OneCell,
            _ => Form::Plain,
        }
    }
}
